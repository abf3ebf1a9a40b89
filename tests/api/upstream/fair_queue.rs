//! The fair queue: a caller with many calls does not delay others, and uses nearly all capacity while nobody else needs
//! it (invariant 8).

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::{
    Call, Gate, Gateway, GatewayResponse, KeyFile, TIMEOUT, Upstream, id, ids, served, service_token,
};

/// The default of the program, which the other tests do without.
const SHARE: (&str, &str) = ("upstream.caller_share", "90");

const PATIENT: [(&str, &str); 2] = [("upstream.timeout", "60s"), ("http.deadline", "60s")];

/// Answers the token `noisy` once the gate is open.
async fn upstream_behind(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::answering(move |call| match call.token() {
        "noisy" => call.appointment().once(&gate),
        _ => call.appointment(),
    })
    .await
}

fn ask(
    gateway: &Arc<Gateway>,
    token: &'static str,
    ids: Vec<String>,
) -> tokio::task::JoinHandle<GatewayResponse> {
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.appointments(token, &ids).await })
}

async fn until_waiting(gateway: &Gateway, count: f64) {
    let waiting = async {
        while gateway.metrics().await["gateway_upstream_waiting"] != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, waiting).await.expect("as many calls wait");
}

#[tokio::test]
async fn hundreds_of_slow_calls_do_not_delay_another_caller() {
    let gate = Gate::shut();
    let upstream = upstream_behind(&gate).await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &[&PATIENT[..], &[SHARE]].concat()).await);
    let noisy =
        (0..4).map(|part| ask(&gateway, "noisy", ids(100 * part..100 * (part + 1)))).collect::<Vec<_>>();
    // Of the 64 that there are by default.
    upstream.until(|seen| seen.in_flight == 57).await;
    until_waiting(&gateway, 400.0 - 57.0).await;
    for n in 0..10 {
        let reply = gateway.appointment("quiet", &id(n)).await;
        let nth = upstream.seen(|seen| seen.calls.iter().filter(|call| call.id == id(n)).count());
        assert_eq!(*reply.appointment(), served(&id(n), "quiet", nth));
    }
    gateway.update("quiet", &id(999), json!({ "status": "waiting" })).await;
    assert_eq!(upstream.seen(|seen| seen.in_flight), 57, "the noisy one still waits");
    assert_eq!(gateway.metrics().await["gateway_upstream_under_way"], 57.0);
    gate.open();
    for noisy in noisy {
        assert_eq!(noisy.await.unwrap().paths_and_codes(), [], "who waited is served");
    }
    let metrics = gateway.metrics().await;
    assert_eq!((metrics["gateway_upstream_under_way"], metrics["gateway_upstream_waiting"]), (0.0, 0.0));
}

#[tokio::test]
async fn a_caller_does_not_take_all_places_to_wait_in() {
    let gate = Gate::shut();
    let upstream = upstream_behind(&gate).await;
    let settings = [
        &PATIENT[..],
        &[("upstream.caller_share", "50"), ("upstream.max_concurrent", "2"), ("upstream.max_waiting", "8")],
    ]
    .concat();
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let noisy = ask(&gateway, "noisy", ids(0..20));
    until_waiting(&gateway, 4.0).await;
    // Of the ten places five are one caller's, and of the two slots one.
    assert_eq!(gateway.appointments("quiet", &ids(20..22)).await.paths_and_codes(), []);
    gate.open();
    let reply = noisy.await.unwrap();
    assert_eq!(reply.codes(), ["OVERLOADED"; 15]);
    assert_eq!(reply.body["errors"][0]["extensions"]["retryAfterSeconds"], 1);
}

#[tokio::test]
async fn callers_take_turns_where_there_is_not_enough_for_all() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call: &Call| call.appointment().once(&gate)
    })
    .await;
    let settings = [&PATIENT[..], &[SHARE, ("upstream.max_concurrent", "1")]].concat();
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let noisy = ask(&gateway, "noisy", ids(0..50));
    until_waiting(&gateway, 49.0).await;
    let quiet = ask(&gateway, "quiet", ids(0..1));
    until_waiting(&gateway, 50.0).await;
    gate.open();
    for reply in [noisy, quiet] {
        assert_eq!(reply.await.unwrap().paths_and_codes(), []);
    }
    let place = upstream.seen(|seen| seen.calls.iter().position(|call| call.token() == "quiet").unwrap());
    assert!(place <= 2, "the quiet one's call was number {place}");
}

#[tokio::test]
async fn callers_that_share_a_cache_have_separate_shares_of_calls() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| match call.id.as_str() {
            "token" => service_token(call, 3600),
            _ => call.appointment().once(&gate),
        }
    })
    .await;
    upstream.on(&id(999), Call::appointment);
    let keys = KeyFile::of(&["noisy", "quiet"]);
    let callers = [("callers.api_keys_file", keys.path()), ("callers.share_cache", "true")];
    let settings = [&PATIENT[..], &callers, &[SHARE, ("upstream.max_concurrent", "10")]].concat();
    let gateway = Arc::new(Gateway::of_service(&upstream, &settings).await);
    let noisy = tokio::spawn({
        let (gateway, key) = (gateway.clone(), keys.key(0).to_owned());
        async move { gateway.appointments(&key, &ids(0..100)).await }
    });
    until_waiting(&gateway, 91.0).await;
    assert_eq!(gateway.appointment(keys.key(1), &id(999)).await.paths_and_codes(), []);
    gate.open();
    assert_eq!(noisy.await.unwrap().paths_and_codes(), []);
}
