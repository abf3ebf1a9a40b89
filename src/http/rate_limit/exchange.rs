//! One rate limit per caller for all replicas of a fleet.
//!
//! Requests take tokens from the buckets of their replica, and never wait for Redis. A task reports these tokens to a bucket
//! in Redis, and learns how many the caller has taken from all replicas: a local bucket is full no earlier than that in
//! Redis. A replica that has not reported yet can exceed the limit. The excess is paid back, since it is in the bucket in
//! Redis, so it does not add up.
//!
//! While Redis fails, each replica limits on its own, and nothing is reported later.

use std::{
    sync::{LazyLock, Weak},
    time::Duration,
};

use governor::clock::DefaultClock;
use redis::Script;
use tokio::{sync::mpsc, time::sleep};

use super::buckets::{Buckets, MAX_DEBT};
use crate::fleet::Fleet;

/// The minimum time between two reports of a caller's tokens.
const INTERVAL: Duration = Duration::from_millis(100);

/// How late a report may be without making the limit stricter: a bucket in Redis that is full holds the tokens of this time
/// in addition. It covers the interval, the call, and the reports of other callers before it.
const ALLOWANCE: Duration = Duration::from_millis(200);

/// The maximum number of callers in one call.
const BATCH: usize = 128;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../../fleet/scripts/rate.lua")));

/// Exchanges tokens after each message of `activity`, until the buckets are dropped.
pub(super) async fn run(
    buckets: Weak<Buckets<DefaultClock>>,
    mut activity: mpsc::Receiver<()>,
    fleet: Fleet,
) {
    while activity.recv().await.is_some() {
        let Some(buckets) = buckets.upgrade() else { return };
        exchange(&buckets, &fleet).await;
        drop(buckets);
        sleep(INTERVAL).await;
    }
}

/// Reports all tokens that callers have taken until now.
async fn exchange(buckets: &Buckets<DefaultClock>, fleet: &Fleet) {
    let Some(names) = fleet.names() else { return };
    for callers in buckets.take_active().chunks(BATCH) {
        let reports = buckets.take_reports(callers);
        if !fleet.is_joined() {
            continue;
        }
        let asked = buckets.now();
        let keys: Vec<_> =
            reports.iter().map(|report| names.digest("rate", &[&report.scope.digest()])).collect();
        let times = reports.iter().map(|report| buckets.refill(report.tokens));
        let arguments: Vec<_> = [ALLOWANCE].into_iter().chain(times).map(micros).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
        let Ok(until_full) = fleet.call::<Vec<i64>>(&TAKE, &keys, &arguments).await else { continue };
        for (report, until_full) in reports.iter().zip(until_full) {
            if let Ok(micros @ 1..) = u64::try_from(until_full) {
                buckets.fill_later(report.scope, asked + Duration::from_micros(micros).min(MAX_DEBT));
            }
        }
    }
}

/// At least one microsecond.
fn micros(time: Duration) -> String {
    time.as_nanos().div_ceil(1000).max(1).to_string()
}
