//! Sources and licences of all dependencies.

use std::process::Command;

use serde_json::Value;

/// Terms that let anybody use, change and pass on the program, under its own licence.
const FINE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that must not come in by a change of somebody's features: a second TLS library, or one in C.
const UNWANTED: &[&str] = &["openssl-sys", "native-tls", "aws-lc-sys", "async-std"];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// All dependencies, on every system. Cargo downloads missing ones.
fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "The manifests of all dependencies are read, including those of other systems. Without network access, run \
         `cargo fetch --locked` beforehand:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether an SPDX expression can be met with the terms in [`FINE`]. `/` is an old way to write OR.
fn is_fine(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    let fine = any(&mut words);
    fine && words.next().is_none()
}

type Words<'a, 'b> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'b>>;

fn any(words: Words<'_, '_>) -> bool {
    let mut fine = all(words);
    while words.next_if_eq(&"OR").is_some() {
        fine |= all(words);
    }
    fine
}

fn all(words: Words<'_, '_>) -> bool {
    let mut fine = one(words);
    while words.next_if_eq(&"AND").is_some() {
        fine &= one(words);
    }
    fine
}

fn one(words: Words<'_, '_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        return any(words) && words.next_if_eq(&")").is_some();
    }
    let Some(mut licence) = words.next().map(str::to_owned) else { return false };
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
    }
    FINE.contains(&licence.as_str())
}

#[test]
fn expressions_are_read() {
    for fine in
        ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR (MIT AND ISC)", "Apache-2.0 WITH LLVM-exception OR X", "(MIT)"]
    {
        assert!(is_fine(fine), "{fine}");
    }
    for not in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT ISC", "Apache-2.0 WITH X", "OR MIT"] {
        assert!(!is_fine(not), "{not}");
    }
}

#[test]
fn dependencies_have_allowed_licences_and_sources() {
    let mut faults = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let is_ours = name == env!("CARGO_PKG_NAME");
        if !is_ours && package["source"] != REGISTRY {
            faults.push(format!("{name} is not from crates.io"));
        }
        if !is_fine(package["license"].as_str().unwrap_or_default()) {
            faults.push(format!("{name} is under {}", package["license"]));
        }
        if UNWANTED.contains(&name) {
            faults.push(format!("{name} is in the lock file"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
