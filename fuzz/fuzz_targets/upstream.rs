//! The upstream's JSON: an appointment, a page of the list, and the errors of a change.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::upstream::fuzzing::answer(data));
