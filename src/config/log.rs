//! `log.*`: the log on standard error.

use bytesize::ByteSize;

/// `log.*`: level, format and buffer of the log.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// `log.level`
    pub level: LogLevel,
    /// `log.format`
    pub format: LogFormat,
    /// `log.buffer`
    pub buffer: ByteSize,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Faults of the gateway.
    Error,
    /// Also failures outside the gateway.
    Warn,
    /// Also start and shutdown.
    #[default]
    Info,
    /// Also every request and every call to the upstream.
    Debug,
    /// Everything.
    Trace,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for humans.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}
