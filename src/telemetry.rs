//! The log: one subscriber for the process, to standard error.
//!
//! Only events of this crate are written, whatever the level: what a library logs of the requests it carries is not
//! ours to vouch for, and a token among it would be one too many. Our own events name appointment ids, routes,
//! statuses and durations; never names, tokens, variables, bodies or addresses with a query.

use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
};

use tracing::Level;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    config::{LogConfig, LogFormat, LogLevel},
    metrics::metrics,
};

/// Starts logging.
pub fn start(config: &LogConfig) {
    let level = match config.level {
        LogLevel::Off => None,
        LogLevel::Error => Some(Level::ERROR),
        LogLevel::Warn => Some(Level::WARN),
        LogLevel::Info => Some(Level::INFO),
        LogLevel::Debug => Some(Level::DEBUG),
        LogLevel::Trace => Some(Level::TRACE),
    };
    let ours =
        level.map_or_else(Targets::new, |level| Targets::new().with_target(env!("CARGO_CRATE_NAME"), level));
    let registry = tracing_subscriber::registry().with(ours);
    let lines = fmt::layer().with_writer(io::stderr);
    // A second start (as when tests share a process) leaves the first in place.
    let _ = match config.format {
        LogFormat::Human => {
            registry.with(lines.with_target(false).with_ansi(io::stderr().is_terminal())).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
}

/// Has panics counted, and told by their place alone, whatever the environment asks for: their text may hold anything,
/// and so may a backtrace's.
pub fn watch_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        metrics().panics.inc();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "panicked");
        } else {
            // Before there is a log. Nobody reading this is no reason to fail once more.
            let _ = writeln!(io::stderr(), "appointments-gateway: panicked at {place}");
        }
    }));
}
