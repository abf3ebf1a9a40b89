//! The custom scalars: strict input, canonical output.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};

use crate::model::{Date, DateTime, Uuid};

/// An RFC 9562 UUID in lower case with hyphens.
#[Scalar(name = "UUID", specified_by_url = "https://www.rfc-editor.org/rfc/rfc9562")]
impl ScalarType for Uuid {
    fn parse(value: Value) -> InputValueResult<Self> {
        parse_string(&value, uuid).map(Self).ok_or_else(|| {
            InputValueError::custom("expected a UUID such as 9a0f170e-0aa0-47db-ab14-4ddcdcbad061")
        })
    }

    fn is_valid(value: &Value) -> bool {
        parse_string(value, uuid).is_some()
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.hyphenated().to_string())
    }
}

/// An RFC 3339 timestamp in UTC with `Z`, without a zero fraction: 2021-01-01T00:00:00Z.
/// Input may have any offset.
#[Scalar(name = "DateTime", specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339#section-5.6")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        parse_string(&value, date_time)
            .ok_or_else(|| InputValueError::custom("expected a timestamp such as 2021-01-01T00:00:00Z"))
    }

    fn is_valid(value: &Value) -> bool {
        parse_string(value, date_time).is_some()
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// A calendar date in RFC 3339 full-date format: 1990-12-25.
#[Scalar(name = "Date", specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339#section-5.6")]
impl ScalarType for Date {
    fn parse(value: Value) -> InputValueResult<Self> {
        parse_string(&value, date)
            .ok_or_else(|| InputValueError::custom("expected a date such as 1990-12-25"))
    }

    fn is_valid(value: &Value) -> bool {
        parse_string(value, date).is_some()
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

fn parse_string<T>(value: &Value, from_text: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    match value {
        Value::String(text) => from_text(text),
        _ => None,
    }
}

/// Accepts upper case, but no other UUID notation.
fn uuid(text: &str) -> Option<uuid::Uuid> {
    if text.len() == 36 { uuid::Uuid::try_parse(text).ok() } else { None }
}

fn date_time(text: &str) -> Option<DateTime> {
    // `DateTime::parse` accepts more than RFC 3339, whose format is: full-date T hh:mm:ss [.digits] (Z | ±hh:mm).
    let rest = strip_shape(text, "0000-00-00T00:00:00")?;
    let fraction = rest.strip_prefix('.');
    let offset = match fraction {
        Some(fraction) => fraction.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        None => rest,
    };
    if fraction.is_some_and(|fraction| fraction.len() == offset.len()) {
        return None;
    }
    let is_offset = offset.eq_ignore_ascii_case("z")
        || ["+00:00", "-00:00"].iter().any(|shape| strip_shape(offset, shape) == Some(""));
    if is_offset { DateTime::parse(text) } else { None }
}

fn date(text: &str) -> Option<Date> {
    if strip_shape(text, "0000-00-00")?.is_empty() { text.parse().ok().map(Date) } else { None }
}

/// The rest of `text` behind a prefix of this `shape`, in which `0` matches any digit.
fn strip_shape<'a>(text: &'a str, shape: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(shape.len())?;
    let matches = |(byte, shape): (u8, u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        letter => byte.eq_ignore_ascii_case(&letter),
    };
    head.bytes().zip(shape.bytes()).all(matches).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn served<T: ScalarType>(text: &str) -> Option<Value> {
        let value = Value::String(text.to_owned());
        assert_eq!(T::is_valid(&value), T::parse(value.clone()).is_ok(), "{text}");
        T::parse(value).ok().map(|it| it.to_value())
    }

    #[test]
    fn timestamps_are_served_in_utc_without_zero_fraction() {
        for (text, expected) in [
            ("2021-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2021-01-01t00:00:00z", "2021-01-01T00:00:00Z"),
            ("2021-01-01T00:00:00.000Z", "2021-01-01T00:00:00Z"),
            ("2021-01-01T00:00:00.120000Z", "2021-01-01T00:00:00.12Z"),
            ("2021-01-01T01:30:00+01:30", "2021-01-01T00:00:00Z"),
            ("2021-01-01T00:00:00.1234567890123Z", "2021-01-01T00:00:00.123456789Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(served::<DateTime>(text), Some(Value::String(expected.to_owned())), "{text}");
        }
        for text in [
            "",
            "2021-01-01",
            "2021-01-01T00:00:00",
            "2021-01-01 00:00:00Z",
            "2021-01-01T00:00:00.Z",
            "2021-01-01T00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-01-01T00:00:00Z[UTC]",
            "2021-01-01T00:00:00+0100",
            "2021-01-01T00:00:00+24:00",
        ] {
            assert_eq!(served::<DateTime>(text), None, "{text}");
        }
    }

    #[test]
    fn dates_and_uuids_have_one_notation() {
        assert_eq!(served::<Date>("1990-12-25"), Some(Value::String("1990-12-25".to_owned())));
        for text in ["1990-12-32", "1990-1-2", "19901225", "1990-12-25T00:00:00Z"] {
            assert_eq!(served::<Date>(text), None, "{text}");
        }
        let id = "9a0f170e-0aa0-47db-ab14-4ddcdcbad061";
        assert_eq!(served::<Uuid>(&id.to_uppercase()), Some(Value::String(id.to_owned())));
        for text in [
            "",
            "9a0f170e0aa047dbab144ddcdcbad061",
            "{9a0f170e-0aa0-47db-ab14-4ddcdcbad061}",
            "9a0f170e-0aa0-47db-ab14-4ddcdcbad06g",
        ] {
            assert_eq!(served::<Uuid>(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = (served::<DateTime>(&text), served::<Date>(&text), served::<Uuid>(&text));
        }
    }
}
