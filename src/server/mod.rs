//! The process as a server: everything built from the configuration, a listener served, a drain at the end.

use self::descriptors::MAX_SCRAPES;
use crate::http::gateway::GraphiqlSettings;
pub mod descriptors;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    future::Future,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use url::Url;

use crate::{
    appointments::shared::Shared,
    auth::identity::Identity,
    config::Config,
    error::limit::Limit,
    graceful_shutdown::GracefulShutdown,
    graphql::api::Api,
    http::{
        concurrency::{AdmissionQueue, ConcurrencyLimit},
        gateway::Gateway,
        graphql::{response_cache::ResponseCache, websocket::message_limits::PartialMessages},
        hyper_errors::HyperErrors,
        rate_limit::RateLimit,
        router::Service,
        write_timeout::WriteTimeout,
    },
    http_client::HttpClient,
    metrics::metrics,
    response_memory::ResponseMemory,
    sandbox,
    upstream::{client::UpstreamClient, service_token::ServiceToken},
};

/// How long to wait before accepting again when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is logged at most that there is no room. There is an attempt after each pause.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How many headers hyper takes where it is not told.
const HYPERS_HEADERS: usize = 100;

/// A gateway that can be served.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    /// How many sockets of clients may be open, whatever they carry.
    max_sockets: usize,
}

impl Server {
    /// Builds everything for `upstream`; `is_sandbox` says that its data is made up.
    ///
    /// # Errors
    /// A text for the operator, where the upstream client cannot be set up.
    pub fn new(config: &Config, upstream: &Url, is_sandbox: bool) -> Result<Self, String> {
        let outside = HttpClient::new(&config.upstream)?;
        let credentials = config.identity.client_credentials(upstream, is_sandbox);
        let is_pass_through = credentials.is_none();
        let service = credentials.map(|credentials| ServiceToken::start(credentials, outside.clone()));
        let upstream = UpstreamClient::new(&config.upstream, upstream, service)?;
        let graphiql = config.graphiql.then(|| match is_sandbox {
            true => GraphiqlSettings {
                sandbox: true,
                token: is_pass_through.then_some(sandbox::access::TOKEN_ALL),
                ids: sandbox::example_ids(),
            },
            false => GraphiqlSettings::default(),
        });
        let appointments = Shared::new(&config.cache, config.live.clone(), upstream);
        let memory = ResponseMemory::new(config.http.max_response_memory, config.limits.caller_share);
        let gateway = Gateway {
            answers: ResponseCache::new(&config.cache, appointments.clone(), memory.clone()),
            api: Api::new(config.limits.clone(), &config.graphql, memory),
            appointments,
            identity: Identity::new(config.identity.mode, &config.callers, &outside),
            http: config.http.clone(),
            limits: config.limits.clone(),
            websocket: config.websocket.clone(),
            rate_limit: RateLimit::new(&config.rate_limit),
            operations: AdmissionQueue::new(&config.limits),
            websockets: ConcurrencyLimit::new(
                config.websocket.max_connections,
                Limit::WebSocketConnections,
                metrics().websockets.clone(),
            ),
            partial_messages: Arc::new(PartialMessages::new(config.websocket.max_partial.as_u64())),
            event_streams: ConcurrencyLimit::new(
                config.live.max_event_streams,
                Limit::EventStreams,
                metrics().event_streams.clone(),
            ),
            keep_alive: config.live.keep_alive,
            graphiql,
            serves_metrics: config.metrics.enabled,
            drain: GracefulShutdown::new(),
        };
        Ok(Self { gateway: Arc::new(gateway), max_sockets: descriptors::max_sockets(config) })
    }

    /// Serves `listener`, and at `metrics` what is counted, until `stop`; then stops accepting and returns when what is in
    /// flight has been answered, or when `http.drain_deadline` has passed.
    pub async fn serve(
        self,
        listener: TcpListener,
        metrics: Option<TcpListener>,
        stop: impl Future<Output = ()>,
    ) {
        let Self { gateway, max_sockets } = self;
        let connections = Connections::new(
            gateway.clone(),
            Service::new(gateway.clone()),
            gateway.http.max_connections,
            max_sockets,
        );
        let scrapes = Service::of_metrics(gateway.clone());
        let scrapes = Connections::new(gateway.clone(), scrapes, MAX_SCRAPES, MAX_SCRAPES);
        let scraped = async {
            match &metrics {
                Some(listener) => scrapes.accept(listener).await,
                None => std::future::pending().await,
            }
        };
        let asked_to_stop = async {
            stop.await;
            gateway.drain.announce();
            tracing::info!(delay_ms = gateway.http.drain_delay.as_millis() as u64, "draining");
            tokio::time::sleep(gateway.http.drain_delay).await;
        };
        tokio::select! {
            () = connections.accept(&listener) => {}
            () = scraped => {}
            () = asked_to_stop => {}
        }
        drop((listener, metrics));
        match tokio::time::timeout(gateway.http.drain_deadline, gateway.drain.finish()).await {
            Ok(()) => tracing::info!("drained"),
            Err(_) => {
                let left = gateway.drain.count();
                tracing::warn!(connections = left, "stopped at http.drain_deadline, before all was answered");
            }
        }
    }
}

/// How connections are served: HTTP/1.0 and HTTP/1.1, and what an HTTP/1.1 connection is upgraded to.
struct Connections {
    http: http1::Builder,
    service: Service,
    gateway: Arc<Gateway>,
    /// How many more may be served.
    places: Arc<Semaphore>,
    /// How many more sockets may be open: those that have left their place as WebSockets count too.
    sockets: Arc<Semaphore>,
}

impl Connections {
    fn new(gateway: Arc<Gateway>, service: Service, most: usize, max_sockets: usize) -> Self {
        let mut http = http1::Builder::new();
        // hyper reads the headers before anything of ours sees them, so it gets a bound too, above the one that
        // answers with a text (`limits.headers`).
        let buffer = gateway.limits.headers.as_u64() as usize + 16 * 1024;
        http.timer(TokioTimer::new()).header_read_timeout(gateway.http.header_timeout).max_buf_size(buffer);
        // It takes a hundred headers by itself, and more at the cost of an allocation for each request.
        if gateway.limits.header_count >= HYPERS_HEADERS {
            http.max_headers(gateway.limits.header_count + 1);
        }
        let [places, sockets] = [most, max_sockets].map(|most| Arc::new(Semaphore::new(most)));
        Self { http, service, gateway, places, sockets }
    }

    /// Serves whoever comes, for as long as it is polled.
    async fn accept(&self, listener: &TcpListener) {
        let mut logged: Option<Instant> = None;
        loop {
            // Who comes when there is no place waits before the door, where the system has a bound of its own.
            let place = self.places.clone().acquire_owned().await;
            let socket = self.sockets.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => self.serve(stream, place.ok(), socket.ok()),
                Err(error) if is_the_connections_own(&error) => {}
                Err(error) => {
                    if logged.is_none_or(|logged| logged.elapsed() >= ACCEPT_LOG_INTERVAL) {
                        tracing::error!(%error, "no connection can be accepted");
                        logged = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves `stream`, which has its `place` for as long as it is one of HTTP, and `socket` for as long as it is open.
    fn serve(
        &self,
        stream: TcpStream,
        place: Option<OwnedSemaphorePermit>,
        socket: Option<OwnedSemaphorePermit>,
    ) {
        // An answer leaves at once; the worst that a failure costs is a delay.
        let _ = stream.set_nodelay(true);
        let stream = HyperErrors::new(WriteTimeout::new(stream, &self.gateway.http, socket));
        let (service, is_upgraded) = (self.service.clone(), stream.is_upgraded());
        let service = service_fn(move |request| {
            let (service, is_upgraded) = (service.clone(), is_upgraded.clone());
            async move {
                let response = service.answer(request).await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    is_upgraded.store(true, Ordering::Relaxed);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut open = self.gateway.drain.open();
        tokio::spawn(async move {
            let _place = place;
            let _counted = metrics().connections.one();
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = open.told_to_end() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                if error.is_timeout() {
                    metrics().limited.count(Limit::HeaderTimeout.as_str());
                }
                tracing::trace!(%error, "connection ended");
            }
        });
    }
}

fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
