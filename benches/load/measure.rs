//! Several servers under the same load, in turn: so that whatever else the machine does hits all of them.

use std::time::Duration;

use crate::{
    Result,
    exchange::Exchange,
    load::{Load, Sample, Until},
    process::Process,
    spread::Spread,
};

/// How often, and how long.
#[derive(Clone, Copy)]
pub struct Plan {
    pub repetitions: usize,
    pub time: Duration,
}

/// The load before each measurement, so that connections are made and caches are warm.
const WARM_UP: Duration = Duration::from_millis(200);

/// What is measured: a server and what it is asked.
pub struct Target<'a> {
    pub name: &'static str,
    pub server: &'a Process,
    pub exchange: Exchange,
}

impl<'a> Target<'a> {
    pub fn new(name: &'static str, server: &'a Process, exchange: Exchange) -> Self {
        Self { name, server, exchange }
    }
}

/// What one load on one server showed.
#[derive(Clone, Copy)]
pub struct Measurement {
    /// Requests per second.
    pub rate: f64,
    /// Processor time of the server, in microseconds for a request.
    pub cpu: f64,
    /// How much of the time of its cores the server was busy, in percent.
    pub busy: f64,
    /// In microseconds.
    pub p50: f64,
    pub p99: f64,
}

/// What all the loads on one server showed.
pub struct Series(pub Vec<Measurement>);

impl Series {
    pub fn spread(&self, figure: impl Fn(&Measurement) -> f64) -> Spread {
        Spread::of(self.0.iter().map(figure))
    }

    /// How this one compares to `other`, turn by turn.
    pub fn against(&self, other: &Self, ratio: impl Fn(&Measurement, &Measurement) -> f64) -> Spread {
        Spread::of(self.0.iter().zip(&other.0).map(|(own, other)| ratio(own, other)))
    }
}

/// Each target in turn, again and again.
pub fn in_turn<const N: usize>(
    mut targets: [Target<'_>; N],
    connections: usize,
    plan: Plan,
) -> Result<[Series; N]> {
    let mut series = [const { Series(Vec::new()) }; N];
    for _ in 0..plan.repetitions {
        for (target, series) in targets.iter_mut().zip(&mut series) {
            series.0.push(once(target, connections, plan.time)?);
        }
    }
    Ok(series)
}

/// One load on one target, behind a warm-up.
fn once(target: &mut Target<'_>, connections: usize, time: Duration) -> Result<Measurement> {
    let (server, exchange) = (target.server, &mut target.exchange);
    let measured = Load::open(server.address(), connections, exchange).and_then(|mut load| {
        load.run(exchange, Until::time(WARM_UP))?;
        let cpu = server.cpu()?;
        let sample = load.run(exchange, Until::time(time))?;
        Ok(Measurement::of(&sample, server.cpu()? - cpu, server.cores()))
    });
    measured.map_err(|error| format!("{}: {error}", target.name).into())
}

impl Measurement {
    fn of(sample: &Sample, cpu: Duration, cores: usize) -> Self {
        let requests = sample.requests as f64;
        let time_of_cores = sample.elapsed.as_secs_f64() * cores as f64;
        let percentile = |it: usize| {
            let place = (sample.latencies.len() * it / 100).min(sample.latencies.len().saturating_sub(1));
            sample.latencies.get(place).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
        };
        Self {
            rate: requests / sample.elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / requests,
            busy: 100.0 * cpu.as_secs_f64() / time_of_cores,
            p50: percentile(50),
            p99: percentile(99),
        }
    }
}
