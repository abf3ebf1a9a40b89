//! A key of the configuration.

use super::Config;

/// The prefix of the environment variables.
pub(crate) const VARIABLE_PREFIX: &str = "GATEWAY_";

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// As in the file: `section.name`.
    pub name: &'static str,
    /// The default in development, written as a value in the file would be; empty for none.
    pub default: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// What it is for, in a sentence or two.
    pub help: &'static str,
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
}

/// What the value of a [`Key`] looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `IP:PORT`
    Address,
    /// `http://` or `https://`
    Url,
    /// Some of `http://HOST` or `https://HOST`, with commas between them.
    Origins,
    /// Any text in one line.
    Text,
    /// Text that is printed nowhere: it has no flag, since others can see a command line.
    Secret,
    /// Some of the names of signature algorithms, with commas between them.
    Algorithms,
    /// A path.
    File,
    /// A path of a file that holds a secret.
    SecretFile,
    /// A number with a unit of time, or 0.
    Duration,
    /// A number of bytes with a unit.
    Size,
    /// A whole number.
    Count,
    /// `true` or `false`
    Switch,
    /// One of some words.
    Choice(&'static [&'static str]),
}

impl Key {
    /// The environment variable: `GATEWAY_SECTION_NAME`.
    pub fn variable(&self) -> String {
        format!("{}{}", VARIABLE_PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// The command-line flag without its dashes: `section-name`; a section's `enabled` goes by the section's name. A
    /// secret has none.
    pub fn flag(&self) -> Option<String> {
        let name = self.name.strip_suffix(".enabled").unwrap_or(self.name);
        (self.kind != Kind::Secret).then(|| name.replace(['.', '_'], "-"))
    }
}

impl Kind {
    /// A word for the table and for `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Address => "IP:PORT",
            Self::Url => "URL",
            Self::Origins => "ORIGINS",
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
