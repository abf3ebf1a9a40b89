//! The expected response: the upstream's JSON under the names of the contract, computed as simply as possible.
//!
//! One rule names the fields (the camelCase of the upstream's name), and the schema gives their types. The exceptions
//! follow below: `features`, derived fields, the list.

use std::collections::{BTreeSet, HashSet};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{
    SignedDuration, Timestamp, civil,
    tz::{Offset, TimeZone},
};
use serde_json::{Value, json};

use super::{
    operation::{Call, Field, Operation, Selection},
    record::World,
};
use crate::support::Types;

pub struct Expected {
    /// As text: the order of the names counts.
    pub data: String,
    /// The paths of fields that are null because of an invalid upstream value, in order.
    pub faults: Vec<String>,
    /// The ids requested from the upstream.
    pub ids: BTreeSet<String>,
    /// How many windows of the list are asked for.
    pub windows: usize,
}

/// The kind of a field.
enum Is {
    Null,
    /// Null, or with something left out, for a wrong shape.
    Wrong(Box<Is>),
    Leaf(Value),
    /// The data of an object: mostly the upstream's JSON.
    Object(Value),
    List(Vec<Is>),
}

struct Projecting<'w> {
    types: &'w Types,
    world: &'w World,
    operation: &'w Operation,
    expected: Expected,
}

pub fn answer(types: &Types, world: &World, operation: &Operation) -> Expected {
    let expected = Expected { data: String::new(), faults: Vec::new(), ids: BTreeSet::new(), windows: 0 };
    let mut projecting = Projecting { types, world, operation, expected };
    let data = projecting.object("Query", &Value::Null, &[&operation.selections], &mut Vec::new());
    let mut expected = projecting.expected;
    expected.data = data;
    expected.faults.sort();
    expected
}

impl<'w> Projecting<'w> {
    fn object(
        &mut self,
        of: &str,
        known: &Value,
        sets: &[&'w Vec<Selection>],
        path: &mut Vec<Value>,
    ) -> String {
        let (mut fields, mut spread) = (Vec::new(), HashSet::new());
        for set in sets {
            self.collect(set, &mut spread, &mut fields);
        }
        let members = fields.into_iter().map(|(key, fields): (&str, Vec<&'w Field>)| {
            path.push(key.into());
            let call = &fields[0].call;
            let is = self.field(of, known, call);
            let sets: Vec<_> = fields.iter().map(|field| &field.selections).collect();
            let inner = if call.name == "__typename" { "String" } else { self.types.of(of, &call.name) };
            let text = self.write(inner, is, &sets, path);
            path.pop();
            format!("{}:{text}", Value::from(key))
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    /// The selected fields by response name, in order of first occurrence.
    fn collect(
        &self,
        set: &'w [Selection],
        spread: &mut HashSet<usize>,
        fields: &mut Vec<(&'w str, Vec<&'w Field>)>,
    ) {
        for selection in set.iter().filter(|selection| selection.is_shown()) {
            match selection {
                Selection::Field(field, _) => {
                    let key = field.call.key();
                    match fields.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, fields)) => fields.push(field),
                        None => fields.push((key, vec![field])),
                    }
                }
                Selection::Inline { selections, .. } => self.collect(selections, spread, fields),
                Selection::Spread(fragment, _) => {
                    if spread.insert(*fragment) {
                        self.collect(&self.operation.fragments[*fragment].selections, spread, fields);
                    }
                }
            }
        }
    }

    fn write(&mut self, of: &str, is: Is, sets: &[&'w Vec<Selection>], path: &mut Vec<Value>) -> String {
        match is {
            Is::Null => "null".to_owned(),
            Is::Leaf(value) => value.to_string(),
            Is::Wrong(rest) => {
                self.expected.faults.push(Value::from(path.clone()).to_string());
                self.write(of, *rest, sets, path)
            }
            Is::Object(known) => self.object(of, &known, sets, path),
            Is::List(items) => {
                let items = items.into_iter().enumerate().map(|(n, item)| {
                    path.push(n.into());
                    let text = self.write(of, item, sets, path);
                    path.pop();
                    text
                });
                format!("[{}]", items.collect::<Vec<_>>().join(","))
            }
        }
    }

    fn field(&mut self, object: &str, known: &Value, call: &Call) -> Is {
        match (object, call.name.as_str()) {
            (_, "__typename") => Is::Leaf(object.into()),
            ("Query", _) => self.root(call),
            ("Appointment", "id") => Is::Leaf(known["id"].as_str().unwrap().to_lowercase().into()),
            ("Appointment", "reference") => opaque(&known["reference"]),
            ("Appointment", "endsAt") => ends_at(known),
            ("Appointment", "phase") => phase(known),
            // The flags lie side by side in the appointment.
            ("Appointment", "features") => Is::Object(known.clone()),
            ("Features", "all") => self.all(known, call.argument("enabled")),
            ("Features", "bandwidth") => self.value("Bandwidth", &known["features_bandwidth"]),
            ("Features", name) => self.value("Boolean", &known[format!("features_{}_enable", snake(name))]),
            ("Claimant", "data") => answers(&known["data"]),
            ("AppointmentConnection" | "AppointmentEdge" | "PageInfo" | "Feature", name) => {
                made(&known[name])
            }
            (_, name) => self.value(self.types.of(object, name), &known[snake(name)]),
        }
    }

    /// A value of a type, as the upstream sends it.
    fn value(&self, of: &str, value: &Value) -> Is {
        let Some(value) = super::given(value) else { return Is::Null };
        let leaf = match of {
            "String" => value.as_str().map(Value::from),
            "Boolean" => value.as_bool().map(Value::from),
            "Int" => value
                .as_f64()
                .filter(|number| number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX))
                .map(|number| json!(number as i64)),
            "DateTime" => instant(value).map(written),
            // The gateway's own bound is the calendar's.
            "Date" => value.as_str().filter(|text| text.parse::<civil::Date>().is_ok()).map(Value::from),
            "ID" => return opaque(value),
            of if self.types.is_enum(of) => value
                .as_str()
                .filter(|it| ["low", "medium", "high"].contains(it))
                .map(|it| it.to_uppercase().into()),
            _ => return if is_object(value) { Is::Object(value.clone()) } else { wrong() },
        };
        leaf.map_or_else(wrong, Is::Leaf)
    }

    fn root(&mut self, call: &Call) -> Is {
        let argument = |name| call.argument(name);
        match call.name.as_str() {
            "appointment" => self.appointment(argument("id").unwrap()),
            "appointmentsByIds" => {
                let ids = argument("ids").and_then(Value::as_array).unwrap();
                Is::List(ids.iter().map(|id| self.appointment(id)).collect())
            }
            "appointments" => {
                self.expected.windows += 1;
                let first = argument("first").map_or(25, |first| first.as_u64().unwrap() as usize);
                let after = argument("after").map(|after| position(after.as_str().unwrap()));
                Is::Object(window(self.world, first, after.map_or(0, |after| after + 1)))
            }
            other => panic!("nothing is known of Query.{other}"),
        }
    }

    fn appointment(&mut self, id: &Value) -> Is {
        let id = id.as_str().unwrap().to_lowercase();
        let record = self.world.record(&id);
        self.expected.ids.insert(id);
        record.map_or(Is::Null, |record| Is::Object(record.clone()))
    }

    /// The flags that are known, in the order of the schema.
    fn all(&self, known: &Value, enabled: Option<&Value>) -> Is {
        let fields = self.types.fields("Features").unwrap().iter().filter(|field| field.of == "Boolean");
        let flags = fields.map(|field| {
            let name = snake(&field.name);
            let flag = &known[format!("features_{name}_enable")];
            (name, flag)
        });
        let flags: Vec<_> = flags.collect();
        let is_listed = |flag: &Value| flag.is_boolean() && enabled.is_none_or(|enabled| enabled == flag);
        let listed = flags.iter().filter(|(_, flag)| is_listed(flag));
        let list = Is::List(
            listed
                .map(|(name, flag)| Is::Object(json!({ "name": name.to_uppercase(), "enabled": flag })))
                .collect(),
        );
        let is_whole = flags.iter().all(|(_, flag)| flag.is_boolean() || flag.is_null());
        if is_whole { list } else { Is::Wrong(Box::new(list)) }
    }
}

fn wrong() -> Is {
    Is::Wrong(Box::new(Is::Null))
}

fn snake(name: &str) -> String {
    name.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase())).collect()
}

/// A number or a text, as a text.
fn opaque(value: &Value) -> Is {
    match value {
        Value::Null => Is::Null,
        Value::String(text) => Is::Leaf(text.clone().into()),
        Value::Number(number) => Is::Leaf(number.to_string().into()),
        _ => wrong(),
    }
}

/// With any fraction and any offset; UTC where there is none.
fn instant(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    let (date, rest) = text.split_once('T')?;
    let (time, minutes) = match rest.find(['Z', '+', '-']) {
        None => (rest, 0),
        Some(at) if &rest[at..] == "Z" => (&rest[..at], 0),
        Some(at) => {
            let (hours, minutes) = rest[at + 1..].split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            (&rest[..at], if &rest[at..=at] == "-" { -minutes } else { minutes })
        }
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let numbers = |text: &str, by| text.split(by).map(str::parse::<i16>).collect::<Result<Vec<_>, _>>().ok();
    let (date, clock) = (numbers(date, '-')?, numbers(clock, ':')?);
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    let local = civil::date(date[0], date[1] as i8, date[2] as i8).at(
        clock[0] as i8,
        clock[1] as i8,
        clock[2] as i8,
        nanoseconds,
    );
    let utc = local.checked_sub(SignedDuration::from_mins(minutes)).ok()?;
    Some(utc.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// In UTC, with a fraction only where it is not zero.
fn written(instant: Timestamp) -> Value {
    let local = Offset::UTC.to_datetime(instant);
    let whole = local.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let fraction = format!(".{:09}", local.subsec_nanosecond());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{whole}{fraction}Z").into()
}

fn ends_at(known: &Value) -> Is {
    let minutes = match &known["duration_in_minutes"] {
        Value::Null => return Is::Null,
        minutes => minutes.as_f64().filter(|it| it.fract() == 0.0 && it.abs() <= f64::from(i32::MAX)),
    };
    let Some(minutes) = minutes else { return wrong() };
    if known["appointment_at"].is_null() {
        return Is::Null;
    }
    let end = instant(&known["appointment_at"])
        .and_then(|begin| begin.checked_add(SignedDuration::from_mins(minutes as i64)).ok());
    end.map_or_else(wrong, |end| Is::Leaf(written(end)))
}

fn phase(known: &Value) -> Is {
    let phases =
        [("cancelled_at", "CANCELLED"), ("session_ended_at", "ENDED"), ("session_started_at", "IN_SESSION")];
    let phase = phases.into_iter().find(|(name, _)| instant(&known[name]).is_some());
    Is::Leaf(phase.map_or("SCHEDULED", |(_, phase)| phase).into())
}

/// Whether the value is an object. PHP writes an empty one as a list.
fn is_object(value: &Value) -> bool {
    value.is_object() || value.as_array().is_some_and(Vec::is_empty)
}

/// The answers that are objects; none is no fault. PHP may write a list as an object with numeric names.
fn answers(value: &Value) -> Is {
    let numbered = |members: &&serde_json::Map<String, Value>| {
        members.keys().all(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let items: Option<Vec<_>> = match value {
        Value::Array(items) => Some(items.iter().collect()),
        value => value.as_object().filter(numbered).map(|members| members.values().collect()),
    };
    let is_list = items.is_some();
    let items = items.unwrap_or_default();
    let list =
        Is::List(items.iter().filter(|it| is_object(it)).map(|it| Is::Object((*it).clone())).collect());
    let is_whole = value.is_null() || is_list && items.iter().all(|it| is_object(it));
    if is_whole { list } else { Is::Wrong(Box::new(list)) }
}

fn position(cursor: &str) -> usize {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).unwrap()).unwrap();
    text.strip_prefix("appointments:").unwrap().parse().unwrap()
}

/// A window of the list, under the names that it is served with.
fn window(world: &World, first: usize, start: usize) -> Value {
    let length = world.records.len();
    let places = start.min(length)..(start + first).min(length);
    let cursor = |place: usize| URL_SAFE_NO_PAD.encode(format!("appointments:{place}"));
    let nodes = &world.records[places.clone()];
    json!({
        "nodes": nodes,
        "edges": places.clone().map(|n| json!({ "cursor": cursor(n), "node": world.records[n] })).collect::<Vec<_>>(),
        "totalCount": world.tells_of_the_rest.then_some(length),
        "pageInfo": {
            "hasNextPage": places.end < length,
            "hasPreviousPage": start > 0,
            "startCursor": places.clone().next().map(cursor),
            "endCursor": places.clone().last().map(cursor),
        },
    })
}

/// The generated JSON, unchanged.
fn made(value: &Value) -> Is {
    match value {
        Value::Null => Is::Null,
        Value::Object(_) => Is::Object(value.clone()),
        Value::Array(items) => Is::List(items.iter().cloned().map(Is::Object).collect()),
        leaf => Is::Leaf(leaf.clone()),
    }
}
