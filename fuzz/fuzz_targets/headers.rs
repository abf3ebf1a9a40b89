//! Request headers: content negotiation, CSRF checks, bearer tokens and WebSocket origins.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::http::graphql::fuzzing::headers(data));
