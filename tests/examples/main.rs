//! The programs in `examples`, built and run as examples/README.md says, against a gateway.
//!
//! `cargo test --test examples` runs them. They need Node.js with npm and the packages of `examples/bff`, so they are not
//! part of a plain `cargo test`. `tests/run` installs all of these.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod support;

mod bff;
mod rust_client;
