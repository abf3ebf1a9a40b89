//! JSON projection of model objects: the [selected](Selection) fields are written straight to JSON, with an error for each
//! malformed value. async-graphql would box a future and build a `Value` for each field of each appointment.

use async_graphql::{ID, PathSegment, ServerError, resolver_utils::EnumType};
use jiff::fmt::temporal::DateTimePrinter;

use super::{
    draft::{Draft, ExceededBudget, Parent},
    field::{malformed_list, malformed_value},
    json,
};
use crate::{
    graphql::pipeline::selection::{Outlined, SelectedField, SelectedKind, Selection},
    model::{AppointmentPhase, Bandwidth, Date, DateTime, Entries, FeatureName, Field, Uuid},
};

static TIMES: DateTimePrinter = DateTimePrinter::new();

/// Writes the JSON of one root field's objects. When the budget is exceeded it stops, and the JSON is incomplete.
pub(crate) struct Writer<'d> {
    pub(crate) json: Vec<u8>,
    draft: &'d mut Draft,
    parent: Parent<'d>,
}

/// A response path below the first object, as a list linked to its parent.
pub(crate) struct ResponsePath<'p> {
    outer: Option<&'p ResponsePath<'p>>,
    step: PathStep<'p>,
}

enum PathStep<'p> {
    Field(&'p SelectedField),
    Index(usize),
}

impl ResponsePath<'_> {
    /// The path of a list item.
    pub(crate) fn item(index: usize) -> Self {
        Self { outer: None, step: PathStep::Index(index) }
    }

    fn segments(&self) -> Vec<PathSegment> {
        let mut segments = self.outer.map(ResponsePath::segments).unwrap_or_default();
        segments.push(match self.step {
            PathStep::Field(field) => PathSegment::Field(field.name().to_owned()),
            PathStep::Index(index) => PathSegment::Index(index),
        });
        segments
    }
}

/// A value with a JSON projection.
pub(crate) trait Write {
    /// Writes the value of the `selected` field at `path`.
    fn write(&self, selected: &SelectedField, path: &ResponsePath<'_>, to: &mut Writer<'_>);
}

/// Writes one field of a `T`.
pub(crate) type WriteField<T> = fn(&T, &SelectedField, &ResponsePath<'_>, &mut Writer<'_>);

/// An object of the model.
pub(crate) trait Object: Outlined + Sized + 'static {
    /// The writer of each field, in the order of the outline.
    const FIELDS: &'static [WriteField<Self>];
}

impl<'d> Writer<'d> {
    /// A writer for the field at `parent`, with a buffer of that `capacity`.
    pub(crate) fn new(capacity: usize, draft: &'d mut Draft, parent: Parent<'d>) -> Self {
        Self { json: Vec::with_capacity(capacity), draft, parent }
    }

    /// Whether there is room for `more` bytes.
    pub(crate) fn has_room(&mut self, more: usize) -> bool {
        self.draft.has_room(self.json.len() + more)
    }

    /// Writes the selected fields of `object` at `path`.
    pub(crate) fn object<T: Object>(
        &mut self,
        object: &T,
        selection: &Selection,
        path: Option<&ResponsePath<'_>>,
    ) {
        self.json.push(b'{');
        for (index, selected) in selection.fields.iter().enumerate() {
            if !self.has_room(selected.key().len()) {
                return;
            }
            if index > 0 {
                self.json.push(b',');
            }
            self.json.extend_from_slice(selected.key().as_bytes());
            match selected.kind {
                SelectedKind::Typename(name) => json::string(name, &mut self.json),
                SelectedKind::Field(index) => {
                    let path = ResponsePath { outer: path, step: PathStep::Field(selected) };
                    // The index comes from this object's outline, so it is in range.
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

    /// Records an error of the `selected` field.
    fn error(&mut self, error: ServerError, selected: &SelectedField, path: &ResponsePath<'_>) {
        let mut segments = (self.parent)();
        segments.extend(path.segments());
        self.draft.errors.push(&ServerError { locations: vec![selected.pos], path: segments, ..error });
    }

    fn text(&mut self, text: &str) {
        if self.has_room(text.len()) {
            json::string(text, &mut self.json);
        }
    }

    fn list<T: Write>(&mut self, items: &[T], selected: &SelectedField, path: &ResponsePath<'_>) {
        self.json.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if !self.has_room(1) {
                return;
            }
            if index > 0 {
                self.json.push(b',');
            }
            item.write(selected, &ResponsePath { outer: Some(path), step: PathStep::Index(index) }, self);
        }
        self.json.push(b']');
    }

    /// Writes a string that needs no escaping.
    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.json.push(b'"');
        write(&mut self.json);
        self.json.push(b'"');
    }
}

impl Draft {
    /// Writes one object.
    ///
    /// # Errors
    /// The exceeded budget. The object and its errors are discarded then.
    pub(crate) fn object<T: Object>(
        &mut self,
        object: &T,
        selection: &Selection,
        parent: Parent<'_>,
    ) -> Result<Vec<u8>, ExceededBudget> {
        if let Some(excess) = self.excess {
            return Err(excess);
        }
        let (errors, count) = (self.errors.json.len(), self.errors.count);
        let mut writer = Writer::new(selection.length, self, parent);
        writer.object(object, selection, None);
        let json = writer.json;
        match self.check(json.len()) {
            Ok(()) => {
                self.written += json.len();
                Ok(json)
            }
            Err(excess) => {
                self.errors.json.truncate(errors);
                self.errors.count = count;
                Err(excess)
            }
        }
    }

    /// Writes as many objects of a list as fit, even if another part of the response was too large.
    pub(crate) fn list<T: Object>(
        &mut self,
        items: &[T],
        selection: &Selection,
        parent: Parent<'_>,
    ) -> (Vec<u8>, Option<ExceededBudget>) {
        let earlier = self.excess.take();
        let mut writer =
            Writer::new(2 + items.len().saturating_mul(selection.length).min(1024), self, parent);
        writer.json.push(b'[');
        for (index, item) in items.iter().enumerate() {
            let whole = writer.json.len();
            if index > 0 {
                writer.json.push(b',');
            }
            writer.object(item, selection, Some(&ResponsePath::item(index)));
            if !writer.has_room(1) {
                writer.json.truncate(whole);
                break;
            }
        }
        writer.json.push(b']');
        let json = writer.json;
        self.written += json.len();
        let excess = self.excess;
        self.excess = earlier.or(excess);
        self.ceiling = 0;
        (json, excess)
    }
}

impl<T: Write> Write for Field<T> {
    fn write(&self, selected: &SelectedField, path: &ResponsePath<'_>, to: &mut Writer<'_>) {
        match self {
            Self::Value(value) => value.write(selected, path, to),
            Self::Absent => to.null(),
            Self::Malformed => {
                to.error(malformed_value(), selected, path);
                to.null();
            }
        }
    }
}

impl<T: Write> Write for Entries<T> {
    fn write(&self, selected: &SelectedField, path: &ResponsePath<'_>, to: &mut Writer<'_>) {
        if self.malformed {
            to.error(malformed_list(), selected, path);
        }
        to.list(&self.items, selected, path);
    }
}

impl<T: Write> Write for Vec<T> {
    fn write(&self, selected: &SelectedField, path: &ResponsePath<'_>, to: &mut Writer<'_>) {
        to.list(self, selected, path);
    }
}

impl<T: Write> Write for Option<T> {
    fn write(&self, selected: &SelectedField, path: &ResponsePath<'_>, to: &mut Writer<'_>) {
        match self {
            Some(value) => value.write(selected, path, to),
            None => to.null(),
        }
    }
}

impl Write for bool {
    fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
        to.json.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl Write for i32 {
    fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
        json::value(self, &mut to.json);
    }
}

/// Implements [`Write`] for string types.
macro_rules! texts {
    ($($type:ty),+) => {$(
        impl Write for $type {
            fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
                to.text(self);
            }
        }
    )+};
}
texts!(Box<str>, String, &'static str);

impl Write for ID {
    fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
        to.text(&self.0);
    }
}

impl Write for Uuid {
    fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = self.0.hyphenated().encode_lower(&mut text);
        to.quoted(|out| out.extend_from_slice(text.as_bytes()));
    }
}

impl Write for DateTime {
    fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
        to.quoted(|out| {
            // Writing to a vector cannot fail.
            let _ = TIMES.print_datetime(&self.civil(), &mut *out);
            out.push(b'Z');
        });
    }
}

impl Write for Date {
    fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
        to.quoted(|out| drop(TIMES.print_date(&self.0, out)));
    }
}

/// Implements [`Write`] for enums.
macro_rules! words {
    ($($type:ident),+) => {$(
        impl Write for $type {
            fn write(&self, _: &SelectedField, _: &ResponsePath<'_>, to: &mut Writer<'_>) {
                let word = Self::items().iter().find(|item| item.value == *self).map_or("", |item| item.name);
                to.quoted(|out| out.extend_from_slice(word.as_bytes()));
            }
        }
    )+};
}
words!(AppointmentPhase, Bandwidth, FeatureName);
