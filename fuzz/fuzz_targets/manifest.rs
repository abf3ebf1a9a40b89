//! Manifests of trusted documents.

#![no_main]

use appointments_gateway::graphql::persisted::manifest::{self, FileFormat};

libfuzzer_sys::fuzz_target!(|data: &str| {
    for format in [FileFormat::Json, FileFormat::Graphql] {
        let (documents, faults) = manifest::parse(data, format);
        let labels = documents.iter().map(|document| &document.label);
        for label in labels.chain(faults.iter().filter_map(|fault| fault.label.as_ref())) {
            assert!(!label.is_empty() && label.len() < 500 && !label.contains(char::is_control), "{label:?}");
        }
        assert!(faults.iter().all(|fault| !fault.message.is_empty()));
    }
});
