//! The upstream's JSON: one appointment, a page of the list, the faults of a change.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::upstream::fuzzing::response(data));
