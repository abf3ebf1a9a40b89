//! Many subscribers of one appointment: their cost, and their events.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::support::{Event, Events, Gateway, Socket, TIMEOUT, Upstream, UpstreamResponse, id, memory};

const EACH: usize = 250;

/// How often the upstream is asked: long enough for all to have heard of one state before the next.
const TICK: Duration = Duration::from_millis(500);

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a measurement is there to be read")]
async fn five_hundred_subscribers_cost_one_get_a_tick() {
    let state = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::answering({
        let state = state.clone();
        move |call| {
            let status = state.load(Ordering::SeqCst).to_string();
            UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "status": status } }))
        }
    })
    .await;
    let settings = [("live.fast_interval", "500ms"), ("live.slow_interval", "500ms"), ("cache.ttl", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let query = format!(r#"subscription {{ appointmentChanged(id: "{}") {{ status }} }}"#, id(1));

    // One of each first, so that one-time allocations are not measured.
    let mut sockets = vec![subscribed(&gateway, &query).await];
    let mut streams = vec![Events::open(&gateway, "token", &query).await];
    assert!(is_in_state(&mut sockets[0], &mut streams[0], 0).await);
    let before = memory(&gateway);
    // Not all at once: the accept queue of the system is shorter.
    while sockets.len() < EACH {
        let count = 25.min(EACH - sockets.len());
        sockets.extend(join_all((0..count).map(|_| subscribed(&gateway, &query))).await);
        streams.extend(join_all((0..count).map(|_| Events::open(&gateway, "token", &query))).await);
    }
    for (socket, stream) in sockets.iter_mut().zip(&mut streams).skip(1) {
        assert!(is_in_state(socket, stream, 0).await);
    }
    let each = (memory(&gateway) - before) as f64 / (2 * EACH - 2) as f64;
    println!("{each:.1} KiB a subscriber");
    assert!(each <= 50.0, "{each:.1} KiB a subscriber");

    // Everyone sees a change, and the upstream is asked once a tick, give or take the jitter of a tenth.
    let (asked, started) = (upstream.calls(), Instant::now());
    for change in 1..=4 {
        let changed = Instant::now();
        state.store(change, Ordering::SeqCst);
        for (socket, stream) in sockets.iter_mut().zip(&mut streams) {
            assert!(is_in_state(socket, stream, change).await);
        }
        println!(
            "{} ms from a change to the last who sees it, of a tick of {TICK:?}",
            changed.elapsed().as_millis()
        );
    }
    let most = (started.elapsed().as_secs_f64() / (0.9 * TICK.as_secs_f64())).ceil() as usize + 1;
    let asked = upstream.calls() - asked;
    assert!((4..=most).contains(&asked), "{asked} calls, where {most} ticks have passed");

    // With the last of them goes the asking.
    let last = sockets.pop().unwrap();
    drop(streams);
    join_all(sockets.into_iter().map(Socket::close)).await;
    let calls = upstream.calls();
    upstream.until_called(calls + 2).await;
    last.close().await;
    let left = upstream.calls();
    let quiet = async {
        loop {
            let calls = upstream.calls();
            sleep(4 * TICK).await;
            if upstream.calls() == calls {
                return;
            }
        }
    };
    timeout(TIMEOUT, quiet).await.expect("the asking ends");
    assert!(upstream.calls() <= left + 1, "within a tick");
}

async fn subscribed(gateway: &Gateway, query: &str) -> Socket {
    let mut socket = Socket::connect(gateway, "token").await;
    socket.subscribe("1", query).await;
    socket
}

/// Whether both receive it next.
async fn is_in_state(socket: &mut Socket, stream: &mut Events, state: usize) -> bool {
    let payload = json!({ "data": { "appointmentChanged": { "status": state.to_string() } } });
    socket.receive().await == json!({ "type": "next", "id": "1", "payload": payload })
        && stream.event().await == Event::Next(payload)
}
