//! The bytes that come from a shared Redis.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::fleet::fuzzing::foreign_bytes(data));
