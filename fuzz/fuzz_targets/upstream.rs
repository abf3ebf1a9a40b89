//! Upstream JSON: an appointment, a page of the list, and the validation errors of a mutation.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::upstream::fuzzing::response(data));
