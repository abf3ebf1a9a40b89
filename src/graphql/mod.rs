//! GraphQL: the schema, and how an operation is made of a request and run.
//!
//! [`Api::prepare`] does everything that needs no data: limits, parsing, choosing the operation, coercing the
//! variables. [`Api::execute`] validates and runs it. Both know nothing of HTTP.

mod document;
pub mod error;
mod field;
mod overlap;
mod query;
mod scalars;
mod variables;

use std::{collections::HashSet, fmt};

use async_graphql::{
    EmptyMutation, EmptySubscription, Name, PathSegment, Request, SDLExportOptions, Schema, ServerError,
    Value, Variables,
    indexmap::IndexMap,
    parser::types::{ExecutableDocument, OperationType},
};

use self::{
    error::ApiError,
    query::{Access, Query},
    variables::InputTypes,
};
use crate::{appointments::Appointments, config::Limits};

/// What a client asks to be run, as it came: nothing of it has been looked at.
#[derive(Default)]
pub struct GraphqlRequest {
    /// The document's text.
    pub query: String,
    /// Which of its operations to run.
    pub operation_name: Option<String>,
    /// The values of its variables. May hold personal data.
    pub variables: Variables,
}

/// An operation that may be run: within the limits, with coerced variables.
pub struct Operation {
    document: ExecutableDocument,
    name: Option<String>,
    kind: OperationType,
    variables: Variables,
    root_keys: Vec<Name>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// None where nothing was run: a fault of the request. GraphQL, section 7.1.
    pub data: Option<Value>,
    /// What went wrong, each once.
    pub errors: Vec<ServerError>,
}

/// The schema with what is needed to run operations against it.
pub struct Api {
    schema: Schema<Query, EmptyMutation, EmptySubscription>,
    inputs: InputTypes,
    limits: Limits,
}

fn schema(limits: &Limits) -> Schema<Query, EmptyMutation, EmptySubscription> {
    Schema::build(Query::new(limits), EmptyMutation, EmptySubscription)
        // `document::parse` has counted the same way, and refuses with the limit's name.
        .limit_recursive_depth(limits.depth + 1)
        .finish()
}

/// The schema as clients see it, in the schema definition language.
pub fn sdl(limits: &Limits) -> String {
    sdl_of(&schema(limits))
}

fn sdl_of(schema: &Schema<Query, EmptyMutation, EmptySubscription>) -> String {
    schema.sdl_with_options(SDLExportOptions::new().include_specified_by())
}

impl Api {
    /// An API within `limits`.
    ///
    /// # Panics
    /// Never: that the schema's own description can be read back is tested, and does not depend on `limits`.
    pub fn new(limits: Limits) -> Self {
        let schema = schema(&limits);
        let inputs = InputTypes::of(&sdl_of(&schema)).expect("the schema describes itself");
        Self { schema, inputs, limits }
    }

    /// Makes an operation of `request`.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn prepare(&self, request: GraphqlRequest) -> Result<Operation, Answer> {
        let refuse = |error| Answer::refused(vec![error]);
        let document = document::parse(&request.query, &self.limits).map_err(refuse)?;
        overlap::check(&document).map_err(refuse)?;
        let name = request.operation_name.filter(|name| !name.is_empty());
        let operation = &document::operation(&document, name.as_deref()).map_err(refuse)?.node;
        let variables = self.inputs.coerce(operation, request.variables).map_err(Answer::refused)?;
        let root_keys = document::root_keys(&document, operation);
        Ok(Operation { kind: operation.ty, root_keys, document, name, variables })
    }

    /// Validates and runs `operation`. `appointments` is what it may ask through, or why it may ask nothing.
    pub async fn execute(
        &self,
        operation: Operation,
        appointments: Result<Appointments, ApiError>,
    ) -> Answer {
        let Operation { document, name, variables, root_keys, .. } = operation;
        let access: Access = appointments;
        let mut request = Request::new(String::new()).variables(variables).data(access);
        request.operation_name = name;
        request.set_parsed_query(document);
        let response = self.schema.execute(request).await;
        // Whatever goes wrong in a field has the field's path; what has none was found before anything was run.
        let refused = response.data == Value::Null
            && !response.errors.is_empty()
            && response.errors.iter().all(|error| error.path.is_empty());
        if refused {
            let mut errors = response.errors;
            for error in &mut errors {
                ensure_code(error, ApiError::ValidationFailed);
            }
            return Answer { data: None, errors };
        }
        let errors = one_for_each_place(response.errors);
        Answer { data: Some(whole(response.data, &root_keys, &errors)), errors }
    }
}

impl Operation {
    /// Whether it changes something.
    pub fn is_mutation(&self) -> bool {
        self.kind == OperationType::Mutation
    }
}

impl Answer {
    /// Nothing was run, for these reasons.
    pub fn refused(errors: Vec<ApiError>) -> Self {
        Self { data: None, errors: errors.into_iter().map(ServerError::from).collect() }
    }
}

/// async-graphql answers top fields in the order in which they were ready, and leaves out one that failed and must not
/// be null. GraphQL wants the order in which they were asked for (section 7.2.2), and null for everything where such a
/// field failed (6.4.4). A selection of which nothing is left is an empty object.
fn whole(data: Value, keys: &[Name], errors: &[ServerError]) -> Value {
    let mut fields = match data {
        Value::Object(fields) => fields,
        _ => IndexMap::new(),
    };
    let is_lost = |error: &ServerError| match error.path.first() {
        Some(PathSegment::Field(key)) => !fields.contains_key(key.as_str()),
        _ => true,
    };
    if errors.iter().any(is_lost) {
        return Value::Null;
    }
    let in_order = keys.iter().filter_map(|key| fields.swap_remove_entry(key)).collect();
    Value::Object(in_order)
}

/// A field that is selected twice is answered once, and so is what goes wrong in it.
fn one_for_each_place(errors: Vec<ServerError>) -> Vec<ServerError> {
    let mut places = HashSet::new();
    let place = |error: &ServerError| {
        let segments = error.path.iter().map(|segment| match segment {
            PathSegment::Field(name) => name.clone(),
            PathSegment::Index(index) => index.to_string(),
        });
        segments.collect::<Vec<_>>()
    };
    let mut errors = errors;
    errors.retain(|error| places.insert(place(error)));
    for error in &mut errors {
        // Resolvers fail with an `ApiError` and nothing else, so this is the library, of an argument's literal that
        // validation let pass. Its text repeats the literal.
        ensure_code(error, |_| {
            ApiError::BadUserInput("An argument of this field cannot be read.".to_owned())
        });
    }
    errors
}

fn ensure_code(error: &mut ServerError, otherwise: impl FnOnce(String) -> ApiError) {
    if error.extensions.as_ref().and_then(|extensions| extensions.get("code")).is_none() {
        let api_error = otherwise(std::mem::take(&mut error.message));
        error.message = api_error.message().into_owned();
        error.extensions = Some(api_error.extensions());
    }
}

impl fmt::Debug for GraphqlRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("limits", &self.limits).finish_non_exhaustive()
    }
}
