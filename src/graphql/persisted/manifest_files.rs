//! The files of `documents.path`: reading them, and noticing that they have changed.
//!
//! Changes are noticed by the contents: modification times are too coarse, and orchestrators replace whole directories.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;

use super::manifest::FileFormat;
use crate::config::documents::DocumentsConfig;

/// The maximum depth of subdirectories. Symbolic links may form a cycle.
const MAX_DEPTH: usize = 8;

/// The location of the manifests.
#[derive(Debug, Clone)]
pub struct ManifestSource {
    path: PathBuf,
    max_size: ByteSize,
}

/// A manifest as it was read.
#[derive(Debug)]
pub struct ManifestFile {
    /// The path.
    pub name: String,
    /// The contents.
    pub text: String,
    /// The format, by its extension.
    pub format: FileFormat,
}

/// A fault of a manifest or of a document in it, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentFault {
    /// The path of the file.
    pub file: String,
    /// The operation, and the id of its document; none for the whole file.
    pub document: Option<String>,
    /// The problem.
    pub message: String,
}

/// The manifests, or the reasons why they cannot be read.
pub type ManifestFiles = Result<Vec<ManifestFile>, Vec<DocumentFault>>;

impl ManifestSource {
    /// The source that `config` names, if any.
    pub fn of(config: &DocumentsConfig) -> Option<Self> {
        Some(Self { path: config.path.clone()?, max_size: config.size })
    }

    /// Reads all manifests: the file itself, or each `.json`, `.graphql` and `.gql` file of the directory. Names that begin
    /// with a dot are skipped.
    ///
    /// # Errors
    /// All faults of files.
    pub fn read(&self) -> ManifestFiles {
        let mut reader = Reader { files: Vec::new(), faults: Vec::new(), left: self.max_size.as_u64() };
        let is_complete = reader.entry(&self.path, 0);
        if !is_complete {
            reader.report(
                &self.path,
                format!(
                    "exceeds the limit of {} (documents.size); remove old manifests, or raise it",
                    self.max_size
                ),
            );
        }
        if reader.faults.is_empty() { Ok(reader.files) } else { Err(reader.faults) }
    }
}

struct Reader {
    files: Vec<ManifestFile>,
    faults: Vec<DocumentFault>,
    /// The number of bytes that may still be read.
    left: u64,
}

impl Reader {
    fn report(&mut self, path: &Path, message: String) {
        self.faults.push(DocumentFault { file: path.display().to_string(), document: None, message });
    }

    /// Reads a file or a directory at this `depth`. False if the manifests are too large.
    fn entry(&mut self, path: &Path, depth: usize) -> bool {
        let read = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() && depth == MAX_DEPTH => {
                self.report(path, format!("is more than {MAX_DEPTH} directories deep; move it up"));
                return true;
            }
            Ok(metadata) if metadata.is_dir() => return self.directory(path, depth),
            // Of a directory, only manifests are read.
            _ if depth > 0 && format_of(path).is_none() => return true,
            Ok(metadata) if metadata.is_file() => self.file(path),
            Ok(_) => Err(io::Error::other("it is neither a file nor a directory")),
            Err(error) => Err(error),
        };
        read.unwrap_or_else(|error| {
            self.report(path, format!("cannot be read ({error}); make it readable for this user"));
            true
        })
    }

    fn directory(&mut self, path: &Path, depth: usize) -> bool {
        let names = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = match names {
            Ok(names) => names,
            Err(error) => {
                self.report(path, format!("cannot be listed ({error}); make it readable for this user"));
                return true;
            }
        };
        names.sort_unstable();
        // Kubernetes and editors keep further copies under such names.
        let visible = names.iter().filter(|name| {
            // The second one is in the root of a mounted volume, and readable by root only.
            !name.as_encoded_bytes().starts_with(b".") && *name != "lost+found"
        });
        visible.map(|name| path.join(name)).all(|path| self.entry(&path, depth + 1))
    }

    fn file(&mut self, path: &Path) -> io::Result<bool> {
        // A file that the configuration names is a manifest, whatever its extension.
        let format = format_of(path).unwrap_or(FileFormat::Json);
        let name = path.display().to_string();
        let Some(left) = self.left.checked_sub(name.len() as u64) else { return Ok(false) };
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(left + 1).read_to_end(&mut bytes)?;
        let Some(left) = left.checked_sub(bytes.len() as u64) else { return Ok(false) };
        self.left = left;
        match String::from_utf8(bytes) {
            Ok(text) => self.files.push(ManifestFile { name, text, format }),
            Err(_) => self.report(path, "is not UTF-8 text; save it as UTF-8".to_owned()),
        }
        Ok(true)
    }
}

/// The format of a manifest by its extension; None for other files.
fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()? {
        "graphql" | "gql" => Some(FileFormat::Graphql),
        "json" => Some(FileFormat::Json),
        _ => None,
    }
}

/// Reads the manifests again and again, and notices changes.
#[derive(Debug)]
pub struct ManifestWatch {
    source: ManifestSource,
    interval: Duration,
    /// The contents in use, or the last that turned out to be faulty.
    known: Fingerprint,
    previous: Fingerprint,
}

type Fingerprint = blake3::Hash;

impl ManifestWatch {
    /// Watches the files in `source`, which were `known` at the start.
    pub fn new(source: ManifestSource, interval: Duration, known: &ManifestFiles) -> Self {
        let known = fingerprint(known);
        Self { source, interval, known, previous: known }
    }

    /// Waits until two successive reads find the same contents, which differ from the known ones. A manifest that is just
    /// being written is therefore left alone.
    pub async fn changed(&mut self) -> ManifestFiles {
        loop {
            tokio::time::sleep(self.interval).await;
            let source = self.source.clone();
            let read = tokio::task::spawn_blocking(move || {
                let files = source.read();
                (fingerprint(&files), files)
            });
            // The task fails only at the end of the process.
            let Ok((fingerprint, files)) = read.await else { continue };
            let is_stable = fingerprint == self.previous;
            self.previous = fingerprint;
            if is_stable && fingerprint != self.known {
                self.known = fingerprint;
                return files;
            }
        }
    }
}

/// A digest of all contents and faults.
fn fingerprint(files: &ManifestFiles) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    match files {
        Ok(files) => files.iter().for_each(|file| {
            add(&file.name);
            add(&file.text);
        }),
        Err(faults) => faults.iter().for_each(|fault| add(&fault.to_string())),
    }
    hasher.finalize()
}

impl fmt::Display for DocumentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, message } = self;
        match document {
            Some(document) => write!(f, "{file}: {document}: {message}"),
            None => write!(f, "{file}: {message}"),
        }
    }
}
