//! The last step of an executed request: caching, entity tag and compression of the response.

use axum::response::Response;

use super::{
    client_cache::{self, CacheStatus, ClientCaching, StorableResponse},
    encoded_response::EncodedResponse,
    response_cache::CacheRequest,
};
use crate::{
    appointments::{dependencies::Dependencies, operation::Appointments},
    http::{compression::Coding, gateway::Gateway},
};

/// Completes the response to a request that was executed with `appointments`: caches it if it `is_cacheable`, tags it
/// if clients may store it (`caching`), and compresses it with `coding`.
pub(super) async fn deliver(
    gateway: &Gateway,
    cache_request: CacheRequest<'_>,
    caching: Option<ClientCaching<'_>>,
    coding: Option<Coding>,
    encoded: EncodedResponse,
    appointments: Option<Appointments>,
    is_cacheable: bool,
) -> Response {
    let encoded = encoded.varying(gateway.http.compression);
    let has_cache = gateway.response_cache.is_enabled();
    let query = appointments.as_ref().filter(|_| is_cacheable);
    let dependencies = query.filter(|_| has_cache || caching.is_some()).and_then(Appointments::dependencies);
    let storable = caching.zip(query.filter(|it| !it.forbids_storage())).map(|(caching, appointments)| {
        let caller = appointments.caller();
        let tags = gateway.entity_tags.tags(caller.scope(), encoded.media_type, &encoded.body);
        let dependencies = dependencies.as_ref().filter(|dependencies| !dependencies.is_empty());
        let fresh_for = dependencies.map(Dependencies::remaining_freshness);
        StorableResponse { caching, caller, tags, fresh_for }
    });
    let encoded = EncodedResponse { tags: storable.map(|storable| storable.tags), ..encoded };
    let is_stored = dependencies.is_some_and(|it| gateway.response_cache.insert(cache_request, &encoded, it));
    let status = match &appointments {
        _ if is_stored => CacheStatus::Stored,
        Some(_) if has_cache => CacheStatus::Miss,
        _ => CacheStatus::Bypass,
    };
    let encode = encoded.compressed_once(coding, gateway.api.memory());
    let mut response = client_cache::respond(storable, None, encode).await;
    status.add_to(&mut response);
    response
}
