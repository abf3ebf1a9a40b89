//! A file named in the configuration.

use std::path::PathBuf;

/// A file named in the configuration, read at start.
#[derive(Debug, Clone)]
pub struct NamedFile {
    /// The key that names it; `--config` for the configuration file itself.
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    /// Whether it contains a secret.
    pub(crate) is_secret: bool,
}
