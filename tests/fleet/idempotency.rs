//! `Idempotency-Key` in a fleet: a repeat that reaches another replica sends nothing, and gets the same answer.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::support::{
    CREATED, Call, ChangeKind, Fleet, FleetKeys, Gate, Gateway, GatewayResponse, Keyed, Redis,
    StatefulUpstream, Upstream, UpstreamResponse, creation, eventually, id, signal,
};

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// Time in which a change could be sent again, if it was.
const MOMENT: Duration = Duration::from_millis(300);

/// The deadlines of a fleet that notices failures soon.
const SHORT: [(&str, &str); 4] = [
    ("shared.timeout", "300ms"),
    ("shared.publish_timeout", "300ms"),
    ("shared.lease", "2s"),
    ("upstream.timeout", "60s"),
];

fn keyed(kind: ChangeKind) -> Keyed {
    Keyed::of("token", KEY, kind.operation())
}

/// An upstream that holds back responses to changes until the gate opens, and then makes them.
async fn gated() -> (StatefulUpstream, Gate) {
    let (upstream, gate) = (StatefulUpstream::start().await, Gate::shut());
    upstream.on("appointments", {
        let (state, gate) = (upstream.state(), gate.clone());
        move |call| state.answer(call).once(&gate)
    });
    (upstream, gate)
}

async fn count(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metrics().await[&format!("gateway_idempotent_changes_total{{outcome=\"{outcome}\"}}")]
}

/// The names in Redis that belong to idempotency keys.
async fn names(redis: &Redis) -> Vec<String> {
    let names = redis.keys().await.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned());
    names.filter(|name| name.contains("idempotency")).collect()
}

#[tokio::test]
async fn a_repeat_at_another_replica_gets_the_outcome_and_sends_nothing() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[]).await;
    for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
        let mutation = keyed(kind).with_key(&format!("{KEY}-{n}"));
        let first = mutation.send(&fleet[0]).await;
        first.changed();
        for index in [1, 2, 1, 0, 2] {
            let again = mutation.send(&fleet[index]).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body), "{kind:?} at {index}");
        }
        assert_eq!(upstream.changes(), n + 1, "{kind:?}");
    }
    let mut counts = Vec::new();
    for replica in fleet.replicas() {
        counts.push((count(replica, "sent").await, count(replica, "replayed").await));
    }
    assert_eq!(counts, [(3.0, 3.0), (0.0, 6.0), (0.0, 6.0)]);
}

type Case = (&'static str, fn(&Call) -> UpstreamResponse);

/// Definite and unknown outcomes.
const RECORDED: &[Case] = &[
    ("no content", |_| UpstreamResponse::text(204, "text/plain", "")),
    ("rejected", |_| {
        let errors =
            json!({ "claimant.email": ["must be a valid email"], "status": ["no", "no"], "x": "no" });
        UpstreamResponse::json(422, &json!({ "errors": errors }))
    }),
    ("rejected without a field", |_| UpstreamResponse::json(422, &json!({}))),
    ("forbidden", |_| UpstreamResponse::status(403)),
    ("not found", |_| UpstreamResponse::json(404, &json!({ "message": "Appointment not found." }))),
    ("conflict", |_| UpstreamResponse::status(409)),
    ("an unusual status", |_| UpstreamResponse::status(423)),
    ("a redirect", |_| UpstreamResponse::status(302)),
    ("failed", |_| UpstreamResponse::status(500)),
    ("no server", |_| UpstreamResponse::status(503).with("Retry-After", "0")),
    ("lost", |_| UpstreamResponse::cut()),
    ("no JSON", |_| UpstreamResponse::text(200, "text/html", "<html>")),
    ("never", |_| UpstreamResponse::never()),
];

#[tokio::test]
async fn each_outcome_that_may_be_final_is_replayed_by_each_replica() {
    for (case, script) in RECORDED {
        let upstream = StatefulUpstream::with(move |call| call.is_change().then(|| script(call))).await;
        let fleet = Fleet::before(&upstream, 2, &[("upstream.timeout", "1s")]).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            let mutation = keyed(kind).with_key(&format!("{KEY}-{n}"));
            let first = mutation.send(&fleet[n % 2]).await;
            for replica in fleet.replicas() {
                let again = mutation.send(replica).await;
                assert_eq!((again.status, &again.body), (first.status, &first.body), "{kind:?}: {case}");
            }
            assert_eq!(upstream.changes(), n + 1, "{kind:?}: {case}");
        }
    }
}

#[tokio::test]
async fn concurrent_requests_at_three_replicas_make_one_change() {
    let (upstream, gate) = gated().await;
    let fleet = Fleet::before(&upstream, 3, &[("upstream.timeout", "60s")]).await;
    let mutation = keyed(ChangeKind::Create);
    let requests = join_all((0..9).map(|n| mutation.send(&fleet[n % 3])));
    let open = async {
        upstream.until_called(1).await;
        sleep(MOMENT).await;
        gate.open();
    };
    let (replies, ()) = tokio::join!(requests, open);
    for reply in &replies {
        assert_eq!(reply.changed()["id"], CREATED);
        assert_eq!(reply.body, replies[0].body);
    }
    assert_eq!(upstream.changes(), 1);
}

#[tokio::test]
async fn a_key_belongs_to_one_request_at_each_replica() {
    let (upstream, gate) = gated().await;
    let fleet = Fleet::before(&upstream, 2, &[("upstream.timeout", "60s")]).await;
    let mutation = keyed(ChangeKind::Create);
    let other = mutation.with_parameters(keyed(ChangeKind::Cancel).parameters);
    let refused = async || {
        for accept in ["application/graphql-response+json", "application/json", "text/event-stream"] {
            let request = other.request_without_accept(&fleet[1]).header("accept", accept);
            let reply = GatewayResponse::of(request).await;
            assert!(reply.rejected(422, "BAD_USER_INPUT").contains("Idempotency-Key"));
        }
    };
    let during = async {
        upstream.until_called(1).await;
        refused().await;
        gate.open();
    };
    let (first, ()) = tokio::join!(mutation.send(&fleet[0]), during);
    first.changed();
    refused().await;
    assert_eq!(
        mutation.send(&fleet[1]).await.body,
        first.body,
        "a refused request leaves the record as it is"
    );
    assert_eq!(upstream.changes(), 1);
    assert_eq!(count(&fleet[1], "mismatch").await, 6.0);
    // The other way round, too.
    assert_eq!(other.with_key("another").send(&fleet[1]).await.codes(), [""; 0]);
    mutation.with_key("another").send(&fleet[0]).await.rejected(422, "BAD_USER_INPUT");
}

/// Two requests with one key at the same moment: whichever comes second is refused, and never sent.
#[tokio::test]
async fn one_of_two_simultaneous_requests_with_one_key_is_refused() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    for round in 0..20 {
        let key = format!("{KEY}-{round}");
        let one = keyed(ChangeKind::Create).with_key(&key);
        let other = keyed(ChangeKind::Cancel).with_key(&key);
        let (one, other) = tokio::join!(one.send(&fleet[0]), other.send(&fleet[1]));
        let codes = [one.codes(), other.codes()].concat();
        assert_eq!(codes, ["BAD_USER_INPUT"], "{one:?} {other:?}");
        assert_eq!(upstream.changes(), round + 1);
    }
}

#[tokio::test]
async fn the_change_of_a_killed_replica_is_not_sent_again() {
    let (upstream, gate) = gated().await;
    let fleet = Arc::new(Fleet::before(&upstream, 3, &SHORT).await);
    let mutation = keyed(ChangeKind::Create);
    let first = tokio::spawn({
        let (fleet, mutation) = (fleet.clone(), mutation.clone());
        async move { mutation.request(&fleet[0]).send().await.and_then(|response| response.error_for_status()) }
    });
    upstream.until_called(1).await;
    signal(&fleet[0], Signal::SIGKILL);
    assert!(first.await.unwrap().is_err(), "the client learns nothing");
    let replies = join_all([1, 2, 1].map(|index| mutation.send(&fleet[index]))).await;
    for reply in &replies {
        assert_eq!(reply.codes(), ["OUTCOME_UNKNOWN"]);
    }
    gate.open();
    assert_eq!(mutation.send(&fleet[2]).await.body, replies[0].body, "it stays unknown");
    assert_eq!(upstream.changes(), 1);
    // A new process of the replica is another replica.
    assert_eq!(mutation.with_key("another").send(&fleet[1]).await.changed()["id"], CREATED);
    assert_eq!(upstream.changes(), 2);
}

/// Outcomes after which the change was certainly not made.
const PASSING: &[(&str, Case)] = &[
    ("RATE_LIMITED", ("429", |_| UpstreamResponse::status(429).with("Retry-After", "0"))),
    ("UNAUTHENTICATED", ("401", |_| UpstreamResponse::status(401))),
];

#[tokio::test]
async fn a_repeat_after_an_outcome_that_may_pass_is_sent() {
    for (code, (_, script)) in PASSING {
        let upstream =
            StatefulUpstream::with(move |call| (call.is_change() && call.nth == 1).then(|| script(call)))
                .await;
        let fleet = Fleet::before(&upstream, 2, &[]).await;
        let mutation = keyed(ChangeKind::Create);
        assert_eq!(mutation.send(&fleet[0]).await.codes(), [*code]);
        assert_eq!(names(&fleet.redis).await, [""; 0], "{code}: nothing is left in Redis");
        let second = mutation.send(&fleet[1]).await;
        assert_eq!(second.changed()["id"], CREATED);
        assert_eq!(mutation.send(&fleet[0]).await.body, second.body, "{code}");
        assert_eq!(upstream.changes(), 2, "{code}");
    }
}

/// Each change of an operation has an outcome of its own, at each replica.
#[tokio::test]
async fn recorded_changes_of_an_operation_are_not_sent_again_by_another_replica() {
    let upstream = StatefulUpstream::with(|call| {
        (call.id == "cancel" && call.nth == 1).then(|| UpstreamResponse::status(429).with("Retry-After", "0"))
    })
    .await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let query = format!(
        "mutation {{
            a: createAppointment(input: {{ appointmentAt: \"2031-03-01T09:00:00Z\" }}) {{ appointment {{ id status }} }}
            b: cancelAppointment(id: \"{0}\") {{ appointment {{ id status }} }}
            c: updateAppointment(id: \"{0}\", input: {{ status: \"late\" }}) {{ appointment {{ status }} }}
        }}",
        id(1)
    );
    let mutation = Keyed::of("token", KEY, (query, json!({})));
    let first = mutation.send(&fleet[0]).await;
    assert_eq!(first.paths_and_codes(), [("[\"b\"]".to_owned(), "RATE_LIMITED")]);
    for index in [1, 0, 1] {
        let again = mutation.send(&fleet[index]).await;
        assert_eq!(again.body.get("errors"), None, "{again:?}");
        assert_eq!(again.body["data"]["a"]["appointment"], json!({ "id": CREATED, "status": "created" }));
        assert_eq!(upstream.changes(), 4, "one creation, two cancellations, one update");
    }
}

#[tokio::test]
async fn a_repeat_that_gives_up_waiting_learns_the_outcome_later() {
    let (upstream, gate) = gated().await;
    let fleet = Fleet::before(&upstream, 2, &[("upstream.timeout", "60s")]).await;
    let mutation = keyed(ChangeKind::Create);
    let waiting = async {
        upstream.until_called(1).await;
        for _ in 0..2 {
            let request = mutation.request(&fleet[1]).header("x-request-timeout", "300ms");
            assert_eq!(GatewayResponse::of(request).await.codes(), ["OUTCOME_UNKNOWN"]);
        }
        gate.open();
    };
    let (first, ()) = tokio::join!(mutation.send(&fleet[0]), waiting);
    assert_eq!(mutation.send(&fleet[1]).await.body, first.body);
    assert_eq!((upstream.changes(), &first.changed()["id"]), (1, &json!(CREATED)));
}

#[tokio::test]
async fn callers_with_the_same_key_share_nothing_in_a_fleet() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let mutation = keyed(ChangeKind::Create);
    for (n, token) in ["one", "other"].into_iter().enumerate() {
        let first = mutation.by(token).send(&fleet[n]).await;
        assert_eq!(first.changed()["reference"], token);
        assert_eq!(mutation.by(token).send(&fleet[1 - n]).await.body, first.body);
        assert_eq!(upstream.changes(), n + 1);
    }
    // Nor does the key of another caller's request belong to that request.
    keyed(ChangeKind::Cancel).by("third").send(&fleet[1]).await.changed();
}

#[tokio::test]
async fn without_redis_keys_hold_at_each_replica_and_are_shared_later() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 3, &SHORT).await;
    fleet.redis.kill().await;
    fleet.until_alone().await;
    let mutation = keyed(ChangeKind::Create);
    for (n, index) in [0, 1].into_iter().enumerate() {
        let first = mutation.send(&fleet[index]).await;
        assert_eq!(first.changed()["id"], CREATED);
        assert_eq!(mutation.send(&fleet[index]).await.body, first.body);
        assert_eq!(upstream.changes(), n + 1, "once for each replica");
        assert_eq!(count(&fleet[index], "unclaimed").await, 1.0);
    }
    fleet.redis.run_empty().await;
    fleet.until_joined().await;
    eventually("the outcome is in Redis", async || !names(&fleet.redis).await.is_empty()).await;
    assert_eq!(mutation.send(&fleet[2]).await.changed()["id"], CREATED);
    assert_eq!(upstream.changes(), 2);
}

#[tokio::test]
async fn an_outcome_survives_a_suspension_of_redis() {
    for outlasts_leases in [false, true] {
        let (upstream, gate) = gated().await;
        let fleet = Fleet::before(&upstream, 2, &SHORT).await;
        let mutation = keyed(ChangeKind::Create);
        let suspend = async {
            upstream.until_called(1).await;
            fleet.redis.suspend();
            gate.open();
        };
        let (first, ()) = tokio::join!(mutation.send(&fleet[0]), suspend);
        assert_eq!(first.changed()["id"], CREATED);
        if outlasts_leases {
            fleet.until_alone().await;
            sleep(Duration::from_secs(2)).await;
        }
        fleet.redis.resume();
        fleet.until_joined().await;
        let again = mutation.send(&fleet[1]).await;
        assert_eq!(again.body, first.body, "outlasts leases: {outlasts_leases}");
        assert_eq!(upstream.changes(), 1);
    }
}

/// A replica loses its way to Redis while it makes a change. To others the outcome is unknown, until it comes back.
#[tokio::test]
async fn a_replica_that_was_cut_off_delivers_the_outcome_later() {
    let (upstream, gate) = gated().await;
    let fleet = Fleet::before(&upstream, 2, &SHORT).await;
    let mutation = keyed(ChangeKind::Create);
    let meanwhile = async {
        upstream.until_called(1).await;
        fleet[0].proxy.hold();
        fleet[0].until_alone().await;
        assert_eq!(mutation.send(&fleet[1]).await.codes(), ["OUTCOME_UNKNOWN"]);
        gate.open();
    };
    let (first, ()) = tokio::join!(mutation.send(&fleet[0]), meanwhile);
    assert_eq!(first.changed()["id"], CREATED);
    fleet[0].proxy.mend();
    eventually("the other replica knows the outcome", async || {
        mutation.send(&fleet[1]).await.body == first.body
    })
    .await;
    assert_eq!(upstream.changes(), 1);
}

#[tokio::test]
async fn keys_hold_during_a_rotation_of_the_fleet_keys() {
    let upstream = StatefulUpstream::start().await;
    let [old, new] = [FleetKeys::generate(), FleetKeys::generate()].map(|keys| keys.lines()[0].clone());
    let files = [FleetKeys::of(&[old.clone(), new.clone()]), FleetKeys::of(&[new.clone(), old.clone()])];
    let mut fleet = Fleet::before(&upstream, 0, &[]).await;
    for file in &files {
        fleet.add(&[("shared.key_file", file.path())]).await;
    }
    for (n, index) in [0, 1].into_iter().enumerate() {
        let mutation = keyed(ChangeKind::Create).with_key(&format!("{KEY}-{n}"));
        let first = mutation.send(&fleet[index]).await;
        assert_eq!(first.changed()["id"], CREATED);
        assert_eq!(mutation.send(&fleet[1 - index]).await.body, first.body, "{index}");
        let other = keyed(ChangeKind::Cancel).with_key(&format!("{KEY}-{n}"));
        other.send(&fleet[1 - index]).await.rejected(422, "BAD_USER_INPUT");
        assert_eq!(upstream.changes(), n + 1);
    }
}

#[tokio::test]
async fn redis_learns_neither_keys_nor_callers_nor_ids_nor_persons() {
    let upstream = StatefulUpstream::with(|call| {
        let errors = json!({ "claimant.name": ["Philomena is taken"] });
        (call.id == "cancel").then(|| UpstreamResponse::json(422, &json!({ "errors": errors })))
    })
    .await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let monitor = fleet.redis.monitor().await;
    let input = json!({ "appointmentAt": "2031-03-01T09:00:00Z", "claimant": { "name": "Philomena" } });
    let mutation = Keyed::of("token", "a-key-of-Philomena", creation(input));
    for replica in fleet.replicas() {
        mutation.send(replica).await.changed();
        let rejected = keyed(ChangeKind::Cancel).send(replica).await;
        assert_eq!(rejected.payload()["userErrors"][0]["field"], json!(["claimant", "name"]));
    }
    assert_eq!(upstream.changes(), 2);
    let dump = fleet.redis.dump().await;
    assert_eq!(names(&fleet.redis).await.len(), 3, "two records, and the list of the caller's records");
    let stored: Vec<u8> =
        dump.into_iter().flat_map(|(name, values)| [name, values.concat()].concat()).collect();
    let ids = [CREATED, &id(1)].map(|id| Uuid::parse_str(id).unwrap());
    for bytes in [stored, monitor.bytes(), fleet.redis.rdb().await] {
        for text in [KEY, "Philomena", "canary", "claimant", CREATED, &id(1)] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
        }
        for id in &ids {
            assert!(!bytes.windows(16).any(|window| window == id.as_bytes()), "{id}");
        }
    }
    for (name, lifetime) in fleet.redis.lifetimes().await {
        let name = String::from_utf8_lossy(&name).into_owned();
        assert!(lifetime.is_some() || !name.contains("idempotency"), "{name} stays for ever");
    }
}

#[tokio::test]
async fn made_up_tokens_leave_nothing_in_redis() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(401)).await;
    let fleet = Fleet::before(&upstream, 1, &[]).await;
    let mutations = (0..50).map(|n| keyed(ChangeKind::Create).by(&format!("made-up-{n}")));
    for mutation in mutations {
        assert_eq!(mutation.send(&fleet[0]).await.codes(), ["UNAUTHENTICATED"]);
        // Nothing is sent for it.
        let invalid = json!({ "query": "mutation { __typename }" });
        assert_eq!(mutation.with_parameters(invalid).send(&fleet[0]).await.codes(), [""; 0]);
    }
    let left: Vec<_> =
        names(&fleet.redis).await.into_iter().filter(|name| !name.contains("-records:")).collect();
    assert_eq!(left, [""; 0]);
    assert_eq!(names(&fleet.redis).await, [""; 0]);
}

#[tokio::test]
async fn a_caller_has_as_many_records_in_redis_as_in_one_gateway() {
    let upstream =
        StatefulUpstream::with(|call| (call.id == "cancel").then(|| UpstreamResponse::status(403))).await;
    let fleet = Fleet::before(&upstream, 2, &[("changes.idempotency_size", "32KiB")]).await;
    let records =
        async || names(&fleet.redis).await.into_iter().filter(|name| name.contains(":idempotency:")).count();
    // Rejected changes make room for others, and are bounded.
    for n in 0..100 {
        let rejected = keyed(ChangeKind::Cancel).with_key(&format!("rejected-{n}"));
        assert_eq!(rejected.send(&fleet[n % 2]).await.codes(), ["FORBIDDEN"]);
    }
    assert!((10..=17).contains(&records().await), "{}", records().await);
    let changes = upstream.changes();
    let mut made = 0;
    let refusal = loop {
        let reply = keyed(ChangeKind::Create).with_key(&format!("made-{made}")).send(&fleet[made % 2]).await;
        if reply.status != 200 {
            break reply;
        }
        made += 1;
    };
    assert!((10..=17).contains(&made), "{made}: replicas together allow as much as one");
    assert!(refusal.rejected(503, "OVERLOADED").contains("changes.idempotency_size"));
    let retry_after: u64 = refusal.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((300..=600).contains(&retry_after), "{retry_after}");
    assert_eq!(upstream.changes(), changes + made, "nothing was sent");
    for n in 0..made {
        keyed(ChangeKind::Create).with_key(&format!("made-{n}")).send(&fleet[1 - n % 2]).await.changed();
    }
    keyed(ChangeKind::Create).by("other").send(&fleet[0]).await.changed();
    assert_eq!(upstream.changes(), changes + made + 1, "all are recorded");
}

#[tokio::test]
async fn a_record_expires_on_all_replicas() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[("changes.idempotency_ttl", "1s")]).await;
    for round in 1..=2 {
        let first = keyed(ChangeKind::Create).send(&fleet[0]).await;
        first.changed();
        assert_eq!(upstream.changes(), round);
        sleep(Duration::from_millis(1200)).await;
        assert_eq!(names(&fleet.redis).await, [""; 0]);
    }
    // The key is free for any request, at any replica.
    keyed(ChangeKind::Cancel).send(&fleet[1]).await.changed();
}
