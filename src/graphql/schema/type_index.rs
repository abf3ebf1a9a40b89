//! The types of the gateway's own schema, parsed once from its SDL, for validation, variable coercion, cost and planning.

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

/// The root field with the SDL of the subgraph. It needs no credential, as introspection needs none.
pub(crate) const SERVICE: &str = "_service";

/// The types and the directives of a schema.
#[derive(Debug, Default)]
pub(crate) struct Types {
    inputs: HashMap<Name, InputType>,
    objects: HashMap<Name, OutputFields>,
    /// The only member of each union.
    members: HashMap<Name, Name>,
    directives: HashMap<Name, DirectiveDefinition>,
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
    /// `_Any`, a representation of an entity: any value.
    Any,
}

/// The fields of an input object, or the arguments of a field or of a directive.
pub(crate) type Inputs = IndexMap<Name, Input>;

#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) ty: Type,
    pub(crate) default: Option<Value>,
}

/// The fields of an object.
pub(crate) type OutputFields = HashMap<Name, OutputField>;

#[derive(Debug)]
pub(crate) struct OutputField {
    pub(crate) arguments: Inputs,
    pub(crate) is_list: bool,
    /// The named type, without lists and non-null markers.
    pub(crate) ty: Name,
}

/// A directive. None of the schema's directives is repeatable.
#[derive(Debug)]
pub(crate) struct DirectiveDefinition {
    pub(crate) arguments: Inputs,
    pub(crate) locations: Vec<DirectiveLocation>,
}

/// The part of the introspection schema (specification, section 4.2) that SDL never includes and validation needs: fields
/// with arguments and the fields that lead to them, as async-graphql defines them.
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
    /// Parses the types of `sdl`.
    ///
    /// # Errors
    /// Invalid SDL, or a scalar without input rules.
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
                            DirectiveDefinition {
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
                let typename =
                    OutputField { arguments: Inputs::new(), is_list: false, ty: Name::new("String") };
                let fields = self.objects.entry(name).or_default();
                fields.insert(Name::new("__typename"), typename);
                fields.extend(ty.fields.into_iter().map(|field| output(field.node)));
                return Ok(());
            }
            TypeKind::Union(ty) => {
                // Selections of a union are treated as selections of its member: `collect_fields`, overlap, cost and plan
                // do not compare type conditions.
                let [member] = ty.members.as_slice() else {
                    return Err(format!("the union {name} has several members"));
                };
                self.members.insert(name, member.node.clone());
                return Ok(());
            }
            TypeKind::Interface(_) => return Err(format!("the interface {name} has implementations")),
        };
        self.inputs.insert(name, input);
        Ok(())
    }

    /// The input type of that name.
    pub(crate) fn input(&self, name: &Name) -> Option<&InputType> {
        self.inputs.get(name)
    }

    /// The object type that values of the type `name` have: the member of a union, any other type itself.
    pub(crate) fn concrete<'t>(&'t self, name: &'t Name) -> &'t Name {
        self.members.get(name).unwrap_or(name)
    }

    /// The fields of the object of that name, or of the member of that union.
    pub(crate) fn object(&self, name: &Name) -> Option<&OutputFields> {
        self.objects.get(self.concrete(name))
    }

    /// The fields of the object type that `field` returns, if any.
    pub(crate) fn target_fields(&self, field: &OutputField) -> Option<&OutputFields> {
        self.object(&field.ty)
    }

    /// The root fields of an operation type.
    pub(crate) fn root(&self, kind: OperationType) -> Option<&OutputFields> {
        self.objects.get(match kind {
            OperationType::Query => "Query",
            OperationType::Mutation => "Mutation",
            OperationType::Subscription => "Subscription",
        })
    }

    /// The directive of that name.
    pub(crate) fn directive(&self, name: &Name) -> Option<&DirectiveDefinition> {
        self.directives.get(name)
    }
}

/// Whether a root field describes the schema: it needs no appointments, and no credential.
pub(crate) fn is_schema_field(name: &str) -> bool {
    matches!(name, "__schema" | "__type" | "__typename" | SERVICE)
}

fn inputs(definitions: Vec<Positioned<InputValueDefinition>>) -> Inputs {
    let inputs = definitions.into_iter().map(|definition| {
        let InputValueDefinition { name, ty, default_value, .. } = definition.node;
        (name.node, Input { ty: ty.node, default: default_value.map(|value| value.node) })
    });
    inputs.collect()
}

fn output(definition: FieldDefinition) -> (Name, OutputField) {
    let mut base = definition.ty.node.base;
    let is_list = matches!(base, BaseType::List(_));
    let ty = loop {
        match base {
            BaseType::Named(name) => break name,
            BaseType::List(item) => base = item.base,
        }
    };
    (definition.name.node, OutputField { arguments: inputs(definition.arguments), is_list, ty })
}

impl Input {
    /// Whether a value is required.
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
            "_Any" => Self::Any,
            _ => return None,
        })
    }

    /// Whether `value` is a valid literal of this scalar (specification, section 3.5, "Input Coercion"). Variables are checked
    /// the same way after their coercion from JSON.
    pub(crate) fn accepts(self, value: &Value) -> bool {
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
            (Self::Any, _) => true,
            _ => false,
        }
    }
}
