//! The types of our own schema, read once from the schema definition language: what validation and variables go by.

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Name, Positioned, ScalarType, Value,
    indexmap::IndexMap,
    parser::{
        parse_schema,
        types::{
            BaseType, DirectiveLocation, FieldDefinition, InputValueDefinition, OperationType, Type,
            TypeKind, TypeSystemDefinition,
        },
    },
};

use crate::model::{Date, DateTime, Uuid};

/// The types and the directives of a schema.
#[derive(Debug, Default)]
pub(crate) struct Types {
    inputs: HashMap<Name, InputType>,
    objects: HashMap<Name, Fields>,
    directives: HashMap<Name, Directive>,
}

#[derive(Debug)]
pub(crate) enum InputType {
    Scalar(Scalar),
    Enum(HashSet<Name>),
    Object(Inputs),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar {
    Int,
    Float,
    String,
    Boolean,
    Id,
    Uuid,
    DateTime,
    Date,
}

/// The fields of an input object, or the arguments of a field or of a directive.
pub(crate) type Inputs = IndexMap<Name, Input>;

#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) ty: Type,
    pub(crate) default: Option<Value>,
}

/// The fields of an object.
pub(crate) type Fields = HashMap<Name, Field>;

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) arguments: Inputs,
    pub(crate) is_list: bool,
    /// What is within the lists, if it is one.
    pub(crate) ty: Name,
}

/// None of ours may stand twice in one place.
#[derive(Debug)]
pub(crate) struct Directive {
    pub(crate) arguments: Inputs,
    pub(crate) locations: Vec<DirectiveLocation>,
}

/// What every schema has and none describes (GraphQL, section 4.2), as async-graphql has it: the fields with arguments,
/// and those that lead to them.
const INTROSPECTION: &str = "
    extend type Query { __schema: __Schema! __type(name: String!): __Type }
    type __Schema {
        types: [__Type!]! queryType: __Type! mutationType: __Type subscriptionType: __Type directives: [__Directive!]!
    }
    type __Type {
        fields(includeDeprecated: Boolean! = false): [__Field!]
        enumValues(includeDeprecated: Boolean! = false): [__EnumValue!]
        inputFields(includeDeprecated: Boolean! = false): [__InputValue!]
        interfaces: [__Type!] possibleTypes: [__Type!] ofType: __Type
    }
    type __Field { args(includeDeprecated: Boolean! = false): [__InputValue!]! type: __Type! }
    type __InputValue { type: __Type! }
    type __EnumValue { name: String! }
    type __Directive { args(includeDeprecated: Boolean! = false): [__InputValue!]! }
";

impl Types {
    /// Those of the schema that `sdl` describes.
    ///
    /// # Errors
    /// Where `sdl` is no schema, or has a scalar that is not known here.
    pub(crate) fn of(sdl: &str) -> Result<Self, String> {
        let mut types = Self::default();
        for name in ["Int", "Float", "String", "Boolean", "ID"] {
            types.add(Name::new(name), TypeKind::Scalar)?;
        }
        for text in [INTROSPECTION, sdl] {
            for definition in parse_schema(text).map_err(|error| error.to_string())?.definitions {
                match definition {
                    TypeSystemDefinition::Type(ty) => types.add(ty.node.name.node, ty.node.kind)?,
                    TypeSystemDefinition::Directive(directive) => {
                        let directive = directive.node;
                        types.directives.insert(
                            directive.name.node,
                            Directive {
                                arguments: inputs(directive.arguments),
                                locations: directive.locations.into_iter().map(|it| it.node).collect(),
                            },
                        );
                    }
                    TypeSystemDefinition::Schema(_) => {}
                }
            }
        }
        Ok(types)
    }

    fn add(&mut self, name: Name, kind: TypeKind) -> Result<(), String> {
        let input = match kind {
            TypeKind::Scalar => {
                let scalar = Scalar::named(&name);
                InputType::Scalar(scalar.ok_or_else(|| format!("the scalar {name} has no rule for input"))?)
            }
            TypeKind::Enum(ty) => {
                InputType::Enum(ty.values.into_iter().map(|value| value.node.value.node).collect())
            }
            TypeKind::InputObject(ty) => InputType::Object(inputs(ty.fields)),
            TypeKind::Object(ty) => {
                let typename = Field { arguments: Inputs::new(), is_list: false, ty: Name::new("String") };
                let fields = self.objects.entry(name).or_default();
                fields.insert(Name::new("__typename"), typename);
                fields.extend(ty.fields.into_iter().map(|field| output(field.node)));
                return Ok(());
            }
            // There are none.
            TypeKind::Interface(_) | TypeKind::Union(_) => return Ok(()),
        };
        self.inputs.insert(name, input);
        Ok(())
    }

    /// The input type of that name.
    pub(crate) fn input(&self, name: &Name) -> Option<&InputType> {
        self.inputs.get(name)
    }

    /// The fields of the object of that name.
    pub(crate) fn object(&self, name: &str) -> Option<&Fields> {
        self.objects.get(name)
    }

    /// The fields of what `field` leads to, if that is an object.
    pub(crate) fn behind(&self, field: &Field) -> Option<&Fields> {
        self.object(&field.ty)
    }

    /// The fields at the top of an operation.
    pub(crate) fn root(&self, kind: OperationType) -> Option<&Fields> {
        self.object(match kind {
            OperationType::Query => "Query",
            OperationType::Mutation => "Mutation",
            OperationType::Subscription => "Subscription",
        })
    }

    /// The directive of that name.
    pub(crate) fn directive(&self, name: &Name) -> Option<&Directive> {
        self.directives.get(name)
    }
}

fn inputs(definitions: Vec<Positioned<InputValueDefinition>>) -> Inputs {
    let inputs = definitions.into_iter().map(|definition| {
        let InputValueDefinition { name, ty, default_value, .. } = definition.node;
        (name.node, Input { ty: ty.node, default: default_value.map(|value| value.node) })
    });
    inputs.collect()
}

fn output(definition: FieldDefinition) -> (Name, Field) {
    let mut base = definition.ty.node.base;
    let is_list = matches!(base, BaseType::List(_));
    let ty = loop {
        match base {
            BaseType::Named(name) => break name,
            BaseType::List(item) => base = item.base,
        }
    };
    (definition.name.node, Field { arguments: inputs(definition.arguments), is_list, ty })
}

impl Input {
    /// Whether it has to be given.
    pub(crate) fn is_required(&self) -> bool {
        !self.ty.nullable && self.default.is_none()
    }
}

impl Scalar {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Int" => Self::Int,
            "Float" => Self::Float,
            "String" => Self::String,
            "Boolean" => Self::Boolean,
            "ID" => Self::Id,
            "UUID" => Self::Uuid,
            "DateTime" => Self::DateTime,
            "Date" => Self::Date,
            _ => return None,
        })
    }

    /// Whether `value` is a literal of it: GraphQL, section 3.5, "Input Coercion". Variables go by this as well, once
    /// what JSON writes differently is put right.
    pub(crate) fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Int, Value::Number(number)) => {
                number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
            }
            (Self::Id, Value::Number(number)) => number.is_i64() || number.is_u64(),
            (Self::Float, Value::Number(_))
            | (Self::String | Self::Id, Value::String(_))
            | (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Uuid, value) => Uuid::is_valid(value),
            (Self::DateTime, value) => DateTime::is_valid(value),
            (Self::Date, value) => Date::is_valid(value),
            _ => false,
        }
    }
}
