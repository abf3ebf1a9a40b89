//! The process as a server: everything built from the configuration, a listener served, a drain at the end.

use std::{
    future::Future,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use url::Url;

use crate::{
    appointments::Shared,
    caller::ScopeKey,
    config::Config,
    graphql::Api,
    http::{Gateway, GraphiqlSettings, Worded, router},
    sandbox,
    upstream::UpstreamClient,
};

/// How long to wait before accepting again when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A gateway that can be served.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
}

impl Server {
    /// Builds everything for `upstream`; `is_sandbox` says that its data is made up.
    ///
    /// # Errors
    /// A text for the operator, where the upstream client cannot be set up.
    pub fn new(config: &Config, upstream: &Url, is_sandbox: bool) -> Result<Self, String> {
        let upstream = UpstreamClient::new(&config.upstream, upstream)?;
        let graphiql = config.graphiql.then(|| match is_sandbox {
            true => GraphiqlSettings {
                sandbox: true,
                token: Some(sandbox::TOKEN_ALL),
                ids: sandbox::example_ids(),
            },
            false => GraphiqlSettings::default(),
        });
        let gateway = Gateway {
            api: Api::new(config.limits.clone()),
            appointments: Shared::new(&config.cache, config.live.clone(), upstream),
            scope_key: ScopeKey::random(),
            http: config.http.clone(),
            limits: config.limits.clone(),
            graphiql,
            draining: false.into(),
        };
        Ok(Self { gateway: Arc::new(gateway) })
    }

    /// Serves `listener` until `stop`; then stops accepting and returns when what is in flight has been answered, or
    /// when `http.drain_deadline` has passed.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let Self { gateway } = self;
        let mut connections = Connections::new(router(gateway.clone()), &gateway);
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => connections.serve(stream),
                    Err(error) if is_the_connections_own(&error) => {}
                    Err(error) => {
                        tracing::error!(%error, "no connection can be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let asked_to_stop = async {
            stop.await;
            gateway.draining.store(true, Ordering::Relaxed);
            tracing::info!(delay_ms = gateway.http.drain_delay.as_millis() as u64, "draining");
            tokio::time::sleep(gateway.http.drain_delay).await;
        };
        tokio::select! {
            () = accepting => {}
            () = asked_to_stop => {}
        }
        drop(listener);
        match tokio::time::timeout(gateway.http.drain_deadline, connections.drained()).await {
            Ok(()) => tracing::info!("drained"),
            Err(_) => {
                let left = connections.count();
                tracing::warn!(connections = left, "stopped at http.drain_deadline, before all was answered");
            }
        }
    }
}

/// The connections that are being served: HTTP/1.0 and HTTP/1.1.
struct Connections {
    http: http1::Builder,
    router: Router,
    /// Tells every connection to end after what it is at; each holds a receiver for as long as it is there.
    end: watch::Sender<bool>,
}

impl Connections {
    fn new(router: Router, gateway: &Gateway) -> Self {
        let mut http = http1::Builder::new();
        // hyper reads the headers before anything of ours sees them, so it gets a bound too, above the one that
        // answers with a text (`limits.headers`).
        let buffer = gateway.limits.headers.as_u64() as usize + 16 * 1024;
        http.timer(TokioTimer::new()).header_read_timeout(gateway.http.header_timeout).max_buf_size(buffer);
        Self { http, router, end: watch::Sender::new(false) }
    }

    fn serve(&mut self, stream: TcpStream) {
        // An answer leaves at once; the worst that a failure costs is a delay.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.http.serve_connection(TokioIo::new(Worded::new(stream)), service);
        let mut end = self.end.subscribe();
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = asked(&mut end) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::trace!(%error, "connection ended");
            }
        });
    }

    fn count(&self) -> usize {
        self.end.receiver_count()
    }

    /// Returns when every connection has answered what it was asked and is closed.
    async fn drained(&self) {
        self.end.send_replace(true);
        self.end.closed().await;
    }
}

/// Returns when connections are told to end.
async fn asked(end: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: that is the end too.
    let _ = end.wait_for(|end| *end).await;
}

fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
