//! WebSocket messages of graphql-transport-ws.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| appointments_gateway::http::graphql::websocket::fuzzing::message(
    data
));
