//! Trusted documents: the texts of all clients under their hashes, and an id whose document is swapped while clients
//! request it.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::judge::Selection;

/// The id whose document is swapped.
pub const SWAPPED: &str = "swapped";

/// The interval between two reads of the manifests.
const READ: Duration = Duration::from_millis(50);

/// The time after which a changed manifest is certainly in use: two reads, and delays of the machine.
const IN_USE: Duration = Duration::from_secs(3);

pub const LIST: &str = "query ($first: Int, $after: String) { appointments(first: $first, after: $after) {
    nodes { id reference status } pageInfo { hasNextPage endCursor } totalCount
} }";

pub const UPDATE: &str = "mutation ($id: UUID!, $input: UpdateAppointmentInput!) {
    updateAppointment(id: $id, input: $input) { appointment { id reference status } userErrors { field message } }
}";

pub const CANCEL: &str = "mutation ($id: UUID!, $reason: String) {
    cancelAppointment(id: $id, reason: $reason) { appointment { id reference status } userErrors { field message } }
}";

pub const WATCH: &str = "subscription ($id: UUID!) { appointmentChanged(id: $id) { id reference status } }";

/// A query for one appointment.
pub fn one(selection: Selection) -> String {
    format!("query ($id: UUID!) {{ appointment(id: $id) {} }}", selection.text())
}

/// A query for several appointments.
pub fn several(selection: Selection) -> String {
    format!("query ($ids: [UUID!]!) {{ appointmentsByIds(ids: $ids) {} }}", selection.text())
}

/// The document of a request.
pub enum Document<'t> {
    /// Its text.
    Text(&'t str),
    /// Its id, in the parameters.
    Id(String),
    /// Its id, in the path.
    Path(String),
}

impl<'t> Document<'t> {
    /// The document with this text, sometimes named by its hash.
    pub fn of(text: &'t str, rng: &mut fastrand::Rng) -> Self {
        match rng.u8(0..6) {
            0 => Self::Id(hash(text)),
            1 => Self::Path(hash(text)),
            _ => Self::Text(text),
        }
    }

    /// The same for a transport without a path for each request.
    pub fn in_message(text: &'t str, rng: &mut fastrand::Rng) -> Self {
        if rng.u8(0..3) == 0 { Self::Id(hash(text)) } else { Self::Text(text) }
    }

    /// The path of the request.
    pub fn path(&self) -> String {
        match self {
            Self::Path(id) => format!("/graphql/{id}"),
            Self::Text(_) | Self::Id(_) => "/graphql".to_owned(),
        }
    }

    /// The parameters of the request.
    pub fn parameters(&self, variables: &Value) -> Value {
        match self {
            Self::Text(text) => json!({ "query": text, "variables": variables }),
            Self::Id(id) => json!({ "documentId": id, "variables": variables }),
            Self::Path(_) => json!({ "variables": variables }),
        }
    }
}

/// The SHA-256 of a text, which is its id in the manifest.
fn hash(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The manifests of the gateway, in a directory that is removed when dropped.
pub struct Documents {
    directory: PathBuf,
    /// All versions of the swapped document.
    versions: Mutex<Vec<Version>>,
}

/// A version of the swapped document.
struct Version {
    /// None while there is no document with the id.
    selection: Option<Selection>,
    replaced: Option<Instant>,
}

impl Documents {
    pub fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("soak-manifests-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory can be written");
        let selections = [Selection::Brief, Selection::Full];
        let texts = selections.into_iter().flat_map(|selection| [one(selection), several(selection)]);
        let texts = texts.chain([LIST, UPDATE, CANCEL, WATCH].map(str::to_owned));
        let documents = Self { directory, versions: Mutex::default() };
        documents.write("clients.json", &texts.map(|text| (hash(&text), json!(text))).collect());
        documents.begin(Some(Selection::Brief));
        documents
    }

    /// The settings of the gateway.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("documents.path", self.directory.display().to_string()),
            ("documents.reload_interval", format!("{}ms", READ.as_millis())),
        ]
    }

    /// Replaces the swapped document by another one, or removes it.
    pub fn swap(&self, rng: &mut fastrand::Rng) {
        let current = self.versions.lock().unwrap().last().and_then(|version| version.selection);
        let all = [Some(Selection::Brief), Some(Selection::Full), None];
        let others = all.into_iter().filter(|other| *other != current).collect::<Vec<_>>();
        self.begin(others[rng.usize(0..others.len())]);
    }

    fn begin(&self, selection: Option<Selection>) {
        let mut versions = self.versions.lock().unwrap();
        self.write(
            "swapped.json",
            &selection.map(|it| (SWAPPED.to_owned(), json!(one(it)))).into_iter().collect(),
        );
        if let Some(previous) = versions.last_mut() {
            previous.replaced = Some(Instant::now());
        }
        versions.push(Version { selection, replaced: None });
    }

    /// The swapped documents that a request sent at `asked` and answered by now can have.
    pub fn possible(&self, asked: Instant) -> Vec<Option<Selection>> {
        let versions = self.versions.lock().unwrap();
        let is_possible =
            |version: &&Version| version.replaced.is_none_or(|replaced| replaced + IN_USE > asked);
        versions.iter().filter(is_possible).map(|version| version.selection).collect()
    }

    /// Replaces a manifest at once.
    fn write(&self, name: &str, texts: &serde_json::Map<String, Value>) {
        // A name that the gateway skips.
        let temporary = self.directory.join(".temporary");
        let written = fs::write(&temporary, json!(texts).to_string());
        written.and_then(|()| fs::rename(temporary, self.directory.join(name))).expect("it can be written");
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
