//! The GraphQL API: parses, validates and executes operations.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use async_graphql::{
    Request, Response, SDLExportOptions, Schema, SchemaBuilder, ServerError, ValidationMode, Variables,
    async_trait,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute},
    parser::types::{ExecutableDocument, OperationType},
};
use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

use super::{
    execute::{
        response::{EncodedArray, EncodedJson, GraphqlResponse},
        run::{Access, Execution, RequestedTotals},
    },
    persisted::{PersistedDocuments, Registration, RequestDocument, ResolvedDocument, Trust},
    pipeline::{
        arguments,
        complexity::Complexity,
        document_cache::{DocumentCache, ValidatedDocument},
        integers, introspection,
        normalize::{self, VariableShape},
        overlap, parse,
        plan::Plan,
        request_digest,
        short_names::ShortNames,
        typename,
    },
    schema::{
        federation::{self, without_subgraph},
        mutation::Mutation,
        query::Query,
        subscription::Subscription,
        type_index::Types,
    },
};
use crate::{
    caller::Caller,
    config::{documents::DocumentsConfig, graphql::GraphqlConfig, limits::Limits},
    error::{self, ApiError, code::ErrorCode, limit::LimitExceeded, limit_errors::truncate_errors},
    fleet::Fleet,
    metrics::metrics,
    response_memory::{Owner, ResponseMemory},
};

/// A request as received, before any check.
pub struct GraphqlRequest {
    /// The document: its text, its id or both.
    pub document: RequestDocument,
    /// The name of the operation to run.
    pub operation_name: Option<String>,
    /// The raw variables. They may hold personal data.
    pub variables: Variables,
}

/// A parsed request within the limits, not necessarily validated.
pub struct ParsedRequest {
    pub(crate) text: String,
    pub(crate) name: Option<String>,
    pub(crate) variables: Variables,
    pub(crate) kind: OperationType,
    pub(crate) document: DocumentState,
    registration: Option<Registration>,
    trust: Trust,
    is_cacheable: bool,
}

/// The document of a parsed request.
pub(crate) enum DocumentState {
    /// A hit in the document cache.
    Validated(Arc<ValidatedDocument>),
    /// A document that is not validated yet.
    New(Box<ExecutableDocument>),
}

/// An executable operation: its plan and coerced variables.
pub struct Operation {
    pub(crate) plan: Arc<Plan>,
    pub(crate) variables: Variables,
    registration: Option<Registration>,
    pub(crate) trust: Trust,
    /// Whether the response cache may answer equal requests.
    pub(crate) is_cacheable: bool,
    complexity: Complexity,
    requested: Arc<RequestedTotals>,
}

/// The sums over an array of operations, which must not exceed the limits of a single operation.
#[derive(Debug, Default)]
pub struct ArrayTotals {
    complexity: Complexity,
    requested: Arc<RequestedTotals>,
}

/// The schema, its limits and the document cache.
pub struct Api {
    schema: Schema<Query, Mutation, Subscription>,
    /// The validate-only schema: its [`ValidateOnly`] extension ends each request before execution.
    validator: Schema<Query, Mutation, Subscription>,
    /// The validate-only schema with name suggestions; None if `graphql.suggestions` is off.
    suggester: Option<Schema<Query, Mutation, Subscription>>,
    pub(super) types: Types,
    pub(super) limits: Limits,
    has_introspection: bool,
    pub(crate) documents: DocumentCache,
    /// The document cache of trusted documents, from which others evict nothing.
    pub(super) trusted_documents: DocumentCache,
    pub(super) persisted: PersistedDocuments,
    memory: ResponseMemory,
}

/// The code of validation errors.
const VALIDATION_FAILED: ErrorCode = ErrorCode::ValidationFailed;

type Builder = SchemaBuilder<Query, Mutation, Subscription>;

/// The schema, with the root fields of the subgraph if its SDL is given.
fn schema(limits: &Limits, subgraph_sdl: Option<&Arc<str>>) -> Builder {
    let query = Query::new(limits, subgraph_sdl.cloned().unwrap_or_default());
    let schema = Schema::build(query, Mutation, Subscription)
        // A second line of defence: `parse::parse` counts the same way and names the limit.
        .limit_recursive_depth(limits.depth + 1);
    if subgraph_sdl.is_some() { schema } else { without_subgraph(schema) }
}

/// The client-visible schema as SDL.
pub fn sdl(limits: &Limits) -> String {
    export_sdl(&schema(limits, None).finish())
}

/// The SDL of the subgraph with the directives of federation, as `_service` returns it.
pub fn subgraph_sdl(limits: &Limits) -> String {
    federation::subgraph_sdl(schema(limits, None))
}

/// The SDL of the subgraph, if the gateway serves one (`graphql.federation`).
fn served_subgraph(limits: &Limits, config: &GraphqlConfig) -> Option<Arc<str>> {
    config.federation.then(|| subgraph_sdl(limits).trim_end().into())
}

fn export_sdl(schema: &Schema<Query, Mutation, Subscription>) -> String {
    schema.sdl_with_options(SDLExportOptions::new().include_specified_by())
}

impl Api {
    /// Builds the API. Responses are charged to `memory`. Each caller has a quota of `caller_share` percent of the
    /// memory for registered texts.
    ///
    /// # Panics
    /// Never: a test parses the schema's own SDL, which does not depend on `limits`.
    pub fn new(limits: Limits, config: &GraphqlConfig, caller_share: u8, memory: ResponseMemory) -> Self {
        let build = || schema(&limits, served_subgraph(&limits, config).as_ref());
        let (validator, schema) = (build(), build());
        Self::build(validator, schema, limits, config, caller_share, memory)
    }

    /// An API with an extension that injects a fault, for tests.
    #[cfg(test)]
    pub(crate) fn with_fault(
        limits: Limits,
        config: &GraphqlConfig,
        caller_share: u8,
        memory: ResponseMemory,
        fault: impl ExtensionFactory + Copy,
    ) -> Self {
        let build = || schema(&limits, served_subgraph(&limits, config).as_ref()).extension(fault);
        let (validator, schema) = (build(), build());
        Self::build(validator, schema, limits, config, caller_share, memory)
    }

    fn build(
        validator: Builder,
        schema: Builder,
        limits: Limits,
        config: &GraphqlConfig,
        caller_share: u8,
        memory: ResponseMemory,
    ) -> Self {
        let validator = validator.extension(ValidateOnly).disable_suggestions().finish();
        let suggester = config.suggestions.then(|| {
            let subgraph_sdl = served_subgraph(&limits, config);
            self::schema(&limits, subgraph_sdl.as_ref()).extension(ValidateOnly).finish()
        });
        // Only validated documents reach it, so its own validation is minimal.
        let schema = schema.validation_mode(ValidationMode::Fast).finish();
        let types = Types::of(&export_sdl(&schema)).expect("the schema describes itself");
        // Both parts together stay within `graphql.documents_size`.
        let texts_size = ByteSize(config.documents_size.as_u64() / 2);
        let documents = DocumentCache::new(config.documents_size - texts_size);
        let persisted = PersistedDocuments::new(texts_size, caller_share);
        let has_introspection = config.introspection;
        let trusted_documents = DocumentCache::new(ByteSize(0));
        Self {
            schema,
            validator,
            suggester,
            types,
            limits,
            has_introspection,
            documents,
            trusted_documents,
            persisted,
            memory,
        }
    }

    /// The same with trusted documents. None are [loaded](Self::load_documents) yet.
    pub fn trusting(self, config: &DocumentsConfig) -> Self {
        let trusted_documents = DocumentCache::new(config.size);
        Self { persisted: self.persisted.trusting(config.mode), trusted_documents, ..self }
    }

    /// The same with registered texts that the replicas of `fleet` share.
    pub fn sharing(self, fleet: &Fleet) -> Self {
        Self { persisted: self.persisted.sharing(fleet), ..self }
    }

    /// The number of the set of trusted documents in use. Requests that see the same number, and are equal, have the same
    /// document.
    pub(crate) fn documents_generation(&self) -> u64 {
        self.persisted.trusted().generation()
    }

    /// Parses a `request` of `caller` within the limits, or finds it in the document cache, and selects its operation.
    ///
    /// # Errors
    /// The response to the rejected request.
    pub async fn parse(
        &self,
        request: GraphqlRequest,
        caller: Option<&Caller>,
    ) -> Result<ParsedRequest, GraphqlResponse> {
        let GraphqlRequest { document, operation_name, variables } = request;
        let resolved = self.persisted.resolve(document, caller).await.map_err(reject)?;
        let ResolvedDocument { text, registration, trust, is_cacheable } = resolved;
        let name = operation_name.filter(|name| !name.is_empty());
        if let Some(validated) = self.cache_of(trust).get(&text, name.as_deref()) {
            let kind = validated.kind;
            return Ok(ParsedRequest {
                text,
                name,
                variables,
                kind,
                document: DocumentState::Validated(validated),
                registration,
                trust,
                is_cacheable,
            });
        }
        metrics().documents.count("text");
        let document = self.read(&text)?;
        let kind = parse::operation(&document, name.as_deref()).map_err(reject)?.node.ty;
        let document = DocumentState::New(Box::new(document));
        Ok(ParsedRequest { text, name, variables, kind, document, registration, trust, is_cacheable })
    }

    /// The document cache for documents with this `trust`.
    fn cache_of(&self, trust: Trust) -> &DocumentCache {
        if trust == Trust::Trusted { &self.trusted_documents } else { &self.documents }
    }

    /// Parses `text` within the limits.
    pub(super) fn read(&self, text: &str) -> Result<ExecutableDocument, GraphqlResponse> {
        let mut document = parse::parse(text, &self.limits).map_err(reject)?;
        integers::coerce(&mut document, &self.types);
        Ok(document)
    }

    /// Validates and plans `parsed`, coerces its variables and checks its cost.
    ///
    /// # Errors
    /// The response to the rejected request.
    pub async fn prepare(&self, parsed: ParsedRequest) -> Result<Operation, GraphqlResponse> {
        let prepared = AssertUnwindSafe(self.build_operation(parsed)).catch_unwind();
        prepared.await.unwrap_or_else(|_| Err(GraphqlResponse::internal_error()))
    }

    async fn build_operation(&self, parsed: ParsedRequest) -> Result<Operation, GraphqlResponse> {
        let ParsedRequest { text, name, variables, document, registration, trust, is_cacheable, .. } = parsed;
        let (validated, new) = match document {
            DocumentState::Validated(validated) => (validated, None),
            DocumentState::New(document) => {
                (Arc::new(self.analyze(&text, name.as_deref(), &document)?), Some(*document))
            }
        };
        let max_errors = self.limits.errors;
        let variables =
            self.types.coerce(&validated.definitions, variables, max_errors).map_err(|errors| {
                self.reject(errors.into_iter().map(ServerError::from).collect(), ErrorCode::BadUserInput)
            })?;
        let shape = validated.shape_of(&variables);
        let plan = match validated.plan(&shape) {
            Some(plan) => {
                metrics().documents.count("cache");
                plan.clone()
            }
            None => self.plan(text, name, &validated, shape, new, trust).await?,
        };
        let cost = plan.cost.check(&variables, &self.limits).map_err(reject)?;
        let complexity = validated.complexity.with_cost(cost);
        Ok(Operation {
            plan,
            variables,
            registration,
            trust,
            is_cacheable,
            complexity,
            requested: Arc::default(),
        })
    }

    /// Validates the parts of a new document whose errors precede those of its variables, and analyses the operation
    /// `name`.
    pub(super) fn analyze(
        &self,
        text: &str,
        name: Option<&str>,
        document: &ExecutableDocument,
    ) -> Result<ValidatedDocument, GraphqlResponse> {
        if !self.has_introspection {
            introspection::reject(document).map_err(reject)?;
        }
        overlap::check(document).map_err(reject)?;
        arguments::check(document, &self.types, self.limits.errors)
            .map_err(|errors| self.reject(errors, VALIDATION_FAILED))?;
        let operation = parse::operation(document, name).map_err(reject)?;
        let complexity = Complexity::of(text, document).map_err(reject)?;
        Ok(ValidatedDocument::new(document, &operation.node, complexity))
    }

    /// Plans the operation for variables of that `shape`, and caches the plan. A `new` document is validated; a cached one is
    /// only parsed again.
    async fn plan(
        &self,
        text: String,
        name: Option<String>,
        validated: &ValidatedDocument,
        shape: VariableShape,
        new: Option<ExecutableDocument>,
        trust: Trust,
    ) -> Result<Arc<Plan>, GraphqlResponse> {
        let is_new = new.is_some();
        let document = match new {
            Some(document) => document,
            None => {
                metrics().documents.count("variables");
                self.read(&text)?
            }
        };
        let operation = parse::operation(&document, name.as_deref()).map_err(reject)?;
        let normalized = normalize::normalize(&document, operation, &shape).map_err(reject)?;
        if is_new {
            self.validate(&text, document, name.as_deref()).await?;
        }
        let plan = Arc::new(Plan::of(normalized, &self.types, &self.limits));
        self.cache_of(trust).put(text, name, validated.with(shape, plan.clone()));
        Ok(plan)
    }

    /// Validates the whole document against the schema, without variables, which are already coerced.
    ///
    /// Suggestions cost much more than validation, so they are made only if all errors can be listed.
    pub(super) async fn validate(
        &self,
        text: &str,
        mut document: ExecutableDocument,
        name: Option<&str>,
    ) -> Result<(), GraphqlResponse> {
        let short = ShortNames::of(text);
        let (mut text, mut name) = (text, name);
        if let Some(short) = &short {
            text = &short.text;
            name = name.map(|name| short.get(name));
            document = self.read(text)?;
        }
        let mut errors = validation_errors(&self.validator, document, name).await;
        if let Some(suggester) = &self.suggester
            && (1..=self.limits.errors).contains(&errors.len())
        {
            errors = validation_errors(suggester, self.read(text)?, name).await;
        }
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|one, other| (&one.locations, &one.message).cmp(&(&other.locations, &other.message)));
        errors.truncate(self.limits.errors + 1);
        for error in &mut errors {
            error::ensure_code(error, ApiError::ValidationFailed);
        }
        Err(self.reject(errors, VALIDATION_FAILED))
    }

    /// The response to a request with validation or variable `errors` of one `code`.
    fn reject(&self, errors: Vec<ServerError>, code: ErrorCode) -> GraphqlResponse {
        GraphqlResponse::with_errors(truncate_errors(errors, code, self.limits.errors))
    }

    /// Updates the size gauges in the [metrics].
    pub fn observe(&self) {
        metrics().caches.set(&[
            ("documents", self.documents.total()),
            ("persisted_queries", self.persisted.total()),
            ("trusted_documents", self.trusted_documents.total()),
        ]);
        self.memory.observe();
    }

    /// The memory budget of responses.
    pub fn memory(&self) -> &ResponseMemory {
        &self.memory
    }

    /// Encodes a response as JSON and counts its errors.
    ///
    /// # Errors
    /// `OVERLOADED` if `http.max_response_memory` is exhausted, except for mutations, whose responses are always written.
    pub fn encode(&self, response: GraphqlResponse) -> Result<EncodedJson, ApiError> {
        response.encode(&self.memory, b"", b"")
    }

    /// Encodes a response as JSON between `before` and `after`. If response memory is exhausted, an error replaces the data.
    pub fn encode_between(&self, before: &[u8], response: GraphqlResponse, after: &[u8]) -> Bytes {
        let encode = |response: GraphqlResponse| response.encode(&self.memory, before, after);
        let encoded = encode(response).or_else(|error| encode(GraphqlResponse::without_data(error)));
        encoded.map(|encoded| encoded.body).unwrap_or_default()
    }

    /// Encodes the responses to an array of operations as a JSON array, charged to `owner`. Together they take at most
    /// `limits.answer`: a query that exceeds it, or the response memory, has an error in place of its data.
    pub fn encode_array(&self, responses: Vec<GraphqlResponse>, owner: Owner) -> EncodedArray {
        let maximum = usize::try_from(self.limits.answer.as_u64()).unwrap_or(usize::MAX);
        let encode = |response: GraphqlResponse, room: usize| {
            let is_replaceable = response.is_replaceable();
            let replaced = |error| GraphqlResponse::without_data(error).encode(&self.memory, b"", b"");
            match response.encode(&self.memory, b"", b"") {
                Ok(encoded) if is_replaceable && encoded.body.len() > room => {
                    drop(encoded);
                    replaced(LimitExceeded::response_too_large(maximum))
                }
                Ok(encoded) => Ok(encoded),
                Err(error) => replaced(error),
            }
        };
        let mut length = 1;
        let mut parts = Vec::with_capacity(responses.len());
        for response in responses {
            // An error alone needs no response memory, so its encoding cannot fail.
            let Ok(part) = encode(response, maximum.saturating_sub(length + 1)) else { continue };
            length += part.body.len() + 1;
            parts.push(part);
        }
        let kinds = parts.iter().map(|part| part.kind).collect();
        let is_complete = parts.iter().all(|part| part.is_complete);
        let mut body = Vec::with_capacity(length);
        for (index, part) in parts.into_iter().enumerate() {
            body.push(if index == 0 { b'[' } else { b',' });
            body.extend_from_slice(&part.body);
        }
        body.push(b']');
        EncodedArray { body: self.memory.reservation_of(owner).into_bytes(body), kinds, is_complete }
    }

    /// Adds an `operation` to the totals of its array.
    ///
    /// # Errors
    /// `QUERY_TOO_COMPLEX` if a sum exceeds its limit.
    pub fn add_to_array(&self, totals: &mut ArrayTotals, operation: &mut Operation) -> Result<(), ApiError> {
        totals.complexity = totals.complexity.plus(operation.complexity);
        operation.requested = totals.requested.clone();
        totals.complexity.check(&self.limits)
    }

    /// Executes a query or a mutation. Without `access`, its fields fail with that error.
    pub async fn execute(&self, mut operation: Operation, access: Access) -> GraphqlResponse {
        let mut registration = operation.registration.take();
        let (request, execution) = operation.into_request(access, &self.limits, &self.memory);
        let response = async {
            let mut response = GraphqlResponse::of(self.schema.execute(request).await, &execution);
            if response.data.as_ref().is_some_and(|data| !data.is_null()) {
                response.stale = execution.stale.take();
            }
            if let Some(sharing) = self.persisted.register(&mut registration, &execution.access) {
                // The client may send the hash to another replica at once.
                let _ = sharing.await;
            }
            response
        };
        AssertUnwindSafe(response).catch_unwind().await.unwrap_or_else(|_| GraphqlResponse::internal_error())
    }

    /// Executes any operation: one response per subscription event, a single one otherwise.
    pub fn subscribe(
        &self,
        mut operation: Operation,
        access: Access,
    ) -> impl Stream<Item = GraphqlResponse> + Send + use<> {
        let mut registration = operation.registration.take();
        let persisted = self.persisted.clone();
        // Subscriptions never serve stale data: they wait until it is fresh again.
        let (request, execution) = operation.into_request(access, &self.limits, &self.memory);
        let responses = self.schema.execute_stream(request).map(move |response| {
            drop(persisted.register(&mut registration, &execution.access));
            GraphqlResponse::of(response, &execution)
        });
        AssertUnwindSafe(responses)
            .catch_unwind()
            .map(|response| response.unwrap_or_else(|_| GraphqlResponse::internal_error()))
    }
}

/// The response to a request with this `error`.
pub(super) fn reject(error: impl Into<ServerError>) -> GraphqlResponse {
    GraphqlResponse::with_errors(vec![error.into()])
}

/// The errors of async-graphql's validation of `document`.
async fn validation_errors(
    validator: &Schema<Query, Mutation, Subscription>,
    mut document: ExecutableDocument,
    name: Option<&str>,
) -> Vec<ServerError> {
    typename::show_directives(&mut document);
    let mut request = request(document, Variables::default());
    request.operation_name = name.map(str::to_owned);
    validator.execute(request).await.errors
}

/// An extension that ends each request after validation, so that a schema with it validates and never executes.
struct ValidateOnly;

impl ExtensionFactory for ValidateOnly {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_trait::async_trait]
impl Extension for ValidateOnly {
    async fn execute(&self, _: &ExtensionContext<'_>, _: Option<&str>, _: NextExecute<'_>) -> Response {
        Response::default()
    }
}

impl ParsedRequest {
    /// Whether the operation is a mutation.
    pub fn is_mutation(&self) -> bool {
        self.kind == OperationType::Mutation
    }

    /// The digest of the document, the operation name and the variables, by `hasher`, which is keyed.
    pub(crate) fn digest(&self, hasher: blake3::Hasher) -> [u8; 32] {
        request_digest::digest(hasher, &self.text, self.name.as_deref(), &self.variables)
    }
}

impl Operation {
    /// Whether the operation is a mutation.
    pub fn is_mutation(&self) -> bool {
        self.plan.kind() == OperationType::Mutation
    }

    /// Whether the operation is a subscription.
    pub fn is_subscription(&self) -> bool {
        self.plan.kind() == OperationType::Subscription
    }

    /// The number of root fields.
    pub(crate) fn root_fields(&self) -> usize {
        self.plan.shape.0.len()
    }

    /// Whether a root field needs access to appointments.
    pub fn needs_access(&self) -> bool {
        self.plan.needs_access()
    }

    fn into_request(
        self,
        access: Access,
        limits: &Limits,
        memory: &ResponseMemory,
    ) -> (Request, Arc<Execution>) {
        let Self { plan, variables, requested, .. } = self;
        metrics().operations.count(match plan.kind() {
            OperationType::Query => "query",
            OperationType::Mutation => "mutation",
            OperationType::Subscription => "subscription",
        });
        let document = plan.document();
        let execution = Arc::new(Execution::new(access, plan, requested, limits, memory));
        (request(document, variables).data(execution.clone()), execution)
    }
}

fn request(document: ExecutableDocument, variables: Variables) -> Request {
    let mut request = Request::new(String::new()).variables(variables);
    request.set_parsed_query(document);
    request
}

impl fmt::Debug for GraphqlRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for ParsedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedRequest").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("kind", &self.plan.kind()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("limits", &self.limits).finish_non_exhaustive()
    }
}
