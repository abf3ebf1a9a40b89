//! Connections to the upstream: they are closed before the upstream would close them, so that no change is lost on a
//! dying one, and they are replaced in time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Url;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::support::{Call, ChangeKind, Gate, Gateway, TIMEOUT, Upstream, UpstreamResponse, id, served};

/// The connection of the last call.
fn last_connection(upstream: &Upstream) -> usize {
    upstream.seen(|seen| seen.calls.last().unwrap().connection)
}

/// An upstream that closes a connection when a second call arrives on it, as seen by a client that reuses a connection
/// just as the server closes it.
async fn upstream_that_closes_reused_connections() -> Upstream {
    let used = Mutex::new(HashSet::new());
    Upstream::answering(move |call| match used.lock().unwrap().insert(call.connection) {
        true if call.is_change() => call.changed(),
        true => call.appointment(),
        false => UpstreamResponse::cut(),
    })
    .await
}

#[tokio::test]
async fn a_change_is_not_sent_on_a_connection_that_was_idle() {
    let upstream = upstream_that_closes_reused_connections().await;
    let settings = [("upstream.idle_timeout", "60s"), ("cache.ttl", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for n in 1..=2 {
        ChangeKind::Update.make(&gateway).await.changed();
        assert_eq!(upstream.seen(|seen| (seen.calls.len(), seen.connections)), (n, n));
        sleep(Duration::from_millis(1200)).await;
    }
    // Nor on the connection of a read, which may have been idle for longer.
    gateway.appointment("token", &id(1)).await.appointment();
    ChangeKind::Cancel.make(&gateway).await.changed();
    assert_eq!(upstream.seen(|seen| (seen.calls.len(), seen.connections)), (4, 4));
}

#[tokio::test]
async fn changes_in_quick_succession_share_a_connection() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for kind in ChangeKind::EACH {
        kind.make(&gateway).await.changed();
    }
    assert_eq!(upstream.seen(|seen| (seen.calls.len(), seen.connections)), (3, 1));
}

#[tokio::test]
async fn idle_connections_are_closed_after_the_idle_timeout() {
    for (idle_timeout, connections) in [("0", 2), ("200ms", 2), ("60s", 1)] {
        let upstream = Upstream::start().await;
        let gateway = Gateway::before(upstream.url(), &[("upstream.idle_timeout", idle_timeout)]).await;
        gateway.appointment("token", &id(1)).await.appointment();
        sleep(Duration::from_millis(500)).await;
        gateway.appointment("token", &id(2)).await.appointment();
        assert_eq!(upstream.seen(|seen| seen.connections), connections, "{idle_timeout}");
    }
}

#[tokio::test]
async fn the_default_idle_timeout_is_below_that_of_common_servers() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    gateway.appointment("token", &id(1)).await.appointment();
    // Apache and Node.js close idle connections after five seconds.
    sleep(Duration::from_millis(4500)).await;
    gateway.appointment("token", &id(1)).await.appointment();
    assert_eq!(upstream.seen(|seen| seen.connections), 2);
}

/// Reads with pauses of `pause` until a call uses another connection than the first one.
async fn until_reconnected(upstream: &Upstream, gateway: &Gateway, pause: Duration) {
    let reading = async {
        while last_connection(upstream) == 1 {
            sleep(pause).await;
            gateway.appointment("token", &id(1)).await.appointment();
        }
    };
    timeout(TIMEOUT, reading).await.expect("a new connection");
}

#[tokio::test]
async fn the_servers_keep_alive_timeout_shortens_the_idle_timeout() {
    let upstream =
        Upstream::answering(|call| call.appointment().with("Keep-Alive", "timeout=2, max=100")).await;
    let settings = [("upstream.idle_timeout", "60s"), ("cache.ttl", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.appointment("token", &id(1)).await.appointment();
    until_reconnected(&upstream, &gateway, Duration::from_millis(1200)).await;
    // The new client has the shorter timeout from the start.
    let before = last_connection(&upstream);
    sleep(Duration::from_millis(1200)).await;
    gateway.appointment("token", &id(1)).await.appointment();
    assert_ne!(last_connection(&upstream), before);
}

#[tokio::test]
async fn a_keep_alive_timeout_holds_until_the_maximum_age() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 => call.appointment().with("Keep-Alive", "timeout=0"),
        _ => call.appointment(),
    })
    .await;
    let settings =
        [("upstream.idle_timeout", "60s"), ("upstream.max_connection_age", "2s"), ("cache.ttl", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.appointment("token", &id(1)).await.appointment();
    let reusing = async {
        loop {
            let before = last_connection(&upstream);
            sleep(Duration::from_millis(100)).await;
            gateway.appointment("token", &id(1)).await.appointment();
            if last_connection(&upstream) == before {
                break;
            }
        }
    };
    timeout(TIMEOUT, reusing).await.expect("a connection that is used again");
}

#[tokio::test]
async fn a_longer_keep_alive_timeout_changes_nothing() {
    let upstream = Upstream::answering(|call| call.appointment().with("Keep-Alive", "timeout=90")).await;
    let settings = [("upstream.idle_timeout", "60s"), ("cache.ttl", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for _ in 0..3 {
        gateway.appointment("token", &id(1)).await.appointment();
        sleep(Duration::from_millis(1200)).await;
    }
    assert_eq!(upstream.seen(|seen| seen.connections), 1);
}

#[tokio::test]
async fn connections_are_replaced_at_their_maximum_age() {
    let gate = Gate::shut();
    let upstream = Upstream::start().await;
    upstream.on(&id(9), {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    let settings = [
        ("upstream.max_connection_age", "500ms"),
        ("upstream.idle_timeout", "60s"),
        ("upstream.timeout", "60s"),
        ("http.deadline", "60s"),
        ("cache.ttl", "0"),
    ];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let slow = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(9)).await }
    });
    upstream.until_called(1).await;
    // Never idle, and yet replaced, again and again.
    let reading = async {
        while last_connection(&upstream) < 4 {
            gateway.appointment("token", &id(1)).await.appointment();
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, reading).await.expect("new connections");
    // A call in flight finishes on its old connection.
    gate.open();
    assert_eq!(*slow.await.unwrap().appointment(), served(&id(9), "token", 1));
    assert_eq!(upstream.seen(|seen| seen.hung_up), 0);
}

#[tokio::test]
async fn connections_of_changes_are_replaced_at_their_maximum_age() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.max_connection_age", "500ms")]).await;
    let changing = async {
        loop {
            ChangeKind::Update.make(&gateway).await.changed();
            if last_connection(&upstream) >= 3 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, changing).await.expect("new connections");
}

/// A server that accepts connections but never completes the TLS handshake.
#[tokio::test]
async fn a_connection_that_is_never_established_is_no_unknown_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut url = Url::parse("https://127.0.0.1").unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let settings = [("upstream.timeout", "500ms"), ("upstream.connect_timeout", "60s")];
    let gateway = Gateway::before(url.as_str(), &settings).await;
    for kind in ChangeKind::EACH {
        assert_eq!(kind.make(&gateway).await.codes(), ["UPSTREAM_UNAVAILABLE"], "{kind:?}");
    }
}
