//! Content negotiation: the media type of the response, from the `Accept` header (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use mime::Mime;

use crate::http::refusal::Refusal;

/// A media type of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MediaType {
    /// `application/graphql-response+json`
    GraphqlResponse,
    /// `application/json`
    Json,
    /// `text/event-stream`
    EventStream,
}

/// The result of content negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiation {
    /// `None` if no media type is acceptable.
    accepted: Option<Accepted>,
    /// The media type of an error document: the preferred JSON type, or `application/json` without one.
    pub(crate) errors: MediaType,
}

/// The acceptable media types of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The preferred media type.
    pub(crate) preferred: MediaType,
    /// Whether the client accepts an event stream, even if it prefers another type.
    pub(crate) event_stream: bool,
}

impl MediaType {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::EventStream => "text/event-stream; charset=utf-8",
        }
    }

    /// The media type that matches `range` best.
    fn matching(range: &Mime) -> Option<Self> {
        if range.get_param(mime::CHARSET).is_some_and(|charset| charset != mime::UTF_8) {
            return None;
        }
        match range.essence_str() {
            "application/graphql-response+json" => Some(Self::GraphqlResponse),
            // Clients that accept anything may not know the newer type.
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/event-stream" => Some(Self::EventStream),
            _ => None,
        }
    }
}

impl Negotiation {
    /// For clients that prefer a JSON type and accept no event stream.
    fn json(media_type: MediaType) -> Self {
        let accepted = Accepted { preferred: media_type, event_stream: false };
        Self { accepted: Some(accepted), errors: media_type }
    }

    /// The acceptable media types.
    ///
    /// # Errors
    /// 406 if no type is acceptable.
    pub(crate) fn accepted(self) -> Result<Accepted, Refusal> {
        self.accepted.ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_ACCEPTABLE,
                "No acceptable media type. Accept application/graphql-response+json, application/json or \
                 text/event-stream. In a browser, open GraphiQL at /.",
            )
        })
    }
}

/// Selects the acceptable media type with the highest weight, the first of equals. Without an `Accept` header, any type
/// is acceptable.
pub(crate) fn negotiate(headers: &HeaderMap) -> Negotiation {
    if let Some(negotiation) = common_case(headers) {
        return negotiation;
    }
    let [mut preferred, mut preferred_json]: [Option<(MediaType, f32)>; 2] = [None, None];
    let (mut has_ranges, mut event_stream) = (false, false);
    for range in media_ranges(headers) {
        has_ranges = true;
        let Some(range) = range else { continue };
        let weight = range.get_param("q").map_or(1.0, |q| q.as_str().parse().unwrap_or(0.0));
        let media_type = MediaType::matching(&range);
        event_stream |= media_type == Some(MediaType::EventStream) && weight > 0.0;
        let Some(media_type) = media_type else { continue };
        let is_json = media_type != MediaType::EventStream;
        for best in [Some(&mut preferred), is_json.then_some(&mut preferred_json)].into_iter().flatten() {
            if weight > best.map_or(0.0, |(_, weight)| weight) {
                *best = Some((media_type, weight));
            }
        }
    }
    if !has_ranges {
        return Negotiation::json(MediaType::Json);
    }
    Negotiation {
        accepted: preferred.map(|(preferred, _)| Accepted { preferred, event_stream }),
        errors: preferred_json.map_or(MediaType::Json, |(media_type, _)| media_type),
    }
}

/// The result for the most common headers, compared literally: parsing media types costs more than all other checks.
fn common_case(headers: &HeaderMap) -> Option<Negotiation> {
    let preferred = match headers.get(header::ACCEPT).map(HeaderValue::as_bytes) {
        None | Some(b"*/*" | b"application/json" | b"application/json, */*") => MediaType::Json,
        Some(
            b"application/graphql-response+json"
            | b"application/graphql-response+json, application/json"
            | b"application/graphql-response+json,application/json;q=0.9",
        ) => MediaType::GraphqlResponse,
        Some(_) => return None,
    };
    let is_single = headers.get_all(header::ACCEPT).iter().nth(1).is_none();
    is_single.then(|| Negotiation::json(preferred))
}

/// The media ranges of the `Accept` headers in order. Malformed ones are `None`.
pub(crate) fn media_ranges(headers: &HeaderMap) -> impl Iterator<Item = Option<Mime>> + '_ {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .map(|range| range.parse().ok())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use proptest::prelude::*;

    use super::*;
    use crate::http::graphql::csrf::{reject_simple_get, require_json_body};

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
        headers
    }

    #[test]
    fn the_acceptable_type_with_the_highest_weight_is_preferred() {
        let only = |preferred| Some(Accepted { preferred, event_stream: false });
        let or_stream = |preferred| Some(Accepted { preferred, event_stream: true });
        let (graphql, json) = (only(MediaType::GraphqlResponse), only(MediaType::Json));
        let stream = or_stream(MediaType::EventStream);
        for (accept, expected) in [
            ("application/json", json),
            ("application/graphql-response+json", graphql),
            ("application/graphql-response+json; charset=utf-8, application/json; charset=utf-8", graphql),
            ("application/json, application/graphql-response+json", json),
            ("application/json;q=0.5, application/graphql-response+json;q=0.9", graphql),
            ("text/html, */*;q=0.1", json),
            ("*/*", json),
            ("APPLICATION/JSON", json),
            ("", json),
            ("application/json; charset=utf-16", None),
            ("application/json;q=0", None),
            ("text/event-stream", stream),
            ("text/event-stream; charset=utf-8", stream),
            ("text/event-stream, */*", stream),
            ("application/json, text/event-stream", or_stream(MediaType::Json)),
            ("text/event-stream;q=0.5, application/json", or_stream(MediaType::Json)),
            ("text/event-stream, application/json;q=0.9", stream),
            ("text/event-stream;q=0, application/json", json),
            ("text/event-stream;q=0", None),
            ("text/html", None),
            ("nonsense", None),
        ] {
            assert_eq!(negotiate(&headers(header::ACCEPT, accept)).accepted, expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()).accepted, json);
    }

    #[test]
    fn errors_use_the_preferred_json_type() {
        for (accept, expected) in [
            ("application/graphql-response+json", MediaType::GraphqlResponse),
            ("application/graphql-response+json;q=0.1, text/event-stream", MediaType::GraphqlResponse),
            ("text/event-stream, application/graphql-response+json, */*", MediaType::GraphqlResponse),
            ("text/html, application/graphql-response+json;q=0.1", MediaType::GraphqlResponse),
            ("application/json;q=0.2, application/graphql-response+json;q=0.1", MediaType::Json),
            ("application/graphql-response+json;q=0, text/event-stream", MediaType::Json),
            ("application/graphql-response+json; charset=utf-16", MediaType::Json),
            ("text/event-stream", MediaType::Json),
            ("text/html", MediaType::Json),
            ("*/*", MediaType::Json),
            ("", MediaType::Json),
        ] {
            assert_eq!(negotiate(&headers(header::ACCEPT, accept)).errors, expected, "{accept}");
        }
    }

    #[test]
    fn common_headers_mean_the_same_when_parsed() {
        for accept in [
            "*/*",
            "application/json",
            "application/json, */*",
            "application/graphql-response+json",
            "application/graphql-response+json, application/json",
            "application/graphql-response+json,application/json;q=0.9",
        ] {
            // An empty item changes nothing, except that the header is parsed.
            let parsed = headers(header::ACCEPT, &format!("{accept},"));
            assert_eq!(common_case(&parsed), None);
            assert_eq!(common_case(&headers(header::ACCEPT, accept)), Some(negotiate(&parsed)), "{accept}");
        }
        let mut twice = headers(header::ACCEPT, "application/json");
        twice.append(header::ACCEPT, "text/event-stream".parse().unwrap());
        assert_eq!(
            negotiate(&twice).accepted,
            Some(Accepted { preferred: MediaType::Json, event_stream: true })
        );
    }

    #[test]
    fn a_get_without_a_preflight_is_rejected() {
        for (name, value, passes) in [
            ("accept", "*/*", false),
            ("accept", "text/html", false),
            ("accept", "application/json", true),
            // An EventSource sends this to any site without a preflight.
            ("accept", "text/event-stream", false),
            ("authorization", "Bearer a", true),
            ("apollo-require-preflight", "true", true),
            ("cookie", "a=b", false),
        ] {
            let name = header::HeaderName::from_static(name);
            assert_eq!(reject_simple_get(&headers(name, value)).is_ok(), passes, "{value}");
        }
    }

    #[test]
    fn a_body_must_be_json_in_utf_8() {
        for (content_type, passes) in [
            ("application/json", true),
            ("application/json; charset=UTF-8", true),
            ("Application/JSON;charset=\"utf-8\"", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=x", false),
            ("", false),
        ] {
            assert_eq!(
                require_json_body(&headers(header::CONTENT_TYPE, content_type)).is_ok(),
                passes,
                "{content_type}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value: String) {
            let _ = negotiate(&headers(header::ACCEPT, &value)).accepted().map_err(|refusal| refusal.into_response());
            let _ = reject_simple_get(&headers(header::ACCEPT, &value));
            let _ = require_json_body(&headers(header::CONTENT_TYPE, &value));
        }
    }
}
