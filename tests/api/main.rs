//! The gateway from outside: a real process, asked over real sockets, before an upstream that each test controls.

#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

mod support;

mod answers;
mod batching;
mod bulkhead;
mod failures;
mod freshness;
mod isolation;
mod single_flight;
mod smoke;
mod upstream_calls;
