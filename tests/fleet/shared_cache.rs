//! The second-level cache (`shared.cache`): replicas use the copies of each other, under the rules that hold for their own.

use std::{sync::Arc, time::Duration};

use appointments_gateway::credentials::key_ring::KeyRing;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::support::{
    BusRecorder, Call, Fleet, FleetKeys, Gate, Redis, Replica, StatefulUpstream, TIMEOUT, UNCHANGED,
    UpstreamResponse, canary::PERSONAL, eventually, id,
};

const CACHE: (&str, &str) = ("shared.cache", "true");

/// `count` replicas that share copies, with further `settings`.
async fn fleet(upstream: &StatefulUpstream, count: usize, settings: &[(&str, &str)]) -> Fleet {
    Fleet::before(upstream, count, &[&[CACHE], settings].concat()).await
}

/// The names of keys of this kind.
async fn keys(redis: &Redis, kind: &str) -> Vec<String> {
    let names = redis.keys().await.into_iter().map(|key| String::from_utf8(key).unwrap());
    names.filter(|key| key.contains(&format!(":{kind}:")) && !key.ends_with(":last")).collect()
}

/// Waits until `count` copies are stored, which happens in the background.
async fn until_shared(redis: &Redis, count: usize) {
    eventually(&format!("{count} copies are stored"), async || keys(redis, "copy").await.len() == count)
        .await;
}

/// Waits until the copy of the only appointment is another one than `before`, and returns it.
async fn until_replaced(redis: &Redis, before: &[u8]) -> Vec<u8> {
    let mut now = Vec::new();
    eventually("the copy is replaced", async || {
        now = copy(redis).await;
        now != before
    })
    .await;
    now
}

/// The value of the only copy; empty without one.
async fn copy(redis: &Redis) -> Vec<u8> {
    let keys = keys(redis, "copy").await;
    assert!(keys.len() <= 1);
    let Some(key) = keys.first() else { return Vec::new() };
    redis.command::<Option<Vec<u8>>>(&["GET", key]).await.unwrap_or_default()
}

async fn lookups(replica: &Replica, outcome: &str) -> f64 {
    replica.metrics().await[&format!("gateway_shared_cache_lookups_total{{outcome=\"{outcome}\"}}")]
}

#[tokio::test]
async fn a_fleet_asks_the_upstream_once_for_each_caller() {
    let upstream = StatefulUpstream::start().await;
    let fleet = fleet(&upstream, 3, &[]).await;
    for (number, token) in [(1, "token"), (2, "other")] {
        let replies = [
            fleet[0].appointment(token, &id(1)).await,
            {
                until_shared(&fleet.redis, number).await;
                fleet[1].appointment(token, &id(1)).await
            },
            fleet[2].appointment(token, &id(1)).await,
        ];
        for reply in &replies {
            // Each response names the caller for which it was fetched.
            assert_eq!(reply.appointment()["reference"], token, "{reply:?}");
            assert_eq!(reply.body, replies[0].body);
        }
        assert_eq!(upstream.gets(), number, "{token}");
    }
    assert_eq!(lookups(&fleet[1], "hit").await, 2.0);
    assert_eq!(lookups(&fleet[0], "miss").await, 2.0);
    assert_eq!(fleet[2].metrics().await["gateway_appointments_total{from=\"shared_cache\"}"], 2.0);
    // From now on they are copies like all others.
    for replica in fleet.replicas() {
        replica.status("token", &id(1)).await;
    }
    assert_eq!((upstream.gets(), lookups(&fleet[1], "hit").await), (2, 2.0));
}

#[tokio::test]
async fn copies_are_not_shared_unless_the_operator_says_so() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    for replica in fleet.replicas() {
        replica.status("token", &id(1)).await;
    }
    assert_eq!(upstream.gets(), 2);
    assert!(keys(&fleet.redis, "copy").await.is_empty());
    assert_eq!(lookups(&fleet[1], "miss").await + lookups(&fleet[1], "unavailable").await, 0.0);
}

#[tokio::test]
async fn a_restarted_replica_warms_up_without_the_upstream() {
    const COUNT: usize = 20;
    let upstream = StatefulUpstream::start().await;
    let mut fleet = fleet(&upstream, 1, &[]).await;
    let read_all = async |fleet: &Fleet| {
        join_all((0..COUNT).map(async |number| fleet[0].status("token", &id(number)).await)).await
    };
    let before = read_all(&fleet).await;
    until_shared(&fleet.redis, COUNT).await;
    fleet.restart(0, &[]).await;
    assert_eq!(read_all(&fleet).await, before);
    fleet.kill_and_restart(0).await;
    assert_eq!(read_all(&fleet).await, before);
    assert_eq!(upstream.gets(), COUNT);
}

#[tokio::test]
async fn a_change_is_read_through_every_replica() {
    let upstream = StatefulUpstream::start().await;
    let fleet = fleet(&upstream, 3, &[]).await;
    fleet[0].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    fleet.statuses("token", &id(1)).await;
    let mut last = copy(&fleet.redis).await;
    for round in 0..30 {
        let (author, reader, other) = (round % 3, (round + 1) % 3, (round + 2) % 3);
        let before = upstream.gets();
        let expected = format!("round {round}");
        fleet[author].set_status("token", &id(1), &expected).await;
        assert_eq!(fleet[reader].status("token", &id(1)).await, expected);
        last = until_replaced(&fleet.redis, &last).await;
        assert_eq!(fleet[other].status("token", &id(1)).await, expected);
        assert_eq!(fleet[author].status("token", &id(1)).await, expected);
        // The author has the response to its change, and the last one has the copy of the reader.
        assert_eq!(upstream.gets() - before, 1, "round {round}");
    }
}

/// Readers that never pause, so that look-ups and calls are in flight at the moment of every change.
#[tokio::test]
async fn concurrent_readers_never_read_what_is_older_than_an_acknowledged_change() {
    const CHANGES: usize = 150;
    let upstream = StatefulUpstream::start().await;
    let fleet = Arc::new(fleet(&upstream, 3, &[]).await);
    let acknowledged = Arc::new(tokio::sync::watch::Sender::new(0));
    upstream.set(&id(1), "0");
    let readers = (0..6).map(|number: usize| {
        let (fleet, mut acknowledged) = (fleet.clone(), acknowledged.subscribe());
        tokio::spawn(async move {
            let token = ["token", "other"][number % 2];
            let mut reads = 0;
            while *acknowledged.borrow_and_update() < CHANGES {
                let (replica, oldest) = (&fleet[(number + reads) % 3], *acknowledged.borrow());
                let version = replica.status(token, &id(1)).await.parse::<usize>().unwrap();
                assert!(version >= oldest, "{version} after {oldest} was acknowledged");
                reads += 1;
            }
        })
    });
    let readers = readers.collect::<Vec<_>>();
    for version in 1..=CHANGES {
        fleet[version % 3].set_status("author", &id(1), &version.to_string()).await;
        acknowledged.send_replace(version);
    }
    for reader in readers {
        timeout(TIMEOUT, reader).await.unwrap().unwrap();
    }
    let mut hits = 0.0;
    for replica in fleet.replicas() {
        assert_eq!(replica.changes("acknowledged").await, (CHANGES / 3) as f64);
        hits += lookups(replica, "hit").await;
    }
    assert!(hits > 0.0, "copies were used");
}

/// A replica reads an appointment, and another one changes it meanwhile. In the second case, the first does not even learn of
/// the change in time.
#[tokio::test]
async fn a_change_between_look_up_and_storage_leaves_nothing_old() {
    for is_deaf in [false, true] {
        let gate = Gate::shut();
        let upstream = StatefulUpstream::start().await;
        let settings = [
            ("upstream.timeout", "20s"),
            ("http.deadline", "30s"),
            ("shared.lease", "60s"),
            ("shared.publish_timeout", "300ms"),
        ];
        let mut fleet = fleet(&upstream, 2, &settings).await;
        upstream.on(&id(1), {
            let (state, gate) = (upstream.state(), gate.clone());
            move |call| match call.is_change() {
                true => state.answer(call),
                false => state.answer(call).once(&gate),
            }
        });
        let one = id(1);
        let reading = fleet[1].status("token", &one);
        let changing = async {
            upstream.until_called(1).await;
            if is_deaf {
                fleet[1].proxy.hold_replies();
            }
            fleet[0].set_status("token", &id(1), "changed").await;
            gate.open();
        };
        let (read, ()) = tokio::join!(reading, changing);
        assert_eq!(read, UNCHANGED, "the read began before the change");
        // By then it has stored everything.
        sleep(Duration::from_millis(300)).await;
        // It knows of no change, so it relies on Redis.
        let added = fleet.add(&[]).await;
        assert_eq!(fleet[added].status("token", &id(1)).await, "changed", "is deaf: {is_deaf}");
        assert_eq!(upstream.gets(), 2, "is deaf: {is_deaf}");
    }
}

#[tokio::test]
async fn a_change_with_an_unknown_outcome_leaves_nothing_old() {
    let upstream = StatefulUpstream::with(|call| call.is_change().then(UpstreamResponse::cut)).await;
    let mut fleet = fleet(&upstream, 2, &[("upstream.timeout", "2s")]).await;
    fleet[1].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    let reply = fleet[0].update("token", &id(1), json!({ "status": "late" })).await;
    assert_eq!(reply.codes(), ["OUTCOME_UNKNOWN"]);
    for replica in fleet.replicas() {
        assert_eq!(replica.status("token", &id(1)).await, UNCHANGED);
    }
    // It takes effect after all, late.
    upstream.set(&id(1), "late");
    let added = fleet.add(&[]).await;
    assert_eq!(fleet[added].status("token", &id(1)).await, "late");
}

#[tokio::test]
async fn a_revocation_ends_shared_copies_of_its_caller_only() {
    for status in [401, 403, 404] {
        let upstream = StatefulUpstream::start().await;
        let mut fleet = fleet(&upstream, 2, &[]).await;
        for token in ["token", "other"] {
            for number in [1, 2] {
                fleet[1].status(token, &id(number)).await;
            }
        }
        until_shared(&fleet.redis, 4).await;
        // A change, because a read would find the copy.
        upstream.on(&id(1), {
            let state = upstream.state();
            move |call| match call.is_change() {
                true => UpstreamResponse::status(status),
                false => state.answer(call),
            }
        });
        let refused = fleet[0].update("token", &id(1), json!({ "status": "changed" })).await;
        assert_eq!(refused.codes().len(), 1, "{refused:?}");
        let gets = |number: usize, token: &'static str| {
            upstream.count(|call| !call.is_change() && call.id == id(number) && call.token() == token)
        };
        // The replica that has learnt of the revocation uses no copy even before the others know.
        fleet[0].status("token", &id(1)).await;
        assert_eq!(gets(1, "token"), 2, "{status}");
        // A new replica has no copies of its own.
        let added = fleet.add(&[]).await;
        for number in [1, 2] {
            assert_eq!(fleet[added].status("other", &id(number)).await, UNCHANGED);
            assert_eq!(gets(number, "other"), 1, "{status}: copies of others last");
        }
        fleet[added].status("token", &id(2)).await;
        // Only a 401 ends everything of the caller.
        assert_eq!(gets(2, "token"), if status == 401 { 2 } else { 1 }, "{status}");
    }
}

#[tokio::test]
async fn made_up_tokens_leave_nothing_in_redis_and_publish_nothing() {
    let is_made_up = |call: &Call| call.token().starts_with("made-up");
    let upstream =
        StatefulUpstream::with(move |call| is_made_up(call).then(|| UpstreamResponse::status(401))).await;
    for cache in ["true", "false"] {
        let fleet = Fleet::before(&upstream, 2, &[("shared.cache", cache)]).await;
        let recorder = BusRecorder::of(&fleet.redis).await;
        let own = [":scope:", ":copy:", ":appointment:", ":bytes", ":last"];
        let count = async || {
            let keys = fleet.redis.keys().await;
            let names = keys.iter().map(|key| String::from_utf8_lossy(key));
            names.filter(|name| own.iter().any(|kind| name.contains(kind))).count()
        };
        for number in 0..40 {
            let (replica, token) = (&fleet[number % 2], format!("made-up-{number}"));
            assert_eq!(replica.appointment(&token, &id(number)).await.codes(), ["UNAUTHENTICATED"]);
            assert_eq!(replica.list(&token, json!({})).await.codes(), ["UNAUTHENTICATED"]);
            let change = replica.update(&token, &id(number), json!({ "status": "x" })).await;
            assert_eq!(change.codes(), ["UNAUTHENTICATED"]);
        }
        // Messages are in order, so those before this one would be there as well.
        fleet[0].set_status("token", &id(1), "changed").await;
        fleet[1].set_status("token", &id(2), "changed").await;
        eventually("both changes are recorded", async || recorder.bus().len() >= 2).await;
        assert_eq!(recorder.bus().len(), 2);
        eventually("the accepted caller is known", async || !keys(&fleet.redis, "scope").await.is_empty())
            .await;
        // The marker of the only caller, and the numbers of two changes.
        assert_eq!(count().await, 3, "{cache}");
    }
}

#[tokio::test]
async fn redis_holds_and_transports_nothing_that_can_be_read() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = fleet(&upstream, 2, &[]).await;
    let monitor = fleet.redis.monitor().await;
    let ids = (0..6).map(id).collect::<Vec<_>>();
    for (number, id) in ids.iter().enumerate() {
        fleet[number % 2].appointment("token", id).await.appointment();
    }
    until_shared(&fleet.redis, ids.len()).await;
    fleet[0].set_status("token", &ids[0], "changed").await;
    fleet[1].list("token", json!({})).await.list();
    upstream.on(&ids[1], |_| UpstreamResponse::status(404));
    fleet[0].update("token", &ids[1], json!({ "status": "gone" })).await;
    fleet.restart(1, &[]).await;
    fleet[1].status("token", &ids[2]).await;
    assert!(lookups(&fleet[1], "hit").await > 0.0);

    let dump = fleet.redis.dump().await;
    let (rdb, commands) = (fleet.redis.rdb().await, monitor.bytes());
    let values = dump.into_iter().flat_map(|(key, values)| [vec![key], values].concat()).collect::<Vec<_>>();
    let secrets = PERSONAL.iter().map(|text| (*text).to_owned()).chain([
        "Philomena".to_owned(),
        fleet[0].secret("token"),
        "unchanged".to_owned(),
    ]);
    let secrets = secrets.map(String::into_bytes);
    let ids = ids.iter().flat_map(|id| {
        let id = uuid::Uuid::parse_str(id).unwrap();
        [id.to_string().into_bytes(), id.simple().to_string().into_bytes(), id.into_bytes().to_vec()]
    });
    let is_in = |secret: &[u8], text: &[u8]| text.windows(secret.len()).any(|window| window == secret);
    for secret in secrets.chain(ids) {
        let printed = String::from_utf8_lossy(&secret).into_owned();
        assert!(!values.iter().any(|value| is_in(&secret, value)), "{printed} is in the data");
        assert!(!is_in(&secret, &rdb), "{printed} is in the RDB file");
        assert!(!is_in(&secret, &commands), "{printed} is in a command");
    }
    // The search works.
    let key = keys(&fleet.redis, "copy").await.pop().unwrap().into_bytes();
    assert!(is_in(&key, &rdb) && is_in(&key, &commands) && values.contains(&key));
}

#[tokio::test]
async fn every_key_of_the_cache_expires() {
    let upstream = StatefulUpstream::start().await;
    let fleet = fleet(&upstream, 2, &[("cache.ttl", "20s"), ("cache.keep_expired", "40s")]).await;
    for number in 0..5 {
        fleet[0].status("token", &id(number)).await;
    }
    until_shared(&fleet.redis, 5).await;
    fleet[0].set_status("token", &id(0), "changed").await;
    upstream.on(&id(1), |_| UpstreamResponse::status(404));
    fleet[0].update("token", &id(1), json!({ "status": "gone" })).await;
    let mut kinds = std::collections::BTreeSet::new();
    eventually("there is a key of each kind", async || {
        for (key, left) in fleet.redis.lifetimes().await {
            let key = String::from_utf8(key).unwrap();
            for kind in [":copy:", ":appointment:", ":scope:", ":bytes:", ":bytes", ":last"] {
                if key.contains(kind) {
                    // A copy lasts for 20 + 40 s, or 5 min longer than fresh if the upstream fails.
                    let left = left.unwrap_or_else(|| panic!("{key} does not expire"));
                    assert!(left <= Duration::from_secs(720), "{key} lasts {left:?}");
                    kinds.insert(kind);
                }
            }
        }
        kinds.len() == 6
    })
    .await;
}

#[tokio::test]
async fn a_flushed_redis_costs_only_calls() {
    let upstream = StatefulUpstream::start().await;
    let fleet = fleet(&upstream, 2, &[("shared.lease", "2s"), ("shared.publish_timeout", "1s")]).await;
    for round in 0..5 {
        let status = format!("round {round}");
        fleet[0].set_status("token", &id(1), &status).await;
        assert_eq!(fleet[1].status("token", &id(1)).await, status);
        fleet.redis.flush().await;
        for replica in fleet.replicas() {
            assert_eq!(replica.status("token", &id(1)).await, status);
            assert_eq!(replica.status("other", &id(1)).await, status);
        }
        // Until both have noticed, a replica may miss changes.
        sleep(Duration::from_millis(1200)).await;
        fleet.until_joined().await;
    }
    fleet[0].set_status("token", &id(2), "shared again").await;
    eventually("copies are shared again", async || {
        fleet[1].status("token", &id(2)).await;
        !keys(&fleet.redis, "copy").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn corrupted_and_foreign_values_are_misses() {
    let upstream = StatefulUpstream::start().await;
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        upstream.set(&id(number + 1), name);
    }
    let mut fleet = fleet(&upstream, 1, &[]).await;
    let statuses = async |fleet: &Fleet| {
        [fleet[0].status("token", &id(1)).await, fleet[0].status("token", &id(2)).await]
    };
    for case in ["garbage", "empty", "truncated", "swapped", "hash", "markers", "hash markers", "budgets"] {
        fleet.redis.flush().await;
        fleet.restart(0, &[]).await;
        statuses(&fleet).await;
        until_shared(&fleet.redis, 2).await;
        let copies = keys(&fleet.redis, "copy").await;
        let mut values = Vec::new();
        for key in &copies {
            values.push(fleet.redis.command::<Vec<u8>>(&["GET", key]).await);
        }
        let markers = [keys(&fleet.redis, "scope").await, keys(&fleet.redis, "appointment").await].concat();
        let set = async |key: &str, value: &[u8]| {
            let words: [&[u8]; 3] = [b"SET", key.as_bytes(), value];
            let () = fleet.redis.try_command(&words).await.unwrap();
        };
        let make_hash = async |key: &str| {
            let _: i64 = fleet.redis.command(&["DEL", key]).await;
            let _: i64 = fleet.redis.command(&["HSET", key, "a", "b"]).await;
        };
        match case {
            "markers" | "hash markers" | "budgets" => {
                let budgets = [keys(&fleet.redis, "bytes").await, vec!["gateway:bytes".to_owned()]].concat();
                for key in if case == "budgets" { &budgets } else { &markers } {
                    match case {
                        "markers" => set(key, b"garbage").await,
                        _ => make_hash(key).await,
                    }
                }
                if case == "budgets" {
                    // They say nothing about copies, which are removed so that new ones have to be stored.
                    for key in &copies {
                        let _: i64 = fleet.redis.command(&["DEL", key]).await;
                    }
                }
            }
            _ => {
                for (index, key) in copies.iter().enumerate() {
                    match case {
                        "garbage" => set(key, &[0xff; 100]).await,
                        "empty" => set(key, b"").await,
                        "truncated" => set(key, &values[index][..values[index].len() - 1]).await,
                        "swapped" => set(key, &values[1 - index]).await,
                        _ => make_hash(key).await,
                    }
                }
            }
        }
        let mut corrupted = values;
        for key in &copies {
            let words = [b"GET".as_slice(), key.as_bytes()];
            corrupted.extend(fleet.redis.try_command::<Option<Vec<u8>>>(&words).await.ok().flatten());
        }
        fleet.restart(0, &[]).await;
        let gets = upstream.gets();
        assert_eq!(statuses(&fleet).await, ["one", "two"], "{case}");
        assert_eq!(upstream.gets(), gets + 2, "{case}");
        // New copies take their place.
        eventually(&format!("copies are used again: {case}"), async || {
            let mut are_new = true;
            for key in &copies {
                let value = fleet.redis.try_command::<Option<Vec<u8>>>(&["GET", key]).await;
                are_new &= value.is_ok_and(|value| value.is_some_and(|value| !corrupted.contains(&value)));
            }
            are_new
        })
        .await;
        fleet.restart(0, &[]).await;
        assert_eq!(statuses(&fleet).await, ["one", "two"], "{case}");
        assert_eq!(upstream.gets(), gets + 2, "{case}");
    }
}

#[tokio::test]
async fn an_expired_copy_is_revalidated_by_a_conditional_request() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = fleet(&upstream, 1, &[("cache.ttl", "1s")]).await;
    fleet[0].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    fleet.restart(0, &[]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fleet[0].status("token", &id(1)).await, UNCHANGED);
    assert_eq!((upstream.gets(), upstream.count(Call::is_conditional)), (2, 1));
}

#[tokio::test]
async fn an_expired_copy_is_served_stale_while_the_upstream_fails() {
    let upstream = StatefulUpstream::start().await;
    let settings = [("cache.ttl", "2s"), ("upstream.retry_percent", "0")];
    let mut fleet = fleet(&upstream, 1, &settings).await;
    let read = Instant::now();
    fleet[0].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    fleet.restart(0, &[]).await;
    upstream.on(&id(1), |_| UpstreamResponse::status(503));
    sleep(Duration::from_millis(2100).saturating_sub(read.elapsed())).await;
    let reply = fleet[0].appointment("token", &id(1)).await;
    assert_eq!(reply.appointment()["status"], UNCHANGED, "{reply:?}");
    // Counted from the read of the replica that is no more.
    let age = reply.body["extensions"]["stale"][0]["ageSeconds"].as_u64().unwrap();
    assert!((2..=read.elapsed().as_secs() + 1).contains(&age), "{reply:?}");
}

#[tokio::test]
async fn a_copy_gets_no_younger_by_being_shared() {
    let upstream = StatefulUpstream::start().await;
    let fleet = fleet(&upstream, 3, &[("cache.ttl", "3s"), ("cache.stale_if_error", "0")]).await;
    let read = Instant::now();
    fleet[0].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    upstream.set(&id(1), "changed elsewhere");
    // The others use it for the last time.
    sleep(Duration::from_secs(2).saturating_sub(read.elapsed())).await;
    join_all(fleet.replicas().iter().map(async |replica| {
        eventually("the copy ends", async || {
            let began = Instant::now();
            let is_old = replica.status("token", &id(1)).await == UNCHANGED;
            assert!(!is_old || began - read < Duration::from_millis(4500), "{:?}", began - read);
            !is_old
        })
        .await;
    }))
    .await;
}

/// A poller has shown a state that is newer than the shared copy.
#[tokio::test]
async fn a_poller_reads_from_the_upstream() {
    let upstream = StatefulUpstream::start().await;
    let fleet =
        fleet(&upstream, 2, &[("live.fast_interval", "200ms"), ("live.slow_interval", "200ms")]).await;
    fleet[0].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    let mut subscription = fleet[1].watch("token", &id(1)).await;
    assert_eq!(subscription.status().await, UNCHANGED);
    upstream.set(&id(1), "changed elsewhere");
    assert_eq!(subscription.status().await, "changed elsewhere");
    assert_eq!(fleet[1].status("token", &id(1)).await, "changed elsewhere");
}

/// A change is made while Redis is suspended, by a replica that is not back when the other is.
#[tokio::test]
async fn copies_from_before_a_gap_are_not_used() {
    let upstream = StatefulUpstream::start().await;
    let settings = [("shared.lease", "1s"), ("shared.timeout", "500ms"), ("shared.publish_timeout", "100ms")];
    let fleet = fleet(&upstream, 2, &settings).await;
    fleet[0].status("token", &id(1)).await;
    fleet[0].status("token", &id(2)).await;
    until_shared(&fleet.redis, 2).await;
    fleet.redis.suspend();
    fleet.until_alone().await;
    fleet[0].set_status("token", &id(1), "changed").await;
    fleet[0].proxy.cut();
    fleet.redis.resume();
    fleet[1].until_joined().await;
    assert_eq!(fleet[1].status("token", &id(1)).await, "changed");
    assert_eq!(fleet[1].status("token", &id(2)).await, UNCHANGED);
    let gets = upstream.gets();
    // Its own copies are from after the gap.
    for number in [1, 2] {
        fleet[1].status("token", &id(number)).await;
    }
    assert_eq!(upstream.gets(), gets);
}

#[tokio::test]
async fn a_slow_redis_delays_a_read_by_the_timeout_only() {
    let upstream = StatefulUpstream::start().await;
    let fleet = fleet(&upstream, 2, &[("shared.timeout", "50ms"), ("shared.lease", "60s")]).await;
    fleet[0].status("token", &id(1)).await;
    until_shared(&fleet.redis, 1).await;
    fleet[1].proxy.hold_replies();
    let began = Instant::now();
    for number in 1..20 {
        assert_eq!(fleet[1].status("token", &id(number)).await, UNCHANGED);
    }
    // The circuit breaker opens soon.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(lookups(&fleet[1], "unavailable").await, 19.0);
}

#[tokio::test]
async fn one_caller_leaves_room_for_the_copies_of_others() {
    let upstream = StatefulUpstream::start().await;
    // Room for some dozens of copies, a tenth of them for each caller.
    let fleet = fleet(&upstream, 1, &[("cache.size", "64KiB"), ("cache.caller_share", "10")]).await;
    let read = async |token: &str, numbers: std::ops::Range<usize>| {
        for number in numbers {
            fleet[0].status(token, &id(number)).await;
        }
    };
    read("greedy", 0..200).await;
    let mut size = 0;
    eventually("no more copies are stored", async || {
        sleep(Duration::from_millis(100)).await;
        let before = std::mem::replace(&mut size, 0);
        for key in keys(&fleet.redis, "copy").await {
            size += fleet.redis.command::<usize>(&["STRLEN", &key]).await;
        }
        size == before
    })
    .await;
    assert!(size > 8 * 1024 && size <= 32 * 1024, "{size} bytes");
    let copies = keys(&fleet.redis, "copy").await.len();
    read("modest", 0..3).await;
    until_shared(&fleet.redis, copies + 3).await;
    read("modest", 3..100).await;
    sleep(Duration::from_millis(300)).await;
    let own = keys(&fleet.redis, "copy").await.len() - copies;
    assert!(own <= 10, "{own} of {copies}");
}

/// In the middle of a rotation, replicas use different keys. Each has copies of its own, and all of them end.
#[tokio::test]
async fn copies_under_every_key_end_during_a_rotation() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = fleet(&upstream, 0, &[]).await;
    let lines = [KeyRing::generate_line(), KeyRing::generate_line()];
    let rings = [[0, 1], [1, 0]].map(|order| FleetKeys::of(&order.map(|index| lines[index].clone())));
    for ring in &rings {
        fleet.add(&[("shared.key_file", ring.path())]).await;
    }
    for (count, status) in [(2, None), (4, Some(401))] {
        let number = count / 2;
        fleet.statuses("token", &id(number)).await;
        until_shared(&fleet.redis, count).await;
        match status {
            None => fleet[0].set_status("token", &id(number), "changed").await,
            Some(status) => {
                upstream.on(&id(number), {
                    let state = upstream.state();
                    move |call| match call.is_change() {
                        true => UpstreamResponse::status(status),
                        false => state.answer(call),
                    }
                });
                let refused = fleet[0].update("token", &id(number), json!({ "status": "x" })).await;
                assert_eq!(refused.codes().len(), 1, "{refused:?}");
            }
        }
        for ring in &rings {
            let gets = upstream.gets();
            let added = fleet.add(&[("shared.key_file", ring.path())]).await;
            fleet[added].status("token", &id(number)).await;
            assert_eq!(upstream.gets(), gets + 1, "{status:?}");
            fleet.remove(added);
        }
    }
}
