//! A GraphQL document with variables: limits, validation, normalisation, and execution without a token.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| appointments_gateway::graphql::fuzzing::query(data));
