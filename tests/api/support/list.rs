//! The paginated list of a scripted upstream.

use appointments_gateway::sandbox::sample;
use serde_json::{Value, json};

use super::{Call, UpstreamResponse, id};

/// The appointments `id(0)` to `id(length - 1)`.
#[derive(Debug, Clone, Copy)]
pub struct List {
    pub length: usize,
    pub pagination: Pagination,
    /// The maximum page size, which caps the requested one.
    pub cap: usize,
}

/// The pagination data in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pagination {
    Meta,
    Links,
    Nothing,
}

impl Pagination {
    pub const EACH: [Self; 3] = [Self::Meta, Self::Links, Self::Nothing];
}

impl List {
    pub fn of(length: usize, pagination: Pagination) -> Self {
        Self { length, pagination, cap: usize::MAX }
    }

    /// The requested page.
    pub fn page(self, call: &Call) -> UpstreamResponse {
        self.page_of(call, |n| listed(n, call.token()))
    }

    /// The requested page, with each item made [`whole`].
    pub fn page_of(self, call: &Call, item: impl Fn(usize) -> Value) -> UpstreamResponse {
        UpstreamResponse::json(200, &self.body_of(call, |n| whole(item(n))))
    }

    /// The body of the requested page, with unchanged items.
    pub fn body_of(self, call: &Call, item: impl Fn(usize) -> Value) -> Value {
        let Self { length, pagination, cap } = self;
        let page = call.number("page").expect("the list is requested by page");
        let per_page = call.number("per_page").expect("the list is requested with a page size").min(cap);
        let begin = (page - 1).saturating_mul(per_page).min(length);
        let end = (begin + per_page).min(length);
        let mut body = json!({ "data": (begin..end).map(item).collect::<Vec<_>>() });
        let last = length.div_ceil(per_page).max(1);
        if pagination == Pagination::Meta {
            body["meta"] =
                json!({ "current_page": page, "last_page": last, "per_page": per_page, "total": length });
        }
        if pagination != Pagination::Nothing {
            let next =
                (page < last).then(|| format!("https://upstream.example/appointments?page={}", page + 1));
            body["links"] = json!({ "next": next });
        }
        body
    }
}

/// An item of a list requested with `token`.
pub fn listed(n: usize, token: &str) -> Value {
    json!({ "id": id(n), "reference": token, "status": "listed" })
}

/// Adds missing documented members as null: the gateway caches an item of a list only if it has all of them. It leaves
/// out the two that [`UpstreamResponse`] fills with personal data. An item without an id is unchanged.
pub fn whole(mut item: Value) -> Value {
    if let Some(members) = item.as_object_mut().filter(|members| members.contains_key("id")) {
        for name in sample().keys().filter(|name| !["claimant", "meeting"].contains(&name.as_str())) {
            members.entry(name).or_insert(Value::Null);
        }
    }
    item
}
