//! The faults that were asked for: slow, failing, garbled and cut answers.
//!
//! Stands outside the routes, where a load balancer and a network would be: an error answer is given in place of the
//! routes, so nothing has happened; garbage and cuts befall an answer whose work is done, which is what makes the outcome
//! of a change unknown to whoever asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::HttpBody;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{connection_faults::Scissors, prng, state::Sandbox};
use std::time::Duration;

/// What goes wrong on request, so that a client's handling can be tried.
///
/// The draws come from a counter of the requests, so a run that asks the same in the same order sees the same faults.
/// The shares add up; where their sum is above 100, the first named wins.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Added to each answer, after the work is done: whoever gives up on a change may find it made.
    pub latency: Duration,
    /// Share of requests that are answered 500, 502 or 503 without being heard, as HTML or empty, as a load balancer does.
    pub error_percent: u8,
    /// Share of requests that are carried out, then answered 200 with something that is no JSON.
    pub garbage_percent: u8,
    /// Share of requests that are carried out, then cut off in the middle of the answer's body.
    pub cut_percent: u8,
    /// Requests per minute and token before 429 with `Retry-After`; 0 means no limit.
    pub rate_limit: u32,
}

/// What befalls one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mishap {
    Error,
    Garbage,
    Cut,
}

/// The faults asked for, and how many requests have come.
pub(crate) struct Draws {
    faults: Faults,
    drawn: AtomicU64,
}

impl Draws {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { faults, drawn: AtomicU64::new(0) }
    }

    /// The lot of the next request, and a number by which the kinds of one mishap vary.
    fn draw(&self) -> (Option<Mishap>, u64) {
        let lot = prng::mix(self.drawn.fetch_add(1, Ordering::Relaxed));
        let shares = [
            (self.faults.error_percent, Mishap::Error),
            (self.faults.garbage_percent, Mishap::Garbage),
            (self.faults.cut_percent, Mishap::Cut),
        ];
        let mut bound = 0;
        let mishap = shares.into_iter().find_map(|(percent, mishap)| {
            bound += u64::from(percent);
            (lot % 100 < bound).then_some(mishap)
        });
        (mishap, lot / 100)
    }
}

/// The middleware. Without faults it does nothing but count.
pub(crate) async fn befall(
    State(sandbox): State<Arc<Sandbox>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    request: Request,
    next: Next,
) -> Response {
    let (mishap, kind) = sandbox.faults.draw();
    let response = match mishap {
        Some(Mishap::Error) => error(kind),
        Some(Mishap::Garbage) => {
            next.run(request).await;
            garbage(kind)
        }
        Some(Mishap::Cut) | None => next.run(request).await,
    };
    // Not even a sleep of no time: it would still cost a tick of the timer.
    if !sandbox.faults.faults.latency.is_zero() {
        tokio::time::sleep(sandbox.faults.faults.latency).await;
    }
    if mishap == Some(Mishap::Cut) {
        // Only now, since an earlier answer on this connection may still have been on its way.
        let length = response.body().size_hint().lower();
        scissors.cut(usize::try_from(length / 2).unwrap_or(usize::MAX));
    }
    response
}

/// What a load balancer says when the application behind it does not answer.
fn error(kind: u64) -> Response {
    let html = |status: StatusCode| {
        let page = format!(
            "<html>\r\n<head><title>{status}</title></head>\r\n<body><h1>{status}</h1></body>\r\n</html>\r\n"
        );
        (status, [(header::CONTENT_TYPE, "text/html")], page).into_response()
    };
    match kind % 4 {
        0 => html(StatusCode::INTERNAL_SERVER_ERROR),
        1 => html(StatusCode::BAD_GATEWAY),
        2 => StatusCode::BAD_GATEWAY.into_response(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Answers that claim success and are no JSON: a maintenance page, JSON that stops short, nothing.
fn garbage(kind: u64) -> Response {
    match kind % 3 {
        0 => {
            ([(header::CONTENT_TYPE, "text/html")], "<!doctype html><title>Back soon</title>").into_response()
        }
        1 => ([(header::CONTENT_TYPE, "application/json")], r#"{"data": {"id": "#).into_response(),
        _ => ([(header::CONTENT_TYPE, "application/json")], "").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(error: u8, garbage: u8, cut: u8) -> Vec<Option<Mishap>> {
        let faults =
            Faults { error_percent: error, garbage_percent: garbage, cut_percent: cut, ..Faults::default() };
        let draws = Draws::new(faults);
        (0..1000).map(|_| draws.draw().0).collect()
    }

    #[test]
    fn a_run_repeats() {
        assert_eq!(draws(20, 10, 5), draws(20, 10, 5));
    }

    #[test]
    fn the_shares_are_as_asked() {
        let drawn = draws(20, 10, 5);
        let share = |mishap| drawn.iter().filter(|drawn| **drawn == mishap).count();
        assert!((170..230).contains(&share(Some(Mishap::Error))));
        assert!((80..120).contains(&share(Some(Mishap::Garbage))));
        assert!((35..65).contains(&share(Some(Mishap::Cut))));
    }

    #[test]
    fn none_and_all_are_exact() {
        assert!(draws(0, 0, 0).iter().all(Option::is_none));
        assert!(draws(0, 0, 100).iter().all(|mishap| *mishap == Some(Mishap::Cut)));
        assert!(draws(255, 255, 255).iter().all(|mishap| *mishap == Some(Mishap::Error)));
    }
}
