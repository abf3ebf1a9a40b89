//! The log: one subscriber for the process, to standard error, through a bounded buffer that never blocks
//! ([`log_buffer`]).
//!
//! Only events of this crate are written, whatever the level: what a library logs of the requests it carries is not
//! ours to vouch for, and a token among it would be one too many. Our own events name appointment ids, routes,
//! statuses and durations; never names, tokens, variables, bodies or addresses with a query.

pub mod buffer;

use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
    sync::OnceLock,
    time::Duration,
};

use tracing::Level;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::buffer::LogBuffer;
use crate::{
    config::log::{LogConfig, LogFormat, LogLevel},
    metrics::metrics,
};

/// How long the end of the process waits for a reader of standard error to take the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static LOG: OnceLock<LogBuffer> = OnceLock::new();

/// Starts logging. A second start leaves the first in place.
///
/// # Errors
/// Where the system has no thread left to write the log.
pub fn start(config: &LogConfig) -> io::Result<()> {
    if LOG.set(LogBuffer::new(config.buffer.as_u64() as usize)).is_err() {
        return Ok(());
    }
    let Some(log) = LOG.get() else { return Ok(()) };
    buffer::spawn(log, io::stderr())?;
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
    // What the library says of its own faults would go to standard error, and block there.
    let lines = fmt::layer().with_writer(move || log).log_internal_errors(false);
    // Another subscriber, as tests may have one, stays in place.
    let _ = match config.format {
        LogFormat::Human => {
            registry.with(lines.with_target(false).with_ansi(io::stderr().is_terminal())).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    Ok(())
}

/// Waits until standard error has all lines, or until its reader has had its time.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_TIMEOUT);
    }
}

/// Flushes the log when it is dropped, also when a panic unwinds.
#[derive(Debug)]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        flush();
    }
}

/// Writes a line for the operator to standard error, after all that is logged. Nobody reading it is no reason to fail.
pub fn report(text: &str) {
    let line = format!("appointments-gateway: {text}\n");
    let _ = match LOG.get() {
        Some(mut log) => log.write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
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
            // Before there is a log.
            report(&format!("panicked at {place}"));
        }
    }));
}
