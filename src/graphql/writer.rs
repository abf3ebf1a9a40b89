//! How the values of the model are written: straight to JSON, by what is [selected](Selection) of them, with the errors of
//! those that are malformed. async-graphql would resolve each field of each appointment by itself.

use async_graphql::{ID, PathSegment, ServerError, resolver_utils::EnumType};
use jiff::fmt::temporal::DateTimePrinter;

use super::{
    field::{malformed_list, malformed_value},
    json,
    selection::{Outline, Selected, Selection, What},
};
use crate::model::{AppointmentPhase, Bandwidth, Date, DateTime, Entries, FeatureName, Field, Uuid};

static TIMES: DateTimePrinter = DateTimePrinter::new();

/// What has been written, with what was wrong with it: each error at its path below the first object.
pub(super) struct Writer {
    pub(super) json: Vec<u8>,
    pub(super) errors: Vec<ServerError>,
}

/// A place below the first object, linked to the one that it is in.
pub(super) struct Path<'p> {
    outer: Option<&'p Path<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Field(&'p Selected),
    Index(usize),
}

impl Path<'_> {
    fn segments(&self) -> Vec<PathSegment> {
        let mut segments = self.outer.map(Path::segments).unwrap_or_default();
        segments.push(match self.step {
            Step::Field(field) => PathSegment::Field(field.name().to_owned()),
            Step::Index(index) => PathSegment::Index(index),
        });
        segments
    }
}

/// Something that can be written.
pub(super) trait Write {
    /// Writes it as the value of the field that is `selected`, which stands at `path`.
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer);
}

/// Writes one field of a `T`.
pub(super) type WriteField<T> = fn(&T, &Selected, &Path<'_>, &mut Writer);

/// An object of the model.
pub(super) trait Object: Sized + 'static {
    /// What it is called, and its fields.
    const OUTLINE: Outline;
    /// How each field is written, in the order of the outline.
    const FIELDS: &'static [WriteField<Self>];
}

impl Writer {
    /// One with room for so many bytes.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { json: Vec::with_capacity(capacity), errors: Vec::new() }
    }

    /// Writes `object`, which stands at `path`.
    pub(super) fn object<T: Object>(&mut self, object: &T, selection: &Selection, path: Option<&Path<'_>>) {
        self.json.push(b'{');
        for (index, selected) in selection.fields.iter().enumerate() {
            if index > 0 {
                self.json.push(b',');
            }
            self.json.extend_from_slice(selected.key().as_bytes());
            match selected.what {
                What::Typename(name) => json::string(name, &mut self.json),
                What::Field(index) => {
                    let path = Path { outer: path, step: Step::Field(selected) };
                    // The index is one of this object's outline, so there is one.
                    if let Some(write) = T::FIELDS.get(index) {
                        write(object, selected, &path, self);
                    }
                }
            }
        }
        self.json.push(b'}');
    }

    fn null(&mut self) {
        self.json.extend_from_slice(b"null");
    }

    /// Notes an error of the field that is `selected`.
    fn fault(&mut self, error: ServerError, selected: &Selected, path: &Path<'_>) {
        self.errors.push(ServerError { locations: vec![selected.pos], path: path.segments(), ..error });
    }

    /// Writes, in quotes, what has nothing to escape.
    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.json.push(b'"');
        write(&mut self.json);
        self.json.push(b'"');
    }
}

impl<T: Write> Write for Field<T> {
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer) {
        match self {
            Self::Value(value) => value.write(selected, path, to),
            Self::Absent => to.null(),
            Self::Malformed => {
                to.fault(malformed_value(), selected, path);
                to.null();
            }
        }
    }
}

impl<T: Write> Write for Entries<T> {
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer) {
        if self.malformed {
            to.fault(malformed_list(), selected, path);
        }
        to.json.push(b'[');
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                to.json.push(b',');
            }
            item.write(selected, &Path { outer: Some(path), step: Step::Index(index) }, to);
        }
        to.json.push(b']');
    }
}

impl Write for bool {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        to.json.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl Write for i32 {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        json::value(self, &mut to.json);
    }
}

impl Write for Box<str> {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        json::string(self, &mut to.json);
    }
}

impl Write for ID {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        json::string(&self.0, &mut to.json);
    }
}

impl Write for Uuid {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = self.0.hyphenated().encode_lower(&mut text);
        to.quoted(|out| out.extend_from_slice(text.as_bytes()));
    }
}

impl Write for DateTime {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        // A vector takes whatever is written to it.
        to.quoted(|out| drop(TIMES.print_timestamp(&self.0, out)));
    }
}

impl Write for Date {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
        to.quoted(|out| drop(TIMES.print_date(&self.0, out)));
    }
}

/// The words of an enum.
macro_rules! words {
    ($($type:ident),+) => {$(
        impl Write for $type {
            fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer) {
                let word = Self::items().iter().find(|item| item.value == *self).map_or("", |item| item.name);
                to.quoted(|out| out.extend_from_slice(word.as_bytes()));
            }
        }
    )+};
}
words!(AppointmentPhase, Bandwidth, FeatureName);
