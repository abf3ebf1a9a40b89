//! The page cache: pages of the list, by caller scope, for a short time.

use std::{sync::Arc, time::Duration};

use super::{copies::Copies, keys::PageKey};
use crate::{
    cache::{
        read_through::{Read, ReadThrough, Resource, Source},
        representation::Representation,
        validity::{ReadVersion, Subject},
    },
    caller::Caller,
    upstream::{
        client::UpstreamClient,
        deadline::Deadline,
        error::{Revocation, UpstreamError},
        response::{Page, ReadResponse},
    },
};

/// The page cache. Cheap to clone.
pub(crate) type PageCache = ReadThrough<PageResource>;

/// Pages of the list.
pub(crate) struct PageResource {
    copies: Copies,
    upstream: UpstreamClient,
}

impl PageCache {
    /// An empty cache in front of `upstream`.
    pub(crate) fn of_pages(copies: Copies, upstream: UpstreamClient) -> Self {
        let (store, validity) = (copies.pages.clone(), copies.validity.clone());
        Self::new(PageResource { copies, upstream }, store, validity)
    }
}

impl Resource for PageResource {
    type Key = PageKey;
    type Value = Arc<Page>;

    fn subject(_: &PageKey) -> Subject {
        Subject::List
    }

    async fn fetch(
        &self,
        caller: &Caller,
        key: PageKey,
        version: ReadVersion,
        last: Option<Representation<Arc<Page>>>,
        _: Source,
        deadline: &Deadline,
    ) -> Result<Read<Arc<Page>>, UpstreamError> {
        let validators = last.as_ref().and_then(|last| last.validators.as_deref());
        let (page, per_page) = (key.page + 1, key.per_page);
        let response = self.upstream.page(caller, page, per_page, validators, deadline).await?;
        let ReadResponse { value, validators, directives } = response;
        let page = value.map(Arc::new).or(last.map(|last| last.value));
        // Only a request with validators is answered without a value.
        let page = page.ok_or(UpstreamError::Lost)?;
        // An item that lacks a documented member serves the list only, and is never cached as an appointment.
        for item in page.items.iter().flatten().filter(|item| item.is_complete) {
            self.copies.store_listed(caller, &item.appointment, directives, &version);
        }
        let freshness = self.copies.ttl.of_page(caller, directives);
        self.copies.shared.note_accepted(caller);
        let validators = validators.map(Into::into);
        Ok(Read { value: page, validators, version, freshness, shared_age: None })
    }

    fn log(key: &PageKey, result: &Result<Read<Arc<Page>>, UpstreamError>, duration: Duration) {
        let (page, duration_ms) = (key.page + 1, duration.as_millis() as u64);
        match result {
            Ok(read) => {
                tracing::debug!(list.page = page, items = read.value.items.len(), duration_ms, "fetched");
            }
            Err(error) => tracing::debug!(list.page = page, %error, duration_ms, "fetch failed"),
        }
    }

    fn revoke(&self, caller: &Caller, _: PageKey, error: &UpstreamError) {
        match error.revocation() {
            Revocation::Everything => self.copies.revoke_everything(caller),
            Revocation::Resource => self.copies.revoke_list(caller),
            Revocation::Nothing => {}
        }
    }
}
