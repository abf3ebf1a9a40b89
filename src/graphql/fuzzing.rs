//! Entry points of the fuzz targets under `fuzz`, with the invariants that any input must keep.

use std::{cell::LazyCell, sync::Arc};

use async_graphql::{
    Name, Value, Variables,
    parser::types::{ExecutableDocument, Selection, SelectionSet},
};
use futures_util::{FutureExt as _, StreamExt as _};

use super::{
    api::{Api, GraphqlRequest},
    execute::response::GraphqlResponse,
    pipeline::{normalize, parse},
    schema::cursor::Cursor,
};
use crate::{
    config::{Config, limits::Limits},
    error::{ApiError, code::ErrorCode},
    response_memory::ResponseMemory,
};

thread_local! {
    static API: LazyCell<Arc<Api>> = LazyCell::new(|| {
        let Config { mut graphql, http, .. } = Config::default();
        graphql.federation = true;
        Arc::new(Api::new(limits(), &graphql, 100, ResponseMemory::new(http.max_response_memory, 100)))
    });
}

/// Low limits, so that the fuzzer soon finds inputs on both sides of each.
fn limits() -> Limits {
    let limits = Config::default().limits;
    Limits {
        tokens: 400,
        depth: 8,
        fields: 40,
        root_fields: 6,
        aliases: 6,
        directives: 6,
        cost: 500,
        ids: 5,
        items: 50,
        ..limits
    }
}

/// Runs a query; its variables follow a NUL, and the operation name another.
pub fn query(text: &str) {
    let mut parts = text.split('\0');
    let query = parts.next().unwrap_or_default().to_owned();
    let variables = parts.next().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let operation_name = parts.next().map(str::to_owned);
    let request =
        GraphqlRequest { document: query.into(), operation_name, variables: Variables::from_json(variables) };
    if let Err(response) = API.with(|api| check(api, request)) {
        assert!(response.data.is_none());
        assert!(!response.errors.is_empty());
        assert_coded(&response);
    }
}

fn check(api: &Api, request: GraphqlRequest) -> Result<(), GraphqlResponse> {
    let parsed = api.parse(request, None).now_or_never().expect("parsing never waits")?;
    let limits = limits();
    assert!(parsed.text.len() as u64 <= limits.query.as_u64());
    let document =
        parse::parse(&parsed.text, &limits).map_err(|error| GraphqlResponse::with_errors(vec![error]))?;
    let document_counts = count(&document, parsed.name.as_deref());
    assert!(document_counts.is_within(&limits), "{document_counts:?}");

    let operation = api.prepare(parsed).now_or_never().expect("preparation never waits")?;
    let document = operation.plan.document();
    let plan_counts = count(&document, None);
    // The normalised operation is no larger than the document.
    assert!(
        plan_counts.is_within(&limits)
            && plan_counts.fields <= document_counts.fields
            && plan_counts.aliases <= document_counts.aliases
    );

    // Without a credential, the response is complete without any upstream call.
    let selected = response_names(&document);
    let access = Err(ApiError::CredentialMissing);
    let response = if operation.is_subscription() {
        let mut responses = std::pin::pin!(api.subscribe(operation, access));
        responses.next().now_or_never().flatten().expect("a rejected subscription emits an error")
    } else {
        api.execute(operation, access).now_or_never().expect("without a credential, execution never waits")
    };
    assert_coded(&response);
    let json = api.encode(response).expect("response memory suffices for one response").body;
    let document: Value = serde_json::from_slice(&json).expect("a response is JSON");
    let Value::Object(mut document) = document else { panic!("a response is an object") };
    match document.swap_remove("data") {
        Some(Value::Object(data)) => {
            assert!(data.keys().eq(&selected), "the response has the names of the selection, in its order");
        }
        data => assert!(data == Some(Value::Null) && document.contains_key("errors")),
    }
    Ok(())
}

fn assert_coded(response: &GraphqlResponse) {
    for error in &response.errors {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        assert!(
            matches!(code, Some(Value::String(code)) if code != ErrorCode::ChangeSkipped.as_str()),
            "{error:?}"
        );
    }
}

/// A naive count of an operation, which follows each fragment at each use.
#[derive(Debug, Default)]
struct Counts {
    depth: usize,
    root_fields: usize,
    fields: usize,
    aliases: usize,
}

impl Counts {
    fn is_within(&self, limits: &Limits) -> bool {
        self.depth <= limits.depth
            && self.root_fields <= limits.root_fields
            && self.fields <= limits.fields
            && self.aliases <= limits.aliases
    }

    fn add(&mut self, document: &ExecutableDocument, set: &SelectionSet, depth: usize, is_root: bool) {
        self.depth = self.depth.max(depth);
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    self.fields += 1;
                    self.root_fields += usize::from(is_root);
                    self.aliases +=
                        usize::from(field.node.alias.is_some() && !normalize::is_placeholder(&field.node));
                    let inner = &field.node.selection_set.node;
                    if !inner.items.is_empty() {
                        self.add(document, inner, depth + 1, false);
                    }
                }
                Selection::InlineFragment(fragment) => {
                    self.add(document, &fragment.node.selection_set.node, depth + 1, is_root);
                }
                Selection::FragmentSpread(spread) => {
                    let fragment = &document.fragments[&spread.node.fragment_name.node].node;
                    self.add(document, &fragment.selection_set.node, depth + 1, is_root);
                }
            }
        }
    }
}

fn count(document: &ExecutableDocument, name: Option<&str>) -> Counts {
    let mut sum = Counts::default();
    let operation = parse::operation(document, name).expect("the operation was selected before");
    sum.add(document, &operation.node.selection_set.node, 1, true);
    sum
}

/// The root response names of the normalised operation.
fn response_names(document: &ExecutableDocument) -> Vec<Name> {
    let operation = parse::operation(document, None).expect("a plan has one operation");
    let set = &operation.node.selection_set.node;
    assert!(set.items.iter().all(|selection| matches!(selection.node, Selection::Field(_))));
    normalize::fields(set).map(|field| field.node.response_key().node.clone()).collect()
}

/// Decodes a cursor, or encodes one from a position and, after a colon, a page length.
pub fn cursor(text: &str) {
    if let Some(cursor) = Cursor::decode(text) {
        assert_eq!(cursor.encode(), text, "each position has one cursor");
    }
    let (position, cap) = text.split_once(':').unwrap_or((text, ""));
    if let Ok(position) = position.parse::<u32>() {
        let page_cap = cap.parse().ok().filter(|cap| (1..=100).contains(cap));
        let cursor = Cursor { position: position.into(), page_cap };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
    }
}
