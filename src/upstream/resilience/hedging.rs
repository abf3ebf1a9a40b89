//! How long the calls of a route take: enough of it to tell when one takes unusually long.

use std::time::Duration;

/// Each doubling of the time is divided into this many classes, so a percentile is at most a quarter too long.
const PARTS: usize = 4;

/// Times are told apart from 2⁷ µs (128 µs) to 2²⁶ µs (67 s).
const FIRST: u32 = 7;
const LAST: u32 = 26;
const CLASSES: usize = (LAST - FIRST) as usize * PARTS;

/// Below this many calls, nothing is unusual yet.
const FEWEST: u32 = 20;

/// At this many calls all classes are halved, so that what was long ago counts less and less.
const MOST: u32 = 1000;

/// A histogram of durations that forgets.
#[derive(Debug)]
pub(crate) struct Latency {
    classes: [u32; CLASSES],
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { classes: [0; CLASSES] }
    }

    /// A call took this long.
    pub(crate) fn record(&mut self, took: Duration) {
        self.classes[class(took)] += 1;
        if self.calls() >= MOST {
            self.classes.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// What 95 calls in a hundred took at most, once there were enough of them.
    pub(crate) fn p95(&self) -> Option<Duration> {
        let calls = self.calls();
        if calls < FEWEST {
            return None;
        }
        let mut within = 0;
        let class = self.classes.iter().position(|count| {
            within += count;
            within * 100 >= calls * 95
        })?;
        Some(upper_bound(class))
    }

    fn calls(&self) -> u32 {
        self.classes.iter().sum()
    }
}

fn class(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1 << FIRST, (1 << LAST) - 1);
    let doubling = micros.ilog2();
    // The two bits behind the leading one.
    let part = (micros >> (doubling - 2)) as usize % PARTS;
    (doubling - FIRST) as usize * PARTS + part
}

fn upper_bound(class: usize) -> Duration {
    let doubling = FIRST + (class / PARTS) as u32;
    let part = (class % PARTS) as u64;
    Duration::from_micros((1 << doubling) + (part + 1) * (1 << (doubling - 2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_calls_tell_nothing_and_old_ones_are_forgotten() {
        let mut latency = Latency::new();
        for n in 0..FEWEST {
            assert_eq!(latency.p95(), None, "{n}");
            latency.record(Duration::from_millis(10));
        }
        let around = |millis: u64| Duration::from_millis(millis)..=Duration::from_millis(millis * 5 / 4);
        assert!(latency.p95().is_some_and(|it| around(10).contains(&it)), "{:?}", latency.p95());
        for _ in 0..20 * MOST {
            latency.record(Duration::from_millis(200));
        }
        assert!(latency.p95().is_some_and(|it| around(200).contains(&it)), "{:?}", latency.p95());
    }

    proptest! {
        #[test]
        fn ninety_five_of_a_hundred_are_within_and_not_by_much(
            micros in prop::collection::vec(128..60_000_000_u64, FEWEST as usize..500),
        ) {
            let mut latency = Latency::new();
            micros.iter().for_each(|micros| latency.record(Duration::from_micros(*micros)));
            let mut sorted = micros;
            sorted.sort_unstable();
            let real = sorted[(sorted.len() * 95).div_ceil(100) - 1];
            let told = latency.p95().unwrap().as_micros() as u64;
            prop_assert!(real <= told && told <= real + real / 4 + 1, "{real} told as {told}");
        }

        #[test]
        fn any_time_has_a_class(micros: u64) {
            prop_assert!(class(Duration::from_micros(micros)) < CLASSES);
        }
    }
}
