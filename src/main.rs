//! The entry point: runs the chosen subcommand and sets the exit code. Everything else is in the library.

use std::{
    fmt::Display,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
};

use appointments_gateway::{
    auth::identity::fetched_keys,
    cli::{self, Action},
    config::{
        Config,
        auth::IdentityMode,
        loader::{ConfigError, Sources},
        profile::Profile,
    },
    credentials::{api_keys::NewApiKey, key_ring::KeyRing},
    fleet,
    graphql::{
        api::{self, Api},
        persisted::manifest_files::ManifestSource,
        trusted_documents::DocumentFaults,
    },
    http_client::HttpClient,
    logging,
    response_memory::ResponseMemory,
    sandbox::{
        self,
        access::{TOKEN_ALL, TOKEN_SOME},
    },
    server::{self, Listeners, Server},
    upstream::{client::UpstreamClient, service_token::ServiceToken},
};
use tokio::{net::TcpListener, signal};
use url::Url;

/// Limits fragmentation: under load, a 64 MiB cache takes about 100 MiB with mimalloc, and 150 to 190 MiB with the
/// allocator of glibc. `tests/memory` measures it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An error that ends the process.
enum Failure {
    /// An invalid configuration, or one that does not fit the machine: exit code 2.
    Setup(String),
    /// A failure at runtime: exit code 1.
    Running(String),
}

impl From<DocumentFaults> for Failure {
    fn from(faults: DocumentFaults) -> Self {
        Self::Setup(faults.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Setup(error.to_string())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    logging::install_panic_hook();
    let _flush = logging::FlushOnDrop;
    server::descriptors::raise_open_files();
    let result = match cli::parse() {
        Action::Serve(sources) => serve(&sources).await,
        Action::Sandbox(sources) => serve_sandbox(sources).await,
        Action::Schema { federation } => {
            let sdl = if federation { api::subgraph_sdl } else { api::sdl };
            print(sdl(&Config::default().limits).trim_end());
            Ok(())
        }
        Action::Check(sources) => check(&sources).await,
        Action::ApiKey(name) => generate_api_key(&name),
        Action::Key => {
            print(KeyRing::generate_line());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Setup(text)) => {
            logging::report(&text);
            ExitCode::from(2)
        }
        Err(Failure::Running(text)) => {
            logging::report(&text);
            ExitCode::FAILURE
        }
    }
}

async fn serve(sources: &Sources) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    config.check_serving()?;
    logging::start(&config.log).map_err(log_error)?;
    let signals = ShutdownSignals::install()?;
    let listener = bind("--listen", config.listen).await?;
    let metrics = bind_optional("--metrics-listen", config.metrics.listen).await?;
    let admin = bind_optional("--admin-listen", config.admin.listen).await?;
    let (upstream, is_sandbox) = match config.upstream.url.clone() {
        Some(url) => (url, false),
        None => (start_sandbox(&config).await?, true),
    };
    let server = Server::new(&config, &upstream, is_sandbox).map_err(Failure::Setup)?;
    let documents = server.load_documents(&config.documents).await?;
    let base = format!("http://{}", address(&listener)?);
    let profile = match config.profile {
        Profile::Development => "",
        Profile::Production => ", profile production",
    };
    print(format_args!("appointments-gateway {}{profile}", env!("CARGO_PKG_VERSION")));
    print(format_args!("  GraphQL   {base}{}", config.http.path));
    if config.graphiql {
        let note =
            if config.graphql.introspection { "" } else { " (no schema: graphql.introspection is off)" };
        print(format_args!("  GraphiQL  {base}/{note}"));
    }
    if let Some(count) = documents {
        let path = config.documents.path.as_deref().unwrap_or(Path::new("")).display();
        print(format_args!(
            "  Documents {count} trusted, from {path} (mode {})",
            config.documents.mode.name()
        ));
    }
    if let Some(metrics) = &metrics {
        print(format_args!("  Metrics   http://{}/metrics", address(metrics)?));
    } else if config.metrics.enabled {
        print(format_args!("  Metrics   {base}/metrics"));
    }
    if let Some(admin) = &admin {
        print(format_args!("  Admin     http://{}/ (livez, readyz, metrics)", address(admin)?));
    }
    if is_sandbox {
        print(format_args!("  Upstream  built-in sandbox at {upstream}: all data is made up"));
    } else {
        print(format_args!("  Upstream  {upstream}"));
    }
    if config.identity.mode == IdentityMode::Service {
        print("  Tokens    service mode: callers authenticate with a JWT or an API key (callers.*)");
    } else if is_sandbox {
        print(format_args!(
            "  Tokens    {TOKEN_ALL} (all appointments), {TOKEN_SOME} (403 for most of them)"
        ));
    }
    if let Some(url) = &config.shared.url {
        print(format_args!("  Fleet     {url} (prefix {})", config.shared.prefix));
    }
    for warning in config.warnings().into_iter().chain(server::descriptors::warning(&config)) {
        tracing::warn!("{warning}");
    }
    tracing::info!(listen = %base, %upstream, profile = config.profile.name(), sandbox = is_sandbox, "serving");
    let listeners = Listeners { api: listener, metrics, admin };
    server.serve(listeners, shutdown_requested(signals)).await;
    Ok(())
}

async fn serve_sandbox(mut sources: Sources) -> Result<(), Failure> {
    // The default address may be taken by a gateway.
    let is_listen_set = sources.flags.iter().any(|(name, _)| *name == "listen");
    if !is_listen_set && !sources.environment.contains_key("GATEWAY_LISTEN") && sources.file.is_none() {
        sources.flags.push(("listen", "127.0.0.1:8081".to_owned()));
    }
    let config = Config::load(&sources)?;
    logging::start(&config.log).map_err(log_error)?;
    let signals = ShutdownSignals::install()?;
    let listener = bind("--listen", config.listen).await?;
    print(format_args!("appointments-gateway sandbox {}: all data is made up", env!("CARGO_PKG_VERSION")));
    print(format_args!("  Upstream  http://{}/api/v1/appointments", address(&listener)?));
    print(format_args!("  Tokens    {TOKEN_ALL} (all appointments), {TOKEN_SOME} (403 for most of them)"));
    sandbox::serve(listener, config.sandbox.faults, shutdown_requested(signals))
        .await
        .map_err(|error| Failure::Running(format!("the sandbox failed: {error}")))
}

async fn check(sources: &Sources) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    config.check_serving()?;
    let documents = match ManifestSource::of(&config.documents) {
        Some(source) => Some(check_documents(&config, &source).await?),
        None => None,
    };
    print(format_args!("configuration valid (profile {})", config.profile.name()));
    if let Some(count) = documents {
        print(format_args!("trusted documents valid ({count} ids)"));
    }
    for warning in config.warnings().into_iter().chain(server::descriptors::warning(&config)) {
        print(format_args!("warning: {warning}"));
    }
    let mut failures = Vec::new();
    let mut record = |result: Result<String, String>| match result {
        Ok(text) => print(text),
        Err(text) => failures.push(text),
    };
    let http_client = HttpClient::new(&config).map_err(Failure::Setup)?;
    match &config.upstream.url {
        Some(url) => {
            record(check_upstream(&config, url).await?);
            if let Some(credentials) = config.identity.client_credentials(url, false) {
                let token_url = without_query(&credentials.token_url);
                let token = ServiceToken::start(credentials, http_client.clone()).check().await;
                record(match token {
                    Ok(()) => Ok(format!("{token_url} issued a token")),
                    Err(reason) => Err(format!("{token_url} issued no token: {reason}")),
                });
            }
        }
        None => record(Ok("upstream.url is not set: the built-in sandbox would be served".to_owned())),
    }
    if let Some(url) = &config.callers.jwks_url {
        let keys = fetched_keys(&config.callers, url.clone(), http_client);
        let url = without_query(url);
        record(match keys.current().await {
            Ok(_) => Ok(format!("{url} supplied keys for the callers' JWTs")),
            Err(reason) => Err(format!("{url} supplied no keys for the callers' JWTs: {reason}")),
        });
    }
    if let Some(url) = &config.shared.url {
        record(fleet::check(&config.shared, url).await);
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Running(failures.join("\n"))) }
}

/// Validates the trusted documents against the schema and the limits, as at start. Returns their number.
async fn check_documents(config: &Config, source: &ManifestSource) -> Result<usize, DocumentFaults> {
    let memory = ResponseMemory::new(config.http.max_response_memory, config.limits.caller_share);
    let api = Api::new(config.limits.clone(), &config.graphql, config.cache.caller_share, memory);
    api.trusting(&config.documents).load_documents(source.read()).await
}

/// The address of an identity provider for the output. Its query may hold a secret.
fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

async fn check_upstream(config: &Config, url: &Url) -> Result<Result<String, String>, Failure> {
    let upstream = UpstreamClient::new(&config.upstream, url, None).map_err(Failure::Setup)?;
    Ok(match upstream.probe().await {
        Ok(status @ (200 | 401 | 403)) => {
            Ok(format!("the upstream at {url} is reachable ({status} to a list request without a token)"))
        }
        Ok(status) => Err(format!(
            "the upstream at {url} is reachable, but responds to GET api/v1/appointments without a token with {status} \
             instead of 401; check upstream.url"
        )),
        Err(error) => Err(format!("the upstream at {url} is not reachable: {error}")),
    })
}

/// Prints the line for the key file to standard output, so that it can be redirected, and the key to standard error.
fn generate_api_key(name: &str) -> Result<(), Failure> {
    let api_key = NewApiKey::generate(name).map_err(Failure::Setup)?;
    print(&api_key.line);
    logging::report(&format!("API key of {name}, shown only once: {}", api_key.key));
    Ok(())
}

/// Starts the sandbox on a free loopback port, for the lifetime of the process.
async fn start_sandbox(config: &Config) -> Result<Url, Failure> {
    let listener = bind("--upstream-url", ([127, 0, 0, 1], 0).into()).await?;
    let url = format!("http://{}/", address(&listener)?);
    tokio::spawn(sandbox::serve(listener, config.sandbox.faults.clone(), std::future::pending()));
    Url::parse(&url).map_err(|error| Failure::Setup(error.to_string()))
}

/// Binds `listen`, the value of `flag`.
async fn bind(flag: &str, listen: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).await.map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => "stop the process that uses it, or choose another port",
            io::ErrorKind::PermissionDenied => "choose a port from 1024 upward",
            io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
            _ => "choose another address",
        };
        Failure::Setup(format!("{flag}: cannot listen on {listen} ({error}); {fix} with {flag}"))
    })
}

async fn bind_optional(flag: &str, listen: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    match listen {
        Some(listen) => bind(flag, listen).await.map(Some),
        None => Ok(None),
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::Setup(format!("listen: {error}")))
}

/// Handlers of SIGTERM and SIGINT. SIGHUP, which by default ends a process, is ignored. They are installed before the ports are bound, so no signal is lost.
#[cfg(unix)]
struct ShutdownSignals {
    terminate: signal::unix::Signal,
    interrupt: signal::unix::Signal,
}

#[cfg(unix)]
impl ShutdownSignals {
    fn install() -> Result<Self, Failure> {
        let install = |kind| {
            signal::unix::signal(kind)
                .map_err(|error| Failure::Setup(format!("cannot install signal handlers: {error}")))
        };
        let mut hangups = install(signal::unix::SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                tracing::info!("SIGHUP ignored: the configuration is read only at start");
            }
        });
        Ok(Self {
            terminate: install(signal::unix::SignalKind::terminate())?,
            interrupt: install(signal::unix::SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct ShutdownSignals;

#[cfg(not(unix))]
impl ShutdownSignals {
    fn install() -> Result<Self, Failure> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = signal::ctrl_c().await;
    }
}

/// Completes at the first SIGTERM or SIGINT, which starts the graceful shutdown. A second one ends the process at once.
async fn shutdown_requested(mut signals: ShutdownSignals) {
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        logging::flush();
        std::process::exit(1);
    });
}

/// Prints a line to standard output. A closed standard output is not an error.
fn print(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn log_error(error: io::Error) -> Failure {
    Failure::Setup(format!("cannot start the log: {error}"))
}
