//! The shared Redis fails in every way: clients see no error, replicas go on alone and say so once, and afterwards they
//! agree again.

use std::{cell::Cell, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::support::{
    Call, Fleet, GatewayResponse, Redis, Replica, RequestForm, Sentinels, StatefulUpstream, TempFile,
    UNCHANGED, eventually, id, memory,
};

/// Short times, so that replicas notice an outage soon; the lease is long enough for a busy machine.
const SHORT: [(&str, &str); 3] =
    [("shared.lease", "3s"), ("shared.publish_timeout", "100ms"), ("shared.timeout", "100ms")];

/// The texts of the log at the begin and at the end of an outage.
const LEFT: &str = "the shared Redis is not available";
const JOINED: &str = "joined the fleet";

/// Reads and changes through all replicas while `disturb` runs, and fails with the first error that a client sees.
async fn disturbed(fleet: &mut Fleet, disturb: impl AsyncFnOnce(&mut Redis, &[Replica])) {
    let is_over = Cell::new(false);
    let (redis, replicas) = fleet.parts();
    let clients = replicas.iter().enumerate().map(async |(index, replica)| {
        let (id, mut requests) = (id(100 + index), 0);
        while !is_over.get() {
            requests += 1;
            let status = format!("request {requests}");
            replica.set_status("client", &id, &status).await;
            assert_eq!(replica.status("client", &id).await, status, "it reads its own changes");
            replica.status("client", &super::support::id(requests % 10)).await;
            assert_eq!(replica.readiness().await, 200);
            // Slow enough that all changes of an outage can wait to be published.
            sleep(Duration::from_millis(25)).await;
        }
        assert!(requests > 0, "clients were served");
    });
    let disturbance = async {
        disturb(redis, replicas).await;
        is_over.set(true);
    };
    tokio::join!(join_all(clients), disturbance);
}

async fn until_joined(replicas: &[Replica]) {
    join_all(replicas.iter().map(Replica::until_joined)).await;
}

async fn until_alone(replicas: &[Replica]) {
    join_all(replicas.iter().map(Replica::until_alone)).await;
}

/// Each replica has logged one line for each change of its state.
fn assert_logged(fleet: &Fleet, left: usize, joined: usize) {
    for (index, replica) in fleet.replicas().iter().enumerate() {
        let log = replica.stderr();
        let lines =
            log.lines().filter(|line| line.contains(LEFT) || line.contains(JOINED)).collect::<Vec<_>>();
        let counts = (replica.logged(LEFT), replica.logged(JOINED));
        assert_eq!(counts, (left, joined), "replica {index}: {lines:#?}");
    }
}

#[tokio::test]
async fn gateways_start_without_redis_and_join_it_later() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::sharing(Redis::stopped(&[]), &upstream, 2, &SHORT).await;
    disturbed(&mut fleet, async |redis, replicas| {
        for replica in replicas {
            replica.until_logged(LEFT, 1).await;
        }
        sleep(Duration::from_secs(3)).await;
        redis.run().await;
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    assert_logged(&fleet, 1, 1);
}

#[tokio::test]
async fn a_killed_redis_that_returns_empty_or_with_its_data() {
    for is_empty in [true, false] {
        let upstream = StatefulUpstream::start().await;
        let mut fleet = Fleet::before(&upstream, 2, &SHORT).await;
        disturbed(&mut fleet, async |redis, replicas| {
            redis.save().await;
            redis.kill().await;
            until_alone(replicas).await;
            sleep(Duration::from_secs(1)).await;
            if is_empty {
                redis.run_empty().await
            } else {
                redis.run().await
            }
            until_joined(replicas).await;
        })
        .await;
        fleet.assert_agreement().await;
        assert_logged(&fleet, 1, 2);
    }
}

#[tokio::test]
async fn a_suspended_redis() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &SHORT).await;
    for round in 1..=2 {
        disturbed(&mut fleet, async |redis, replicas| {
            redis.suspend();
            until_alone(replicas).await;
            sleep(Duration::from_secs(2)).await;
            redis.resume();
            until_joined(replicas).await;
        })
        .await;
        fleet.assert_agreement().await;
        assert_logged(&fleet, round, round + 1);
    }
}

#[tokio::test]
async fn a_redis_that_loses_its_data_or_closes_its_connections() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &SHORT).await;
    disturbed(&mut fleet, async |redis, replicas| {
        redis.flush().await;
        for replica in replicas {
            replica.until_logged(JOINED, 2).await;
        }
    })
    .await;
    fleet.assert_agreement().await;
    disturbed(&mut fleet, async |redis, replicas| {
        redis.disconnect_clients().await;
        for replica in replicas {
            replica.until_logged(JOINED, 3).await;
        }
    })
    .await;
    fleet.assert_agreement().await;
    assert_logged(&fleet, 2, 3);
}

#[tokio::test]
async fn a_full_redis() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &SHORT).await;
    disturbed(&mut fleet, async |redis, replicas| {
        let () =
            redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1mb"]).await;
        until_alone(replicas).await;
        sleep(Duration::from_secs(2)).await;
        let () = redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    assert_logged(&fleet, 1, 2);
}

#[tokio::test]
async fn a_read_only_redis() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &SHORT).await;
    disturbed(&mut fleet, async |redis, replicas| {
        // Nobody listens there.
        let () = redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
        until_alone(replicas).await;
        sleep(Duration::from_secs(2)).await;
        let () = redis.command(&["REPLICAOF", "NO", "ONE"]).await;
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    assert_logged(&fleet, 1, 2);
}

#[tokio::test]
async fn a_redis_that_refuses_the_password() {
    let password = TempFile::with("canary-of-the-fleet\n");
    let settings = [&SHORT[..], &[("shared.password_file", password.path())]].concat();
    let upstream = StatefulUpstream::start().await;
    let mut redis = Redis::with(&["--requirepass", "another"]).await;
    redis.log_in("default", "another");
    let mut fleet = Fleet::sharing(redis, &upstream, 2, &settings).await;
    disturbed(&mut fleet, async |redis, replicas| {
        for replica in replicas {
            replica.until_logged(LEFT, 1).await;
        }
        sleep(Duration::from_secs(2)).await;
        let () = redis.command(&["CONFIG", "SET", "requirepass", "canary-of-the-fleet"]).await;
        redis.log_in("default", "canary-of-the-fleet");
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    disturbed(&mut fleet, async |redis, replicas| {
        let () = redis.command(&["CONFIG", "SET", "requirepass", "changed"]).await;
        redis.log_in("default", "changed");
        redis.disconnect_clients().await;
        for replica in replicas {
            replica.until_logged(LEFT, 2).await;
        }
        sleep(Duration::from_secs(1)).await;
        let () = redis.command(&["CONFIG", "SET", "requirepass", "canary-of-the-fleet"]).await;
        redis.log_in("default", "canary-of-the-fleet");
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    assert_logged(&fleet, 2, 2);
    for replica in fleet.replicas() {
        assert_eq!(replica.logged("canary-of-the-fleet"), 0);
    }
}

#[tokio::test]
async fn a_slow_redis_slows_no_read() {
    const DELAY: Duration = Duration::from_millis(300);
    let upstream = StatefulUpstream::start().await;
    // All deadlines at their defaults.
    let defaults = [("shared.lease", "4s"), ("shared.publish_timeout", "50ms"), ("shared.timeout", "20ms")];
    let mut fleet = Fleet::before(&upstream, 2, &defaults).await;
    disturbed(&mut fleet, async |_, replicas| {
        for replica in replicas {
            replica.proxy.delay_requests(DELAY);
            replica.proxy.delay_replies(DELAY);
        }
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        for number in 0..20 {
            replicas[0].status("reader", &id(1000 + number)).await;
        }
        // Waiting for a round trip would take twelve seconds.
        assert!(began.elapsed() < 10 * DELAY, "{:?}", began.elapsed());
        for replica in replicas {
            replica.proxy.mend();
        }
    })
    .await;
    fleet.assert_agreement().await;
}

/// For a time that is long for a test, much longer than all timeouts and pauses.
#[tokio::test]
async fn a_long_outage_costs_neither_errors_nor_log_lines_nor_memory() {
    const LENGTH: Duration = Duration::from_secs(12);
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 2, &SHORT).await;
    disturbed(&mut fleet, async |redis, replicas| {
        sleep(Duration::from_secs(2)).await;
        redis.kill().await;
        until_alone(replicas).await;
        sleep(LENGTH / 4).await;
        let before =
            join_all(replicas.iter().map(async |it| (memory(it), it.metrics().await["gateway_open_files"])))
                .await;
        sleep(LENGTH).await;
        for (replica, (memory_before, files_before)) in replicas.iter().zip(before) {
            let grown = memory(replica).saturating_sub(memory_before);
            assert!(grown < 4096, "{grown} KiB more");
            let files = replica.metrics().await["gateway_open_files"];
            assert!(files < files_before + 20.0, "{files} open files after {files_before}");
        }
        redis.run_empty().await;
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    assert_logged(&fleet, 1, 2);
}

/// Messages wait for Redis up to a bound. Beyond it, all replicas distrust all copies instead.
#[tokio::test]
async fn more_changes_than_can_wait_reach_the_other_replicas_as_well() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &SHORT).await;
    let changed = [id(0), id(1199)];
    for id in &changed {
        assert_eq!(fleet[1].status("token", id).await, UNCHANGED);
    }
    fleet[0].proxy.cut();
    fleet[0].until_alone().await;
    for chunk in (0..1200).collect::<Vec<_>>().chunks(8) {
        join_all(chunk.iter().map(async |number| {
            fleet[0].set_status("token", &id(*number), "changed").await;
        }))
        .await;
    }
    fleet[0].proxy.mend();
    fleet[0].until_joined().await;
    for id in &changed {
        eventually("the other replica reads the first and the last change", async || {
            fleet[1].status("token", id).await == "changed"
        })
        .await;
    }
    fleet.assert_agreement().await;
}

/// One replica is cut off from Redis, and the others are not.
#[tokio::test]
async fn changes_of_a_replica_that_was_cut_off_reach_the_others_later() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &SHORT).await;
    for replica in fleet.replicas() {
        for number in 1..=2 {
            replica.status("token", &id(number)).await;
        }
    }
    fleet[2].proxy.hold();
    fleet[2].until_alone().await;
    fleet[2].set_status("token", &id(1), "from the one").await;
    fleet[0].set_status("token", &id(2), "from the others").await;
    assert_eq!(fleet[2].changes("unpublished").await, 1.0);
    // It does not trust its copies, but those of the others are trusted.
    assert_eq!(fleet[2].status("token", &id(2)).await, "from the others");
    assert_eq!(fleet[1].status("token", &id(2)).await, "from the others");
    assert_eq!(fleet[1].status("token", &id(1)).await, UNCHANGED);
    fleet[2].proxy.mend();
    for replica in fleet.replicas() {
        eventually("all read both changes", async || {
            replica.status("token", &id(1)).await == "from the one"
                && replica.status("token", &id(2)).await == "from the others"
        })
        .await;
    }
    fleet.assert_agreement().await;
}

/// Reads `numbers` three times through the replica. Returns the number of upstream calls, and of the conditional ones.
async fn calls_for(
    upstream: &StatefulUpstream,
    replica: &Replica,
    numbers: std::ops::Range<usize>,
) -> (usize, usize) {
    let count = || (upstream.gets(), upstream.count(Call::is_conditional));
    let before = count();
    for _ in 0..3 {
        for number in numbers.clone() {
            replica.status("token", &id(number)).await;
        }
    }
    let after = count();
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test]
async fn an_outage_revalidates_each_entry_once_and_then_serves_it() {
    let upstream = StatefulUpstream::start().await;
    let settings = [&SHORT[..], &[("shared.on_outage", "serve")]].concat();
    let mut fleet = Fleet::before(&upstream, 2, &settings).await;
    for replica in fleet.replicas() {
        assert_eq!(calls_for(&upstream, replica, 0..5).await, (5, 0));
    }
    // Nobody tells the gateways.
    upstream.set(&id(0), "changed");
    fleet.redis.kill().await;
    fleet.until_alone().await;
    for replica in fleet.replicas() {
        assert_eq!(calls_for(&upstream, replica, 0..5).await, (5, 5), "once, with the entity tag");
        assert_eq!(replica.status("token", &id(0)).await, "changed");
    }
    fleet.redis.run_empty().await;
    fleet.until_joined().await;
    for replica in fleet.replicas() {
        assert_eq!(
            calls_for(&upstream, replica, 0..5).await,
            (5, 5),
            "changes of others may have been missed"
        );
    }
}

#[tokio::test]
async fn an_outage_shortens_ttls_if_the_operator_prefers_it() {
    const OUTAGE_TTL: Duration = Duration::from_secs(3);
    let upstream = StatefulUpstream::start().await;
    let settings = [&SHORT[..], &[("shared.on_outage", "shorten"), ("shared.outage_ttl", "3s")]].concat();
    let mut fleet = Fleet::before(&upstream, 1, &settings).await;
    assert_eq!(calls_for(&upstream, &fleet[0], 0..5).await, (5, 0));
    fleet.redis.kill().await;
    fleet.until_alone().await;
    let began = Instant::now();
    let calls = calls_for(&upstream, &fleet[0], 0..5).await;
    assert!(calls == (5, 5) || began.elapsed() > OUTAGE_TTL, "{calls:?}");
    upstream.set(&id(0), "changed");
    sleep(OUTAGE_TTL).await;
    assert_eq!(fleet[0].status("token", &id(0)).await, "changed");
    fleet.redis.run_empty().await;
    fleet.until_joined().await;
    assert_eq!(calls_for(&upstream, &fleet[0], 0..5).await.0, 5);
    sleep(OUTAGE_TTL).await;
    assert_eq!(calls_for(&upstream, &fleet[0], 0..5).await, (0, 0), "for cache.ttl again");
}

/// The same for finished responses and for the copies of clients.
#[tokio::test]
async fn an_outage_revalidates_what_clients_have() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 1, &SHORT).await;
    let query = format!("{{ appointment(id: {:?}) {{ id status }} }}", id(1));
    let tag =
        GatewayResponse::of(RequestForm::GET.request(&fleet[0], Some("token"), &query)).await.headers["etag"]
            .clone();
    let validate = async |fleet: &Fleet| {
        let request = RequestForm::GET.request(&fleet[0], Some("token"), &query);
        GatewayResponse::of(request.header("if-none-match", &tag)).await
    };
    fleet.redis.kill().await;
    fleet.until_alone().await;
    for _ in 0..3 {
        assert_eq!(validate(&fleet).await.status, 304);
    }
    assert_eq!((upstream.gets(), upstream.count(Call::is_conditional)), (2, 1));
    upstream.set(&id(1), "changed");
    fleet.redis.run_empty().await;
    fleet.until_joined().await;
    let reply = validate(&fleet).await;
    assert_eq!((reply.status, &reply.appointment()["status"]), (200, &"changed".into()), "{reply:?}");
}

#[tokio::test]
async fn sentinels_fail_over_to_another_master() {
    let upstream = StatefulUpstream::start().await;
    let mut sentinels = Sentinels::start(3).await;
    let url = sentinels.url();
    let settings = [&SHORT[..], &[("shared.url", url.as_str())]].concat();
    let mut fleet = Fleet::sharing(Redis::stopped(&[]), &upstream, 3, &settings).await;
    fleet.until_joined().await;
    fleet.assert_agreement().await;
    // As an operator does for maintenance.
    disturbed(&mut fleet, async |_, replicas| {
        sentinels.fail_over().await;
        for replica in replicas {
            replica.until_logged(JOINED, 2).await;
        }
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
    // The former master has followed, and replaces the present one.
    disturbed(&mut fleet, async |_, replicas| {
        let joined = join_all(replicas.iter().map(async |replica| replica.logged(JOINED))).await;
        let port = sentinels.master_port().await;
        sentinels.master().await.kill().await;
        until_alone(replicas).await;
        sentinels.until_master_is_not(port).await;
        for (replica, joined) in replicas.iter().zip(joined) {
            replica.until_logged(JOINED, joined + 1).await;
        }
        until_joined(replicas).await;
    })
    .await;
    fleet.assert_agreement().await;
}
