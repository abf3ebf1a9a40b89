//! The ways in which the far side behaves.

/// How the far side answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As its API promises.
    Healthy,
    /// Late, and otherwise right.
    Slow,
    /// Not at all, with the connection open.
    Hanging,
    /// Nobody listens, and what was connected is cut.
    Killed,
    /// Something else than the API promises: HTML, other shapes, another appointment.
    Garbage,
    /// A part of an answer.
    Cut,
    /// More headers, or longer ones, than anybody needs.
    HeaderFlood,
    /// 429 with a `Retry-After` of some kind.
    RateLimiting,
    /// 500, 502, 503, 504.
    Failing,
    /// Redirects, in circles or to another host.
    Redirecting,
    /// A right answer, one byte after the other.
    Dripping,
    /// A body that does not end.
    Endless,
}

impl Mode {
    /// All but the first.
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

    /// How many there are.
    pub const COUNT: usize = Self::BAD.len() + 1;
}
