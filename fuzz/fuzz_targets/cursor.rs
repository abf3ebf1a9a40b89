//! The cursors of the appointments list.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| appointments_gateway::graphql::fuzzing::cursor(data));
