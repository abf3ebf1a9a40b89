//! The benchmark: how close the gateway comes to what the machine can do, and what a request costs.
//!
//! `cargo bench --bench load` builds everything and runs everything, in some minutes: the gateway in production, a stub of
//! the upstream, and a limit server (bare hyper with a constant answer of the same size), each as a process of its own, and
//! the load on them from here. Where there are two cores, the server that is measured has the first one to itself, and load
//! and upstream the last. Limit server and gateway take turns, and every answer is compared with what it has to be, byte by
//! byte. It writes `benches/results.md`, `benches/results.svg` and `benches/baseline.json`.
//!
//! ```sh
//! cargo bench --bench load -- --list                 # the workloads
//! cargo bench --bench load -- --only hot-one --quick # one of them, in seconds; nothing is written
//! cargo bench --bench load -- --compare              # names what got slower since benches/baseline.json: exit code 1
//! cargo bench --bench load -- --gateway PATH         # measures another build of the gateway
//! ```
//!
//! It takes Linux, which says in `/proc` what a process has taken. The gateway has as many threads as cores that it may use.
//!
//! Machines differ: what counts is the share of the limit server's figure in the same run. Where something else keeps the
//! machine busy, the processor time for a request is the steadier one.

#![expect(unreachable_pub, reason = "a benchmark has no outside")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures are what it is for")]

mod arguments;

mod workloads;

mod measure;
mod report;
mod spread;

mod baseline;
mod chart;

mod client;
mod exchange;
mod http;
mod ids;
mod load;
mod queries;

mod gateway;
mod limit;
mod machine;
mod process;
mod serving;
mod upstream;

use std::{error::Error, fs, path::Path, process::ExitCode};

use arguments::{Arguments, Task};
use report::Report;
use workloads::{Bench, WORKLOADS};

/// What fails ends the run, with a text for who has started it.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The same as the gateway has: what a limit server does with another one says nothing of the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    match arguments::parse()? {
        Task::Limit(size) => limit::serve(size),
        Task::Upstream => upstream::serve(),
        Task::Become { cores, program, arguments } => process::replace_this(&cores, &program, &arguments)?,
        Task::List => {
            for workload in WORKLOADS {
                println!("{:16} {}", workload.name, workload.what);
            }
        }
        Task::Bench(arguments) => return bench(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn bench(arguments: &Arguments) -> Result<ExitCode> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let before = if arguments.compares { baseline::read(&folder.join("baseline.json"))? } else { Vec::new() };
    let mut report = Report::default();
    let bench = Bench::start(arguments)?;
    bench.describe(&mut report);
    for workload in WORKLOADS.iter().filter(|it| arguments.is_wanted(it.name)) {
        println!("{}: {}", workload.name, workload.what);
        (workload.run)(&bench, &mut report).map_err(|error| format!("{}: {error}", workload.name))?;
    }
    if arguments.saves() {
        fs::write(folder.join("results.md"), report.markdown())?;
        fs::write(folder.join("results.svg"), chart::svg(&report.bars))?;
        baseline::write(&folder.join("baseline.json"), &report.figures)?;
        println!("written to {}", folder.display());
    }
    let worse = baseline::worse(&report.figures, &before);
    for line in &worse {
        println!("worse: {line}");
    }
    if arguments.compares && worse.is_empty() {
        println!("nothing got worse than the baseline");
    }
    Ok(if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
