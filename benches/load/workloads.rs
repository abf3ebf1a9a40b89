//! The workloads, and the goals of the gateway in them.

mod compressed;
mod fleet;
mod latency;
mod memory;
mod scale;
mod start;
mod throughput;
mod together;

use crate::{Result, bench::Bench, report::Report};

pub struct Workload {
    pub name: &'static str,
    pub description: &'static str,
    pub run: fn(&Bench, &mut Report) -> Result<()>,
}

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "hot-one",
        description: "the mobile query, always for one id",
        run: throughput::hot_one,
    },
    Workload {
        name: "hot-304",
        description: "hot-one as a GET by clients that have the response already",
        run: throughput::hot_304,
    },
    Workload {
        name: "hot-persisted",
        description: "hot-one as a GET that names its query by the hash",
        run: throughput::hot_persisted,
    },
    Workload {
        name: "batch",
        description: "the mobile query for ten ids in one array, always the same ids",
        run: throughput::batch,
    },
    Workload {
        name: "hot-1000",
        description: "the mobile query, for 1,000 ids in turn",
        run: throughput::hot_1000,
    },
    Workload {
        name: "full",
        description: "all fields of 20 ids, always the same ids",
        run: throughput::full,
    },
    Workload {
        name: "hot-one-executed",
        description: "hot-one without the response cache: document and appointment are cached",
        run: throughput::hot_one_executed,
    },
    Workload {
        name: "full-executed",
        description: "full without the response cache: document and appointments are cached",
        run: throughput::full_executed,
    },
    Workload {
        name: "batch-executed",
        description: "batch without the response cache: document and appointments are cached",
        run: throughput::batch_executed,
    },
    Workload { name: "cold", description: "the mobile query, for a new id each time", run: throughput::cold },
    Workload {
        name: "compressed",
        description: "hot-one and full, with br and with gzip",
        run: compressed::run,
    },
    Workload {
        name: "latency",
        description: "one connection: hot, cold, limit server, upstream",
        run: latency::run,
    },
    Workload {
        name: "together",
        description: "200 concurrent requests for one new id (single flight)",
        run: together::run,
    },
    Workload {
        name: "memory",
        description: "memory when idle, and after many ids and query texts",
        run: memory::run,
    },
    Workload { name: "threads", description: "hot-one with one thread and with two", run: scale::threads },
    Workload {
        name: "connections",
        description: "hot-one with 64 to 10,000 connections",
        run: scale::connections,
    },
    Workload { name: "ids", description: "the mobile query for 1 to 1,000,000 ids", run: scale::ids },
    Workload {
        name: "tokens",
        description: "tokens of 10 and 100 KB, which are rejected",
        run: scale::tokens,
    },
    Workload {
        name: "fleet",
        description: "hot-one and cold with shared.url, and changes that replicas acknowledge",
        run: fleet::replicas,
    },
    Workload {
        name: "fleet-large",
        description: "100 replicas on one Redis: commands, memory, CPU and changes",
        run: fleet::large,
    },
    Workload {
        name: "start",
        description: "time from start to first response; size of the binary",
        run: start::run,
    },
];
