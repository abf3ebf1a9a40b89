//! The answer cache: finished answers, so that an equal request of the same caller costs no more than to find its own.
//!
//! An answer is found by the caller's scope and a hash of the request, both compared whole: the scope within the key, the
//! request byte for byte with the one that was answered. It is served for as long as each appointment and page that it was
//! made from is what would be served now, which [`Derived`] looks at each time. So it is never older than they are.
//! What a request passes before it is carried out (who asks, how often, its media types and its size), it passes here too.

use std::hash::BuildHasher as _;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use foldhash::quality::RandomState;

use super::MediaType;
use crate::{
    appointments::{Appointments, Derived, Made, Shared, Size},
    caller::Caller,
    config::CacheConfig,
    http::{
        browser,
        compression::{self, Coding, Effort},
    },
    metrics::metrics,
};

/// The answers that the process remembers.
#[derive(Debug)]
pub struct Answers {
    /// None where nothing is to be kept.
    kept: Option<Derived<Entry>>,
    hasher: RandomState,
}

/// A request, as far as its answer depends on it. It does not print.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question<'q> {
    pub(super) form: Form,
    /// What it is to be answered as.
    pub(super) media_type: MediaType,
    /// As it came.
    pub(super) text: &'q [u8],
}

/// Where the parameters of a request stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Body,
    QueryString,
}

/// An answer as it is sent. It does not print.
#[derive(Clone)]
pub(super) struct Finished {
    pub(super) status: StatusCode,
    pub(super) media_type: MediaType,
    pub(super) body: Bytes,
    /// What the body is compressed with.
    pub(super) coding: Option<Coding>,
    /// Whether another client might be sent the same otherwise.
    pub(super) varies: bool,
}

/// A request with its answer.
struct Entry {
    form: Form,
    text: Box<[u8]>,
    /// What the client takes.
    takes: Option<Coding>,
    answer: Finished,
}

impl Entry {
    fn of(question: Question<'_>, takes: Option<Coding>, answer: Finished) -> Self {
        Self { form: question.form, text: question.text.into(), takes, answer }
    }

    fn answers(&self, question: Question<'_>, takes: Option<Coding>) -> bool {
        let Self { form, text, takes: took, answer } = self;
        (Question { form: *form, media_type: answer.media_type, text }, *took) == (question, takes)
    }
}

impl Size for Entry {
    fn size(&self) -> usize {
        self.text.len() + self.answer.body.len()
    }
}

impl Answers {
    /// None yet, of which as much is kept as `config` says, beside the `shared` appointments that they are made from.
    pub fn new(config: &CacheConfig, shared: Shared) -> Self {
        let is_on = config.answers_size.as_u64() > 0;
        let kept = is_on.then(|| Derived::new(config.answers_size, config.caller_share, shared));
        Self { kept, hasher: RandomState::default() }
    }

    /// The answer to an equal request of `caller`, who `takes` it compressed, or not. It is compressed, once, when such a
    /// client asks for it a second time.
    pub(super) async fn find(
        &self,
        caller: &Caller,
        question: Question<'_>,
        takes: Option<Coding>,
    ) -> Option<Finished> {
        let kept = self.kept.as_ref()?;
        let look = |takes| {
            let hash = self.hasher.hash_one((question, takes));
            kept.get(caller, hash, |entry| entry.answers(question, takes))
        };
        let found = match (look(takes), takes) {
            (Some(found), _) => Some(found.value.answer.clone()),
            (None, None) => None,
            (None, takes) => match look(None) {
                Some(plain) => Some(Box::pin(self.compress(kept, plain, question, takes)).await),
                None => None,
            },
        };
        metrics().answer_lookups.count(if found.is_some() { "hit" } else { "miss" });
        if found.is_some() {
            metrics().operations.count("query");
        }
        found
    }

    /// Compresses what was sent as it is until now, and keeps that beside it.
    async fn compress(
        &self,
        kept: &Derived<Entry>,
        plain: Made<Entry>,
        question: Question<'_>,
        takes: Option<Coding>,
    ) -> Finished {
        let answer = plain.value.answer.clone().taken(takes, Effort::Thorough).await;
        // Where nothing is gained it is kept as it is, so that this is not tried again.
        let hash = self.hasher.hash_one((question, takes));
        kept.keep_beside(&plain, hash, Entry::of(question, takes, answer.clone()));
        answer
    }

    /// Keeps the whole answer to a query that was carried out through `appointments`, if all that it was made from is
    /// kept.
    pub(super) fn keep(&self, question: Question<'_>, answer: &Finished, appointments: &Appointments) {
        if let Some(kept) = &self.kept
            && let Some(provenance) = appointments.provenance()
        {
            let hash = self.hasher.hash_one((question, None::<Coding>));
            // A copy takes the bytes that it has; what was written may have room for as many again.
            let answer = Finished { body: Bytes::copy_from_slice(&answer.body), ..answer.clone() };
            kept.keep(hash, Entry::of(question, None, answer), provenance);
        }
    }

    /// Shows how much is kept, as of now, in the [metrics].
    pub fn observe(&self) {
        let total = self.kept.as_ref().map(Derived::total).unwrap_or_default();
        metrics().kept.set(&[("answers", total)]);
    }
}

impl Finished {
    /// Sent as it is to everybody.
    pub(super) fn plain(status: StatusCode, media_type: MediaType, body: Vec<u8>) -> Self {
        Self { status, media_type, body: body.into(), coding: None, varies: false }
    }

    /// The same, which may be sent compressed to others, if anything `is_compressed`.
    pub(super) fn varying(self, is_compressed: bool) -> Self {
        Self { varies: is_compressed && compression::may_matter(self.body.len()), ..self }
    }

    /// The same for a client that takes `coding`, as far as that is worth the `effort`.
    pub(super) async fn taken(self, coding: Option<Coding>, effort: Effort) -> Self {
        let Some(coding) = coding else { return self };
        match coding.compressed(&self.body, effort).await {
            Some(body) => Self { body, coding: Some(coding), ..self },
            None => self,
        }
    }
}

impl IntoResponse for Finished {
    fn into_response(self) -> Response {
        let Self { status, media_type, body, coding, varies } = self;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        *headers = browser::headers();
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
