//! What may be served to whom: the model. It knows nothing of how anything is kept, only which call an answer came from
//! (each is marked by its own) and in which order everything happened.

use super::far_side::{Log, Made, Outcome, Subject};

/// A read, from when it was asked on.
#[derive(Debug, Clone)]
pub struct Read {
    pub scope: String,
    pub subject: Subject,
    pub asked: u64,
}

/// What who asked was told.
#[derive(Debug)]
pub enum Told {
    /// An appointment or a page, of the call by this number, for this token.
    Shown {
        call: usize,
        scope: String,
        is_stale: bool,
    },
    /// That there is none.
    Nothing,
    Failed(String),
}

/// How it was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From a call that was answered after it was asked.
    Call,
    /// From what was kept.
    Kept,
    /// From what was kept, past its time.
    Stale,
    /// Of a list that was kept or under way.
    Listed,
}

/// What staleness the gateway is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    Never,
    IfError,
}

/// How it was come by, if it may be told.
///
/// # Errors
/// Why it may not.
pub fn judge(log: &Log, staleness: Staleness, read: &Read, told: &Told) -> Result<Way, String> {
    match told {
        Told::Shown { call: number, scope, is_stale } => {
            let call = log.calls.get(*number).ok_or("of a call that was never made")?;
            if *scope != read.scope {
                return Err("what another caller's token fetched".to_owned());
            }
            if !matches!(call.outcome, Outcome::Shown | Outcome::ShownOnce) {
                return Err(format!("of a call that was answered {:?}", call.outcome));
            }
            if *is_stale && !may_be_stale(log, staleness, read) {
                return Err("stale, though the upstream did not fail".to_owned());
            }
            way(log, read, *number, *is_stale)
        }
        Told::Nothing => {
            let absent = |n: &usize| log.calls[*n].outcome == Outcome::Absent;
            let mut ways =
                log.reads(&read.scope, read.subject).filter(absent).map(|n| way(log, read, n, false));
            ways.find(Result::is_ok).unwrap_or(Err("nothing, which no call says".to_owned()))
        }
        Told::Failed(code) => {
            let fits = |n: usize| {
                let call = &log.calls[n];
                call.outcome.code(read.subject, false) == Some(code) && is_answered_after(call, read)
            };
            let is_fresh = log.reads(&read.scope, read.subject).any(fits);
            if is_fresh {
                Ok(Way::Call)
            } else {
                Err(format!("{code}, which no call said since it was asked"))
            }
        }
    }
}

/// What who asked cannot but have waited for, or may have.
fn is_answered_after(call: &Made, read: &Read) -> bool {
    call.released.is_some_and(|_| call.settled.is_none_or(|at| at > read.asked))
}

fn may_be_stale(log: &Log, staleness: Staleness, read: &Read) -> bool {
    let is_outage = |n: usize| {
        let call = &log.calls[n];
        matches!(call.outcome, Outcome::Failed | Outcome::Limited) && is_answered_after(call, read)
    };
    match staleness {
        Staleness::Never => false,
        Staleness::IfError => log.reads(&read.scope, read.subject).any(is_outage),
    }
}

fn way(log: &Log, read: &Read, number: usize, is_stale: bool) -> Result<Way, String> {
    let call = &log.calls[number];
    if call.scope != read.scope {
        return Err("of another caller's call".to_owned());
    }
    let is_about = call.subject == read.subject || call.subject == Subject::List;
    if !is_about {
        return Err("of another appointment".to_owned());
    }
    for (n, change) in log.calls.iter().enumerate() {
        let is_before = change.settled.is_some_and(|at| at < read.asked);
        let counts = change.has_changed() && change.subject.touches(read.subject) && is_before && n != number;
        if counts && change.released.is_some_and(|at| call.received < at) {
            return Err(format!("older than the change by call {n}"));
        }
    }
    if is_answered_after(call, read) && !is_stale {
        return Ok(if call.subject == read.subject { Way::Call } else { Way::Listed });
    }

    // From here on it was kept.
    if !call.may_be_kept {
        return Err("kept, though it must not be".to_owned());
    }
    for (n, other) in log.calls.iter().enumerate() {
        let is_doubt = other.is_in_doubt() && other.subject.touches(call.subject);
        if is_doubt && n != number && other.released.is_some_and(|at| at < call.received) {
            return Err(format!("kept, though the change by call {n} may still have been under way"));
        }
        if is_refused(other, call, read) {
            return Err(format!("kept, though call {n} was refused ({:?})", other.outcome));
        }
    }
    let is_over = |(begin, end): &(u64, u64)| call.settled.is_some_and(|at| at < *begin) && *end < read.asked;
    if !is_stale && log.pauses.iter().any(is_over) {
        return Err("past its time".to_owned());
    }
    Ok(match (is_stale, call.subject == read.subject) {
        (true, _) => Way::Stale,
        (false, true) => Way::Kept,
        (false, false) => Way::Listed,
    })
}

/// Whether what `call` brought was gone when it was read, since `other` was refused before.
fn is_refused(other: &Made, call: &Made, read: &Read) -> bool {
    let is_before = other.settled.is_some_and(|at| at < read.asked);
    if other.scope != read.scope || !is_before {
        return false;
    }
    let is_older = call.received < other.received;
    match other.outcome {
        // The token is not accepted for anything any more.
        Outcome::NotAccepted => is_older,
        Outcome::Forbidden | Outcome::Absent | Outcome::Conflict if other.subject.touches(read.subject) => {
            match (other.subject, call.subject) {
                // The list is refused, which says nothing of an appointment.
                (Subject::List, _) => read.subject == Subject::List && is_older,
                (Subject::One(_), Subject::List) => is_older,
                // A call for the appointment itself, answered later, knows better.
                (Subject::One(_), Subject::One(_)) => call.settled < other.settled,
            }
        }
        _ => false,
    }
}
