//! Manifests of trusted documents, and gateways that trust them.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Gateway, TIMEOUT};

/// A directory of manifests, which is removed when dropped.
pub struct Manifests(PathBuf);

impl Manifests {
    /// A directory with these files.
    pub fn with(files: &[(&str, String)]) -> Self {
        let directory = std::env::temp_dir().join(format!("gateway-manifests-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&directory).unwrap();
        let manifests = Self(directory);
        files.iter().for_each(|(name, text)| manifests.write(name, text));
        manifests
    }

    /// A manifest of ids with texts.
    pub fn of(documents: &[(&str, &str)]) -> Self {
        Self::with(&[("app.json", ids_to_texts(documents))])
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// The path of a file in the directory.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Replaces a file at once.
    pub fn write(&self, name: &str, text: &str) {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let temporary = self.0.join(".temporary");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, file).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    /// A gateway before `upstream` that trusts these documents, and reads them again every 20 ms.
    pub async fn gateway(&self, upstream: &str, mode: &str, settings: &[(&str, &str)]) -> Gateway {
        let trusting = [
            ("documents.path", self.path()),
            ("documents.mode", mode),
            ("documents.reload_interval", "20ms"),
            ("graphiql.enabled", "false"),
        ];
        Gateway::before(upstream, &[&trusting, settings].concat()).await
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Gateway {
    /// Waits until `count` further manifests were loaded with that outcome, `ok` or `failed`.
    pub async fn until_loaded(&self, outcome: &str, count: f64) {
        let name = format!("gateway_trusted_document_loads_total{{outcome=\"{outcome}\"}}");
        let loaded = async {
            while self.metrics().await[&name] < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, loaded).await.unwrap_or_else(|_| panic!("no load is {outcome}"));
    }

    /// The counted documents that are not trusted: texts, and unknown ids.
    pub async fn untrusted(&self) -> (f64, f64) {
        let metrics = self.metrics().await;
        let of = |by: &str| metrics[&format!("gateway_untrusted_documents_total{{by=\"{by}\"}}")];
        (of("text"), of("id"))
    }
}

/// The manifest of Relay and GraphQL Codegen.
pub fn ids_to_texts(documents: &[(&str, &str)]) -> String {
    let members = documents.iter().map(|(id, text)| ((*id).to_owned(), Value::from(*text)));
    Value::Object(members.collect()).to_string()
}

/// The manifest of Apollo, of ids with names and texts.
pub fn apollo(documents: &[(&str, &str, &str)]) -> String {
    let operation = |(id, name, text): &(&str, &str, &str)| json!({ "id": id, "name": name, "type": "query", "body": text });
    let operations: Vec<_> = documents.iter().map(operation).collect();
    json!({ "format": "apollo-persisted-query-manifest", "version": 1, "operations": operations }).to_string()
}
