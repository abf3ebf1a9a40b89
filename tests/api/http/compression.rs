//! Compression: negotiated, used where it saves bytes, and without effect on the content.

use futures_util::future::join_all;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::support::{Events, Gateway, RequestForm, Upstream, decoded, id, ids};

const LONG: (&str, &str) = ("cache.ttl", "10m");

/// About seven kilobytes.
fn long() -> String {
    format!(
        "{{ appointmentsByIds(ids: {:?}) {{ id reference status claimant {{ name phoneNumber email data {{ name value }} }} \
         meeting {{ roomName roomUrl }} }} }}",
        ids(0..20)
    )
}

/// About three hundred bytes: too short to be compressed for one answer.
fn middling() -> String {
    format!(
        "{{ appointment(id: {:?}) {{ id reference status claimant {{ name phoneNumber email dateOfBirth }} \
         meeting {{ roomName roomUrl }} }} }}",
        id(1)
    )
}

/// More than is compressed by the threads that serve.
fn very_long() -> String {
    let fields = (0..48).map(|n| format!("a{n}: reference ")).collect::<String>();
    format!("{{ appointmentsByIds(ids: {:?}) {{ id {fields} }} }}", ids(0..100))
}

/// How many answers the gateway keeps.
async fn kept(gateway: &Gateway) -> f64 {
    gateway.metrics().await["gateway_cache_entries{cache=\"answers\"}"]
}

/// Headers, and the body as it was sent.
async fn sent(gateway: &Gateway, way: RequestForm, query: &str) -> (HeaderMap, Vec<u8>) {
    let response = way.request(gateway, Some("token"), query).send().await.unwrap();
    let headers = response.headers().clone();
    (headers, response.bytes().await.unwrap().to_vec())
}

fn coding(headers: &HeaderMap) -> Option<&str> {
    headers.get("content-encoding").map(|coding| coding.to_str().unwrap())
}

/// The value of `Vary`. Clients may store the response to a GET.
fn vary(way: RequestForm) -> &'static str {
    if way.is_get { "Authorization, Accept, Accept-Encoding, Origin" } else { "accept-encoding" }
}

fn json(headers: &HeaderMap, body: &[u8]) -> Value {
    assert_eq!(headers["content-length"], body.len().to_string());
    serde_json::from_slice(&decoded(headers, body)).unwrap()
}

#[tokio::test]
async fn large_responses_are_compressed_better_when_repeated() {
    let upstream = Upstream::start().await;
    for way in [RequestForm::POST, RequestForm::GET] {
        for takes in ["br", "gzip"] {
            let gateway = Gateway::before(upstream.url(), &[LONG]).await;
            let way = way.taking(takes);
            let (first, second, third) = (
                sent(&gateway, way, &long()).await,
                sent(&gateway, way, &long()).await,
                sent(&gateway, way, &long()).await,
            );
            let plain = sent(&gateway, way.taking(""), &long()).await;
            assert_eq!(coding(&plain.0), None);
            for (headers, body) in [&first, &second, &third] {
                assert_eq!(coding(headers), Some(takes));
                assert_eq!(headers["vary"], vary(way));
                assert_eq!(json(headers, body), json(&plain.0, &plain.1));
            }
            assert_eq!(plain.0["vary"], vary(way));
            assert!(first.1.len() < plain.1.len() / 2 && second.1.len() < first.1.len(), "{takes}");
            assert_eq!(second.1, third.1, "{takes}");
            assert_eq!(gateway.response_cache_lookups().await, (3.0, 1.0));
            assert_eq!(kept(&gateway).await, 2.0, "plain and compressed");
        }
    }
}

#[tokio::test]
async fn medium_responses_are_compressed_when_repeated() {
    let upstream = Upstream::start().await;
    for takes in ["br", "gzip"] {
        let gateway = Gateway::before(upstream.url(), &[LONG]).await;
        let first = sent(&gateway, RequestForm::POST.taking(takes), &middling()).await;
        let second = sent(&gateway, RequestForm::POST.taking(takes), &middling()).await;
        assert_eq!((coding(&first.0), coding(&second.0)), (None, Some(takes)), "{}", first.1.len());
        assert!(second.1.len() < first.1.len());
        assert_eq!(json(&first.0, &first.1), json(&second.0, &second.1));
        assert_eq!(
            (&first.0["vary"], &second.0["vary"]),
            (&"accept-encoding".parse().unwrap(), &first.0["vary"])
        );
    }
}

#[tokio::test]
async fn small_responses_are_not_compressed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG]).await;
    let short = format!("{{ appointment(id: {:?}) {{ status }} }}", id(1));
    for takes in ["br, gzip", "gzip", "", "br"] {
        let (headers, body) = sent(&gateway, RequestForm::POST.taking(takes), &short).await;
        assert_eq!((coding(&headers), headers.get("vary")), (None, None));
        assert_eq!(body, br#"{"data":{"appointment":{"status":"call 1"}}}"#);
    }
    assert_eq!(gateway.response_cache_lookups().await, (3.0, 1.0));
    assert_eq!(kept(&gateway).await, 1.0, "for all, whatever they take");
}

/// One request compresses the response. Concurrent requests get the same response uncompressed.
#[tokio::test]
async fn concurrent_requests_receive_the_same_compressed_response() {
    let upstream = Upstream::start().await;
    for query in [long(), very_long()] {
        let gateway = Gateway::before(upstream.url(), &[LONG]).await;
        let plain = sent(&gateway, RequestForm::POST, &query).await;
        for _ in 0..2 {
            let asked = (0..48).map(|n| ["br", "gzip", "", "br;q=0.5, gzip"][n % 4]);
            let sent_at_once =
                asked.clone().map(|takes| sent(&gateway, RequestForm::POST.taking(takes), &query));
            for (takes, (headers, body)) in asked.clone().zip(join_all(sent_at_once).await) {
                assert_eq!(json(&headers, &body), json(&plain.0, &plain.1), "{takes}");
                assert!(coding(&headers).is_none_or(|coding| takes.contains(coding)), "{takes}");
            }
        }
        for takes in ["br", "gzip"] {
            let (headers, _) = sent(&gateway, RequestForm::POST.taking(takes), &query).await;
            assert_eq!(coding(&headers), Some(takes));
        }
        assert_eq!(gateway.response_cache_lookups().await, (98.0, 1.0));
        assert_eq!(kept(&gateway).await, 3.0, "as it is, and in each coding");
    }
}

#[tokio::test]
async fn the_client_chooses_and_the_weights_count() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG]).await;
    let plain = sent(&gateway, RequestForm::POST, &long()).await;
    for (takes, expected) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip, deflate", Some("gzip")),
        ("br;q=0.1, gzip;q=0.2", Some("gzip")),
        ("br;q=0, *", Some("gzip")),
        ("*", Some("br")),
        ("identity", None),
        ("identity, br;q=0.5", None),
        ("identity;q=0, zstd", None),
        ("br;q=0, gzip;q=0", None),
        ("nonsense;;q=,,", None),
    ] {
        for _ in 0..3 {
            let (headers, body) = sent(&gateway, RequestForm::POST.taking(takes), &long()).await;
            assert_eq!(coding(&headers), expected, "{takes}");
            assert_eq!(json(&headers, &body), json(&plain.0, &plain.1), "{takes}");
        }
    }
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG, ("http.compression", "false")]).await;
    for _ in 0..4 {
        let (headers, body) = sent(&gateway, RequestForm::POST.taking("br, gzip"), &long()).await;
        assert_eq!((coding(&headers), headers.get("vary")), (None, None));
        json(&headers, &body);
    }
    // Then all share one answer.
    sent(&gateway, RequestForm::POST, &long()).await;
    assert_eq!(gateway.response_cache_lookups().await, (4.0, 1.0));
}

#[tokio::test]
async fn uncached_responses_are_compressed_each_time() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG, ("cache.answers_size", "0")]).await;
    let plain = sent(&gateway, RequestForm::POST, &long()).await;
    for takes in ["br", "gzip"] {
        let first = sent(&gateway, RequestForm::POST.taking(takes), &long()).await;
        let second = sent(&gateway, RequestForm::POST.taking(takes), &long()).await;
        assert_eq!((coding(&first.0), &first.1), (Some(takes), &second.1));
        assert_eq!(json(&first.0, &first.1), json(&plain.0, &plain.1));
        // Too short for that.
        assert_eq!(coding(&sent(&gateway, RequestForm::POST.taking(takes), &middling()).await.0), None);
    }
}

/// Large responses are compressed on a separate thread, with the same result.
#[tokio::test]
async fn very_long_responses_arrive_complete() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG]).await;
    let query = very_long();
    let plain = sent(&gateway, RequestForm::POST, &query).await;
    assert!(plain.1.len() > 64 * 1024, "{}", plain.1.len());
    for takes in ["br", "gzip"] {
        for _ in 0..3 {
            let (headers, body) = sent(&gateway, RequestForm::POST.taking(takes), &query).await;
            assert_eq!(coding(&headers), Some(takes));
            assert_eq!(json(&headers, &body), json(&plain.0, &plain.1));
        }
    }
}

#[tokio::test]
async fn events_are_not_compressed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG]).await;
    for _ in 0..3 {
        let request = Events::request(&gateway, "token", &long()).header("accept-encoding", "br, gzip");
        let response = request.send().await.unwrap();
        assert_eq!(coding(response.headers()), None);
        assert!(response.text().await.unwrap().starts_with("event: next\ndata: {"));
    }
}
