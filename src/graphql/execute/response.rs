//! GraphQL responses and their JSON encoding (GraphQL specification, section 7).

use std::{fmt, mem, sync::Arc};

use async_graphql::{PathSegment, Response, ServerError, Value};
use bytes::Bytes;

use super::{
    draft::{Draft, ExceededBudget, FieldErrors},
    json,
    run::Execution,
    stale::Stale,
};
use crate::{
    error::{self, ApiError, code::ErrorCode},
    graphql::pipeline::plan::{Plan, Shape},
    metrics::metrics,
    response_memory::ResponseMemory,
};

/// A response to a request, or an event of a subscription.
#[derive(Debug)]
pub struct GraphqlResponse {
    /// None for a request error, when nothing was executed (section 7.1).
    pub data: Option<Data>,
    /// The errors, without those of malformed values, which are in `draft`.
    pub errors: Vec<ServerError>,
    /// The stale parts of the data.
    pub stale: Vec<Stale>,
    /// The budget and the errors of malformed values. None for a request error.
    draft: Option<Box<Draft>>,
}

/// An encoded response. It counts against [`ResponseMemory`] until the last clone of its body is dropped.
#[derive(Debug)]
pub struct EncodedJson {
    /// The JSON document with its prefix and suffix.
    pub body: Bytes,
    /// The kind of the response.
    pub kind: ResponseKind,
    /// Whether the response has data, no errors and no stale parts.
    pub is_complete: bool,
}

/// The encoded responses to an array of operations. They count against [`ResponseMemory`] until the last clone of the body is
/// dropped.
#[derive(Debug)]
pub struct EncodedArray {
    /// The JSON array.
    pub body: Bytes,
    /// The kind of each response.
    pub kinds: Vec<ResponseKind>,
    /// Whether each response has data, no errors and no stale parts.
    pub is_complete: bool,
}

/// The kind of a response, from which the HTTP status follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// `data` without `errors`.
    Success,
    /// `data`, even null, with `errors`.
    Partial,
    /// `errors` without `data`: the operation was not executed. With the code of the first error.
    Rejected(Option<ErrorCode>),
}

/// Writes the JSON document of one response. Copied parts are freed at once.
struct ResponseWriter<'d> {
    out: Vec<u8>,
    /// The offset of the document in `out`.
    start: usize,
    /// The size budget, if one applies.
    budget: Option<&'d mut Draft>,
}

/// The `data` of an executed operation: None, encoded as null, if an error propagated to the root.
pub struct Data(Option<Box<ExecutedData>>);

struct ExecutedData {
    value: Value,
    plan: Arc<Plan>,
}

impl GraphqlResponse {
    /// A response to a request that is not executed.
    pub fn rejected(errors: Vec<ApiError>) -> Self {
        Self::with_errors(errors.into_iter().map(ServerError::from).collect())
    }

    /// Whether the response asks the client to resend a persisted query with its text.
    pub(crate) fn asks_for_text(&self) -> bool {
        let code = self.errors.first().and_then(error::code);
        matches!(code, Some(ErrorCode::PersistedQueryNotFound | ErrorCode::PersistedQueryNotSupported))
    }

    pub(crate) fn with_errors(errors: Vec<ServerError>) -> Self {
        Self { data: None, errors, stale: Vec::new(), draft: None }
    }

    /// A response with null `data` and one error.
    pub(crate) fn without_data(error: ApiError) -> Self {
        Self { data: Some(Data(None)), ..Self::rejected(vec![error]) }
    }

    /// Whether an error may replace the data of the response if it is too large. The data of a mutation is kept, since
    /// its changes have been made.
    pub(crate) fn is_replaceable(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| !draft.is_mutation)
    }

    /// The response after a panic. Other operations on the same WebSocket or event stream continue.
    pub(crate) fn internal_error() -> Self {
        Self::without_data(ApiError::Internal)
    }

    /// Converts async-graphql's response to an operation or to one subscription event.
    pub(crate) fn of(response: Response, execution: &Execution) -> Self {
        let Execution { plan, memory, .. } = execution;
        let draft = Some(Box::new(execution.draft().take(memory)));
        if draft.as_ref().is_some_and(|draft| !draft.is_mutation && draft.excess().is_some()) {
            // The data is dropped. `encode` adds the error.
            return Self { data: Some(Data(None)), errors: Vec::new(), stale: Vec::new(), draft };
        }
        let Response { data, mut errors, .. } = response;
        errors.retain(|error| error::code(error) != Some(ErrorCode::ChangeSkipped));
        for error in &mut errors {
            // Resolvers only fail with an `ApiError`, so an error without a code is the library's, about an argument that
            // passed validation. Its text repeats the argument, which may be personal data.
            error::ensure_code(error, |_| {
                ApiError::BadUserInput("An argument of this field has an invalid value.".to_owned())
            });
        }
        // async-graphql omits a failed non-null root field. Section 6.4.4 requires null in place of all data.
        let is_lost = |error: &ServerError| match (error.path.first(), &data) {
            (Some(PathSegment::Field(key)), Value::Object(fields)) => {
                plan.shape.has(key) && !fields.contains_key(key.as_str())
            }
            _ => true,
        };
        let is_lost = errors.iter().any(is_lost);
        let executed = (!is_lost).then(|| Box::new(ExecutedData { value: data, plan: plan.clone() }));
        Self { data: Some(Data(executed)), errors, stale: Vec::new(), draft }
    }

    /// Encodes the response as JSON without line breaks (section 7.1), between `before` and `after`, and counts its errors.
    /// If it exceeds `limits.answer`, an error replaces the data. The response to a mutation is always written: its parts
    /// were bounded one by one.
    ///
    /// # Errors
    /// `OVERLOADED` if response memory is exhausted, for a query or an event.
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
        let mut writer = ResponseWriter { start: out.len(), out, budget };
        let excess = writer.response(&mut self, &mut malformed).err();
        match excess {
            None => malformed.observe(),
            Some(excess @ ExceededBudget::ResponseMemory(_)) => return Err(excess.into()),
            Some(excess @ ExceededBudget::ResponseSize(_)) => {
                self = Self { data: self.data.map(|_| Data(None)), ..Self::without_data(excess.into()) };
                writer.replace(&mut self);
            }
        }
        let ResponseWriter { mut out, .. } = writer;
        out.extend_from_slice(after);
        metrics().count_errors(&self.errors);
        let reservation = draft.map_or_else(|| memory.reservation(), |draft| draft.into_reservation());
        let has_errors = !self.errors.is_empty() || malformed.count > 0;
        let kind = match self.data {
            None => ResponseKind::Rejected(self.errors.first().and_then(error::code)),
            Some(_) if has_errors => ResponseKind::Partial,
            Some(_) => ResponseKind::Success,
        };
        let is_complete = kind == ResponseKind::Success && self.stale.is_empty();
        Ok(EncodedJson { body: reservation.into_bytes(out), kind, is_complete })
    }

    /// An estimate of the encoded length.
    fn length(&self, malformed: &FieldErrors) -> usize {
        const ERROR: usize = 256;
        let data = self.data.as_ref().map_or(0, Data::length);
        data + malformed.json.len() + (self.errors.len() + self.stale.len() + 1) * ERROR
    }
}

impl Data {
    /// Whether it encodes as null.
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_none()
    }

    fn length(&self) -> usize {
        self.0.as_ref().map_or(0, |executed| length(&executed.value))
    }
}

impl ResponseWriter<'_> {
    /// Writes the document of `response`, with the errors of `malformed` values after its own.
    fn response(
        &mut self,
        response: &mut GraphqlResponse,
        malformed: &mut FieldErrors,
    ) -> Result<(), ExceededBudget> {
        self.has_room(malformed.json.len())?;
        self.out.push(b'{');
        let has_errors = !response.errors.is_empty() || malformed.count > 0;
        if has_errors {
            self.out.extend_from_slice(b"\"errors\":[");
            self.items(response.errors.iter(), |it, error| {
                json::value(error, &mut it.out);
                Ok(())
            })?;
            if !response.errors.is_empty() && malformed.count > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&mem::take(&mut malformed.json));
            self.out.push(b']');
        }
        if let Some(Data(data)) = &mut response.data {
            self.out.extend_from_slice(if has_errors { b",\"data\":" } else { b"\"data\":" });
            match data.as_deref_mut() {
                Some(ExecutedData { value, plan }) => self.value(value, &plan.shape)?,
                None => self.out.extend_from_slice(b"null"),
            }
        }
        if !response.stale.is_empty() {
            self.out.extend_from_slice(b",\"extensions\":{\"stale\":[");
            self.items(response.stale.iter(), |it, stale| {
                json::value(stale, &mut it.out);
                Ok(())
            })?;
            self.out.extend_from_slice(b"]}");
        }
        self.out.push(b'}');
        self.has_room(0)
    }

    /// Replaces the written document by that of another response with one error.
    fn replace(&mut self, response: &mut GraphqlResponse) {
        self.out.truncate(self.start);
        self.out.shrink_to(self.start);
        self.budget = None;
        // Without a budget, writing cannot fail.
        let _ = self.response(response, &mut FieldErrors::default());
    }

    /// Writes `value` with its fields in the order of `shape` (section 7.2.2), without placeholders.
    fn value(&mut self, value: &mut Value, shape: &Shape) -> Result<(), ExceededBudget> {
        match value {
            // JSON that a projection has already written.
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

    /// Writes comma-separated items.
    fn items<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), ExceededBudget>,
    ) -> Result<(), ExceededBudget> {
        for (index, item) in items.enumerate() {
            self.has_room(0)?;
            if index > 0 {
                self.out.push(b',');
            }
            write(self, item)?;
        }
        Ok(())
    }

    /// Checks that the document may grow by `more` bytes.
    fn has_room(&mut self, more: usize) -> Result<(), ExceededBudget> {
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
