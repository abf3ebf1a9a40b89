//! The state of one connection, shared by its layers and the service behind it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{
    http::{StatusCode, header},
    response::Response,
};

/// The state of one connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ConnectionState(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_upgraded: AtomicBool,
    is_cut_short: AtomicBool,
    is_in_head: AtomicBool,
    /// The number of beginnings and ends of requests: odd while one is in progress.
    request_events: AtomicUsize,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub struct RequestGuard(ConnectionState);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.0.request_events.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConnectionState {
    /// Records the beginning of a request, and its end when the guard is dropped.
    pub fn begin_request(&self) -> RequestGuard {
        self.0.request_events.fetch_add(1, Ordering::Relaxed);
        RequestGuard(self.clone())
    }

    /// The number of beginnings and ends of requests: odd while one is in progress.
    pub(crate) fn request_events(&self) -> usize {
        self.0.request_events.load(Ordering::Relaxed)
    }

    /// Records the effects of a response on the connection.
    pub fn record(&self, response: &Response) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.0.is_upgraded.store(true, Ordering::Relaxed);
        }
        if response.headers().get(header::CONNECTION).is_some_and(|value| value == "close") {
            self.cut_short();
        }
    }

    /// Records that the connection closes although its client may still be sending.
    pub(crate) fn cut_short(&self) {
        self.0.is_cut_short.store(true, Ordering::Relaxed);
    }

    /// Records whether the last byte received is in the head of a request, and not its last byte.
    pub(crate) fn set_in_head(&self, is_in_head: bool) {
        self.0.is_in_head.store(is_in_head, Ordering::Relaxed);
    }

    /// Whether the rest of a head is awaited.
    pub(crate) fn is_in_head(&self) -> bool {
        self.0.is_in_head.load(Ordering::Relaxed)
    }

    /// Whether the connection was upgraded and carries no more HTTP requests.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.0.is_upgraded.load(Ordering::Relaxed)
    }

    /// Whether the connection closes although its client may still be sending.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.0.is_cut_short.load(Ordering::Relaxed)
    }
}
