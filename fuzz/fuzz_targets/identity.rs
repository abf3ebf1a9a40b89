//! Caller credentials: JWK sets and API key files.

#![no_main]

use appointments_gateway::credentials::{api_keys::ApiKeys, jwks::KeySet};

libfuzzer_sys::fuzz_target!(|data: &str| {
    for fault in [KeySet::from_file(data).err(), ApiKeys::from_file(data).err()].into_iter().flatten() {
        assert!(!fault.is_empty());
    }
});
