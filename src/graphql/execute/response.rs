//! An answer, and how it is written. GraphQL, section 7.

use std::{fmt, mem, sync::Arc};

use async_graphql::{PathSegment, Response, ServerError, Value};
use bytes::Bytes;

use super::{
    draft::{Draft, Errors, Excess},
    json,
    run::Run,
    stale::Stale,
};
use crate::metrics::metrics;
use crate::{
    error::{self, ApiError},
    graphql::pipeline::plan::{Plan, Shape},
    response_memory::ResponseMemory,
};

/// The answer to a request.
#[derive(Debug)]
pub struct GraphqlResponse {
    /// None where nothing was run: a fault of the request. GraphQL, section 7.1.
    pub data: Option<Data>,
    /// What went wrong, each once.
    pub errors: Vec<ServerError>,
    /// What of the data is stale.
    pub stale: Vec<Stale>,
    /// What its resolvers wrote, where it was run. It is None for the few errors of any other answer.
    draft: Option<Box<Draft>>,
}

/// An answer as JSON. It counts in the [`ResponseMemory`] until the last clone of its body is dropped.
#[derive(Debug)]
pub struct EncodedJson {
    /// The JSON document, and whatever was to stand around it.
    pub body: Bytes,
    /// Whether nothing of the answer is missing or stale.
    pub is_whole: bool,
}

/// An answer while it is put together. What is copied from its parts is freed at once.
struct Assembly<'d> {
    out: Vec<u8>,
    /// Where the document begins in `out`.
    start: usize,
    /// What the document has to keep to.
    budget: Option<&'d mut Draft>,
}

/// What an operation has served: none, and so null, where something failed that must not be null.
pub struct Data(Option<Box<Served>>);

struct Served {
    value: Value,
    plan: Arc<Plan>,
}

impl GraphqlResponse {
    /// Nothing was run, for these reasons.
    pub fn refused(errors: Vec<ApiError>) -> Self {
        Self::not_run(errors.into_iter().map(ServerError::from).collect())
    }

    pub(crate) fn not_run(errors: Vec<ServerError>) -> Self {
        Self { data: None, errors, stale: Vec::new(), draft: None }
    }

    /// An operation was run, and there is an error in place of all its data.
    pub(crate) fn without_data(error: ApiError) -> Self {
        Self { data: Some(Data(None)), ..Self::refused(vec![error]) }
    }

    /// Something panicked. Only this answer is lost: a WebSocket, or an event stream, carries others.
    pub(crate) fn failed() -> Self {
        Self::without_data(ApiError::Internal)
    }

    /// What async-graphql has made of an operation, or of an event of a subscription.
    pub(crate) fn of(response: Response, run: &Run) -> Self {
        let Run { plan, memory, .. } = run;
        let draft = Some(Box::new(run.draft().take(memory)));
        if draft.as_ref().is_some_and(|draft| !draft.is_mutation && draft.excess().is_some()) {
            // Nothing of it is served, and the error is added when it is written.
            return Self { data: Some(Data(None)), errors: Vec::new(), stale: Vec::new(), draft };
        }
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
        Self { data: Some(Data(served)), errors, stale: Vec::new(), draft }
    }

    /// Writes the JSON document that clients read (section 7.1), between `before` and `after`. It has no line breaks. Its
    /// errors are counted. Where it is larger than `limits.answer`, there is an error in place of the data; the answer
    /// to a mutation is written in any case, since its parts have been bounded one by one.
    ///
    /// # Errors
    /// `OVERLOADED`, where there is no memory for the answer to a query or for an event.
    pub(crate) fn encode(
        mut self,
        memory: &ResponseMemory,
        before: &[u8],
        after: &[u8],
    ) -> Result<EncodedJson, ApiError> {
        let mut draft = self.draft.take();
        let mut malformed = draft.as_mut().map(|draft| mem::take(&mut draft.errors)).unwrap_or_default();
        let mut out = Vec::with_capacity(before.len() + self.length(&malformed) + after.len());
        out.extend_from_slice(before);
        let budget = draft.as_deref_mut().filter(|draft| !draft.is_mutation);
        let mut assembly = Assembly { start: out.len(), out, budget };
        let excess = assembly.answer(&mut self, &mut malformed).err();
        match excess {
            None => malformed.observe(),
            Some(excess @ Excess::Memory(_)) => return Err(excess.into()),
            Some(excess @ Excess::GraphqlResponse(_)) => {
                self = Self { data: self.data.map(|_| Data(None)), ..Self::without_data(excess.into()) };
                assembly.replace(&mut self);
            }
        }
        let Assembly { mut out, .. } = assembly;
        out.extend_from_slice(after);
        metrics().count_errors(&self.errors);
        let reservation = draft.map_or_else(|| memory.reservation(), |draft| draft.into_reservation());
        let is_whole = excess.is_none() && self.is_whole() && malformed.count == 0;
        Ok(EncodedJson { body: reservation.into_bytes(out), is_whole })
    }

    fn is_whole(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.is_null())
            && self.errors.is_empty()
            && self.stale.is_empty()
    }

    /// About how many bytes that takes.
    fn length(&self, malformed: &Errors) -> usize {
        const ERROR: usize = 256;
        let data = self.data.as_ref().map_or(0, Data::length);
        data + malformed.json.len() + (self.errors.len() + self.stale.len() + 1) * ERROR
    }
}

impl Data {
    /// Whether it is null.
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_none()
    }

    fn length(&self) -> usize {
        self.0.as_ref().map_or(0, |served| length(&served.value))
    }
}

impl Assembly<'_> {
    /// Adds the document of `answer`, with the errors of `malformed` values among its own.
    fn answer(&mut self, answer: &mut GraphqlResponse, malformed: &mut Errors) -> Result<(), Excess> {
        self.has_room(malformed.json.len())?;
        self.out.push(b'{');
        let has_errors = !answer.errors.is_empty() || malformed.count > 0;
        if has_errors {
            self.out.extend_from_slice(b"\"errors\":[");
            self.items(answer.errors.iter(), |it, error| {
                json::value(error, &mut it.out);
                Ok(())
            })?;
            if !answer.errors.is_empty() && malformed.count > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&mem::take(&mut malformed.json));
            self.out.push(b']');
        }
        if let Some(Data(data)) = &mut answer.data {
            self.out.extend_from_slice(if has_errors { b",\"data\":" } else { b"\"data\":" });
            match data.as_deref_mut() {
                Some(Served { value, plan }) => self.value(value, &plan.shape)?,
                None => self.out.extend_from_slice(b"null"),
            }
        }
        if !answer.stale.is_empty() {
            self.out.extend_from_slice(b",\"extensions\":{\"stale\":[");
            self.items(answer.stale.iter(), |it, stale| {
                json::value(stale, &mut it.out);
                Ok(())
            })?;
            self.out.extend_from_slice(b"]}");
        }
        self.out.push(b'}');
        self.has_room(0)
    }

    /// Has the document of another answer, one error long, in place of what was written.
    fn replace(&mut self, answer: &mut GraphqlResponse) {
        self.out.truncate(self.start);
        self.out.shrink_to(self.start);
        self.budget = None;
        // Without a budget it fails never.
        let _ = self.answer(answer, &mut Errors::default());
    }

    /// Adds `value` with its fields in the order of `shape` (section 7.2.2), and without those that stand for nothing.
    fn value(&mut self, value: &mut Value, shape: &Shape) -> Result<(), Excess> {
        match value {
            // An appointment, which has been written already.
            Value::Binary(json) => {
                let json = mem::take(json);
                self.has_room(json.len())?;
                self.out.extend_from_slice(&json);
            }
            Value::Object(fields) => {
                let mut is_first = true;
                self.out.push(b'{');
                for (name, shape) in &shape.0 {
                    let Some(value) = fields.get_mut(name) else { continue };
                    self.has_room(name.len())?;
                    if !mem::take(&mut is_first) {
                        self.out.push(b',');
                    }
                    json::string(name, &mut self.out);
                    self.out.push(b':');
                    self.value(value, shape)?;
                }
                self.out.push(b'}');
            }
            Value::List(items) => {
                self.out.push(b'[');
                self.items(items.iter_mut(), |it, item| it.value(item, shape))?;
                self.out.push(b']');
            }
            value => json::value(value, &mut self.out),
        }
        Ok(())
    }

    /// Adds items with commas between them.
    fn items<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Excess>,
    ) -> Result<(), Excess> {
        for (index, item) in items.enumerate() {
            self.has_room(0)?;
            if index > 0 {
                self.out.push(b',');
            }
            write(self, item)?;
        }
        Ok(())
    }

    /// Makes sure that the document may grow by `more` bytes.
    fn has_room(&mut self, more: usize) -> Result<(), Excess> {
        let total = self.out.len() - self.start + more;
        self.budget.as_deref_mut().map_or(Ok(()), |budget| budget.check_total(total))
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
