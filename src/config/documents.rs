//! `documents.*`: trusted documents.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;

/// `documents.mode`: the documents that run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DocumentsMode {
    /// All documents.
    #[default]
    Off,
    /// All documents. Those that [`Self::Require`] would refuse are counted.
    Log,
    /// Trusted documents only.
    Require,
}

impl DocumentsMode {
    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Log => "log",
            Self::Require => "require",
        }
    }
}

/// `documents.*`: the manifests of trusted documents, and their use.
#[derive(Debug, Clone, Default)]
pub struct DocumentsConfig {
    /// `documents.path`
    pub path: Option<PathBuf>,
    /// `documents.mode`
    pub mode: DocumentsMode,
    /// `documents.reload_interval`
    pub reload_interval: Duration,
    /// `documents.size`
    pub size: ByteSize,
}

impl DocumentsConfig {
    /// The key and the problem of a mode without documents.
    pub(super) fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let is_missing = self.path.is_none() && self.mode != DocumentsMode::Off;
        is_missing.then_some((
            "documents.mode",
            "is set without documents.path, so no document is trusted; set documents.path, or set documents.mode to off",
        ))
    }
}
