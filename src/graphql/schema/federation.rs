//! The subgraph of a federated graph (`graphql.federation`; Apollo Federation 2, subgraph specification): its schema with and
//! without the directives of federation. [`entities`](super::entities) has the resolvers.
//!
//! async-graphql offers the root fields as soon as a type has a key, but its `_entities` fails the whole list with one entity.
//! The fields are therefore part of the query root, and no type of an executing schema has a key. The schema
//! that [describes](subgraph_sdl) the subgraph has keys and executes nothing.

use std::{borrow::Cow, marker::PhantomData};

use async_graphql::{
    ContextSelectionSet, OutputType, Positioned, SDLExportOptions, SchemaBuilder, ServerResult, Value,
    parser::types::Field,
    registry::{MetaType, Registry},
};

use super::{
    entities::{ENTITIES, KEY},
    mutation::Mutation,
    query::Query,
    subscription::Subscription,
    type_index::SERVICE,
};
use crate::model::Appointment;

/// The types that only the root fields of a subgraph use.
const FEDERATION_TYPES: [&str; 3] = ["_Any", "_Entity", "_Service"];

type Builder = SchemaBuilder<Query, Mutation, Subscription>;

/// The schema without the subgraph's fields and types.
pub(crate) fn without_subgraph(schema: Builder) -> Builder {
    schema.register_output_type::<Edited<Removal>>()
}

/// The SDL of the subgraph that `schema` serves.
pub(crate) fn subgraph_sdl(schema: Builder) -> String {
    let schema = schema.register_output_type::<Edited<Keys>>().enable_subscription_in_federation().finish();
    schema.sdl_with_options(SDLExportOptions::new().federation().include_specified_by())
}

/// A change to the types of a schema that is being built.
trait Edit: Send + Sync {
    fn apply(types: &mut Registry);
}

/// The form in which a schema builder accepts an [`Edit`]: an output type that changes others when it is registered.
struct Edited<E>(PhantomData<E>);

impl<E: Edit> OutputType for Edited<E> {
    fn type_name() -> Cow<'static, str> {
        Query::type_name()
    }

    fn create_type_info(types: &mut Registry) -> String {
        E::apply(types);
        Self::qualified_type_name()
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        // No field has this type.
        Ok(Value::Null)
    }
}

/// Removes the subgraph.
struct Removal;

impl Edit for Removal {
    fn apply(registry: &mut Registry) {
        registry.types.retain(|name, _| !FEDERATION_TYPES.contains(&name.as_str()));
        if let Some(MetaType::Object { fields, .. }) = registry.types.get_mut(&*Query::type_name()) {
            fields.retain(|name, _| name != SERVICE && name != ENTITIES);
        }
    }
}

/// Adds the keys of the entities.
struct Keys;

impl Edit for Keys {
    fn apply(registry: &mut Registry) {
        registry.add_keys(&Appointment::type_name(), KEY);
    }
}
