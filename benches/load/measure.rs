//! Interleaved measurements of several servers under the same load, so that other work on the machine affects all of
//! them.

use std::time::Duration;

use crate::{
    Result,
    exchange::Exchange,
    load::{Load, Sample, StopCondition},
    process::Process,
    spread::Spread,
};

/// The number and duration of the measurements of each server.
#[derive(Clone, Copy)]
pub struct Plan {
    pub repetitions: usize,
    pub time: Duration,
}

/// The duration of the load before each measurement, which opens connections and warms caches.
const WARM_UP: Duration = Duration::from_millis(200);

/// A measured server with its exchange.
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

/// The figures of one load on one server.
#[derive(Clone, Copy)]
pub struct Measurement {
    /// Requests per second.
    pub rate: f64,
    /// CPU time of the server per request, in microseconds.
    pub cpu: f64,
    /// Utilisation of the server's cores, in percent.
    pub busy: f64,
    /// Latency percentiles, in microseconds.
    pub p50: f64,
    pub p99: f64,
}

/// The figures of all loads on one server.
pub struct Series(pub Vec<Measurement>);

impl Series {
    pub fn spread(&self, figure: impl Fn(&Measurement) -> f64) -> Spread {
        Spread::of(self.0.iter().map(figure))
    }

    /// Compares the measurements of two servers pairwise.
    pub fn against(&self, other: &Self, ratio: impl Fn(&Measurement, &Measurement) -> f64) -> Spread {
        Spread::of(self.0.iter().zip(&other.0).map(|(own, other)| ratio(own, other)))
    }
}

/// Measures the targets in turn, as often as planned.
pub fn measure_interleaved<const N: usize>(
    mut targets: [Target<'_>; N],
    connections: usize,
    plan: Plan,
) -> Result<[Series; N]> {
    let mut series = [const { Series(Vec::new()) }; N];
    for _ in 0..plan.repetitions {
        for (target, series) in targets.iter_mut().zip(&mut series) {
            series.0.push(measure_once(target, connections, plan.time)?);
        }
    }
    Ok(series)
}

/// Measures one target after a warm-up.
fn measure_once(target: &mut Target<'_>, connections: usize, time: Duration) -> Result<Measurement> {
    let (server, exchange) = (target.server, &mut target.exchange);
    let measured = Load::open(server.address(), connections, exchange).and_then(|mut load| {
        load.run(exchange, StopCondition::after(WARM_UP))?;
        let cpu = server.cpu()?;
        let sample = load.run(exchange, StopCondition::after(time))?;
        Ok(Measurement::of(&sample, server.cpu()? - cpu, server.cores()))
    });
    measured.map_err(|error| format!("{}: {error}", target.name).into())
}

impl Measurement {
    fn of(sample: &Sample, cpu: Duration, cores: usize) -> Self {
        let requests = sample.requests as f64;
        let core_time = sample.elapsed.as_secs_f64() * cores as f64;
        let percentile = |it: usize| {
            let index = (sample.latencies.len() * it / 100).min(sample.latencies.len().saturating_sub(1));
            sample.latencies.get(index).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
        };
        Self {
            rate: requests / sample.elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / requests,
            busy: 100.0 * cpu.as_secs_f64() / core_time,
            p50: percentile(50),
            p99: percentile(99),
        }
    }
}
