//! The connections to a server: a client that is replaced together with its connections.
//!
//! A server may close a connection at any moment after a timeout that clients do not know. A request that is sent at that
//! moment is lost, and nobody knows whether it was processed. So connections are closed first: after an idle timeout, which the
//! server's `Keep-Alive: timeout=…` shortens, and with their client after `upstream.max_connection_age`. New connections
//! also find new addresses behind a name.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Method, RequestBuilder, Response, Url, Version, header::HeaderMap};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::client::{client, is_https};
use crate::config::upstream::UpstreamConfig;

/// The time by which a connection is closed before the server would close it; less for timeouts below 2 s.
const MAX_MARGIN: Duration = Duration::from_secs(1);

/// The shortest idle timeout. With zero, closed connections would stay in the pool.
const MIN_IDLE_TIMEOUT: Duration = Duration::from_millis(1);

/// A client whose connections have a maximum age. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    client: watch::Receiver<Client>,
    /// The configured timeout, or a shorter one that the server has stated since the client was last replaced for its age.
    idle_timeout: Arc<watch::Sender<Duration>>,
}

impl Connections {
    /// A client with the settings of `config`, whose connections are closed after `idle_timeout`.
    ///
    /// # Errors
    /// As [`client`].
    pub(crate) fn open(config: &UpstreamConfig, idle_timeout: Duration) -> Result<Self, String> {
        let (clients, client) = watch::channel(connect(config, idle_timeout)?);
        let current = Arc::new(watch::Sender::new(idle_timeout));
        tokio::spawn(replace(config.clone(), clients, idle_timeout, current.clone()));
        Ok(Self { client, idle_timeout: current })
    }

    /// Starts to build a request, which [`Self::send`] sends.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.borrow().request(method, url)
    }

    /// Sends a request, and follows the keep-alive timeout that the server states.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, reqwest::Error> {
        let response = request.send().await?;
        if response.version() <= Version::HTTP_11
            && let Some(timeout) = keep_alive_timeout(response.headers())
        {
            let timeout = (timeout - MAX_MARGIN.min(timeout / 2)).max(MIN_IDLE_TIMEOUT);
            self.idle_timeout.send_if_modified(|current| {
                let is_shorter = timeout < *current;
                *current = timeout.min(*current);
                is_shorter
            });
        }
        Ok(response)
    }
}

/// A client for the upstream.
fn connect(config: &UpstreamConfig, idle_timeout: Duration) -> Result<Client, String> {
    client(config, idle_timeout, config.url.as_ref().is_some_and(is_https))
}

/// Replaces the client when its age or a shorter idle timeout demands it, until its users are gone. Calls in flight
/// finish on their connections.
async fn replace(
    config: UpstreamConfig,
    clients: watch::Sender<Client>,
    configured: Duration,
    idle_timeout: Arc<watch::Sender<Duration>>,
) {
    let mut changes = idle_timeout.subscribe();
    loop {
        // Jitter spreads the new connections of several gateways.
        let age = config.max_connection_age.mul_f64(0.8 + 0.2 * fastrand::f64());
        tokio::select! {
            () = clients.closed() => return,
            // The server states its timeout again, unless another one answers now.
            () = sleep(age) => drop(idle_timeout.send_replace(configured)),
            // This task holds a sender, so the channel is open.
            _ = changes.changed() => {}
        }
        let (config, idle_timeout) = (config.clone(), *changes.borrow_and_update());
        // Reads the certificates again, from files.
        match spawn_blocking(move || connect(&config, idle_timeout)).await {
            Ok(Ok(client)) => drop(clients.send_replace(client)),
            Ok(Err(why)) => tracing::warn!(%why, "upstream connections could not be replaced"),
            Err(_) => tracing::warn!("upstream connections could not be replaced"),
        }
    }
}

/// The value of `timeout` in `Keep-Alive` (RFC 2068, section 19.7.1.1).
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let parameters = headers.get_all("keep-alive").iter().filter_map(|value| value.to_str().ok());
    parameters.flat_map(|value| value.split([',', ';'])).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_one_of_the_parameters() {
        for (lines, seconds) in [
            (&["timeout=5"][..], Some(5)),
            (&["timeout=5, max=100"], Some(5)),
            (&["max=100; Timeout = \"15\""], Some(15)),
            (&["max=100", "timeout=0"], Some(0)),
            (&["timeout=x, timeout=7"], Some(7)),
            (&["timeout=18446744073709551616"], None),
            (&["timeout=-1"], None),
            (&["timeout"], None),
            (&["max=100"], None),
            (&[""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("keep-alive", line.parse().unwrap());
            }
            assert_eq!(keep_alive_timeout(&headers), seconds.map(Duration::from_secs), "{lines:?}");
        }
    }
}
