//! `upstream.proxy`: all outgoing calls go through it, and only through it.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{
    CLIENT_SECRET, FinishedRun, ForwardProxy, Gateway, KeyFile, MutualTlsUpstream, TempFile, TlsUpstream,
    Upstream, id, program, served,
};

/// `user:password` with characters that are special in URLs and in base64.
const CREDENTIALS: &str = "gateway:p%40ss:w@rd/ü?";

fn authority(url: &str) -> String {
    url.split_once("://").unwrap().1.to_owned()
}

#[tokio::test]
async fn https_calls_are_tunnelled_and_the_proxy_sees_no_token() {
    let (upstream, proxy) = (TlsUpstream::start().await, ForwardProxy::start().await);
    let settings = [("upstream.ca_file", upstream.ca_file()), ("upstream.proxy", proxy.url())];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for n in 0..3 {
        let reply = gateway.appointment("token", &id(n)).await;
        assert_eq!(*reply.appointment(), served(&id(n), "token", 1));
    }
    // Through the tunnel, TLS and HTTP/2 are between the gateway and the upstream.
    assert_eq!(upstream.requests(), vec![hyper::Version::HTTP_2; 3]);
    let requests = proxy.requests();
    assert_eq!(proxy.targets(), [("CONNECT".to_owned(), authority(upstream.url()))]);
    assert_eq!(requests[0].authorization, None);
    let headers = requests[0].headers.to_ascii_lowercase();
    assert!(!headers.contains("\r\nauthorization:") && !headers.starts_with("authorization:"), "{headers}");
}

#[tokio::test]
async fn http_calls_are_forwarded_with_the_absolute_url() {
    let (upstream, proxy) = (Upstream::start().await, ForwardProxy::start().await);
    let gateway = Gateway::before(upstream.url(), &[("upstream.proxy", proxy.url())]).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    let target = format!("{}/api/v1/appointments/{}", upstream.url(), id(1));
    assert_eq!(proxy.targets(), [("GET".to_owned(), target)]);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn the_credentials_of_the_file_are_sent_to_the_proxy_alone() {
    let expected = format!("Basic {}", STANDARD.encode(CREDENTIALS));
    let file = TempFile::with(&format!("{CREDENTIALS}\n"));
    let proxy = ForwardProxy::with_authorization(Some(&expected)).await;
    let settings = [("upstream.proxy", proxy.url()), ("upstream.proxy_auth_file", file.path())];

    let upstream = TlsUpstream::start().await;
    let with_ca = [&settings[..], &[("upstream.ca_file", upstream.ca_file())]].concat();
    let gateway = Gateway::before(upstream.url(), &with_ca).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));

    let plain = Upstream::start().await;
    let gateway = Gateway::before(plain.url(), &settings).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));

    let seen = proxy.requests();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.authorization.as_deref() == Some(&expected)), "{seen:?}");
    for log in [gateway.stdout(), gateway.stderr()] {
        assert!(!log.contains("p%40ss") && !log.contains(&expected), "{log}");
    }
}

/// Nothing was sent, so a change has certainly not been made.
#[tokio::test]
async fn a_proxy_that_refuses_or_is_down_makes_the_upstream_unavailable() {
    let upstream = TlsUpstream::start().await;
    let refusing = ForwardProxy::with_authorization(Some("Basic other")).await;
    for proxy in [refusing.url(), "http://127.0.0.1:9"] {
        let settings = [("upstream.ca_file", upstream.ca_file()), ("upstream.proxy", proxy)];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
        assert_eq!(gateway.cancel("token", &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    }
    assert_eq!(upstream.connections(), 0, "the gateway never goes around the proxy");
}

#[tokio::test]
async fn the_token_endpoint_is_called_through_the_proxy() {
    let (upstream, proxy, keys) =
        (MutualTlsUpstream::start().await, ForwardProxy::start().await, KeyFile::of(&["alice"]));
    let token_url = format!("{}/oauth2/token", upstream.url());
    let settings = [
        ("upstream.ca_file", upstream.ca_file()),
        ("upstream.proxy", proxy.url()),
        ("identity.mode", "service"),
        ("identity.token_url", &token_url),
        ("identity.client_id", "gateway"),
        ("identity.client_secret", CLIENT_SECRET),
        ("callers.api_keys_file", keys.path()),
    ];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let reply = gateway.appointment(keys.key(0), &id(1)).await;
    assert_eq!(reply.appointment()["reference"], "certified");
    let connect = ("CONNECT".to_owned(), authority(upstream.url()));
    assert_eq!(proxy.targets(), [connect.clone(), connect]);
    assert_eq!(upstream.requests().len(), 2);
}

/// A plain URL is permitted for them on a loopback address alone, since the call stays on the machine.
#[tokio::test]
async fn plain_calls_with_the_clients_secret_avoid_the_proxy() {
    let (upstream, proxy, keys) =
        (Upstream::with_tokens().await, ForwardProxy::start().await, KeyFile::of(&["alice"]));
    let settings = [("upstream.proxy", proxy.url()), ("callers.api_keys_file", keys.path())];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    gateway.appointment(keys.key(0), &id(1)).await.appointment();
    assert_eq!(upstream.calls_for("token"), 1);
    let targets = proxy.targets();
    assert!(targets.len() == 1 && targets[0].1.contains("appointments"), "{targets:?}");
}

#[tokio::test]
async fn invalid_settings_of_the_proxy_are_reported() {
    let (file, nameless) = (TempFile::with("no colon"), TempFile::with(":password"));
    let url = ("upstream.url", "http://127.0.0.1:9");
    let proxy = ("upstream.proxy", "http://127.0.0.1:9");
    for (settings, told) in [
        (&[url, ("upstream.proxy", "http://user:secret-word@proxy:3128")][..], "upstream.proxy_auth_file"),
        (&[url, ("upstream.proxy", "socks5://proxy:1080")], "http://"),
        (&[url, ("upstream.proxy", "http://proxy/path")], "HOST:PORT"),
        (&[url, proxy, ("upstream.proxy_auth_file", file.path())], "user:password"),
        (&[url, proxy, ("upstream.proxy_auth_file", nameless.path())], "user:password"),
        (&[url, proxy, ("upstream.proxy_auth_file", "/does/not/exist")], "cannot be read"),
        (&[url, ("upstream.proxy_auth_file", TempFile::with("a:b").path())], "upstream.proxy"),
        (&[proxy], "upstream.url"),
    ] {
        let ended = FinishedRun::of(program(&["check"], settings)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains(told) && !ended.stderr.contains("secret-word"), "{told}: {ended:?}");
    }
}
