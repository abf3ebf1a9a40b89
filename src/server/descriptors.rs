//! The budget of file descriptors. Sockets of clients get the limit on open files less a reserve, so that a flood of
//! connections leaves the gateway able to call the upstream.

use crate::config::Config;

/// How many connections are served at once at `metrics.listen`.
pub(crate) const MAX_SCRAPES: usize = 16;

/// The descriptors of the process itself: standard streams, listeners, the runtime's, name resolution, the gateway's own
/// token, the callers' keys, and files that are read now and then.
const PROCESS: usize = 64;

/// The descriptors for each of `upstream.max_concurrent`: a call under way, and an idle connection.
const PER_CALL: usize = 2;

/// The least number of sockets of clients, whatever the limit.
const FEWEST_SOCKETS: usize = 16;

/// Raises the limit on open files as far as the system allows.
pub fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // A failure leaves the limit as it is, and [`warning`] compares with that.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// The limit on open files that is in force; none where there is none.
fn open_files() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok())
    }
    #[cfg(not(unix))]
    None
}

/// How many sockets of clients may be open at once: connections and WebSockets.
pub(crate) fn max_sockets(config: &Config) -> usize {
    let configured = configured_sockets(config);
    open_files().map_or(configured, |limit| configured.min(affordable_sockets(config, limit)))
}

/// What to do where the limit on open files allows fewer connections than the configuration.
pub fn warning(config: &Config) -> Option<String> {
    let limit = open_files()?;
    let (configured, affordable) = (configured_sockets(config), affordable_sockets(config, limit));
    (affordable < configured).then(|| {
        format!(
            "the limit on open files ({limit}) allows only {affordable} connections and WebSockets together, of \
             {configured}; raise it, or lower http.max_connections or websocket.max_connections"
        )
    })
}

fn configured_sockets(config: &Config) -> usize {
    config.http.max_connections + config.websocket.max_connections
}

fn affordable_sockets(config: &Config, limit: usize) -> usize {
    let calls = config.upstream.max_concurrent * PER_CALL;
    // The built-in sandbox has the other ends in this process.
    let ends = if config.upstream.url.is_none() { 2 } else { 1 };
    limit.saturating_sub(PROCESS + MAX_SCRAPES + calls * ends).max(FEWEST_SOCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_limit_less_the_reserve() {
        let mut config = Config::default();
        config.upstream.max_concurrent = 10;
        assert_eq!(affordable_sockets(&config, 1024), 1024 - 64 - 16 - 40);
        config.upstream.url = "http://a.example".parse().ok();
        assert_eq!(affordable_sockets(&config, 1024), 1024 - 64 - 16 - 20);
        assert_eq!(affordable_sockets(&config, 0), FEWEST_SOCKETS);
    }
}
