//! `Cache-Control`, `Age` and `Retry-After` of upstream responses, and the `exp` of a token.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::upstream::fuzzing::freshness(data));
