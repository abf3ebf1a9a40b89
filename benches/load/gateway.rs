//! The gateway as it is measured: the release build, in production, with its limits, metrics and logs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

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

/// How much the caches may take by default: `cache.size` and `cache.list_size`, and `cache.answers_size` where there is one.
pub const CACHES: u64 = 80 << 20;

pub struct Gateway {
    pub program: PathBuf,
    /// Whether it has a cache of answers that can be switched off.
    pub remembers_answers: bool,
}

impl Gateway {
    pub fn find(program: PathBuf) -> Result<Self> {
        let help = Command::new(&program).args(["serve", "--help"]).stdin(Stdio::null()).output()?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        Ok(Self { program, remembers_answers: help.contains("--cache-answers-size") })
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
