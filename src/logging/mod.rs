//! The log: one subscriber per process, which writes to standard error through a bounded, non-blocking [`buffer`].
//!
//! Privacy: only events of this crate are logged, at any level, because libraries may log tokens or personal data. The
//! crate's own events contain appointment ids, routes, statuses and durations, but never names, tokens, variables, bodies
//! or query strings. Types with such data redact it in their `Debug` output.

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

/// The maximum time at exit to write the last lines to a slow reader of standard error.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static LOG: OnceLock<LogBuffer> = OnceLock::new();

/// Starts logging. A second call has no effect.
///
/// # Errors
/// If the writer thread cannot be started.
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
    let own_events =
        level.map_or_else(Targets::new, |level| Targets::new().with_target(env!("CARGO_CRATE_NAME"), level));
    let registry = tracing_subscriber::registry().with(own_events);
    // The library would write its internal errors to standard error directly, which may block.
    let lines = fmt::layer().with_writer(move || log).log_internal_errors(false);
    // Tests may have installed another subscriber, which stays in place.
    let _ = match config.format {
        LogFormat::Human => {
            registry.with(lines.with_target(false).with_ansi(io::stderr().is_terminal())).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    Ok(())
}

/// Waits until all lines are written, for at most one second.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_TIMEOUT);
    }
}

/// Flushes the log on drop, including during a panic.
#[derive(Debug)]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        flush();
    }
}

/// Prints a line to standard error, after all logged lines. A closed standard error is not an error.
pub fn report(text: &str) {
    let line = format!("appointments-gateway: {text}\n");
    let _ = match LOG.get() {
        Some(mut log) => log.write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Installs a panic hook that counts panics and logs only their location. A panic message or a backtrace could contain
/// personal data.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        metrics().panics.inc();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(location, "panicked");
        } else {
            // The log has not started yet.
            report(&format!("panicked at {location}"));
        }
    }));
}
