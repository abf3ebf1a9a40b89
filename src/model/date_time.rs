//! Instants of the years 1 to 9999.

use std::{borrow::Cow, fmt};

use jiff::{SignedDuration, Timestamp, civil, fmt::temporal::Pieces, tz::Offset};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The maximum offset from UTC, ±23:59 (RFC 3339, section 5.6), in seconds.
const MAX_OFFSET: i64 = (23 * 60 + 59) * 60;

/// The maximum number of fraction digits. Further ones are dropped.
const PRECISION: usize = 9;

/// An instant, RFC 3339 in UTC with `Z`, with a fraction only if it is not zero: 2021-01-01T00:00:00Z.
///
/// It holds a civil time, because a [`Timestamp`] ends a day before the year 9999 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime(civil::DateTime);

impl DateTime {
    /// Parses an instant with any number of fraction digits and any offset. Without an offset it is in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        // A date alone is not an instant. RFC 3339 has neither signed years nor time zone names.
        let is_instant = text.is_ascii()
            && text.len() >= 16
            && text.starts_with(|first: char| first.is_ascii_digit())
            && !text.contains('[');
        if !is_instant {
            return None;
        }
        let text = shortened(text);
        let pieces = Pieces::parse(&*text).ok()?;
        let offset = i64::from(pieces.to_numeric_offset().unwrap_or(Offset::UTC).seconds());
        if offset.abs() > MAX_OFFSET {
            return None;
        }
        let local = pieces.date().to_datetime(pieces.time()?);
        if local.year() < 1 {
            return None;
        }
        Self::expressible(local.checked_sub(SignedDuration::from_secs(offset)).ok()?)
    }

    /// The instant `minutes` later; `None` if RFC 3339 cannot express it.
    pub fn checked_add_minutes(self, minutes: i32) -> Option<Self> {
        Self::expressible(self.0.checked_add(SignedDuration::from_mins(i64::from(minutes))).ok()?)
    }

    /// The time since `other`, negative if `other` is later.
    pub fn duration_since(self, other: Self) -> SignedDuration {
        self.0.duration_since(other.0)
    }

    /// The civil time in UTC.
    pub fn civil(self) -> civil::DateTime {
        self.0
    }

    fn expressible(time: civil::DateTime) -> Option<Self> {
        (time.year() >= 0).then_some(Self(time))
    }
}

/// `text` with at most [`PRECISION`] fraction digits.
fn shortened(text: &str) -> Cow<'_, str> {
    let Some((whole, fraction)) = text.split_once(['.', ',']) else { return text.into() };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    if digits <= PRECISION {
        return text.into();
    }
    format!("{whole}.{}{}", &fraction[..PRECISION], &fraction[digits..]).into()
}

impl From<Timestamp> for DateTime {
    fn from(instant: Timestamp) -> Self {
        Self(Offset::UTC.to_datetime(instant))
    }
}

impl Serialize for DateTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (date, time) = (self.0.date(), self.0.time());
        let date = (date.year(), date.month(), date.day());
        (date, (time.hour(), time.minute(), time.second(), time.subsec_nanosecond())).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DateTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ((year, month, day), (hour, minute, second, nanosecond)) =
            Deserialize::deserialize(deserializer)?;
        let time = civil::DateTime::new(year, month, day, hour, minute, second, nanosecond);
        time.ok().and_then(Self::expressible).ok_or_else(|| D::Error::custom("not an instant"))
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn served(text: &str) -> Option<String> {
        DateTime::parse(text).map(|instant| instant.to_string())
    }

    #[test]
    fn every_instant_of_rfc_3339_is_parsed() {
        for (text, expected) in [
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00+23:59", "0000-12-31T00:01:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
            ("9999-12-31T00:00:00-23:59", "9999-12-31T23:59:00Z"),
            ("2021-01-30T08:30:00.1Z", "2021-01-30T08:30:00.1Z"),
            ("2021-01-30T08:30:00.1234567891Z", "2021-01-30T08:30:00.123456789Z"),
            ("2021-01-30T08:30:00.000000000000000000000000000001+01:00", "2021-01-30T07:30:00Z"),
            ("2021-01-30t08:30:00z", "2021-01-30T08:30:00Z"),
            ("2021-01-30 08:30:00Z", "2021-01-30T08:30:00Z"),
            ("2021-01-30T08:30:00-00:00", "2021-01-30T08:30:00Z"),
            ("2021-01-30T08:30:00+23:59", "2021-01-29T08:31:00Z"),
            ("2021-01-30T08:30:00-23:59", "2021-01-31T08:29:00Z"),
            // A leap second ends the minute.
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59Z"),
            // Notations of PHP: without an offset, and without a colon in it.
            ("2021-01-30 08:30:00", "2021-01-30T08:30:00Z"),
            ("2021-01-30T08:30:00+0130", "2021-01-30T07:00:00Z"),
        ] {
            assert_eq!(served(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "2021-01-30T08:30:00+24:00",
            "2021-01-30T08:30:00-24:00",
            "2021-01-30T08:30:00+25:59",
            "2021-01-30T08:30:00+23:60",
            "2021-01-30T08:30:00+23:59:30",
            "2021-01-30T08:30:00+99:99",
            "2021-02-29T08:30:00Z",
            "2021-01-30T24:00:00Z",
            "2021-01-30T08:60:00Z",
            "2021-01-30T08:30:61Z",
            "2021-01-30T08:30:00.Z",
            "+002021-01-30T08:30:00Z",
            "-000001-11-30T00:00:00.000000Z",
            "0000-00-00 00:00:00",
            "0000-06-01T00:00:00Z",
            "0000-12-31T23:59:59-23:59",
            // Only a year of five digits could express these in UTC.
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:59-23:59",
        ] {
            assert_eq!(served(text), None, "{text}");
        }
    }

    #[test]
    fn sums_beyond_the_years_of_rfc_3339_are_none() {
        let instant = |text| DateTime::parse(text).unwrap();
        assert_eq!(
            instant("9999-12-31T23:00:00Z").checked_add_minutes(59),
            Some(instant("9999-12-31T23:59:00Z"))
        );
        assert_eq!(instant("9999-12-31T23:00:00Z").checked_add_minutes(60), None);
        assert_eq!(instant("0001-01-01T00:00:00Z").checked_add_minutes(i32::MIN), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String, shape in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{5,8}[.,]?[0-9]{0,20}[Zz+-]?[0-9:]{0,8}") {
            let _ = (served(&text), served(&shape));
        }

        #[test]
        fn fraction_and_offset_shift_the_instant(
            second in -62_135_596_800_i64..253_402_300_800,
            fraction in "[0-9]{1,30}",
            offset in -1439..=1439_i64,
        ) {
            let utc = civil::date(1970, 1, 1).at(0, 0, 0, 0) + SignedDuration::from_secs(second);
            let Ok(local) = utc.checked_add(SignedDuration::from_mins(offset)) else { return Ok(()) };
            prop_assume!(local.year() >= 0);
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
            let text = format!("{local}.{fraction}{sign}{hours:02}:{minutes:02}");
            let digits = fraction[..fraction.len().min(9)].trim_end_matches('0');
            let digits = if digits.is_empty() { String::new() } else { format!(".{digits}") };
            prop_assert_eq!(served(&text), Some(format!("{utc}{digits}Z")));
        }
    }
}
