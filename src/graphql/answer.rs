//! An answer, and how it is written. GraphQL, section 7.

use std::{fmt, sync::Arc};

use async_graphql::{PathSegment, Response, ServerError, Value};

use super::{
    error::{self, ApiError},
    json,
    plan::{Plan, Shape},
    stale::Stale,
};

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// None where nothing was run: a fault of the request. GraphQL, section 7.1.
    pub data: Option<Data>,
    /// What went wrong, each once.
    pub errors: Vec<ServerError>,
    /// What of the data is stale.
    pub stale: Vec<Stale>,
}

/// What an operation has served: none, and so null, where something failed that must not be null.
pub struct Data(Option<Box<Served>>);

struct Served {
    value: Value,
    plan: Arc<Plan>,
}

impl Answer {
    /// Nothing was run, for these reasons.
    pub fn refused(errors: Vec<ApiError>) -> Self {
        Self::not_run(errors.into_iter().map(ServerError::from).collect())
    }

    pub(super) fn not_run(errors: Vec<ServerError>) -> Self {
        Self { data: None, errors, stale: Vec::new() }
    }

    /// Something panicked. Only this answer is lost: a WebSocket, or an event stream, carries others.
    pub(super) fn failed() -> Self {
        Self { data: Some(Data(None)), ..Self::refused(vec![ApiError::Internal]) }
    }

    /// What async-graphql has made of the operation of that `plan`.
    pub(super) fn of(response: Response, plan: &Arc<Plan>) -> Self {
        let Response { data, mut errors, .. } = response;
        errors.retain(|error| error::code(error) != Some(ApiError::NotRun.code()));
        for error in &mut errors {
            // Resolvers fail with an `ApiError` and nothing else, so this is the library, of an argument that validation
            // let pass. Its text repeats the argument.
            error::ensure_code(error, |_| {
                ApiError::BadUserInput("An argument of this field cannot be read.".to_owned())
            });
        }
        // async-graphql leaves out a top field that failed and must not be null, where section 6.4.4 wants null in place
        // of all data.
        let is_lost = |error: &ServerError| match (error.path.first(), &data) {
            (Some(PathSegment::Field(key)), Value::Object(fields)) => {
                plan.shape.has(key) && !fields.contains_key(key.as_str())
            }
            _ => true,
        };
        let is_lost = errors.iter().any(is_lost);
        let served = (!is_lost).then(|| Box::new(Served { value: data, plan: plan.clone() }));
        Self { data: Some(Data(served)), errors, stale: Vec::new() }
    }

    /// Adds the JSON document that clients read (section 7.1) to `out`. It has no line breaks.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { data, errors, stale } = self;
        out.push(b'{');
        if !errors.is_empty() {
            out.extend_from_slice(b"\"errors\":");
            json::value(errors, out);
        }
        if let Some(data) = data {
            out.extend_from_slice(if errors.is_empty() { b"\"data\":" } else { b",\"data\":" });
            data.write(out);
        }
        if !stale.is_empty() {
            out.extend_from_slice(b",\"extensions\":{\"stale\":");
            json::value(stale, out);
            out.push(b'}');
        }
        out.push(b'}');
    }

    /// About how many bytes that takes.
    pub fn length(&self) -> usize {
        const ERROR: usize = 256;
        let data = self.data.as_ref().map_or(0, Data::length);
        data + (self.errors.len() + self.stale.len() + 1) * ERROR
    }
}

impl Data {
    /// Whether it is null.
    pub(super) fn is_null(&self) -> bool {
        self.0.is_none()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Some(served) => write(&served.value, &served.plan.shape, out),
            None => out.extend_from_slice(b"null"),
        }
    }

    fn length(&self) -> usize {
        self.0.as_ref().map_or(0, |served| length(&served.value))
    }
}

/// Adds `value` with its fields in the order of `shape` (section 7.2.2), and without those that stand for nothing.
fn write(value: &Value, shape: &Shape, out: &mut Vec<u8>) {
    match value {
        // An appointment, which has been written already.
        Value::Binary(json) => out.extend_from_slice(json),
        Value::Object(fields) => {
            let mut is_first = true;
            out.push(b'{');
            for (name, shape) in &shape.0 {
                let Some(value) = fields.get(name) else { continue };
                if !std::mem::take(&mut is_first) {
                    out.push(b',');
                }
                json::string(name, out);
                out.push(b':');
                write(value, shape, out);
            }
            out.push(b'}');
        }
        Value::List(items) => json::list(items, out, |item, out| write(item, shape, out)),
        value => json::value(value, out),
    }
}

fn length(value: &Value) -> usize {
    const FIELD: usize = 32;
    match value {
        Value::Binary(json) => json.len(),
        Value::Object(fields) => fields.values().map(|value| FIELD + length(value)).sum(),
        Value::List(items) => items.iter().map(|item| 1 + length(item)).sum(),
        Value::String(text) => text.len() + 2,
        _ => 8,
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}
