use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_graphql::{
    EmptyMutation, EmptySubscription, Name, Object, ObjectType, Pos, Request, Response, Schema,
    ValidationMode,
    indexmap::IndexMap,
    parser::{
        parse_schema,
        types::{DocumentOperations, ExecutableDocument, SelectionSet, TypeKind, TypeSystemDefinition},
    },
};
use futures_util::FutureExt as _;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    config::Config,
    error::ApiError,
    graphql::{
        api::sdl,
        execute::response::GraphqlResponse,
        pipeline::{
            normalize::{self, VariableShape},
            parse,
            plan::Plan,
        },
        schema::type_index::Types,
    },
    model::Entries,
    response_memory::ResponseMemory,
    sandbox::sample,
    upstream::wire::appointment,
};

#[test]
fn every_schema_field_has_a_projection() {
    let schema = parse_schema(sdl(&Config::default().limits)).unwrap();
    let objects: BTreeMap<_, _> = schema
        .definitions
        .into_iter()
        .filter_map(|definition| match definition {
            TypeSystemDefinition::Type(ty) => match ty.node.kind {
                TypeKind::Object(object) => Some((ty.node.name.node.to_string(), object)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut left = vec![&Appointment::OUTLINE];
    while let Some(outline) = left.pop() {
        if !seen.insert(outline.name) {
            continue;
        }
        let expected: BTreeMap<_, _> = objects[outline.name]
            .fields
            .iter()
            .map(|field| {
                let ty = field.node.ty.node.to_string().replace(['[', ']', '!'], "");
                (field.node.name.node.to_string(), objects.contains_key(&ty).then_some(ty))
            })
            .collect();
        let inner = |outline: &Option<&Outline>| outline.map(|outline| outline.name.to_owned());
        let written = outline.fields.iter().map(|(name, outline)| ((*name).to_owned(), inner(outline)));
        assert_eq!(written.collect::<BTreeMap<_, _>>(), expected, "{}", outline.name);
        left.extend(outline.fields.iter().filter_map(|(_, outline)| *outline));
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
}

/// Serves an appointment through async-graphql's own resolution.
struct Resolved(SharedAppointment);

#[Object(name = "Query")]
impl Resolved {
    async fn one(&self) -> Option<SharedAppointment> {
        Some(self.0.clone())
    }

    async fn several(&self) -> Entries<SharedAppointment> {
        Entries { items: vec![self.0.clone(), self.0.clone()], malformed: true }
    }
}

/// Serves the same appointment through its projection.
struct Projected(SharedAppointment);

#[Object(name = "Query")]
impl Projected {
    async fn one(&self) -> Option<ProjectedAppointment> {
        Some(ProjectedAppointment(self.0.clone()))
    }

    async fn several(&self) -> Entries<ProjectedAppointment> {
        Entries {
            items: vec![ProjectedAppointment(self.0.clone()), ProjectedAppointment(self.0.clone())],
            malformed: true,
        }
    }
}

fn run(query: impl ObjectType + 'static, request: Request) -> Response {
    let schema =
        Schema::build(query, EmptyMutation, EmptySubscription).validation_mode(ValidationMode::Fast).finish();
    schema.execute(request).now_or_never().expect("nothing is waited for")
}

fn of(document: ExecutableDocument) -> Request {
    let mut request = Request::new("");
    request.set_parsed_query(document);
    request
}

/// `value` with its fields in the order of `set`, without placeholders.
fn arrange(value: Value, set: &SelectionSet) -> Value {
    match value {
        Value::Object(mut fields) => {
            let selected = normalize::fields(set).map(|field| {
                let key = field.node.response_key().node.clone();
                let value = fields.swap_remove(&key).expect("each field has a value");
                (key, arrange(value, &field.node.selection_set.node))
            });
            Value::Object(selected.collect::<IndexMap<Name, Value>>())
        }
        Value::List(items) => Value::List(items.into_iter().map(|item| arrange(item, set)).collect()),
        value => value,
    }
}

/// Compares the responses to `query` of both ways.
fn compare(appointment: &SharedAppointment, query: &str) -> Result<(), TestCaseError> {
    let document = parse::parse(query, &Config::default().limits).unwrap();
    let operation = parse::operation(&document, None).unwrap();
    let flat = normalize::normalize(&document, operation, &VariableShape::default()).unwrap();
    let set = flat.selection_set.node.clone();
    let uncut = Positioned::new(flat.clone(), Pos::default());
    let schema =
        Schema::build(Resolved(appointment.clone()), EmptyMutation, EmptySubscription).finish().sdl();
    let plan = Arc::new(Plan::of(flat, &Types::of(&schema).unwrap(), &Config::default().limits));

    let uncut =
        ExecutableDocument { operations: DocumentOperations::Single(uncut), fragments: Default::default() };
    let expected = run(Resolved(appointment.clone()), of(uncut));
    let data = serde_json::to_string(&arrange(expected.data, &set)).unwrap();
    let memory = ResponseMemory::new(Config::default().http.max_response_memory, 100);
    let access = Err(ApiError::Internal);
    let running =
        Arc::new(Execution::new(access, plan.clone(), Arc::default(), &Config::default().limits, &memory));
    let response = run(Projected(appointment.clone()), of(plan.document()).data(running.clone()));
    let written = GraphqlResponse::of(response, &running).encode(&memory, b"<", b">").unwrap().body;
    let written = String::from_utf8(written.to_vec()).unwrap();
    let (errors, rest) = split(&written);
    let expected = format!("<{{\"errors\":{},\"data\":{data}}}>", json(&expected.errors));
    let (expected_errors, expected_rest) = split(&expected);
    // `split` sorts the errors: the projection lists those of values after those of lists.
    prop_assert_eq!((errors, rest), (expected_errors, expected_rest), "{}", query);
    Ok(())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// The errors of a response, sorted, and the text behind them.
fn split(response: &str) -> (Vec<String>, &str) {
    let (errors, rest) = response.split_once(",\"data\":").unwrap();
    let errors: Vec<serde_json::Value> =
        serde_json::from_str(errors.strip_prefix("<{\"errors\":").unwrap()).unwrap();
    let mut errors = errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    errors.sort();
    (errors, rest)
}

/// The sample appointment with another id, and with each of its other values absent, null, malformed or changed.
fn any_appointment() -> impl Strategy<Value = Json> {
    (like(&sample().clone().into()), any::<u128>()).prop_map(|(mut appointment, id)| {
        appointment["id"] = uuid::Uuid::from_u128(id).to_string().into();
        json!({ "data": appointment })
    })
}

/// Values of the kind of `sample`.
fn like(sample: &Json) -> BoxedStrategy<Json> {
    match sample {
        Json::Null => Just(Json::Null).boxed(),
        Json::Bool(_) => any::<bool>().prop_map(Json::from).boxed(),
        Json::Number(_) => any::<i32>().prop_map(Json::from).boxed(),
        Json::String(text) if text.parse::<jiff::Timestamp>().is_ok() => {
            let fraction = select(&[0, 500_000_000, 123_456_789, 1_000][..]);
            (-60_000_000_000..200_000_000_000_i64, fraction)
                .prop_map(|(second, nanosecond)| jiff::Timestamp::new(second, nanosecond).unwrap())
                .prop_map(|instant| instant.to_string().into())
                .boxed()
        }
        Json::String(text) if text.parse::<jiff::civil::Date>().is_ok() => (0..9_999, 1..=12, 1..=28)
            .prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}").into())
            .boxed(),
        Json::String(text) if BANDWIDTHS.contains(&text.as_str()) => {
            select(BANDWIDTHS).prop_map(Json::from).boxed()
        }
        Json::String(_) => r"(.|[\x00-\x40\\])*".prop_map(Json::from).boxed(),
        Json::Array(items) => {
            vec(member(&items[0]), 0..4).prop_map(|items| items.into_iter().flatten().collect()).boxed()
        }
        Json::Object(members) => {
            let members = members.iter().map(|(name, value)| (Just(name.clone()), member(value)));
            members
                .collect::<Vec<_>>()
                .prop_map(|members| {
                    let present = |(name, value): (String, Option<Json>)| Some((name, value?));
                    members.into_iter().filter_map(present).collect()
                })
                .boxed()
        }
    }
}

const BANDWIDTHS: &[&str] = &["low", "medium", "high"];

/// A value of the kind of `sample`, a malformed one, null, or none.
fn member(sample: &Json) -> impl Strategy<Value = Option<Json>> + use<> {
    prop_oneof![
        1 => Just(None),
        2 => select(vec![json!(null), json!([[]]), json!(-0.5)]).prop_map(Some),
        5 => like(sample).prop_map(Some),
    ]
}

/// Source of generated values.
struct Choices(std::vec::IntoIter<u16>);

impl Choices {
    /// A choice below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.0.next().unwrap_or_default()) % bound
    }

    /// Writes a selection of an `outline`'s fields, some repeated and some under an alias.
    fn selection(&mut self, outline: &'static Outline, text: &mut String) {
        text.push_str(" { ");
        for number in 0..=self.below(12) {
            if self.below(8) == 0 {
                *text += &format!("t{number}: __typename ");
                continue;
            }
            let (name, inner) = outline.fields[self.below(outline.fields.len())];
            let arguments = match self.below(4) {
                index if name == "all" => {
                    ["", "(enabled: true)", "(enabled: false)", "(enabled: null)"][index]
                }
                _ => "",
            };
            if !arguments.is_empty() || self.below(3) == 0 {
                *text += &format!("{name}{number}: ");
            }
            *text += &format!("{name}{arguments}");
            if let Some(outline) = inner {
                self.selection(outline, text);
            }
            text.push_str(if self.below(4) == 0 { "\n" } else { " " });
        }
        text.push_str("} ");
    }
}

proptest! {
    #[test]
    fn projections_match_async_graphql(
        upstream in any_appointment(),
        of_query in vec(any::<u16>(), 0..300),
    ) {
        let appointment = Arc::new(appointment(upstream.to_string().as_bytes()).unwrap());
        let mut choices = Choices(of_query.into_iter());
        let mut query = "{ one".to_owned();
        choices.selection(&Appointment::OUTLINE, &mut query);
        query += "again: several";
        choices.selection(&Appointment::OUTLINE, &mut query);
        compare(&appointment, &(query + "}"))?;
    }
}

#[test]
fn every_field_of_the_model_is_written() {
    let camel_case = |name: &str| {
        let mut words = name.split('_').map(str::to_owned);
        let first = words.next().unwrap_or_default();
        words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
    };
    let objects: [(&str, &[&str], _); 5] = [
        ("Appointment", Appointment::FIELDS, Appointment::OUTLINE),
        ("Department", Department::FIELDS, Department::OUTLINE),
        ("Claimant", Claimant::FIELDS, Claimant::OUTLINE),
        ("Meeting", Meeting::FIELDS, Meeting::OUTLINE),
        ("Features", Features::FIELDS, Features::OUTLINE),
    ];
    for (name, fields, outline) in objects {
        for field in fields {
            let is_written = outline.fields.iter().any(|(written, _)| *written == camel_case(field));
            assert!(is_written, "add {field} to object!({name} …) in src/graphql/execute/projection/mod.rs");
        }
    }
}
