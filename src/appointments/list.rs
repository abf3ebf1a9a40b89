//! The list of appointments that a caller may see: windows over the cached pages of the upstream.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join;
use tokio::time::Instant;

use super::{keys::PageKey, page_cache::PageCache, read_set::ReadSet};
use crate::{
    cache::read_through::Cached,
    caller::Caller,
    model::SharedAppointment,
    upstream::{error::UpstreamError, response::Page},
};

/// A window of the list.
#[derive(Debug, Default)]
pub struct Window {
    /// The appointments with their positions in the list, counted from 0.
    pub items: Vec<(u64, SharedAppointment)>,
    /// Whether malformed items were left out.
    pub is_malformed: bool,
    /// The last position in the window, malformed items included; none if it is empty.
    pub last: Option<u64>,
    /// Whether the list continues after the window.
    pub has_next: bool,
    /// The length of the whole list, if the upstream tells it.
    pub total: Option<u64>,
    /// The upstream's page length, if it is shorter than requested.
    pub page_cap: Option<u32>,
    /// The age of the oldest stale page in it, if any is stale.
    pub age: Option<Duration>,
}

/// The position and the length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRequest {
    /// The first position, counted from 0.
    pub start: u64,
    /// The maximum number of items.
    pub length: u32,
    /// The upstream's page length, if it is known to be shorter than requested.
    pub page_cap: Option<u32>,
}

/// Reads windows for one operation of one caller, and records the pages in `reads`.
pub(crate) struct ListReader<'a> {
    pub(crate) pages: &'a PageCache,
    pub(crate) caller: &'a Caller,
    pub(crate) deadline: Instant,
    pub(crate) reads: &'a ReadSet,
}

impl ListReader<'_> {
    /// Reads the window: one upstream page, or two concurrently if it spans a boundary. Retries once if the upstream caps the
    /// page length. Pages that fail, or do not arrive by the deadline, are served stale within their bound.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    pub(crate) async fn window(&self, request: WindowRequest) -> Result<Window, UpstreamError> {
        let capped = match self.try_window(request).await? {
            Ok(window) => return Ok(window),
            Err(capped) => capped,
        };
        let unsteady = UpstreamError::Invalid("the page length varies between requests");
        self.try_window(capped).await?.map_err(|_| unsteady)
    }

    /// The window at `request`; or the request to make instead, now that the page length is known.
    async fn try_window(
        &self,
        request: WindowRequest,
    ) -> Result<Result<Window, WindowRequest>, UpstreamError> {
        let per_page = request.page_cap.map_or(request.length, |cap| request.length.min(cap)).max(1);
        let first = request.start / u64::from(per_page);
        let pages = if request.start.is_multiple_of(u64::from(per_page)) {
            let Cached { value: head, stale_age: age, .. } = self.page(first, per_page).await?;
            PageSpan { first, head, tail: None, age }
        } else {
            let (head, tail) = try_join(self.page(first, per_page), self.page(first + 1, per_page)).await?;
            let age = head.stale_age.max(tail.stale_age);
            PageSpan { first, head: head.value, tail: Some(tail.value), age }
        };
        let real = pages.per_page(per_page);
        if real == per_page {
            return self.cut(request, per_page, pages).await.map(Ok);
        }
        // The upstream gives shorter pages than requested, so these lie elsewhere. They still serve if the window begins
        // within them, though it may then be shorter than requested.
        let capped = WindowRequest { page_cap: Some(real), ..request };
        let (begin, end) =
            (first * u64::from(real), (first + 1 + u64::from(pages.tail.is_some())) * u64::from(real));
        if (begin..end).contains(&request.start) {
            self.cut(capped, real, pages).await.map(Ok)
        } else {
            Ok(Err(capped))
        }
    }

    async fn cut(
        &self,
        request: WindowRequest,
        per_page: u32,
        pages: PageSpan,
    ) -> Result<Window, UpstreamError> {
        let begin = pages.first * u64::from(per_page);
        let wanted = request.start..request.start + u64::from(request.length);
        let all = pages.head.items.iter().chain(pages.tail.iter().flat_map(|tail| &tail.items));
        let mut window = Window {
            total: pages.last().total,
            page_cap: request.page_cap,
            age: pages.age,
            ..Window::default()
        };
        let mut end = begin;
        for (position, item) in (begin..).zip(all) {
            end = position + 1;
            if wanted.contains(&position) {
                window.last = Some(position);
                match item {
                    Some(item) => window.items.push((position, item.appointment.clone())),
                    None => window.is_malformed = true,
                }
            }
        }
        window.has_next = if end > wanted.end {
            true
        } else if pages.last().items.is_empty() {
            // Whatever the upstream says of further pages, there is no cursor to continue from.
            false
        } else if let Some(total) = window.total {
            end < total
        } else if let Some(has_next) = pages.last().has_next {
            has_next
        } else if pages.last().items.len() < per_page as usize {
            false
        } else if pages.tail.is_some() {
            // Two full pages hold more than the window, so a cap has shortened it: the list continues.
            true
        } else {
            // The page is full, and the upstream does not report a next page, so fetch it. The client will likely request it
            // anyway.
            !self.page(pages.first + 1, per_page).await?.value.items.is_empty()
        };
        Ok(window)
    }

    /// Page `page`, counted from 0.
    async fn page(&self, page: u64, per_page: u32) -> Result<Cached<Arc<Page>>, UpstreamError> {
        let key = PageKey { scope: self.caller.scope(), page, per_page };
        let read = self.pages.read(self.caller, key, self.deadline).await.inspect(|_| self.reads.note_data());
        match &read {
            Ok(Cached { value, stale_age: None, forbids_storage }) => {
                if *forbids_storage {
                    self.reads.forbid_storage();
                }
                self.reads.note_page(key, value);
            }
            Ok(Cached { stale_age: Some(_), .. }) | Err(_) => self.reads.mark_uncacheable(),
        }
        read
    }
}

/// The one or two pages that cover a window.
struct PageSpan {
    /// The head's number, counted from 0.
    first: u64,
    head: Arc<Page>,
    tail: Option<Arc<Page>>,
    /// The age of the oldest stale page.
    age: Option<Duration>,
}

impl PageSpan {
    fn last(&self) -> &Page {
        self.tail.as_deref().unwrap_or(&self.head)
    }

    /// The real page length: the upstream's, if it is shorter than requested.
    fn per_page(&self, asked: u32) -> u32 {
        self.head.per_page.map_or(asked, |real| real.clamp(1, asked))
    }
}
