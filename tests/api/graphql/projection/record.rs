//! Random appointments of the upstream: every documented and observed notation, and faults.

use appointments_gateway::sandbox::sample;
use jiff::{Timestamp, civil};
use serde_json::{Map, Value, json};

use super::choices::Choices;
use crate::support::id;

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

/// Values that are invalid for most fields.
const WRONG: [&str; 7] = ["[]", "[1]", "{\"a\":{}}", "1e300", "-0.5", "\"\\u0000nonsense\"", "[[null]]"];

const BANDWIDTHS: [&str; 3] = ["low", "medium", "high"];

impl Making<'_> {
    fn appointment(&mut self, n: usize) -> Value {
        let mut it = self.object(sample());
        it["unheard_of"] = json!({ "field": [1, null] });
        // Some upstreams send capitals; the gateway serves lower case.
        it["id"] = if self.choices.once_in(6) { id(n).to_uppercase() } else { id(n) }.into();
        it
    }

    /// The members of `sample`, each absent, null, wrong, or another value of its kind.
    fn object(&mut self, sample: &Map<String, Value>) -> Value {
        let mut object = Map::new();
        for (name, value) in sample {
            let value = match self.choices.below(12) {
                0..=1 => continue,
                2 => Value::Null,
                3 => serde_json::from_str(self.choices.one_of(&WRONG)).unwrap(),
                _ => self.like(value),
            };
            object.insert(name.clone(), value);
        }
        object.into()
    }

    /// A value of the kind of `sample`.
    fn like(&mut self, sample: &Value) -> Value {
        match sample {
            Value::Bool(_) => self.choices.once_in(2).into(),
            Value::Number(_) => self.number(),
            Value::String(text) if text.parse::<Timestamp>().is_ok() => self.instant(),
            Value::String(text) if text.parse::<civil::Date>().is_ok() => self.date(),
            Value::String(text) if BANDWIDTHS.contains(&text.as_str()) => {
                self.choices.one_of(&BANDWIDTHS).into()
            }
            Value::String(_) | Value::Null => self.text(),
            Value::Array(items) => self.items(items),
            Value::Object(members) => self.object(members),
        }
    }

    fn items(&mut self, samples: &[Value]) -> Value {
        let count = self.choices.below(4);
        (0..count)
            .map(|_| match self.choices.below(8) {
                7 => Value::Null,
                6 => json!("no object"),
                kind => self.like(&samples[kind % samples.len()]),
            })
            .collect()
    }

    /// A number, or a text where an opaque value may be one.
    fn number(&mut self) -> Value {
        match self.choices.below(8) {
            0 => json!(30),
            1 => json!(45.0),
            2 => json!(self.choices.below(600)),
            3 => json!(i32::MAX),
            4 => json!(1_234_567_890),
            5 => json!(u64::MAX),
            6 => json!("SXW5qOJBYeIEf0G"),
            _ => self.text(),
        }
    }

    fn text(&mut self) -> Value {
        self.texts[self.choices.below(self.texts.len())].clone().into()
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
