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

pub mod access;
pub mod connection_faults;
pub mod faults;
pub mod http;
pub mod people;
pub mod prng;
pub mod record;
pub mod refusal;
pub mod scenarios;
pub mod state;
pub mod store;
pub mod validate;
pub mod variants;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::TcpListener;
use uuid::Uuid;

/// The ids to try first, each of another shape, and last one that nobody has.
///
/// In order: an ordinary appointment tomorrow, one that begins about two minutes after start-up, one in session, one
/// that has ended, one cancelled, one freshly made, one with nothing but an id, and one that does not exist.
/// [`TOKEN_SOME`] sees the first two, the fresh one and the bare one.
pub fn example_ids() -> Vec<Uuid> {
    scenarios::example_ids()
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
    faults: faults::Faults,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let sandbox = Arc::new(state::Sandbox {
        access: access::Access::new(faults.rate_limit),
        faults: faults::Draws::new(faults),
        store: store::Store::new(Timestamp::now()),
    });
    let router = http::router(sandbox).into_make_service_with_connect_info::<connection_faults::Scissors>();
    axum::serve(connection_faults::CuttableListener(listener), router).with_graceful_shutdown(stop).await
}
