//! The change bus: a client that was told about a change reads it through any replica, and a revocation ends the caller's
//! copies on all of them.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::support::{
    BusRecorder, CREATED, Call, ChangeKind, Fleet, FleetKeys, Gate, Gateway, GatewayResponse, Replica,
    RequestForm, StatefulUpstream, TIMEOUT, UNCHANGED, UpstreamResponse, eventually, id,
};

const QUERY: &str = "query ($id: UUID!) { appointment(id: $id) { id reference status } }";

/// A GET of `id(1)` as `token`, whose response is cached as a whole.
fn get(gateway: &Gateway, token: &str) -> RequestBuilder {
    let query = QUERY.replace("query ($id: UUID!) ", "").replace("$id", &format!("{:?}", id(1)));
    RequestForm::GET.request(gateway, Some(token), &query)
}

#[tokio::test]
async fn a_change_is_read_through_every_replica_at_once() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[]).await;
    for round in 0..60 {
        let (id, author) = (id(round % 4), round % 3);
        // All have a copy, so that a replica that missed the change would serve it.
        fleet.statuses("token", &id).await;
        let (expected, before) = (format!("round {round}"), upstream.gets_for(&id));
        fleet[author].set_status("token", &id, &expected).await;
        let read = fleet.statuses("token", &id).await;
        assert_eq!(read, [expected.as_str(); 3], "round {round}");
        // The author has the response to its change.
        assert_eq!(upstream.gets_for(&id) - before, 2, "round {round}");
        let again = fleet.statuses("token", &id).await;
        assert_eq!(again, read);
        assert_eq!(upstream.gets_for(&id) - before, 2, "round {round}: once for each replica");
    }
    for (index, replica) in fleet.replicas().iter().enumerate() {
        assert_eq!(replica.changes("acknowledged").await, 20.0, "replica {index}");
        assert_eq!(replica.changes("unacknowledged").await, 0.0, "replica {index}");
        assert_eq!(replica.metrics().await["gateway_shared_messages_total{kind=\"change\"}"], 60.0);
    }
}

/// Readers that never pause, so that calls are in flight at the moment of every change.
#[tokio::test]
async fn concurrent_readers_never_read_what_is_older_than_an_acknowledged_change() {
    const CHANGES: usize = 150;
    let upstream = StatefulUpstream::with(|_| None).await;
    let fleet = Arc::new(Fleet::before(&upstream, 3, &[]).await);
    let acknowledged = Arc::new(tokio::sync::watch::Sender::new(0));
    upstream.set(&id(1), "0");
    let readers = (0..6).map(|number: usize| {
        let (fleet, mut acknowledged) = (fleet.clone(), acknowledged.subscribe());
        tokio::spawn(async move {
            let token = ["token", "other"][number % 2];
            let mut reads = 0;
            while *acknowledged.borrow_and_update() < CHANGES {
                // A client that switches replicas.
                let (replica, oldest) = (&fleet[(number + reads) % 3], *acknowledged.borrow());
                let version = replica.status(token, &id(1)).await.parse::<usize>().unwrap();
                assert!(version >= oldest, "{version} after {oldest} was acknowledged");
                reads += 1;
            }
            reads
        })
    });
    let readers = readers.collect::<Vec<_>>();
    for version in 1..=CHANGES {
        fleet[version % 3].set_status("author", &id(1), &version.to_string()).await;
        acknowledged.send_replace(version);
    }
    for reader in readers {
        assert!(timeout(TIMEOUT, reader).await.unwrap().unwrap() > 0);
    }
    for replica in fleet.replicas() {
        assert_eq!(replica.changes("acknowledged").await, (CHANGES / 3) as f64);
    }
}

#[tokio::test]
async fn every_kind_of_change_ends_appointments_and_lists_on_all_replicas() {
    for kind in ChangeKind::EACH {
        let upstream = StatefulUpstream::start().await;
        upstream.set(&id(1), "before");
        let fleet =
            Fleet::before(&upstream, 2, &[("cache.list_ttl", "10m"), ("cache.absence_ttl", "10m")]).await;
        let changed = if matches!(kind, ChangeKind::Create) { CREATED.to_owned() } else { id(1) };
        let expected = match kind {
            ChangeKind::Create => "created",
            ChangeKind::Update => "waiting",
            ChangeKind::Cancel => "cancelled",
        };
        for replica in fleet.replicas() {
            replica.list("token", json!({})).await.list();
            replica.status("token", &id(2)).await;
        }
        let calls = upstream.gets();
        kind.make(&fleet[0]).await.changed();
        for replica in fleet.replicas() {
            let list = replica.list("token", json!({})).await;
            let nodes = list.list()["edges"].as_array().unwrap().clone();
            let listed = nodes.iter().find(|edge| edge["node"]["id"] == changed.as_str());
            assert_eq!(listed.unwrap()["node"]["status"], expected, "{kind:?}: {nodes:?}");
            assert_eq!(replica.status("token", &changed).await, expected, "{kind:?}");
            assert_eq!(replica.status("token", &id(2)).await, UNCHANGED);
        }
        assert_eq!(upstream.gets(), calls + 2, "{kind:?}: one page for each replica, and nothing else");
    }
}

#[tokio::test]
async fn a_change_that_may_have_been_made_ends_copies_on_all_replicas() {
    type Script = fn(&Call) -> UpstreamResponse;
    let cases: [(&str, Script); 5] = [
        ("cut", |_| UpstreamResponse::cut()),
        ("cut in the body", |call| call.changed().short_of(5)),
        ("garbage", |_| UpstreamResponse::text(200, "text/html", "<html>")),
        ("500", |_| UpstreamResponse::status(500)),
        ("never", |_| UpstreamResponse::never()),
    ];
    for (case, script) in cases {
        let upstream = StatefulUpstream::with(move |call| call.is_change().then(|| script(call))).await;
        let fleet = Fleet::before(&upstream, 2, &[("upstream.timeout", "1s")]).await;
        for replica in fleet.replicas() {
            assert_eq!(replica.status("token", &id(1)).await, UNCHANGED);
        }
        let reply = fleet[0].update("token", &id(1), json!({ "status": "perhaps" })).await;
        assert_eq!(reply.codes().len(), 1, "{case}: {reply:?}");
        // It takes effect after all, late.
        upstream.set(&id(1), "perhaps");
        for (index, replica) in fleet.replicas().iter().enumerate() {
            assert_eq!(replica.status("token", &id(1)).await, "perhaps", "{case}: replica {index}");
        }
        assert_eq!(fleet[0].changes("acknowledged").await, 1.0, "{case}");
        assert_eq!(upstream.changes(), 1, "{case}");
    }
}

/// A change with an unknown outcome may still take effect for as long as `upstream.timeout`. Until then no replica stores a
/// read.
#[tokio::test]
async fn no_replica_stores_reads_while_an_outcome_is_uncertain() {
    let upstream = StatefulUpstream::with(|call| call.is_change().then(UpstreamResponse::cut)).await;
    let fleet = Fleet::before(&upstream, 2, &[("upstream.timeout", "2s")]).await;
    fleet[1].status("token", &id(1)).await;
    let reply = fleet[0].update("token", &id(1), json!({ "status": "late" })).await;
    assert_eq!(reply.codes(), ["OUTCOME_UNKNOWN"]);
    assert_eq!(fleet[1].status("token", &id(1)).await, UNCHANGED);
    upstream.set(&id(1), "late");
    eventually("the other replica reads the late effect", async || {
        fleet[1].status("token", &id(1)).await == "late"
    })
    .await;
    let calls = upstream.gets();
    sleep(Duration::from_secs(2)).await;
    fleet[1].status("token", &id(1)).await;
    let stored = upstream.gets();
    fleet[1].status("token", &id(1)).await;
    assert_eq!(upstream.gets(), stored, "then it is stored again, after {calls} reads");
}

#[tokio::test]
async fn a_read_in_flight_on_another_replica_is_not_stored() {
    let gate = Gate::shut();
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[("upstream.timeout", "20s"), ("http.deadline", "30s")]).await;
    // The response is made before the change, and arrives after it.
    upstream.on(&id(1), {
        let (state, gate) = (upstream.state(), gate.clone());
        move |call| match call.is_change() {
            true => state.answer(call),
            false => state.answer(call).once(&gate),
        }
    });
    let first = id(1);
    let reading = fleet[1].status("token", &first);
    let changing = async {
        upstream.until_called(1).await;
        fleet[0].set_status("token", &id(1), "changed").await;
        // A new reader does not share the old call.
        let calls = upstream.gets();
        let (status, ()) = tokio::join!(fleet[1].status("token", &first), async {
            upstream.until(|seen| seen.calls.iter().filter(|call| !call.is_change()).count() > calls).await;
            gate.open();
        });
        assert_eq!(status, "changed");
    };
    let (_, ()) = tokio::join!(reading, changing);
    assert_eq!(fleet[1].status("token", &id(1)).await, "changed");
    assert_eq!(upstream.gets(), 2);
}

#[tokio::test]
async fn finished_responses_and_entity_tags_end_on_all_replicas() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let tags = join_all(fleet.replicas().iter().map(async |replica| {
        let reply = GatewayResponse::of(get(replica, "token")).await;
        let tag = reply.headers["etag"].clone();
        let again = GatewayResponse::of(get(replica, "token").header("if-none-match", &tag)).await;
        assert_eq!(again.status, 304, "{again:?}");
        tag
    }))
    .await;
    let calls = upstream.gets();
    fleet[0].set_status("token", &id(1), "changed").await;
    for (index, replica) in fleet.replicas().iter().enumerate() {
        for tag in &tags {
            let reply = GatewayResponse::of(get(replica, "token").header("if-none-match", tag)).await;
            assert_eq!(reply.status, 200, "replica {index}: {reply:?}");
            assert_eq!(reply.appointment()["status"], "changed", "replica {index}");
        }
    }
    assert_eq!(upstream.gets(), calls + 1);
}

/// A client that switches replicas still gets 304 for a copy of the same content.
#[tokio::test]
async fn replicas_agree_on_entity_tags() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[]).await;
    let tag = GatewayResponse::of(get(&fleet[0], "token")).await.headers["etag"].clone();
    let reply = GatewayResponse::of(get(&fleet[1], "token").header("if-none-match", &tag)).await;
    assert_eq!((reply.status, &reply.headers["etag"]), (304, &tag), "{reply:?}");
    let other = GatewayResponse::of(get(&fleet[1], "other").header("if-none-match", &tag)).await;
    assert_eq!(other.status, 200, "not for another caller");
}

#[tokio::test]
async fn a_revocation_ends_the_copies_of_its_caller_on_all_replicas() {
    for status in [401, 403, 404] {
        let upstream = StatefulUpstream::start().await;
        let fleet = Fleet::before(&upstream, 2, &[("cache.absence_ttl", "10m")]).await;
        for token in ["token", "other"] {
            for number in [1, 2] {
                fleet[1].status(token, &id(number)).await;
            }
        }
        upstream.on(&id(1), {
            let state = upstream.state();
            move |call| match call.token() {
                "token" => UpstreamResponse::status(status),
                _ => state.answer(call),
            }
        });
        // The first replica has no copy, so it learns of the revocation.
        let refused = fleet[0].appointment("token", &id(1)).await;
        assert_eq!(refused.body["data"]["appointment"], json!(null), "{refused:?}");
        // A 401 ends everything of the caller, without a read that it refuses.
        let ended = if status == 401 { 2 } else { 1 };
        let gets = || upstream.count(|call| call.id == id(ended) && call.token() == "token");
        let before = gets();
        eventually("the copy of the other replica ends", async || {
            fleet[1].appointment("token", &id(ended)).await;
            gets() > before
        })
        .await;
        let calls = upstream.gets();
        if status != 401 {
            fleet[1].status("token", &id(2)).await;
        }
        for number in [1, 2] {
            fleet[1].status("other", &id(number)).await;
        }
        assert_eq!(upstream.gets(), calls, "{status}: other copies last");
    }
}

#[tokio::test]
async fn a_change_waits_for_a_slow_replica() {
    const DELAY: Duration = Duration::from_millis(700);
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[]).await;
    for round in 0..3 {
        fleet[2].status("token", &id(1)).await;
        fleet[2].proxy.delay_replies(DELAY);
        let began = Instant::now();
        fleet[0].set_status("token", &id(1), &format!("round {round}")).await;
        assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
        assert_eq!(fleet[2].status("token", &id(1)).await, format!("round {round}"));
        fleet[2].proxy.mend();
    }
    assert_eq!(fleet[0].changes("acknowledged").await, 3.0);
}

#[tokio::test]
async fn a_change_waits_no_longer_than_the_publish_timeout() {
    const LEASE: Duration = Duration::from_secs(2);
    let upstream = StatefulUpstream::start().await;
    let settings = [("shared.publish_timeout", "300ms"), ("shared.lease", "2s")];
    let fleet = Fleet::before(&upstream, 2, &settings).await;
    fleet[1].status("token", &id(1)).await;
    fleet[1].proxy.hold();
    let held = Instant::now();
    fleet[0].set_status("token", &id(1), "changed").await;
    assert!(held.elapsed() >= Duration::from_millis(300), "{:?}", held.elapsed());
    assert_eq!(fleet[0].changes("unacknowledged").await, 1.0);
    // No longer than its lease.
    sleep(LEASE.saturating_sub(held.elapsed())).await;
    assert_eq!(fleet[1].status("token", &id(1)).await, "changed");
    // By now nobody waits for it.
    eventually("changes are acknowledged without the replica that is cut off", async || {
        fleet[0].set_status("token", &id(1), "again").await;
        fleet[0].changes("acknowledged").await > 0.0
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_a_replica_that_has_shut_down() {
    let upstream = StatefulUpstream::start().await;
    // Longer than the test.
    let mut fleet =
        Fleet::before(&upstream, 3, &[("shared.lease", "60s"), ("shared.publish_timeout", "10s")]).await;
    fleet.restart(2, &[]).await;
    fleet.shut_down(1).await;
    for round in 0..5 {
        fleet[0].set_status("token", &id(1), &format!("round {round}")).await;
        assert_eq!(fleet[1].status("token", &id(1)).await, format!("round {round}"));
    }
    assert_eq!(fleet[0].changes("acknowledged").await, 5.0);
}

#[tokio::test]
async fn a_replica_that_was_killed_delays_changes_no_longer_than_its_lease() {
    let upstream = StatefulUpstream::start().await;
    let settings = [("shared.lease", "1s"), ("shared.publish_timeout", "100ms")];
    let mut fleet = Fleet::before(&upstream, 3, &settings).await;
    fleet.remove(2);
    eventually("changes are acknowledged by the others", async || {
        let before = fleet[0].changes("acknowledged").await;
        fleet[0].set_status("token", &id(1), "changed").await;
        assert_eq!(fleet[1].status("token", &id(1)).await, "changed");
        fleet[0].changes("acknowledged").await > before
    })
    .await;
}

/// Each change is published while the connection of one replica breaks: it misses some of the messages.
#[tokio::test]
async fn a_replica_that_missed_messages_serves_nothing_old() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[("shared.publish_timeout", "1s")]).await;
    for round in 0..10 {
        for number in 0..3 {
            fleet[1].status("token", &id(number)).await;
        }
        let expected = format!("round {round}");
        let break_it = async {
            sleep(Duration::from_millis(round % 5)).await;
            fleet[1].proxy.interrupt();
        };
        let change = join_all((0..3).map(async |number| {
            fleet[0].set_status("token", &id(number), &expected).await;
        }));
        tokio::join!(change, break_it);
        for number in 0..3 {
            assert_eq!(fleet[1].status("token", &id(number)).await, expected, "round {round}");
        }
        fleet[1].until_joined().await;
        for number in 0..3 {
            assert_eq!(fleet[1].status("token", &id(number)).await, expected, "round {round}, joined again");
        }
    }
}

/// The replica does not know that it is cut off: nothing arrives, and nothing fails. Then its connection breaks.
#[tokio::test]
async fn a_replica_whose_messages_were_lost_revalidates_everything() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[("shared.publish_timeout", "200ms")]).await;
    for number in 0..5 {
        fleet[1].status("token", &id(number)).await;
    }
    fleet[1].proxy.hold_replies();
    fleet[0].set_status("token", &id(0), "changed").await;
    fleet[1].proxy.cut();
    fleet[1].until_alone().await;
    fleet[1].proxy.mend();
    fleet[1].until_joined().await;
    let calls = upstream.gets();
    for _ in 0..2 {
        assert_eq!(fleet[1].status("token", &id(0)).await, "changed");
        for number in 1..5 {
            assert_eq!(fleet[1].status("token", &id(number)).await, UNCHANGED);
        }
    }
    assert_eq!(upstream.gets(), calls + 5, "each entry once");
    assert_eq!(upstream.count(Call::is_conditional), 5);
}

/// Its clock goes on while it does not, so the first request after its lease already finds no trust.
#[tokio::test]
async fn a_suspended_replica_that_wakes_up_after_its_lease_serves_nothing_old() {
    let upstream = StatefulUpstream::start().await;
    let settings = [("shared.lease", "1s"), ("shared.publish_timeout", "100ms")];
    let fleet = Fleet::before(&upstream, 2, &settings).await;
    for round in 0..5 {
        fleet[1].until_joined().await;
        fleet[1].status("token", &id(1)).await;
        fleet[1].suspend();
        fleet[0].set_status("token", &id(1), &format!("round {round}")).await;
        sleep(Duration::from_millis(1100)).await;
        // Waits in the socket of the suspended process, and is among the first things that it handles.
        let first = id(1);
        let (status, ()) = tokio::join!(fleet[1].status("token", &first), async {
            sleep(Duration::from_millis(50)).await;
            fleet[1].resume();
        });
        assert_eq!(status, format!("round {round}"));
    }
}

#[tokio::test]
async fn forged_and_repeated_messages_end_no_promise() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[]).await;
    let recorder = BusRecorder::of(&fleet.redis).await;
    for round in 0..5 {
        fleet[round % 3].set_status("token", &id(1), &format!("round {round}")).await;
    }
    eventually("all is recorded", async || recorder.bus().len() >= 5 && recorder.all().len() >= 15).await;
    let recorded = recorder.all();
    let bus = recorded.iter().find(|message| message.channel.ends_with(":bus")).unwrap().clone();
    let sealed = &bus.payload[bus.payload.iter().position(|byte| *byte == b':').unwrap() + 1..];
    let next = |number: usize| [format!("{number}:").as_bytes(), sealed].concat();
    let forged = [
        b"".to_vec(),
        b":".to_vec(),
        b"garbage".to_vec(),
        b"18446744073709551615:".to_vec(),
        b"99999999999999999999999:x".to_vec(),
        b"6:garbage".to_vec(),
        vec![0; 100_000],
        next(6),
        next(1_000_000),
        next(0),
    ];
    let check = async || {
        fleet.assert_agreement().await;
        assert_eq!(join_all(fleet.replicas().iter().map(Replica::readiness)).await, [200; 3]);
    };
    for message in &recorded {
        message.repeat(&fleet.redis).await;
        check().await;
    }
    let channels =
        recorded.iter().map(|message| message.channel.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(channels.len(), 4, "the bus, and one for the acknowledgements to each replica: {channels:?}");
    for channel in channels {
        for payload in &forged {
            let message = super::support::Published { channel: channel.clone(), payload: payload.clone() };
            message.repeat(&fleet.redis).await;
            check().await;
        }
    }
}

/// A writer to Redis repeats the acknowledgements of a replica that is cut off.
#[tokio::test]
async fn repeated_acknowledgements_acknowledge_no_later_change() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &[("shared.publish_timeout", "1s")]).await;
    let recorder = BusRecorder::of(&fleet.redis).await;
    fleet[0].set_status("token", &id(1), "first").await;
    eventually("it is recorded", async || recorder.all().len() >= 2).await;
    let acknowledgements =
        recorder.all().into_iter().filter(|message| !message.channel.ends_with(":bus")).collect::<Vec<_>>();
    assert!(!acknowledgements.is_empty());
    fleet[1].proxy.hold();
    let repeat = async {
        loop {
            for acknowledgement in &acknowledgements {
                acknowledgement.repeat(&fleet.redis).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let id = id(1);
    tokio::select! {
        () = fleet[0].set_status("token", &id, "second") => {}
        () = repeat => {}
    }
    assert_eq!(fleet[0].changes("unacknowledged").await, 1.0);
}

/// The three rolling restarts of a rotation: append the new key, move it to the front, remove the old one.
#[tokio::test]
async fn replicas_agree_during_the_rotation_of_keys() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 3, &[]).await;
    let old = fleet.keys.lines()[0].clone();
    let new = FleetKeys::generate().lines()[0].clone();
    let files = [vec![old.clone(), new.clone()], vec![new.clone(), old], vec![new]];
    let files = files.map(|lines| FleetKeys::of(&lines));
    let mut round = 0;
    for (step, file) in files.iter().enumerate() {
        for restarted in 0..3 {
            fleet.restart(restarted, &[("shared.key_file", file.path())]).await;
            for author in 0..3 {
                round += 1;
                let (status, what) =
                    (format!("round {round}"), format!("step {step}.{restarted}, by {author}"));
                let all = async || fleet.statuses("token", &id(1)).await;
                all().await;
                fleet[author].set_status("token", &id(1), &status).await;
                assert_eq!(all().await, [status.as_str(); 3], "{what}");
                assert_eq!(fleet[author].changes("unacknowledged").await, 0.0, "{what}");
                // A revocation names the caller under every key.
                let watched = id(1000 + round);
                for replica in fleet.replicas() {
                    replica.status("token", &watched).await;
                }
                upstream.on(&watched, |_| UpstreamResponse::status(403));
                fleet[author].update("token", &watched, json!({ "status": "refused" })).await;
                for replica in fleet.replicas() {
                    eventually(&what, async || {
                        replica.appointment("token", &watched).await.codes() == ["FORBIDDEN"]
                    })
                    .await;
                }
            }
        }
    }
}

#[tokio::test]
async fn fleets_with_different_prefixes_do_not_hear_each_other() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &[("shared.prefix", "blue")]).await;
    let stranger = fleet.add(&[("shared.prefix", "green")]).await;
    for replica in fleet.replicas() {
        replica.status("token", &id(1)).await;
    }
    // It acknowledges nothing, and nobody waits for it.
    fleet[stranger].proxy.hold();
    fleet[0].set_status("token", &id(1), "changed").await;
    assert_eq!(fleet[0].changes("acknowledged").await, 1.0);
    fleet[stranger].proxy.mend();
    fleet[0].set_status("token", &id(1), "again").await;
    assert_eq!(fleet[1].status("token", &id(1)).await, "again");
    let metrics = fleet[stranger].metrics().await;
    assert_eq!(metrics["gateway_shared_messages_total{kind=\"change\"}"], 0.0);
    let keys = fleet.redis.keys().await;
    let has = |prefix: &[u8]| keys.iter().any(|key| key.starts_with(prefix));
    assert!(has(b"blue:") && has(b"green:"), "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with(b"blue:") || key.starts_with(b"green:")), "{keys:?}");
}

/// A replica with another key cannot read the messages of the fleet. It must not serve the copies that they end.
#[tokio::test]
async fn a_replica_with_another_key_serves_nothing_old() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &[("shared.publish_timeout", "200ms")]).await;
    let other = FleetKeys::generate();
    let stranger = fleet.add(&[("shared.key_file", other.path())]).await;
    for round in 0..5 {
        for replica in fleet.replicas() {
            replica.status("token", &id(1)).await;
        }
        let status = format!("round {round}");
        fleet[round % 2].set_status("token", &id(1), &status).await;
        assert_eq!(fleet[0].status("token", &id(1)).await, status);
        assert_eq!(fleet[1].status("token", &id(1)).await, status);
        eventually("the replica with another key distrusts its copies", async || {
            fleet[stranger].status("token", &id(1)).await == status
        })
        .await;
    }
    assert!(fleet[stranger].logged("shared.key_file") > 0);
}
