//! The defects of async-graphql 7.2.1 that the gateway works around, and the techniques it uses with the library.
//!
//! # Defects
//!
//! Each has a test below that shows the defect in the library itself. A test fails once a release has fixed its defect;
//! the message names the workaround that can be removed.
//!
//! | Defect | In the library | Workaround |
//! | --- | --- | --- |
//! | The types of variables are never compared with the types of their positions: `VisitorCons` does not forward `enter_input_value`, so the rule `VariableInAllowedPosition` never sees a variable. | `validation/visitor.rs` | [`pipeline::arguments`] |
//! | A string literal is valid for an enum. | `validation/utils.rs`, `is_valid_input_value` | [`pipeline::arguments`] |
//! | Arguments, directives and the selection of `__typename` are not validated. | `validation/visitor.rs`, `visit_selection` | [`pipeline::arguments`] |
//! | A variable used only in a directive on `__typename` counts as unused. | `validation/visitor.rs`, `visit_selection` | [`pipeline::typename`] |
//! | Fields with one response name and different type conditions are not compared, but merged. | `validation/rules/overlapping_fields_can_be_merged.rs` | [`pipeline::overlap`] |
//! | The name of an operation, however long, is repeated in the error of each unused variable. | `validation/rules/no_unused_variables.rs` | [`pipeline::short_names`] |
//! | An undeclared variable in a fragment is reported once per operation, which multiplies. | `validation/rules/no_undefined_variables.rs` | [`pipeline::arguments`] |
//! | A missing variable fails a field during execution, not the whole request. | `context.rs`, `var_value` | [`pipeline::variables`] |
//! | A field selected twice is resolved twice; a change is sent twice. | `resolver_utils/container.rs`, `add_set` | [`pipeline::normalize`] |
//! | An object without selected fields is null. | `resolver_utils/container.rs`, `do_resolve_container` | [`pipeline::normalize`], the placeholder |
//! | An argument with an absent variable is null, not omitted. | `context.rs` | [`pipeline::normalize`] |
//! | Fields are ordered by completion, not by selection. | `resolver_utils/container.rs`, `do_resolve_container` | [`execute::response`] |
//! | A failed non-null root field is omitted, where `data` must be null. | `resolver_utils/container.rs`, `do_resolve_container` | [`execute::response`] |
//! | One failing entity fails the whole list of `_entities`. | `types/query_root.rs`, `resolve_field` | [`schema::entities`] resolves the field |
//! | A nullable field of type `Result<Option<T>>` that fails is omitted, not null. | `resolver_utils/container.rs`, `do_resolve_container` | [`schema::query`] returns `Option<Result<T>>` |
//!
//! Those of the parser, `async-graphql-parser`, have one workaround in common: [`pipeline::parser`] takes its place and
//! builds the same syntax tree.
//!
//! | Defect of the parser | Where |
//! | --- | --- |
//! | Block strings keep the backslash of `\"""`, and blank lines that are shorter than the common indentation. | `parse/utils.rs`, `block_string_value` |
//! | Surrogate pairs and `\u{…}` in strings are syntax errors. | `graphql.pest`, `string_character` |
//! | `-0` is a Float, a number beyond 64 bits is a syntax error, and `00` is two numbers. | `parse/mod.rs`, `parse_number`; `graphql.pest`, `number` |
//! | Keywords need no end: `queryA {…}` is an operation, `[truefalse]` has two items, `nullable` is no enum value. | `graphql.pest`, literals |
//! | `query() {…}`, a fragment named `on`, and `["""a"]` are accepted. | `graphql.pest` |
//! | Directives of a variable stand before its default value, and may contain variables. | `graphql.pest`, `variable_definition` |
//! | `[ Int ]`, and a comment behind `on`, are syntax errors. | `graphql.pest`, `type_`, `type_condition` |
//! | Descriptions of operations, fragments and variables are syntax errors. | `graphql.pest` |
//! | A repeated field of an input object is dropped. | `parse/mod.rs`, `parse_value` |
//! | A carriage return alone does not count as a line. | `pos.rs`, `step` |
//!
//! # Techniques
//!
//! - **The validate-only schema** ([`api`]). The library offers no validation without execution. A second instance of the
//!   schema has an extension that ends each request after validation. The executing schema receives valid documents
//!   only, and validates in its fast mode.
//! - **The plan index in `Pos.line`** ([`pipeline::plan`]). A resolver must find the compiled selection of its field, and
//!   the library passes nothing to it but the parsed field. The planner replaces the selection set of a projected
//!   field by an empty one whose position holds the index of the compiled selection. Errors use the position of the
//!   field, never that of its selection set, so clients never see the index.
//! - **Finished JSON in `Value::Binary`** ([`execute::projection`]). An object is projected to JSON when it is resolved.
//!   No type of the schema is binary, so the response encoder copies the bytes of each `Value::Binary` unchanged.
//! - **A type registry edited by a registration** ([`schema::federation`]). The library derives the schema statically, but
//!   `graphql.federation` is a runtime setting. An additional output type gets the registry when it is registered, and
//!   can remove the subgraph or add its keys.
//! - **The reserved alias `-`** ([`pipeline::normalize`]). A placeholder field `-: __typename` stands in each empty
//!   selection set. The parser rejects this alias in documents, and the response encoder skips the field.
//!
//! [`api`]: super::api
//! [`execute::projection`]: super::execute::projection
//! [`execute::response`]: super::execute::response
//! [`pipeline::arguments`]: super::pipeline::arguments
//! [`pipeline::normalize`]: super::pipeline::normalize
//! [`pipeline::overlap`]: super::pipeline::overlap
//! [`pipeline::parser`]: super::pipeline::parser
//! [`pipeline::plan`]: super::pipeline::plan
//! [`pipeline::short_names`]: super::pipeline::short_names
//! [`pipeline::typename`]: super::pipeline::typename
//! [`pipeline::variables`]: super::pipeline::variables
//! [`schema::entities`]: super::schema::entities
//! [`schema::federation`]: super::schema::federation
//! [`schema::query`]: super::schema::query

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Poll,
    };

    use async_graphql::{
        EmptyMutation, EmptySubscription, Enum, MaybeUndefined, Object, Request, Response, Schema,
        SchemaBuilder, SimpleObject, async_trait,
        extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute},
        parser::{parse_query, types::Selection},
    };
    use async_graphql_value::ConstValue as Literal;
    use futures_util::{FutureExt as _, StreamExt as _, future, stream};

    #[derive(Enum, Clone, Copy, PartialEq, Eq)]
    enum Color {
        Red,
    }

    struct Item;

    #[Object]
    impl Item {
        async fn id(&self) -> i32 {
            1
        }
    }

    #[derive(Default)]
    struct Query {
        calls: Arc<AtomicUsize>,
    }

    #[Object]
    impl Query {
        async fn counted(&self) -> i32 {
            self.calls.fetch_add(1, Ordering::Relaxed);
            1
        }

        async fn one(&self) -> i32 {
            1
        }

        async fn two(&self) -> i32 {
            2
        }

        /// Completes after `one`.
        async fn late(&self) -> i32 {
            let mut is_polled = false;
            future::poll_fn(|cx| {
                if std::mem::replace(&mut is_polled, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            3
        }

        async fn item(&self) -> Item {
            Item
        }

        async fn paint(&self, color: Color) -> bool {
            color == Color::Red
        }

        async fn length(&self, text: String) -> usize {
            text.len()
        }

        async fn given(&self, number: MaybeUndefined<i32>) -> &'static str {
            match number {
                MaybeUndefined::Undefined => "omitted",
                MaybeUndefined::Null => "null",
                MaybeUndefined::Value(_) => "value",
            }
        }

        async fn failing(&self) -> async_graphql::Result<i32> {
            Err("failed".into())
        }

        async fn failing_nullable(&self) -> async_graphql::Result<Option<i32>> {
            Err("failed".into())
        }
    }

    /// Ends each request after validation.
    struct Stop;

    impl ExtensionFactory for Stop {
        fn create(&self) -> Arc<dyn Extension> {
            Arc::new(Self)
        }
    }

    #[async_trait::async_trait]
    impl Extension for Stop {
        async fn execute(&self, _: &ExtensionContext<'_>, _: Option<&str>, _: NextExecute<'_>) -> Response {
            Response::default()
        }
    }

    fn schema(query: Query) -> SchemaBuilder<Query, EmptyMutation, EmptySubscription> {
        Schema::build(query, EmptyMutation, EmptySubscription)
    }

    /// Executes a request. The schema never waits for anything but itself.
    fn run(schema: Schema<Query, EmptyMutation, EmptySubscription>, text: &str) -> Response {
        let request = Request::new(text);
        let mut responses = Box::pin(stream::once(async move { schema.execute(request).await }));
        (0..100).find_map(|_| responses.next().now_or_never().flatten()).expect("the schema responds at once")
    }

    fn execute(text: &str) -> Response {
        run(schema(Query::default()).finish(), text)
    }

    /// The messages of the library's validation.
    fn validate(text: &str) -> Vec<String> {
        let response = run(schema(Query::default()).extension(Stop).finish(), text);
        response.errors.into_iter().map(|error| error.message).collect()
    }

    fn data(text: &str) -> String {
        serde_json::to_string(&execute(text).data).unwrap()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn variable_types_are_not_compared() {
        assert_eq!(
            validate("query ($n: Int = 1) { length(text: $n) }"),
            NONE,
            "async-graphql compares variable types: remove ArgumentValidator::variable from pipeline::arguments"
        );
    }

    #[test]
    fn strings_are_valid_enum_literals() {
        assert_eq!(
            validate("{ paint(color: \"RED\") }"),
            NONE,
            "async-graphql rejects strings for enums: pipeline::arguments need not check enum literals"
        );
    }

    #[test]
    fn typename_is_not_validated() {
        assert_eq!(
            validate("{ __typename(x: 1) @unknown { y } }"),
            NONE,
            "async-graphql validates __typename: pipeline::arguments need not check it"
        );
    }

    #[test]
    fn variables_of_typename_count_as_unused() {
        assert_eq!(
            validate("query ($v: Boolean!) { __typename @skip(if: $v) }").len(),
            1,
            "async-graphql visits directives of __typename: remove pipeline::typename"
        );
    }

    #[test]
    fn overlapping_fields_in_fragments_are_not_compared() {
        assert_eq!(
            validate("{ a: one ... on Query { a: two } }"),
            NONE,
            "async-graphql compares overlapping fields: remove pipeline::overlap"
        );
    }

    #[test]
    fn operation_names_are_repeated_per_variable() {
        let name = "N".repeat(200);
        let errors = validate(&format!("query {name}($a: Int, $b: Int) {{ one }}"));
        assert_eq!(
            errors.iter().filter(|error| error.contains(&name)).count(),
            2,
            "async-graphql no longer repeats operation names: check whether pipeline::short_names can go"
        );
    }

    #[test]
    fn undeclared_variables_are_reported_per_operation() {
        let errors =
            validate("query A { ...F } query B { ...F } fragment F on Query { length(text: $text) }");
        assert_eq!(
            errors.len(),
            2,
            "async-graphql reports undeclared variables once: remove ArgumentValidator::undeclared from \
             pipeline::arguments: {errors:?}"
        );
    }

    #[test]
    fn missing_variables_fail_during_execution() {
        let response = execute("query ($text: String!) { length(text: $text) one }");
        assert!(
            response.errors.iter().any(|error| !error.path.is_empty()),
            "async-graphql coerces variables before execution: check whether pipeline::variables can go"
        );
    }

    #[test]
    fn repeated_fields_are_resolved_twice() {
        let query = Query::default();
        let calls = query.calls.clone();
        run(schema(query).finish(), "{ counted counted }");
        assert_eq!(
            calls.load(Ordering::Relaxed),
            2,
            "async-graphql merges fields: pipeline::normalize need not merge them"
        );
    }

    #[test]
    fn empty_objects_are_null() {
        assert_eq!(
            data("{ item { id @skip(if: true) } }"),
            "{\"item\":null}",
            "async-graphql returns empty objects: remove the placeholder from pipeline::normalize"
        );
    }

    #[test]
    fn arguments_with_absent_variables_are_null() {
        assert_eq!(
            data("query ($n: Int) { given(number: $n) }"),
            "{\"given\":\"null\"}",
            "async-graphql omits absent arguments: pipeline::normalize need not remove them"
        );
    }

    #[test]
    fn fields_are_ordered_by_completion() {
        assert_eq!(
            data("{ late one }"),
            "{\"one\":1,\"late\":3}",
            "async-graphql keeps the order of the selection: remove Shape from pipeline::plan"
        );
    }

    #[test]
    fn failed_non_null_root_fields_are_omitted() {
        assert_eq!(
            data("{ failing one }"),
            "{\"one\":1}",
            "async-graphql propagates null to the root: remove the check in GraphqlResponse::of"
        );
    }

    #[test]
    fn failed_nullable_fields_are_omitted() {
        assert_eq!(
            data("{ failingNullable one }"),
            "{\"one\":1}",
            "async-graphql returns null for failed nullable fields: schema::query can return Result<Option<T>>"
        );
    }

    #[derive(SimpleObject)]
    struct Thing {
        id: i32,
    }

    struct Entities;

    #[Object]
    impl Entities {
        #[graphql(entity)]
        async fn thing(&self, id: i32) -> async_graphql::Result<Thing> {
            if id == 1 { Ok(Thing { id }) } else { Err("forbidden".into()) }
        }
    }

    #[test]
    fn one_failing_entity_fails_the_list() {
        let schema = Schema::build(Entities, EmptyMutation, EmptySubscription).finish();
        let text =
            "{ _entities(representations: [{__typename: \"Thing\", id: 1}, {__typename: \"Thing\", id: 2}]) {
            ... on Thing { id }
        } }";
        let response = schema.execute(text).now_or_never().expect("the schema responds at once");
        assert!(
            !response.errors.is_empty() && !response.data.to_string().contains("id"),
            "async-graphql fails entities one by one: schema::entities can use it: {response:?}"
        );
    }

    /// The value of the argument in `{ a(b: …) }`, according to the library's parser.
    fn argument(literal: &str) -> Option<Literal> {
        let document = parse_query(format!("{{ a(b: {literal}) }}")).ok()?;
        let (_, operation) = document.operations.iter().next()?;
        match &operation.node.selection_set.node.items[0].node {
            Selection::Field(field) => field.node.arguments[0].1.node.clone().into_const(),
            _ => None,
        }
    }

    const PARSER_FIXED: &str =
        "the parser of async-graphql is fixed: pipeline::parser is no longer needed for this, or not at all";

    #[test]
    fn the_parser_misreads_literals() {
        let text = |text: &str| Some(Literal::String(text.to_owned()));
        let two = |one: Literal, other: Literal| Some(Literal::List(vec![one, other]));
        for (literal, value) in [
            (r#""""a \""" b""""#, text(r#"a \""" b"#)),
            ("\"\"\"\n   a\n \n   b\"\"\"", text("a\n \nb")),
            (r#""\uD83D\uDE00""#, None),
            (r#""\u{1F600}""#, None),
            ("-0", Some(Literal::from(-0.0))),
            ("1e999", None),
            ("[00]", two(0.into(), 0.into())),
            ("[truefalse]", two(true.into(), false.into())),
            ("nullable", None),
            (r#"["""a"]"#, two("".into(), "a".into())),
        ] {
            assert_eq!(argument(literal), value, "{literal}: {PARSER_FIXED}");
        }
        let Some(Literal::Object(fields)) = argument("{c: 1, c: 2}") else { panic!("{PARSER_FIXED}") };
        assert_eq!(fields.len(), 1, "{PARSER_FIXED}");
    }

    #[test]
    fn the_parser_accepts_invalid_documents() {
        for text in [
            "query() { a }",
            "queryA { a }",
            "{ a } fragment on on T { a }",
            "{ ...on }",
            "query ($a: Int @b = 1) { a }",
            "query ($a: Int @b(c: $d)) { a }",
        ] {
            assert!(parse_query(text).is_ok(), "{text}: {PARSER_FIXED}");
        }
    }

    #[test]
    fn the_parser_rejects_valid_documents() {
        for text in [
            "\"about\" query A { a }",
            "{ a } \"about\" fragment F on T { a }",
            "query (\"about\" $a: Int) { a }",
            "query ($a: Int = 1 @b) { a }",
            "query ($a: [ Int ]) { a }",
            "{ a } fragment F on #c\n T { a }",
        ] {
            assert!(parse_query(text).is_err(), "{text}: {PARSER_FIXED}");
        }
    }

    #[test]
    fn the_parser_counts_no_carriage_returns() {
        let document = parse_query("{\ra }").unwrap();
        let (_, operation) = document.operations.iter().next().unwrap();
        assert_eq!(operation.node.selection_set.node.items[0].pos.line, 1, "{PARSER_FIXED}");
    }
}
