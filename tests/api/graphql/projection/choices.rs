//! Random choices as a list that shrinks: fewer and smaller choices make simpler cases.

use std::collections::VecDeque;

pub struct Choices(VecDeque<u16>);

impl Choices {
    pub fn new(choices: Vec<u16>) -> Self {
        Self(choices.into())
    }

    /// Whether no choices are left, so that generation ends.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One of `0..count`; 0 when it is over.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.pop_front().unwrap_or_default()) % count
    }

    /// One time in `count`; never when it is over.
    pub fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    /// One of several; the first when it is over.
    pub fn one_of<'a, T: ?Sized>(&mut self, several: &[&'a T]) -> &'a T {
        several[self.below(several.len())]
    }
}
