//! Token endpoints as they are: where they want the secret, what else they need, and how loosely they respond.

use serde_json::{Value, json};

use crate::support::{CLIENT_SECRET, Call, Gateway, KeyFile, Upstream, UpstreamResponse, canary, id};

/// An upstream whose token endpoint responds as `script` says.
async fn upstream(script: impl Fn(&Call) -> UpstreamResponse + Send + Sync + 'static) -> Upstream {
    let upstream = Upstream::with_tokens().await;
    upstream.on("token", script);
    upstream
}

/// A gateway with its token from `upstream`, and the key of a caller.
async fn gateway(upstream: &Upstream, settings: &[(&str, &str)]) -> (Gateway, KeyFile) {
    let keys = KeyFile::of(&["alice"]);
    let settings = [&[("callers.api_keys_file", keys.path())], settings].concat();
    (Gateway::of_service(upstream, &settings).await, keys)
}

/// A token response: a valid one with `members` replaced. Null removes a member.
fn response(members: &Value) -> Value {
    let token = canary::marked("service-1");
    let mut response = json!({ "access_token": token, "expires_in": 3600, "token_type": "Bearer" });
    for (name, value) in members.as_object().unwrap() {
        response[name] = value.clone();
    }
    response
}

/// Asserts that the token is used, and returns the log.
async fn served(answer: UpstreamResponse, what: &str) -> String {
    let upstream = upstream(move |_| answer.clone()).await;
    let (gateway, keys) = gateway(&upstream, &[]).await;
    let reply = gateway.appointment(keys.key(0), &id(1)).await;
    assert_eq!(reply.codes(), [""; 0], "{what}: {}", gateway.stderr());
    assert_eq!(reply.appointment()["reference"], "service-1", "{what}");
    assert_eq!(upstream.calls_for("token"), 1, "{what}");
    gateway.stderr()
}

/// Asserts that there is no token, and returns the log.
async fn unserved(answer: UpstreamResponse, what: &str) -> String {
    let upstream = upstream(move |_| answer.clone()).await;
    let (gateway, keys) = gateway(&upstream, &[("identity.retry_interval", "1h")]).await;
    let reply = gateway.appointment(keys.key(0), &id(1)).await;
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"], "{what}");
    let message = reply.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("The gateway could not get its own token"), "{message}");
    assert_eq!((upstream.calls_for("token"), upstream.calls_for_appointments()), (1, 0), "{what}");
    gateway.stderr()
}

#[tokio::test]
async fn the_lifetime_may_be_any_number_or_numeric_string() {
    for (text, lifetime) in [
        ("7200", 7200),
        ("7200.0", 7200),
        ("7200.75", 7200),
        ("7.2e3", 7200),
        ("72E+2", 7200),
        (r#""7200""#, 7200),
        (r#"" 7200 ""#, 7200),
        (r#""7200.5""#, 7200),
        (r#""7.2e3""#, 7200),
        // Longer than any token lives.
        ("99999999999999999999999", 365 * 86_400),
        ("1e300", 365 * 86_400),
        ("1e999", 365 * 86_400),
        // Not a lifetime, so the default applies.
        ("0", 300),
        ("-1", 300),
        ("null", 300),
    ] {
        let body = response(&json!({ "expires_in": 4711 })).to_string().replace("4711", text);
        let log = served(UpstreamResponse::text(200, "application/json", &body), text).await;
        assert!(log.contains(&format!("lifetime_s={lifetime}")), "{text}: {log}");
        assert!(!log.contains("were ignored"), "{text}: {log}");
    }
}

#[tokio::test]
async fn oddly_typed_members_are_ignored_and_named_in_the_log() {
    for (members, named) in [
        (json!({ "expires_in": "soon" }), "members=expires_in"),
        (json!({ "expires_in": "Infinity" }), "members=expires_in"),
        (json!({ "expires_in": "-inf" }), "members=expires_in"),
        (json!({ "expires_in": "NaN" }), "members=expires_in"),
        (json!({ "expires_in": [3600] }), "members=expires_in"),
        (json!({ "expires_in": { "seconds": 3600 } }), "members=expires_in"),
        (json!({ "expires_in": true }), "members=expires_in"),
        (json!({ "token_type": 1 }), "members=token_type"),
        (json!({ "token_type": ["Bearer"], "expires_in": "" }), "members=token_type, expires_in"),
    ] {
        let log = served(UpstreamResponse::json(200, &response(&members)), named).await;
        assert!(log.contains(named), "{named} in {log}");
    }
    for members in [
        json!({ "token_type": null }),
        json!({ "token_type": "" }),
        json!({ "token_type": "bearer" }),
        json!({ "token_type": "BEARER" }),
        json!({ "token_type": "BearerToken" }),
        json!({ "scope": ["read", "write"] }),
        json!({ "scope": 7, "refresh_token": 7, "id_token": {}, "expires_on": "never", "ext_expires_in": [] }),
    ] {
        let log = served(UpstreamResponse::json(200, &response(&members)), &members.to_string()).await;
        assert!(!log.contains("were ignored"), "{members}: {log}");
    }
}

#[tokio::test]
async fn the_body_decides_whether_it_holds_a_token() {
    let body = response(&json!({})).to_string();
    let marked = format!("\u{feff}{body}");
    let answers = [
        UpstreamResponse::text(200, "text/plain; charset=utf-8", &body),
        UpstreamResponse::text(200, "text/html", &body),
        UpstreamResponse::text(200, "application/jwt+json", &body),
        UpstreamResponse::text(200, "application/json", &marked),
        UpstreamResponse::text(201, "application/json", &body),
        UpstreamResponse::chunked(&body),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        served(answer, &format!("answer {n}")).await;
    }
}

#[tokio::test]
async fn the_log_names_the_member_at_fault() {
    let token = canary::marked("secret-token");
    for (body, named) in [
        (json!({ "token_type": "Bearer", "token": token }), "access_token is missing"),
        (json!({ "access_token": null }), "access_token is missing"),
        (json!({ "access_token": [token] }), "access_token is not a string"),
        (json!({ "access_token": { "value": token } }), "access_token is not a string"),
        (json!({ "access_token": 17 }), "access_token is not a string"),
        (json!({ "access_token": "" }), "access_token is empty"),
        (json!({ "access_token": format!("{token}\n") }), "access_token in its response has characters"),
        (json!({ "access_token": token, "token_type": "DPoP" }), "token_type in its response is not Bearer"),
        (json!([token]), "it is not a JSON object"),
        (json!(token), "it is not a JSON object"),
    ] {
        let answer = UpstreamResponse::text(200, "application/json", &body.to_string());
        let log = unserved(answer, named).await;
        assert!(log.contains(named) && !log.contains(&token), "{named} in {log}");
    }
    let log = unserved(UpstreamResponse::text(200, "application/json", "<html>"), "HTML").await;
    assert!(log.contains("it is not JSON"), "{log}");
}

#[tokio::test]
async fn the_log_names_the_error_of_the_token_endpoint() {
    for (status, body, named) in [
        (400, json!({ "error": "invalid_scope", "error_description": "planted" }), "(400, invalid_scope)"),
        (401, json!({ "error": "invalid_client" }), "(401, invalid_client)"),
        (400, json!({ "error": "planted" }), "(400)"),
        (403, json!({ "error": ["invalid_scope"] }), "(403)"),
    ] {
        let log = unserved(UpstreamResponse::json(status, &body), named).await;
        assert!(log.contains(named) && !log.contains("planted"), "{named} in {log}");
        for key in ["identity.client_id", "identity.auth_method", "identity.scope", "identity.parameters"] {
            assert!(log.contains(key), "{key} in {log}");
        }
    }
}

/// The form of a token request, in order.
fn form(call: &Call) -> Vec<(String, String)> {
    serde_urlencoded::from_str(&call.body).unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_secret_is_sent_in_the_header_or_in_the_form() {
    let basic = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("gateway:{CLIENT_SECRET}"),
    );
    let secrets = [("client_id", "gateway"), ("client_secret", CLIENT_SECRET)];
    for (method, header, secrets) in
        [("basic", Some(format!("Basic {basic}")), &[][..]), ("post", None, &secrets[..])]
    {
        let upstream = Upstream::with_tokens().await;
        let (gateway, keys) = gateway(&upstream, &[("identity.auth_method", method)]).await;
        let reply = gateway.appointment(keys.key(0), &id(1)).await;
        assert_eq!(reply.appointment()["reference"], "service-1", "{method}");
        let call = upstream.seen(|seen| seen.calls[0].clone());
        assert_eq!(call.header("authorization").map(str::to_owned), header, "{method}");
        let expected = pairs(&[&[("grant_type", "client_credentials")], secrets].concat());
        assert_eq!(form(&call), expected, "{method}");
    }
}

#[tokio::test]
async fn further_parameters_and_the_query_string_are_sent() {
    let upstream = Upstream::with_tokens().await;
    let token_url = format!("{}/oauth2/token?clientid=a%20b&x=", upstream.url());
    let settings = [
        ("identity.token_url", token_url.as_str()),
        ("identity.scope", "read"),
        ("identity.parameters", "audience=https%3A%2F%2Fapi.example%2F&resource=a+b&resource=c%26d=e&empty="),
    ];
    let (gateway, keys) = gateway(&upstream, &settings).await;
    let reply = gateway.appointment(keys.key(0), &id(1)).await;
    assert_eq!(reply.appointment()["reference"], "service-1");
    let call = upstream.seen(|seen| seen.calls[0].clone());
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/oauth2/token?clientid=a%20b&x="));
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "read"),
        ("audience", "https://api.example/"),
        ("resource", "a b"),
        ("resource", "c&d=e"),
        ("empty", ""),
    ];
    assert_eq!(form(&call), pairs(&expected));
}
