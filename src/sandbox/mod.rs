//! The built-in sandbox: an HTTP server that behaves as the upstream appointments API does, with data that is made up.
//!
//! It stands where the real upstream would, behind a socket and nothing else: the gateway reaches it by its URL as it
//! reaches any upstream, so whatever works here works over HTTP. A newcomer meets it in the first minute, the tests run
//! against it, and it can run alone, with [`Faults`] on request.
//!
//! The way of one request, outermost first:
//! ```text
//! cut       the connection, which can be told to break in the middle of an answer
//!  └ http   the routes, and the middleware in one ordered list
//!    ├ faults    slow, failing, garbled and cut answers
//!    ├ access    token → what it may see, and how often it may ask; the token endpoint
//!    ├ validate  the body of a change → a `Change`, or what is wrong with it, field by field
//!    └ store     the appointments, behind one lock
//!       ├ record     one appointment, which changes by itself as time passes
//!       ├ programme  what happens when: every appointment of the made-up data
//!       ├ shapes     which of the upstream's many ways of filling one in it shows
//!       └ cast       who takes part: names, numbers, departments, answers
//! refusal   every answer that says no, in the upstream's words
//! dice      numbers that look random and are the same in each run
//! ```
//!
//! What is absent: it opens no connection, writes no file, and logs nothing but method, route and status. Every list
//! that a client can make grow has a bound.

mod cut;
mod http;

mod access;
mod faults;
mod validate;

mod store;

mod cast;
mod programme;
mod record;
mod shapes;

mod dice;
mod refusal;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use uuid::Uuid;

/// The token that sees every appointment.
pub const TOKEN_ALL: &str = "sandbox-all";
/// The token that sees some of the appointments; the others are answered 403.
pub const TOKEN_SOME: &str = "sandbox-some";
/// The client that `POST /oauth2/token` knows.
pub const CLIENT_ID: &str = "sandbox-client";
/// The secret of [`CLIENT_ID`], no more secret than the data.
pub const CLIENT_SECRET: &str = "sandbox-secret";

/// What goes wrong on request, so that a client's handling can be tried.
///
/// The draws come from a counter of the requests, so a run that asks the same in the same order sees the same faults.
/// The shares add up; where their sum is above 100, the first named wins.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Added to each answer, after the work is done: whoever gives up on a change may find it made.
    pub latency: Duration,
    /// Share of requests that are answered 500, 502 or 503 without being heard, as HTML or empty, as a load balancer does.
    pub error_percent: u8,
    /// Share of requests that are carried out, then answered 200 with something that is no JSON.
    pub garbage_percent: u8,
    /// Share of requests that are carried out, then cut off in the middle of the answer's body.
    pub cut_percent: u8,
    /// Requests per minute and token before 429 with `Retry-After`; 0 means no limit.
    pub rate_limit: u32,
}

/// The ids to try first, each of another shape, and last one that nobody has.
///
/// In order: an ordinary appointment tomorrow, one that begins about two minutes after start-up, one in session, one
/// that has ended, one cancelled, one freshly made, one with nothing but an id, and one that does not exist.
/// [`TOKEN_SOME`] sees the first two, the fresh one and the bare one.
pub fn example_ids() -> Vec<Uuid> {
    programme::example_ids()
}

/// Serves the sandbox until `stop` completes, then finishes the answers under way.
///
/// Each call is a sandbox of its own, whose time starts with the call. Whoever binds the listener decides who can reach
/// it; a loopback address is the right choice unless somebody asked for another.
///
/// # Errors
/// As the listener fails; a failing connection is no such failure.
pub async fn serve(
    listener: TcpListener,
    faults: Faults,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let sandbox = Arc::new(http::Sandbox {
        access: access::Access::new(faults.rate_limit),
        faults: faults::Draws::new(faults),
        store: store::Store::new(Timestamp::now()),
    });
    let router = http::router(sandbox).into_make_service_with_connect_info::<cut::Scissors>();
    axum::serve(cut::CuttableListener(listener), router).with_graceful_shutdown(stop).await
}
