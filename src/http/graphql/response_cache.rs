//! The answer cache: finished answers, so that an equal request of the same caller costs no more than to find its own.
//!
//! An answer is found by the caller's scope and a hash of the request, both compared whole: the scope within the key,
//! the request byte for byte with the one that was answered. It is served for as long as each appointment and page that
//! it was made from is what would be served now, which [`DependentCache`] looks at each time. So it is never older than they
//! are. What a request passes before it is carried out (who asks, how often, its media types and its size), it passes
//! here too.
//!
//! It is kept as it is, and beside that compressed in each coding in which somebody was sent it from here.

use std::{
    hash::BuildHasher as _,
    mem,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use foldhash::quality::RandomState;

use super::accept::MediaType;
use crate::{
    appointments::{
        dependent_cache::{CachedResponse, DependentCache},
        operation::Appointments,
        shared::Shared,
    },
    cache::store::Size,
    caller::Caller,
    config::cache::CacheConfig,
    http::{
        compression::{self, Coding, CompressionSkipped, Effort},
        security_headers,
    },
    metrics::metrics,
    response_memory::ResponseMemory,
};

/// The answers that the process remembers.
#[derive(Debug)]
pub struct ResponseCache {
    /// None where nothing is to be kept.
    kept: Option<DependentCache<Entry>>,
    hasher: RandomState,
    memory: ResponseMemory,
}

/// A request, as far as its answer depends on it. It does not print.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheRequest<'q> {
    pub(crate) form: Form,
    /// What it is to be answered as.
    pub(crate) media_type: MediaType,
    /// As it came.
    pub(crate) text: &'q [u8],
}

/// Where the parameters of a request stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Body,
    QueryString,
}

/// An answer as it is sent. It does not print.
#[derive(Clone)]
pub(crate) struct EncodedResponse {
    pub(crate) status: StatusCode,
    pub(crate) media_type: MediaType,
    pub(crate) body: Bytes,
    /// What the body is compressed with.
    pub(crate) coding: Option<Coding>,
    /// Whether another client might be sent the same otherwise.
    pub(crate) varies: bool,
}

/// A request with its answer, as it is or compressed.
struct Entry {
    form: Form,
    text: Box<[u8]>,
    answer: EncodedResponse,
    /// Whether it was tried to compress what is here as it is, in each coding. Where it got shorter, that is kept
    /// beside it.
    brotli_was_tried: AtomicBool,
    gzip_was_tried: AtomicBool,
}

impl Entry {
    fn of(question: CacheRequest<'_>, answer: EncodedResponse) -> Self {
        let CacheRequest { form, text, .. } = question;
        let [brotli_was_tried, gzip_was_tried] = [const { AtomicBool::new(false) }; 2];
        Self { form, text: text.into(), answer, brotli_was_tried, gzip_was_tried }
    }

    fn answers(&self, question: CacheRequest<'_>, coding: Option<Coding>) -> bool {
        let Self { form, text, answer, .. } = self;
        (CacheRequest { form: *form, media_type: answer.media_type, text }, answer.coding)
            == (question, coding)
    }

    fn was_tried(&self, coding: Coding) -> &AtomicBool {
        match coding {
            Coding::Brotli => &self.brotli_was_tried,
            Coding::Gzip => &self.gzip_was_tried,
        }
    }
}

impl Size for Entry {
    fn size(&self) -> usize {
        self.text.len() + self.answer.body.len()
    }
}

/// The one attempt at something. If it is dropped before its end, the next one may make it.
struct Attempt<'a>(&'a AtomicBool);

impl<'a> Attempt<'a> {
    /// None where another is at it, or was.
    fn begin(was_made: &'a AtomicBool) -> Option<Self> {
        (!was_made.swap(true, Ordering::Relaxed)).then_some(Self(was_made))
    }

    /// It is not to be made again.
    fn end(self) {
        mem::forget(self);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl ResponseCache {
    /// None yet, of which as much is kept as `config` says, beside the `shared` appointments that they are made from.
    /// Their bytes count in `memory`.
    pub fn new(config: &CacheConfig, shared: Shared, memory: ResponseMemory) -> Self {
        let is_on = config.answers_size.as_u64() > 0;
        let kept = is_on.then(|| DependentCache::new(config.answers_size, config.caller_share, shared));
        Self { kept, hasher: RandomState::default(), memory }
    }

    /// The answer to an equal request of `caller`, who `takes` it compressed, or not. The first who takes it so waits
    /// until it is; those who come meanwhile are sent it as it is, and all who come later what the first was sent.
    pub(crate) async fn find(
        &self,
        caller: &Caller,
        question: CacheRequest<'_>,
        takes: Option<Coding>,
    ) -> Option<EncodedResponse> {
        let kept = self.kept.as_ref()?;
        let found = self.look(kept, caller, question, takes);
        metrics().answer_lookups.count(if found.is_some() { "hit" } else { "miss" });
        let found = found?;
        metrics().operations.count("query");
        let answer = &found.answer;
        if let Some(coding) = takes.filter(|_| answer.varies && answer.coding.is_none())
            && let Some(attempt) = Attempt::begin(found.was_tried(coding))
        {
            return Some(Box::pin(self.compress(kept, &found, question, coding, attempt)).await);
        }
        Some(answer.clone())
    }

    /// What is kept for `question`: compressed for who `takes` that, where it was tried and is there, else as it is.
    fn look(
        &self,
        kept: &DependentCache<Entry>,
        caller: &Caller,
        question: CacheRequest<'_>,
        takes: Option<Coding>,
    ) -> Option<CachedResponse<Entry>> {
        let mut was_tried = false;
        // What was never compressed, as no short answer is, is found at the first look.
        let plain = kept.get(caller, self.hash(question, None), |entry| {
            let answers = entry.answers(question, None);
            was_tried =
                answers && takes.is_some_and(|coding| entry.was_tried(coding).load(Ordering::Relaxed));
            answers && !was_tried
        });
        if !was_tried {
            return plain;
        }
        let get =
            |coding| kept.get(caller, self.hash(question, coding), |entry| entry.answers(question, coding));
        get(takes).or_else(|| get(None))
    }

    /// Compresses what was sent as it is until now, and keeps that beside it.
    async fn compress(
        &self,
        kept: &DependentCache<Entry>,
        plain: &CachedResponse<Entry>,
        question: CacheRequest<'_>,
        coding: Coding,
        attempt: Attempt<'_>,
    ) -> EncodedResponse {
        let answer = &plain.answer;
        match answer.compressed(coding, Effort::Thorough, &self.memory).await {
            Ok(compressed) => {
                let entry = Entry::of(question, compressed.clone());
                kept.keep_beside(plain, self.hash(question, Some(coding)), entry);
                attempt.end();
                compressed
            }
            Err(CompressionSkipped::NotWorthIt) => {
                attempt.end();
                answer.clone()
            }
            Err(CompressionSkipped::NoRoom) => answer.clone(),
        }
    }

    /// Keeps the whole answer to a query that was carried out through `appointments`, if all that it was made from is
    /// kept. What was made from nothing is not kept: nobody has vouched for who asked, and nothing would end it.
    pub(crate) fn keep(
        &self,
        question: CacheRequest<'_>,
        answer: &EncodedResponse,
        appointments: &Appointments,
    ) {
        if let Some(kept) = &self.kept
            && let Some(provenance) = appointments.dependencies().filter(|provenance| !provenance.is_empty())
            && let Ok(body) = self.memory.copy(&answer.body)
        {
            let answer = EncodedResponse { body, ..answer.clone() };
            kept.keep(self.hash(question, None), Entry::of(question, answer), provenance);
        }
    }

    fn hash(&self, question: CacheRequest<'_>, coding: Option<Coding>) -> u64 {
        self.hasher.hash_one((question, coding))
    }

    /// Shows how much is kept, as of now, in the [metrics].
    pub fn observe(&self) {
        let total = self.kept.as_ref().map(DependentCache::total).unwrap_or_default();
        metrics().caches.set(&[("answers", total)]);
    }
}

impl EncodedResponse {
    /// Sent as it is to everybody.
    pub(crate) fn plain(status: StatusCode, media_type: MediaType, body: Bytes) -> Self {
        Self { status, media_type, body, coding: None, varies: false }
    }

    /// The same, which may be sent compressed to others, if anything `is_compressed`.
    pub(crate) fn varying(self, is_compressed: bool) -> Self {
        Self { varies: is_compressed && compression::may_matter(self.body.len()), ..self }
    }

    /// The same for the one client who waits for it, and `takes` it compressed, or not.
    pub(crate) async fn taken(self, takes: Option<Coding>, memory: &ResponseMemory) -> Self {
        match takes {
            Some(coding) => self.compressed(coding, Effort::Quick, memory).await.unwrap_or(self),
            None => self,
        }
    }

    async fn compressed(
        &self,
        coding: Coding,
        effort: Effort,
        memory: &ResponseMemory,
    ) -> Result<Self, CompressionSkipped> {
        let body = coding.compressed(&self.body, effort, memory).await?;
        Ok(Self { body, coding: Some(coding), ..self.clone() })
    }
}

impl IntoResponse for EncodedResponse {
    fn into_response(self) -> Response {
        let Self { status, media_type, body, coding, varies } = self;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        *headers = security_headers::headers();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type.content_type()));
        if varies {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, coding.name());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_made_once_unless_it_is_given_up() {
        let was_made = AtomicBool::new(false);
        let first = Attempt::begin(&was_made).unwrap();
        assert!(Attempt::begin(&was_made).is_none(), "another is at it");
        drop(first);
        Attempt::begin(&was_made).unwrap().end();
        assert!(Attempt::begin(&was_made).is_none(), "it was made");
    }
}
