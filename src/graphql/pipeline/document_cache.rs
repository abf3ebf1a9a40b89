//! DocumentCache that are known: what is sent again has been parsed, counted and judged, and what is run of it is made.
//!
//! Nothing of a request is kept but its text and the name of its operation: what depends on the variables is done anew,
//! or kept for what they [decide](VariableShape).

use std::{fmt, hash::Hash, sync::Arc};

use async_graphql::{
    Positioned, Variables,
    indexmap::Equivalent,
    parser::types::{ExecutableDocument, OperationDefinition, OperationType, VariableDefinition},
};
use bytesize::ByteSize;
use moka::sync::Cache;

use super::{
    normalize::{self, Variable, VariableShape},
    plan::Plan,
    size,
};
use crate::model::allocation;

/// How many plans of one operation are kept: variables that decide much may decide in many ways.
const MOST_PLANS: usize = 8;

/// What an entry takes beside what it holds, as measured: its node in moka and its places in queues.
const ENTRY: usize = 512;

/// The memory of documents, bounded in bytes.
pub(crate) struct DocumentCache(Cache<Key, Arc<ValidatedDocument>>);

/// An operation of a document that is valid, within the limits, and asks for nothing that it may not.
#[derive(Clone)]
pub(crate) struct ValidatedDocument {
    pub(crate) kind: OperationType,
    pub(crate) definitions: Arc<[Positioned<VariableDefinition>]>,
    deciding: Arc<[Variable]>,
    plans: Vec<(VariableShape, Arc<Plan>)>,
}

/// The text, as it came, and the name of the operation to be run.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    text: Box<str>,
    name: Option<Box<str>>,
}

/// The same, of somebody else's.
#[derive(Hash)]
struct Sought<'a> {
    text: &'a str,
    name: Option<&'a str>,
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.text == &*key.text && self.name == key.name.as_deref()
    }
}

impl DocumentCache {
    /// An empty memory of that size.
    pub(crate) fn new(size: ByteSize) -> Self {
        let weigher = |key: &Key, known: &Arc<ValidatedDocument>| {
            let name = key.name.as_ref().map_or(0, |name| name.len());
            u32::try_from(ENTRY + key.text.len() + name + known.size()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(size.as_u64()).weigher(weigher).build())
    }

    /// The operation of that `name` of the document that is `text`.
    pub(crate) fn get(&self, text: &str, name: Option<&str>) -> Option<Arc<ValidatedDocument>> {
        self.0.get(&Sought { text, name })
    }

    /// Keeps it, if there is room.
    pub(crate) fn put(&self, text: String, name: Option<String>, known: ValidatedDocument) {
        let key = Key { text: text.into(), name: name.map(String::into_boxed_str) };
        self.0.insert(key, Arc::new(known));
        // What has to go for it goes now, and not when moka next comes to it.
        self.0.run_pending_tasks();
    }

    /// How many there are, and how many bytes they take.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.0.run_pending_tasks();
        (self.0.entry_count() as usize, self.0.weighted_size())
    }
}

impl ValidatedDocument {
    /// An `operation` of `document`, of which there is no plan yet.
    pub(crate) fn new(document: &ExecutableDocument, operation: &OperationDefinition) -> Self {
        let definitions = &operation.variable_definitions;
        Self {
            kind: operation.ty,
            definitions: definitions.as_slice().into(),
            deciding: normalize::deciding(document, definitions).into(),
            plans: Vec::new(),
        }
    }

    /// What `variables`, coerced, decide.
    pub(crate) fn decisions(&self, variables: &Variables) -> VariableShape {
        VariableShape::of(&self.deciding, variables)
    }

    /// What is run where variables make these `decisions`.
    pub(crate) fn plan(&self, decisions: &VariableShape) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|(known, _)| known == decisions).map(|(_, plan)| plan)
    }

    /// The same with one plan more; of too many, without the oldest.
    pub(crate) fn with(&self, decisions: VariableShape, plan: Arc<Plan>) -> Self {
        let mut plans = self.plans.clone();
        if plans.len() >= MOST_PLANS {
            plans.remove(0);
        }
        plans.push((decisions, plan));
        Self { plans, ..self.clone() }
    }

    fn size(&self) -> usize {
        let plans = self.plans.iter().map(|(decisions, plan)| decisions.size() + plan.size());
        size_of::<Self>()
            + size::definitions(&self.definitions)
            + allocation(size_of_val(&*self.deciding))
            + self.deciding.iter().map(Variable::size).sum::<usize>()
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
        let parsed = api.parse(GraphqlRequest { query: query.to_owned(), operation_name: None, variables });
        api.prepare(parsed.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn of_one_operation_so_many_plans_are_kept() {
        let config = Config::default();
        let api = Api::new(config.limits.clone(), &config.graphql, memory(&config));
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
                assert_eq!(plans, if round == 0 { MOST_PLANS.min(n + 1) } else { MOST_PLANS });
            }
        }
        assert_eq!(api.documents.total().0, 1);
    }

    #[tokio::test]
    async fn what_variables_do_not_decide_has_one_plan() {
        let config = Config::default();
        let api = Api::new(config.limits.clone(), &config.graphql, memory(&config));
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
    async fn a_flag_that_is_only_passed_on_has_one_plan_whatever_it_is() {
        let config = Config::default();
        let api = Api::new(config.limits.clone(), &config.graphql, memory(&config));
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
        assert_eq!(plans(), 2, "what is left out is not sent");

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
    async fn what_is_kept_is_bounded_and_what_is_asked_for_often_stays() {
        let config = Config::default();
        let mut graphql = config.graphql.clone();
        graphql.documents_size = ByteSize::kib(64);
        let api = Api::new(config.limits.clone(), &graphql, memory(&config));
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
