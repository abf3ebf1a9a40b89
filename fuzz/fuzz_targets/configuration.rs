//! The configuration: a TOML file and, after a NUL byte, environment variables, one per line.

#![no_main]

use std::{collections::BTreeMap, fs};

use appointments_gateway::config::{Config, loader::Sources};

libfuzzer_sys::fuzz_target!(|data: &str| {
    let (file, variables) = data.split_once('\0').unwrap_or((data, ""));
    let path = std::env::temp_dir().join(format!("gateway-fuzz-{}.toml", std::process::id()));
    fs::write(&path, file).unwrap();
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let environment: BTreeMap<_, _> =
        variables.map(|(name, value)| (format!("GATEWAY_{name}"), value.to_owned())).collect();
    let config = Config::load(&Sources { file: Some(path), environment, flags: Vec::new() });
    match config.and_then(|config| config.check_serving()) {
        Ok(()) => {}
        Err(error) => {
            assert!(!error.0.is_empty());
            assert!(
                error.0.iter().all(|problem| !problem.location.is_empty() && !problem.message.is_empty())
            );
        }
    }
});
