//! Support of the fleet's tests: everything of the black-box tests, and besides it real Redis servers and sentinels, a
//! proxy that disturbs the way to them, and several gateways that share one.

#[path = "../../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod api;
mod bus_recorder;
mod fleet;
mod fleet_keys;
mod monitor;
mod ports;
mod proxy;
mod redis_server;
mod sentinels;
mod stateful_upstream;

pub use self::{
    api::*,
    bus_recorder::{BusRecorder, Published},
    fleet::{Fleet, Replica},
    fleet_keys::FleetKeys,
    monitor::Monitor,
    ports::{free_port, free_ports},
    proxy::Proxy,
    redis_server::Redis,
    sentinels::Sentinels,
    stateful_upstream::{State, StatefulUpstream, UNCHANGED},
};

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Waits until `condition` holds; `what` names it if it never does.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(TIMEOUT, holds).await.is_ok(), "in time: {what}");
}
