//! Entry points and assertions of the fuzz targets in `fuzz` that parse HTTP requests.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Request, header},
    response::IntoResponse as _,
};
use serde_json::{Value, json};

use super::{
    accept, csrf,
    entity_tag::{EntityTagKey, IfNoneMatch},
    idempotency_key::{self, IDEMPOTENCY_KEY},
    request, websocket,
};
use crate::{
    auth::bearer,
    caller::{ScopeKey, ScopeSource},
    config::Config,
    credentials::key_ring::KeyRing,
    graphql::{api::GraphqlRequest, persisted::RequestDocument},
    http::{compression, host, refusal::Refusal},
};

/// Parses `bytes` as a request body, and as a query string.
pub fn request(bytes: &[u8]) {
    match request::from_json(bytes, None) {
        Ok(request) => {
            // `Value` rejects some JSON that the request parser accepts, such as huge numbers in ignored members.
            if let Ok(body) = serde_json::from_slice::<Value>(bytes) {
                assert_is_sent(&request.document, &body);
                assert_eq!(body["operationName"].as_str(), request.operation_name.as_deref());
            }
            assert_round_trip(&request);
        }
        Err(refusal) => assert_error_document(refusal),
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        match request::from_query_string(text.as_bytes(), None) {
            Ok(request) => assert_round_trip(&request),
            Err(refusal) => assert_error_document(refusal),
        }
    }
}

/// Asserts that `parameters` hold the text of the document, and an id only if the document has one.
pub(crate) fn assert_is_sent(document: &RequestDocument, parameters: &Value) {
    let (text, has_id) = match document {
        RequestDocument::Text(text) => (text.as_str(), false),
        RequestDocument::Registration { text, .. } | RequestDocument::Named { text, .. } => {
            (text.as_str(), true)
        }
        RequestDocument::Persisted(_) => ("", true),
    };
    assert_eq!(parameters["query"].as_str().unwrap_or_default(), text);
    let names = [&parameters["documentId"], &parameters["doc_id"], &parameters["id"]];
    let hash = &parameters["extensions"]["persistedQuery"]["sha256Hash"];
    assert_eq!(names.into_iter().chain([hash]).any(Value::is_string), has_id);
}

/// Asserts that a request with a text survives a round trip through JSON, except for the last digits of numbers.
pub(crate) fn assert_round_trip(request: &GraphqlRequest) {
    let GraphqlRequest { document, operation_name, variables } = request;
    let RequestDocument::Text(query) = document else { return };
    let body = json!({ "query": query, "operationName": operation_name, "variables": variables });
    let again = request::from_json(body.to_string().as_bytes(), None);
    assert!(again.is_ok_and(|again| {
        matches!(&again.document, RequestDocument::Text(text) if text == query)
            && again.operation_name == *operation_name
            && again.variables.keys().eq(variables.keys())
    }));
}

/// Asserts that a refusal is an error document with a code and a message.
pub(crate) fn assert_error_document(refusal: Refusal) {
    let document: Value = serde_json::from_slice(&refusal.into_document()).expect("a refusal is JSON");
    let error = &document["errors"][0];
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{document}");
    assert!(error["extensions"]["code"].is_string(), "{document}");
}

/// Parses the headers that decide about a request, one per line.
pub fn headers(bytes: &[u8]) {
    let names = [
        header::ACCEPT,
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        header::HOST,
        header::ORIGIN,
        header::ACCEPT_ENCODING,
        header::IF_NONE_MATCH,
        IDEMPOTENCY_KEY,
    ];
    let values = bytes.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = names
        .into_iter()
        .zip(values)
        .filter_map(|(name, value): (HeaderName, _)| Some((name, value?)))
        .collect();
    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    for result in [
        accept::negotiate(&headers).accepted(true).map(drop),
        host::check(&request),
        csrf::reject_simple_get(&headers),
        csrf::require_json_body(&headers),
        idempotency_key::key(&headers).map(drop),
    ] {
        if let Err(refusal) = result {
            let _ = refusal.into_response();
        }
    }
    let codings = compression::AcceptEncoding::from_headers(&headers);
    codings.preferred();
    if let Some(condition) = IfNoneMatch::from_headers(&headers) {
        let scope = ScopeKey::random().scope(ScopeSource::AllCallers);
        let tags = EntityTagKey::of(&KeyRing::random()).tags(scope, accept::MediaType::Json, bytes);
        let found = condition.matching(&tags, None, codings);
        // The key is random, so no list can contain the tag.
        assert!(found.is_none() || headers[header::IF_NONE_MATCH].as_bytes().trim_ascii() == b"*");
    }
    let _ = bearer::token(&headers, &Config::default().limits);
    websocket::is_upgrade(&request);
    websocket::is_allowed_origin(&headers, &["https://app.example".to_owned()]);
}
