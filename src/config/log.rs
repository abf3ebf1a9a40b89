//! `log.*`: the log on standard error.

use bytesize::ByteSize;

/// `log.*`: what is written to standard error.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// `log.level`
    pub level: LogLevel,
    /// `log.format`
    pub format: LogFormat,
    /// `log.buffer`
    pub buffer: ByteSize,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What must be looked into.
    Error,
    /// What went wrong outside the gateway, too.
    Warn,
    /// Start and stop, too.
    #[default]
    Info,
    /// Each request and each call to the upstream, too.
    Debug,
    /// Everything there is.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}
