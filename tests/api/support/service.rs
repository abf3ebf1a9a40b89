//! Gateways in service mode, with callers authenticated by JWT or API key.

use appointments_gateway::credentials::api_keys::NewApiKey;
use serde_json::json;

use super::{
    CLIENT_SECRET, Call, Gateway, TempFile, Upstream, UpstreamResponse, canary,
    issuer::{AUDIENCE, ISSUER, Issuer},
};

/// A token response with the given lifetime in seconds: `service-1` for the first call, `service-2` for the second.
pub fn service_token(call: &Call, expires_in: u64) -> UpstreamResponse {
    let token = canary::marked(&format!("service-{}", call.nth));
    UpstreamResponse::json(
        200,
        &json!({ "access_token": token, "expires_in": expires_in, "token_type": "Bearer" }),
    )
}

impl Upstream {
    /// An upstream with every appointment, and tokens that last an hour at `/oauth2/token`.
    pub async fn with_tokens() -> Self {
        Self::answering(|call| match call.id.as_str() {
            "token" => service_token(call, 3600),
            _ => call.appointment(),
        })
        .await
    }

    /// Publishes the keys of `issuers` at `/jwks` from now on.
    pub fn show_keys_of(&self, issuers: &[&Issuer]) {
        let keys = Issuer::key_set(issuers);
        self.on("jwks", move |_| UpstreamResponse::json(200, &keys));
    }

    /// The number of calls for appointments.
    pub fn calls_for_appointments(&self) -> usize {
        self.seen(|seen| {
            seen.calls.iter().filter(|call| call.path.starts_with("/api/v1/appointments")).count()
        })
    }
}

impl Gateway {
    /// Starts a gateway in service mode with a token of `upstream`; `settings` configure caller authentication.
    pub async fn of_service(upstream: &Upstream, settings: &[(&str, &str)]) -> Self {
        let token_url = format!("{}/oauth2/token", upstream.url());
        let service = [
            ("identity.mode", "service"),
            ("identity.token_url", token_url.as_str()),
            ("identity.client_id", "gateway"),
            ("identity.client_secret", CLIENT_SECRET),
        ];
        Self::before(upstream.url(), &[service.as_slice(), settings].concat()).await
    }

    /// The same for callers with JWTs whose keys `upstream` publishes.
    pub async fn for_issuer(upstream: &Upstream, settings: &[(&str, &str)]) -> Self {
        let jwks_url = format!("{}/jwks", upstream.url());
        let callers = [
            ("callers.jwks_url", jwks_url.as_str()),
            ("callers.issuer", ISSUER),
            ("callers.audience", AUDIENCE),
        ];
        Self::of_service(upstream, &[callers.as_slice(), settings].concat()).await
    }
}

/// API keys, and the file with their digests.
pub struct KeyFile {
    keys: Vec<NewApiKey>,
    file: TempFile,
}

impl KeyFile {
    /// Creates a key for each of `names`.
    pub fn of(names: &[&str]) -> Self {
        let keys = names.iter().map(|name| NewApiKey::generate(name).unwrap()).collect::<Vec<_>>();
        let lines = keys.iter().map(|key| format!("{}\n", key.line)).collect::<String>();
        Self { keys, file: TempFile::with(&lines) }
    }

    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// The key of the name at `index`.
    pub fn key(&self, index: usize) -> &str {
        &self.keys[index].key
    }
}
