//! Memory for responses: bounded in total by `http.max_response_memory`, and in time by `http.send_timeout` for slow
//! readers.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::support::{
    Call, Events, FinishedRun, Gateway, GatewayResponse, RequestForm, Socket, TIMEOUT, Upstream,
    UpstreamResponse, id, memory, program, raw,
};

const LARGE: usize = 200_000;

/// A little less than the default of `limits.answer`.
const ALIASES: usize = 40;

const MIB: f64 = 1_048_576.0;

async fn large_upstream() -> Upstream {
    Upstream::answering(|call| {
        let id = call.path.split('/').nth(4).unwrap_or_default();
        UpstreamResponse::json(200, &json!({ "data": { "id": id, "reference": "x".repeat(LARGE) } }))
    })
    .await
}

/// An operation with an answer of `count` × 200 KB.
fn large(operation: &str, count: usize) -> String {
    let fields = (0..count).map(|n| format!("a{n}: reference ")).collect::<String>();
    format!("{operation}(id: {:?}) {{ {fields} }}", id(1))
}

fn query(count: usize) -> String {
    format!("{{ {} }}", large("appointment", count))
}

/// A connection with a small buffer, so that a reader that stops is soon noticed.
async fn connect(gateway: &Gateway) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(gateway.address().parse().unwrap()).await.unwrap()
}

/// Asks over a connection of its own. Returns the connection, and the part of the response in its first packet.
async fn ask(gateway: &Gateway, headers: &str, query: &str) -> (TcpStream, String) {
    let mut stream = connect(gateway).await;
    let headers = format!("Authorization: Bearer {}\r\n{headers}", gateway.secret("token"));
    stream.write_all(raw::post(&headers, &raw::query(query)).as_bytes()).await.unwrap();
    let mut beginning = [0; 1024];
    let length = timeout(TIMEOUT, stream.read(&mut beginning)).await.expect("an answer").unwrap();
    (stream, String::from_utf8_lossy(&beginning[..length]).into_owned())
}

async fn response_memory(gateway: &Gateway) -> f64 {
    gateway.metrics().await["gateway_response_memory_bytes"]
}

/// Waits until answers take no more than `bytes`.
async fn until_response_memory(gateway: &Gateway, bytes: f64) {
    let is_so = async {
        while response_memory(gateway).await > bytes {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, is_so).await.expect("the memory is released");
}

#[tokio::test]
async fn unread_responses_are_bounded_and_excess_is_shed() {
    let upstream = large_upstream().await;
    let settings = [("http.max_response_memory", "32MiB"), ("cache.answers_size", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.query(Some("token"), &query(1)).await;
    let before = memory(&gateway);
    let (mut held, mut shed) = (Vec::new(), 0);
    for _ in 0..12 {
        let (stream, beginning) = ask(&gateway, "", &query(ALIASES)).await;
        if beginning.starts_with("HTTP/1.1 200") {
            held.push(stream);
        } else {
            assert!(beginning.starts_with("HTTP/1.1 503"), "{beginning}");
            assert!(beginning.contains("retry-after: 1\r\n"), "{beginning}");
            assert!(
                beginning.contains(r#""limit":"http.max_response_memory","maximum":33554432"#),
                "{beginning}"
            );
            assert!(beginning.contains("OVERLOADED"), "{beginning}");
            shed += 1;
        }
    }
    assert_eq!((held.len(), shed), (4, 8));
    let reserved = response_memory(&gateway).await;
    assert!((4.0 * 7.6 * MIB..=32.0 * MIB).contains(&reserved), "{reserved}");
    assert_eq!(gateway.rejections("http.max_response_memory").await, 8.0);
    let more = memory(&gateway).saturating_sub(before);
    assert!(more < 64 << 10, "{more} KiB");

    // On the other transports as well.
    let is_shed = |answer: &Value| {
        assert_eq!(answer["data"], Value::Null);
        assert_eq!(answer["errors"][0]["extensions"]["limit"], json!("http.max_response_memory"), "{answer}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], json!("OVERLOADED"), "{answer}");
    };
    is_shed(&Events::open(&gateway, "token", &query(ALIASES)).await.next().await);
    let mut socket = Socket::connect(&gateway, "token").await;
    for (operation, root) in [("query", "appointment"), ("subscription", "appointmentChanged")] {
        socket.subscribe(operation, &format!("{operation} {{ {} }}", large(root, ALIASES))).await;
        let message = socket.receive().await;
        assert_eq!(message["type"], json!("next"));
        is_shed(&message["payload"]);
        if operation == "query" {
            assert_eq!(socket.receive().await["type"], json!("complete"));
        }
    }

    drop((held, socket));
    until_response_memory(&gateway, 0.0).await;
    let reply = gateway.query(Some("token"), &query(ALIASES)).await;
    assert_eq!((reply.status, reply.body.get("errors")), (200, None));
}

#[tokio::test]
async fn a_change_without_memory_for_its_response_is_not_sent() {
    let upstream = large_upstream().await;
    let settings =
        [("http.max_response_memory", "7817KiB"), ("cache.answers_size", "0"), ("limits.answer", "7817KiB")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let (held, beginning) = ask(&gateway, "", &query(ALIASES)).await;
    assert!(beginning.starts_with("HTTP/1.1 200"), "{beginning}");
    // The rest is less than a step.
    let reply = gateway.query(Some("token"), &format!("mutation {{ {} }}", cancel("id"))).await;
    assert_eq!(reply.codes(), ["OVERLOADED"], "{reply:?}");
    assert_eq!(reply.body["errors"][0]["path"], json!(["cancelAppointment"]));
    assert_eq!(reply.body["errors"][0]["extensions"]["limit"], json!("http.max_response_memory"));
    assert_eq!(upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change()).count()), 0);
    drop(held);
    until_response_memory(&gateway, 0.0).await;
    let reply = gateway.query(Some("token"), &format!("mutation {{ {} }}", cancel("id"))).await;
    assert_eq!(reply.payload()["appointment"]["id"], json!(id(1)));
}

fn cancel(fields: &str) -> String {
    format!("cancelAppointment(id: {:?}) {{ appointment {{ {fields} }} userErrors {{ message }} }}", id(1))
}

#[tokio::test]
async fn a_change_that_was_made_says_so_where_memory_runs_out() {
    let upstream = large_upstream().await;
    let settings = [("http.max_response_memory", "8MiB"), ("cache.answers_size", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let (held, beginning) = ask(&gateway, "", &query(38)).await;
    assert!(beginning.starts_with("HTTP/1.1 200"), "{beginning}");
    let fields = (0..10).map(|n| format!("a{n}: reference ")).collect::<String>();
    let reply = gateway.query(Some("token"), &format!("mutation {{ {} }}", cancel(&fields))).await;
    assert_eq!(reply.status, 294);
    assert_eq!(reply.body["data"], json!({ "cancelAppointment": { "appointment": null, "userErrors": [] } }));
    assert_eq!(
        reply.paths_and_codes(),
        [("[\"cancelAppointment\",\"appointment\"]".to_owned(), "OVERLOADED")]
    );
    assert!(reply.body["errors"][0]["message"].as_str().unwrap().contains("change was applied"));
    assert_eq!(upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change()).count()), 1);
    drop(held);
    until_response_memory(&gateway, 0.0).await;
}

#[tokio::test]
async fn cached_responses_count_once_until_evicted() {
    let upstream = Upstream::answering(|call: &Call| {
        let length = if call.is_change() { 10 } else { LARGE };
        let id = call.path.split('/').nth(4).unwrap_or_default();
        // It can be compressed, but not to nothing.
        let text = (0..length).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect::<String>();
        UpstreamResponse::json(200, &json!({ "data": { "id": id, "reference": text } }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "10m")]).await;
    let cached = async || gateway.metrics().await["gateway_cache_entries{cache=\"answers\"}"];
    for _ in 0..5 {
        RequestForm::POST.ask(&gateway, "token", &query(30)).await;
    }
    let plain = 30.0 * LARGE as f64;
    until_response_memory(&gateway, plain + 1000.0).await;
    assert!(response_memory(&gateway).await >= plain);
    // A compressed variant beside it.
    for _ in 0..5 {
        RequestForm::POST.taking("gzip").ask(&gateway, "token", &query(30)).await;
    }
    assert_eq!(cached().await, 2.0);
    until_response_memory(&gateway, 1.5 * plain).await;
    let compressed = response_memory(&gateway).await - plain;
    assert!(compressed > 1000.0, "{compressed}");
    // A hit that is not read holds nothing more.
    let hits = gateway.response_cache_lookups().await.0;
    let before = response_memory(&gateway).await;
    let (held, _) = ask(&gateway, "", &query(30)).await;
    assert_eq!(gateway.response_cache_lookups().await.0, hits + 1.0);
    assert_eq!(response_memory(&gateway).await, before);
    // A change ends the answer; the copy that is being read stays. The compressed variant stays until its room is needed.
    gateway.query(Some("token"), &format!("mutation {{ {} }}", cancel("id"))).await;
    assert_eq!(RequestForm::POST.ask(&gateway, "token", &query(30)).await.body.to_string().len() / 1000, 0);
    until_response_memory(&gateway, plain + compressed + 20_000.0).await;
    assert!(response_memory(&gateway).await >= plain);
    drop(held);
    // The cache frees its entries as it is used.
    for n in 0..300 {
        gateway.query(Some("token"), &format!("{{ appointment(id: {:?}) {{ id }} }} # {n}", id(1))).await;
    }
    until_response_memory(&gateway, compressed + 100_000.0).await;
}

/// Reads a little at a time until the gateway has cut off `count` clients, and then the rest. Returns the length.
async fn trickle(gateway: &Gateway, stream: &mut TcpStream, count: f64) -> usize {
    let mut length = 0;
    let reading = async {
        let mut piece = vec![0; 3000];
        while gateway.rejections("http.send_timeout").await < count {
            length += stream.read(&mut piece).await.unwrap_or_default();
            sleep(Duration::from_millis(20)).await;
        }
        piece.resize(1 << 20, 0);
        // It may end with a reset.
        while let Ok(more @ 1..) = stream.read(&mut piece).await {
            length += more;
        }
    };
    timeout(TIMEOUT, reading).await.expect("the connection is closed");
    length
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_cut_off() {
    let upstream = large_upstream().await;
    let settings = [("http.send_timeout", "1s"), ("live.keep_alive", "1h"), ("cache.answers_size", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let whole = ALIASES * LARGE;
    let mut cut_off = 0.0;
    let mut assert_cut_off = async |stream: &mut TcpStream| {
        cut_off += 1.0;
        assert!(trickle(&gateway, stream, cut_off).await < whole);
        assert_eq!(gateway.rejections("http.send_timeout").await, cut_off);
    };
    let (mut stream, _) = ask(&gateway, "", &query(ALIASES)).await;
    assert_cut_off(&mut stream).await;
    // On both kinds of streams, for all operations.
    for operation in [query(ALIASES), format!("subscription {{ {} }}", large("appointmentChanged", ALIASES))]
    {
        let (mut stream, _) = ask_for_events(&gateway, &operation).await;
        assert_cut_off(&mut stream).await;
        let mut socket = Socket::connect(&gateway, "token").await;
        socket.subscribe("1", &operation).await;
        assert_cut_off(&mut socket.into_stream()).await;
    }
    assert_eq!(gateway.rejections("http.write_timeout").await, 0.0);
    until_response_memory(&gateway, 0.0).await;

    // A client that reads is served whole.
    let reply = gateway.query(Some("token"), &query(ALIASES)).await;
    assert_eq!(reply.body["data"]["appointment"].as_object().unwrap().len(), ALIASES);
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query(ALIASES)).await;
    let message = socket.receive().await;
    assert_eq!(message["payload"]["data"]["appointment"].as_object().unwrap().len(), ALIASES);
}

/// The same for an event stream.
async fn ask_for_events(gateway: &Gateway, query: &str) -> (TcpStream, String) {
    let mut stream = connect(gateway).await;
    let headers = format!("Authorization: Bearer {}\r\n", gateway.secret("token"));
    let request = raw::post(&headers, &raw::query(query));
    let request = request.replace("application/graphql-response+json", "text/event-stream");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut beginning = [0; 1024];
    let length = timeout(TIMEOUT, stream.read(&mut beginning)).await.expect("an answer").unwrap();
    (stream, String::from_utf8_lossy(&beginning[..length]).into_owned())
}

#[tokio::test]
async fn each_event_of_a_stream_has_the_time_for_itself() {
    let upstream = Upstream::answering(|call| {
        let reference = call.nth.to_string().repeat(LARGE / call.nth.to_string().len());
        UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": reference } }))
    })
    .await;
    let settings =
        [("http.send_timeout", "2s"), ("live.fast_interval", "20ms"), ("live.slow_interval", "20ms")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let operation = format!("subscription {{ {} }}", large("appointmentChanged", 10));
    let (mut stream, _) = ask_for_events(&gateway, &operation).await;
    // For longer than one event may take, there is always another one to be sent.
    let (begin, mut piece, mut length) = (Instant::now(), vec![0; 32 * 1024], 0);
    while begin.elapsed() < Duration::from_secs(5) {
        let count = timeout(TIMEOUT, stream.read(&mut piece)).await.expect("more").unwrap();
        assert!(count > 0, "the stream goes on");
        length += count;
        sleep(Duration::from_millis(2)).await;
    }
    assert!(length > 2 * 10 * LARGE, "{length} bytes");
    assert_eq!(gateway.rejections("http.send_timeout").await, 0.0);
}

#[tokio::test]
async fn the_cache_must_leave_room_for_a_response() {
    let settings = [("cache.answers_size", "60MiB"), ("limits.answer", "5MiB")];
    let with = |memory| [settings[0], settings[1], ("http.max_response_memory", memory)];
    let ended = FinishedRun::of(program(&["check"], &with("64MiB"))).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for key in ["http.max_response_memory", "cache.answers_size", "limits.answer"] {
        assert!(ended.stderr.contains(key), "{ended:?}");
    }
    assert_eq!(FinishedRun::of(program(&["check"], &with("65MiB"))).await.code, Some(0));
    // An appointment that is read and cannot be served is hardly meant.
    let ended = FinishedRun::of(program(&["check"], &[("limits.answer", "64KiB")])).await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("limits.answer is below upstream.max_response"), "{ended:?}");
}

#[tokio::test]
async fn many_small_responses_release_their_memory() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.answers_size", "0")]).await;
    for way in RequestForm::EACH {
        way.ask(&gateway, "token", "{ __typename }").await;
        way.ask(&gateway, "token", "{ nothing }").await;
        way.ask(&gateway, "token", &query(1)).await;
    }
    let mut events = Events::open(&gateway, "token", "{ __typename }").await;
    events.next().await;
    events.completed().await;
    GatewayResponse::of(Events::request(&gateway, "token", "{")).await;
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", "{ __typename }").await;
    socket.receive().await;
    socket.receive().await;
    until_response_memory(&gateway, 0.0).await;
}
