//! `live.*`: subscriptions and their pollers.

use std::time::Duration;

/// `live.*`: polling intervals, and limits of subscriptions.
#[derive(Debug, Clone, Default)]
pub struct LiveConfig {
    /// `live.fast_interval`
    pub fast_interval: Duration,
    /// `live.slow_interval`
    pub slow_interval: Duration,
    /// `live.near`
    pub near: Duration,
    /// `live.max_watched`
    pub max_watched: usize,
    /// `live.max_subscribers`
    pub max_subscribers: usize,
    /// `live.max_subscriptions`
    pub max_subscriptions: usize,
    /// `live.caller_share`, in percent
    pub caller_share: u8,
    /// `live.max_event_streams`
    pub max_event_streams: usize,
    /// `live.keep_alive`
    pub keep_alive: Duration,
}

impl LiveConfig {
    /// Returns the maximum number of watched appointments of one caller: its share of `live.max_watched`, rounded up.
    pub fn max_watched_per_caller(&self) -> usize {
        (self.max_watched * usize::from(self.caller_share)).div_ceil(100)
    }
}
