//! Texts of automatic persisted queries that are registered with one replica and run by their hash at all of them.

use std::time::Duration;

use appointments_gateway::credentials::key_ring::KeyRing;
use redis::{FromRedisValue, Script};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::support::{
    Fleet, FleetKeys, Redis, Replica, Upstream, UpstreamResponse, id,
    persisted_query::{RequestTransport, by_hash, registering, rejection, sha256},
};

const NOT_FOUND: (&str, &str) = ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound");

/// A query for the appointment in the variable `id`, with a hash of its own for each `name`.
fn by_id(name: &str) -> String {
    format!("query {name}($id: UUID!) {{ appointment(id: $id) {{ id }} }}")
}

/// A query with a literal.
fn with_literal(name: &str) -> String {
    format!("query {name} {{ appointment(id: \"{}\") {{ id }} }}", id(1))
}

fn with_id(mut parameters: Value) -> Value {
    parameters["variables"] = json!({ "id": id(1) });
    parameters
}

async fn send(replica: &Replica, token: &str, parameters: &Value) -> Value {
    RequestTransport::Post.send(replica, token, parameters).await
}

fn data() -> Value {
    json!({ "data": { "appointment": { "id": id(1) } } })
}

/// The keys of texts in Redis, and of the sets of their owners.
async fn text_keys(redis: &Redis) -> usize {
    let is_text = |key: &&Vec<u8>| key.windows(5).any(|window| window == b":text");
    redis.keys().await.iter().filter(is_text).count()
}

#[tokio::test]
async fn a_text_registered_with_one_replica_runs_at_the_others() {
    let upstream = Upstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[]).await;
    for transport in RequestTransport::EACH {
        let text = by_id(&format!("By{transport:?}"));
        let hash = with_id(by_hash(&text));
        assert_eq!(rejection(&transport.send(&fleet[1], "token", &hash).await), NOT_FOUND);
        assert_eq!(transport.send(&fleet[0], "token", &with_id(registering(&text))).await, data());
        // A moment later at the first replica that the load balancer chooses.
        for (replica, token) in [(1, "token"), (2, "other"), (1, "other"), (0, "other")] {
            let reply = transport.send(&fleet[replica], token, &hash).await;
            assert_eq!(reply, data(), "{transport:?} {replica} {token}");
        }
    }
    let metrics = fleet[1].metrics().await;
    let count = |outcome: &str| metrics[&format!("gateway_persisted_queries_total{{outcome=\"{outcome}\"}}")];
    assert_eq!(
        ["registered", "shared", "miss"].map(count),
        [0.0, 5.0, 5.0],
        "it asks Redis once for each text"
    );
}

#[tokio::test]
async fn an_array_of_hashes_runs_at_another_replica() {
    let upstream = Upstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let texts = ["A", "B", "C"].map(by_id);
    for text in &texts {
        assert_eq!(send(&fleet[0], "token", &with_id(registering(text))).await, data());
    }
    let array = texts.iter().map(|text| with_id(by_hash(text))).collect::<Value>();
    assert_eq!(send(&fleet[1], "token", &array).await, json!([data(), data(), data()]));
}

#[tokio::test]
async fn a_text_with_a_literal_runs_only_for_its_caller() {
    let upstream = Upstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let text = with_literal("Own");
    assert_eq!(send(&fleet[0], "one", &registering(&text)).await, data());
    for replica in fleet.replicas() {
        assert_eq!(rejection(&send(replica, "other", &by_hash(&text)).await), NOT_FOUND);
        assert_eq!(send(replica, "one", &by_hash(&text)).await, data());
    }
    // The same text of another caller is another entry.
    assert_eq!(send(&fleet[1], "other", &registering(&text)).await, data());
    for replica in fleet.replicas() {
        assert_eq!(send(replica, "other", &by_hash(&text)).await, data());
    }
}

#[tokio::test]
async fn texts_are_found_while_keys_are_rotated() {
    let upstream = Upstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &[]).await;
    let (old, new) = (fleet.keys.lines()[0].clone(), KeyRing::generate_line());
    let appended = FleetKeys::of(&[old.clone(), new.clone()]);
    for replica in 0..2 {
        fleet.restart(replica, &[("shared.key_file", appended.path())]).await;
    }
    let texts = [by_id("Public"), with_literal("Private")];
    for text in &texts {
        assert_eq!(send(&fleet[0], "token", &with_id(registering(text))).await, data());
    }
    let moved = FleetKeys::of(&[new, old]);
    fleet.restart(1, &[("shared.key_file", moved.path())]).await;
    for text in &texts {
        assert_eq!(send(&fleet[1], "token", &with_id(by_hash(text))).await, data());
    }
    assert_eq!(rejection(&send(&fleet[1], "other", &by_hash(&texts[1])).await), NOT_FOUND);
}

#[tokio::test]
async fn redis_sees_no_text_and_no_hash() {
    let upstream = Upstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let monitor = fleet.redis.monitor().await;
    let (public, private) = (by_id("VeryPublicName"), with_literal("VeryPrivateName"));
    for (text, parameters) in [(&public, with_id(registering(&public))), (&private, registering(&private))] {
        assert_eq!(send(&fleet[0], "secret-caller", &parameters).await, data());
        assert_eq!(send(&fleet[1], "secret-caller", &with_id(by_hash(text))).await, data());
    }
    assert_eq!(text_keys(&fleet.redis).await, 3, "two texts and the set of their owner");
    let dump = fleet.redis.dump().await;
    let stored: Vec<u8> =
        dump.into_iter().flat_map(|(key, values)| [vec![key], values].concat()).flatten().collect();
    let places =
        [("MONITOR", monitor.bytes()), ("a dump", stored), ("the RDB file", fleet.redis.rdb().await)];
    let (public_hash, private_hash, id) = (sha256(&public), sha256(&private), id(1));
    let secrets = [
        "VeryPublicName",
        "VeryPrivateName",
        "appointment(",
        "secret-caller",
        &public_hash,
        &private_hash,
        &id,
    ];
    for (place, bytes) in places {
        assert!(bytes.len() > 100, "{place} is not empty");
        for secret in secrets {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {place}");
        }
    }
    for (key, lifetime) in fleet.redis.lifetimes().await {
        let is_text = key.windows(5).any(|window| window == b":text");
        assert!(!is_text || lifetime.is_some(), "texts do not stay forever");
    }
}

#[tokio::test]
async fn unknown_hashes_and_rejected_tokens_leave_nothing_in_redis() {
    let upstream = Upstream::answering(|call| match call.token() {
        "made-up" => UpstreamResponse::json(401, &json!({ "message": "Unauthenticated." })),
        _ => call.appointment(),
    });
    let upstream = upstream.await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    for number in 0..20 {
        let text = by_id(&format!("Unknown{number}"));
        for token in ["token", "made-up", ""] {
            assert_eq!(rejection(&send(&fleet[0], token, &with_id(by_hash(&text))).await), NOT_FOUND);
        }
        let refused = send(&fleet[0], "made-up", &with_id(registering(&text))).await;
        assert_eq!(refused["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{refused}");
        // It is data, but not from the upstream.
        let typename = format!("query Unknown{number} {{ __typename }}");
        assert_eq!(send(&fleet[0], "token", &registering(&typename)).await["data"]["__typename"], "Query");
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(text_keys(&fleet.redis).await, 0);
    // A rejected token takes no memory with texts of others either.
    let text = by_id("Known");
    assert_eq!(send(&fleet[0], "token", &with_id(registering(&text))).await, data());
    for _ in 0..3 {
        let refused = send(&fleet[1], "made-up", &with_id(by_hash(&text))).await;
        assert_eq!(refused["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{refused}");
    }
    assert_eq!(fleet[1].metrics().await["gateway_cache_entries{cache=\"persisted_queries\"}"], 0.0);
}

#[tokio::test]
async fn without_redis_clients_send_the_text_again() {
    let upstream = Upstream::start().await;
    let settings = [("shared.lease", "1s"), ("shared.publish_timeout", "100ms"), ("shared.timeout", "100ms")];
    let mut fleet = Fleet::before(&upstream, 2, &settings).await;
    let (before, during) = (by_id("Before"), by_id("During"));
    assert_eq!(send(&fleet[0], "token", &with_id(registering(&before))).await, data());
    fleet.redis.kill().await;
    // At once, while the replicas still hold their leases.
    assert_eq!(rejection(&send(&fleet[1], "token", &with_id(by_hash(&before))).await), NOT_FOUND);
    fleet.until_alone().await;
    assert_eq!(rejection(&send(&fleet[1], "token", &with_id(by_hash(&before))).await), NOT_FOUND);
    assert_eq!(send(&fleet[0], "token", &with_id(by_hash(&before))).await, data());
    for replica in fleet.replicas() {
        assert_eq!(rejection(&send(replica, "token", &with_id(by_hash(&during))).await), NOT_FOUND);
        assert_eq!(send(replica, "token", &with_id(registering(&during))).await, data());
        assert_eq!(send(replica, "token", &with_id(by_hash(&during))).await, data());
    }
    fleet.redis.run_empty().await;
    fleet.until_joined().await;
    assert_eq!(rejection(&send(&fleet[1], "token", &with_id(by_hash(&before))).await), NOT_FOUND);
    assert_eq!(send(&fleet[1], "token", &with_id(registering(&before))).await, data());
    let third = fleet.add(&[]).await;
    assert_eq!(send(&fleet[third], "token", &with_id(by_hash(&before))).await, data());
}

/// The scripts, run as a replica runs them, with names that can be read here.
struct Texts(Redis);

impl Texts {
    async fn run<T: FromRedisValue>(&self, script: &str, keys: &[&str], arguments: &[&str]) -> T {
        let script = Script::new(script);
        let mut invocation = script.prepare_invoke();
        invocation.key(keys).arg(arguments);
        invocation.invoke_async(&mut self.0.connect().await.unwrap()).await.unwrap()
    }

    /// A `caller` may have two texts, and all callers 60 bytes.
    async fn store(&self, caller: &str, name: &str) {
        let script = include_str!("../../src/fleet/scripts/store_text.lua");
        let arguments = [&format!("sealed {name}"), "60000", "2", "60"];
        self.run::<()>(script, &[name, caller, "bytes"], &arguments).await;
    }

    async fn finds(&self, name: &str) -> bool {
        let script = include_str!("../../src/fleet/scripts/find_text.lua");
        let found: Vec<String> = self.run(script, &["nothing", name], &["60000"]).await;
        assert!(found.is_empty() || found == [name, &format!("sealed {name}")]);
        !found.is_empty()
    }

    async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.0.command(&["KEYS", "*"]).await;
        keys.retain(|key| key != "bytes");
        keys.sort();
        keys
    }
}

#[tokio::test]
async fn a_caller_with_too_many_texts_loses_its_least_recently_used() {
    let texts = Texts(Redis::start().await);
    texts.store("quiet", "q").await;
    for name in ["a", "b"] {
        texts.store("busy", name).await;
    }
    assert!(texts.finds("a").await);
    texts.store("busy", "c").await;
    assert_eq!(texts.keys().await, ["a", "busy", "c", "q", "quiet"]);
    // Registered again by another caller, a text still belongs to the first one.
    texts.store("quiet", "c").await;
    texts.store("quiet", "c").await;
    assert_eq!(texts.keys().await, ["a", "busy", "c", "q", "quiet"]);
    for number in 0..10 {
        texts.store("busy", &format!("d{number}")).await;
    }
    assert_eq!(texts.keys().await, ["busy", "d8", "d9", "q", "quiet"]);
    assert!(texts.finds("q").await && !texts.finds("c").await);
}

#[tokio::test]
async fn texts_are_bounded_in_bytes_and_replaced_ones_do_not_count() {
    let texts = Texts(Redis::start().await);
    for number in 0..100 {
        texts.store("busy", &format!("b{number}")).await;
    }
    // 9 bytes each, with those of the busy caller.
    for (caller, name) in [("one", "a1"), ("one", "a2"), ("two", "a3"), ("two", "a4"), ("three", "a5")] {
        texts.store(caller, name).await;
    }
    assert_eq!(texts.keys().await, ["a1", "a2", "a3", "a4", "b98", "b99", "busy", "one", "two"]);
    let () = texts.0.command(&["DEL", "bytes"]).await;
    texts.store("three", "a5").await;
    assert!(texts.finds("a5").await);
}

#[tokio::test]
async fn a_text_of_another_caller_survives_an_outdated_set() {
    let texts = Texts(Redis::start().await);
    texts.store("busy", "a").await;
    // The text has expired, and another caller has registered it.
    let _: u32 = texts.0.command(&["DEL", "a"]).await;
    texts.store("quiet", "a").await;
    for name in ["b", "c", "d"] {
        texts.store("busy", name).await;
    }
    assert_eq!(texts.keys().await, ["a", "busy", "c", "d", "quiet"]);
}

#[tokio::test]
async fn a_used_text_and_its_set_live_longer() {
    let texts = Texts(Redis::start().await);
    texts.store("caller", "a").await;
    for key in ["a", "caller"] {
        let _: u32 = texts.0.command(&["PEXPIRE", key, "1000"]).await;
    }
    assert!(texts.finds("a").await);
    for (key, lifetime) in texts.0.lifetimes().await {
        assert!(lifetime.unwrap() > Duration::from_secs(30), "{}", String::from_utf8_lossy(&key));
    }
    // Full memory prevents no read.
    let _: () = texts.0.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(texts.finds("a").await);
}
