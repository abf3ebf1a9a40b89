//! The variables of a request, coerced before anything runs: GraphQL, section 6.1.2 `CoerceVariableValues`.
//!
//! async-graphql reads a variable where a field first uses it, in the middle of execution. The specification wants a
//! request with bad variables refused as a whole, so this is done here, by the types of our own schema.

use async_graphql::{
    Name, Positioned, Value, Variables,
    indexmap::IndexMap,
    parser::types::{BaseType, Type, VariableDefinition},
};
use serde_json::Number;

use super::value_path::ValuePath;
use crate::{
    error::ApiError,
    graphql::schema::types::{InputType, Inputs, Scalar, Types},
};

impl Types {
    /// The variables that an operation declares by `definitions`, as they are given or by their defaults; what it does
    /// not declare is left out.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` for each variable that is missing or does not fit, with the place within it, and without the
    /// value, which may be personal data. Of more than `max_errors` only one more is looked for.
    pub(crate) fn coerce(
        &self,
        definitions: &[Positioned<VariableDefinition>],
        mut given: Variables,
        max_errors: usize,
    ) -> Result<Variables, Vec<ApiError>> {
        let mut coerced = Variables::default();
        let mut faults = Vec::new();
        for definition in definitions {
            if faults.len() > max_errors {
                break;
            }
            let definition = &definition.node;
            let name = &definition.name.node;
            let ty = &definition.var_type.node;
            let value = match (given.remove(name), &definition.default_value) {
                (Some(value), _) => self.value(ty, value, &ValuePath::Variable(name)),
                (None, Some(default)) => Ok(default.node.clone()),
                (None, None) if ty.nullable => continue,
                (None, None) => Err(ValuePath::Variable(name).fault("is missing", ty)),
            };
            match value {
                Ok(value) => {
                    coerced.insert(name.clone(), value);
                }
                Err(fault) => faults.push(ApiError::BadUserInput(fault)),
            }
        }
        if faults.is_empty() { Ok(coerced) } else { Err(faults) }
    }

    fn value(&self, ty: &Type, value: Value, place: &ValuePath<'_>) -> Result<Value, String> {
        if value == Value::Null {
            return if ty.nullable { Ok(value) } else { Err(place.fault("is null", ty)) };
        }
        match (&ty.base, value) {
            (BaseType::List(item), Value::List(values)) => {
                let coerced = values
                    .into_iter()
                    .enumerate()
                    .map(|(index, value)| self.value(item, value, &ValuePath::Item(place, index)));
                coerced.collect::<Result<_, _>>().map(Value::List)
            }
            // GraphQL, section 3.11: a value in place of a list is a list of one.
            (BaseType::List(item), value) => {
                self.value(item, value, place).map(|value| Value::List(vec![value]))
            }
            (BaseType::Named(name), value) => match self.input(name) {
                Some(InputType::Scalar(scalar)) => {
                    scalar.coerce(value).ok_or_else(|| place.fault("does not fit", ty))
                }
                Some(InputType::Enum(names)) => match value {
                    Value::String(word) if names.contains(word.as_str()) => Ok(Value::Enum(Name::new(word))),
                    _ => Err(place.fault("does not fit", ty)),
                },
                Some(InputType::Object(fields)) => self.input_object(fields, ty, value, place),
                // Validation says that there is no such type, or that it is none for variables.
                None => Ok(value),
            },
        }
    }

    fn input_object(
        &self,
        fields: &Inputs,
        ty: &Type,
        value: Value,
        place: &ValuePath<'_>,
    ) -> Result<Value, String> {
        let Value::Object(mut given) = value else { return Err(place.fault("does not fit", ty)) };
        let mut coerced = IndexMap::new();
        for (name, field) in fields {
            let place = ValuePath::Field(place, name);
            match (given.swap_remove(name), &field.default) {
                (Some(value), _) => {
                    coerced.insert(name.clone(), self.value(&field.ty, value, &place)?);
                }
                (None, Some(default)) => {
                    coerced.insert(name.clone(), default.clone());
                }
                (None, None) if field.ty.nullable => {}
                (None, None) => return Err(place.fault("is missing", &field.ty)),
            }
        }
        if given.is_empty() {
            Ok(Value::Object(coerced))
        } else {
            Err(place.fault("has a field that is not known", ty))
        }
    }
}

impl Scalar {
    /// `value` as it is read within: JSON does not tell 1.0 from 1, and an identity is text however it is written.
    fn coerce(self, value: Value) -> Option<Value> {
        let value = match (self, value) {
            (Self::Int, Value::Number(number)) => Value::Number(whole(&number)?.into()),
            (_, value) => value,
        };
        match (self, value) {
            (scalar, value) if !scalar.fits(&value) => None,
            (Self::Id, Value::Number(number)) => Some(Value::String(number.to_string())),
            (_, value) => Some(value),
        }
    }
}

/// A whole number of 32 bits, however it is written: `1.0` is one.
fn whole(number: &Number) -> Option<i32> {
    match number.as_i64() {
        Some(number) => i32::try_from(number).ok(),
        None => {
            let number = number.as_f64()?;
            (number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number))
                .then_some(number as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;

    const SDL: &str = "
        scalar UUID scalar DateTime scalar Date
        enum Size { SMALL LARGE }
        input Box { size: Size!  count: Int = 1  inner: Box  ids: [UUID!] }
        type Query { a: Int }
    ";

    fn coerce(declared: &str, given: serde_json::Value) -> Result<serde_json::Value, Vec<String>> {
        let document = parse_query(format!("query ({declared}) {{ a }}")).unwrap();
        let operation = &document.operations.iter().next().unwrap().1.node;
        Types::of(SDL)
            .unwrap()
            .coerce(&operation.variable_definitions, Variables::from_json(given), 2)
            .map(|variables| serde_json::to_value(variables).unwrap())
            .map_err(|faults| faults.iter().map(|fault| fault.message().into_owned()).collect())
    }

    #[test]
    fn values_are_coerced_as_the_specification_says() {
        for (declared, given, expected) in [
            ("$a: Int", json!({"a": 1.0, "unknown": 2}), json!({"a": 1})),
            ("$a: Int = 5", json!({}), json!({"a": 5})),
            ("$a: Int = 5", json!({"a": null}), json!({"a": null})),
            ("$a: Int", json!({}), json!({})),
            ("$a: Float", json!({"a": 1}), json!({"a": 1})),
            ("$a: ID", json!({"a": 7}), json!({"a": "7"})),
            ("$a: [Int!]!", json!({"a": 1}), json!({"a": [1]})),
            ("$a: [[Int]]", json!({"a": [1, [2, null]]}), json!({"a": [[1], [2, null]]})),
            ("$a: Size", json!({"a": "LARGE"}), json!({"a": "LARGE"})),
            ("$a: Box", json!({"a": {"size": "SMALL"}}), json!({"a": {"size": "SMALL", "count": 1}})),
            ("$a: Unknown", json!({"a": {"any": 1}}), json!({"a": {"any": 1}})),
        ] {
            assert_eq!(coerce(declared, given.clone()), Ok(expected), "{declared} {given}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_not_repeated() {
        let id = "[UUID!]!";
        for (declared, given, expected) in [
            ("$a: Int!", json!({}), "The variable \"$a\" is missing; it has to be of type Int!."),
            ("$a: Int!", json!({"a": null}), "The variable \"$a\" is null; it has to be of type Int!."),
            (
                "$a: Int",
                json!({"a": 2147483648_i64}),
                "The variable \"$a\" does not fit; it has to be of type Int.",
            ),
            ("$a: Int", json!({"a": 1.5}), "The variable \"$a\" does not fit; it has to be of type Int."),
            ("$a: String", json!({"a": 1}), "The variable \"$a\" does not fit; it has to be of type String."),
            ("$a: ID", json!({"a": 1.5}), "The variable \"$a\" does not fit; it has to be of type ID."),
            (
                "$a: Size",
                json!({"a": "huge"}),
                "The variable \"$a\" does not fit; it has to be of type Size.",
            ),
            ("$a: Box", json!({"a": {}}), "The variable \"$a.size\" is missing; it has to be of type Size!."),
            ("$a: Box", json!({"a": []}), "The variable \"$a\" does not fit; it has to be of type Box."),
            (
                "$a: Box",
                json!({"a": {"size": "SMALL", "secret": 1}}),
                "The variable \"$a\" has a field that is not known; it has to be of type Box.",
            ),
            (
                "$a: Box",
                json!({"a": {"size": "SMALL", "inner": {"size": null}}}),
                "The variable \"$a.inner.size\" is null; it has to be of type Size!.",
            ),
            (
                &format!("$a: {id}"),
                json!({"a": ["x"]}),
                "The variable \"$a[0]\" does not fit; it has to be of type UUID!.",
            ),
        ] {
            assert_eq!(coerce(declared, given.clone()), Err(vec![expected.to_owned()]), "{declared} {given}");
        }
        assert_eq!(coerce("$a: Int!, $b: Int!", json!({})).unwrap_err().len(), 2);
        assert_eq!(coerce("$a: Int!, $b: Int!, $c: Int!, $d: Int!", json!({})).unwrap_err().len(), 3);
    }
}
