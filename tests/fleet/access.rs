//! Access to the shared Redis: passwords, ACL users, TLS and sentinels, and the reports of `check` on them.

use std::{net::Ipv4Addr, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::support::{
    FinishedRun, Fleet, FleetKeys, Gateway, Redis, Sentinels, StatefulUpstream, TempFile, free_port, id,
    program,
};

const PASSWORD: &str = "open-sesame-0815";

async fn check(keys: &FleetKeys, url: &str, settings: &[(&str, &str)]) -> FinishedRun {
    let shared = [("shared.url", url), ("shared.key_file", keys.path())];
    let ended = FinishedRun::of(program(&["check"], &[&shared, settings].concat())).await;
    for output in [&ended.stdout, &ended.stderr] {
        assert!(!output.contains(PASSWORD), "{ended:?}");
    }
    ended
}

/// Fails, with all of `parts` in the reason.
#[track_caller]
fn assert_unavailable(ended: &FinishedRun, parts: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in [&["the shared Redis (", "is not available"], parts].concat() {
        assert!(ended.stderr.contains(part), "{part:?} in {}", ended.stderr);
    }
}

#[track_caller]
fn assert_available(ended: &FinishedRun, redis: &Redis) {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let told = format!("the shared Redis at 127.0.0.1:{} is available (version ", redis.port());
    assert!(ended.stdout.contains(&told), "{told:?} in {}", ended.stdout);
}

/// A change through one replica is read through the other, and was acknowledged.
async fn assert_agreement(fleet: &Fleet) {
    fleet.until_joined().await;
    for (author, reader) in [(0, 1), (1, 0)] {
        let (before, status) = (fleet[author].changes("acknowledged").await, format!("by {author}"));
        fleet[reader].status("token", &id(1)).await;
        fleet[author].set_status("token", &id(1), &status).await;
        assert_eq!(fleet[reader].status("token", &id(1)).await, status);
        assert_eq!(fleet[author].changes("acknowledged").await, before + 1.0);
    }
}

/// Serves without the fleet, with one line in the log that has all of `parts`.
async fn assert_serves_alone(gateway: &Gateway, parts: &[&str]) {
    let replica = |part: &str| gateway.stderr().lines().filter(|line| line.contains(part)).count();
    super::support::eventually("the reason is in the log", async || {
        replica("the shared Redis is not available") > 0
    })
    .await;
    let ready = gateway.request(reqwest::Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let reply = gateway.appointment("token", &id(1)).await;
    assert_eq!(reply.appointment()["id"], id(1).as_str());
    let log = gateway.stderr();
    let lines = log.lines().filter(|line| line.contains("the shared Redis is not available"));
    let lines = lines.collect::<Vec<_>>();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} in {}", lines[0]);
    }
    assert!(!log.contains(PASSWORD));
}

#[tokio::test]
async fn check_describes_the_server_and_its_risks() {
    let (keys, redis) = (FleetKeys::generate(), Redis::start().await);
    let ended = check(&keys, &redis.url(), &[]).await;
    assert_available(&ended, &redis);
    assert!(ended.stdout.contains("maxmemory-policy noeviction)") && !ended.stdout.contains("warning"));
    // It leaves nothing for long, and joins no fleet.
    for (key, lifetime) in redis.lifetimes().await {
        assert!(lifetime.is_some_and(|left| left.as_secs() <= 1), "{}", String::from_utf8_lossy(&key));
    }

    for policy in ["allkeys-lru", "volatile-ttl"] {
        let () = redis.command(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let ended = check(&keys, &redis.url(), &[]).await;
        assert_available(&ended, &redis);
        let is_warned = ended.stdout.contains("warning: the shared Redis may evict any key");
        assert_eq!(is_warned, policy.starts_with("allkeys"), "{ended:?}");
    }

    let () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let () = redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    assert_unavailable(&check(&keys, &redis.url(), &[]).await, &["OOM", "raise the maxmemory"]);
}

#[tokio::test]
async fn check_reports_servers_that_no_replica_can_use() {
    let (keys, redis) = (FleetKeys::generate(), Redis::start().await);
    let absent = format!("redis://127.0.0.1:{}", free_port());
    assert_unavailable(&check(&keys, &absent, &[]).await, &[&absent, "refused"]);
    let replica = redis.replica().await;
    assert_unavailable(
        &check(&keys, &replica.url(), &[]).await,
        &["is a read-only replica", "redis-sentinel://"],
    );
    let database = format!("{}/99", redis.url());
    assert_unavailable(&check(&keys, &database, &[]).await, &["DB index is out of range"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("redis://{}", silent.local_addr().unwrap());
    assert_unavailable(&check(&keys, &silent, &[]).await, &["did not respond within 1s"]);
}

/// Responds to each command as an old server does.
async fn old_server(version: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    let received = String::from_utf8_lossy(&bytes[..count]).to_uppercase();
                    let mut responses = String::new();
                    for command in received.split('*').skip(1) {
                        responses += &match command.split("\r\n").nth(2) {
                            Some("HELLO") if version.starts_with('5') => {
                                "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n".to_owned()
                            }
                            Some("HELLO") => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
                            Some("INFO") => {
                                let info = format!("# Server\r\nredis_version:{version}\r\nrole:master\r\n");
                                format!("${}\r\n{info}\r\n", info.len())
                            }
                            _ => "+OK\r\n".to_owned(),
                        };
                    }
                    let _ = stream.write_all(responses.as_bytes()).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn old_servers_are_refused_and_the_gateway_serves_alone() {
    let (keys, upstream) = (FleetKeys::generate(), StatefulUpstream::start().await);
    for (version, told) in [("6.2.14", "unsupported version \"6.2.14\""), ("5.0.14", "use Redis 7 or later")]
    {
        let url = old_server(version).await;
        assert_unavailable(&check(&keys, &url, &[]).await, &[told, "Valkey"]);
        let settings = [("shared.url", url.as_str()), ("shared.key_file", keys.path())];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        assert_serves_alone(&gateway, &["use Redis 7 or later"]).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_corrected_in_redis() {
    let (keys, upstream) = (FleetKeys::generate(), StatefulUpstream::start().await);
    let redis = Redis::with(&["--requirepass", "another"]).await;
    let password = TempFile::with(&format!("{PASSWORD}\n"));
    let file = ("shared.password_file", password.path());
    let told = ["WRONGPASS", "check shared.password_file"];
    assert_unavailable(&check(&keys, &redis.url(), &[file]).await, &told);
    assert_unavailable(&check(&keys, &redis.url(), &[]).await, &["NOAUTH", "check shared.password_file"]);
    let unknown = redis.url().replace("127.0.0.1", "nobody@127.0.0.1");
    assert_unavailable(&check(&keys, &unknown, &[file]).await, &told);

    let url = redis.url();
    let settings = [("shared.url", url.as_str()), ("shared.key_file", keys.path()), file];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    assert_serves_alone(&gateway, &told).await;

    let mut redis = redis;
    redis.log_in("default", "another");
    let () = redis.command(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    redis.log_in("default", PASSWORD);
    gateway.until_gauge("gateway_shared_joined", 1.0).await;
    assert_available(&check(&keys, &redis.url(), &[file]).await, &redis);
}

/// The line of docs/operations.md that creates the user, with a password and a prefix.
fn documented_user(prefix: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
    let line = line.replace("PASSWORD", PASSWORD).replace("gateway:*", &format!("{prefix}:*"));
    line.split(' ').map(str::to_owned).collect()
}

/// Creates the documented user, with further rules.
async fn set_user(redis: &Redis, prefix: &str, rules: &[&str]) {
    let user = documented_user(prefix);
    let words = user.iter().map(String::as_str).chain(rules.iter().copied()).collect::<Vec<_>>();
    let () = redis.command(&words).await;
}

#[tokio::test]
async fn the_documented_user_has_all_rights_that_a_fleet_needs() {
    let redis = Redis::start().await;
    set_user(&redis, "north", &[]).await;
    let (upstream, password) = (StatefulUpstream::start().await, TempFile::with(PASSWORD));
    let url = format!("redis://gateway@127.0.0.1:{}/3", redis.port());
    let settings = [
        ("shared.url", url.as_str()),
        ("shared.password_file", password.path()),
        ("shared.prefix", "north"),
        ("shared.cache", "true"),
        ("rate_limit.per_second", "10000"),
    ];
    let mut fleet = Fleet::sharing(redis, &upstream, 2, &settings).await;
    assert_agreement(&fleet).await;
    assert_available(&check(&fleet.keys, &url, &settings[1..3]).await, &fleet.redis);
    fleet.shut_down(1).await;
    let denied: Vec<redis::Value> = fleet.redis.command(&["ACL", "LOG"]).await;
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test]
async fn the_documented_user_reaches_nothing_else() {
    let mut redis = Redis::start().await;
    let () = redis.command(&["SET", "other:key", "value"]).await;
    set_user(&redis, "north", &[]).await;
    redis.log_in("gateway", PASSWORD);
    for words in [
        &["GET", "other:key"][..],
        &["SET", "other:key", "x"],
        &["PUBLISH", "other:bus", "x"],
        &["SUBSCRIBE", "other:bus"],
        &["EVAL", "return redis.call('GET', 'other:key')", "0"],
        &["FLUSHALL"],
        &["KEYS", "*"],
        &["CONFIG", "GET", "requirepass"],
        &["ACL", "LIST"],
        &["SCRIPT", "FLUSH"],
        &["FUNCTION", "FLUSH"],
        &["MONITOR"],
        &["SHUTDOWN"],
    ] {
        let error = redis.try_command::<redis::Value>(words).await.expect_err(words[0]);
        assert_eq!(error.code(), Some("NOPERM"), "{words:?} {error}");
    }
}

#[tokio::test]
async fn missing_rights_are_named_before_the_start() {
    let (keys, redis) = (FleetKeys::generate(), Redis::start().await);
    let password = TempFile::with(PASSWORD);
    let url = format!("redis://gateway@127.0.0.1:{}", redis.port());
    let settings = [("shared.password_file", password.path()), ("shared.prefix", "north")];
    let remedy = "grant the user the rights that docs/operations.md lists";
    for (prefix, rules, told) in [
        ("north", &["-zadd", "-publish"][..], &["may not run PUBLISH, ZADD on north:*", remedy][..]),
        ("north", &["-info"], &["no permissions", remedy]),
        ("north", &["-evalsha"], &["no permissions", remedy]),
        ("north", &["-subscribe"], &["no permissions", remedy]),
        ("north", &["resetchannels"], &["no permissions", remedy]),
        ("north", &["resetchannels", "&south:*"], &["no permissions", remedy]),
        ("south", &[], &["no permissions", remedy]),
        ("north", &["off"], &["WRONGPASS", "check shared.password_file"]),
    ] {
        set_user(&redis, prefix, rules).await;
        assert_unavailable(&check(&keys, &url, &settings).await, told);
    }
    set_user(&redis, "north", &[]).await;
    assert_available(&check(&keys, &url, &settings).await, &redis);
}

/// A private CA and a certificate of it for 127.0.0.1, as files.
struct Certificates {
    authority: TempFile,
    certificate: TempFile,
    key: TempFile,
}

impl Certificates {
    fn generate() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&key, &authority).unwrap();
        let [authority, certificate, key] =
            [authority.pem(), server.pem(), key.serialize_pem()].map(|pem| TempFile::with(&pem));
        Self { authority, certificate, key }
    }

    /// A Redis with TLS on the returned port.
    async fn redis(&self) -> (Redis, u16) {
        let port = free_port();
        let options = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            self.certificate.path(),
            "--tls-key-file",
            self.key.path(),
            "--tls-auth-clients",
            "no",
        ];
        (Redis::with(&options).await, port)
    }
}

#[tokio::test]
async fn replicas_agree_over_tls_with_a_private_ca() {
    let certificates = Certificates::generate();
    let (redis, port) = certificates.redis().await;
    let upstream = StatefulUpstream::start().await;
    let url = format!("rediss://127.0.0.1:{port}");
    let authority = ("shared.ca_file", certificates.authority.path());
    let fleet = Fleet::sharing(redis, &upstream, 2, &[("shared.url", &url), authority]).await;
    assert_agreement(&fleet).await;
    let ended = check(&fleet.keys, &url, &[authority]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&format!("at 127.0.0.1:{port} is available")), "{ended:?}");

    let stranger = Certificates::generate();
    let other = [("shared.ca_file", stranger.authority.path())];
    for (url, settings) in [
        (url.clone(), &[][..]),
        (url.clone(), &other[..]),
        (format!("rediss://localhost:{port}"), &[authority][..]),
    ] {
        let ended = check(&fleet.keys, &url, settings).await;
        assert_unavailable(&ended, &["certificate", "shared.ca_file"]);
    }
    // TLS where there is none.
    let plain = format!("rediss://127.0.0.1:{}", fleet.redis.port());
    assert_unavailable(&check(&fleet.keys, &plain, &[authority]).await, &[]);
}

#[tokio::test]
async fn check_asks_the_sentinels_for_the_master() {
    let (keys, mut sentinels) = (FleetKeys::generate(), Sentinels::start(1).await);
    let url = sentinels.url();
    assert_available(&check(&keys, &url, &[]).await, sentinels.master().await);
    let unknown = url.replace("/fleet", "/nobody");
    assert_unavailable(&check(&keys, &unknown, &[]).await, &["knows no master \"nobody\""]);
    let absent = format!("redis-sentinel://127.0.0.1:{},127.0.0.1:{}/fleet", free_port(), free_port());
    assert_unavailable(&check(&keys, &absent, &[]).await, &["no sentinel named the master", "refused"]);
    // A Redis is no sentinel.
    let redis = sentinels.servers[0].url().replace("redis://", "redis-sentinel://") + "/fleet";
    assert_unavailable(&check(&keys, &redis, &[]).await, &["no sentinel named the master"]);
}
