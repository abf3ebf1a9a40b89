//! Key rotation: soon after the JWK set is refreshed, tokens of a withdrawn key lose everything. Others keep theirs.

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{
    Gateway, Issuer, Subscription, SubscriptionEvent, Transport, Upstream, UpstreamResponse, id,
};

const SETTINGS: [(&str, &str); 4] = [
    ("callers.jwks_max_age", "50ms"),
    ("callers.jwks_refresh_interval", "50ms"),
    ("live.fast_interval", "10m"),
    ("live.slow_interval", "10m"),
];

/// Waits until the gateway has fetched the key set that is shown now: the first of the fetches seen from here on may have
/// been under way before, and a third begins after the second has been used.
async fn refreshed(upstream: &Upstream) {
    let fetches = upstream.calls_for("jwks");
    upstream.until(|seen| seen.calls.iter().filter(|call| call.id == "jwks").count() >= fetches + 3).await;
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_subscriptions_of_its_tokens() {
    for transport in Transport::EACH {
        let (old, new) = (Issuer::new("old"), Issuer::new("new"));
        let upstream = Upstream::with_tokens().await;
        upstream.on("cancel", |_| UpstreamResponse::text(204, "text/plain", ""));
        upstream.show_keys_of(&[&old, &new]);
        let gateway = Gateway::for_issuer(&upstream, &SETTINGS).await;
        let (withdrawn, good) = (old.token("alice"), new.token("bob"));
        let mut ending = gateway.subscribe(transport, &withdrawn, &id(1)).await;
        let mut going_on = gateway.subscribe(transport, &good, &id(1)).await;
        assert!(ending.status().await.starts_with("call"));
        assert!(going_on.status().await.starts_with("call"));
        upstream.show_keys_of(&[&new]);
        assert_eq!(ending.end().await, "UNAUTHENTICATED", "{transport:?}");
        assert_eq!(gateway.appointment(&withdrawn, &id(1)).await.codes(), ["UNAUTHENTICATED"]);
        assert_eq!(gateway.appointment(&good, &id(1)).await.codes(), [""; 0]);
        refused(&gateway, transport, &withdrawn).await;
        going_on.shows_nothing(std::time::Duration::from_millis(100)).await;
        let query =
            format!(r#"mutation {{ cancelAppointment(id: "{}") {{ userErrors {{ message }} }} }}"#, id(1));
        gateway.query(Some(&good), &query).await.payload();
        assert!(going_on.status().await.starts_with("call"), "it goes on");
    }
}

/// Asserts that `token` cannot subscribe.
async fn refused(gateway: &Gateway, transport: Transport, token: &str) {
    match transport {
        Transport::EventStream => {
            assert_eq!(gateway.watch(token, &id(1)).await.end().await, "UNAUTHENTICATED");
        }
        Transport::WebSocket => {
            let mut socket = crate::support::Socket::open(gateway).await;
            let payload = serde_json::json!({ "Authorization": format!("Bearer {}", gateway.secret(token)) });
            socket.send_message(serde_json::json!({ "type": "connection_init", "payload": payload })).await;
            let query = format!("subscription {{ appointmentChanged(id: {:?}) {{ id }} }}", id(1));
            // Refused when it begins, or when it subscribes.
            socket.subscribe("1", &query).await;
            let message = socket.receive_or_close().await;
            let message = match message {
                Some(message) if message["type"] == "connection_ack" => socket.receive_or_close().await,
                message => message,
            };
            let payload = message.map(|mut message| message["payload"].take()).unwrap_or_default();
            assert!(payload.get("data").is_none_or(Value::is_null), "{payload}");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The issuer shows these of its two keys; never none, since an empty set is no set.
    Show(bool, bool),
    Subscribe(usize, Transport),
}

fn any_step() -> impl Strategy<Value = Step> {
    let keys = prop_oneof![Just((true, true)), Just((true, false)), Just((false, true))];
    let transport = prop::sample::select(&Transport::EACH[..]);
    prop_oneof![
        2 => keys.prop_map(|(one, other)| Step::Show(one, other)),
        3 => (0..2_usize, transport).prop_map(|(issuer, transport)| Step::Subscribe(issuer, transport)),
    ]
}

async fn run(steps: &[Step]) {
    let issuers = [Issuer::new("one"), Issuer::new("other")];
    let tokens = [issuers[0].token("alice"), issuers[1].token("bob")];
    let upstream = Upstream::with_tokens().await;
    upstream.on("cancel", |_| UpstreamResponse::text(204, "text/plain", ""));
    upstream.show_keys_of(&[&issuers[0], &issuers[1]]);
    let gateway = Gateway::for_issuer(&upstream, &SETTINGS).await;
    let mut shown = [true, true];
    let mut subscriptions: Vec<(usize, Subscription)> = Vec::new();
    for step in steps {
        match *step {
            Step::Subscribe(issuer, transport) if shown[issuer] => {
                let mut subscription = gateway.subscribe(transport, &tokens[issuer], &id(1)).await;
                assert!(subscription.status().await.starts_with("call"));
                subscriptions.push((issuer, subscription));
            }
            Step::Subscribe(issuer, transport) => refused(&gateway, transport, &tokens[issuer]).await,
            Step::Show(one, other) => {
                shown = [one, other];
                let keys = issuers.iter().zip(shown).filter(|(_, is_shown)| *is_shown);
                upstream.show_keys_of(&keys.map(|(issuer, _)| issuer).collect::<Vec<_>>());
                refreshed(&upstream).await;
                let (going_on, ending): (Vec<_>, Vec<_>) =
                    subscriptions.drain(..).partition(|(issuer, _)| shown[*issuer]);
                subscriptions = going_on;
                for (_, mut subscription) in ending {
                    assert_eq!(subscription.end().await, "UNAUTHENTICATED");
                }
            }
        }
        for (token, is_shown) in tokens.iter().zip(shown) {
            let codes = if is_shown { vec![] } else { vec!["UNAUTHENTICATED"] };
            assert_eq!(gateway.appointment(token, &id(1)).await.codes(), codes);
        }
    }
    // Subscriptions with published keys continue: each receives a change.
    if let Some((issuer, _)) = subscriptions.first() {
        let query =
            format!(r#"mutation {{ cancelAppointment(id: "{}") {{ userErrors {{ message }} }} }}"#, id(1));
        gateway.query(Some(&tokens[*issuer]), &query).await.payload();
    }
    for (_, subscription) in &mut subscriptions {
        let SubscriptionEvent::Next(answer) = subscription.event().await else { panic!("it goes on") };
        assert_eq!(answer.get("errors"), None);
    }
}

#[test]
fn after_any_rotation_only_callers_with_current_keys_are_served() {
    let runtime = Runtime::new().unwrap();
    let is_given = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    let cases = if is_given { config.cases } else { 8 };
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 4, ..config };
    let result = TestRunner::new(config).run(&prop::collection::vec(any_step(), 1..10), |steps| {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(&steps))));
        result.map_err(|_| TestCaseError::fail("as told above"))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
