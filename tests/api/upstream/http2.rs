//! HTTP/2: a request that the server has certainly not processed is sent again, a change as well as a read
//! (RFC 9113, section 8.7). Any other failure of a change leaves its outcome unknown.

use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse, Http2Upstream, Reaction, id};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Reactions that prove that nothing was processed.
const UNPROCESSED: [Reaction; 4] = [
    Reaction::Reset(REFUSED_STREAM),
    Reaction::GoAwayBelow(NO_ERROR),
    Reaction::GoAwayBelow(INTERNAL_ERROR),
    Reaction::GoAwayBelow(ENHANCE_YOUR_CALM),
];

/// Reactions that prove nothing.
const UNKNOWN: [Reaction; 8] = [
    Reaction::Reset(NO_ERROR),
    Reaction::Reset(INTERNAL_ERROR),
    Reaction::Reset(CANCEL),
    Reaction::RespondAndReset(REFUSED_STREAM),
    Reaction::GoAwayWith(NO_ERROR),
    Reaction::GoAwayWith(INTERNAL_ERROR),
    Reaction::GoAwayLater(NO_ERROR),
    Reaction::Close,
];

async fn before(upstream: &Http2Upstream) -> Gateway {
    Gateway::before(upstream.url(), &[("upstream.ca_file", upstream.ca_file()), ("cache.ttl", "0")]).await
}

async fn update(gateway: &Gateway) -> GatewayResponse {
    gateway.update("token", &id(1), json!({ "status": "made" })).await
}

fn appointment() -> Value {
    json!({ "id": id(1), "reference": "h2", "status": "made" })
}

/// An upstream that reacts to the first `times` requests as `reaction` says, and responds to the others.
async fn reacting(reaction: Reaction, times: usize) -> Http2Upstream {
    Http2Upstream::reacting(move |nth| if nth <= times { reaction } else { Reaction::Respond }).await
}

#[tokio::test]
async fn an_unprocessed_request_is_sent_again() {
    for reaction in UNPROCESSED {
        for times in [1, 2] {
            let upstream = reacting(reaction, times).await;
            let gateway = before(&upstream).await;
            assert_eq!(*update(&gateway).await.changed(), appointment(), "{reaction:?} × {times}");
            assert_eq!(upstream.seen().requests, times + 1, "{reaction:?}");

            let upstream = reacting(reaction, times).await;
            let gateway = before(&upstream).await;
            let reply = gateway.appointment("token", &id(1)).await;
            assert_eq!(*reply.appointment(), appointment(), "{reaction:?} × {times}");
            assert_eq!(upstream.seen().requests, times + 1, "{reaction:?}");
        }
    }
}

#[tokio::test]
async fn an_unprocessed_request_on_a_used_connection_is_sent_again() {
    for reaction in UNPROCESSED {
        let upstream =
            Http2Upstream::reacting(move |nth| if nth == 2 { reaction } else { Reaction::Respond }).await;
        let gateway = before(&upstream).await;
        for _ in 0..3 {
            assert_eq!(*update(&gateway).await.changed(), appointment(), "{reaction:?}");
        }
        assert_eq!(upstream.seen().requests, 4, "{reaction:?}");
    }
}

#[tokio::test]
async fn a_change_that_is_never_processed_was_not_made() {
    for reaction in UNPROCESSED {
        let upstream = reacting(reaction, usize::MAX).await;
        let gateway = before(&upstream).await;
        assert_eq!(update(&gateway).await.codes(), ["UPSTREAM_UNAVAILABLE"], "{reaction:?}");
        // Once, and two replays.
        assert_eq!(upstream.seen().requests, 3, "{reaction:?}");
    }
}

#[tokio::test]
async fn a_change_that_may_have_been_processed_is_not_sent_again() {
    for reaction in UNKNOWN {
        let upstream = reacting(reaction, 1).await;
        let gateway = before(&upstream).await;
        assert_eq!(update(&gateway).await.codes(), ["OUTCOME_UNKNOWN"], "{reaction:?}");
        assert_eq!(upstream.seen().requests, 1, "{reaction:?}");
        // The next one is sent as usual.
        assert_eq!(*update(&gateway).await.changed(), appointment(), "{reaction:?}");
        assert_eq!(upstream.seen().requests, 2, "{reaction:?}");
    }
}

#[tokio::test]
async fn a_response_after_a_goaway_counts() {
    let upstream = Http2Upstream::reacting(|_| Reaction::GoAwayAndRespond).await;
    let gateway = before(&upstream).await;
    for n in 1..=3 {
        assert_eq!(*update(&gateway).await.changed(), appointment());
        let seen = upstream.seen();
        assert_eq!((seen.requests, seen.connections), (n, n));
    }
}

#[tokio::test]
async fn debug_data_of_the_server_is_not_logged() {
    let upstream = Http2Upstream::reacting(|_| Reaction::RespondAndGoAway("ada@canary.example")).await;
    let settings = [("upstream.ca_file", upstream.ca_file()), ("log.level", "trace")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    let log = gateway.stderr() + &gateway.stdout();
    assert!(log.contains("HTTP/2") && !log.contains("canary"), "{log}");
}
