//! The measured gateway: a release build in the production profile, with limits, metrics and logs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use bytesize::ByteSize;

use crate::Result;

/// Settings that differ from the defaults of production.
const SETTINGS: [(&str, &str); 5] = [
    ("PROFILE", "production"),
    ("LISTEN", "127.0.0.1:0"),
    ("METRICS_ENABLED", "true"),
    ("LOG_LEVEL", "info"),
    // The rate limit stays on, but all load comes from one caller.
    ("RATE_LIMIT_PER_SECOND", "1000000"),
];

pub struct Gateway {
    pub program: PathBuf,
    /// Whether this build has a response cache that can be disabled.
    pub has_response_cache: bool,
    /// The sum of its default cache sizes, in bytes, according to its `--help`.
    pub cache_bytes: u64,
}

impl Gateway {
    pub fn find(program: PathBuf) -> Result<Self> {
        let help = Command::new(&program).args(["serve", "--help"]).stdin(Stdio::null()).output()?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let has_response_cache = help.contains("--cache-answers-size");
        Ok(Self { program, has_response_cache, cache_bytes: cache_bytes(&help)? })
    }

    /// Returns the command that serves `upstream` (none for the built-in sandbox) with further `settings`.
    pub fn command(&self, upstream: Option<&str>, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("serve");
        for (key, value) in SETTINGS.iter().chain(settings) {
            command.env(format!("GATEWAY_{key}"), value);
        }
        match upstream {
            Some(url) => command.env("GATEWAY_UPSTREAM_URL", url),
            None => command.env("GATEWAY_SANDBOX_ENABLED", "true"),
        };
        command
    }
}

/// Returns the sum of the defaults of all `--cache-…size` flags.
fn cache_bytes(help: &str) -> Result<u64> {
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
