//! Media types, and what a browser must not be tricked into sending.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use mime::Mime;

use crate::http::refusal::Refusal;

/// What an answer can be sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MediaType {
    /// `application/graphql-response+json`
    GraphqlResponse,
    /// `application/json`
    Json,
    /// `text/event-stream`
    EventStream,
}

/// What a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// What it likes best.
    pub(crate) best: MediaType,
    /// Whether it takes an event stream, if not as what it likes best.
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

    /// The one that `range` of an `Accept` header names, or prefers among those that it includes.
    fn within(range: &Mime) -> Option<Self> {
        if range.get_param(mime::CHARSET).is_some_and(|charset| charset != mime::UTF_8) {
            return None;
        }
        match range.essence_str() {
            "application/graphql-response+json" => Some(Self::GraphqlResponse),
            // Who takes anything may be older than the other type.
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/event-stream" => Some(Self::EventStream),
            _ => None,
        }
    }
}

/// What the client wants to read: of what it accepts the one with the highest weight, of equal ones the first. One that
/// says nothing takes anything.
///
/// # Errors
/// 406 where nothing that it accepts can be served.
pub(crate) fn answer_type(headers: &HeaderMap) -> Result<Accepted, Refusal> {
    if let Some(usual) = usual(headers) {
        return Ok(usual);
    }
    let mut best: Option<(MediaType, f32)> = None;
    let (mut said, mut event_stream) = (false, false);
    for range in accepted(headers) {
        said = true;
        let Some(range) = range else { continue };
        let weight = range.get_param("q").map_or(1.0, |q| q.as_str().parse().unwrap_or(0.0));
        let media_type = MediaType::within(&range);
        event_stream |= media_type == Some(MediaType::EventStream) && weight > 0.0;
        if let Some(media_type) = media_type
            && weight > best.map_or(0.0, |(_, weight)| weight)
        {
            best = Some((media_type, weight));
        }
    }
    match best {
        Some((best, _)) => Ok(Accepted { best, event_stream }),
        None if !said => Ok(Accepted { best: MediaType::Json, event_stream }),
        None => Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "ResponseCache are application/graphql-response+json, application/json or text/event-stream; accept one of them. \
             If you are a person with a browser: GraphiQL is at /.",
        )),
    }
}

/// What clients usually say, to the letter, or nothing: to take media types apart costs more than all else that is
/// looked at.
fn usual(headers: &HeaderMap) -> Option<Accepted> {
    let best = match headers.get(header::ACCEPT).map(HeaderValue::as_bytes) {
        None | Some(b"*/*" | b"application/json" | b"application/json, */*") => MediaType::Json,
        Some(
            b"application/graphql-response+json"
            | b"application/graphql-response+json, application/json"
            | b"application/graphql-response+json,application/json;q=0.9",
        ) => MediaType::GraphqlResponse,
        Some(_) => return None,
    };
    let is_one = headers.get_all(header::ACCEPT).iter().nth(1).is_none();
    is_one.then_some(Accepted { best, event_stream: false })
}

/// The media ranges of the `Accept` headers in their order; `None` for each that is none.
pub(crate) fn accepted(headers: &HeaderMap) -> impl Iterator<Item = Option<Mime>> + '_ {
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
    use crate::http::graphql::csrf::{json_body, no_simple_get};

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
        headers
    }

    #[test]
    fn the_client_chooses_what_it_reads() {
        let only = |best| Some(Accepted { best, event_stream: false });
        let or_stream = |best| Some(Accepted { best, event_stream: true });
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
            assert_eq!(answer_type(&headers(header::ACCEPT, accept)).ok(), expected, "{accept}");
        }
        assert_eq!(answer_type(&HeaderMap::new()).ok(), json);
    }

    #[test]
    fn what_clients_usually_say_means_the_same_when_it_is_taken_apart() {
        for accept in [
            "*/*",
            "application/json",
            "application/json, */*",
            "application/graphql-response+json",
            "application/graphql-response+json, application/json",
            "application/graphql-response+json,application/json;q=0.9",
        ] {
            // An empty item says nothing, and is not usual.
            let apart = headers(header::ACCEPT, &format!("{accept},"));
            assert_eq!(usual(&apart), None);
            assert_eq!(usual(&headers(header::ACCEPT, accept)), answer_type(&apart).ok(), "{accept}");
        }
        let mut twice = headers(header::ACCEPT, "application/json");
        twice.append(header::ACCEPT, "text/event-stream".parse().unwrap());
        assert_eq!(answer_type(&twice).ok(), Some(Accepted { best: MediaType::Json, event_stream: true }));
    }

    #[test]
    fn a_get_that_a_foreign_page_could_send_is_refused() {
        for (name, value, passes) in [
            ("accept", "*/*", false),
            ("accept", "text/html", false),
            ("accept", "application/json", true),
            // An EventSource sends this to any site, without asking.
            ("accept", "text/event-stream", false),
            ("authorization", "Bearer a", true),
            ("apollo-require-preflight", "true", true),
            ("cookie", "a=b", false),
        ] {
            let name = header::HeaderName::from_static(name);
            assert_eq!(no_simple_get(&headers(name, value)).is_ok(), passes, "{value}");
        }
    }

    #[test]
    fn a_body_is_json_in_utf_8() {
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
                json_body(&headers(header::CONTENT_TYPE, content_type)).is_ok(),
                passes,
                "{content_type}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(value: String) {
            let _ = answer_type(&headers(header::ACCEPT, &value)).map_err(|refusal| refusal.into_response());
            let _ = no_simple_get(&headers(header::ACCEPT, &value));
            let _ = json_body(&headers(header::CONTENT_TYPE, &value));
        }
    }
}
