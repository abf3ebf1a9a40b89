//! Loading of trusted documents: from manifests to validated, planned documents in use. A set is used as a whole or not at
//! all.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
};

use async_graphql::{Pos, ServerError, parser::types::ExecutableDocument};
use futures_util::FutureExt as _;
use thiserror::Error;

use super::{
    api::{Api, reject},
    execute::response::GraphqlResponse,
    persisted::{
        id::DocumentId,
        manifest::{self, ManifestDocument},
        manifest_files::{DocumentFault, ManifestFile, ManifestFiles},
        trusted::TrustedTexts,
    },
    pipeline::{document_cache::ValidatedDocument, normalize, parse, plan::Plan},
};
use crate::metrics::{fetch_outcome, metrics};

/// The maximum number of faults that are logged after a change. `check` reports all of them.
const MAX_LOGGED_FAULTS: usize = 10;

/// All faults of the manifests.
#[derive(Debug, Error)]
pub struct DocumentFaults(pub Vec<DocumentFault>);

impl fmt::Display for DocumentFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "documents.path has {count} {}:", if count == 1 { "fault" } else { "faults" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// A fault of an operation.
struct OperationFault {
    /// The name; none for a fault of the whole document, and for an anonymous operation.
    operation: Option<String>,
    message: String,
}

/// The trusted documents of several files.
#[derive(Default)]
struct Loading {
    /// The texts with the files that named them first.
    texts: HashMap<DocumentId, (Arc<str>, String)>,
    /// The faults of each text.
    checked: HashMap<Arc<str>, Vec<OperationFault>>,
    faults: Vec<DocumentFault>,
}

impl Api {
    /// Validates and plans all documents of `files`, and uses them from now on. Returns their number.
    ///
    /// # Errors
    /// All faults. The documents in use stay in use.
    pub async fn load_documents(&self, files: ManifestFiles) -> Result<usize, DocumentFaults> {
        let loaded = self.check_documents(files).await.map(|texts| {
            let count = texts.len();
            self.persisted.trusted().activate(texts);
            metrics().trusted_documents.set(count as i64);
            count
        });
        // After the change, so that the count shows only documents in use.
        metrics().trusted_document_loads.count(fetch_outcome(&loaded));
        loaded
    }

    /// Does the same after a change of the manifests, and logs the outcome.
    pub async fn reload_documents(&self, files: ManifestFiles) {
        match self.load_documents(files).await {
            Ok(documents) => tracing::info!(documents, "trusted documents reloaded"),
            Err(DocumentFaults(faults)) => {
                tracing::error!(
                    faults = faults.len(),
                    "trusted documents not reloaded: a manifest is faulty; the previous documents stay in use"
                );
                for DocumentFault { file, document, message } in faults.iter().take(MAX_LOGGED_FAULTS) {
                    tracing::error!(file, document, fault = message, "trusted document rejected");
                }
            }
        }
    }

    /// The documents of `files`, which are all valid.
    async fn check_documents(&self, files: ManifestFiles) -> Result<TrustedTexts, DocumentFaults> {
        let mut loading = Loading::default();
        for file in files.map_err(DocumentFaults)? {
            self.check_file(&mut loading, file).await;
        }
        let Loading { texts, mut faults, .. } = loading;
        if texts.is_empty() && faults.is_empty() {
            faults.push(DocumentFault {
                file: "documents.path".to_owned(),
                document: None,
                message: "has no document; name a manifest (.json) or a GraphQL file (.graphql, .gql)"
                    .to_owned(),
            });
        }
        if !faults.is_empty() {
            return Err(DocumentFaults(faults));
        }
        Ok(texts.into_iter().map(|(id, (text, _))| (id, text)).collect())
    }

    async fn check_file(&self, loading: &mut Loading, file: ManifestFile) {
        let ManifestFile { name, text, format } = file;
        let (documents, faults) = manifest::parse(&text, format);
        loading.faults.extend(faults.into_iter().map(|fault| DocumentFault {
            file: name.clone(),
            document: fault.label,
            message: fault.message,
        }));
        for document in documents {
            self.check_document(loading, &name, document).await;
        }
    }

    async fn check_document(&self, loading: &mut Loading, file: &str, document: ManifestDocument) {
        let ManifestDocument { id, text, label } = document;
        let text = match loading.checked.get_key_value(text.as_str()) {
            Some((known, _)) => known.clone(),
            None => {
                let text = Arc::<str>::from(text);
                let faults = self.warm(&text).await.err().unwrap_or_default();
                loading.checked.insert(text.clone(), faults);
                // A manifest may have thousands of documents, and requests are served meanwhile.
                tokio::task::yield_now().await;
                text
            }
        };
        let faults = loading.checked.get(&text).into_iter().flatten();
        loading.faults.extend(faults.map(|OperationFault { operation, message }| DocumentFault {
            file: file.to_owned(),
            document: Some(match operation {
                Some(name) => manifest::label(Some(name), id.as_str()),
                None => label.clone(),
            }),
            message: message.clone(),
        }));
        match loading.texts.entry(id) {
            Entry::Vacant(entry) => drop(entry.insert((text, file.to_owned()))),
            Entry::Occupied(entry) if entry.get().0 == text => {}
            Entry::Occupied(entry) => loading.faults.push(DocumentFault {
                file: file.to_owned(),
                document: Some(label),
                message: format!(
                    "has the id of another document in {}; give each document an id of its own",
                    entry.get().1
                ),
            }),
        }
    }

    /// Validates each operation of the document `text`, plans it as far as its variables do not matter, and caches it.
    async fn warm(&self, text: &str) -> Result<(), Vec<OperationFault>> {
        let warmed = AssertUnwindSafe(async {
            let document = self.read(text).map_err(|response| faults(None, response))?;
            let names: Vec<_> =
                document.operations.iter().map(|(name, _)| name.map(ToString::to_string)).collect();
            let is_cached =
                |name: &Option<String>| self.trusted_documents.get(text, name.as_deref()).is_some();
            if names.iter().all(is_cached) {
                return Ok(());
            }
            let operations = self.validate_operations(text, &document, &names).await;
            let operations = operations.map_err(|response| faults(Some(&document), response))?;
            if let ([Some(_)], [validated]) = (names.as_slice(), operations.as_slice()) {
                // The only operation needs no name in a request.
                self.trusted_documents.put(text.to_owned(), None, validated.clone());
            }
            for (name, validated) in names.into_iter().zip(operations) {
                self.trusted_documents.put(text.to_owned(), name, validated);
            }
            Ok(())
        });
        let internal_error = |_| Err(faults(None, GraphqlResponse::internal_error()));
        warmed.catch_unwind().await.unwrap_or_else(internal_error)
    }

    /// The operations `names` of `document`, validated and planned.
    async fn validate_operations(
        &self,
        text: &str,
        document: &ExecutableDocument,
        names: &[Option<String>],
    ) -> Result<Vec<ValidatedDocument>, GraphqlResponse> {
        let analyze = |name: &Option<String>| self.analyze(text, name.as_deref(), document);
        let analyzed = names.iter().map(analyze).collect::<Result<Vec<_>, _>>()?;
        self.validate(text, document.clone(), names.first().and_then(Option::as_deref)).await?;
        let plan = |(name, analyzed): (&Option<String>, ValidatedDocument)| {
            let Some(shape) = analyzed.default_shape() else { return Ok(analyzed) };
            let operation = parse::operation(document, name.as_deref()).map_err(reject)?;
            let normalized = normalize::normalize(document, operation, &shape).map_err(reject)?;
            let plan = Plan::of(normalized, &self.types, &self.limits);
            plan.cost.check_fixed(&self.limits).map_err(reject)?;
            Ok(analyzed.with(shape, Arc::new(plan)))
        };
        names.iter().zip(analyzed).map(plan).collect()
    }
}

/// The errors of a rejected document, if it could be parsed.
fn faults(document: Option<&ExecutableDocument>, response: GraphqlResponse) -> Vec<OperationFault> {
    let fault = |error: &ServerError| {
        let at = error.locations.first();
        let message = match at {
            Some(at) => format!("{} (line {}, column {})", error.message, at.line, at.column),
            None => error.message.clone(),
        };
        OperationFault { operation: document.and_then(|document| operation_at(document, at)), message }
    };
    response.errors.iter().map(fault).collect()
}

/// The name of the operation at a location: the only one of the document, or the one that begins before it.
fn operation_at(document: &ExecutableDocument, at: Option<&Pos>) -> Option<String> {
    let mut operations: Vec<_> =
        document.operations.iter().map(|(name, operation)| (operation.pos, name)).collect();
    operations.sort_unstable_by_key(|(start, _)| *start);
    let name = match (operations.as_slice(), at) {
        ([(_, name)], _) => *name,
        (operations, Some(at)) => operations.iter().rfind(|(start, _)| start <= at)?.1,
        _ => None,
    };
    name.map(ToString::to_string)
}
