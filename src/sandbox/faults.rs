//! Fault injection: latency, errors, invalid bodies and truncated responses.
//!
//! The middleware takes the place of a load balancer and the network. An error replaces the handler, so a change is not
//! applied. Invalid and truncated responses follow the handler, so the outcome of a change is unknown to the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::HttpBody;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{connection_faults::TruncateHandle, prng};
use crate::config::sandbox::FaultConfig;

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Error,
    Garbage,
    Cut,
}

/// The configured faults and the number of requests so far.
pub(crate) struct FaultInjector {
    faults: FaultConfig,
    count: AtomicU64,
}

impl FaultInjector {
    pub(crate) fn new(faults: FaultConfig) -> Self {
        Self { faults, count: AtomicU64::new(0) }
    }

    /// Returns the fault of the next request, and a number that selects its variant.
    fn next_fault(&self) -> (Option<Fault>, u64) {
        let number = prng::mix(self.count.fetch_add(1, Ordering::Relaxed));
        let shares = [
            (self.faults.error_percent, Fault::Error),
            (self.faults.garbage_percent, Fault::Garbage),
            (self.faults.cut_percent, Fault::Cut),
        ];
        let mut bound = 0;
        let fault = shares.into_iter().find_map(|(percent, fault)| {
            bound += u64::from(percent);
            (number % 100 < bound).then_some(fault)
        });
        (fault, number / 100)
    }
}

/// Middleware that injects the configured faults.
pub(crate) async fn inject_faults(
    State(injector): State<Arc<FaultInjector>>,
    ConnectInfo(truncate_handle): ConnectInfo<TruncateHandle>,
    request: Request,
    next: Next,
) -> Response {
    let (fault, kind) = injector.next_fault();
    let response = match fault {
        Some(Fault::Error) => error(kind),
        Some(Fault::Garbage) => {
            next.run(request).await;
            garbage(kind)
        }
        Some(Fault::Cut) | None => next.run(request).await,
    };
    // A sleep of zero would still wait for the next tick of the timer.
    if !injector.faults.latency.is_zero() {
        tokio::time::sleep(injector.faults.latency).await;
    }
    if fault == Some(Fault::Cut) {
        // Not earlier: a previous response on this connection may still have been in progress.
        let length = response.body().size_hint().lower();
        truncate_handle.truncate_response(usize::try_from(length / 2).unwrap_or(usize::MAX));
    }
    response
}

/// An error response like that of a load balancer without a backend.
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

/// A successful response without valid JSON: a maintenance page, incomplete JSON or an empty body.
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

    fn draws(error: u8, garbage: u8, cut: u8) -> Vec<Option<Fault>> {
        let faults = FaultConfig {
            error_percent: error,
            garbage_percent: garbage,
            cut_percent: cut,
            ..FaultConfig::default()
        };
        let draws = FaultInjector::new(faults);
        (0..1000).map(|_| draws.next_fault().0).collect()
    }

    #[test]
    fn faults_are_deterministic() {
        assert_eq!(draws(20, 10, 5), draws(20, 10, 5));
    }

    #[test]
    fn shares_match_the_configuration() {
        let drawn = draws(20, 10, 5);
        let share = |fault| drawn.iter().filter(|drawn| **drawn == fault).count();
        assert!((170..230).contains(&share(Some(Fault::Error))));
        assert!((80..120).contains(&share(Some(Fault::Garbage))));
        assert!((35..65).contains(&share(Some(Fault::Cut))));
    }

    #[test]
    fn no_faults_and_only_faults_are_exact() {
        assert!(draws(0, 0, 0).iter().all(Option::is_none));
        assert!(draws(0, 0, 100).iter().all(|fault| *fault == Some(Fault::Cut)));
        assert!(draws(255, 255, 255).iter().all(|fault| *fault == Some(Fault::Error)));
    }
}
