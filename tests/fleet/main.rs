//! Fleets: several gateways that share a real Redis, the Debian package. A change through one replica is read through every
//! other, and whatever happens to Redis, no client sees an error or old data beyond the stated bounds.
//!
//! `cargo test --test fleet` runs them. They need redis-server, redis-sentinel and HAProxy, so they are not part of a plain
//! `cargo test`. `tests/run` installs them.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

#[allow(dead_code, unused_imports, reason = "each topic uses a part of it")]
mod support;

mod access;
mod bus;
mod example;
mod idempotency;
mod outage;
mod persisted_queries;
mod pollers;
mod rate_limit;
mod shared_cache;
