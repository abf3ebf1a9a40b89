//! The cost of frames: unfinished messages, messages before a valid token, and floods.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::websocket::ALL;
use crate::support::{Gateway, KeyFile, Socket, TIMEOUT, Upstream, peak_memory};

const TEXT: u8 = 0x01;
const CONTINUATION: u8 = 0x00;
const FINAL: u8 = 0x80;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame as a client sends it, with a mask of zeros: of `length`, of which `payload` is the beginning.
fn part(first: u8, length: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 126];
    match u8::try_from(length).ok().filter(|length| *length < 126) {
        Some(length) => bytes[1] = 0x80 | length,
        None => bytes.extend(u16::try_from(length).unwrap().to_be_bytes()),
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    part(first, payload.len(), payload)
}

/// Reads one frame of the gateway.
async fn read(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let reading = async {
        let first = stream.read_u8().await.unwrap();
        let length = match stream.read_u8().await.unwrap() {
            126 => usize::from(stream.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    };
    timeout(TIMEOUT, reading).await.expect("a frame in time")
}

/// Waits until everything that was sent has been read: a ping is answered in its turn.
async fn settle(stream: &mut TcpStream) {
    stream.write_all(&frame(PING, b"settled?")).await.unwrap();
    while read(stream).await != (PONG, b"settled?".to_vec()) {}
}

/// The code that the gateway closes with.
async fn closed(stream: &mut TcpStream) -> u16 {
    loop {
        if let (0x88, reason) = read(stream).await {
            assert!(reason.len() > 2, "there is a reason");
            return u16::from_be_bytes([reason[0], reason[1]]);
        }
    }
}

/// A message of the protocol with `length` bytes that gets no answer.
fn pong(length: usize) -> Message {
    let empty = json!({ "type": "pong", "payload": { "a": "" } }).to_string().len();
    Message::text(json!({ "type": "pong", "payload": { "a": "x".repeat(length - empty) } }).to_string())
}

async fn acknowledged(gateway: &Gateway, payload: Value) -> Socket {
    let mut socket = Socket::open(gateway).await;
    socket.send_message(json!({ "type": "connection_init", "payload": payload })).await;
    assert_eq!(socket.receive().await, json!({ "type": "connection_ack" }));
    socket
}

async fn assert_alive(socket: &mut Socket) {
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong" }));
}

#[tokio::test]
async fn a_message_has_to_end_within_the_message_timeout() {
    let gateway = Gateway::on_sandbox(&[("websocket.message_timeout", "300ms")]).await;
    for bytes in [
        // Half a header; a frame without its payload; a fragment without the others.
        frame(FINAL | TEXT, b"{}")[..1].to_vec(),
        part(FINAL | TEXT, 1000, b"{"),
        frame(TEXT, b"{"),
        frame(PING, b"12345678")[..10].to_vec(),
    ] {
        for is_begun in [false, true] {
            let socket =
                if is_begun { Socket::connect(&gateway, ALL).await } else { Socket::open(&gateway).await };
            let mut stream = socket.into_stream();
            stream.write_all(&bytes).await.unwrap();
            assert_eq!(closed(&mut stream).await, 4408, "{bytes:?}");
        }
    }
    assert_eq!(gateway.rejections("websocket.message_timeout").await, 8.0);
}

#[tokio::test]
async fn a_message_that_trickles_in_gets_no_new_clock() {
    let gateway = Gateway::on_sandbox(&[("websocket.message_timeout", "500ms")]).await;
    let one_frame = [part(FINAL | TEXT, 60_000, b""), vec![b' '; 60_000]].concat();
    let pings =
        frame(PING, b"").into_iter().chain(frame(CONTINUATION, b" ")).collect::<Vec<_>>().repeat(1000);
    let fragments = [frame(TEXT, b"{"), pings].concat();
    for (bytes, step) in [(one_frame, 1), (fragments, 13)] {
        let stream = Socket::connect(&gateway, ALL).await.into_stream();
        let (mut reader, mut writer) = stream.into_split();
        let trickling = tokio::spawn(async move {
            for step in bytes.chunks(step) {
                if writer.write_all(step).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let mut received = Vec::new();
        timeout(TIMEOUT, reader.read_to_end(&mut received)).await.expect("an end").unwrap();
        trickling.abort();
        assert!(received.windows(2).any(|code| code == 4408_u16.to_be_bytes()), "{received:?}");
    }
    assert_eq!(gateway.rejections("websocket.message_timeout").await, 2.0);
}

#[tokio::test]
async fn messages_are_small_until_a_token_is_accepted() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice"]);
    let limits = [("websocket.init_max_message", "1KiB"), ("websocket.max_message", "8KiB")];
    let service = [&limits[..], &[("callers.api_keys_file", keys.path())]].concat();
    let token = |token: &str| json!({ "Authorization": format!("Bearer {token}") });
    for (gateway, valid, invalid) in [
        (Gateway::before(upstream.url(), &limits).await, token("anything"), Value::Null),
        (Gateway::of_service(&upstream, &service).await, token(keys.key(0)), token("unknown")),
    ] {
        let mut others = vec![Socket::open(&gateway).await];
        for payload in [Value::Null, invalid] {
            others.push(acknowledged(&gateway, payload).await);
        }
        for mut socket in others {
            socket.send(pong(1024)).await;
            assert_alive(&mut socket).await;
            socket.send(pong(1025)).await;
            assert_eq!(socket.closed().await.0, 1009);
        }
        assert_eq!(gateway.rejections("websocket.init_max_message").await, 3.0);

        let mut socket = acknowledged(&gateway, valid).await;
        socket.send(pong(8 * 1024)).await;
        assert_alive(&mut socket).await;
        socket.send(pong(8 * 1024 + 1)).await;
        assert_eq!(socket.closed().await.0, 1009);
        assert_eq!(gateway.rejections("websocket.max_message").await, 1.0);
    }
}

#[tokio::test]
async fn fragments_add_up_to_one_message() {
    let gateway = Gateway::on_sandbox(&[("websocket.init_max_message", "1KiB")]).await;
    let mut stream = Socket::open(&gateway).await.into_stream();
    stream
        .write_all(&[frame(TEXT, &[b' '; 1000]), frame(PING, b""), frame(CONTINUATION, &[b' '; 25])].concat())
        .await
        .unwrap();
    assert_eq!(closed(&mut stream).await, 1009);
    // A frame is refused by its header.
    let mut stream = Socket::open(&gateway).await.into_stream();
    stream.write_all(&part(FINAL | TEXT, 1025, b"")).await.unwrap();
    assert_eq!(closed(&mut stream).await, 1009);
}

#[tokio::test]
async fn frames_beyond_the_rate_wait_and_none_is_lost() {
    let gateway = Gateway::on_sandbox(&[("websocket.messages_per_second", "50")]).await;
    let message = br#"{"type":"pong"}"#;
    let whole = frame(FINAL | TEXT, message);
    let last = message.len() - 1;
    let fragments: Vec<_> = message
        .iter()
        .enumerate()
        .flat_map(|(n, byte)| {
            let kind = if n == 0 { TEXT } else { CONTINUATION };
            frame(if n == last { FINAL | kind } else { kind }, &[*byte])
        })
        .collect();
    for (sent, times) in [(frame(PING, b"x"), 150), (frame(PONG, b""), 150), (whole, 150), (fragments, 10)] {
        let mut stream = Socket::open(&gateway).await.into_stream();
        settle(&mut stream).await;
        let start = Instant::now();
        stream.write_all(&sent.repeat(times)).await.unwrap();
        settle(&mut stream).await;
        // 50 at once, and then 50 a second.
        assert!(start.elapsed() > Duration::from_millis(1900), "{sent:?}: {:?}", start.elapsed());
    }
    assert!(gateway.rejections("websocket.messages_per_second").await >= 4.0);
}

#[tokio::test]
async fn a_message_of_very_many_fragments_costs_little() {
    let gateway = Gateway::on_sandbox(&[("websocket.message_timeout", "1s")]).await;
    let before = peak_memory(&gateway);
    let stream = Socket::connect(&gateway, ALL).await.into_stream();
    let (mut reader, mut writer) = stream.into_split();
    let flood = [frame(TEXT, b"{"), frame(CONTINUATION, b" ").repeat(100_000)].concat();
    let flooding = tokio::spawn(async move {
        let _ = writer.write_all(&flood).await;
    });
    let mut received = Vec::new();
    // The rest of the flood may meet a reset.
    let _ = timeout(TIMEOUT, reader.read_to_end(&mut received)).await.expect("an end");
    flooding.abort();
    assert_eq!(gateway.rejections("websocket.message_timeout").await, 1.0);
    assert!(peak_memory(&gateway) - before < 8 << 10);
}

#[tokio::test]
async fn unfinished_messages_of_all_sockets_share_a_bound() {
    let gateway = Gateway::on_sandbox(&[("websocket.max_partial", "48KiB")]).await;
    let mut holding = Vec::new();
    let fragment = frame(TEXT, &[b' '; 15_000]);
    // Each counts without the 4 KiB that any socket has.
    for _ in 0..4 {
        let mut stream = Socket::open(&gateway).await.into_stream();
        stream.write_all(&fragment).await.unwrap();
        settle(&mut stream).await;
        holding.push(stream);
    }
    let mut one_more = Socket::open(&gateway).await.into_stream();
    one_more.write_all(&fragment).await.unwrap();
    assert_eq!(closed(&mut one_more).await, 1013);
    assert_eq!(gateway.rejections("websocket.max_partial").await, 1.0);
    // Small messages need no room, and those that end make room.
    let mut small = Socket::open(&gateway).await.into_stream();
    small.write_all(&frame(TEXT, &[b' '; 4000])).await.unwrap();
    settle(&mut small).await;
    holding[0].write_all(&frame(FINAL | CONTINUATION, br#"{"type":"pong"}"#)).await.unwrap();
    settle(&mut holding[0]).await;
    let mut one_more = Socket::open(&gateway).await.into_stream();
    one_more.write_all(&fragment).await.unwrap();
    settle(&mut one_more).await;
}

#[tokio::test]
async fn a_ping_is_echoed_up_to_512_bytes() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let empty = json!({ "type": "ping", "payload": { "a": "" } }).to_string().len();
    let ping = |length: usize| json!({ "type": "ping", "payload": { "a": "x".repeat(length - empty) } });
    for is_begun in [false, true] {
        let mut socket =
            if is_begun { Socket::connect(&gateway, ALL).await } else { Socket::open(&gateway).await };
        socket.send_message(ping(512)).await;
        assert_eq!(socket.receive().await["payload"], ping(512)["payload"]);
        socket.send_message(ping(513)).await;
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 4400);
        assert!(reason.contains("512"), "{reason}");
    }
}
