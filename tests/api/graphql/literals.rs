//! Literals in documents: the upstream receives exactly the value that the specification gives them.

use serde_json::{Value, json};

use crate::support::{APPOINTMENT_AT, Call, Gateway, GatewayResponse, Upstream, id};

/// Creates an appointment with `literal` for the input field `name` of type `ty`, as a value and as the default of a
/// variable, and returns the responses.
async fn create_with(gateway: &Gateway, name: &str, ty: &str, literal: &str) -> [GatewayResponse; 2] {
    let create = |value: &str| {
        format!(
            "createAppointment(input: {{ appointmentAt: \"{APPOINTMENT_AT}\" {name}: {value} }}) {{ appointment {{ id }} }}"
        )
    };
    let value = format!("mutation {{ {} }}", create(literal));
    let default = format!("mutation ($v: {ty} = {literal}) {{ {} }}", create("$v"));
    [gateway.query(Some("token"), &value).await, gateway.query(Some("token"), &default).await]
}

/// What the upstream received for each of `cases`: field, type, literal, and the member of the body with its value.
async fn assert_sent(cases: &[(&str, &str, &str, &str, Value)]) {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (name, ty, literal, member, expected) in cases {
        let before = upstream.calls();
        for reply in create_with(&gateway, name, ty, literal).await {
            assert_eq!(reply.body.get("errors"), None, "{literal}: {reply:?}");
        }
        let sent = upstream.seen(|seen| seen.calls[before..].iter().map(Call::json).collect::<Vec<_>>());
        assert_eq!(sent.len(), 2, "{literal}");
        for body in sent {
            assert_eq!(body[member], *expected, "{literal}");
        }
    }
}

/// Asserts that the literals are refused with these codes, and that nothing is sent.
async fn assert_refused(cases: &[(&str, &str, &str, &str)]) {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (name, ty, literal, code) in cases {
        for reply in create_with(&gateway, name, ty, literal).await {
            assert_eq!(reply.codes()[0], *code, "{literal}: {reply:?}");
            assert!(reply.body["errors"][0]["locations"][0]["line"].is_u64(), "{literal}: {reply:?}");
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn strings_arrive_as_written() {
    let cases = [
        (r#""""#, ""),
        (r#""plain é 🦀""#, "plain é 🦀"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0041\u00e9\u0000\uFFFF""#, "Aé\0\u{ffff}"),
        (r#""\uD83E\udd80 \uD83D\uDE00""#, "🦀 😀"),
        (r#""\u{1F980}\u{41}\u{00000041}\u{10ffff}""#, "🦀AA\u{10ffff}"),
        (r#""\\u{41} # {}""#, r"\u{41} # {}"),
        ("\"\u{1}\u{feff}\"", "\u{1}\u{feff}"),
    ];
    assert_sent(&cases.map(|(literal, text)| ("reference", "String", literal, "reference", json!(text))))
        .await;
}

#[tokio::test]
async fn block_strings_arrive_without_their_indentation() {
    let cases = [
        (r#""""""""#, ""),
        (r#"""" a \""" b """"#, r#" a """ b "#),
        (r#""""\\""" \n \u0041 \u{41} \ """"#, r#"\""" \n \u0041 \u{41} \ "#),
        ("\"\"\"\n    one\n      two\n\n    three\n  \"\"\"", "one\n  two\n\nthree"),
        ("\"\"\"  one\n    two\r\n   three\"\"\"", "  one\n two\nthree"),
        // Blank lines within are cut, too.
        ("\"\"\"\n    one\n  \n      \n    two\"\"\"", "one\n\n  \ntwo"),
        ("\"\"\"\r\r\n \t one\r\t\ttwo\n\n\t\n\"\"\"", " one\ntwo"),
        ("\"\"\"\n  \\\"\"\"\n    one\"\"\"", "\"\"\"\n  one"),
        ("\"\"\"\n\u{a0}one\n  two\"\"\"", "\u{a0}one\n  two"),
        ("\"\"\"\n \n\t\n\"\"\"", ""),
    ];
    assert_sent(&cases.map(|(literal, text)| ("reference", "String", literal, "reference", json!(text))))
        .await;
}

#[tokio::test]
async fn numbers_arrive_as_their_type() {
    let wide = "123456789012345678901234567890";
    let int =
        |literal, number: i32| ("durationInMinutes", "Int", literal, "duration_in_minutes", json!(number));
    let id = |literal, value| ("departmentId", "ID", literal, "department_id", value);
    assert_sent(&[
        int("-0", 0),
        int("0", 0),
        int("2147483647", i32::MAX),
        int("-2147483648", i32::MIN),
        id("7", json!(7)),
        id("-7", json!("-7")),
        id("-0", json!("-0")),
        id("9223372036854775808", json!(9_223_372_036_854_775_808_u64)),
        id(wide, json!(wide)),
        id("\"007\"", json!("007")),
    ])
    .await;
}

#[tokio::test]
async fn malformed_literals_are_syntax_errors() {
    let strings = [
        r#""\uD83E""#,
        r#""\uDD80\uD83E""#,
        r#""\uD83E\n""#,
        r#""\u{D83E}\u{DD80}""#,
        r#""\u{110000}""#,
        r#""\u{}""#,
        r#""\u{000000041}""#,
        r#""\u{ 41}""#,
        r#""\u004""#,
        r#""\x41""#,
        "\"a\nb\"",
        "\"a\rb\"",
        r#""""a""#,
        r#"["""a"]"#,
    ];
    let numbers = ["00", "-01", "1.", ".5", "1e", "0x1", "1_", "-", "+1", "[00]"];
    let cases = strings.map(|literal| ("reference", "String", literal, "GRAPHQL_PARSE_FAILED"));
    assert_refused(&cases).await;
    assert_refused(&numbers.map(|literal| ("durationInMinutes", "Int", literal, "GRAPHQL_PARSE_FAILED")))
        .await;
}

#[tokio::test]
async fn literals_of_other_types_are_invalid() {
    let invalid = |name, ty, literal| (name, ty, literal, "GRAPHQL_VALIDATION_FAILED");
    assert_refused(&[
        invalid("durationInMinutes", "Int", "2147483648"),
        invalid("durationInMinutes", "Int", "-99999999999999999999"),
        invalid("durationInMinutes", "Int", "-0.0"),
        invalid("durationInMinutes", "Int", "1e999"),
        invalid("departmentId", "ID", "1.0"),
        invalid("departmentId", "ID", "nullable"),
        invalid("reference", "String", "-0"),
        invalid("reference", "String", "trueish"),
        invalid("isInterpreterNeeded", "Boolean", "99999999999999999999"),
        invalid("features", "FeaturesInput", "{ bandwidth: -0 }"),
        invalid("claimant", "ClaimantInput", "{ name: \"a\" name: \"a\" }"),
    ])
    .await;
}

#[tokio::test]
async fn lists_and_objects_arrive_as_written() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let (one, two) = (id(1), id(2));
    let query = format!(
        "query A($ids: [ UUID ! ] ! = [\"\"\"\n  {one}\n\"\"\",\"{}\"]) {{ appointmentsByIds(ids: $ids) {{ id }} }}",
        two.replacen('0', "\\u{30}", 1)
    );
    let reply = gateway.query(Some("token"), &query).await;
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": [{ "id": one }, { "id": two }] } }));

    let object = "{name:\"\\u{41}\",email:null#}\nphoneNumber:\"\"\"\n  +44\"\"\",}";
    let sent = json!({ "name": "A", "email": null, "phone_number": "+44" });
    let features = "{ bandwidth: LOW, messagesChat: false }";
    assert_sent(&[
        ("claimant", "ClaimantInput", object, "claimant", sent),
        ("claimant", "ClaimantInput", "{}", "claimant", json!({})),
        ("features", "FeaturesInput", features, "features_bandwidth", json!("low")),
        ("features", "FeaturesInput", features, "features_messages_chat_enable", json!(false)),
    ])
    .await;
}
