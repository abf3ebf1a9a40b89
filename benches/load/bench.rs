//! The environment of all workloads: the placement of the processes, and the start of each server.

use std::{process::Command, time::Duration};

use crate::{
    Result,
    arguments::Arguments,
    client::Client,
    gateway::Gateway,
    machine::{self, Cores},
    measure::Plan,
    process::Process,
    report::Report,
};

/// The default number of connections.
pub const CONNECTIONS: usize = 64;

/// The environment of all workloads.
pub struct Bench {
    pub cores: Cores,
    pub plan: Plan,
    pub is_quick: bool,
    pub gateway: Gateway,
    pub upstream: Process,
}

impl Bench {
    pub fn start(arguments: &Arguments) -> Result<Self> {
        let cores = Cores::find();
        machine::raise_open_files()?;
        machine::pin(cores.of_load())?;
        let gateway = Gateway::find(arguments.gateway.clone())?;
        let upstream = stub(cores.of_load())?;
        let is_quick = arguments.is_quick;
        let plan = if is_quick {
            Plan { repetitions: 2, time: Duration::from_millis(700) }
        } else {
            Plan { repetitions: 5, time: Duration::from_secs(2) }
        };
        Ok(Self { cores, plan, is_quick, gateway, upstream })
    }

    pub fn describe(&self, report: &mut Report) {
        let Plan { repetitions, time } = self.plan;
        report.environment = vec![
            format!("{}, {} cores; {}", machine::processor(), self.cores.count(), self.cores.describe()),
            format!(
                "{CONNECTIONS} connections by default; {repetitions} measurements of {time:?} each, interleaved with \
                 those of the reference servers"
            ),
        ];
        if !self.gateway.has_response_cache {
            report.environment.push("this build of the gateway has no response cache".to_owned());
        }
        for line in &report.environment {
            println!("{line}");
        }
    }

    /// Starts a gateway in front of the upstream stub, with one thread per core.
    pub fn gateway(&self, cores: usize, settings: &[(&str, &str)]) -> Result<Process> {
        let upstream = format!("http://{}", self.upstream.address());
        Process::start(&self.gateway.command(Some(&upstream), settings), self.cores.of_server(cores))
    }

    /// Starts a limit server with responses of `size` bytes.
    pub fn limit(&self, cores: usize, size: usize) -> Result<Process> {
        Process::start(own_program()?.arg("limit").arg(size.to_string()), self.cores.of_server(cores))
    }

    /// Starts a relay in front of the upstream stub, with responses of `size` bytes.
    pub fn relay(&self, cores: usize, size: usize) -> Result<Process> {
        let upstream = self.upstream.address().to_string();
        Process::start(
            own_program()?.args(["relay", &upstream, &size.to_string()]),
            self.cores.of_server(cores),
        )
    }

    /// Starts a plain server in front of the upstream stub.
    pub fn plain(&self, cores: usize) -> Result<Process> {
        let upstream = self.upstream.address().to_string();
        Process::start(own_program()?.args(["plain", &upstream]), self.cores.of_server(cores))
    }

    /// Opens a connection to the upstream stub.
    pub fn upstream_client(&self) -> Result<Client> {
        Client::open(self.upstream.address())
    }
}

/// Starts an upstream stub.
pub fn stub(cores: &[usize]) -> Result<Process> {
    Process::start(own_program()?.arg("upstream"), cores)
}

/// Returns the command of this program, which serves as reference server or upstream stub.
fn own_program() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}
