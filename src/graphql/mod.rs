//! GraphQL: the schema, and how an operation is made of a request and run.
//!
//! [`Api::prepare`] does everything that needs no data: limits, parsing, choosing the operation, coercing the
//! variables. [`Api::execute`] validates and runs it. Both know nothing of HTTP.

mod connection;
mod cursor;
mod document;
pub mod error;
mod field;
mod mutation;
mod overlap;
mod query;
mod rewrite;
mod scalars;
mod subscription;
mod variables;

use std::{collections::HashSet, fmt};

use async_graphql::{
    Context, Name, PathSegment, Request, Response, SDLExportOptions, Schema, ServerError, Value, Variables,
    indexmap::IndexMap,
    parser::types::{ExecutableDocument, OperationType},
};
use futures_util::{Stream, StreamExt as _};

use self::{
    error::ApiError, mutation::Mutation, query::Query, subscription::Subscription, variables::InputTypes,
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
    /// The document as it came, where something was left out of it because its variable is absent. It has to be valid all
    /// the same.
    as_written: Option<ExecutableDocument>,
    name: Option<String>,
    kind: OperationType,
    variables: Variables,
    root_keys: Vec<Name>,
}

/// What an operation may ask through: none where its caller has no credential, so that there is nothing to ask with.
pub type Access = Result<Appointments, ApiError>;

fn access<'a>(ctx: &Context<'a>) -> Result<&'a Appointments, ApiError> {
    // Every request is given one.
    ctx.data_unchecked::<Access>().as_ref().map_err(Clone::clone)
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
    schema: Schema<Query, Mutation, Subscription>,
    inputs: InputTypes,
    limits: Limits,
}

fn schema(limits: &Limits) -> Schema<Query, Mutation, Subscription> {
    Schema::build(Query::new(limits), Mutation, Subscription)
        // `document::parse` has counted the same way, and refuses with the limit's name.
        .limit_recursive_depth(limits.depth + 1)
        .finish()
}

/// The schema as clients see it, in the schema definition language.
pub fn sdl(limits: &Limits) -> String {
    sdl_of(&schema(limits))
}

fn sdl_of(schema: &Schema<Query, Mutation, Subscription>) -> String {
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
        let mut document = document::parse(&request.query, &self.limits).map_err(refuse)?;
        overlap::check(&document).map_err(refuse)?;
        let name = request.operation_name.filter(|name| !name.is_empty());
        let operation = &document::operation(&document, name.as_deref()).map_err(refuse)?.node;
        let kind = operation.ty;
        let variables = self.inputs.coerce(operation, request.variables).map_err(Answer::refused)?;
        let root_keys = document::root_keys(&document, operation);
        let absent = rewrite::absent_variables(operation, &variables);
        let as_written = (!absent.is_empty()).then(|| document.clone());
        if as_written.is_some() {
            rewrite::leave_out(&mut document, &absent);
        }
        if kind == OperationType::Subscription {
            rewrite::flatten_subscriptions(&mut document).map_err(refuse)?;
        }
        Ok(Operation { kind, root_keys, document, as_written, name, variables })
    }

    /// Validates and runs a query or a mutation. `access` is what it may ask through, or why it may ask nothing.
    pub async fn execute(&self, operation: Operation, access: Access) -> Answer {
        if let Some(document) = &operation.as_written {
            // Under this mode all is validated and no resolver of ours is run.
            let validation = request(document.clone(), operation.name.clone(), operation.variables.clone());
            let validation = validation.only_introspection();
            let answer = Answer::of(self.schema.execute(validation).await, &operation.root_keys);
            if answer.data.is_none() {
                return answer;
            }
        }
        let (request, root_keys) = operation.into_request(access);
        Answer::of(self.schema.execute(request).await, &root_keys)
    }

    /// Validates and runs any operation: a subscription has an answer for each event, the others have one.
    pub fn subscribe(
        &self,
        operation: Operation,
        access: Access,
    ) -> impl Stream<Item = Answer> + Send + use<> {
        let (request, root_keys) = operation.into_request(access);
        self.schema.execute_stream(request).map(move |response| Answer::of(response, &root_keys))
    }
}

impl Operation {
    /// Whether it changes something.
    pub fn is_mutation(&self) -> bool {
        self.kind == OperationType::Mutation
    }

    /// Whether it has more than one answer.
    pub fn is_subscription(&self) -> bool {
        self.kind == OperationType::Subscription
    }

    fn into_request(self, access: Access) -> (Request, Vec<Name>) {
        let Self { document, name, variables, root_keys, .. } = self;
        (request(document, name, variables).data(access), root_keys)
    }
}

fn request(document: ExecutableDocument, operation_name: Option<String>, variables: Variables) -> Request {
    let mut request = Request::new(String::new()).variables(variables);
    request.operation_name = operation_name;
    request.set_parsed_query(document);
    request
}

impl Answer {
    /// Nothing was run, for these reasons.
    pub fn refused(errors: Vec<ApiError>) -> Self {
        Self { data: None, errors: errors.into_iter().map(ServerError::from).collect() }
    }

    fn of(response: Response, root_keys: &[Name]) -> Self {
        // Whatever goes wrong in a field has the field's path; what has none was found before anything was run.
        let refused = response.data == Value::Null
            && !response.errors.is_empty()
            && response.errors.iter().all(|error| error.path.is_empty());
        if refused {
            let mut errors = response.errors;
            for error in &mut errors {
                ensure_code(error, ApiError::ValidationFailed);
            }
            return Self { data: None, errors };
        }
        let data = in_order(response.data, root_keys, &response.errors);
        Self { data: Some(data), errors: one_for_each_place(response.errors) }
    }
}

/// async-graphql answers top fields in the order in which they were ready; GraphQL, section 7.2.2, wants the order in
/// which they were asked for. A selection of which nothing is left is an empty object, not null. And a top field that
/// failed and cannot be null is missing, where section 6.4.4 wants null in place of all data.
fn in_order(data: Value, keys: &[Name], errors: &[ServerError]) -> Value {
    let mut fields = match data {
        Value::Object(fields) => fields,
        _ => IndexMap::new(),
    };
    let is_missing = |error: &ServerError| match error.path.first() {
        Some(PathSegment::Field(key)) => !fields.contains_key(key.as_str()),
        _ => false,
    };
    if errors.iter().any(is_missing) {
        return Value::Null;
    }
    let mut ordered = IndexMap::with_capacity(fields.len());
    for key in keys {
        if let Some((key, value)) = fields.swap_remove_entry(key) {
            ordered.insert(key, value);
        }
    }
    Value::Object(ordered)
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
