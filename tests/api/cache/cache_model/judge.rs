//! The model: which data may be served to which caller. It knows no cache, only the order of events and the call from
//! which a response came, which each response carries as a mark.

use super::upstream::{Ends, Log, Made, Meaning, Outcome, Subject};

/// A read, from the moment of its sending on. A new subscription is one too.
#[derive(Debug, Clone)]
pub struct Read {
    pub scope: String,
    pub subject: Subject,
    pub asked: u64,
}

/// The content of a response.
#[derive(Debug)]
pub enum Observed {
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

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// From a call that was answered after the read began.
    Call,
    /// From a cached copy.
    Cached,
    /// From a cached copy, past its time.
    Stale,
    /// From a copy that the upstream has confirmed with a 304.
    Renewed,
    /// From a list that was cached or in flight.
    Listed,
    /// To a new subscription.
    Watched,
}

/// Whether stale copies may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    Never,
    IfError,
}

/// Where the answer to a read came from, if it is allowed.
///
/// # Errors
/// Why it is not.
pub fn judge(log: &Log, staleness: Staleness, read: &Read, told: &Observed) -> Result<Source, String> {
    match told {
        Observed::Shown { call: number, scope, is_stale } => {
            shown(log, read, *number, scope)?;
            if *is_stale && !may_be_stale(log, staleness, read) {
                return Err("stale, though the upstream did not fail".to_owned());
            }
            // Without a renewal of its own, each copy is judged by the call that brought it.
            let mut ways = log.copies(*number).map(|n| {
                let way = way(log, read, &log.calls[n], n, *is_stale)?;
                Ok(if n == *number { way } else { Source::Renewed })
            });
            let first = ways.next().expect("the call itself");
            first.or_else(|fault| ways.find(Result::is_ok).unwrap_or(Err(fault)))
        }
        Observed::Nothing => {
            let absent = |n: &usize| log.calls[*n].outcome.meaning(read.subject) == Meaning::Absent;
            let mut ways = log
                .reads(&read.scope, read.subject)
                .filter(absent)
                .map(|n| way(log, read, &log.calls[n], n, false));
            ways.find(Result::is_ok).unwrap_or(Err("nothing, which no call says".to_owned()))
        }
        Observed::Failed(code) => {
            let fits = |n: usize| {
                let call = &log.calls[n];
                call.outcome.codes(read.subject).contains(&&**code)
                    && is_answered_after(call, read)
                    && joins_nothing_ended(log, read, call).is_ok()
            };
            if log.reads(&read.scope, read.subject).any(fits) {
                Ok(Source::Call)
            } else {
                Err(format!("{code}, which no call said since it was asked"))
            }
        }
    }
}

/// Whether the first event of a subscription is allowed: it is a read that is never served a stale copy.
///
/// # Errors
/// Why it is not.
pub fn judge_first_event(log: &Log, read: &Read, told: &Observed) -> Result<Source, String> {
    match told {
        Observed::Failed(code) => {
            let ends = |call: &Made| {
                call.scope == read.scope
                    && call.outcome.ends_subscription_with() == Some(code)
                    && (call.subject == read.subject || call.outcome == Outcome::Status(401))
                    && is_answered_after(call, read)
            };
            let is_known_absence =
                code == "NOT_FOUND" && judge(log, Staleness::Never, read, &Observed::Nothing).is_ok();
            if is_known_absence || log.calls.iter().any(ends) {
                Ok(Source::Watched)
            } else {
                Err(format!("{code}, which no call said since the subscription began"))
            }
        }
        told => judge(log, Staleness::Never, read, told).map(|_| Source::Watched),
    }
}

/// Whether a later event of a subscription is allowed after one of call `last`: none is from before a change that was
/// seen, and none comes twice. An error is one that the upstream gave.
///
/// # Errors
/// Why it is not.
pub fn judge_next_event(log: &Log, read: &Read, last: usize, told: &Observed) -> Result<(), String> {
    match told {
        Observed::Shown { call: number, scope, .. } => {
            let call = shown(log, read, *number, scope)?;
            if *number == last {
                return Err("the same event twice".to_owned());
            }
            for (n, change) in log.calls.iter().enumerate() {
                let is_seen = n == last || change.released.is_some_and(|at| log.calls[last].received > at);
                let counts = change.has_changed() && change.is_to_change(read.subject) && n != *number;
                if counts && is_seen && call.received < change.received {
                    return Err(format!("older than the change by call {n}, which was seen"));
                }
            }
            Ok(())
        }
        Observed::Nothing => Err("nothing, where an error ends a subscription".to_owned()),
        Observed::Failed(code) => {
            let ends = |call: &Made| {
                call.scope == read.scope
                    && call.released.is_some()
                    && call.outcome.ends_subscription_with() == Some(code)
            };
            if log.calls.iter().any(ends) { Ok(()) } else { Err(format!("{code}, which no call said")) }
        }
    }
}

/// The call that an answer came from, if it can be one of the caller's about the subject.
fn shown<'l>(log: &'l Log, read: &Read, number: usize, scope: &str) -> Result<&'l Made, String> {
    let call = log.calls.get(number).ok_or("of a call that was never made")?;
    if scope != read.scope || call.scope != read.scope {
        return Err("of another caller's call".to_owned());
    }
    if !matches!(call.outcome, Outcome::Shown | Outcome::ShownOnce) {
        return Err(format!("of a call that was answered {:?}", call.outcome));
    }
    let is_about = call.subject == read.subject || call.subject == Subject::List && !call.is_change;
    if is_about { Ok(call) } else { Err("of another appointment".to_owned()) }
}

/// Whether the read may have waited for `call`.
fn is_answered_after(call: &Made, read: &Read) -> bool {
    call.released.is_some_and(|_| call.settled.is_none_or(|at| at > read.asked))
}

fn may_be_stale(log: &Log, staleness: Staleness, read: &Read) -> bool {
    let is_outage = |n: usize| {
        let call = &log.calls[n];
        call.outcome.meaning(read.subject) == Meaning::Outage && is_answered_after(call, read)
    };
    match staleness {
        Staleness::Never => false,
        Staleness::IfError => log.reads(&read.scope, read.subject).any(is_outage),
    }
}

fn way(log: &Log, read: &Read, call: &Made, number: usize, is_stale: bool) -> Result<Source, String> {
    no_change_since(log, read, call, number)?;
    if is_answered_after(call, read) && !is_stale {
        joins_nothing_ended(log, read, call)?;
        return Ok(if call.subject == read.subject { Source::Call } else { Source::Listed });
    }

    // From here on it was cached.
    if !call.may_be_kept {
        return Err("cached, though it must not be".to_owned());
    }
    for (n, other) in log.calls.iter().enumerate().filter(|(n, _)| *n != number) {
        if other.is_to_change(call.subject) {
            if other.is_in_doubt() && other.released.is_some_and(|at| at < call.received) {
                return Err(format!("cached, though the change by call {n} may still take effect"));
            }
            let is_open = other.settled.is_none_or(|at| at > read.asked);
            if is_open && other.received < call.received {
                return Err(format!("cached while the change by call {n} is under way"));
            }
        }
        if is_refused(other, call, read) {
            return Err(format!("cached, though call {n} was refused ({:?})", other.outcome));
        }
    }
    let is_over = |(begin, end): &(u64, u64)| call.settled.is_some_and(|at| at < *begin) && *end < read.asked;
    if !is_stale && log.pauses.iter().any(is_over) {
        return Err("past its time".to_owned());
    }
    Ok(match (is_stale, call.subject == read.subject) {
        (true, _) => Source::Stale,
        (false, true) => Source::Cached,
        (false, false) => Source::Listed,
    })
}

/// A change that was sent before the read began ends everything from before it; one that was answered by then ends, if it
/// may have taken effect, everything from before its answer.
///
/// A change that was rejected ends nothing. Its client may learn of that after the gateway does.
fn no_change_since(log: &Log, read: &Read, call: &Made, number: usize) -> Result<(), String> {
    for (n, change) in log.calls.iter().enumerate() {
        if n == number || !change.is_to_change(read.subject) || change.received > read.asked {
            continue;
        }
        if change.released.is_some() && !change.has_changed() {
            continue;
        }
        let is_over = change.settled.is_some_and(|at| at < read.asked);
        let is_older = if is_over {
            change.has_changed() && change.released.is_some_and(|at| call.received < at)
        } else {
            call.received < change.received
        };
        if is_older {
            let state = if is_over { "" } else { ", which is under way" };
            return Err(format!("older than the change by call {n}{state}"));
        }
    }
    Ok(())
}

/// A refusal that was known before the read began keeps it from joining an older call.
fn joins_nothing_ended(log: &Log, read: &Read, call: &Made) -> Result<(), String> {
    let ends = |other: &Made| {
        other.scope == read.scope
            && other.settled.is_some_and(|at| at < read.asked)
            && other.released.is_some_and(|at| call.received < at)
            && other.refuses(call.subject) == Ends::Yes
    };
    match log.calls.iter().position(ends) {
        Some(n) => Err(format!("of a call from before the refusal by call {n}")),
        None => Ok(()),
    }
}

/// Whether the copy that `call` brought had ended when the read began, since `other` was refused before.
fn is_refused(other: &Made, call: &Made, read: &Read) -> bool {
    let is_before = other.settled.is_some_and(|at| at < read.asked);
    if other.scope != read.scope || !is_before || other.refuses(read.subject) != Ends::Yes {
        return false;
    }
    let is_older = call.received < other.received;
    if other.outcome == Outcome::Status(401) {
        return is_older;
    }
    match (other.subject, call.subject) {
        (Subject::List, _) | (Subject::One(_), Subject::List) => is_older,
        // A call for the appointment itself that was answered later knows better.
        (Subject::One(_), Subject::One(_)) => call.settled < other.settled,
    }
}
