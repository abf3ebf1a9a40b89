//! The gateway from outside: a real process, asked over real sockets, before an upstream that each test controls.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod support;

mod answers;
mod batching;
mod bulkhead;
mod change_bodies;
mod changes;
mod failures;
mod freshness;
mod isolation;
mod list_arguments;
mod list_sharing;
mod lists;
mod lost_changes;
mod single_flight;
mod smoke;
mod upstream_calls;
