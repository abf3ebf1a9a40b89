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

    /// The page that is asked for, with the item at each place made [`whole`].
    pub fn page_of(self, call: &Call, item: impl Fn(usize) -> Value) -> Answer {
        Answer::json(200, &self.body_of(call, |n| whole(item(n))))
    }

    /// The body of the page that is asked for, with the items as they are.
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

/// The documented members of an appointment, besides `id` and the two that every [`Answer`] fills in with a person.
const MEMBERS: [&str; 26] = [
    "reference",
    "appointment_at",
    "duration_in_minutes",
    "is_interpreter_needed",
    "interpreter_language",
    "status",
    "url",
    "created_at",
    "cancelled_at",
    "cancellation_reason",
    "department",
    "session_started_at",
    "session_ended_at",
    "features_call_recording_enable",
    "features_breakout_room_enable",
    "features_webcam_access_agent_enable",
    "features_webcam_access_claimant_enable",
    "features_webcam_background_blurring_enable",
    "features_microphone_access_enable",
    "features_screen_sharing_enable",
    "features_messages_chat_enable",
    "features_participant_list_enable",
    "features_bandwidth",
    "use_custom_post_call_redirect",
    "custom_user_post_call_redirect_url",
    "custom_agent_post_call_redirect_url",
];

/// `item` with every documented member that it lacks, as null: only such an item of a list is a whole appointment. An
/// item without an id stays as it is.
pub fn whole(mut item: Value) -> Value {
    if let Some(members) = item.as_object_mut().filter(|members| members.contains_key("id")) {
        for name in MEMBERS {
            members.entry(name).or_insert(Value::Null);
        }
    }
    item
}
