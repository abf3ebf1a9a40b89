//! The headers of a request: media types, CSRF, the token, a WebSocket's origin.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::http::graphql::fuzzing::headers(data));
