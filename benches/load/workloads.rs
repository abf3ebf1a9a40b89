//! What is measured, and with which goals.

mod compressed;
mod latency;
mod memory;
mod scale;
mod start;
mod throughput;
mod together;

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

pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(&Bench, &mut Report) -> Result<()>,
}

pub const WORKLOADS: &[Workload] = &[
    Workload { name: "hot-one", what: "the mobile query, always for one id", run: throughput::hot_one },
    Workload { name: "hot-1000", what: "the mobile query, for 1,000 ids in turn", run: throughput::hot_1000 },
    Workload { name: "full", what: "all fields of 20 ids, always the same ones", run: throughput::full },
    Workload {
        name: "hot-one-executed",
        what: "hot-one without the answer cache: the appointment and the document are known",
        run: throughput::hot_one_executed,
    },
    Workload {
        name: "full-executed",
        what: "full without the answer cache: the appointments and the document are known",
        run: throughput::full_executed,
    },
    Workload { name: "cold", what: "the mobile query, for a new id each time", run: throughput::cold },
    Workload { name: "compressed", what: "hot-one and full, with br and with gzip", run: compressed::run },
    Workload {
        name: "latency",
        what: "one connection: hot, cold, limit server, upstream",
        run: latency::run,
    },
    Workload { name: "together", what: "200 requests at once for one new id", run: together::run },
    Workload { name: "memory", what: "idle, and after many ids and many query texts", run: memory::run },
    Workload { name: "threads", what: "hot-one with one thread and with two", run: scale::threads },
    Workload { name: "connections", what: "hot-one with 64 to 10,000 connections", run: scale::connections },
    Workload { name: "ids", what: "the mobile query for 1 to 1,000,000 ids", run: scale::ids },
    Workload { name: "tokens", what: "tokens of 10 and 100 KB, which are refused", run: scale::tokens },
    Workload {
        name: "start",
        what: "from the start to the first answer; size of the binary",
        run: start::run,
    },
];

/// How many connections ask at once, where nothing else is said.
pub const CONNECTIONS: usize = 64;

/// What all workloads share.
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
        machine::allow_connections()?;
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
        report.circumstances = vec![
            format!("{}, {} cores; {}", machine::processor(), self.cores.count(), self.cores.describe()),
            format!(
                "{CONNECTIONS} connections unless said otherwise; {repetitions} times {time:?} each, in turn with the \
                 limit server"
            ),
        ];
        if !self.gateway.remembers_answers {
            report.circumstances.push("this build of the gateway has no answer cache yet".to_owned());
        }
        for line in &report.circumstances {
            println!("{line}");
        }
    }

    /// A fresh gateway before the stub of the upstream, on so many cores: as many threads it has.
    pub fn gateway(&self, cores: usize, more: &[(&str, &str)]) -> Result<Process> {
        let upstream = format!("http://{}", self.upstream.address());
        Process::start(&self.gateway.command(Some(&upstream), more), self.cores.of_server(cores))
    }

    /// A limit server whose answer is `size` bytes long.
    pub fn limit(&self, cores: usize, size: usize) -> Result<Process> {
        let mut program = Command::new(std::env::current_exe()?);
        Process::start(program.arg("limit").arg(size.to_string()), self.cores.of_server(cores))
    }

    pub fn upstream(&self) -> Result<Client> {
        Client::open(self.upstream.address())
    }
}

/// A stub of the upstream.
pub fn stub(cores: &[usize]) -> Result<Process> {
    Process::start(Command::new(std::env::current_exe()?).arg("upstream"), cores)
}
