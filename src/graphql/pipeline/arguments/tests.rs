use proptest::prelude::*;

use super::*;
use crate::{config::Config, graphql::pipeline::parse};

const SDL: &str = "
    directive @skip(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
    directive @include(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
    directive @mark(tag: String = \"x\") on QUERY | VARIABLE_DEFINITION | FRAGMENT_DEFINITION
    scalar UUID scalar DateTime scalar Date
    enum Size { SMALL LARGE }
    input Box { size: Size!  count: Int! = 1  inner: Box  ids: [UUID!]  on: Date  name: String }
    type Query { a(
        int: Int float: Float string: String boolean: Boolean id: ID uuid: UUID time: DateTime date: Date size: Size
        box: Box boxes: [Box!] list: [Int] grid: [[Int!]!] ids: [UUID!] filled: Int! = 1
    ): Query  must(id: UUID!): [Query!]!  leaf: Int }
    type Mutation { change(box: Box!): Query }
";

const MAX_ERRORS: usize = 20;

const ID: &str = "\"9a0f170e-0aa0-47db-ab14-4ddcdcbad061\"";

/// The error messages for `text`, in which UUID1 stands for a UUID literal.
fn messages(text: &str) -> Vec<String> {
    let text = text.replace("UUID1", ID);
    let document = parse::parse(&text, &Config::default().limits).unwrap();
    let errors = check(&document, &Types::of(SDL).unwrap(), MAX_ERRORS).err().unwrap_or_default();
    for error in &errors {
        assert_eq!(error.locations.len(), 1, "{text}");
        assert!(!error.message.contains("secret"), "{text}: {}", error.message);
    }
    errors.into_iter().map(|error| error.message).collect()
}

fn accepts(texts: &[&str]) {
    for text in texts {
        assert_eq!(messages(text), [""; 0], "{text}");
    }
}

fn rejects(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(messages(text), [*expected], "{text}");
    }
}

#[test]
fn valid_literals_are_accepted() {
    accepts(&[
        "{ a(int: 2147483647) { a(int: -2147483648) { leaf } } }",
        "{ a(float: 1) { a(float: 1.5e3) { leaf } } }",
        "{ a(string: \"\") { a(string: \"\"\"block\"\"\") { leaf } } }",
        "{ a(boolean: false, id: 7, uuid: UUID1, size: LARGE) { a(id: \"x\") { leaf } } }",
        "{ a(time: \"2021-01-01T00:00:00Z\", date: \"1990-12-25\") { leaf } }",
        "{ a(int: null, box: null, list: null, size: null) { leaf } }",
        "{ a(list: 1) { a(list: [1, null]) { a(list: []) { leaf } } } }",
        "{ a(grid: 1) { a(grid: [1, [2]]) { leaf } } }",
        "{ a(ids: UUID1) { a(ids: [UUID1]) { leaf } } }",
        "{ a(box: {size: SMALL, inner: {size: LARGE, ids: UUID1, on: \"1990-12-25\"}, name: null}) { leaf } }",
        "{ a(boxes: {size: SMALL}) { a(boxes: [{size: SMALL, count: 2}]) { leaf } } }",
    ]);
}

#[test]
fn invalid_literals_are_located_but_not_echoed() {
    for (argument, literals) in [
        ("int", &["2147483648", "-2147483649", "1.0", "1e3", "\"secret\"", "true", "ONE", "[1]", "{}"][..]),
        ("float", &["\"1\"", "true", "ONE"]),
        ("string", &["1", "1.5", "true", "secret", "[\"secret\"]", "{secret: 1}"]),
        ("boolean", &["1", "\"true\"", "TRUE", "[true]"]),
        ("id", &["1.5", "true", "secret", "{}"]),
        ("uuid", &["\"secret\"", "1", "secret", "[]"]),
        ("time", &["\"2021-01-01\"", "1609459200", "\"secret\""]),
        ("date", &["\"2021-01-01T00:00:00Z\"", "\"1990-12-32\"", "19901225"]),
        ("size", &["HUGE", "\"SMALL\"", "1", "true", "[SMALL]"]),
        ("box", &["[]", "[{size: SMALL}]", "\"secret\"", "SMALL", "1", "true"]),
    ] {
        for literal in literals {
            let [message] = &messages(&format!("{{ a({argument}: {literal}) {{ leaf }} }}"))[..] else {
                panic!("{argument}: {literal}")
            };
            let start = format!("The argument \"{argument}\" has an invalid value. Expected type: ");
            assert!(message.starts_with(&start), "{message}");
        }
    }
    rejects(&[
        ("{ a(filled: null) { leaf } }", "The argument \"filled\" is null. Expected type: Int!."),
        ("{ must(id: null) { leaf } }", "The argument \"id\" is null. Expected type: UUID!."),
        ("{ a(ids: [UUID1, null]) { leaf } }", "The argument \"ids[1]\" is null. Expected type: UUID!."),
        ("{ a(list: [[1]]) { leaf } }", "The argument \"list[0]\" has an invalid value. Expected type: Int."),
        ("{ a(grid: [[1, null]]) { leaf } }", "The argument \"grid[0][1]\" is null. Expected type: Int!."),
        (
            "{ a(box: {size: SMALL, inner: {size: SMALL, ids: [\"secret\"]}}) { leaf } }",
            "The argument \"box.inner.ids[0]\" has an invalid value. Expected type: UUID!.",
        ),
        ("{ a(box: {}) { leaf } }", "The argument \"box.size\" is missing. Expected type: Size!."),
        (
            "{ a(box: {size: SMALL, count: null}) { leaf } }",
            "The argument \"box.count\" is null. Expected type: Int!.",
        ),
        (
            "{ a(boxes: [{size: SMALL, weight: 1}]) { leaf } }",
            "Unknown argument \"boxes[0].weight\". Remove it.",
        ),
    ]);
}

#[test]
fn arguments_are_known_unique_and_present() {
    accepts(&["{ must(id: UUID1) { __typename leaf } }", "{ nothing(x: 1) { nothing } }"]);
    rejects(&[
        ("{ must { leaf } }", "The argument \"id\" is missing. Expected type: UUID!."),
        (
            "{ a(int: 1, int: 1) { leaf } }",
            "The argument \"int\" appears more than once. Remove the duplicates.",
        ),
        ("{ a(nothing: 1) { leaf } }", "Unknown argument \"nothing\". Remove it."),
        ("{ leaf(nothing: 1) }", "Unknown argument \"nothing\". Remove it."),
        ("{ __typename(nothing: 1) }", "Unknown argument \"nothing\". Remove it."),
        ("{ __typename { leaf } }", "The field \"__typename\" has no subfields. Remove the selection."),
        ("{ __type { name } }", "The argument \"name\" is missing. Expected type: String!."),
        (
            "{ __type(name: 1) { name } }",
            "The argument \"name\" has an invalid value. Expected type: String!.",
        ),
        (
            "{ __schema { types { fields(includeDeprecated: 1) { name } } } }",
            "The argument \"includeDeprecated\" has an invalid value. Expected type: Boolean!.",
        ),
    ]);
}

#[test]
fn variables_match_the_type_of_their_position() {
    accepts(&[
        "query ($v: UUID!) { must(id: $v) { leaf } }",
        "query ($v: UUID = UUID1) { must(id: $v) { leaf } }",
        "query ($v: Int!) { a(int: $v, list: [$v], grid: [[$v]]) { leaf } }",
        // The position has a default value.
        "query ($v: Int) { a(filled: $v, box: {size: SMALL, count: $v}) { leaf } }",
        "query ($v: Int = null) { a(filled: $v) { leaf } }",
        "query ($v: [UUID!]!) { a(ids: $v) { a(box: {size: SMALL, ids: $v}) { leaf } } }",
        "query ($v: [[Int!]!]!) { a(grid: $v) { leaf } }",
        "query ($v: Box) { a(box: {size: SMALL, inner: $v}) { leaf } }",
        "query ($v: String!) { __type(name: $v) { name } }",
        // Variables belong to the operation, also within a fragment.
        "query A($v: Int) { ...f } query B($v: Int!) { ...f } fragment f on Query { a(int: $v) { leaf } }",
    ]);
    for (declared, used, position) in [
        ("UUID", "must(id: $v)", "argument \"id\" requires type UUID!"),
        ("UUID = null", "must(id: $v)", "argument \"id\" requires type UUID!"),
        ("String!", "must(id: $v)", "argument \"id\" requires type UUID!"),
        ("String", "a(id: $v)", "argument \"id\" requires type ID"),
        ("ID", "a(box: {size: SMALL, name: $v})", "argument \"box.name\" requires type String"),
        ("Int", "a(float: $v)", "argument \"float\" requires type Float"),
        ("[UUID]!", "a(ids: $v)", "argument \"ids\" requires type [UUID!]"),
        ("UUID", "a(ids: [$v])", "argument \"ids[0]\" requires type UUID!"),
        // Variables are not coerced to lists.
        ("UUID!", "a(ids: $v)", "argument \"ids\" requires type [UUID!]"),
        ("[[Int!]]!", "a(grid: $v)", "argument \"grid\" requires type [[Int!]!]"),
        ("[Int]", "a(int: $v)", "argument \"int\" requires type Int"),
        ("Size", "a(box: {size: $v})", "argument \"box.size\" requires type Size!"),
        ("Boolean", "leaf @skip(if: $v)", "argument \"if\" requires type Boolean!"),
        ("Boolean", "__typename @skip(if: $v)", "argument \"if\" requires type Boolean!"),
    ] {
        let set = if used.starts_with(['m', 'a']) { "{ leaf }" } else { "" };
        let ty = declared.split(" =").next().unwrap();
        let expected = format!("The variable \"$v\" has type {ty}, but the {position}.");
        assert_eq!(messages(&format!("query ($v: {declared}) {{ {used} {set} }}")), [&*expected]);
        let text = format!("query ($v: {declared}) {{ ...f ...f }} fragment f on Query {{ {used} {set} }}");
        assert_eq!(messages(&text), [expected], "{text}");
    }
    rejects(&[
        ("{ a(int: $v) { leaf } }", "The variable \"$v\" is not declared by the operation."),
        (
            "query A($v: Int) { ...f } query B($v: ID) { ...f } fragment f on Query { a(int: $v) { leaf } }",
            "The variable \"$v\" has type ID, but the argument \"int\" requires type Int.",
        ),
        (
            "mutation ($v: Box) { change(box: $v) { leaf } }",
            "The variable \"$v\" has type Box, but the argument \"box\" requires type Box!.",
        ),
    ]);
}

#[test]
fn default_values_match_their_variables() {
    accepts(&[
        "query ($v: Int = 1, $w: [Int] = 1, $x: Box = {size: SMALL}, $y: Size = LARGE, $z: ID = 7) { leaf }",
        "query ($v: Int = null, $w: Int! = 1) { leaf }",
        "query ($v: Nothing = {any: 1}) { leaf }",
    ]);
    for (declared, path, problem) in [
        ("Int = \"secret\"", "$v", "has an invalid value. Expected type: Int"),
        ("Int! = null", "$v", "is null. Expected type: Int!"),
        ("Size = \"SMALL\"", "$v", "has an invalid value. Expected type: Size"),
        ("[Int!] = [1, null]", "$v[1]", "is null. Expected type: Int!"),
        ("Box = {}", "$v.size", "is missing. Expected type: Size!"),
    ] {
        let expected = format!("The default value of the variable \"{path}\" {problem}.");
        assert_eq!(messages(&format!("query ($v: {declared}) {{ leaf }}")), [expected]);
    }
}

#[test]
fn directives_are_known_unique_and_allowed() {
    accepts(&[
        "{ leaf @skip(if: true) @include(if: false) __typename @skip(if: true) }",
        "query ($v: Boolean!) { ... @skip(if: $v) { leaf } ...f @include(if: $v) } fragment f on Query { leaf }",
        "query ($v: Boolean = true) { leaf @skip(if: $v) }",
        "query ($v: Int @mark) @mark(tag: \"y\") { ...f } fragment f on Query @mark { leaf }",
    ]);
    for text in [
        "{ leaf @nothing }",
        "{ __typename @nothing(if: $v) }",
        "{ nothing { nothing @nothing } }",
        "query @nothing { leaf }",
        "query ($v: Int @nothing) { leaf }",
        "{ ...f @nothing } fragment f on Query { leaf }",
        "{ ...f } fragment f on Query @nothing { leaf }",
        "{ ... on Nothing @nothing { leaf } }",
    ] {
        assert_eq!(
            messages(text),
            ["The directive \"@nothing\" is unknown or not allowed here. Remove it."],
            "{text}"
        );
    }
    for text in ["query @skip(if: true) { leaf }", "{ ...f } fragment f on Query @skip(if: true) { leaf }"] {
        assert_eq!(
            messages(text),
            ["The directive \"@skip\" is unknown or not allowed here. Remove it."],
            "{text}"
        );
    }
    rejects(&[
        (
            "{ __typename @skip(if: true) @skip(if: true) }",
            "The directive \"@skip\" appears more than once here. Remove the duplicates.",
        ),
        ("{ leaf @mark }", "The directive \"@mark\" is unknown or not allowed here. Remove it."),
        ("{ __typename @skip }", "The argument \"if\" is missing. Expected type: Boolean!."),
        ("{ __typename @skip(if: 1) }", "The argument \"if\" has an invalid value. Expected type: Boolean!."),
        ("{ leaf @skip(if: null) }", "The argument \"if\" is null. Expected type: Boolean!."),
        ("{ leaf @skip(if: true, x: 1) }", "Unknown argument \"x\". Remove it."),
        ("{ __typename @skip(if: $v) }", "The variable \"$v\" is not declared by the operation."),
    ]);
}

#[test]
fn errors_are_ordered_positioned_and_bounded() {
    let text = "query B { ...f }\nquery A { ...f leaf @nothing }\nfragment f on Query { a(int: \"secret\") { leaf } }";
    let document = parse::parse(text, &Config::default().limits).unwrap();
    let errors = check(&document, &Types::of(SDL).unwrap(), MAX_ERRORS).unwrap_err();
    let positions: Vec<_> = errors.iter().map(|error| error.locations[0]).collect();
    assert_eq!(positions, [Pos { line: 2, column: 21 }, Pos { line: 3, column: 30 }]);
    assert_eq!(
        messages(&format!("{{ a(list: [{}]) {{ leaf }} }}", "\"secret\" ".repeat(500))).len(),
        MAX_ERRORS + 1
    );
}

/// Generates documents with valid syntax, many of them invalid.
fn text() -> impl Strategy<Value = String> {
    let word = |words: &'static [&'static str]| prop::sample::select(words).prop_map(str::to_owned);
    let name = move || {
        word(&[
            "a",
            "must",
            "leaf",
            "int",
            "box",
            "boxes",
            "ids",
            "size",
            "inner",
            "if",
            "__typename",
            "__type",
        ])
    };
    let value = word(&["1", "1.5", "-0", "\"s\"", "SMALL", "true", "null", "$v", "$w"]).prop_recursive(
        3,
        8,
        3,
        move |it| {
            let fields = prop::collection::vec((name(), it.clone()), 0..3);
            prop_oneof![
                prop::collection::vec(it, 0..3).prop_map(|items| format!("[{}]", items.join(" "))),
                fields.prop_map(|fields| format!("{{{}}}", pairs(&fields))),
            ]
        },
    );
    let arguments = prop::collection::vec((name(), value), 0..3)
        .prop_map(|it| if it.is_empty() { String::new() } else { format!("({})", pairs(&it)) });
    let directive = (word(&["", "@skip", "@mark", "@nothing"]), arguments.clone())
        .prop_map(|(name, arguments)| if name.is_empty() { name } else { name + &arguments });
    let leaf = (name(), arguments.clone(), directive.clone())
        .prop_map(|(name, arguments, directive)| name + &arguments + &directive);
    let set = leaf.prop_recursive(4, 12, 3, move |it| {
        let set = prop::collection::vec(it, 1..3).prop_map(|it| format!("{{ {} }}", it.join(" ")));
        let head = prop_oneof![
            (name(), arguments.clone()).prop_map(|(name, arguments)| name + &arguments),
            word(&["...", "... on Query", "... on Size", "...f #"]),
        ];
        (head, directive.clone(), set)
            .prop_map(|(head, directive, set)| format!("{head} {directive} {set}\n"))
    });
    let types = word(&["Int", "UUID!", "[UUID]!", "Box", "Query", "Nothing", "Int = 1", "Box = {size: 1}"]);
    (types, set.clone(), set).prop_map(|(ty, one, two)| {
        format!("query ($v: {ty}) {{ {one} ...f }} fragment f on Query {{ {two} }}")
    })
}

fn pairs(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}: {value} ")).collect()
}

proptest! {
    #[test]
    fn validation_never_panics(text in text()) {
        if let Ok(document) = parse::parse(&text, &Config::default().limits) {
            let _ = check(&document, &Types::of(SDL).unwrap(), MAX_ERRORS);
        }
    }
}
