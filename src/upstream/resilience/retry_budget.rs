//! The budget of extra calls (retries, hedged attempts): a token bucket that calls fill, in percent of their number.

use std::sync::{Mutex, PoisonError};

/// The tokens that one extra call costs. Each call earns one token per percent.
const COST: u32 = 100;

/// The capacity of the bucket, in extra calls.
const CAPACITY: u32 = 100;

/// A budget of extra calls: at most `percent` per hundred calls, beyond an initial allowance.
///
/// The budget does not depend on time, so an upstream with little traffic has retries too.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    percent: u32,
    tokens: Mutex<u32>,
}

impl RetryBudget {
    /// Creates a budget with an initial allowance of extra calls; without any at 0 percent.
    pub(crate) fn new(percent: u32, initial: u32) -> Self {
        let tokens = if percent == 0 { 0 } else { initial.min(CAPACITY) * COST };
        Self { percent, tokens: Mutex::new(tokens) }
    }

    /// Adds the tokens of one call.
    pub(crate) fn earn(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + self.percent).min(CAPACITY * COST);
    }

    /// Takes one extra call. Returns whether the budget allowed it.
    pub(crate) fn spend(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let left = tokens.checked_sub(COST);
        *tokens = left.unwrap_or(*tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extra_calls_are_a_percentage_beyond_the_initial_allowance() {
        let budget = RetryBudget::new(20, 2);
        assert_eq!([(); 3].map(|()| budget.spend()), [true, true, false]);
        for _ in 0..4 {
            budget.earn();
            assert!(!budget.spend());
        }
        budget.earn();
        assert_eq!([(); 2].map(|()| budget.spend()), [true, false]);
    }

    #[test]
    fn at_0_percent_there_are_no_extra_calls() {
        let budget = RetryBudget::new(0, 10);
        budget.earn();
        assert!(!budget.spend());
    }

    proptest! {
        #[test]
        fn no_order_of_calls_exceeds_the_budget(percent in 0..=100_u32, first in 0..20_u32, spends: Vec<bool>) {
            let budget = RetryBudget::new(percent, first);
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
