//! Chaos: the upstream loses the answers to creations, while clients hang up, lose patience and send them again with their
//! keys. The upstream sees each creation once, and each client is told the truth.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{
    Call, Gateway, GatewayResponse, Keyed, TIMEOUT, Upstream, UpstreamResponse, creation, id,
};

const CALLERS: usize = 4;

/// The creations of each caller.
const CREATIONS: usize = 30;

/// What the upstream does with a creation that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Created,
    CreatedAndCut,
    CreatedAndTruncated,
    CreatedAndGarbled,
    Rejected,
    Conflict,
    /// 503 after the creation, by a load balancer.
    Unavailable,
}

const FATES: [Fate; 10] = [
    Fate::Created,
    Fate::Created,
    Fate::Created,
    Fate::Created,
    Fate::CreatedAndCut,
    Fate::CreatedAndTruncated,
    Fate::CreatedAndGarbled,
    Fate::Rejected,
    Fate::Conflict,
    Fate::Unavailable,
];

/// The creations that the upstream has seen, by their references.
#[derive(Default)]
struct Seen {
    /// How often it has taken each, with its fate and id.
    taken: HashMap<String, Vec<(Fate, String)>>,
    /// Creations that it has refused to take (429).
    refused: usize,
    rng: fastrand::Rng,
}

impl Seen {
    fn answer(&mut self, call: &Call) -> UpstreamResponse {
        if !call.is_change() {
            let owner = self.taken.iter().find(|(_, taken)| taken.iter().any(|(_, id)| *id == call.id));
            let reference = owner.map(|(reference, _)| reference.clone()).expect("a created appointment");
            assert!(reference.starts_with(call.token()), "another caller reads {reference}");
            return appointment(200, &call.id, &reference);
        }
        let reference = call.json()["reference"].as_str().unwrap().to_owned();
        assert!(reference.starts_with(call.token()), "another caller creates {reference}");
        if self.rng.u8(0..4) == 0 {
            self.refused += 1;
            return UpstreamResponse::status(429).with("Retry-After", "0");
        }
        let fate = FATES[self.rng.usize(0..FATES.len())];
        let created = id(1_000 + self.taken.len());
        self.taken.entry(reference.clone()).or_default().push((fate, created.clone()));
        let made = appointment(201, &created, &reference);
        let answer = match fate {
            Fate::Created => made,
            Fate::CreatedAndCut => UpstreamResponse::cut(),
            Fate::CreatedAndTruncated => made.short_of(7),
            Fate::CreatedAndGarbled => UpstreamResponse::text(201, "application/json", "<html>"),
            Fate::Rejected => UpstreamResponse::json(422, &json!({ "errors": { "reference": ["no"] } })),
            Fate::Conflict => UpstreamResponse::status(409),
            Fate::Unavailable => UpstreamResponse::status(503),
        };
        answer.after(Duration::from_millis(self.rng.u64(0..60)))
    }
}

fn appointment(status: u16, id: &str, reference: &str) -> UpstreamResponse {
    UpstreamResponse::json(status, &json!({ "data": { "id": id, "reference": reference, "status": "new" } }))
}

/// Sends the creation until there is a final answer, as an app on a bad network does: it hangs up, lets the gateway time
/// out, sends two requests at once, and waits in between.
async fn create(gateway: &Gateway, mutation: &Keyed, mut rng: fastrand::Rng) -> GatewayResponse {
    loop {
        sleep(Duration::from_millis(rng.u64(0..20))).await;
        let request = mutation.request(gateway);
        let reply = match rng.u8(0..6) {
            // Hangs up.
            0 | 1 => {
                let patience = Duration::from_millis(rng.u64(0..40));
                let _ = timeout(patience, request.send()).await;
                continue;
            }
            // The outcome may become known later.
            2 => {
                let limit = format!("{}ms", rng.u64(1..40));
                let reply = GatewayResponse::of(request.header("x-request-timeout", limit)).await;
                if matches!(reply.codes()[..], ["OUTCOME_UNKNOWN" | "UPSTREAM_TIMEOUT"]) {
                    continue;
                }
                reply
            }
            3 => {
                let (one, other) = tokio::join!(mutation.send(gateway), mutation.send(gateway));
                if one.codes() != ["RATE_LIMITED"] && other.codes() != ["RATE_LIMITED"] {
                    assert_eq!(one.body, other.body, "two answers at once");
                }
                one
            }
            _ => GatewayResponse::of(request).await,
        };
        if reply.codes() != ["RATE_LIMITED"] {
            return reply;
        }
    }
}

#[track_caller]
fn assert_true(reply: &GatewayResponse, reference: &str, (fate, id): &(Fate, String)) {
    let payload = &reply.body["data"]["createAppointment"];
    let codes = reply.codes();
    match fate {
        Fate::Created => {
            let appointment = json!({ "id": id, "reference": reference, "status": "new" });
            assert_eq!(payload, &json!({ "appointment": appointment, "userErrors": [] }), "{reference}");
        }
        Fate::CreatedAndCut | Fate::CreatedAndTruncated | Fate::CreatedAndGarbled => {
            assert_eq!((codes, payload), (vec!["OUTCOME_UNKNOWN"], &Value::Null), "{reference}: {fate:?}");
        }
        Fate::Rejected => {
            assert_eq!(payload["userErrors"][0]["field"], json!(["reference"]), "{reference}");
            assert_eq!((codes, &payload["appointment"]), (vec![], &Value::Null), "{reference}");
        }
        Fate::Conflict => assert_eq!(codes, ["CONFLICT"], "{reference}"),
        Fate::Unavailable => assert_eq!(codes, ["UPSTREAM_UNAVAILABLE"], "{reference}"),
    }
}

async fn run(seed: u64, settings: &[(&str, &str)]) {
    let seen = Arc::new(Mutex::new(Seen { rng: fastrand::Rng::with_seed(seed), ..Seen::default() }));
    let upstream = Upstream::answering({
        let seen = seen.clone();
        move |call| seen.lock().unwrap().answer(call)
    })
    .await;
    let gateway = Gateway::before(upstream.url(), settings).await;
    let creations = (0..CALLERS).flat_map(|caller| (0..CREATIONS).map(move |n| (caller, n)));
    let clients = creations.map(|(caller, n)| {
        let (token, gateway) = (format!("caller-{caller}"), &gateway);
        let reference = format!("{token}/{n}");
        let input = json!({ "appointmentAt": "2031-03-01T09:00:00Z", "reference": reference });
        // Callers use the same keys.
        let mutation = Keyed::of(&token, &format!("creation-{n}"), creation(input));
        let rng = fastrand::Rng::with_seed(seed ^ ((caller * CREATIONS + n) as u64) << 8);
        async move {
            let reply = timeout(TIMEOUT * 2, create(gateway, &mutation, rng)).await.expect("a final answer");
            (reference, mutation, reply)
        }
    });
    for (reference, mutation, reply) in join_all(clients).await {
        let taken = seen.lock().unwrap().taken[&reference].clone();
        assert_eq!(taken.len(), 1, "seed {seed}: the upstream saw {reference} so often: {taken:?}");
        assert_true(&reply, &reference, &taken[0]);
        // Long after, too.
        assert_true(&mutation.send(&gateway).await, &reference, &taken[0]);
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.taken.len(), CALLERS * CREATIONS);
    assert!(seen.taken.values().all(|taken| taken.len() == 1));
    assert!(seen.refused > 0 && seen.taken.values().any(|taken| taken[0].0 == Fate::CreatedAndCut));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_creation_is_made_once_and_each_client_told_the_truth() {
    let seed = fastrand::u64(..);
    run(seed, &[("upstream.timeout", "20s")]).await;
    // Without cached appointments, each repeat reads; with one call at a time, changes wait and are given up.
    run(seed + 1, &[("upstream.timeout", "20s"), ("cache.ttl", "0"), ("upstream.max_concurrent", "3")]).await;
}
