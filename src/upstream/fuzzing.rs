//! What fuzzing feeds with foreign bytes here, and what has to hold whatever they are. The targets are under `fuzz`.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::{Value, value::RawValue};

use super::{
    cache_control::{self, CacheDirectives},
    wire,
};
use crate::{
    caller::{Caller, ScopeKey},
    http_client::retry_after,
};

/// The body of an answer, whatever it is the answer to.
pub fn answer(body: &[u8]) {
    let read = wire::appointment(body);
    // Some JSON is too wild for `Value`, which says nothing of it then.
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        let id = read.as_ref().ok().map(|it| it.id.0);
        assert_eq!(id, uuid_of(&value["data"]["id"]), "its id makes an appointment, and nothing else does");
    }
    if let Ok(appointment) = &read {
        assert!(appointment.size() >= size_of_val(appointment));
    }
    // The same thing is the same thing as the one item of a list.
    if let Ok(object) = serde_json::from_slice::<&RawValue>(body) {
        let one = wire::appointment(format!(r#"{{"data": {object}}}"#).as_bytes()).ok();
        let list = wire::list(format!(r#"{{"data": [{object}]}}"#).as_bytes()).map(|page| page.items);
        let appointment = |item: Option<wire::ListItem>| item.map(|item| item.appointment);
        assert!(list.is_ok_and(|items| items.into_iter().map(appointment).eq([one])));
    }
    if let Ok(page) = wire::list(body) {
        assert!(page.items.len() <= body.len());
    }
    assert!(!wire::change::faults(body).is_empty(), "what is not accepted is told in at least one sentence");
}

/// A UUID in the one notation that the API promises.
fn uuid_of(value: &Value) -> Option<uuid::Uuid> {
    let text = value.as_str()?;
    text.parse().ok().filter(|id: &uuid::Uuid| id.hyphenated().to_string().eq_ignore_ascii_case(text))
}

/// How long something may be kept and when to come back: `Cache-Control`, `Age`, `Retry-After`, and the claims of a JWT,
/// one a line.
pub fn freshness(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [CACHE_CONTROL, CACHE_CONTROL, AGE, RETRY_AFTER] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.append(name, value);
        }
    }
    let keep = cache_control::keep(&headers);
    for ttl in [Duration::ZERO, Duration::from_secs(30), Duration::MAX] {
        assert!(keep.limit(ttl) <= ttl);
        assert!(keep.limit_stale_if_error(ttl) <= ttl && keep.limit_stale_while_revalidate(ttl) <= ttl);
    }
    let is_directive = |value: &HeaderValue| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|it| it.trim_ascii().eq_ignore_ascii_case(b"no-store"))
    };
    if headers.get_all(CACHE_CONTROL).iter().any(is_directive) {
        assert_eq!(keep, CacheDirectives::NEVER);
    }
    assert!(retry_after::retry_after(&headers).is_none_or(|wait| wait <= Duration::from_secs(60 * 60)));

    let claims = lines.next().unwrap_or_default();
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let left = Caller::with_token(&token, &ScopeKey::random()).time_left();
    if let Some((left, claims)) = left.zip(serde_json::from_slice::<Value>(claims).ok()) {
        let exp = claims["exp"].as_f64().expect("only a number is a time");
        assert!(left.as_secs_f64() <= (exp - now).max(0.0) * (1.0 + 1e-9) + 1e-6, "{left:?} until {exp}");
    }
}
