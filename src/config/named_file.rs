//! A file that a key names.

use std::path::PathBuf;

/// A file that the configuration names, which was read at the start.
#[derive(Debug, Clone)]
pub struct NamedFile {
    /// The key, or the flag of the file of keys itself.
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    /// Whether it holds a secret.
    pub(crate) is_secret: bool,
}
