//! One rate limit per caller for all replicas, without a request that waits for Redis.

use std::{cell::Cell, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::support::{Fleet, GatewayResponse, Replica, Upstream, eventually};

/// Short times, so that replicas notice an outage soon.
const SHORT: [(&str, &str); 3] =
    [("shared.lease", "1s"), ("shared.publish_timeout", "100ms"), ("shared.timeout", "100ms")];

/// Sends an operation that needs no upstream. Whether it was admitted; it fails for no other reason.
async fn is_admitted(replica: &Replica, token: Option<&str>) -> bool {
    let reply = replica.query(token, "{ __typename }").await;
    match reply {
        GatewayResponse { status: 200, .. } if reply.codes().is_empty() => true,
        GatewayResponse { status: 429, .. } if reply.codes() == ["RATE_LIMITED"] => false,
        other => panic!("neither admitted nor limited: {other:?}"),
    }
}

/// Floods all replicas as `token` until `is_over`. Returns the number of admitted operations.
async fn flood(fleet: &[Replica], token: &str, is_over: impl Fn() -> bool) -> u32 {
    let clients = fleet.iter().flat_map(|replica| [replica; 2]).map(async |replica| {
        let mut admitted = 0;
        while !is_over() {
            admitted += u32::from(is_admitted(replica, Some(token)).await);
            sleep(Duration::from_millis(1)).await;
        }
        admitted
    });
    join_all(clients).await.iter().sum()
}

/// The number of operations that a replica admits at once, before it refuses one.
async fn burst(replica: &Replica, token: Option<&str>) -> usize {
    let mut admitted = 0;
    while is_admitted(replica, token).await {
        admitted += 1;
        assert!(admitted < 1000, "it is refused at some time");
    }
    admitted
}

#[tokio::test]
async fn a_caller_that_floods_three_replicas_is_held_to_the_rate() {
    let upstream = Upstream::start().await;
    let settings = [("rate_limit.per_second", "40"), ("rate_limit.burst", "40")];
    let fleet = Fleet::before(&upstream, 3, &settings).await;
    let begin = Instant::now();
    let flooding = flood(fleet.replicas(), "flood", || begin.elapsed() > Duration::from_secs(10));
    // Another caller has its own tokens, at any replica.
    let other = async {
        sleep(Duration::from_secs(3)).await;
        for replica in fleet.replicas() {
            for _ in 0..5 {
                assert!(is_admitted(replica, Some("other")).await);
            }
        }
    };
    let (admitted, ()) = tokio::join!(flooding, other);
    let allowed = 40.0 + 40.0 * begin.elapsed().as_secs_f64();
    let share = f64::from(admitted) / allowed;
    assert!((0.9..=1.1).contains(&share), "{admitted} of {allowed}");
}

#[tokio::test]
async fn a_burst_is_admitted_by_one_replica_and_counts_at_the_others() {
    let upstream = Upstream::start().await;
    let settings = [("rate_limit.per_second", "1"), ("rate_limit.burst", "30")];
    let fleet = Fleet::before(&upstream, 2, &settings).await;
    assert!(burst(&fleet[0], Some("token")).await >= 30);
    let mut admitted = 0;
    eventually("the other replica knows of the burst", async || {
        sleep(Duration::from_millis(50)).await;
        let is_refused = !is_admitted(&fleet[1], Some("token")).await;
        admitted += u32::from(!is_refused);
        is_refused
    })
    .await;
    assert!(admitted < 20, "it has not emptied a bucket of its own: {admitted}");
    assert!(burst(&fleet[1], Some("other")).await >= 30);
}

#[tokio::test]
async fn without_redis_each_replica_limits_on_its_own() {
    let upstream = Upstream::start().await;
    let limits = [("rate_limit.per_second", "1"), ("rate_limit.burst", "10")];
    let mut fleet = Fleet::before(&upstream, 2, &[&SHORT[..], &limits].concat()).await;
    let is_over = Cell::new(false);
    let (redis, replicas) = fleet.parts();
    let outage = async {
        redis.suspend();
        sleep(Duration::from_millis(500)).await;
        redis.resume();
        sleep(Duration::from_millis(500)).await;
        redis.kill().await;
        join_all(replicas.iter().map(Replica::until_alone)).await;
        is_over.set(true);
    };
    // `is_admitted` fails with any error but the refusal.
    tokio::join!(flood(replicas, "flood", || is_over.get()), outage);
    for replica in replicas {
        assert!(burst(replica, Some("in-the-outage")).await >= 10);
    }
    redis.run_empty().await;
    fleet.until_joined().await;
    assert!(burst(&fleet[0], Some("afterwards")).await >= 10);
    eventually("the limit is shared again", async || {
        sleep(Duration::from_millis(50)).await;
        !is_admitted(&fleet[1], Some("afterwards")).await
    })
    .await;
}

#[tokio::test]
async fn buckets_in_redis_vanish_and_none_is_without_a_caller() {
    let upstream = Upstream::start().await;
    let limits = [("rate_limit.per_second", "20"), ("rate_limit.burst", "40")];
    let fleet = Fleet::before(&upstream, 1, &limits).await;
    let buckets = async || {
        let keys = fleet.redis.keys().await;
        keys.into_iter().filter(|key| key.windows(6).any(|window| window == b":rate:")).count()
    };
    for _ in 0..30 {
        assert!(is_admitted(&fleet[0], None).await);
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(buckets().await, 0, "requests without a token");
    for _ in 0..30 {
        assert!(is_admitted(&fleet[0], Some("token")).await);
    }
    eventually("a bucket in Redis", async || buckets().await == 1).await;
    eventually("the bucket is full again", async || buckets().await == 0).await;
}
