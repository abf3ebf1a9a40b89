//! Entry points for fuzzing the upstream's responses, with the properties that hold for any input. The targets are
//! under `fuzz`.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::{Value, value::RawValue};

use super::{cache_control, wire};
use crate::{
    caller::{Caller, ScopeKey},
    http_client::retry_after_header,
};

/// Decodes `body` as the response to each kind of call.
pub fn response(body: &[u8]) {
    let read = wire::appointment(body);
    // `Value` rejects some valid JSON, such as numbers out of range.
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        let id = read.as_ref().ok().map(|it| it.id.0);
        assert_eq!(id, uuid_of(&value["data"]["id"]), "an appointment is valid if its id is");
    }
    if let Ok(appointment) = &read {
        assert!(appointment.size() >= size_of_val(appointment));
    }
    // An object decodes alike on its own and as the only item of a list.
    if let Ok(object) = serde_json::from_slice::<&RawValue>(body) {
        let one = wire::appointment(format!(r#"{{"data": {object}}}"#).as_bytes()).ok();
        let list = wire::list(format!(r#"{{"data": [{object}]}}"#).as_bytes()).map(|page| page.items);
        let appointment = |item: Option<wire::ListItem>| item.map(|item| item.appointment);
        assert!(list.is_ok_and(|items| items.into_iter().map(appointment).eq([one])));
    }
    if let Ok(page) = wire::list(body) {
        assert!(page.items.len() <= body.len());
    }
    assert!(!wire::change::faults(body).is_empty(), "a rejection has at least one message");
}

/// Parses a UUID with hyphens, the only notation of the API.
fn uuid_of(value: &Value) -> Option<uuid::Uuid> {
    let text = value.as_str()?;
    text.parse().ok().filter(|id: &uuid::Uuid| id.hyphenated().to_string().eq_ignore_ascii_case(text))
}

/// Parses the inputs of freshness, one a line: `Cache-Control` (twice), `Age`, `Retry-After`, and the claims of a JWT.
pub fn freshness(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [CACHE_CONTROL, CACHE_CONTROL, AGE, RETRY_AFTER] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.append(name, value);
        }
    }
    let directives = cache_control::parse(&headers);
    for ttl in [Duration::ZERO, Duration::from_secs(30), Duration::MAX] {
        assert!(directives.limit(ttl) <= ttl);
        assert!(directives.limit_stale_if_error(ttl) <= ttl);
        assert!(directives.limit_stale_while_revalidate(ttl) <= ttl);
    }
    let is_directive = |value: &HeaderValue| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|it| it.trim_ascii().eq_ignore_ascii_case(b"no-store"))
    };
    if headers.get_all(CACHE_CONTROL).iter().any(is_directive) {
        assert!(directives.forbids_storage());
        assert_eq!(directives.limit(Duration::MAX), Duration::ZERO);
        assert_eq!(directives.limit_stale_if_error(Duration::MAX), Duration::ZERO);
        assert_eq!(directives.limit_stale_while_revalidate(Duration::MAX), Duration::ZERO);
    }
    assert!(
        retry_after_header::retry_after(&headers).is_none_or(|wait| wait <= Duration::from_secs(60 * 60))
    );

    let claims = lines.next().unwrap_or_default();
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let left = Caller::with_token(&token, &ScopeKey::random()).time_left();
    if let Some((left, claims)) = left.zip(serde_json::from_slice::<Value>(claims).ok()) {
        let exp = claims["exp"].as_f64().expect("`exp` is a number");
        assert!(left.as_secs_f64() <= (exp - now).max(0.0) * (1.0 + 1e-9) + 1e-6, "{left:?} until {exp}");
    }
}
