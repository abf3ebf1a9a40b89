//! The body of a POST, and the query string of a GET.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::http::graphql::fuzzing::request(data));
