//! The built-in sandbox: an HTTP server with made-up data that behaves like the upstream appointments API.
//!
//! The gateway reaches it over a socket, by its URL, like any other upstream. Newcomers and the tests use it, and it also
//! runs on its own, with optional faults ([`FaultConfig`]).
//!
//! Modules, in the order of a request:
//!
//! ```text
//! connection_faults   connections that can be truncated in the middle of a response
//!  └ http             routes and middleware
//!    ├ faults         fault injection: latency, errors, invalid and truncated responses
//!    ├ access         tokens, their visibility and rate limit; the token endpoint
//!    ├ validate       request bodies to changes or field errors
//!    └ store          the appointments
//!       ├ record      an appointment, with fields derived from the clock
//!       ├ scenarios   the schedule of the made-up data
//!       ├ variants    present, null and omitted fields, and notations
//!       └ people      names, numbers, departments and answers
//! refusal             error responses in the upstream's terms
//! prng                deterministic pseudo-random numbers
//! ```
//!
//! The sandbox opens no connection, writes no file, and logs only method, route and status. Everything that clients can
//! make grow has a bound.

pub mod access;
pub mod connection_faults;
pub mod faults;
pub mod http;
pub mod people;
pub mod prng;
pub mod record;
pub mod refusal;
pub mod scenarios;
pub mod store;
pub mod validate;
pub mod variants;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use uuid::Uuid;

use self::{
    access::TokenRegistry,
    connection_faults::{TruncateHandle, TruncatingListener},
    faults::FaultInjector,
    store::AppointmentStore,
};
use crate::config::sandbox::FaultConfig;

/// A sample appointment with every field, as the upstream serves it. Tests and benchmarks use it as well.
pub const SAMPLE: &str = include_str!("data/appointment.json");

/// Returns the members of the [`SAMPLE`].
pub fn sample() -> &'static Map<String, Value> {
    static MEMBERS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
        let body: Value = serde_json::from_str(SAMPLE).expect("the sample is JSON");
        body["data"].as_object().cloned().unwrap_or_default()
    });
    &MEMBERS
}

/// Returns example ids, each of another variant, and an unknown id at the end.
///
/// In order: an appointment tomorrow, one that starts about two minutes after the sandbox, one in session, one that has
/// ended, one cancelled, a new one, one with an id only, and an unknown one. [`TOKEN_SOME`](access::TOKEN_SOME) has access
/// to the first two, the new one and the one with an id only.
pub fn example_ids() -> Vec<Uuid> {
    scenarios::example_ids()
}

/// Serves the sandbox until `stop` completes, then shuts down gracefully.
///
/// Each call serves a separate sandbox, whose scenarios start at the time of the call. Bind the listener to a loopback
/// address unless the operator chose another one.
///
/// # Errors
/// If the listener fails. Failed connections are not errors.
pub async fn serve(
    listener: TcpListener,
    faults: FaultConfig,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = http::router(
        Arc::new(TokenRegistry::new(faults.rate_limit)),
        Arc::new(FaultInjector::new(faults)),
        Arc::new(AppointmentStore::new(Timestamp::now())),
    );
    let service = router.into_make_service_with_connect_info::<TruncateHandle>();
    axum::serve(TruncatingListener(listener), service).with_graceful_shutdown(stop).await
}
