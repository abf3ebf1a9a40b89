//! What a soak has counted, as tables.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::Ordering};

use crate::{far_side::FarSide, judge::Judge, judge::Outcome, mode::Mode};

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Right, "right"),
    (Outcome::Partial, "in part"),
    (Outcome::Failed, "an error"),
    (Outcome::Refused, "refused"),
    (Outcome::TurnedAway, "turned away"),
    (Outcome::Left, "left"),
];

/// What was asked, by kind and outcome.
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

/// How often each code was told.
pub fn codes(codes: &BTreeMap<String, u64>) -> String {
    let codes = codes.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>();
    format!("Errors told, by code: {}.", codes.join(", "))
}

/// How many calls the far side got in each mode.
pub fn modes(far_side: &FarSide) -> String {
    let calls = [Mode::Healthy].into_iter().chain(Mode::BAD);
    let calls = calls.map(|mode| (mode, far_side.counts.calls[mode as usize].load(Ordering::Relaxed)));
    let calls = calls.map(|(mode, calls)| format!("{mode:?} {calls}")).collect::<Vec<_>>();
    format!("Calls that the far side got, by its mode: {}.", calls.join(", "))
}

/// What has to be, what was, and whether that is well.
pub struct Promises(Vec<(String, String, bool)>);

impl Promises {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// That `what` is at most `bound`.
    pub fn at_most(&mut self, what: &str, bound: u64, found: u64) {
        self.0.push((format!("{what}: at most {bound}"), found.to_string(), found <= bound));
    }

    /// That `what` is as it was at the start.
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
