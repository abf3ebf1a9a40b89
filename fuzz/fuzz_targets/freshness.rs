//! `Cache-Control`, `Age` and `Retry-After` of the upstream's answers, `exp` of a caller's token.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::upstream::fuzzing::freshness(data));
