//! The syntax of documents, as in the GraphQL specification, edition September 2025, and the locations of errors.

use serde_json::{Value, json};

use crate::support::Gateway;

const PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";

#[tokio::test]
async fn valid_documents_are_accepted() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for query in [
        "\"about\" query { __typename }",
        "\"\"\"\nabout {\n\"\"\" query A { __typename }",
        "\"\" query A(\"one\" $a: Boolean! = true) { __typename @skip(if: $a) }",
        "{ ...F } \"about\" fragment F on Query { __typename }",
        "{ ...F } fragment F on#on\nQuery { __typename }",
        "query ($a: [ UUID # comment\n ! ] ! = [], $b: Boolean!=true) { appointmentsByIds(ids: $a) { id } ...F } \
         fragment F on Query { __type(name: \"Query\") { fields(includeDeprecated: $b) { name } } }",
        "\u{feff}query query { query: __typename on: __typename true: __typename ...fragment } \
         fragment fragment on Query { fragment: __typename null: __typename }",
        "{ ... @include(if: true) { __typename } ... on Query { __typename } }",
        "query($a:Boolean!=true){__typename@skip(if:$ a)}",
    ] {
        let reply = gateway.query(Some("sandbox-all"), query).await;
        assert_eq!((reply.status, reply.body.get("errors")), (200, None), "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn invalid_syntax_is_refused() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for query in [
        "query() { __typename }",
        "query A() { __typename }",
        "queryA { __typename }",
        "{ __typename() }",
        "{ __typename { } }",
        "{ }",
        "",
        "# comment",
        "{ __typename ...on }",
        "{ ...F } fragment F on Query { ...on } fragment on on Query { __typename }",
        "{ __typename } fragment on on Query { __typename }",
        "{ ... on { __typename } }",
        "{ ...F } fragment F onQuery { __typename }",
        "{ ...F } fragmentF on Query { __typename }",
        "query ($a: Boolean! @skip(if: true) = true) { __typename @skip(if: $a) }",
        "query ($a: Boolean! = true @skip(if: $a)) { __typename @skip(if: $a) }",
        "query ($a: Boolean! = $b, $b: Boolean!) { __typename @skip(if: $a) @include(if: $b) }",
        "\"about\" { __typename }",
        "\"about\" \"more\" query { __typename }",
        "\"\\x\" query { __typename }",
        "query { __typename } \"about\"",
        "{ \"about\" __typename }",
        "{ __typename } }",
        "{ __type(name: [\"\"\"a\"]) { name } }",
        "{ __typename } type T { a: Int }",
    ] {
        let reply = gateway.query(None, query).await;
        assert_eq!(reply.codes(), [PARSE_FAILED], "{query}: {reply:?}");
        let location = &reply.body["errors"][0]["locations"][0];
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        let (line, column) = (&location["line"], &location["column"]);
        assert!(
            message.starts_with(&format!("Syntax error at line {line}, column {column}: ")),
            "{query}: {message}"
        );
    }
}

/// Each kind of syntax and validation error, with the positions of its locations: marked by `^` before them.
#[tokio::test]
async fn errors_are_located() {
    let gateway = Gateway::on_sandbox(&[("graphql.introspection", "false")]).await;
    for (marked, code) in [
        // Characters count, not bytes, and all three line ends.
        ("{ a(b: \"é🦀\" ^~) }", PARSE_FAILED),
        ("{\r  a(\r\n\n^}", PARSE_FAILED),
        ("\"\"\"\n\n\"\"\" query {\n  a(b: \"\"\"\n \\\"\"\"\n\"\"\" ^}", PARSE_FAILED),
        ("{ a(b: \"\\u{1F980}\", ^\"c\") }", PARSE_FAILED),
        ("{ __typename ^", PARSE_FAILED),
        ("{ __typename # comment\r\n ^é }", PARSE_FAILED),
        ("{ a(b: ^\"\\u{D800}\") }", PARSE_FAILED),
        ("query A { __typename } query ^A { __typename }", VALIDATION_FAILED),
        ("^{ __typename } query A { __typename }", VALIDATION_FAILED),
        (
            "{ ...F } fragment F on Query { __typename } fragment ^F on Query { __typename }",
            VALIDATION_FAILED,
        ),
        ("^fragment F on Query { __typename }", VALIDATION_FAILED),
        ("{ a(b: { c: 1 d: \"\"\"\n\n\"\"\", ^c: 2 }) }", VALIDATION_FAILED),
        ("{ ...^F }", VALIDATION_FAILED),
        ("{ ...F } fragment F on Query { ...^F }", VALIDATION_FAILED),
        ("{ __typename } ^fragment F on Query { __typename }", VALIDATION_FAILED),
        ("{ ^a: __typename ^a: appointments { totalCount } }", VALIDATION_FAILED),
        ("^subscription { __typename }", VALIDATION_FAILED),
        ("{ ^__schema { queryType { name } } }", VALIDATION_FAILED),
        ("{ ^nope }", VALIDATION_FAILED),
        ("{ ^appointments }", VALIDATION_FAILED),
        ("{ __typename ^{ a } }", VALIDATION_FAILED),
        ("{ ^appointment { id } }", VALIDATION_FAILED),
        ("{ appointment(id: ^1) { id } }", VALIDATION_FAILED),
        ("{ appointments(first: 1, nope: ^1) { totalCount } }", VALIDATION_FAILED),
        ("{ __typename ^@nope }", VALIDATION_FAILED),
        ("{ appointment(id: ^$a) { id } }", VALIDATION_FAILED),
        ("query (^$a: Int) { __typename }", VALIDATION_FAILED),
        ("query (\"about\" ^$a: Int) { __typename }", VALIDATION_FAILED),
        ("query ($a: Int = ^\"\\u{41}\") { appointments(first: $a) { totalCount } }", VALIDATION_FAILED),
        ("query ($a: Int) { appointment(id: ^$a) { id } }", VALIDATION_FAILED),
        ("{ ...F } ^fragment F on Nope { id }", VALIDATION_FAILED),
    ] {
        let mut expected = Vec::new();
        let (mut line, mut column, mut previous) = (1, 1, ' ');
        for sign in marked.chars() {
            match sign {
                '^' => expected.push(json!({ "line": line, "column": column })),
                '\n' if previous == '\r' => {}
                '\n' | '\r' => (line, column) = (line + 1, 1),
                _ => column += 1,
            }
            previous = sign;
        }
        let query = marked.replace('^', "");
        let reply = gateway.query(None, &query).await;
        assert_eq!(reply.codes(), [code], "{marked}: {reply:?}");
        assert_eq!(reply.body["errors"][0]["locations"], Value::Array(expected), "{marked}: {reply:?}");
    }
}
