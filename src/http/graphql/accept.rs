//! Content negotiation: the media type of the response, from the `Accept` header (RFC 9110, section 12.5.1).

use std::cmp::Reverse;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use data_url::mime::Mime;

use crate::http::{quality_value, refusal::Refusal};

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
    /// The media type of a response that asks the client to resend a persisted query with its text: `application/json`,
    /// unless the client prefers another JSON type to it. Its status is then 200, and some clients ignore the body of
    /// any other.
    pub(crate) persisted_query_misses: MediaType,
}

/// The acceptable media types of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The preferred media type.
    pub(crate) preferred: MediaType,
    /// Whether the client accepts an event stream, even if it prefers another type.
    pub(crate) event_stream: bool,
}

/// An item of `Accept`.
#[derive(Debug)]
pub(crate) struct MediaRange {
    /// Types are compared without case, and `*` stands for any.
    pub(crate) mime: Mime,
    /// The quality value, in thousandths.
    weight: u16,
}

/// How closely a media range describes a media type. The closest range decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Specificity {
    /// Whether the type has all parameters of the range. Ranges with other parameters count where no range matches
    /// strictly: the type without them serves the client better than a 406.
    has_parameters: bool,
    precision: Precision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Type,
    Subtype,
    Charset,
}

impl MediaType {
    /// All types. The first is preferred by default: clients that accept anything may not know the newer type.
    const ALL: [Self; 3] = [Self::Json, Self::GraphqlResponse, Self::EventStream];

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::EventStream => "text/event-stream; charset=utf-8",
        }
    }

    /// How closely `range` describes this type, or none if it does not. Wildcards do not describe the event stream, since
    /// few clients that accept anything can read one.
    fn specificity(self, range: &Mime) -> Option<Specificity> {
        let (type_, subtype) = match self {
            Self::GraphqlResponse => ("application", "graphql-response+json"),
            Self::Json => ("application", "json"),
            Self::EventStream => ("text", "event-stream"),
        };
        let charset = range.get_parameter("charset");
        let precision = match charset {
            Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => return None,
            Some(_) if range.matches(type_, subtype) => Precision::Charset,
            None if range.matches(type_, subtype) => Precision::Subtype,
            _ if self == Self::EventStream => return None,
            _ if range.matches(type_, "*") => Precision::Type,
            _ if range.matches("*", "*") => Precision::Any,
            _ => return None,
        };
        let has_parameters =
            range.parameters.iter().all(|(name, _)| matches!(name.as_str(), "charset" | "q"));
        Some(Specificity { has_parameters, precision })
    }
}

impl Negotiation {
    /// For clients that prefer a JSON type and accept no event stream.
    fn json(media_type: MediaType, persisted_query_misses: MediaType) -> Self {
        let accepted = Accepted { preferred: media_type, event_stream: false };
        Self { accepted: Some(accepted), errors: media_type, persisted_query_misses }
    }

    /// The acceptable media types. `has_graphiql` says whether GraphiQL is served.
    ///
    /// # Errors
    /// 406 if no type is acceptable.
    pub(crate) fn accepted(self, has_graphiql: bool) -> Result<Accepted, Refusal> {
        self.accepted.ok_or_else(|| {
            let hint = if has_graphiql {
                " In a browser, open GraphiQL, which is at the root of this server."
            } else {
                ""
            };
            Refusal::new(
                StatusCode::NOT_ACCEPTABLE,
                format!(
                    "No acceptable media type. Accept application/graphql-response+json, application/json or \
                     text/event-stream.{hint}"
                ),
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
    let mut has_ranges = false;
    // For each type, the closest range: its specificity, its weight and its position.
    let mut closest = MediaType::ALL.map(|_| None::<(Specificity, u16, usize)>);
    for (position, range) in media_ranges(headers).enumerate() {
        has_ranges = true;
        let Some(MediaRange { mime, weight }) = range else { continue };
        for (media_type, closest) in MediaType::ALL.into_iter().zip(&mut closest) {
            if let Some(specificity) = media_type.specificity(&mime)
                && closest.is_none_or(|(best, heaviest, _)| (specificity, weight) > (best, heaviest))
            {
                *closest = Some((specificity, weight, position));
            }
        }
    }
    let acceptable = MediaType::ALL.into_iter().zip(closest).filter_map(|(media_type, closest)| {
        let (_, weight, position) = closest?;
        (weight > 0).then_some((media_type, weight, position))
    });
    let event_stream = acceptable.clone().any(|(media_type, ..)| media_type == MediaType::EventStream);
    if !has_ranges {
        return Negotiation::json(MediaType::Json, MediaType::Json);
    }
    let weight_of = |sought: MediaType| {
        let weights = acceptable.clone().filter(|(media_type, ..)| *media_type == sought);
        weights.map(|(_, weight, _)| weight).next().unwrap_or_default()
    };
    let prefers_graphql = weight_of(MediaType::GraphqlResponse) > weight_of(MediaType::Json);
    let preferred = |is_candidate: fn(MediaType) -> bool| {
        let candidates = acceptable.clone().filter(|(media_type, ..)| is_candidate(*media_type));
        let preferred = candidates.min_by_key(|(_, weight, position)| (Reverse(*weight), *position));
        preferred.map(|(media_type, ..)| media_type)
    };
    Negotiation {
        accepted: preferred(|_| true).map(|preferred| Accepted { preferred, event_stream }),
        errors: preferred(|media_type| media_type != MediaType::EventStream).unwrap_or(MediaType::Json),
        persisted_query_misses: if prefers_graphql { MediaType::GraphqlResponse } else { MediaType::Json },
    }
}

/// The result for the most common headers, compared literally: parsing media types costs more than all other checks.
fn common_case(headers: &HeaderMap) -> Option<Negotiation> {
    use MediaType::{GraphqlResponse, Json};
    let (preferred, persisted_query_misses) = match headers.get(header::ACCEPT).map(HeaderValue::as_bytes) {
        None | Some(b"*/*" | b"application/json" | b"application/json, */*") => (Json, Json),
        Some(b"application/graphql-response+json, application/json") => (GraphqlResponse, Json),
        Some(
            b"application/graphql-response+json"
            | b"application/graphql-response+json,application/json;q=0.9",
        ) => (GraphqlResponse, GraphqlResponse),
        Some(_) => return None,
    };
    let is_single = headers.get_all(header::ACCEPT).iter().nth(1).is_none();
    is_single.then(|| Negotiation::json(preferred, persisted_query_misses))
}

/// The media ranges of the `Accept` headers in order. Malformed ones are `None`.
pub(crate) fn media_ranges(headers: &HeaderMap) -> impl Iterator<Item = Option<MediaRange>> + '_ {
    headers.get_all(header::ACCEPT).iter().flat_map(|value| list_items(value.as_bytes())).map(|item| {
        let mime = parse(item)?;
        let weight = match mime.get_parameter("q") {
            Some(number) => quality_value::parse(number.as_bytes())?,
            None => quality_value::MAX,
        };
        Some(MediaRange { mime, weight })
    })
}

/// Parses a media type or range. Malformed parameters are ignored, as browsers do.
pub(crate) fn parse(value: &[u8]) -> Option<Mime> {
    String::from_utf8_lossy(value).parse().ok()
}

/// The items of a comma-separated list, except for empty ones. Commas in quoted strings do not separate (RFC 9110,
/// section 5.6).
fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let items = value.split(move |byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b'\\' => is_escaped = is_quoted && !was_escaped,
            _ => {}
        }
        *byte == b',' && !is_quoted
    });
    items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
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
            // Empty parameters, whitespace, quoted strings, escapes.
            ("application/json;", json),
            ("application/json;;", json),
            ("application/json; ;;charset=utf-8;", json),
            ("application/json ; charset=utf-8", json),
            ("application/json\t;\tq=1", json),
            (" ,, application/json ,", json),
            (",", json),
            ("application/json;profile=\"a,b\"", json),
            ("application/json;profile=\"a,text/event-stream,\\\",b\"", json),
            ("text/html;a=\"\\\\\",application/json", json),
            ("text/html;a=\"\\\",application/json", None),
            ("text/html;a=\"\\\",application/json\", application/graphql-response+json", graphql),
            ("application/json;CHARSET=\"UTF-8\";Q=0.5", json),
            ("application / json", None),
            ("application/json charset=utf-8", None),
            ("application/", None),
            ("*", None),
            ("*/json", None),
            // The closest range decides.
            ("*/*, application/json;q=0", graphql),
            ("application/json;q=0, */*", graphql),
            ("application/*, application/json;q=0", graphql),
            ("application/json, */*;q=0", json),
            ("application/*;q=0, */*", None),
            ("*/*;q=0", None),
            ("application/*;q=0.1, application/graphql-response+json;q=0.2", graphql),
            ("application/json;q=0.1, */*;q=0.05", json),
            ("application/json;q=0.5, application/*", graphql),
            ("application/json;charset=utf-8;q=0, application/json", None),
            ("application/json;charset=utf-16, application/json;q=0.5", json),
            ("application/json;profile=a;q=0, application/json", json),
            ("application/json;profile=a;q=0, */*;q=0.5", json),
            ("application/json;profile=a;q=0.5", json),
            ("application/graphql-response+json;v=1, application/json;q=0.9", graphql),
            // Only its own name selects the event stream.
            ("text/*", None),
            ("text/*, application/json;q=0.1", json),
            ("*/*, application/json;q=0, application/graphql-response+json;q=0", None),
            ("text/event-stream;q=0, */*", json),
            // Weights.
            ("application/json;q=0.000", None),
            ("application/json;q=0.001", json),
            ("application/json;q=1.000", json),
            ("application/json;q=1.001", None),
            ("application/json;q=2", None),
            ("application/json;q=-1", None),
            ("application/json;q=inf", None),
            ("application/json;q=0.0001", None),
            ("application/json;q=.", None),
            ("application/json;q=.0", None),
            ("application/json;q=.0001", None),
            ("application/json;q=.5, application/graphql-response+json;q=.501", graphql),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", json),
            ("application/json;q=x, application/graphql-response+json;q=0.1", graphql),
            ("application/json;q=0.9, application/graphql-response+json;q=0.91", graphql),
        ] {
            assert_eq!(negotiate(&headers(header::ACCEPT, accept)).accepted, expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()).accepted, json);
    }

    #[test]
    fn persisted_query_misses_use_the_older_type_by_default() {
        for (accept, expected) in [
            ("application/graphql-response+json", MediaType::GraphqlResponse),
            ("application/graphql-response+json,application/json;q=0.9", MediaType::GraphqlResponse),
            ("application/json;q=0.8, application/graphql-response+json;q=0.9", MediaType::GraphqlResponse),
            ("application/graphql-response+json, application/json;q=0", MediaType::GraphqlResponse),
            ("text/event-stream, application/graphql-response+json;q=0.1", MediaType::GraphqlResponse),
            ("application/graphql-response+json, application/json", MediaType::Json),
            ("application/graphql-response+json,application/json", MediaType::Json),
            ("application/graphql-response+json;q=0.5, */*", MediaType::Json),
            (
                "multipart/mixed;deferSpec=20220824, application/graphql-response+json, application/json",
                MediaType::Json,
            ),
            ("application/json", MediaType::Json),
            ("text/event-stream", MediaType::Json),
            ("*/*", MediaType::Json),
            ("", MediaType::Json),
        ] {
            assert_eq!(
                negotiate(&headers(header::ACCEPT, accept)).persisted_query_misses,
                expected,
                "{accept}"
            );
        }
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
            ("application/json;;charset=utf-8", true),
            ("application/json ; charset=utf-8 ;", true),
            ("application/json;profile=\"a;charset=latin1,b\"", true),
            ("application/json; charset=latin1", false),
            ("application/json;;charset=latin1", false),
            ("application/json;a=\"b;\";charset=latin1", false),
            ("application/json, text/plain", false),
            ("application/json;charset=utf-8, text/plain", false),
            ("application/*", false),
            ("application/json2", false),
            ("text/plain", false),
            ("text/plain;application/json", false),
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

    /// A media range, and the same with whitespace, empty parameters and capital letters.
    fn range() -> impl Strategy<Value = (String, String)> {
        let name = proptest::sample::select(
            &[
                "*/*",
                "application/*",
                "application/json",
                "application/json;charset=utf-8",
                "application/json;charset=utf-16",
                "application/json;profile=\"a;q=0,\"",
                "application/graphql-response+json",
                "text/event-stream",
                "text/html",
            ][..],
        );
        let weight = proptest::option::of(0..=1000_u16);
        let space = proptest::sample::select(&["", " ", "\t", "  "][..]);
        (name, weight, space, 0..3_usize, any::<bool>()).prop_map(|(name, weight, space, empty, is_upper)| {
            let weight = weight.map(|weight| format!(";q={}.{:03}", weight / 1000, weight % 1000));
            let plain = format!("{name}{}", weight.unwrap_or_default());
            let separator = format!("{space};{}", space.repeat(empty));
            let spaced = plain.replace(';', &separator.repeat(empty + 1)) + &separator.repeat(empty);
            (plain, if is_upper { spaced.to_ascii_uppercase() } else { spaced })
        })
    }

    proptest! {
        #[test]
        fn whitespace_empty_items_and_case_mean_nothing(
            ranges in proptest::collection::vec(range(), 1..5),
            comma in proptest::sample::select(&[",", " , ", ",,", ", ,\t"][..]),
        ) {
            let (plain, spaced): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
            let expected = negotiate(&headers(header::ACCEPT, &plain.join(","))).accepted;
            prop_assert_eq!(negotiate(&headers(header::ACCEPT, &spaced.join(comma))).accepted, expected);
            let mut separate = HeaderMap::new();
            for range in plain {
                separate.append(header::ACCEPT, range.parse().unwrap());
            }
            prop_assert_eq!(negotiate(&separate).accepted, expected);
        }

        #[test]
        fn parsing_never_panics(value: String) {
            let _ = negotiate(&headers(header::ACCEPT, &value)).accepted(true).map_err(|refusal| refusal.into_response());
            let _ = reject_simple_get(&headers(header::ACCEPT, &value));
            let _ = require_json_body(&headers(header::CONTENT_TYPE, &value));
        }
    }
}
