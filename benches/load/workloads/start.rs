//! The time from start to first response, and the size of the binary.

use std::{fs, time::Instant};

use serde_json::Value;

use crate::{
    Result, baseline::Figure, bench::Bench, client::Client, process::Process, queries, report::Report,
    spread::Spread,
};

const REPETITIONS: usize = 9;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let request = queries::typename();
    let program = bench.gateway.command(None, &[]);
    let times = (0..REPETITIONS).map(|_| {
        let started = Instant::now();
        // Includes the start of this program, which replaces itself with the gateway.
        let gateway = Process::start(&program, bench.cores.of_server(1))?;
        let response = Client::open(gateway.address())?.send(&request)?;
        let time = started.elapsed().as_secs_f64() * 1000.0;
        match serde_json::from_slice::<Value>(&response.body)? {
            json if json == queries::typename_data() => Ok(time),
            json => Err(format!("wrong response: {} {json}", response.head.status).into()),
        }
    });
    let time = Spread::of(times.collect::<Result<Vec<_>>>()?);
    report.add_goal(
        "start to first response, sandbox",
        "≤ 30 ms",
        format!("{time:.1} ms"),
        time.median <= 30.0,
    );

    let size = fs::metadata(&bench.gateway.program)?.len() as f64 / f64::from(1 << 20);
    report.add_goal("binary, stripped, with GraphiQL", "≤ 20 MiB", format!("{size:.1} MiB"), size <= 20.0);
    report.figures.push(Figure::lower_is_better("binary, MiB".to_owned(), Spread::of([size])));
    Ok(())
}
