//! The GraphQL API: parses, validates and executes operations.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use async_graphql::{
    Request, Response, SDLExportOptions, Schema, SchemaBuilder, ServerError, ValidationMode, Variables,
    async_trait,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute},
    parser::{
        self,
        types::{ExecutableDocument, OperationType},
    },
};
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

use super::{
    execute::{
        response::{EncodedJson, GraphqlResponse},
        run::{Access, Run},
    },
    pipeline::{
        arguments,
        document_cache::{DocumentCache, ValidatedDocument},
        introspection,
        normalize::{self, VariableShape},
        overlap, parse,
        plan::Plan,
        short_names::ShortNames,
        typename,
    },
    schema::{mutation::Mutation, query::Query, subscription::Subscription, types::Types},
};
use crate::{
    config::{graphql::GraphqlConfig, limits::Limits},
    error::{self, ApiError, limit_errors::listed},
    metrics::metrics,
    response_memory::ResponseMemory,
};

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

/// A request whose text is GraphQL, within the limits. It may be that nothing has been held against the schema.
pub struct Parsed {
    pub(crate) text: String,
    pub(crate) name: Option<String>,
    pub(crate) variables: Variables,
    pub(crate) kind: OperationType,
    pub(crate) document: Document,
}

/// What is known of a document's text.
pub(crate) enum Document {
    /// It has been judged before.
    ValidatedDocument(Arc<ValidatedDocument>),
    /// It has not.
    New(Box<ExecutableDocument>),
}

/// An operation that may be run: valid, with coerced variables.
pub struct Operation {
    pub(crate) plan: Arc<Plan>,
    pub(crate) variables: Variables,
}

/// The schema with what is needed to run operations against it.
pub struct Api {
    schema: Schema<Query, Mutation, Subscription>,
    /// The same, to validate documents against: it runs nothing.
    validator: Schema<Query, Mutation, Subscription>,
    /// The same, whose messages suggest names; none where `graphql.suggestions` is off.
    suggester: Option<Schema<Query, Mutation, Subscription>>,
    types: Types,
    limits: Limits,
    has_introspection: bool,
    pub(crate) documents: DocumentCache,
    memory: ResponseMemory,
}

/// The code of errors of a document that does not fit the schema.
const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";

type Builder = SchemaBuilder<Query, Mutation, Subscription>;

fn schema(limits: &Limits) -> Builder {
    Schema::build(Query::new(limits), Mutation, Subscription)
        // `parse::parse` has counted the same way, and refuses with the limit's name.
        .limit_recursive_depth(limits.depth + 1)
}

/// The schema as clients see it, in the schema definition language.
pub fn sdl(limits: &Limits) -> String {
    sdl_of(&schema(limits).finish())
}

fn sdl_of(schema: &Schema<Query, Mutation, Subscription>) -> String {
    schema.sdl_with_options(SDLExportOptions::new().include_specified_by())
}

impl Api {
    /// An API within `limits`, which tells of its schema what `config` allows, with `memory` for its answers.
    ///
    /// # Panics
    /// Never: that the schema's own description can be read back is tested, and does not depend on `limits`.
    pub fn new(limits: Limits, config: &GraphqlConfig, memory: ResponseMemory) -> Self {
        let (validator, schema) = (schema(&limits), schema(&limits));
        Self::of(validator, schema, limits, config, memory)
    }

    /// The same with a fault in it, for a test of what becomes of that.
    #[cfg(test)]
    pub(crate) fn with_fault(
        limits: Limits,
        config: &GraphqlConfig,
        memory: ResponseMemory,
        fault: impl ExtensionFactory + Copy,
    ) -> Self {
        let (validator, schema) = (schema(&limits).extension(fault), schema(&limits).extension(fault));
        Self::of(validator, schema, limits, config, memory)
    }

    fn of(
        validator: Builder,
        schema: Builder,
        limits: Limits,
        config: &GraphqlConfig,
        memory: ResponseMemory,
    ) -> Self {
        let validator = validator.extension(ValidateOnly).disable_suggestions().finish();
        let suggester = config.suggestions.then(|| self::schema(&limits).extension(ValidateOnly).finish());
        // It is given valid documents only.
        let schema = schema.validation_mode(ValidationMode::Fast).finish();
        let types = Types::of(&sdl_of(&schema)).expect("the schema describes itself");
        let documents = DocumentCache::new(config.documents_size);
        let has_introspection = config.introspection;
        Self { schema, validator, suggester, types, limits, has_introspection, documents, memory }
    }

    /// Parses `request`, within the limits, and chooses its operation.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn parse(&self, request: GraphqlRequest) -> Result<Parsed, GraphqlResponse> {
        let refuse = |error| GraphqlResponse::refused(vec![error]);
        let GraphqlRequest { query: text, operation_name, variables } = request;
        let name = operation_name.filter(|name| !name.is_empty());
        if let Some(known) = self.documents.get(&text, name.as_deref()) {
            let kind = known.kind;
            return Ok(Parsed { text, name, variables, kind, document: Document::ValidatedDocument(known) });
        }
        metrics().documents.count("text");
        let document = parse::parse(&text, &self.limits).map_err(refuse)?;
        let kind = parse::operation(&document, name.as_deref()).map_err(refuse)?.node.ty;
        Ok(Parsed { text, name, variables, kind, document: Document::New(Box::new(document)) })
    }

    /// Makes sure that what was parsed is valid, and makes of it what can be run.
    ///
    /// # Errors
    /// The answer to give instead.
    pub async fn prepare(&self, parsed: Parsed) -> Result<Operation, GraphqlResponse> {
        let prepared = AssertUnwindSafe(self.made_of(parsed)).catch_unwind();
        prepared.await.unwrap_or_else(|_| Err(GraphqlResponse::failed()))
    }

    async fn made_of(&self, parsed: Parsed) -> Result<Operation, GraphqlResponse> {
        let Parsed { text, name, variables, document, .. } = parsed;
        let (known, new) = match document {
            Document::ValidatedDocument(known) => (known, None),
            Document::New(document) => (Arc::new(self.known(name.as_deref(), &document)?), Some(*document)),
        };
        let max_errors = self.limits.errors;
        let variables = self.types.coerce(&known.definitions, variables, max_errors).map_err(|errors| {
            self.refuse(errors.into_iter().map(ServerError::from).collect(), "BAD_USER_INPUT")
        })?;
        let decisions = known.decisions(&variables);
        let plan = match known.plan(&decisions) {
            Some(plan) => {
                metrics().documents.count("cache");
                plan.clone()
            }
            None => self.plan(text, name, &known, decisions, new).await?,
        };
        plan.price.check(&variables, &self.limits).map_err(|error| GraphqlResponse::refused(vec![error]))?;
        Ok(Operation { plan, variables })
    }

    /// What there is to know of the operation of that `name` of a new document, as far as it can be said without the
    /// variables, and with the faults that are told before theirs.
    fn known(
        &self,
        name: Option<&str>,
        document: &ExecutableDocument,
    ) -> Result<ValidatedDocument, GraphqlResponse> {
        let refuse = |error| GraphqlResponse::refused(vec![error]);
        if !self.has_introspection {
            introspection::refuse(document).map_err(|error| GraphqlResponse::not_run(vec![error]))?;
        }
        overlap::check(document).map_err(refuse)?;
        arguments::check(document, &self.types, self.limits.errors)
            .map_err(|errors| self.refuse(errors, VALIDATION_FAILED))?;
        let operation = parse::operation(document, name).map_err(refuse)?;
        Ok(ValidatedDocument::new(document, &operation.node))
    }

    /// Makes a plan for these `decisions`, and remembers it. A document that is `new` is judged; any other is read again.
    async fn plan(
        &self,
        text: String,
        name: Option<String>,
        known: &ValidatedDocument,
        decisions: VariableShape,
        new: Option<ExecutableDocument>,
    ) -> Result<Arc<Plan>, GraphqlResponse> {
        let refuse = |error| GraphqlResponse::refused(vec![error]);
        let is_new = new.is_some();
        let document = match new {
            Some(document) => document,
            None => {
                metrics().documents.count("variables");
                parse::parse(&text, &self.limits).map_err(refuse)?
            }
        };
        let operation = parse::operation(&document, name.as_deref()).map_err(refuse)?;
        let flat = normalize::flatten(&document, operation, &decisions).map_err(refuse)?;
        if is_new {
            self.validate(&text, document, name.as_deref()).await?;
        }
        let plan = Arc::new(Plan::of(flat, &self.types, &self.limits));
        self.documents.put(text, name, known.with(decisions, plan.clone()));
        Ok(plan)
    }

    /// Holds the whole document against the schema. Variables have been looked at already, and do not count here.
    ///
    /// To suggest names costs much more than to find errors, so it is done for no more errors than are listed.
    async fn validate(
        &self,
        text: &str,
        mut document: ExecutableDocument,
        name: Option<&str>,
    ) -> Result<(), GraphqlResponse> {
        let parse = |text| parser::parse_query(text).map_err(|_| GraphqlResponse::failed());
        let short = ShortNames::of(text);
        let (mut text, mut name) = (text, name);
        if let Some(short) = &short {
            text = &short.text;
            name = name.map(|name| short.get(name));
            document = parse(text)?;
        }
        let mut errors = validation_errors(&self.validator, document, name).await;
        if let Some(suggester) = &self.suggester
            && (1..=self.limits.errors).contains(&errors.len())
        {
            errors = validation_errors(suggester, parse(text)?, name).await;
        }
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|one, other| (&one.locations, &one.message).cmp(&(&other.locations, &other.message)));
        errors.truncate(self.limits.errors + 1);
        for error in &mut errors {
            error::ensure_code(error, ApiError::ValidationFailed);
        }
        Err(self.refuse(errors, VALIDATION_FAILED))
    }

    /// The answer to a request with `errors` of one `code`, which is not run.
    fn refuse(&self, errors: Vec<ServerError>, code: &'static str) -> GraphqlResponse {
        GraphqlResponse::not_run(listed(errors, code, self.limits.errors))
    }

    /// Shows how much is kept, as of now, in the [metrics].
    pub fn observe(&self) {
        metrics().caches.set(&[("documents", self.documents.total())]);
        self.memory.observe();
    }

    /// The memory that answers are written to.
    pub fn memory(&self) -> &ResponseMemory {
        &self.memory
    }

    /// Writes an answer as JSON. Its errors are counted.
    ///
    /// # Errors
    /// `OVERLOADED`, where `http.max_response_memory` has no room for it. The answer to a mutation is written all the same.
    pub fn encode(&self, answer: GraphqlResponse) -> Result<EncodedJson, ApiError> {
        answer.encode(&self.memory, b"", b"")
    }

    /// Writes an answer as JSON, between `before` and `after`. Where there is no room for it, it has an error in place of
    /// its data.
    pub fn encode_between(&self, before: &[u8], answer: GraphqlResponse, after: &[u8]) -> Bytes {
        let encode = |answer: GraphqlResponse| answer.encode(&self.memory, before, after);
        let encoded = encode(answer).or_else(|error| encode(GraphqlResponse::without_data(error)));
        encoded.map(|encoded| encoded.body).unwrap_or_default()
    }

    /// Runs a query or a mutation. `access` is what it may ask through, or why it may ask nothing.
    pub async fn execute(&self, operation: Operation, access: Access) -> GraphqlResponse {
        let (request, run) = operation.into_request(access, &self.limits, &self.memory);
        let answer = async {
            let mut answer = GraphqlResponse::of(self.schema.execute(request).await, &run);
            if answer.data.as_ref().is_some_and(|data| !data.is_null()) {
                answer.stale = run.staleness.noted();
            }
            answer
        };
        AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| GraphqlResponse::failed())
    }

    /// Runs any operation: a subscription has an answer for each event, the others have one.
    pub fn subscribe(
        &self,
        operation: Operation,
        access: Access,
    ) -> impl Stream<Item = GraphqlResponse> + Send + use<> {
        // What is watched is waited for until it is known again: nothing of it is stale.
        let (request, run) = operation.into_request(access, &self.limits, &self.memory);
        let answers =
            self.schema.execute_stream(request).map(move |response| GraphqlResponse::of(response, &run));
        AssertUnwindSafe(answers)
            .catch_unwind()
            .map(|answer| answer.unwrap_or_else(|_| GraphqlResponse::failed()))
    }
}

/// What is wrong with `document`, as async-graphql says it.
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

/// Has an operation end where it would be run, after it has been found valid.
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

impl Parsed {
    /// Whether it is to change something.
    pub fn is_mutation(&self) -> bool {
        self.kind == OperationType::Mutation
    }
}

impl Operation {
    /// Whether it has more than one answer.
    pub fn is_subscription(&self) -> bool {
        self.plan.kind() == OperationType::Subscription
    }

    fn into_request(self, access: Access, limits: &Limits, memory: &ResponseMemory) -> (Request, Arc<Run>) {
        let Self { plan, variables } = self;
        metrics().operations.count(match plan.kind() {
            OperationType::Query => "query",
            OperationType::Mutation => "mutation",
            OperationType::Subscription => "subscription",
        });
        let document = plan.document();
        let run = Arc::new(Run::new(access, plan, limits, memory));
        (request(document, variables).data(run.clone()), run)
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

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed").field("kind", &self.kind).finish_non_exhaustive()
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
