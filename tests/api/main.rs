//! The gateway from outside: a real process, asked over real sockets, before an upstream that each test controls.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod support;

mod smoke;

mod execution;
mod identity;
mod protocol;

mod hostile;
mod wire;
