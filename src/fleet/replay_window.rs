//! The numbers of the messages that an origin has sent lately, so that a repeated message is recognised.

/// The numbers that are remembered below the highest one. Concurrent messages arrive in another order than their numbers,
/// but not by so much.
const WIDTH: u64 = 128;

/// The numbers of one origin, from 1.
#[derive(Debug, Default)]
pub(super) struct ReplayWindow {
    highest: u64,
    /// Bit *n* stands for the number `highest - n`.
    seen: u128,
}

impl ReplayWindow {
    /// Adds `number`. False if it was there already, or is too old to tell.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if number > self.highest {
            let shift = number - self.highest;
            self.seen = if shift < WIDTH { self.seen << shift } else { 0 };
            self.highest = number;
        }
        let age = self.highest - number;
        let bit = if age < WIDTH { 1_u128 << age } else { 0 };
        let is_new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_number_is_accepted_once(numbers in prop::collection::vec(1..400_u64, 0..400)) {
            let (mut window, mut seen, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
            for number in numbers {
                highest = highest.max(number);
                let is_new = seen.insert(number) && highest - number < WIDTH;
                prop_assert_eq!(window.insert(number), is_new, "{}", number);
            }
        }
    }

    #[test]
    fn numbers_far_apart_are_accepted() {
        let mut window = ReplayWindow::default();
        assert!(window.insert(u64::MAX - 1) && window.insert(u64::MAX) && !window.insert(u64::MAX - 1));
        assert!(!window.insert(1));
    }
}
