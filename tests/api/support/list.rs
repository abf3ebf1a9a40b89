//! The list of a scripted upstream, a page at a time.

use serde_json::{Value, json};

use super::{Answer, Call, id};

/// The appointments `id(0)` to `id(length - 1)`.
#[derive(Debug, Clone, Copy)]
pub struct List {
    pub length: usize,
    pub tells: Tells,
    /// The longest page that is given, whatever is asked for.
    pub cap: usize,
}

/// What an answer tells of the rest of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    Meta,
    Links,
    Nothing,
}

impl Tells {
    pub const EACH: [Self; 3] = [Self::Meta, Self::Links, Self::Nothing];
}

impl List {
    pub fn of(length: usize, tells: Tells) -> Self {
        Self { length, tells, cap: usize::MAX }
    }

    /// The page that is asked for.
    pub fn page(self, call: &Call) -> Answer {
        self.page_of(call, |n| listed(n, call.token()))
    }

    /// The page that is asked for, with what stands at each place.
    pub fn page_of(self, call: &Call, item: impl Fn(usize) -> Value) -> Answer {
        Answer::json(200, &self.body_of(call, item))
    }

    /// The same as nothing but its body.
    pub fn body_of(self, call: &Call, item: impl Fn(usize) -> Value) -> Value {
        let Self { length, tells, cap } = self;
        let page = call.number("page").expect("a list is asked for by page");
        let per_page = call.number("per_page").expect("a list is asked for by pages of a length").min(cap);
        let begin = (page - 1).saturating_mul(per_page).min(length);
        let end = (begin + per_page).min(length);
        let mut body = json!({ "data": (begin..end).map(item).collect::<Vec<_>>() });
        let last = length.div_ceil(per_page).max(1);
        if tells == Tells::Meta {
            body["meta"] =
                json!({ "current_page": page, "last_page": last, "per_page": per_page, "total": length });
        }
        if tells != Tells::Nothing {
            let next =
                (page < last).then(|| format!("https://upstream.example/appointments?page={}", page + 1));
            body["links"] = json!({ "next": next });
        }
        body
    }
}

/// What stands in a list that was asked for with `token`.
pub fn listed(n: usize, token: &str) -> Value {
    json!({ "id": id(n), "reference": token, "status": "listed" })
}
