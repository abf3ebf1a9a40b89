//! The file of `shared.key_file`.

use appointments_gateway::credentials::key_ring::KeyRing;

use super::TempFile;

/// A key file.
pub struct FleetKeys {
    file: TempFile,
    lines: Vec<String>,
}

impl FleetKeys {
    /// A file with one new key.
    pub fn generate() -> Self {
        Self::of(&[KeyRing::generate_line()])
    }

    /// A file with these keys, in order.
    pub fn of(lines: &[String]) -> Self {
        Self { file: TempFile::with(&(lines.join("\n") + "\n")), lines: lines.to_vec() }
    }

    /// The path, for `shared.key_file`.
    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// The keys.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
