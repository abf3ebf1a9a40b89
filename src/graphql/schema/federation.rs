//! The schema of the subgraph (`graphql.federation`; Apollo Federation 2, subgraph specification), and its SDL.
//! [`entities`](super::entities) has the resolvers.
//!
//! async-graphql adds the root fields of a subgraph once a type has a key, but its `_entities` fails the whole list if
//! one entity fails. The fields are therefore part of the query root, and no type of the executable schema has a key. A
//! second schema has keys and only serves to print the [SDL](subgraph_sdl).

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
    schema.register_output_type::<RegistryHook<SubgraphRemoval>>()
}

/// The SDL of the subgraph that `schema` serves.
pub(crate) fn subgraph_sdl(schema: Builder) -> String {
    let schema = schema.register_output_type::<RegistryHook<EntityKeys>>();
    let schema = schema.enable_subscription_in_federation().finish();
    schema.sdl_with_options(SDLExportOptions::new().federation().include_specified_by())
}

/// A change to the type registry of a schema under construction.
trait RegistryEdit: Send + Sync {
    fn apply(registry: &mut Registry);
}

/// Applies a [`RegistryEdit`]. A schema builder accepts only output types, so this one edits the registry when it is
/// registered.
struct RegistryHook<E>(PhantomData<E>);

impl<E: RegistryEdit> OutputType for RegistryHook<E> {
    fn type_name() -> Cow<'static, str> {
        Query::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        E::apply(registry);
        Self::qualified_type_name()
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        // No field has this type.
        Ok(Value::Null)
    }
}

/// Removes the fields and types of the subgraph.
struct SubgraphRemoval;

impl RegistryEdit for SubgraphRemoval {
    fn apply(registry: &mut Registry) {
        registry.types.retain(|name, _| !FEDERATION_TYPES.contains(&name.as_str()));
        if let Some(MetaType::Object { fields, .. }) = registry.types.get_mut(&*Query::type_name()) {
            fields.retain(|name, _| name != SERVICE && name != ENTITIES);
        }
    }
}

/// Adds the keys of the entities.
struct EntityKeys;

impl RegistryEdit for EntityKeys {
    fn apply(registry: &mut Registry) {
        registry.add_keys(&Appointment::type_name(), KEY);
    }
}
