//! Request headers: media types, CSRF, the token, the origin of a WebSocket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| appointments_gateway::http::graphql::fuzzing::headers(data));
