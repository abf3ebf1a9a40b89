//! The request header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), with which a client may send a mutation
//! again.
//!
//! The value is a string of RFC 9651, as in the draft, or the bare key, as many clients send it. Both forms of a key are the
//! same key. It counts on a POST with a single mutation. Other operations ignore it, since they may be repeated
//! anyway.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, StatusCode};

use crate::{
    appointments::{
        idempotency::{KeyRefusal, RequestDigest},
        operation::Appointments,
    },
    error::{ApiError, limit::LimitExceeded},
    graphql::api::{Operation, ParsedRequest},
    http::{gateway::Gateway, refusal::Refusal},
};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The maximum length of a key.
const MAX_LENGTH: usize = 255;

/// The key of a request, chosen by its client. Redacted in `Debug`, since it may be anything.
#[derive(PartialEq, Eq)]
pub(crate) struct IdempotencyKey(String);

/// A mutation with a key.
pub(crate) struct KeyedMutation {
    key: IdempotencyKey,
    digest: RequestDigest,
}

/// The key in the `headers` of a POST.
///
/// # Errors
/// 400 for a header that is not a single valid key. A client that sends one relies on it.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|_| values.next().is_none()).and_then(parse);
    key.map(|key| Some(IdempotencyKey(key))).ok_or_else(invalid)
}

fn parse(text: &str) -> Option<String> {
    let text = text.trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest)?,
        None => text.bytes().all(is_bare).then(|| text.to_owned())?,
    };
    (1..=MAX_LENGTH).contains(&key.len()).then_some(key)
}

/// The value of a string (RFC 9651, section 4.2.5) after its first quotation mark. Parameters are not supported.
fn unquote(text: &str) -> Option<String> {
    let mut key = String::with_capacity(text.len());
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|it| matches!(it, '"' | '\\'))?),
            it @ ' '..='~' => key.push(it),
            _ => return None,
        }
    }
}

/// Whether a key may contain `byte` without quotation marks. A comma separates several values, a semicolon parameters.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';')
}

fn invalid() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "Header Idempotency-Key is not a single key of 1 to 255 ASCII characters. Send a new UUID for each mutation, such \
         as \"8e03978e-40d5-43dd-bc93-6894a57f9324\", with or without quotation marks.",
    )
}

impl IdempotencyKey {
    /// The key with the mutation that it was sent with.
    ///
    /// # Errors
    /// 400 if the gateway has no records of keys.
    pub(crate) fn of(self, gateway: &Gateway, mutation: &ParsedRequest) -> Result<KeyedMutation, Refusal> {
        let hasher = gateway.appointments.idempotency.hasher().ok_or_else(disabled)?;
        Ok(KeyedMutation { key: self, digest: RequestDigest(mutation.digest(hasher)) })
    }
}

fn disabled() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "Idempotency keys are disabled (changes.idempotency_ttl, changes.idempotency_size). Send the mutation without \
         Idempotency-Key, and do not repeat it.",
    )
}

/// Adds the record of a keyed mutation to the access of its `operation`. A caller without access has no record.
///
/// # Errors
/// 422 for the key of another request, 503 without memory for a record. Nothing was sent.
pub(crate) async fn with_record(
    access: Result<Appointments, ApiError>,
    mutation: Option<KeyedMutation>,
    operation: &Operation,
    gateway: &Gateway,
) -> Result<Result<Appointments, ApiError>, Refusal> {
    let (Ok(appointments), Some(KeyedMutation { key, digest })) = (&access, mutation) else {
        return Ok(access);
    };
    let records = &gateway.appointments.idempotency;
    let record = records.open(appointments.caller(), &key.0, digest, operation.root_fields());
    let record = record.map_err(Refusal::from)?;
    if let Some(record) = &record {
        record.check_fleet().await.map_err(Refusal::from)?;
    }
    Ok(access.map(|appointments| appointments.with_record(record)))
}

impl From<KeyRefusal> for Refusal {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::OtherRequest => {
                let error = ApiError::key_of_other_request();
                Self::with_status(StatusCode::UNPROCESSABLE_ENTITY, error).in_every_edition()
            }
            KeyRefusal::NoMemory { maximum, retry_after } => {
                LimitExceeded::idempotency_memory_exhausted(maximum, retry_after).into()
            }
        }
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_printable_key_can_be_quoted(key in "[ -~]{1,255}") {
            let escaped = key.replace('\\', r"\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("\"{escaped}\"")), Some(key.clone()));
            // A bare key is itself, or invalid.
            if !key.trim_start().starts_with('"') {
                prop_assert!(parse(&key).is_none_or(|bare| bare == key.trim_matches(' ')));
            }
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("\"{text}\""));
        }
    }

    #[test]
    fn a_key_is_a_quoted_string_or_a_bare_token() {
        let long = "k".repeat(MAX_LENGTH);
        let quoted = |text: &str| format!("\"{text}\"");
        for (text, expected) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            ("  k \t", Some("k")),
            ("a+b/c==:~!'(x)", Some("a+b/c==:~!'(x)")),
            (r#""a b, c; d""#, Some("a b, c; d")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (&long, Some(long.as_str())),
            (&quoted(&long), Some(long.as_str())),
            (&format!("{long}k"), None),
            (&quoted(&format!("{long}k")), None),
            ("", None),
            ("  ", None),
            ("\"\"", None),
            ("\"", None),
            ("\"open", None),
            ("open\"", None),
            ("a b", None),
            ("a,b", None),
            ("\"a\", \"b\"", None),
            ("\"a\";b=1", None),
            ("a;b=1", None),
            (r#""a\b""#, None),
            (r"a\b", None),
            ("\"a\tb\"", None),
            ("käse", None),
            ("\"käse\"", None),
        ] {
            assert_eq!(parse(text).as_deref(), expected, "{text:?}");
        }
    }
}
