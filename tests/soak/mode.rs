//! The modes of the upstream.

/// A mode of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Correct responses.
    Healthy,
    /// Slow, but correct responses.
    Slow,
    /// No responses, with connections open.
    Hanging,
    /// No listener, and existing connections are cut.
    Killed,
    /// Undocumented responses: HTML, other shapes, another appointment.
    Garbage,
    /// Truncated responses.
    Cut,
    /// Too many or too long headers.
    HeaderFlood,
    /// 429 with various `Retry-After` headers.
    RateLimiting,
    /// 500, 502, 503, 504.
    Failing,
    /// Redirects, in circles or to another host.
    Redirecting,
    /// Correct responses, one byte at a time.
    Dripping,
    /// Endless bodies.
    Endless,
}

impl Mode {
    /// All modes except the first.
    pub const BAD: [Self; 11] = [
        Self::Slow,
        Self::Hanging,
        Self::Killed,
        Self::Garbage,
        Self::Cut,
        Self::HeaderFlood,
        Self::RateLimiting,
        Self::Failing,
        Self::Redirecting,
        Self::Dripping,
        Self::Endless,
    ];

    /// The number of modes.
    pub const COUNT: usize = Self::BAD.len() + 1;
}
