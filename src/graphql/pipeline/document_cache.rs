//! The document cache: validated documents with their query plans. A repeated document skips limits, parsing, validation
//! and planning.
//!
//! The key is the text and the operation name. Variable values are never cached: a plan depends only on the
//! [shape](VariableShape) of the variables, and coercion and cost are checked per request.

use std::{fmt, hash::Hash, sync::Arc};

use async_graphql::{
    Positioned, Variables,
    indexmap::Equivalent,
    parser::types::{ExecutableDocument, OperationDefinition, OperationType, VariableDefinition},
};
use bytesize::ByteSize;
use moka::sync::Cache;

use super::{
    complexity::Complexity,
    normalize::{self, ShapingVariable, VariableShape},
    plan::Plan,
    size,
};
use crate::model::heap_size::allocation;

/// The maximum number of cached plans per operation, one per variable shape.
const MAX_PLANS: usize = 8;

/// Measured overhead of one entry in bytes: its node in moka and in moka's queues.
const ENTRY_OVERHEAD: usize = 512;

/// A cache of validated documents, bounded in bytes.
pub(crate) struct DocumentCache(Cache<DocumentKey, Arc<ValidatedDocument>>);

/// One operation of a valid document within the limits, with its plans.
#[derive(Clone)]
pub(crate) struct ValidatedDocument {
    pub(crate) kind: OperationType,
    pub(crate) definitions: Arc<[Positioned<VariableDefinition>]>,
    /// Without the cost.
    pub(crate) complexity: Complexity,
    shaping: Arc<[ShapingVariable]>,
    plans: Vec<(VariableShape, Arc<Plan>)>,
}

/// The document text, byte for byte, and the operation name.
#[derive(PartialEq, Eq, Hash)]
struct DocumentKey {
    text: Box<str>,
    name: Option<Box<str>>,
}

/// A borrowed [`DocumentKey`], for lookups without allocation.
#[derive(Hash)]
struct DocumentKeyRef<'a> {
    text: &'a str,
    name: Option<&'a str>,
}

impl Equivalent<DocumentKey> for DocumentKeyRef<'_> {
    fn equivalent(&self, key: &DocumentKey) -> bool {
        self.text == &*key.text && self.name == key.name.as_deref()
    }
}

impl DocumentCache {
    /// An empty cache of that size.
    pub(crate) fn new(size: ByteSize) -> Self {
        let weigher = |key: &DocumentKey, known: &Arc<ValidatedDocument>| {
            let name = key.name.as_ref().map_or(0, |name| name.len());
            u32::try_from(ENTRY_OVERHEAD + key.text.len() + name + known.size()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(size.as_u64()).weigher(weigher).build())
    }

    /// The cached operation `name` of the document `text`.
    pub(crate) fn get(&self, text: &str, name: Option<&str>) -> Option<Arc<ValidatedDocument>> {
        self.0.get(&DocumentKeyRef { text, name })
    }

    /// Caches an operation, subject to eviction.
    pub(crate) fn put(&self, text: String, name: Option<String>, known: ValidatedDocument) {
        let key = DocumentKey { text: text.into(), name: name.map(String::into_boxed_str) };
        self.0.insert(key, Arc::new(known));
        // Evict now, so that the bound holds at once and not after moka's next maintenance run.
        self.0.run_pending_tasks();
    }

    /// The number of entries and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.0.run_pending_tasks();
        (self.0.entry_count() as usize, self.0.weighted_size())
    }
}

impl ValidatedDocument {
    /// An `operation` of `document` without plans.
    pub(crate) fn new(
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        complexity: Complexity,
    ) -> Self {
        let definitions = &operation.variable_definitions;
        Self {
            kind: operation.ty,
            complexity,
            definitions: definitions.as_slice().into(),
            shaping: normalize::shaping_variables(document, definitions).into(),
            plans: Vec::new(),
        }
    }

    /// The shape of the coerced `variables`.
    pub(crate) fn shape_of(&self, variables: &Variables) -> VariableShape {
        VariableShape::of(&self.shaping, variables)
    }

    /// The shape of variables without a value. None if a required variable without a default decides the shape.
    pub(crate) fn default_shape(&self) -> Option<VariableShape> {
        VariableShape::of_defaults(&self.shaping, &self.definitions)
    }

    /// The plan for variables of that `shape`.
    pub(crate) fn plan(&self, shape: &VariableShape) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|(known, _)| known == shape).map(|(_, plan)| plan)
    }

    /// The operation with one more plan; evicts the oldest of [`MAX_PLANS`].
    pub(crate) fn with(&self, shape: VariableShape, plan: Arc<Plan>) -> Self {
        let mut plans = self.plans.clone();
        if plans.len() >= MAX_PLANS {
            plans.remove(0);
        }
        plans.push((shape, plan));
        Self { plans, ..self.clone() }
    }

    fn size(&self) -> usize {
        let plans = self.plans.iter().map(|(shape, plan)| shape.size() + plan.size());
        size_of::<Self>()
            + size::definitions(&self.definitions)
            + allocation(size_of_val(&*self.shaping))
            + self.shaping.iter().map(ShapingVariable::size).sum::<usize>()
            + plans.sum::<usize>()
    }
}

impl fmt::Debug for DocumentCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        config::Config,
        graphql::api::{Api, GraphqlRequest},
        response_memory::ResponseMemory,
    };

    fn memory(config: &Config) -> ResponseMemory {
        ResponseMemory::new(config.http.max_response_memory, 100)
    }

    async fn ask(api: &Api, query: &str, variables: serde_json::Value) {
        let variables = Variables::from_json(variables);
        let document = query.to_owned().into();
        let request = GraphqlRequest { document, operation_name: None, variables };
        let parsed = api.parse(request, None).await;
        api.prepare(parsed.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn plans_per_operation_are_bounded() {
        let config = Config::default();
        let api = Api::new(config.limits.clone(), &config.graphql, 5, memory(&config));
        let query = "query ($a: Boolean, $b: Boolean, $c: String) {
            appointments(after: $c) { nodes { features { all(enabled: $a) { name } a: all(enabled: $b) { name } } } }
        }";
        for round in 0..2 {
            for n in 0..18 {
                let mut variables = json!({});
                for (name, value) in [("a", n % 3), ("b", n / 3 % 3)] {
                    if value > 0 {
                        variables[name] = json!(value == 1);
                    }
                }
                if n >= 9 {
                    variables["c"] = json!("cursor");
                }
                ask(&api, query, variables).await;
                let plans = api.documents.get(query, None).unwrap().plans.len();
                assert_eq!(plans, if round == 0 { MAX_PLANS.min(n + 1) } else { MAX_PLANS });
            }
        }
        assert_eq!(api.documents.total().0, 1);
    }

    #[tokio::test]
    async fn values_outside_the_shape_share_one_plan() {
        let config = Config::default();
        let api = Api::new(config.limits.clone(), &config.graphql, 5, memory(&config));
        let query = "query ($ids: [UUID!]!, $n: Int! = 3) {
            appointmentsByIds(ids: $ids) { id } appointments(first: $n) { nodes { id } }
        }";
        for (ids, n) in [(json!([]), json!(1)), (json!(["9a0f170e-0aa0-47db-ab14-4ddcdcbad061"]), json!(2))] {
            ask(&api, query, json!({ "ids": ids, "n": n })).await;
            ask(&api, query, json!({ "ids": ids })).await;
        }
        assert_eq!(api.documents.get(query, None).unwrap().plans.len(), 1);
    }

    #[tokio::test]
    async fn booleans_in_input_objects_do_not_multiply_plans() {
        let config = Config::default();
        let api = Api::new(config.limits.clone(), &config.graphql, 5, memory(&config));
        let change = "mutation ($id: UUID!, $f: Boolean, $g: Boolean!) {
            updateAppointment(id: $id, input: { isInterpreterNeeded: $g, features: { callRecording: $f } }) {
                appointment { id }
            }
        }";
        let plans = || api.documents.get(change, None).unwrap().plans.len();
        for (f, g) in [(json!(true), true), (json!(false), false), (json!(null), true)] {
            ask(&api, change, json!({ "id": uuid::Uuid::nil(), "f": f, "g": g })).await;
            assert_eq!(plans(), 1);
        }
        ask(&api, change, json!({ "id": uuid::Uuid::nil(), "g": true })).await;
        assert_eq!(plans(), 2, "an omitted field is not sent");

        let query = "query ($f: Boolean!, $g: Boolean!) {
            a: __typename @skip(if: $f) ... @include(if: $g) { b: __typename } ...F @skip(if: $g)
        }
        fragment F on Query { c: __typename @include(if: $f) }";
        for (f, g) in [(true, true), (false, true), (true, false), (false, false)] {
            ask(&api, query, json!({ "f": f, "g": g })).await;
        }
        assert_eq!(api.documents.get(query, None).unwrap().plans.len(), 4);
    }

    #[tokio::test]
    async fn the_cache_is_bounded_and_keeps_frequent_documents() {
        let config = Config::default();
        let mut graphql = config.graphql.clone();
        graphql.documents_size = ByteSize::kib(64);
        let api = Api::new(config.limits.clone(), &graphql, 5, memory(&config));
        let often = "{ __typename }";
        for n in 0..500 {
            ask(&api, often, json!({})).await;
            ask(&api, &format!("{{ a{n}: __typename }}"), json!({})).await;
            assert!(api.documents.total().1 <= 64 * 1024);
        }
        assert!(api.documents.get(often, None).is_some());
        assert!(api.documents.total().0 > 10);
    }
}
