//! One poller in the fleet for each watched appointment and caller. Its findings reach the subscribers of all replicas.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::support::{
    BusRecorder, Fleet, FleetKeys, Replica, Socket, StatefulUpstream, Subscription, TIMEOUT, Transport,
    UNCHANGED, UpstreamResponse, eventually, id,
};

/// The polling interval.
const TICK: Duration = Duration::from_secs(1);

const EACH_SECOND: [(&str, &str); 2] = [("live.fast_interval", "1s"), ("live.slow_interval", "1s")];

/// Only changes and findings bring news.
const RARELY: [(&str, &str); 2] = [("live.fast_interval", "10m"), ("live.slow_interval", "10m")];

/// Subscribers of one appointment, on all replicas and over both transports.
async fn subscribe_to_all(fleet: &Fleet, token: &str, id: &str) -> Vec<Subscription> {
    let mut subscriptions = Vec::new();
    for replica in fleet.replicas() {
        for transport in Transport::EACH {
            subscriptions.push(replica.subscribe(transport, token, id).await);
        }
    }
    subscriptions
}

async fn expect(subscriptions: &mut [Subscription], status: &str) {
    for (number, subscription) in subscriptions.iter_mut().enumerate() {
        assert_eq!(subscription.status().await, status, "subscription {number}");
    }
}

/// The number of reads in `ticks` intervals.
async fn reads_in(upstream: &StatefulUpstream, ticks: u32) -> usize {
    let before = upstream.gets();
    sleep(TICK * ticks).await;
    upstream.gets() - before
}

/// The replica that polls for the others.
async fn poller(fleet: &Fleet) -> usize {
    let start = Instant::now();
    loop {
        let mut pollers = Vec::new();
        for (index, replica) in fleet.replicas().iter().enumerate() {
            if replica.metrics().await["gateway_shared_pollers"] == 1.0 {
                pollers.push(index);
            }
        }
        if let [poller] = pollers[..] {
            return poller;
        }
        assert!(start.elapsed() < TIMEOUT, "there is one poller, not {pollers:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a read has come after the present ones, and returns the time until then.
async fn until_next_read(upstream: &StatefulUpstream) -> Duration {
    let (start, before) = (StdInstant::now(), upstream.gets());
    upstream.until(|seen| seen.calls.iter().filter(|call| !call.is_change()).count() > before).await;
    start.elapsed()
}

/// Hundreds of subscriptions to `id(1)` on a replica: some on event streams, the others on one WebSocket.
struct Crowd {
    socket: Socket,
    on_socket: usize,
    streams: Vec<Subscription>,
}

impl Crowd {
    async fn join(replica: &Replica, on_socket: usize, streams: usize) -> Self {
        let mut socket = Socket::connect(replica, "token").await;
        for number in 0..on_socket {
            let query = format!("subscription {{ appointmentChanged(id: {:?}) {{ status }} }}", id(1));
            socket.subscribe(&number.to_string(), &query).await;
        }
        let mut crowd = Self { socket, on_socket, streams: Vec::new() };
        for _ in 0..streams {
            crowd.streams.push(replica.subscribe(Transport::EventStream, "token", &id(1)).await);
        }
        crowd
    }

    /// Each subscription receives this status, once.
    async fn expect(&mut self, status: &str) {
        let mut seen = BTreeSet::new();
        for _ in 0..self.on_socket {
            let message = self.socket.receive().await;
            let data = json!({ "data": { "appointmentChanged": { "status": status } } });
            assert_eq!((&message["type"], &message["payload"]), (&json!("next"), &data));
            assert!(seen.insert(message["id"].as_str().unwrap().to_owned()), "{message} comes twice");
        }
        for stream in &mut self.streams {
            assert_eq!(stream.status().await, status);
        }
    }
}

#[tokio::test]
async fn five_hundred_subscribers_on_three_replicas_cause_one_read_per_interval() {
    let upstream = StatefulUpstream::start().await;
    let settings = [&EACH_SECOND[..], &[("websocket.max_subscriptions", "1000")]].concat();
    let mut fleet = Fleet::before(&upstream, 3, &settings).await;
    let mut crowds = Vec::new();
    for (replica, on_socket) in fleet.replicas().iter().zip([150, 150, 140]) {
        crowds.push(Crowd::join(replica, on_socket, 20).await);
    }
    for crowd in &mut crowds {
        crowd.expect(UNCHANGED).await;
    }
    let first = poller(&fleet).await;
    let reads = reads_in(&upstream, 6).await;
    assert!((4..=8).contains(&reads), "{reads} reads in 6 intervals");
    upstream.set(&id(1), "changed");
    for crowd in &mut crowds {
        crowd.expect("changed").await;
    }

    // Just after a poll, which is the worst moment.
    until_next_read(&upstream).await;
    sleep(Duration::from_millis(100)).await;
    fleet.remove(first);
    crowds.remove(first);
    let gap = until_next_read(&upstream).await;
    assert!(gap <= TICK * 2, "{gap:?} without a poll");
    upstream.set(&id(1), "changed again");
    for crowd in &mut crowds {
        crowd.expect("changed again").await;
    }
    poller(&fleet).await;
    let reads = reads_in(&upstream, 6).await;
    assert!((4..=8).contains(&reads), "{reads} reads in 6 intervals");
}

#[tokio::test]
async fn a_change_through_any_replica_reaches_all_subscribers_with_one_read() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &RARELY).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    let poller = poller(&fleet).await;
    for (round, author) in (0..9).map(|round| (round, round % 3)) {
        // By the caller of the subscriptions, and by others.
        for token in ["token", "other"] {
            let (status, before) = (format!("{round} by {token}"), upstream.gets());
            fleet[author].set_status(token, &id(1), &status).await;
            expect(&mut subscriptions, &status).await;
            // The poller's replica knows the response to its own change.
            let expected = usize::from(author != poller || token == "other");
            assert_eq!(upstream.gets() - before, expected, "{status} through {author}, {poller} polls");
        }
    }
}

#[tokio::test]
async fn findings_fill_the_caches_of_all_replicas() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &RARELY).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    let poller = poller(&fleet).await;
    fleet[(poller + 1) % 3].set_status("other", &id(1), "changed").await;
    expect(&mut subscriptions, "changed").await;
    let before = upstream.gets();
    assert_eq!(fleet.statuses("token", &id(1)).await, ["changed"; 3]);
    assert_eq!(upstream.gets(), before);
    let mut late = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut late, "changed").await;
    assert_eq!(upstream.gets(), before, "a valid state serves new subscribers");
}

#[tokio::test]
async fn findings_renew_the_state_for_new_subscribers() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &[&EACH_SECOND[..], &[("cache.ttl", "3s")]].concat()).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    poller(&fleet).await;
    sleep(Duration::from_secs(4)).await;
    let (start, before) = (Instant::now(), upstream.gets());
    let mut late = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut late, UNCHANGED).await;
    let polls = start.elapsed().as_secs_f64() / (0.9 * TICK.as_secs_f64()) + 1.0;
    let reads = upstream.gets() - before;
    assert!(reads as f64 <= polls, "{reads} reads in {:?}", start.elapsed());
}

/// Without news, an interval costs one script of the poller, one small message, and no call of the others.
#[tokio::test]
async fn an_unchanged_state_costs_one_small_message_per_interval() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &EACH_SECOND).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    let poller = poller(&fleet).await;
    // Until the others know it.
    sleep(TICK * 2).await;
    let calls = async || {
        let mut calls = Vec::new();
        for replica in fleet.replicas() {
            calls.push(replica.metrics().await["gateway_shared_calls_total{outcome=\"ok\"}"]);
        }
        calls
    };
    let before = calls().await;
    let recorder = BusRecorder::of(&fleet.redis).await;
    sleep(TICK * 6).await;
    let sizes: Vec<_> = recorder.bus().iter().map(|message| message.payload.len()).collect();
    assert!((4..=8).contains(&sizes.len()), "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 500), "{sizes:?}");
    for (index, (before, after)) in before.into_iter().zip(calls().await).enumerate() {
        let expected = if index == poller { 4.0..=8.0 } else { 0.0..=0.0 };
        assert!(expected.contains(&(after - before)), "{} calls of replica {index}", after - before);
    }
}

#[tokio::test]
async fn each_caller_has_its_own_poller_and_data() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 3, &EACH_SECOND).await;
    let tokens = ["token", "other"];
    let mut streams = Vec::new();
    for replica in fleet.replicas() {
        for token in tokens {
            streams.push((token, replica.watch(token, &id(1)).await));
        }
    }
    let mut check = async |status: &str| {
        for (token, stream) in &mut streams {
            let expected = json!({ "id": id(1), "reference": *token, "status": status });
            assert_eq!(stream.next().await, expected);
        }
    };
    check(UNCHANGED).await;
    // Leases settle.
    sleep(TICK * 2).await;
    let before = tokens.map(|token| upstream.count(|call| call.token() == token));
    sleep(TICK * 6).await;
    for (token, before) in tokens.into_iter().zip(before) {
        let reads = upstream.count(|call| call.token() == token) - before;
        assert!((4..=8).contains(&reads), "{reads} reads by {token} in 6 intervals");
    }
    upstream.set(&id(1), "changed");
    check("changed").await;
}

#[tokio::test]
async fn without_redis_each_replica_polls_and_with_it_one() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 3, &EACH_SECOND).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    poller(&fleet).await;
    fleet.parts().0.kill().await;
    fleet.until_alone().await;
    upstream.set(&id(1), "during the outage");
    expect(&mut subscriptions, "during the outage").await;
    let reads = reads_in(&upstream, 6).await;
    assert!((13..=22).contains(&reads), "{reads} reads in 6 intervals of 3 replicas");
    fleet.parts().0.run().await;
    fleet.until_joined().await;
    poller(&fleet).await;
    sleep(TICK * 2).await;
    let reads = reads_in(&upstream, 6).await;
    assert!((4..=8).contains(&reads), "{reads} reads in 6 intervals");
    upstream.set(&id(1), "after the outage");
    expect(&mut subscriptions, "after the outage").await;
}

#[tokio::test]
async fn a_redis_that_has_lost_its_data_leaves_one_poller() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 3, &EACH_SECOND).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    for round in 0..3 {
        poller(&fleet).await;
        fleet.parts().0.restart_empty().await;
        fleet.until_joined().await;
        let status = format!("round {round}");
        upstream.set(&id(1), &status);
        expect(&mut subscriptions, &status).await;
    }
    sleep(TICK * 3).await;
    let reads = reads_in(&upstream, 6).await;
    assert!((4..=8).contains(&reads), "{reads} reads in 6 intervals");
}

/// Refusals end the subscriptions of all replicas. None of them believes another.
#[tokio::test]
async fn each_replica_sees_the_end_of_access_itself() {
    for (status, code) in [(401, "UNAUTHENTICATED"), (403, "FORBIDDEN"), (404, "NOT_FOUND")] {
        let is_refused = Arc::new(AtomicBool::new(false));
        let upstream = StatefulUpstream::with({
            let is_refused = is_refused.clone();
            move |_| is_refused.load(Ordering::SeqCst).then(|| UpstreamResponse::status(status))
        })
        .await;
        let fleet = Fleet::before(&upstream, 3, &RARELY).await;
        let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
        expect(&mut subscriptions, UNCHANGED).await;
        poller(&fleet).await;
        is_refused.store(true, Ordering::SeqCst);
        let before = upstream.gets();
        // A query of one replica meets the refusal.
        let query = format!("{{ appointment(id: {:?}) {{ claimant {{ name }} }} }}", id(2));
        let reply = if status == 401 {
            fleet[0].query(Some("token"), &query).await
        } else {
            fleet[0].update("token", &id(1), json!({ "status": "x" })).await
        };
        assert_eq!(reply.codes().len(), 1, "{reply:?}");
        for subscription in &mut subscriptions {
            assert_eq!(subscription.end().await, code, "after {status}");
        }
        let reads = upstream.count(|call| !call.is_change() && call.id == id(1));
        assert!(reads >= 3, "{reads} reads: each replica has seen the {status}");
        let more = upstream.gets() - before;
        assert!(more <= 12, "{more} reads after the {status}");
    }
}

/// An answer that is neither data nor a final refusal ends the copies of all replicas, which poll no faster for it.
#[tokio::test]
async fn unusable_answers_cause_no_storm() {
    let is_teapot = Arc::new(AtomicBool::new(false));
    let upstream = StatefulUpstream::with({
        let is_teapot = is_teapot.clone();
        move |_| is_teapot.load(Ordering::SeqCst).then(|| UpstreamResponse::status(418))
    })
    .await;
    let fleet = Fleet::before(&upstream, 3, &EACH_SECOND).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    poller(&fleet).await;
    is_teapot.store(true, Ordering::SeqCst);
    let reads = reads_in(&upstream, 6).await;
    assert!((1..=20).contains(&reads), "{reads} reads in 6 intervals");
    upstream.set(&id(1), "recovered");
    is_teapot.store(false, Ordering::SeqCst);
    expect(&mut subscriptions, "recovered").await;
}

#[tokio::test]
async fn a_replica_that_shuts_down_is_replaced_at_once() {
    let upstream = StatefulUpstream::start().await;
    let settings = [("live.fast_interval", "1h"), ("live.slow_interval", "1h")];
    let mut fleet = Fleet::before(&upstream, 2, &settings).await;
    let mut subscriptions = Vec::new();
    for replica in fleet.replicas() {
        subscriptions.push(replica.subscribe(Transport::EventStream, "token", &id(1)).await);
    }
    expect(&mut subscriptions, UNCHANGED).await;
    let first = poller(&fleet).await;
    upstream.set(&id(1), "changed");
    // Its last subscriber leaves.
    subscriptions.remove(first);
    let mut rest = subscriptions;
    expect(&mut rest, "changed").await;
    assert_eq!(poller(&fleet).await, 1 - first);
    fleet.shut_down(first).await;
    let author = &fleet[0];
    author.set_status("other", &id(1), "changed again").await;
    expect(&mut rest, "changed again").await;
}

#[tokio::test]
async fn a_suspended_poller_shows_nothing_older_when_it_resumes() {
    let upstream = StatefulUpstream::start().await;
    let settings = [&EACH_SECOND[..], &[("shared.lease", "2s"), ("shared.publish_timeout", "1s")]].concat();
    let fleet = Fleet::before(&upstream, 3, &settings).await;
    let mut streams = Vec::new();
    for replica in fleet.replicas() {
        streams.push(replica.watch("token", &id(1)).await);
    }
    for stream in &mut streams {
        assert_eq!(stream.status().await, UNCHANGED);
    }
    let first = poller(&fleet).await;
    let signal = |signal| kill(Pid::from_raw(fleet[first].pid() as i32), signal).unwrap();
    signal(Signal::SIGSTOP);
    // It polls no more; another does.
    upstream.set(&id(1), "meanwhile");
    for (index, stream) in streams.iter_mut().enumerate() {
        if index != first {
            assert_eq!(stream.status().await, "meanwhile");
        }
    }
    signal(Signal::SIGCONT);
    assert_eq!(streams[first].status().await, "meanwhile");
    fleet.until_joined().await;
    upstream.set(&id(1), "afterwards");
    for stream in &mut streams {
        // Were anything older shown, it would come before this.
        assert_eq!(stream.status().await, "afterwards");
    }
    sleep(TICK * 2).await;
    let reads = reads_in(&upstream, 6).await;
    assert!((4..=8).contains(&reads), "{reads} reads in 6 intervals");
}

#[tokio::test]
async fn replicas_with_different_keys_share_one_poller_during_a_rotation() {
    let upstream = StatefulUpstream::start().await;
    let mut fleet = Fleet::before(&upstream, 1, &EACH_SECOND).await;
    let old = fleet.keys.lines()[0].clone();
    let new = FleetKeys::generate().lines()[0].clone();
    let [appended, moved] = [[old.clone(), new.clone()], [new, old]].map(|lines| FleetKeys::of(&lines));
    fleet.add(&[("shared.key_file", appended.path())]).await;
    fleet.restart(0, &[("shared.key_file", moved.path())]).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    poller(&fleet).await;
    sleep(TICK).await;
    let reads = reads_in(&upstream, 6).await;
    assert!((4..=8).contains(&reads), "{reads} reads in 6 intervals");
    upstream.set(&id(1), "changed");
    expect(&mut subscriptions, "changed").await;
}

#[tokio::test]
async fn leases_expire_and_say_nothing_about_the_appointment() {
    let upstream = StatefulUpstream::start().await;
    let fleet = Fleet::before(&upstream, 2, &EACH_SECOND).await;
    let mut subscriptions = subscribe_to_all(&fleet, "token", &id(1)).await;
    expect(&mut subscriptions, UNCHANGED).await;
    poller(&fleet).await;
    let lifetimes = fleet.redis.lifetimes().await;
    let is_lease = |name: &[u8]| name.windows(8).any(|part| part == b":poller:");
    let leases: Vec<_> = lifetimes.iter().filter(|(name, _)| is_lease(name)).collect();
    assert!(matches!(leases[..], [(_, Some(lifetime))] if *lifetime <= TICK * 2), "{leases:?}");
    for (name, values) in fleet.redis.dump().await {
        for bytes in std::iter::once(&name).chain(&values) {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains(&id(1)) && !text.contains("token"), "{text}");
        }
    }
    // The last subscribers leave.
    drop(subscriptions);
    eventually("the lease is released", async || !fleet.redis.keys().await.iter().any(|name| is_lease(name)))
        .await;
}
