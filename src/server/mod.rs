//! The server: builds the gateway from the configuration, accepts connections and serves them with hyper, until a
//! graceful shutdown drains them.

pub mod descriptors;
mod refused_connection;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use url::Url;

use self::descriptors::{MAX_ADMIN_CONNECTIONS, MAX_METRICS_CONNECTIONS};
use crate::{
    appointments::shared::Shared,
    auth::identity::Authenticator,
    caller::ScopeKey,
    config::{Config, documents::DocumentsConfig},
    credentials::key_ring::KeyRing,
    error::limit::Limit,
    fleet::Fleet,
    graceful_shutdown::{GracefulShutdown, ShutdownGuard},
    graphql::{
        api::Api,
        persisted::manifest_files::{ManifestSource, ManifestWatch},
        trusted_documents::DocumentFaults,
    },
    http::{
        concurrency::{AdmissionQueue, ConcurrencyLimit},
        connection_state::ConnectionState,
        gateway::{Gateway, GraphiqlSettings},
        graphql::{
            entity_tag::EntityTagKey, response_cache::ResponseCache,
            websocket::message_limits::PartialMessages,
        },
        hyper_errors::HyperErrors,
        lingering_close::LingeringClose,
        rate_limit::RateLimit,
        read_timeout::{GuardedBody, ReadTimeout},
        router::Service,
        write_timeout::WriteTimeout,
    },
    http_client::HttpClient,
    metrics::metrics,
    response_memory::ResponseMemory,
    sandbox,
    upstream::{client::UpstreamClient, service_token::ServiceToken},
};

/// The pause after a failed accept, such as one without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The minimum time between log lines about failed accepts, which recur after each pause.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// hyper's default limit on the number of headers.
const HYPER_DEFAULT_HEADERS: usize = 100;

/// A gateway, ready to serve a listener.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    /// The maximum number of open client sockets, WebSockets included.
    max_sockets: usize,
}

impl Server {
    /// Builds the gateway in front of `upstream`, which may be the built-in sandbox.
    ///
    /// # Errors
    /// A text for the operator, if the upstream client cannot be set up.
    pub fn new(config: &Config, upstream: &Url, is_sandbox: bool) -> Result<Self, String> {
        let http_client = HttpClient::new(config)?;
        let credentials = config.identity.client_credentials(upstream, is_sandbox);
        let is_pass_through = credentials.is_none();
        let service = credentials.map(|credentials| ServiceToken::start(credentials, http_client.clone()));
        let upstream = UpstreamClient::new(&config.upstream, upstream, service)?;
        let graphiql = config.graphiql.then(|| GraphiqlSettings {
            sandbox: is_sandbox,
            token: (is_sandbox && is_pass_through).then_some(sandbox::access::TOKEN_ALL),
            ids: if is_sandbox { sandbox::example_ids() } else { Vec::new() },
            endpoint: config.http.path.as_str().trim_start_matches('/').to_owned(),
        });
        let fleet = Fleet::new(&config.shared)?;
        let keys = fleet.keys().cloned().unwrap_or_else(KeyRing::random);
        let appointments =
            Shared::new(&config.cache, &config.changes, config.live.clone(), upstream, fleet.clone());
        appointments.join_fleet(&config.shared)?;
        let memory = ResponseMemory::new(config.http.max_response_memory, config.limits.caller_share);
        let gateway = Gateway {
            response_cache: ResponseCache::new(&config.cache, appointments.clone(), memory.clone()),
            entity_tags: EntityTagKey::of(&keys),
            api: Api::new(config.limits.clone(), &config.graphql, config.cache.caller_share, memory)
                .trusting(&config.documents)
                .sharing(&fleet),
            appointments,
            identity: Authenticator::new(
                config.identity.mode,
                &config.callers,
                &http_client,
                ScopeKey::of(&keys),
            ),
            http: config.http.clone(),
            limits: config.limits.clone(),
            websocket: config.websocket.clone(),
            rate_limit: RateLimit::new(&config.rate_limit, &fleet),
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
            shutdown: GracefulShutdown::new(),
        };
        Ok(Self { gateway: Arc::new(gateway), max_sockets: descriptors::max_sockets(config) })
    }

    /// Loads the trusted documents that `config` names, and loads them again whenever they change. Returns their number; none
    /// if there is no `documents.path`.
    ///
    /// # Errors
    /// All faults, if a manifest is faulty.
    pub async fn load_documents(&self, config: &DocumentsConfig) -> Result<Option<usize>, DocumentFaults> {
        let Some(source) = ManifestSource::of(config) else { return Ok(None) };
        let files = source.read();
        let watch = (!config.reload_interval.is_zero())
            .then(|| ManifestWatch::new(source, config.reload_interval, &files));
        let count = self.gateway.api.load_documents(files).await?;
        if let Some(mut watch) = watch {
            let gateway = Arc::downgrade(&self.gateway);
            tokio::spawn(async move {
                loop {
                    let files = watch.changed().await;
                    let Some(gateway) = gateway.upgrade() else { return };
                    gateway.api.reload_documents(files).await;
                }
            });
        }
        Ok(Some(count))
    }

    /// Serves `listeners` until `stop` completes. Then it shuts down gracefully: it announces the shutdown for
    /// `http.drain_delay`, stops accepting, and returns when all requests in flight have been answered or after
    /// `http.drain_deadline`. `admin.listen` is served until then.
    pub async fn serve(self, listeners: Listeners, stop: impl Future<Output = ()>) {
        let Self { gateway, max_sockets } = self;
        let Listeners { api, metrics, admin } = listeners;
        let maximum = gateway.http.max_connections;
        let connections = Connections {
            sockets: Arc::new(Semaphore::new(max_sockets)),
            maximum: maximum.min(max_sockets),
            ..Connections::new(Service::new(gateway.clone()), &gateway, Limit::Connections, maximum)
        };
        let (service, maximum) = (Service::for_metrics(gateway.clone()), MAX_METRICS_CONNECTIONS);
        let metrics_connections = Connections::new(service, &gateway, Limit::MetricsConnections, maximum);
        let (service, maximum) = (Service::for_admin(gateway.clone()), MAX_ADMIN_CONNECTIONS);
        let admin_connections = Connections {
            outlives_shutdown: true,
            ..Connections::new(service, &gateway, Limit::AdminConnections, maximum)
        };
        let stop_requested = async {
            stop.await;
            gateway.shutdown.announce();
            tracing::info!(delay_ms = gateway.http.drain_delay.as_millis() as u64, "draining");
            tokio::time::sleep(gateway.http.drain_delay).await;
        };
        let serve = async {
            tokio::select! {
                () = connections.accept(Some(&api)) => {}
                () = metrics_connections.accept(metrics.as_ref()) => {}
                () = stop_requested => {}
            }
            drop((api, metrics));
            match tokio::time::timeout(gateway.http.drain_deadline, gateway.shutdown.shut_down()).await {
                Ok(()) => tracing::info!("drained"),
                Err(_) => {
                    let open = gateway.shutdown.open_count();
                    tracing::warn!(
                        connections = open,
                        "http.drain_deadline reached; open connections aborted"
                    );
                }
            }
        };
        tokio::select! {
            () = serve => {}
            () = admin_connections.accept(admin.as_ref()) => {}
        }
        gateway.appointments.leave_fleet().await;
    }
}

/// The listeners of a [`Server`].
#[derive(Debug)]
pub struct Listeners {
    /// `listen`
    pub api: TcpListener,
    /// `metrics.listen`
    pub metrics: Option<TcpListener>,
    /// `admin.listen`
    pub admin: Option<TcpListener>,
}

/// Accepts connections and serves them: HTTP/1.0, HTTP/1.1 and WebSockets upgraded from HTTP/1.1.
struct Connections {
    http: http1::Builder,
    service: Service,
    gateway: Arc<Gateway>,
    /// Free slots of the connection limit. A connection returns its slot when it becomes a WebSocket.
    slots: Arc<Semaphore>,
    /// Free slots of the socket limit, which counts WebSockets too.
    sockets: Arc<Semaphore>,
    /// The lower of both limits.
    maximum: usize,
    /// The limit on connections.
    limit: Limit,
    /// Whether connections are served during a graceful shutdown, which does not wait for them.
    outlives_shutdown: bool,
}

/// The slots of a connection.
struct Slots {
    connection: OwnedSemaphorePermit,
    socket: OwnedSemaphorePermit,
}

impl Connections {
    /// Up to `maximum` connections.
    fn new(service: Service, gateway: &Arc<Gateway>, limit: Limit, maximum: usize) -> Self {
        let mut http = http1::Builder::new();
        // hyper reads the head before the gateway can check it. Its own limit is higher, so that most violations get
        // the error response of `limits.headers`, which has a message.
        let buffer = gateway.limits.headers.as_u64() as usize + 16 * 1024;
        // `ReadTimeout` tells heads and idle connections apart.
        http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(buffer);
        // A limit other than the default costs an allocation per request.
        if gateway.limits.header_count >= HYPER_DEFAULT_HEADERS {
            http.max_headers(gateway.limits.header_count + 1);
        }
        let [slots, sockets] = [maximum; 2].map(|maximum| Arc::new(Semaphore::new(maximum)));
        Self {
            http,
            service,
            gateway: gateway.clone(),
            slots,
            sockets,
            maximum,
            limit,
            outlives_shutdown: false,
        }
    }

    /// The accept loop. Never returns.
    async fn accept(&self, listener: Option<&TcpListener>) {
        let Some(listener) = listener else { return std::future::pending().await };
        let mut logged: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match self.slots() {
                    Some(slots) => self.serve(stream, slots),
                    // Load balancers and clients learn at once that they have to go elsewhere. In the listener's backlog
                    // they would hang without a response.
                    None => refused_connection::refuse(stream, self.limit, self.maximum),
                },
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    if logged.is_none_or(|logged| logged.elapsed() >= ACCEPT_LOG_INTERVAL) {
                        tracing::error!(%error, "accepting connections failed");
                        logged = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The slots of a new connection; none at the limit.
    fn slots(&self) -> Option<Slots> {
        let connection = self.slots.clone().try_acquire_owned().ok()?;
        Some(Slots { connection, socket: self.sockets.clone().try_acquire_owned().ok()? })
    }

    /// Serves `stream` in a task. It holds the connection's slot while it is an HTTP connection, and the socket's slot
    /// until it is closed.
    fn serve(&self, stream: TcpStream, Slots { connection: slot, socket }: Slots) {
        // Responses are not delayed by Nagle's algorithm. A failure costs nothing else.
        let _ = stream.set_nodelay(true);
        let (config, state) = (&self.gateway.http, ConnectionState::default());
        let stream = WriteTimeout::new(stream, config, socket);
        let stream = LingeringClose::new(stream, state.clone(), config.body_timeout);
        let stream = ReadTimeout::new(stream, state.clone(), config);
        let stream = HyperErrors::new(stream, state.clone());
        let service = self.service.clone();
        let service = service_fn(move |request| {
            let guard = state.begin_request();
            let (service, state) = (service.clone(), state.clone());
            async move {
                let response = service.respond(request).await;
                state.record(&response);
                Ok::<_, Infallible>(response.map(|body| GuardedBody::new(body, guard)))
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let shutdown = (!self.outlives_shutdown).then(|| self.gateway.shutdown.guard());
        tokio::spawn(async move {
            let _slot = slot;
            let _gauge = metrics().connections.enter();
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = signalled(shutdown.as_ref()) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::trace!(%error, "connection ended");
            }
        });
    }
}

/// Returns when the shutdown is signalled to the guard, if there is one.
async fn signalled(guard: Option<&ShutdownGuard>) {
    match guard {
        Some(guard) => guard.signalled().await,
        None => std::future::pending().await,
    }
}

/// Whether a failed accept concerns only the one connection, and the next one can be accepted at once.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
