//! A gateway that asks the upstream with a token of its own, and callers that it knows.

use appointments_gateway::credentials::api_keys::NewApiKey;
use serde_json::json;

use super::{
    Answer, CLIENT_SECRET, Call, Gateway, TempFile, Upstream, canary,
    issuer::{AUDIENCE, ISSUER, Issuer},
};

/// A token that lasts `expires_in` seconds: `service-1` to the first call, `service-2` to the second, and so on.
pub fn service_token(call: &Call, expires_in: u64) -> Answer {
    let token = canary::marked(&format!("service-{}", call.nth));
    Answer::json(200, &json!({ "access_token": token, "expires_in": expires_in, "token_type": "Bearer" }))
}

impl Upstream {
    /// An upstream that knows every appointment, and gives tokens that last an hour at `/oauth2/token`.
    pub async fn with_tokens() -> Self {
        Self::answering(|call| match call.id.as_str() {
            "token" => service_token(call, 3600),
            _ => call.appointment(),
        })
        .await
    }

    /// Shows the public keys of `issuers` at `/jwks`, from now on.
    pub fn show_keys_of(&self, issuers: &[&Issuer]) {
        let keys = Issuer::key_set(issuers);
        self.on("jwks", move |_| Answer::json(200, &keys));
    }

    /// How many calls there were for appointments.
    pub fn calls_for_appointments(&self) -> usize {
        self.seen(|seen| {
            seen.calls.iter().filter(|call| call.path.starts_with("/api/v1/appointments")).count()
        })
    }
}

impl Gateway {
    /// A gateway with a token of its own from `upstream`, with `settings` that say who its callers are.
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

    /// The same, for callers with tokens of the issuer whose keys `upstream` shows.
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

/// API keys, and the file that the gateway knows them by.
pub struct KeyFile {
    keys: Vec<NewApiKey>,
    file: TempFile,
}

impl KeyFile {
    /// One for each of `names`.
    pub fn of(names: &[&str]) -> Self {
        let keys = names.iter().map(|name| NewApiKey::generate(name).unwrap()).collect::<Vec<_>>();
        let lines = keys.iter().map(|key| format!("{}\n", key.line)).collect::<String>();
        Self { keys, file: TempFile::with(&lines) }
    }

    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// The key of the how manieth name, from 0.
    pub fn key(&self, index: usize) -> &str {
        &self.keys[index].key
    }
}
