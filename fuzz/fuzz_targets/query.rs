//! A query with its variables: limits, validation, normalisation, and execution without a credential.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| appointments_gateway::graphql::fuzzing::query(data));
