//! Connections to the shared Redis: its address, directly or from sentinels, TLS, the ACL user, and the checks of the
//! server.

use std::{path::PathBuf, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::config::shared::{SharedConfig, SharedUrl, address};

/// The oldest major version of Redis, and of the Redis that a Valkey stands for, that is supported.
const MIN_VERSION: u32 = 7;

/// The longest time for connecting to one server, including TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to the server that numbers the messages of the fleet.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: ServerInfo,
    /// `HOST:PORT`
    pub(super) address: String,
}

/// The properties of a server, from `INFO`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServerInfo {
    /// Drawn by the server at its start.
    pub(super) run_id: String,
    /// `maxmemory_policy`
    pub(super) eviction: String,
    pub(super) version: String,
    is_master: bool,
}

/// How to connect.
pub(super) struct Connector {
    url: SharedUrl,
    password: Option<String>,
    ca_pem: Option<Vec<u8>>,
}

impl Connector {
    /// # Errors
    /// A text for the operator, if the CA file cannot be read.
    pub(super) fn new(config: &SharedConfig, url: SharedUrl) -> Result<Self, String> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| format!("shared.ca_file: {}: {error}", path.display()))
        };
        let ca_pem = config.ca_file.as_ref().map(read).transpose()?;
        let password = config.password_file.as_ref().map(|secret| secret.expose().to_owned());
        let connector = Self { url, password, ca_pem };
        // Builds TLS, so that an invalid CA file is found now.
        if let Some((host, port)) = connector.url.nodes.first() {
            connector.client(host, *port, true).map_err(|error| format!("shared.ca_file: {error}"))?;
        }
        Ok(connector)
    }

    /// Connects, and has `pushes` receive the messages of subscriptions. If `pushes` is full, the connection is useless.
    ///
    /// # Errors
    /// The reason, for the log.
    pub(super) async fn connect(&self, pushes: mpsc::Sender<PushInfo>) -> Result<Connected, String> {
        let Some(master) = &self.url.master else {
            let Some((host, port)) = self.url.nodes.first() else {
                return Err("there is no address".to_owned());
            };
            return self.open(host, *port, pushes).await;
        };
        let (host, port) = self.address_of_master(master).await?;
        self.open(&host, port, pushes).await
    }

    /// The address that the first reachable sentinel names.
    ///
    /// # Errors
    /// The reason, for the log.
    pub(super) async fn address_of_master(&self, master: &str) -> Result<(String, u16), String> {
        let mut reasons = Vec::new();
        for (host, port) in &self.url.nodes {
            let sentinel = address(host, *port);
            let address = async {
                let client = self.client(host, *port, false)?;
                let mut connection =
                    client.get_multiplexed_async_connection_with_config(&connection_config()).await?;
                redis::cmd("SENTINEL")
                    .arg("GET-MASTER-ADDR-BY-NAME")
                    .arg(master)
                    .query_async::<Option<(String, u16)>>(&mut connection)
                    .await
            };
            match timeout(CONNECT_TIMEOUT, address).await {
                Ok(Ok(Some(address))) => return Ok(address),
                Ok(Ok(None)) => reasons.push(format!("{sentinel} knows no master {master:?}")),
                Ok(Err(error)) => reasons.push(format!("{sentinel}: {}", reason(&error))),
                Err(_) => reasons.push(format!("{sentinel} did not respond within {CONNECT_TIMEOUT:?}")),
            }
        }
        Err(format!("no sentinel named the master: {}", reasons.join("; ")))
    }

    /// Completes with a reason once the sentinels name another master than the server at `connected`. Never without
    /// sentinels.
    pub(super) async fn until_replaced(&self, connected: &str, interval: Duration) -> String {
        let Some(master) = &self.url.master else { return std::future::pending().await };
        loop {
            // Without an answer nothing is known, and the lease decides.
            if let Ok((host, port)) = self.address_of_master(master).await
                && address(&host, port) != connected
            {
                return format!("{} is the master now", address(&host, port));
            }
            sleep(interval).await;
        }
    }

    async fn open(&self, host: &str, port: u16, pushes: mpsc::Sender<PushInfo>) -> Result<Connected, String> {
        let connect = async {
            let client = self.client(host, port, true)?;
            let config = connection_config().set_push_sender(move |push| pushes.try_send(push));
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
            redis::RedisResult::Ok((connection, info))
        };
        let address = address(host, port);
        let (connection, info) = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| format!("{address} did not respond within {CONNECT_TIMEOUT:?}"))?
            .map_err(|error| format!("{address}: {}", reason(&error)))?;
        let server = ServerInfo::parse(&info);
        server.check().map_err(|fault| format!("{address} {fault}"))?;
        Ok(Connected { connection, server, address })
    }

    fn client(&self, host: &str, port: u16, is_redis: bool) -> redis::RedisResult<Client> {
        let host = host.to_owned();
        let addr = if self.url.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if is_redis {
            settings = settings.set_db(self.url.database);
            if let Some(user) = &self.url.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.password {
                settings = settings.set_password(password);
            }
        }
        let info: ConnectionInfo = addr.into_connection_info()?.set_redis_settings(settings);
        if self.url.tls {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: self.ca_pem.clone() })
        } else {
            Client::open(info)
        }
    }
}

/// Each call has its own deadline, so the library sets none.
fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// The text of an error of the server or of the connection, with the remedy if there is one.
pub(super) fn reason(error: &RedisError) -> String {
    let text = error.to_string();
    let remedy = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            "check shared.password_file, and the user in shared.url"
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            "grant the user the rights that docs/operations.md lists (Fleet)"
        }
        (ErrorKind::RESP3NotSupported, _) => "use Redis 7 or later, or Valkey",
        (_, Some("OOM")) => "raise the maxmemory of the Redis",
        (ErrorKind::Io, _) if text.contains("certificate") => {
            "name the CA certificates of the Redis with shared.ca_file, and its host as in its certificate with shared.url"
        }
        _ => return text,
    };
    format!("{text}; {remedy}")
}

impl ServerInfo {
    pub(super) fn parse(info: &str) -> Self {
        let value = |name: &str| {
            let lines = info.lines();
            let found = lines.filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name);
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self {
            run_id: value("run_id"),
            eviction: value("maxmemory_policy"),
            version: value("redis_version"),
            is_master: value("role") == "master",
        }
    }

    /// A risk, for the operator.
    pub(super) fn warning(&self) -> Option<String> {
        self.eviction.starts_with("allkeys").then(|| {
            format!(
                "the shared Redis may evict any key (maxmemory-policy {}): idempotency keys hold only while it keeps them; set \
                 noeviction or a volatile policy",
                self.eviction
            )
        })
    }

    fn check(&self) -> Result<(), String> {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < MIN_VERSION) {
            return Err(format!(
                "has the unsupported version {:?}; use Redis {MIN_VERSION} or later, or Valkey",
                self.version
            ));
        }
        if self.run_id.is_empty() {
            return Err("does not tell its run id; let the user run INFO".to_owned());
        }
        if !self.is_master {
            return Err("is a read-only replica; name the master, or use redis-sentinel://".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_checked() {
        let info = |version: &str, role: &str| {
            format!(
                "# Server\r\nredis_version:{version}\r\nrun_id:abc\r\n# Replication\r\nrole:{role}\r\nmaxmemory_policy:noeviction\r\n"
            )
        };
        let server = ServerInfo::parse(&info("7.0.15", "master"));
        assert_eq!((server.run_id.as_str(), server.eviction.as_str()), ("abc", "noeviction"));
        assert!(server.check().is_ok());
        assert!(ServerInfo::parse(&info("10.1", "master")).check().is_ok());
        for (version, role) in [("6.2.14", "master"), ("", "master"), ("x", "master"), ("7.2.4", "slave")] {
            assert!(ServerInfo::parse(&info(version, role)).check().is_err(), "{version} {role}");
        }
    }
}
