//! The times in which a replica may not know of changes through the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::LEASE;
use crate::gateway::metrics_at;

/// The texts of the log when a replica leaves and joins the fleet.
const LEFT: &str = "the shared Redis is not available";
const JOINED: &str = "joined the fleet";

/// How long the last messages of an outage may take to reach all replicas, once all have joined.
const FLUSHED: Duration = Duration::from_millis(500);

/// Outages, from the moment at which Redis fails until all replicas have joined again.
pub struct Outages {
    start: (Instant, SystemTime),
    spans: Vec<(Instant, Instant)>,
}

/// Watches the metrics of all replicas for changes that were answered without all acknowledgements.
pub struct UnacknowledgedChanges {
    spans: Arc<Mutex<Vec<(Instant, Instant, u64)>>>,
    watching: JoinHandle<()>,
}

impl UnacknowledgedChanges {
    pub fn watch(ports: Vec<u16>) -> Self {
        const LOOK: Duration = Duration::from_millis(100);
        let spans = Arc::<Mutex<Vec<_>>>::default();
        let watching = tokio::spawn({
            let spans = spans.clone();
            async move {
                let mut last = BTreeMap::new();
                loop {
                    for port in &ports {
                        // A suspended gateway answers later.
                        let Ok(Some(metrics)) = timeout(5 * LOOK, metrics_at(*port)).await else { continue };
                        let count = ["unacknowledged", "unpublished"].iter().map(|outcome| {
                            let name = format!("gateway_shared_changes_total{{outcome=\"{outcome}\"}}");
                            metrics.get(&name).copied().unwrap_or_default() as u64
                        });
                        let (count, now) = (count.sum::<u64>(), Instant::now());
                        let (before, at) = last.insert(*port, (count, now)).unwrap_or((0, now));
                        // The counter of a new process begins at zero.
                        let new = count.checked_sub(before).unwrap_or(count);
                        if new > 0 {
                            spans.lock().unwrap().push((at, now, new));
                        }
                    }
                    sleep(LOOK).await;
                }
            }
        });
        Self { spans, watching }
    }
}

impl Drop for UnacknowledgedChanges {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Outages {
    pub fn new() -> Self {
        Self { start: (Instant::now(), SystemTime::now()), spans: Vec::new() }
    }

    /// Records an outage that began at `begin` and has ended now.
    pub fn note(&mut self, begin: Instant) {
        self.spans.push((begin, Instant::now() + FLUSHED));
    }

    /// Records the outages that only the logs of the gateways show: a replica on a busy machine may lose its lease without
    /// a fault of Redis. Returns how often a replica left the fleet.
    pub fn read_logs(&mut self, logs: &[String]) -> usize {
        let mut count = 0;
        for log in logs {
            let mut left = None;
            for line in log.lines() {
                let Some(at) = self.time_of(line) else { continue };
                if line.contains(LEFT) {
                    count += 1;
                    left.get_or_insert(at);
                } else if line.contains(JOINED)
                    && let Some(left) = left.take()
                {
                    self.note_unprompted(left, at + FLUSHED);
                }
            }
            if let Some(left) = left {
                self.note_unprompted(left, Instant::now());
            }
        }
        count
    }

    /// Records that other replicas may learn of some changes up to a lease after the answer. Returns the number of these
    /// changes, and of those among them without any outage.
    pub fn read_changes(&mut self, changes: &UnacknowledgedChanges) -> (u64, u64) {
        let spans = changes.spans.lock().unwrap().clone();
        let unprompted = spans.iter().filter(|(begin, end, _)| !(self.explain(*begin) || self.explain(*end)));
        let counts =
            (spans.iter().map(|(_, _, count)| count).sum(), unprompted.map(|(_, _, count)| count).sum());
        self.spans.extend(spans.into_iter().map(|(begin, end, _)| (begin, end + LEASE)));
        counts
    }

    fn note_unprompted(&mut self, left: Instant, end: Instant) {
        if !(self.explain(left) && self.explain(end - FLUSHED)) {
            // It was cut off up to a lease before it knew.
            self.spans.push((left - LEASE, end));
        }
    }

    fn time_of(&self, line: &str) -> Option<Instant> {
        let at = line.split_whitespace().next()?.parse::<jiff::Timestamp>().ok()?;
        let since = SystemTime::from(at).duration_since(self.start.1).ok()?;
        Some(self.start.0 + since)
    }

    /// Whether a request that began at `at` may have met a replica without the fleet.
    pub fn explain(&self, at: Instant) -> bool {
        self.spans.iter().any(|(begin, end)| *begin <= at && at <= *end)
    }

    /// The share of the time so far that is outside all outages, in percent.
    pub fn strict_percent(&self) -> u64 {
        const STEP: Duration = Duration::from_millis(10);
        let steps = (Instant::now() - self.start.0).as_millis() / STEP.as_millis();
        let is_strict = |step: &u32| !self.explain(self.start.0 + STEP * *step);
        let strict = (0..steps as u32).filter(is_strict).count() as u64;
        100 * strict / (steps as u64).max(1)
    }

    /// All times that explain old data, since the start.
    pub fn timeline(&self) -> String {
        let since = |at: &Instant| at.saturating_duration_since(self.start.0);
        let spans = self.spans.iter().map(|(begin, end)| format!("{:?} to {:?}", since(begin), since(end)));
        spans.collect::<Vec<_>>().join(", ")
    }

    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start.0)
    }
}
