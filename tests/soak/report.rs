//! The results of a run as tables.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::Ordering};

use crate::{judge::Judge, judge::Outcome, mode::Mode, upstream::Upstream};

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Right, "right"),
    (Outcome::Partial, "in part"),
    (Outcome::Failed, "an error"),
    (Outcome::Refused, "refused"),
    (Outcome::TurnedAway, "turned away"),
    (Outcome::Left, "left"),
];

/// Requests by kind and outcome.
pub fn requests(judge: &Judge) -> String {
    let outcomes = judge.outcomes();
    let mut kinds = outcomes.keys().map(|(kind, _)| *kind).collect::<Vec<_>>();
    kinds.dedup();
    let mut text = "| asked | requests |".to_owned();
    for (_, name) in OUTCOMES {
        let _ = write!(text, " {name} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(OUTCOMES.len()));
    let mut row = |name: &str, count: &dyn Fn(Outcome) -> u64| {
        let all = OUTCOMES.iter().map(|(outcome, _)| count(*outcome)).sum::<u64>();
        let _ = write!(text, "| {name} | {all} |");
        for (outcome, _) in OUTCOMES {
            let _ = write!(text, " {} |", count(outcome));
        }
        text.push('\n');
    };
    for kind in &kinds {
        row(kind, &|outcome| outcomes.get(&(kind, outcome)).copied().unwrap_or_default());
    }
    row("**all**", &|outcome| {
        outcomes.iter().filter(|((_, it), _)| *it == outcome).map(|(_, count)| count).sum()
    });
    text
}

/// The number of errors by code.
pub fn codes(codes: &BTreeMap<String, u64>) -> String {
    let codes = codes.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>();
    format!("Errors told, by code: {}.", codes.join(", "))
}

/// The number of upstream calls by mode.
pub fn modes(upstream: &Upstream) -> String {
    let calls = [Mode::Healthy].into_iter().chain(Mode::BAD);
    let calls = calls.map(|mode| (mode, upstream.counts.calls[mode as usize].load(Ordering::Relaxed)));
    let calls = calls.map(|(mode, calls)| format!("{mode:?} {calls}")).collect::<Vec<_>>();
    format!("Calls that the far side got, by its mode: {}.", calls.join(", "))
}

/// Expected values, measured values, and whether they agree.
pub struct Expectations(Vec<(String, String, bool)>);

impl Expectations {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Expects `what` to be at most `bound`.
    pub fn at_most(&mut self, what: &str, bound: u64, found: u64) {
        self.0.push((format!("{what}: at most {bound}"), found.to_string(), found <= bound));
    }

    /// Expects `what` to be at least `bound`.
    pub fn at_least(&mut self, what: &str, bound: u64, found: u64) {
        self.0.push((format!("{what}: at least {bound}"), found.to_string(), found >= bound));
    }

    /// Expects `what` to be as at the start.
    pub fn equal(&mut self, what: &str, start: f64, end: f64) {
        self.0.push((
            format!("{what}: {start}, as at the start"),
            end.to_string(),
            (end - start).abs() < 0.5,
        ));
    }

    pub fn are_kept(&self) -> bool {
        self.0.iter().all(|(_, _, is_kept)| *is_kept)
    }

    pub fn table(&self) -> String {
        let mut text = "| promised | found | |\n|---|---|---|\n".to_owned();
        for (what, found, is_kept) in &self.0 {
            let _ = writeln!(text, "| {what} | {found} | {} |", if *is_kept { "kept" } else { "**BROKEN**" });
        }
        text
    }
}
