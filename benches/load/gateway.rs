//! The gateway as it is measured: an optimised build, in production, with its limits, metrics and logs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use bytesize::ByteSize;

use crate::Result;

/// What it is set to beside the defaults of production. The logs go where nobody reads them.
const SETTINGS: [(&str, &str); 5] = [
    ("PROFILE", "production"),
    ("LISTEN", "127.0.0.1:0"),
    ("METRICS_ENABLED", "true"),
    ("LOG_LEVEL", "info"),
    // Each operation is still counted against it, but all the load comes from one caller.
    ("RATE_LIMIT_PER_SECOND", "1000000"),
];

pub struct Gateway {
    pub program: PathBuf,
    /// Whether it has a cache of answers that can be switched off.
    pub remembers_answers: bool,
    /// How much its caches may take together, in bytes, as it says itself.
    pub caches: u64,
}

impl Gateway {
    pub fn find(program: PathBuf) -> Result<Self> {
        let help = Command::new(&program).args(["serve", "--help"]).stdin(Stdio::null()).output()?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        Ok(Self { program, remembers_answers: help.contains("--cache-answers-size"), caches: caches(&help)? })
    }

    /// The command that serves what is at `upstream` (none: the built-in sandbox), with `more` settings.
    pub fn command(&self, upstream: Option<&str>, more: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("serve");
        for (key, value) in SETTINGS.iter().chain(more) {
            command.env(format!("GATEWAY_{key}"), value);
        }
        match upstream {
            Some(url) => command.env("GATEWAY_UPSTREAM_URL", url),
            None => command.env("GATEWAY_SANDBOX_ENABLED", "true"),
        };
        command
    }
}

/// The sum of the defaults of all flags of the form `--cache-…size`.
fn caches(help: &str) -> Result<u64> {
    let (mut sum, mut is_size) = (0, false);
    let mut words = help.split_whitespace();
    while let Some(word) = words.next() {
        if word.starts_with("--") {
            is_size = word.starts_with("--cache-") && word.ends_with("size");
        } else if word == "[default:" && is_size {
            let size = words.next().unwrap_or_default().trim_end_matches(']');
            sum += size.parse::<ByteSize>()?.as_u64();
        }
    }
    Ok(sum)
}
