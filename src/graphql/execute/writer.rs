//! How the values of the model are written: straight to JSON, by what is [selected](Selection) of them, with the errors of
//! those that are malformed. async-graphql would resolve each field of each appointment by itself.

use async_graphql::{ID, PathSegment, ServerError, resolver_utils::EnumType};
use jiff::fmt::temporal::DateTimePrinter;

use super::{
    draft::{Draft, Excess, Parent},
    field::{malformed_list, malformed_value},
    json,
};
use crate::{
    graphql::pipeline::selection::{Outline, Selected, Selection, What},
    model::{AppointmentPhase, Bandwidth, Date, DateTime, Entries, FeatureName, Field, Uuid},
};

static TIMES: DateTimePrinter = DateTimePrinter::new();

/// Writes the JSON of one field of an answer. Where the answer has no room for more, it stops, and the JSON is of no use.
pub(crate) struct Writer<'d> {
    pub(crate) json: Vec<u8>,
    draft: &'d mut Draft,
    parent: Parent<'d>,
}

/// A place below the first object, linked to the one that it is in.
pub(crate) struct Path<'p> {
    outer: Option<&'p Path<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Field(&'p Selected),
    Index(usize),
}

impl Path<'_> {
    /// The item of that number in a list.
    pub(crate) fn item(index: usize) -> Self {
        Self { outer: None, step: Step::Index(index) }
    }

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
pub(crate) trait Write {
    /// Writes it as the value of the field that is `selected`, which stands at `path`.
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer<'_>);
}

/// Writes one field of a `T`.
pub(crate) type WriteField<T> = fn(&T, &Selected, &Path<'_>, &mut Writer<'_>);

/// An object of the model.
pub(crate) trait Object: Sized + 'static {
    /// What it is called, and its fields.
    const OUTLINE: Outline;
    /// How each field is written, in the order of the outline.
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

    /// Writes `object`, which stands at `path`.
    pub(crate) fn object<T: Object>(&mut self, object: &T, selection: &Selection, path: Option<&Path<'_>>) {
        self.json.push(b'{');
        for (index, selected) in selection.fields.iter().enumerate() {
            if !self.has_room(selected.key().len()) {
                return;
            }
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
        let mut segments = (self.parent)();
        segments.extend(path.segments());
        self.draft.errors.push(&ServerError { locations: vec![selected.pos], path: segments, ..error });
    }

    fn text(&mut self, text: &str) {
        if self.has_room(text.len()) {
            json::string(text, &mut self.json);
        }
    }

    fn list<T: Write>(&mut self, items: &[T], selected: &Selected, path: &Path<'_>) {
        self.json.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if !self.has_room(1) {
                return;
            }
            if index > 0 {
                self.json.push(b',');
            }
            item.write(selected, &Path { outer: Some(path), step: Step::Index(index) }, self);
        }
        self.json.push(b']');
    }

    /// Writes, in quotes, what has nothing to escape.
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
    /// Why the answer is too large. Nothing of the object counts then.
    pub(crate) fn object<T: Object>(
        &mut self,
        object: &T,
        selection: &Selection,
        parent: Parent<'_>,
    ) -> Result<Vec<u8>, Excess> {
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

    /// Writes a list of objects, as far as there is room, even in an answer of which another part was too large.
    pub(crate) fn list<T: Object>(
        &mut self,
        items: &[T],
        selection: &Selection,
        parent: Parent<'_>,
    ) -> (Vec<u8>, Option<Excess>) {
        let earlier = self.excess.take();
        let mut writer =
            Writer::new(2 + items.len().saturating_mul(selection.length).min(1024), self, parent);
        writer.json.push(b'[');
        for (index, item) in items.iter().enumerate() {
            let whole = writer.json.len();
            if index > 0 {
                writer.json.push(b',');
            }
            writer.object(item, selection, Some(&Path::item(index)));
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
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer<'_>) {
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
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer<'_>) {
        if self.malformed {
            to.fault(malformed_list(), selected, path);
        }
        to.list(&self.items, selected, path);
    }
}

impl<T: Write> Write for Vec<T> {
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer<'_>) {
        to.list(self, selected, path);
    }
}

impl<T: Write> Write for Option<T> {
    fn write(&self, selected: &Selected, path: &Path<'_>, to: &mut Writer<'_>) {
        match self {
            Some(value) => value.write(selected, path, to),
            None => to.null(),
        }
    }
}

impl Write for bool {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
        to.json.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl Write for i32 {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
        json::value(self, &mut to.json);
    }
}

/// Kinds of text.
macro_rules! texts {
    ($($type:ty),+) => {$(
        impl Write for $type {
            fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
                to.text(self);
            }
        }
    )+};
}
texts!(Box<str>, String, &'static str);

impl Write for ID {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
        to.text(&self.0);
    }
}

impl Write for Uuid {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = self.0.hyphenated().encode_lower(&mut text);
        to.quoted(|out| out.extend_from_slice(text.as_bytes()));
    }
}

impl Write for DateTime {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
        // A vector takes whatever is written to it.
        to.quoted(|out| drop(TIMES.print_timestamp(&self.0, out)));
    }
}

impl Write for Date {
    fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
        to.quoted(|out| drop(TIMES.print_date(&self.0, out)));
    }
}

/// The words of an enum.
macro_rules! words {
    ($($type:ident),+) => {$(
        impl Write for $type {
            fn write(&self, _: &Selected, _: &Path<'_>, to: &mut Writer<'_>) {
                let word = Self::items().iter().find(|item| item.value == *self).map_or("", |item| item.name);
                to.quoted(|out| out.extend_from_slice(word.as_bytes()));
            }
        }
    )+};
}
words!(AppointmentPhase, Bandwidth, FeatureName);
