//! The memory of automatic persisted queries: bounded, with a share for each caller, and closed to made-up tokens.

use std::time::Instant;

use serde_json::json;

use crate::support::{
    Gateway, RawConnection, Upstream, UpstreamResponse, memory,
    persisted_query::{RequestTransport, by_hash, registering},
};

/// Half of the documents' memory holds texts: 32 KiB, of which each caller has 10 percent for certain.
const SMALL: [(&str, &str); 3] =
    [("graphql.documents_size", "64KiB"), ("cache.caller_share", "10"), ("rate_limit.per_second", "0")];
const TEXTS: f64 = 32.0 * 1024.0;

/// Texts that any caller may use.
fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("query {prefix}{n} {{ appointments(first: 1) {{ totalCount }} }}")).collect()
}

/// An upstream that accepts all tokens but those that begin with `made-up`.
async fn upstream() -> Upstream {
    Upstream::answering(|call| {
        if call.token().starts_with("made-up") {
            return UpstreamResponse::status(401);
        }
        UpstreamResponse::json(200, &json!({ "data": [], "meta": { "total": 0 } }))
    })
    .await
}

/// The number of registered texts and their size.
async fn held(gateway: &Gateway) -> (f64, f64) {
    let metrics = gateway.metrics().await;
    let gauge = |name: &str| metrics[&format!("gateway_cache_{name}{{cache=\"persisted_queries\"}}")];
    (gauge("entries"), gauge("size_bytes"))
}

async fn known(gateway: &Gateway, token: &str, texts: &[String]) -> usize {
    let mut known = 0;
    for text in texts {
        known += usize::from(gateway.knows(token, text).await);
    }
    known
}

#[tokio::test]
async fn made_up_tokens_evict_nothing() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    let app = texts("App", 20);
    for text in &app {
        gateway.register("token", text).await;
    }
    let before = held(&gateway).await;
    assert_eq!(before.0, 20.0);
    for (n, text) in texts("Flood", 300).iter().enumerate() {
        RequestTransport::Post.send(&gateway, &format!("made-up-{n}"), &registering(text)).await;
        // Without a token as well.
        RequestTransport::Post.send(&gateway, "", &registering(&format!("{text} "))).await;
    }
    assert_eq!(held(&gateway).await, before);
    assert_eq!(known(&gateway, "token", &app).await, 20);
}

#[tokio::test]
async fn a_busy_caller_evicts_only_its_own_texts() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    let (app, flood) = (texts("App", 3), texts("Flood", 200));
    for text in &app {
        gateway.register("quiet", text).await;
    }
    for text in &flood {
        gateway.register("busy", text).await;
    }
    assert_eq!(known(&gateway, "quiet", &app).await, 3);
    let (entries, bytes) = held(&gateway).await;
    assert!(entries > 20.0 && bytes > 0.9 * TEXTS && bytes <= TEXTS, "{entries} {bytes}");
    assert!(gateway.knows("busy", &flood[199]).await && !gateway.knows("busy", &flood[0]).await);
}

#[tokio::test]
async fn an_evicted_text_can_be_registered_again() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    let text = &texts("App", 1)[0];
    // Byte-equal requests, which the response cache must not answer in place of the registration.
    for round in 0..3 {
        gateway.register("token", text).await;
        assert!(gateway.knows("token", text).await, "{round}");
        for other in texts(&format!("Other{round}x"), 100) {
            gateway.register("token", &other).await;
        }
        assert!(!gateway.knows("other", text).await, "{round}");
    }
}

/// `HASHES` sends more of them. With `--nocapture`, the test reports the memory.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "a measurement, shown with --nocapture")]
async fn random_hashes_take_no_memory_and_evict_nothing() {
    let upstream = upstream().await;
    let settings = [SMALL.as_slice(), &[("log.level", "off")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let app = texts("App", 20);
    for text in &app {
        gateway.register("token", text).await;
    }
    let (before, calls) = (held(&gateway).await, upstream.calls());
    let (began, start) = (Instant::now(), memory(&gateway));
    let hashes = std::env::var("HASHES").map_or(15_000, |number| number.parse().unwrap());
    let batches = hashes / BATCH;
    let mut connection = RawConnection::connect(&gateway).await;
    let mut warm = 0;
    for batch in 0..batches {
        if batch == batches / 5 {
            warm = memory(&gateway);
        }
        let requests = (0..BATCH).map(|n| request(&format!("{batch}-{n}"))).collect::<String>();
        connection.send(requests).await.unwrap();
        let first = connection.reply().await;
        for _ in 1..BATCH {
            let reply = connection.reply().await;
            assert_eq!((reply.status, &reply.body), (first.status, &first.body));
        }
        let first = first.parsed();
        assert_eq!(first.rejected(200, "PERSISTED_QUERY_NOT_FOUND"), "PersistedQueryNotFound");
    }
    // The overhead of a text for each of the 12,000 hashes since would be 8 MiB.
    let end = memory(&gateway);
    println!(
        "{} hashes in {:.0?}: {start} KiB before, {warm} KiB after a fifth of them, {end} KiB at the end",
        batches * BATCH,
        began.elapsed()
    );
    let growth = end.saturating_sub(warm);
    assert!(growth < 4096, "{growth} KiB");
    assert_eq!(held(&gateway).await, before);
    assert_eq!(upstream.calls(), calls);
    assert_eq!(known(&gateway, "token", &app).await, 20);
}

/// Few enough requests to be sent at once.
const BATCH: usize = 50;

/// A GET for a text that nobody has registered, with a token of its own.
fn request(name: &str) -> String {
    let extensions = by_hash(name)["extensions"].to_string();
    let query = serde_urlencoded::to_string([("extensions", extensions)]).unwrap();
    format!(
        "GET /graphql?{query} HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n\
         Authorization: Bearer made-up-{name}\r\n\r\n"
    )
}
