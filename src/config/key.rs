//! A configuration key: its names, its default and the parser of its value.

use super::Config;

/// The prefix of the environment variables.
pub(crate) const VARIABLE_PREFIX: &str = "GATEWAY_";

/// A configuration key.
#[derive(Debug)]
pub struct ConfigKey {
    /// The name in the file: `section.name`.
    pub name: &'static str,
    /// The default in development, in the notation of the file; empty for none.
    pub default: &'static str,
    /// The kind of its value.
    pub kind: ValueKind,
    /// The description in `--help` and `docs/configuration.md`.
    pub help: &'static str,
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
}

/// The kind of value that a [`ConfigKey`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `IP:PORT`
    Address,
    /// `SCHEME://HOST`
    Url,
    /// `http://HOST` or `https://HOST`, separated by commas.
    Origins,
    /// Names of HTTP headers, separated by commas.
    HeaderNames,
    /// The path of a URL.
    Path,
    /// A single line of text.
    Text,
    /// A secret. It has no flag, because other users can read the command line of a process.
    Secret,
    /// Names of signature algorithms, separated by commas.
    Algorithms,
    /// The path of a file.
    File,
    /// The path of a file that contains a secret.
    SecretFile,
    /// A number with a unit of time, or `0`.
    Duration,
    /// A number with a unit of bytes, or `0`.
    Size,
    /// A whole number.
    Count,
    /// `true` or `false`
    Switch,
    /// One of the given words.
    Choice(&'static [&'static str]),
}

impl ConfigKey {
    /// Returns the environment variable, `GATEWAY_SECTION_NAME`.
    pub fn variable(&self) -> String {
        format!("{}{}", VARIABLE_PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// Returns the command-line flag without its dashes, `section-name`. For `section.enabled` it is the section alone.
    /// A secret has no flag.
    pub fn flag(&self) -> Option<String> {
        let name = self.name.strip_suffix(".enabled").unwrap_or(self.name);
        (self.kind != ValueKind::Secret).then(|| name.replace(['.', '_'], "-"))
    }
}

impl ValueKind {
    /// Returns the placeholder of the value in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Address => "IP:PORT",
            Self::Url => "URL",
            Self::Origins => "ORIGINS",
            Self::HeaderNames => "HEADERS",
            Self::Path => "PATH",
            Self::Text => "TEXT",
            Self::Secret => "SECRET",
            Self::Algorithms => "ALGORITHMS",
            Self::File | Self::SecretFile => "FILE",
            Self::Duration => "DURATION",
            Self::Size => "SIZE",
            Self::Count => "N",
            Self::Switch => "BOOL",
            Self::Choice(_) => "WORD",
        }
    }
}
