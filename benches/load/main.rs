//! The load benchmark: throughput and cost per request of the gateway, relative to reference servers.
//!
//! `cargo bench --bench load` builds and runs everything in some minutes. Each server is a process of its own; this
//! process is the load generator. On two or more cores, the measured server has the first one to itself, and load
//! generator and upstream share the last one. The servers are:
//!
//! - the gateway in its production profile;
//! - the [upstream stub](upstream);
//! - the [limit server](limit): bare hyper with a constant response of the same size;
//! - the [relay](relay): bare hyper with one upstream GET per request;
//! - the [plain server](plain): async-graphql, axum, reqwest and moka without the gateway's code.
//!
//! The measurements of the gateway and its reference servers are interleaved, and every response is compared byte by byte.
//! The run writes `benches/results.md`, `benches/results.svg` and `benches/baseline.json`.
//!
//! ```sh
//! cargo bench --bench load -- --list                 # prints the workloads
//! cargo bench --bench load -- --only hot-one --quick # runs one of them in seconds, without writing results
//! cargo bench --bench load -- --compare              # exits with 1 on regressions from benches/baseline.json
//! cargo bench --bench load -- --gateway PATH         # measures another build of the gateway
//! ```
//!
//! It needs `/proc` of Linux for the CPU time of a process. The gateway has one thread per assigned core.
//!
//! Absolute figures depend on the machine. Compare the shares of the limit server in the same run. On a busy machine, the
//! shares by CPU time are more stable than those by requests.

#![expect(unreachable_pub, reason = "a benchmark exports nothing")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod arguments;

mod bench;
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
mod plain;
mod process;
mod redis;
mod relay;
mod serving;
mod upstream;

use std::{error::Error, fs, path::Path, process::ExitCode};

use arguments::{Arguments, Task};
use bench::Bench;
use report::Report;
use workloads::WORKLOADS;

/// An error ends the run with its text.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The allocator of the gateway. With another one, the reference servers would not be comparable.
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
    let names = WORKLOADS.iter().map(|it| it.name).collect::<Vec<_>>();
    match arguments::parse(&names)? {
        Task::Limit { size } => limit::serve(size),
        Task::Relay { upstream, size } => relay::serve(upstream, size)?,
        Task::Plain { upstream } => plain::serve(upstream)?,
        Task::Upstream => upstream::serve(),
        Task::Exec { cores, program, arguments } => process::exec(&cores, &program, &arguments)?,
        Task::List => {
            for workload in WORKLOADS {
                println!("{:16} {}", workload.name, workload.description);
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
    for workload in WORKLOADS.iter().filter(|it| arguments.is_selected(it.name)) {
        println!("{}: {}", workload.name, workload.description);
        (workload.run)(&bench, &mut report).map_err(|error| format!("{}: {error}", workload.name))?;
    }
    if arguments.writes_results() {
        fs::write(folder.join("results.md"), report.markdown())?;
        fs::write(folder.join("results.svg"), chart::svg(&report.bars))?;
        baseline::write(&folder.join("baseline.json"), &report.figures)?;
        println!("results written to {}", folder.display());
    }
    let regressions = baseline::regressions(&report.figures, &before);
    for line in &regressions {
        println!("regression: {line}");
    }
    if arguments.compares && regressions.is_empty() {
        println!("no regressions from the baseline");
    }
    Ok(if regressions.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
