//! The requests to the upstream: address, headers, connection.

use serde_json::json;

use crate::support::{Call, Gateway, TlsUpstream, Upstream, id, ids, program, served};

#[tokio::test]
async fn a_call_is_a_get_with_only_the_token_and_the_request_id() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1));
    let reply = gateway
        .request(reqwest::Method::POST, "/graphql")
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("authorization", "bEARER  17|token.with~all-of+it/==")
        .header("cookie", "session=secret")
        .header("user-agent", "a-client/1.0")
        .header("x-forwarded-for", "192.0.2.1")
        .header("proxy-authorization", "Basic secret")
        .body(json!({ "query": query }).to_string());
    let reply = reply.send().await.unwrap();

    let call = upstream.seen(|seen| seen.calls[0].clone());
    assert_eq!(call.method, "GET");
    assert_eq!(call.path, format!("/api/v1/appointments/{}", id(1)));
    let mut headers = call.headers;
    headers.sort();
    let expected = [
        ("accept", "application/json"),
        ("authorization", "Bearer 17|token.with~all-of+it/=="),
        ("host", upstream.url().trim_start_matches("http://")),
        ("user-agent", concat!("appointments-gateway/", env!("CARGO_PKG_VERSION"))),
        ("x-request-id", reply.headers()["x-request-id"].to_str().unwrap()),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn the_path_is_added_to_that_of_the_base_address() {
    for base in ["/tenants/a%20b", "/tenants/a%20b/"] {
        let upstream = Upstream::start().await;
        let gateway = Gateway::before(&format!("{}{base}", upstream.url()), &[]).await;
        gateway.appointment("token", &id(1)).await;
        let path = upstream.seen(|seen| seen.calls[0].path.clone());
        assert_eq!(path, format!("/tenants/a%20b/api/v1/appointments/{}", id(1)));
    }
}

/// A proxy would see every token.
#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let (upstream, proxy) = (Upstream::start().await, Upstream::start().await);
    let mut command = program(&["serve"], &[("upstream.url", upstream.url())]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, proxy.url());
    }
    let gateway = Gateway::of(command).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    assert_eq!((upstream.calls(), proxy.calls()), (1, 0));
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for n in 0..10 {
        // Of whichever caller: the token is in the request, not in the connection.
        gateway.appointment(&format!("token-{n}"), &id(n)).await;
    }
    assert_eq!(upstream.seen(|seen| (seen.calls.len(), seen.connections)), (10, 1));
}

#[tokio::test]
async fn connections_closed_by_the_upstream_are_not_reused() {
    let upstream = Upstream::answering(|call: &Call| call.appointment().with("Connection", "close")).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for n in 0..5 {
        assert_eq!(gateway.appointment("token", &id(n)).await.codes(), [""; 0]);
    }
    assert_eq!(upstream.seen(|seen| (seen.calls.len(), seen.connections)), (5, 5));
}

#[tokio::test]
async fn http2_upstreams_receive_many_calls_over_one_connection() {
    let upstream = TlsUpstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.ca_file", upstream.ca_file())]).await;
    // The first call makes the connection, the others find it.
    gateway.appointment("token", &id(0)).await;
    let reply = gateway.appointments("token", &ids(0..40)).await;
    let expected = (0..40).map(|n| served(&id(n), "token", 1)).collect::<Vec<_>>();
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": expected } }));
    assert_eq!(upstream.requests(), vec![hyper::Version::HTTP_2; 40]);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn certificates_of_unknown_authorities_are_rejected() {
    let upstream = TlsUpstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.appointment("token", &id(1)).await;
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"]);
    assert_eq!(upstream.requests(), [], "no token is sent to who cannot say who it is");
}
