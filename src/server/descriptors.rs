//! The budget of file descriptors. Client sockets get the limit on open files minus a reserve, so that a flood of
//! connections cannot stop the gateway from calling the upstream.

use crate::config::Config;

/// The maximum number of connections at `metrics.listen`.
pub(crate) const MAX_METRICS_CONNECTIONS: usize = 16;

/// The maximum number of connections at `admin.listen`.
pub(crate) const MAX_ADMIN_CONNECTIONS: usize = 64;

/// The descriptors of the process itself: standard streams, listeners, the runtime, name resolution, fetches of the
/// gateway's own token and of JWK sets, and key files.
const PROCESS_RESERVE: usize = 64;

/// The descriptors for each unit of `upstream.max_concurrent`: a call in flight, and an idle connection for reads and one
/// for changes.
const PER_CALL: usize = 3;

/// The minimum number of client sockets, whatever the limit.
const MIN_SOCKETS: usize = 16;

/// Raises the soft limit on open files to the hard limit.
pub fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // If this fails, [`warning`] reports the limit in force.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// The limit on open files in force, if there is one.
fn open_files() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok())
    }
    #[cfg(not(unix))]
    None
}

/// The maximum number of open client sockets: connections and WebSockets together.
pub(crate) fn max_sockets(config: &Config) -> usize {
    let configured = configured_sockets(config);
    open_files().map_or(configured, |limit| configured.min(affordable_sockets(config, limit)))
}

/// A warning for the operator, if the limit on open files allows fewer connections than the configuration.
pub fn warning(config: &Config) -> Option<String> {
    let limit = open_files()?;
    let (configured, affordable) = (configured_sockets(config), affordable_sockets(config, limit));
    (affordable < configured).then(|| {
        format!(
            "the limit on open files ({limit}) allows only {affordable} of the configured {configured} connections and \
             WebSockets; raise it, or lower http.max_connections or websocket.max_connections"
        )
    })
}

fn configured_sockets(config: &Config) -> usize {
    config.http.max_connections + config.websocket.max_connections
}

fn affordable_sockets(config: &Config, limit: usize) -> usize {
    let calls = config.upstream.max_concurrent * PER_CALL;
    // The other ends of the sandbox's connections are in this process too.
    let ends = if config.upstream.url.is_none() { 2 } else { 1 };
    let admin = if config.admin.listen.is_some() { MAX_ADMIN_CONNECTIONS } else { 0 };
    let reserve = PROCESS_RESERVE + MAX_METRICS_CONNECTIONS + admin + calls * ends;
    limit.saturating_sub(reserve).max(MIN_SOCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_sockets_get_the_limit_minus_the_reserve() {
        let mut config = Config::default();
        config.upstream.max_concurrent = 10;
        assert_eq!(affordable_sockets(&config, 1024), 1024 - 64 - 16 - 60);
        config.upstream.url = "http://a.example".parse().ok();
        assert_eq!(affordable_sockets(&config, 1024), 1024 - 64 - 16 - 30);
        config.admin.listen = "127.0.0.1:0".parse().ok();
        assert_eq!(affordable_sockets(&config, 1024), 1024 - 64 - 16 - 64 - 30);
        assert_eq!(affordable_sockets(&config, 0), MIN_SOCKETS);
    }
}
