//! How much more than it was asked for the gateway may ask of the upstream: a token bucket that calls fill, in percent of
//! their number.

use std::sync::{Mutex, PoisonError};

/// What one extra call costs, and what each call earns for each percent.
const COST: u32 = 100;

/// The most extra calls that are saved up for a bad moment.
const MOST: u32 = 100;

/// An allowance of extra calls: of `n` calls, at most `percent` in a hundred beyond those that it begins with.
///
/// What is saved does not go stale, so an upstream that is asked seldom is repeated to as well, and time has no say.
#[derive(Debug)]
pub(crate) struct Budget {
    percent: u32,
    saved: Mutex<u32>,
}

impl Budget {
    /// One that begins with `first` extra calls; none at all at 0 percent.
    pub(crate) fn new(percent: u32, first: u32) -> Self {
        let saved = if percent == 0 { 0 } else { first.min(MOST) * COST };
        Self { percent, saved: Mutex::new(saved) }
    }

    /// A call was asked for.
    pub(crate) fn earn(&self) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        *saved = (*saved + self.percent).min(MOST * COST);
    }

    /// Takes one extra call, if there is one.
    pub(crate) fn spend(&self) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let left = saved.checked_sub(COST);
        *saved = left.unwrap_or(*saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_of_calls_is_allowed_beyond_those_to_begin_with() {
        let budget = Budget::new(20, 2);
        assert_eq!([(); 3].map(|()| budget.spend()), [true, true, false]);
        for _ in 0..4 {
            budget.earn();
            assert!(!budget.spend());
        }
        budget.earn();
        assert_eq!([(); 2].map(|()| budget.spend()), [true, false]);
    }

    #[test]
    fn at_no_percent_there_is_none() {
        let budget = Budget::new(0, 10);
        budget.earn();
        assert!(!budget.spend());
    }

    proptest! {
        #[test]
        fn no_order_of_calls_gets_more(percent in 0..=100_u32, first in 0..20_u32, spends: Vec<bool>) {
            let budget = Budget::new(percent, first);
            let (mut calls, mut extra) = (0, 0);
            for spend in spends {
                if spend {
                    extra += u32::from(budget.spend());
                } else {
                    budget.earn();
                    calls += 1;
                }
                prop_assert!(extra * 100 <= first * 100 + calls * percent);
            }
        }
    }
}
