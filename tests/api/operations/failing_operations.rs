//! Operations with many failing fields: their upstream calls, and their log lines.

use std::collections::HashSet;

use crate::support::{Call, Gateway, Upstream, UpstreamResponse, id, ids};

#[tokio::test]
async fn a_rejected_token_ends_the_remaining_calls_of_the_operation() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(401)).await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.max_concurrent", "2")]).await;
    let reply = gateway.appointments("made-up", &ids(0..100)).await;
    assert_eq!(reply.codes(), ["UNAUTHENTICATED"; 100]);
    assert!(upstream.calls() <= 20, "{} calls for 100 ids", upstream.calls());
    // Neither is another operation of the token held against it, nor is another token.
    upstream.on(&id(1), Call::appointment);
    for token in ["made-up", "other"] {
        assert_eq!(gateway.appointment(token, &id(1)).await.codes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_rejected_id_cancels_no_calls_for_other_ids() {
    for status in [403, 404] {
        let upstream = Upstream::answering(Call::appointment).await;
        upstream.on(&id(0), move |_| UpstreamResponse::status(status));
        let gateway = Gateway::before(upstream.url(), &[("upstream.max_concurrent", "2")]).await;
        let reply = gateway.appointments("token", &ids(0..40)).await;
        assert_eq!(reply.codes().len(), usize::from(status == 403));
        assert_eq!(upstream.calls(), 40);
    }
}

/// The log of one query for 40 ids at the default level, without start and shutdown.
async fn logged(script: impl Fn(&Call) -> UpstreamResponse + Send + Sync + 'static) -> Vec<String> {
    let upstream = Upstream::answering(script).await;
    let mut gateway = Gateway::before(upstream.url(), &[("log.level", "info")]).await;
    gateway.appointments("token", &ids(0..40)).await;
    gateway.terminate();
    gateway.ended().await;
    let log = gateway.stderr();
    // Warnings about the machine or the configuration are of no request.
    let is_of_query = |line: &&str| line.contains("request{") || line.contains("00000000cafe");
    log.lines().filter(is_of_query).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_failing_operation_is_logged_once_for_each_cause() {
    let lines = logged(|_| UpstreamResponse::status(500)).await;
    assert!(lines.len() <= 1, "{lines:#?}");
    let first: HashSet<_> = ids(0..20).into_iter().collect();
    let lines = logged(move |call| {
        if first.contains(&call.id) { UpstreamResponse::status(500) } else { UpstreamResponse::cut() }
    })
    .await;
    assert!(lines.len() <= 2, "{lines:#?}");
}

#[tokio::test]
async fn rejections_are_not_logged_at_the_default_level() {
    for status in [401, 403, 404] {
        let lines = logged(move |_| UpstreamResponse::status(status)).await;
        assert!(lines.is_empty(), "{status}: {lines:#?}");
    }
}
