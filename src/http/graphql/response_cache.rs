//! The response cache: encoded responses, for equal requests of the same caller.
//!
//! The key is the caller's scope and a hash of the request, with the id of a document in its path. A hit also compares the scope and the request byte for
//! byte. An entry is valid as long as all its dependencies are, the appointments and pages that it was built from:
//! [`DependentCache`] checks them at each hit, so a cached response is never older than they are. Authentication, rate limit,
//! content negotiation and request limits come before the cache.
//!
//! Each response is cached uncompressed, and also in each content coding in which a hit has been served.

use std::{
    hash::BuildHasher as _,
    mem,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::response::Response;
use foldhash::quality::RandomState;

use super::{
    accept::MediaType,
    client_cache::{self, CacheStatus, ClientCaching, StorableResponse},
    encoded_response::EncodedResponse,
};
use crate::{
    appointments::{
        dependencies::Dependencies,
        dependent_cache::{DependentCache, DependentValue},
        shared::Shared,
    },
    cache::store::Size,
    caller::Caller,
    config::cache::CacheConfig,
    graphql::persisted::id::DocumentId,
    http::compression::{Coding, CompressionSkipped, Effort},
    metrics::metrics,
    response_memory::ResponseMemory,
};

/// The response cache of the process.
#[derive(Debug)]
pub struct ResponseCache {
    /// None if the cache is disabled (`cache.answers_size` is 0).
    entries: Option<DependentCache<ResponseEntry>>,
    hasher: RandomState,
    memory: ResponseMemory,
}

/// The parts of a request that determine its response. Not `Debug`, since the text contains personal data.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheRequest<'r> {
    pub(crate) form: Form,
    /// The negotiated media type of the response.
    pub(crate) media_type: MediaType,
    /// The body or the query string.
    pub(crate) text: &'r [u8],
    /// The id of a persisted document in the path.
    pub(crate) document_id: Option<&'r DocumentId>,
    /// The number of the set of trusted documents, which may be different documents with the same ids.
    pub(crate) documents_generation: u64,
}

/// The place of the request parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Body,
    QueryString,
}

/// A cached request with its response, in one content coding.
struct ResponseEntry {
    form: Form,
    text: Box<[u8]>,
    document_id: Option<DocumentId>,
    documents_generation: u64,
    response: EncodedResponse,
    /// Whether compression was attempted, for an uncompressed response. If it made the response shorter, the result is
    /// an entry of its own.
    brotli_attempted: AtomicBool,
    gzip_attempted: AtomicBool,
}

impl ResponseEntry {
    fn new(request: CacheRequest<'_>, response: EncodedResponse) -> Self {
        let CacheRequest { form, text, document_id, documents_generation, .. } = request;
        let [brotli_attempted, gzip_attempted] = [const { AtomicBool::new(false) }; 2];
        Self {
            form,
            text: text.into(),
            document_id: document_id.cloned(),
            documents_generation,
            response,
            brotli_attempted,
            gzip_attempted,
        }
    }

    fn matches(&self, request: CacheRequest<'_>, coding: Option<Coding>) -> bool {
        let Self { form, text, document_id, documents_generation, response, .. } = self;
        let own = CacheRequest {
            form: *form,
            media_type: response.media_type,
            text,
            document_id: document_id.as_ref(),
            documents_generation: *documents_generation,
        };
        (own, response.coding) == (request, coding)
    }

    fn was_attempted(&self, coding: Coding) -> &AtomicBool {
        match coding {
            Coding::Brotli => &self.brotli_attempted,
            Coding::Gzip => &self.gzip_attempted,
        }
    }
}

impl Size for ResponseEntry {
    fn size(&self) -> usize {
        let id = self.document_id.as_ref().map_or(0, |id| id.as_str().len());
        self.text.len() + id + self.response.body.len()
    }
}

/// The only attempt to compress an entry in one coding. If it is dropped unfinished, the next hit may try again.
struct CompressionAttempt<'a>(&'a AtomicBool);

impl<'a> CompressionAttempt<'a> {
    /// None if another attempt is in progress or finished.
    fn begin(was_attempted: &'a AtomicBool) -> Option<Self> {
        (!was_attempted.swap(true, Ordering::Relaxed)).then_some(Self(was_attempted))
    }

    /// Prevents further attempts.
    fn finish(self) {
        mem::forget(self);
    }
}

impl Drop for CompressionAttempt<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl ResponseCache {
    /// An empty cache of responses built from the `shared` appointments. Cached bodies count in `memory`.
    pub fn new(config: &CacheConfig, shared: Shared, memory: ResponseMemory) -> Self {
        let is_enabled = config.answers_size.as_u64() > 0;
        let entries =
            is_enabled.then(|| DependentCache::new(config.answers_size, config.caller_share, shared));
        Self { entries, hasher: RandomState::default(), memory }
    }

    /// Whether responses are cached at all.
    pub(crate) fn is_enabled(&self) -> bool {
        self.entries.is_some()
    }

    /// Responds to `caller` from the cache, if it has the response to an equal request: with 304 if the client has that
    /// response, or else in `coding` if possible. The first hit with a coding compresses the response. Concurrent requests
    /// get the uncompressed response, and later ones the compressed one.
    pub(crate) async fn respond(
        &self,
        caller: &Caller,
        request: CacheRequest<'_>,
        coding: Option<Coding>,
        caching: Option<ClientCaching<'_>>,
    ) -> Option<Response> {
        let entries = self.entries.as_ref()?;
        let entry = self.look_up(entries, caller, request, coding);
        metrics().answer_lookups.count(if entry.is_some() { "hit" } else { "miss" });
        let entry = entry?;
        metrics().operations.count("query");
        entry.response.untrusted.count();
        let fresh_for = entry.fresh_for();
        let storable = caching.zip(entry.response.tags).map(|(caching, tags)| StorableResponse {
            caching,
            caller,
            tags,
            fresh_for: Some(fresh_for),
        });
        let encode = self.encode(entries, &entry, request, coding);
        let mut response = client_cache::respond(storable, entry.response.coding, encode).await;
        CacheStatus::Hit(fresh_for).add_to(&mut response);
        Some(response)
    }

    /// The response of `entry`, compressed if that has not been attempted.
    async fn encode(
        &self,
        entries: &DependentCache<ResponseEntry>,
        entry: &DependentValue<ResponseEntry>,
        request: CacheRequest<'_>,
        coding: Option<Coding>,
    ) -> EncodedResponse {
        let response = &entry.response;
        if let Some(coding) = coding.filter(|_| response.varies && response.coding.is_none())
            && let Some(attempt) = CompressionAttempt::begin(entry.was_attempted(coding))
        {
            return Box::pin(self.compress(entries, entry, request, coding, attempt)).await;
        }
        response.clone()
    }

    /// The valid entry for `request`: in `coding` if there is one, otherwise uncompressed.
    fn look_up(
        &self,
        entries: &DependentCache<ResponseEntry>,
        caller: &Caller,
        request: CacheRequest<'_>,
        coding: Option<Coding>,
    ) -> Option<DependentValue<ResponseEntry>> {
        let mut was_attempted = false;
        // A single lookup suffices unless the response was compressed before. Short ones never are.
        let plain = entries.get(caller, self.hash(request, None), |entry| {
            let matches = entry.matches(request, None);
            was_attempted =
                matches && coding.is_some_and(|coding| entry.was_attempted(coding).load(Ordering::Relaxed));
            matches && !was_attempted
        });
        if !was_attempted {
            return plain;
        }
        let get =
            |coding| entries.get(caller, self.hash(request, coding), |entry| entry.matches(request, coding));
        get(coding).or_else(|| get(None))
    }

    /// Compresses the response of the entry `plain`, and caches the result with the same dependencies.
    async fn compress(
        &self,
        entries: &DependentCache<ResponseEntry>,
        plain: &DependentValue<ResponseEntry>,
        request: CacheRequest<'_>,
        coding: Coding,
        attempt: CompressionAttempt<'_>,
    ) -> EncodedResponse {
        let response = &plain.response;
        match response.compress(coding, Effort::Thorough, &self.memory).await {
            Ok(compressed) => {
                let entry = ResponseEntry::new(request, compressed.clone());
                entries.insert_beside(plain, self.hash(request, Some(coding)), entry);
                attempt.finish();
                compressed
            }
            Err(CompressionSkipped::NotSmaller) => {
                attempt.finish();
                response.clone()
            }
            Err(CompressionSkipped::NoCapacity) => response.clone(),
        }
    }

    /// Caches the complete response to a query with these `dependencies`, and returns whether it did. A response without
    /// dependencies is not cached: the upstream has not accepted the caller's token, and no event would invalidate the
    /// entry.
    pub(crate) fn insert(
        &self,
        request: CacheRequest<'_>,
        response: &EncodedResponse,
        dependencies: Dependencies,
    ) -> bool {
        if let Some(entries) = &self.entries
            && !dependencies.is_empty()
            && let Ok(body) = self.memory.copy(&response.body)
        {
            let response = EncodedResponse { body, ..response.clone() };
            return entries.insert(
                self.hash(request, None),
                ResponseEntry::new(request, response),
                dependencies,
            );
        }
        false
    }

    fn hash(&self, request: CacheRequest<'_>, coding: Option<Coding>) -> u64 {
        self.hasher.hash_one((request, coding))
    }

    /// Updates the gauges of entries and bytes in the [metrics].
    pub fn observe(&self) {
        let total = self.entries.as_ref().map(DependentCache::total).unwrap_or_default();
        metrics().caches.set(&[("answers", total)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_attempted_once_unless_dropped() {
        let was_attempted = AtomicBool::new(false);
        let first = CompressionAttempt::begin(&was_attempted).unwrap();
        assert!(CompressionAttempt::begin(&was_attempted).is_none(), "another attempt is in progress");
        drop(first);
        CompressionAttempt::begin(&was_attempted).unwrap().finish();
        assert!(CompressionAttempt::begin(&was_attempted).is_none(), "an attempt has finished");
    }
}
