//! The variants of appointments: present, null and omitted fields, and notations. The upstream uses many of each.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    people,
    prng::{below, pick, random},
    record::{Completeness, TimestampFormat},
};

/// The upstream's names of the features, without the prefix and suffix of the JSON fields.
const FEATURES: [&str; 9] = [
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

/// A variant of an appointment.
pub(crate) struct Variant {
    pub(crate) time_format: TimestampFormat,
    pub(crate) completeness: Completeness,
    pub(crate) room: bool,
    /// The number of answered questions; `None` without a claimant.
    answers: Option<u32>,
    department: bool,
    interpreter: bool,
    numeric_reference: bool,
    /// A bit for each feature; `None` omits all of them.
    pub(crate) features: Option<u16>,
    /// The redirect URLs: 0 for none, 1 for the claimant's, 2 for the agent's, 3 for both.
    redirects: u32,
}

impl Variant {
    /// The most common variant.
    pub(crate) const PLAIN: Self = Self {
        time_format: TimestampFormat::Micros,
        completeness: Completeness::Full,
        room: true,
        answers: Some(2),
        department: true,
        interpreter: false,
        numeric_reference: false,
        features: Some(0b001_111_101),
        redirects: 0,
    };

    /// A new appointment of the upstream: only camera and microphone, and no room.
    pub(crate) const NEW: Self = Self {
        room: false,
        answers: Some(0),
        department: false,
        features: Some(0b000_101_100),
        ..Self::PLAIN
    };

    /// A new appointment before the client's fields are set.
    pub(crate) const CREATED: Self = Self { answers: None, ..Self::NEW };

    /// Returns the variant of a scenario: fixed for the examples, random for the others.
    pub(crate) fn of(index: u32) -> Self {
        use TimestampFormat::{Micros, Millis, Offset, Seconds, WithoutOffset};
        let one_in = |sides: u32, purpose: &str| below(sides, index, purpose) == 0;
        match index {
            0 => Self { answers: Some(3), features: Some(0b111_111_111), redirects: 3, ..Self::PLAIN },
            1 | 2 => Self::PLAIN,
            3 => Self {
                time_format: Offset,
                answers: Some(7),
                interpreter: true,
                numeric_reference: true,
                ..Self::PLAIN
            },
            4 => Self { time_format: Millis, redirects: 1, ..Self::PLAIN },
            5 => Self::NEW,
            6 => Self { completeness: Completeness::IdOnly, ..Self::PLAIN },
            _ => Self {
                time_format: pick(
                    &[Micros, Micros, Micros, Micros, Millis, Seconds, Offset, WithoutOffset],
                    index,
                    "stamp",
                ),
                completeness: match below(24, index, "completeness") {
                    0 => Completeness::IdOnly,
                    1..=3 => Completeness::WithoutNulls,
                    _ => Completeness::Full,
                },
                room: !one_in(4, "has room"),
                answers: (!one_in(24, "no claimant")).then(|| below(8, index, "answers")),
                department: !one_in(4, "has department"),
                interpreter: one_in(3, "interpreter"),
                numeric_reference: one_in(4, "numeric"),
                features: match below(6, index, "features") {
                    0 => Some(0b111_111_111),
                    1 => Some(0),
                    2 => None,
                    // Nine bits.
                    _ => Some((random(index, "mixed features") & 0b111_111_111) as u16),
                },
                redirects: below(4, index, "redirects"),
            },
        }
    }

    /// Returns the stored fields of an appointment of this variant.
    pub(crate) fn fields(&self, index: u32, created: Timestamp, minutes: i64) -> Map<String, Value> {
        let reference = if self.numeric_reference {
            json!(people::numeric_reference(index))
        } else {
            json!(people::reference(index))
        };
        // Removes the JSON quotes of a string.
        let url = people::check_in_url(reference.to_string().trim_matches('"'));
        let language = self.interpreter.then(|| people::language(index));
        let user = (self.redirects & 1 == 1).then_some("https://sandbox.example/thank-you");
        let agent = (self.redirects & 2 == 2).then_some("https://sandbox.example/agents/next");
        let fields = [
            ("reference", reference),
            ("url", json!(url)),
            ("created_at", json!(self.time_format.write(created))),
            ("duration_in_minutes", json!(minutes)),
            ("is_interpreter_needed", json!(self.interpreter)),
            ("interpreter_language", json!(language)),
            ("department", self.department.then(|| people::some_department(index)).into()),
            ("claimant", self.answers.map(|answers| people::claimant(index, answers)).into()),
            ("use_custom_post_call_redirect", json!(self.redirects != 0)),
            ("custom_user_post_call_redirect_url", json!(user)),
            ("custom_agent_post_call_redirect_url", json!(agent)),
        ];
        let mut fields: Map<_, _> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(flags) = self.features {
            for (place, name) in FEATURES.iter().enumerate() {
                fields.insert(format!("features_{name}_enable"), json!(flags >> place & 1 == 1));
            }
            let bandwidth = pick(&[Some("low"), Some("medium"), Some("high"), None], index, "bandwidth");
            fields.insert("features_bandwidth".to_owned(), json!(bandwidth));
        }
        fields
    }
}

/// Replaces a field of the `nth` malformed appointment with a value of an undocumented type.
pub(crate) fn corrupt_field(nth: u32, fields: &mut Map<String, Value>) {
    let (name, value) = match nth {
        0 => ("features_bandwidth", json!("ultra")),
        1 => ("duration_in_minutes", json!("60 minutes")),
        2 => ("created_at", json!("the day before yesterday")),
        _ => ("is_interpreter_needed", json!("perhaps")),
    };
    fields.insert(name.to_owned(), value);
}
