//! The formats of manifests, which list the documents of an app:
//!
//! - Apollo: an object with the format `apollo-persisted-query-manifest` and a list of `operations`.
//! - Relay and GraphQL Codegen: an object from ids to texts, or an array of pairs. Apollo Kotlin and older versions of Apollo
//!   iOS write an object with the text in `source` in place of the text.
//! - A plain GraphQL file: a single document, whose id is the SHA-256 hash of the file.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::id::{DocumentId, MAX_ID};

/// The value of `format` in a manifest of Apollo.
const APOLLO_FORMAT: &str = "apollo-persisted-query-manifest";

/// The version of that format.
const APOLLO_VERSION: f64 = 1.0;

/// The maximum length of an id or name in a description, in bytes.
const MAX_DESCRIPTION: usize = 80;

/// The format of a file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// A manifest of Apollo, Relay or GraphQL Codegen.
    Json,
    /// A single document.
    Graphql,
}

/// A document in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDocument {
    /// The id.
    pub id: DocumentId,
    /// The text, with fragments.
    pub text: String,
    /// A description for the operator: the name, if the manifest has it, and the id.
    pub label: String,
}

/// A fault of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFault {
    /// The label of the document; none for the whole file.
    pub label: Option<String>,
    /// The problem and its remedy.
    pub message: String,
}

/// Parses a manifest. Documents and faults are independent: all of both are found.
pub fn parse(text: &str, format: FileFormat) -> (Vec<ManifestDocument>, Vec<ManifestFault>) {
    if format == FileFormat::Graphql {
        let id = DocumentId::of_text(text);
        let label = label(None, id.as_str());
        return (vec![ManifestDocument { id, text: text.to_owned(), label }], Vec::new());
    }
    let mut manifest = Manifest::default();
    if let Err(message) = manifest.read(text.trim_start_matches('\u{feff}')) {
        manifest.faults.push(ManifestFault { label: None, message });
    }
    (manifest.documents, manifest.faults)
}

/// The JSON of a manifest. An object has all of its members, also those with equal names.
enum ManifestJson {
    Object(Vec<(String, Value)>),
    Array(Vec<Value>),
}

#[derive(Default)]
struct Manifest {
    documents: Vec<ManifestDocument>,
    faults: Vec<ManifestFault>,
}

impl Manifest {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let json = serde_json::from_str(text).map_err(|error| match error.is_data() {
            true => "is no manifest: write a JSON object or array".to_owned(),
            // The message of serde_json may repeat parts of the text.
            false => format!("is not valid JSON (line {}, column {})", error.line(), error.column()),
        })?;
        match json {
            ManifestJson::Object(members) => match operations(&members)? {
                Some(operations) => {
                    operations.iter().enumerate().for_each(|(index, it)| self.apollo(index, it))
                }
                None => members.iter().for_each(|(id, value)| self.member(id, value)),
            },
            ManifestJson::Array(items) => {
                items.iter().enumerate().for_each(|(index, it)| self.pair(index, it))
            }
        }
        Ok(())
    }

    /// An item of `operations` of Apollo.
    fn apollo(&mut self, index: usize, operation: &Value) {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        match (text("id"), text("body")) {
            (Some(id), Some(body)) => self.add(id, text("name"), body),
            (id, _) => {
                let label = match (text("name"), id) {
                    (None, None) => format!("operation {}", index + 1),
                    (name, id) => label(name, id.unwrap_or_default()),
                };
                self.fault(label, "has no \"id\" or no \"body\"; write both as strings");
            }
        }
    }

    /// A member of an object from ids to texts.
    fn member(&mut self, id: &str, value: &Value) {
        let (text, name) = match value {
            Value::Object(members) => {
                let text = |name: &str| members.get(name).and_then(Value::as_str);
                (text("source"), text("name"))
            }
            value => (value.as_str(), None),
        };
        match text {
            Some(text) => self.add(id, name, text),
            None => self.fault(label(name, id), "has no text; write the document as a string"),
        }
    }

    /// An item of an array of pairs.
    fn pair(&mut self, index: usize, item: &Value) {
        match item.as_array().map(Vec::as_slice) {
            Some([Value::String(id), Value::String(text)]) => self.add(id, None, text),
            _ => self.fault(format!("item {}", index + 1), "is no pair; write [\"id\", \"document\"]"),
        }
    }

    fn add(&mut self, id: &str, name: Option<&str>, text: &str) {
        let label = label(name, id);
        if id.is_empty() {
            self.fault(label, "has an empty id; give it one");
        } else if id.len() > MAX_ID {
            self.fault(label, &format!("has an id of more than {MAX_ID} bytes; use a hash"));
        } else {
            self.documents.push(ManifestDocument { id: DocumentId::new(id), text: text.to_owned(), label });
        }
    }

    fn fault(&mut self, label: String, message: &str) {
        self.faults.push(ManifestFault { label: Some(label), message: message.to_owned() });
    }
}

/// The operations in a manifest of Apollo. None in an object from ids to texts.
fn operations(members: &[(String, Value)]) -> Result<Option<&[Value]>, String> {
    let member = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let operations = member("operations").and_then(Value::as_array);
    let format = member("format").and_then(Value::as_str);
    match (operations, format) {
        (None, Some(APOLLO_FORMAT)) => Err("has no \"operations\"; write them as an array".to_owned()),
        (None, _) => Ok(None),
        (Some(_), format) if format != Some(APOLLO_FORMAT) => {
            Err(format!("has another \"format\" than {APOLLO_FORMAT}; generate a manifest of that format"))
        }
        (Some(_), _) if member("version").and_then(Value::as_f64) != Some(APOLLO_VERSION) => {
            Err("has another \"version\" than 1; generate a manifest of that version".to_owned())
        }
        (Some(operations), _) => Ok(Some(operations)),
    }
}

/// A description of a document for the operator, on one line.
pub(crate) fn label(name: Option<&str>, id: &str) -> String {
    match (name, id) {
        (Some(name), "") => printable(name),
        (Some(name), id) => format!("{} (id {})", printable(name), printable(id)),
        (None, id) => format!("id {}", printable(id)),
    }
}

/// The beginning of `text` without control characters.
fn printable(text: &str) -> String {
    let mut short = String::new();
    for sign in text.escape_debug() {
        if short.len() >= MAX_DESCRIPTION {
            short.push('…');
            break;
        }
        short.push(sign);
    }
    short
}

impl<'de> Deserialize<'de> for ManifestJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManifestVisitor)
    }
}

struct ManifestVisitor;

impl<'de> Visitor<'de> for ManifestVisitor {
    type Value = ManifestJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ManifestJson, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(ManifestJson::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ManifestJson, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(ManifestJson::Array(array))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json(manifest: &Value) -> (Vec<(String, String)>, Vec<String>) {
        read(&manifest.to_string())
    }

    /// The ids with their texts, and the faults.
    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let (documents, faults) = parse(text, FileFormat::Json);
        let documents = documents.into_iter().map(|it| (it.id.as_str().to_owned(), it.text)).collect();
        let faults = faults.into_iter().map(|it| match it.label {
            Some(label) => format!("{label}: {}", it.message),
            None => it.message,
        });
        (documents, faults.collect())
    }

    #[test]
    fn each_format_is_detected() {
        let expected = vec![("1".to_owned(), "{ a }".to_owned()), ("2".to_owned(), "{ b }".to_owned())];
        for manifest in [
            json!({
                "format": "apollo-persisted-query-manifest",
                "version": 1,
                "operations": [
                    { "id": "1", "body": "{ a }", "name": "A", "type": "query" },
                    { "id": "2", "body": "{ b }", "clientName": null },
                ],
            }),
            json!({ "1": "{ a }", "2": "{ b }" }),
            json!([["1", "{ a }"], ["2", "{ b }"]]),
            json!({ "1": { "name": "A", "source": "{ a }" }, "2": { "source": "{ b }", "type": "query" } }),
        ] {
            assert_eq!(json(&manifest), (expected.clone(), vec![]), "{manifest}");
            assert_eq!(read(&format!("\u{feff}\n{manifest}")), (expected.clone(), vec![]), "{manifest}");
        }
        // An app may have an id of that name.
        assert_eq!(json(&json!({ "format": "{ a }" })).0, [("format".to_owned(), "{ a }".to_owned())]);
        for empty in ["{}", "[]"] {
            assert_eq!(read(empty), (vec![], vec![]), "{empty}");
        }
    }

    #[test]
    fn a_plain_file_is_one_document_with_its_hash() {
        let (documents, faults) = parse("abc", FileFormat::Graphql);
        assert_eq!((documents[0].text.as_str(), documents.len(), faults.len()), ("abc", 1, 0));
        assert_eq!(documents[0].id, DocumentId::of_text("abc"));
    }

    #[test]
    fn equal_ids_are_all_found() {
        let (documents, faults) = read(r#"{"1": "{ a }", "1": "{ b }", "1": "{ a }"}"#);
        assert_eq!((documents.len(), faults.len()), (3, 0));
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        for (text, place) in [
            ("", "JSON"),
            ("{", "line 1, column 1"),
            ("{} x", "JSON"),
            ("query { a }", "JSON"),
            ("1", "no manifest"),
            ("\"{ a }\"", "no manifest"),
            ("null", "no manifest"),
            (r#"{"1": 2, "3": "{ a }"}"#, "id 1: has no text"),
            (r#"{"1": {"name": "A"}, "3": "{ a }"}"#, "A (id 1): has no text"),
            (r#"{"": "{ b }", "3": "{ a }"}"#, "empty id"),
            (r#"[["3", "{ a }"], ["1"]]"#, "item 2: is no pair"),
            (r#"["1", "{ a }"]"#, "item 1: is no pair"),
            (r#"{"format": "apollo-persisted-query-manifest"}"#, "no \"operations\""),
            (r#"{"format": "x", "version": 1, "operations": []}"#, "another \"format\""),
            (r#"{"operations": []}"#, "another \"format\""),
            (
                r#"{"format": "apollo-persisted-query-manifest", "version": 2, "operations": []}"#,
                "\"version\"",
            ),
            (
                r#"{"format": "apollo-persisted-query-manifest", "version": 1, "operations": [{"id": "3", "body": "{ a }"}, 1]}"#,
                "operation 2: has no \"id\"",
            ),
            (
                r#"{"format": "apollo-persisted-query-manifest", "version": 1, "operations": [{"id": "3", "body": "{ a }"}, {"id": "1", "name": "A"}]}"#,
                "A (id 1): has no \"id\" or no \"body\"",
            ),
        ] {
            let (documents, faults) = read(text);
            assert!(faults.iter().any(|fault| fault.contains(place)), "{text}: {faults:?}");
            if text.contains("\"3\"") {
                assert_eq!(documents, [("3".to_owned(), "{ a }".to_owned())], "{text}");
            }
        }
        let long = "x".repeat(MAX_ID + 1);
        let (documents, faults) = json(&json!({ &long: "{ a }", &long[1..]: "{ a }" }));
        assert_eq!((documents.len(), faults.len()), (1, 1), "{faults:?}");
        assert!(faults[0].len() < 200, "{faults:?}");
    }

    #[test]
    fn descriptions_stay_on_one_line() {
        let (_, faults) = json(&json!({ "a\nERROR \u{1b}[31m": 1 }));
        assert!(faults[0].chars().all(|sign| !sign.is_control()), "{faults:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text: String, id: String, document: String) {
            read(&text);
            let (documents, faults) = json(&json!({ &id: document }));
            prop_assert_eq!(documents.len() + faults.len(), 1);
            let (documents, faults) = json(&json!([[id, document], text]));
            prop_assert_eq!(documents.len() + faults.len(), 2);
        }
    }
}
