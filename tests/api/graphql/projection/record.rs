//! Random appointments of the upstream: every documented and observed notation, and faults.

use serde_json::{Map, Value, json};

use super::choices::Choices;
use crate::support::id;

/// The feature switches without their common prefix, in the order of the schema.
pub const FLAGS: [&str; 9] = [
    "call_recording",
    "breakout_room",
    "webcam_access_agent",
    "webcam_access_claimant",
    "webcam_background_blurring",
    "microphone_access",
    "screen_sharing",
    "messages_chat",
    "participant_list",
];

/// The data visible to one caller.
#[derive(Debug, Clone)]
pub struct World {
    /// The list, in its order.
    pub records: Vec<Value>,
    /// Whether the list comes with `meta`.
    pub tells_of_the_rest: bool,
}

/// The most appointments that there are. Ids from here on are of none.
pub const MOST: usize = 5;

impl World {
    pub fn of(choices: &mut Choices, texts: &[String]) -> Self {
        let tells_of_the_rest = choices.once_in(2);
        let count = choices.below(MOST + 1);
        let records = (0..count).map(|n| Making { choices, texts }.appointment(n)).collect();
        Self { records, tells_of_the_rest }
    }

    pub fn record(&self, id: &str) -> Option<&Value> {
        self.records.iter().find(|record| record["id"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(id)))
    }
}

struct Making<'c> {
    choices: &'c mut Choices,
    texts: &'c [String],
}

/// Makes the value of a member.
type Make<M> = fn(&mut M) -> Value;

/// Values that are invalid for most fields.
const WRONG: [&str; 7] = ["[]", "[1]", "{\"a\":{}}", "1e300", "-0.5", "\"\\u0000nonsense\"", "[[null]]"];

impl Making<'_> {
    fn appointment(&mut self, n: usize) -> Value {
        let mut it = Map::new();
        for name in ["interpreter_language", "status", "url", "cancellation_reason"] {
            self.put(&mut it, name, Self::text);
        }
        for name in ["custom_user_post_call_redirect_url", "custom_agent_post_call_redirect_url"] {
            self.put(&mut it, name, Self::text);
        }
        for name in ["appointment_at", "created_at", "cancelled_at", "session_started_at", "session_ended_at"]
        {
            self.put(&mut it, name, Self::instant);
        }
        for name in ["is_interpreter_needed", "use_custom_post_call_redirect"] {
            self.put(&mut it, name, Self::flag);
        }
        for name in FLAGS {
            self.put(&mut it, &format!("features_{name}_enable"), Self::flag);
        }
        self.put(&mut it, "features_bandwidth", |it| it.choices.one_of(&["low", "medium", "high"]).into());
        self.put(&mut it, "reference", Self::opaque);
        self.put(&mut it, "duration_in_minutes", |it| match it.choices.below(4) {
            0 => json!(30),
            1 => json!(45.0),
            2 => json!(it.choices.below(600)),
            _ => json!(i32::MAX),
        });
        self.put(&mut it, "department", |it| it.object(&[("id", Self::opaque), ("name", Self::text)]));
        self.put(&mut it, "meeting", |it| {
            it.object(&[
                ("id", Self::opaque),
                ("room_name", Self::text),
                ("room_url", Self::text),
                ("start_date", Self::instant),
                ("end_date", Self::instant),
            ])
        });
        self.put(&mut it, "claimant", |it| {
            it.object(&[
                ("name", Self::text),
                ("phone_number", Self::text),
                ("email", Self::text),
                ("date_of_birth", Self::date),
                ("data", Self::answers),
            ])
        });
        it.insert("unheard_of".to_owned(), json!({ "field": [1, null] }));
        // Some upstreams send capitals; the gateway serves lower case.
        let id = if self.choices.once_in(6) { id(n).to_uppercase() } else { id(n) };
        it.insert("id".to_owned(), id.into());
        it.into()
    }

    /// Absent, null, wrong, or as `make` makes it.
    fn put(&mut self, object: &mut Map<String, Value>, name: &str, make: impl Fn(&mut Self) -> Value) {
        let value = match self.choices.below(12) {
            0..=1 => return,
            2 => Value::Null,
            3 => serde_json::from_str(self.choices.one_of(&WRONG)).unwrap(),
            _ => make(self),
        };
        object.insert(name.to_owned(), value);
    }

    fn object(&mut self, members: &[(&str, Make<Self>)]) -> Value {
        let mut object = Map::new();
        for (name, make) in members {
            self.put(&mut object, name, make);
        }
        object.into()
    }

    fn answers(&mut self) -> Value {
        let count = self.choices.below(4);
        (0..count)
            .map(|_| match self.choices.below(8) {
                7 => Value::Null,
                6 => json!("no object"),
                _ => self.object(&[
                    ("id", Self::opaque),
                    ("name", Self::text),
                    ("value", Self::text),
                    ("type", Self::text),
                    ("required", Self::flag),
                ]),
            })
            .collect()
    }

    fn text(&mut self) -> Value {
        self.texts[self.choices.below(self.texts.len())].clone().into()
    }

    /// A number or a text.
    fn opaque(&mut self) -> Value {
        match self.choices.below(4) {
            0 => json!("SXW5qOJBYeIEf0G"),
            1 => json!(1_234_567_890),
            2 => json!(u64::MAX),
            _ => self.text(),
        }
    }

    fn flag(&mut self) -> Value {
        self.choices.once_in(2).into()
    }

    fn date(&mut self) -> Value {
        let (year, month, day) = self.day();
        format!("{year:04}-{month:02}-{day:02}").into()
    }

    fn day(&mut self) -> (usize, usize, usize) {
        let year = [2031, 1999, 2024, 1, 9998][self.choices.below(5)];
        (year, 1 + self.choices.below(12), 1 + self.choices.below(28))
    }

    fn instant(&mut self) -> Value {
        let (year, month, day) = self.day();
        let (hour, minute, second) = (self.choices.below(24), self.choices.below(60), self.choices.below(60));
        let fraction = self.choices.one_of(&["", ".000", ".000000", ".5", ".120", ".123456", ".000000001"]);
        let offset = self.choices.one_of(&["Z", "", "+00:00", "+02:00", "-05:30", "+14:00"]);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}").into()
    }
}
