//! The latency of a route's calls. A call slower than the route's p95 may be hedged with a second attempt.

use std::time::Duration;

/// The number of buckets per power of two. A percentile is thus at most a quarter too high.
const STEPS: usize = 4;

/// The exponents of the range of the histogram: 2⁷ µs (128 µs) to 2²⁶ µs (67 s).
const FIRST: u32 = 7;
const LAST: u32 = 26;
const BUCKETS: usize = (LAST - FIRST) as usize * STEPS;

/// The minimum number of calls for a percentile.
const MIN_CALLS: u32 = 20;

/// The number of calls at which all counts are halved, so that older calls weigh less.
const MAX_CALLS: u32 = 1000;

/// A histogram of durations in which older ones decay.
#[derive(Debug)]
pub(crate) struct LatencyHistogram {
    buckets: [u32; BUCKETS],
}

impl LatencyHistogram {
    pub(crate) fn new() -> Self {
        Self { buckets: [0; BUCKETS] }
    }

    /// Adds the duration of a call.
    pub(crate) fn record(&mut self, duration: Duration) {
        self.buckets[bucket(duration)] += 1;
        if self.calls() >= MAX_CALLS {
            self.buckets.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// The 95th percentile; `None` for too few calls.
    pub(crate) fn p95(&self) -> Option<Duration> {
        let calls = self.calls();
        if calls < MIN_CALLS {
            return None;
        }
        let mut within = 0;
        let bucket = self.buckets.iter().position(|count| {
            within += count;
            within * 100 >= calls * 95
        })?;
        Some(upper_bound(bucket))
    }

    fn calls(&self) -> u32 {
        self.buckets.iter().sum()
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1 << FIRST, (1 << LAST) - 1);
    let exponent = micros.ilog2();
    // The two bits after the leading one.
    let step = (micros >> (exponent - 2)) as usize % STEPS;
    (exponent - FIRST) as usize * STEPS + step
}

fn upper_bound(bucket: usize) -> Duration {
    let exponent = FIRST + (bucket / STEPS) as u32;
    let step = (bucket % STEPS) as u64;
    Duration::from_micros((1 << exponent) + (step + 1) * (1 << (exponent - 2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentile_needs_enough_calls_and_old_ones_decay() {
        let mut latency = LatencyHistogram::new();
        for n in 0..MIN_CALLS {
            assert_eq!(latency.p95(), None, "{n}");
            latency.record(Duration::from_millis(10));
        }
        let around = |millis: u64| Duration::from_millis(millis)..=Duration::from_millis(millis * 5 / 4);
        assert!(latency.p95().is_some_and(|it| around(10).contains(&it)), "{:?}", latency.p95());
        for _ in 0..20 * MAX_CALLS {
            latency.record(Duration::from_millis(200));
        }
        assert!(latency.p95().is_some_and(|it| around(200).contains(&it)), "{:?}", latency.p95());
    }

    proptest! {
        #[test]
        fn the_p95_is_at_most_a_quarter_too_high(
            micros in prop::collection::vec(128..60_000_000_u64, MIN_CALLS as usize..500),
        ) {
            let mut latency = LatencyHistogram::new();
            micros.iter().for_each(|micros| latency.record(Duration::from_micros(*micros)));
            let mut sorted = micros;
            sorted.sort_unstable();
            let real = sorted[(sorted.len() * 95).div_ceil(100) - 1];
            let estimated = latency.p95().unwrap().as_micros() as u64;
            prop_assert!(real <= estimated && estimated <= real + real / 4 + 1, "{real} estimated as {estimated}");
        }

        #[test]
        fn any_duration_has_a_bucket(micros: u64) {
            prop_assert!(bucket(Duration::from_micros(micros)) < BUCKETS);
        }
    }
}
