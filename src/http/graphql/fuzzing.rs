//! What fuzzing feeds with foreign bytes here, and what has to hold whatever they are. The targets are under `fuzz`.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::IntoResponse as _,
};
use serde_json::{Value, json};

use super::{accept, csrf, request, websocket};
use crate::{
    auth::bearer,
    config::Config,
    graphql::api::GraphqlRequest,
    http::{compression, refusal::Refusal},
};

/// A request's body, which is also a query string.
pub fn request(bytes: &[u8]) {
    match request::from_json(bytes) {
        Ok(request) => {
            // Some JSON is too wild for `Value`, which says nothing of it then.
            if let Ok(body) = serde_json::from_slice::<Value>(bytes) {
                assert_eq!(body["query"], request.query.as_str());
                assert_eq!(body["operationName"].as_str(), request.operation_name.as_deref());
            }
            comes_back(&request);
        }
        Err(refusal) => is_worded(refusal),
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        match request::from_query_string(text.as_bytes()) {
            Ok(request) => comes_back(&request),
            Err(refusal) => is_worded(refusal),
        }
    }
}

/// A request that is written as JSON is read as the same request; but for its numbers, of which the last digit of many
/// may differ.
pub(crate) fn comes_back(request: &GraphqlRequest) {
    let GraphqlRequest { query, operation_name, variables } = request;
    let body = json!({ "query": query, "operationName": operation_name, "variables": variables });
    let again = request::from_json(body.to_string().as_bytes());
    assert!(again.is_ok_and(|again| {
        (&again.query, &again.operation_name) == (query, operation_name)
            && again.variables.keys().eq(variables.keys())
    }));
}

/// A refusal is a document of errors with a code and a text.
pub(crate) fn is_worded(refusal: Refusal) {
    let document: Value = serde_json::from_slice(&refusal.document()).expect("a refusal is JSON");
    let error = &document["errors"][0];
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{document}");
    assert!(error["extensions"]["code"].is_string(), "{document}");
}

/// The headers by which a request is judged, one a line.
pub fn headers(bytes: &[u8]) {
    let names = [
        header::ACCEPT,
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        header::HOST,
        header::ORIGIN,
        header::ACCEPT_ENCODING,
    ];
    let values = bytes.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = names
        .into_iter()
        .zip(values)
        .filter_map(|(name, value): (HeaderName, _)| Some((name, value?)))
        .collect();
    for verdict in
        [accept::answer_type(&headers).map(drop), csrf::no_simple_get(&headers), csrf::json_body(&headers)]
    {
        if let Err(refusal) = verdict {
            let _ = refusal.into_response();
        }
    }
    compression::coding(&headers);
    let _ = bearer::token(&headers, &Config::default().limits);
    websocket::is_asked_for(&headers);
    websocket::is_from_here(&headers, &["https://app.example".to_owned()]);
}
