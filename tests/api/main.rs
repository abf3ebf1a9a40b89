//! Black-box tests: the real program, reached over real sockets, in front of an upstream that each test controls.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

mod support;

mod smoke;

mod appointments;
mod auth;
mod cache;
mod graphql;
mod http;
mod operations;
mod project;
mod subscriptions;
mod upstream;
