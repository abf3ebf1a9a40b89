//! The program: what was asked for, carried out, and an exit code. Everything else is in the library.

use std::{
    fmt::Display,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use appointments_gateway::{
    auth::identity::fetched_keys,
    cli::{self, Task},
    config::{
        Config,
        auth::IdentityMode,
        loader::{ConfigError, Sources},
        profile::Profile,
    },
    credentials::api_keys::NewApiKey,
    graphql,
    http_client::HttpClient,
    logging,
    sandbox::{
        self,
        access::{TOKEN_ALL, TOKEN_SOME},
    },
    server::{self, Server},
    upstream::{client::UpstreamClient, service_token::ServiceToken},
};
use tokio::{net::TcpListener, signal};
use url::Url;

/// With the own one of the system (glibc), a cache of 64 MiB through which much goes takes 150 to 190 MiB, in pieces too
/// small for anything else; with this one about 100. `tests/memory` measures it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the program ends before its time.
enum Failure {
    /// The configuration or the machine it is for: exit code 2.
    Setup(String),
    /// Something outside: exit code 1.
    Running(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Setup(error.to_string())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    logging::watch_panics();
    let _flush = logging::FlushOnDrop;
    server::descriptors::raise_open_files();
    let result = match cli::parse() {
        Task::Serve(sources) => serve(&sources).await,
        Task::Sandbox(sources) => serve_sandbox(sources).await,
        Task::Schema => {
            say(graphql::api::sdl(&Config::default().limits).trim_end());
            Ok(())
        }
        Task::Check(sources) => check(&sources).await,
        Task::ApiKey(name) => make_api_key(&name),
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
    logging::start(&config.log).map_err(no_log)?;
    let signals = Signals::watch()?;
    let listener = bind("--listen", config.listen).await?;
    let metrics = match config.metrics.listen {
        Some(address) => Some(bind("--metrics-listen", address).await?),
        None => None,
    };
    let (upstream, is_sandbox) = match config.upstream.url.clone() {
        Some(url) => (url, false),
        None => (start_sandbox(&config).await?, true),
    };
    let server = Server::new(&config, &upstream, is_sandbox).map_err(Failure::Setup)?;
    let here = format!("http://{}", address(&listener)?);
    let profile = match config.profile {
        Profile::Development => "",
        Profile::Production => ", profile production",
    };
    say(format_args!("appointments-gateway {}{profile}", env!("CARGO_PKG_VERSION")));
    say(format_args!("  GraphQL   {here}/graphql"));
    if config.graphiql {
        let note =
            if config.graphql.introspection { "" } else { " (without help: graphql.introspection is off)" };
        say(format_args!("  GraphiQL  {here}/{note}"));
    }
    if let Some(metrics) = &metrics {
        say(format_args!("  Metrics   http://{}/metrics", address(metrics)?));
    } else if config.metrics.enabled {
        say(format_args!("  Metrics   {here}/metrics"));
    }
    if is_sandbox {
        say(format_args!("  Upstream  the built-in sandbox at {upstream}: all its data is made up"));
    } else {
        say(format_args!("  Upstream  {upstream}"));
    }
    if config.identity.mode == IdentityMode::Service {
        say("  Tokens    the gateway's own goes upstream; callers show an API key or a JWT (callers.*)");
    } else if is_sandbox {
        say(format_args!(
            "  Tokens    {TOKEN_ALL} (sees everything), {TOKEN_SOME} (is forbidden most of it)"
        ));
    }
    for warning in config.warnings().into_iter().chain(server::descriptors::warning(&config)) {
        tracing::warn!("{warning}");
    }
    tracing::info!(%here, %upstream, profile = config.profile.name(), sandbox = is_sandbox, "serving");
    server.serve(listener, metrics, asked_to_stop(signals)).await;
    Ok(())
}

async fn serve_sandbox(mut sources: Sources) -> Result<(), Failure> {
    // Beside a gateway on the default address.
    let is_listen_set = sources.flags.iter().any(|(name, _)| *name == "listen");
    if !is_listen_set && !sources.environment.contains_key("GATEWAY_LISTEN") && sources.file.is_none() {
        sources.flags.push(("listen", "127.0.0.1:8081".to_owned()));
    }
    let config = Config::load(&sources)?;
    logging::start(&config.log).map_err(no_log)?;
    let signals = Signals::watch()?;
    let listener = bind("--listen", config.listen).await?;
    say(format_args!("appointments-gateway sandbox {}: all its data is made up", env!("CARGO_PKG_VERSION")));
    say(format_args!("  Upstream  http://{}/api/v1/appointments", address(&listener)?));
    say(format_args!("  Tokens    {TOKEN_ALL} (sees everything), {TOKEN_SOME} (is forbidden most of it)"));
    sandbox::serve(listener, config.sandbox.faults, asked_to_stop(signals))
        .await
        .map_err(|error| Failure::Running(format!("the sandbox ended: {error}")))
}

async fn check(sources: &Sources) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    config.check_serving()?;
    say(format_args!("the configuration is right, for the profile {}", config.profile.name()));
    for warning in config.warnings().into_iter().chain(server::descriptors::warning(&config)) {
        say(format_args!("warning: {warning}"));
    }
    let mut failures = Vec::new();
    let mut told = |answer: Result<String, String>| match answer {
        Ok(text) => say(text),
        Err(text) => failures.push(text),
    };
    let outside = HttpClient::new(&config.upstream).map_err(Failure::Setup)?;
    match &config.upstream.url {
        Some(url) => {
            told(check_upstream(&config, url).await?);
            if let Some(credentials) = config.identity.client_credentials(url, false) {
                let token_url = credentials.token_url.clone();
                let token = ServiceToken::start(credentials, outside.clone()).check().await;
                told(match token {
                    Ok(()) => Ok(format!("{token_url} gives the gateway a token of its own")),
                    Err(why) => Err(format!("{token_url} gives the gateway no token: {why}")),
                });
            }
        }
        None => told(Ok("there is no upstream: the built-in sandbox would be served".to_owned())),
    }
    if let Some(url) = &config.callers.jwks_url {
        let keys = fetched_keys(&config.callers, url.clone(), outside);
        told(match keys.current().await {
            Ok(_) => Ok(format!("{url} has keys to verify the callers' tokens with")),
            Err(why) => Err(format!("{url} has no keys to verify the callers' tokens with: {why}")),
        });
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Running(failures.join("\n"))) }
}

async fn check_upstream(config: &Config, url: &Url) -> Result<Result<String, String>, Failure> {
    let upstream = UpstreamClient::new(&config.upstream, url, None).map_err(Failure::Setup)?;
    Ok(match upstream.probe().await {
        Ok(status @ (200 | 401 | 403)) => {
            Ok(format!("the upstream at {url} answers ({status} to a list asked for without a token)"))
        }
        Ok(status) => Err(format!(
            "the upstream at {url} answers, but with {status} to GET api/v1/appointments without a token, where 401 was \
             expected; is upstream.url right?"
        )),
        Err(error) => Err(format!("the upstream at {url} does not answer: {error}")),
    })
}

/// The line on standard output, so that it can go into the file as it is; the key where a person sees it.
fn make_api_key(name: &str) -> Result<(), Failure> {
    let made = NewApiKey::generate(name).map_err(Failure::Setup)?;
    say(&made.line);
    logging::report(&format!("the key of {name}, shown this once: {}", made.key));
    Ok(())
}

/// The sandbox on a free loopback port, for as long as the process lives.
async fn start_sandbox(config: &Config) -> Result<Url, Failure> {
    let listener = bind("--upstream-url", ([127, 0, 0, 1], 0).into()).await?;
    let url = format!("http://{}/", address(&listener)?);
    tokio::spawn(sandbox::serve(listener, config.sandbox.faults.clone(), std::future::pending()));
    Url::parse(&url).map_err(|error| Failure::Setup(error.to_string()))
}

/// Listens at `listen`, which `flag` chooses.
async fn bind(flag: &str, listen: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).await.map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
            io::ErrorKind::PermissionDenied => "choose a port from 1024 upward",
            io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
            _ => "choose another address",
        };
        Failure::Setup(format!("{flag}: {listen} cannot be listened on ({error}); {fix} with {flag}"))
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::Setup(format!("listen: {error}")))
}

/// Being asked to stop, noticed from the moment that this is made: a signal that comes before anybody waits is not lost.
#[cfg(unix)]
struct Signals {
    terminate: signal::unix::Signal,
    interrupt: signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn watch() -> Result<Self, Failure> {
        let watch = |kind| {
            signal::unix::signal(kind)
                .map_err(|error| Failure::Setup(format!("signals cannot be watched: {error}")))
        };
        Ok(Self {
            terminate: watch(signal::unix::SignalKind::terminate())?,
            interrupt: watch(signal::unix::SignalKind::interrupt())?,
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
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn watch() -> Result<Self, Failure> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = signal::ctrl_c().await;
    }
}

/// Returns at the first SIGTERM or ctrl-c; a second one ends the process at once.
async fn asked_to_stop(mut signals: Signals) {
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        logging::flush();
        std::process::exit(1);
    });
}

/// Start-up lines and answers to commands, on standard output. Nobody reading them is no reason to end.
fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn no_log(error: io::Error) -> Failure {
    Failure::Setup(format!("the log cannot be written: {error}"))
}
