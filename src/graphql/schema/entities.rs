//! The root fields of a subgraph: `_service` and `_entities` (Apollo Federation 2, subgraph specification).

use std::{borrow::Cow, sync::Arc};

use async_graphql::{
    Any, Context, ContextSelectionSet, Object, OutputType, Positioned, ScalarType as _, ServerResult,
    SimpleObject, Value,
    parser::types::Field,
    registry::{MetaType, MetaTypeId, Registry},
};

use super::{
    nullable_appointment::{NullableAppointment, to_field},
    request_limits::RequestLimits,
};
use crate::{
    error::ApiError,
    graphql::execute::{projection::ProjectedAppointment, run::Execution},
    model::{Appointment, Uuid},
};

/// The root field that resolves entities.
pub(crate) const ENTITIES: &str = "_entities";

/// The key of an appointment.
pub(crate) const KEY: &str = "id";

/// The root fields of a subgraph.
#[derive(Debug)]
pub(crate) struct Subgraph {
    limits: RequestLimits,
    /// The SDL that `_service` returns; empty if the schema has no subgraph.
    sdl: Arc<str>,
}

/// The subgraph's description of itself.
#[derive(SimpleObject)]
#[graphql(name = "_Service")]
struct Service {
    /// The schema of this subgraph, with the directives of federation.
    sdl: Arc<str>,
}

/// An entity of this subgraph. Appointments are the only ones.
pub(crate) struct Entity(ProjectedAppointment);

#[Object]
impl Subgraph {
    /// The description of this subgraph for routers and composition.
    #[graphql(name = "_service")]
    async fn service(&self) -> Service {
        Service { sdl: self.sdl.clone() }
    }

    /// The entities with these keys, in the requested order. At most 100 distinct ids. An error for one of them does not
    /// affect the others: an entity that does not exist is null with an error.
    #[graphql(name = "_entities")]
    async fn entities(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The keys: {__typename: \"Appointment\", id: \"…\"}. Duplicates are allowed.")]
        representations: Vec<Any>,
    ) -> Result<Vec<Option<Result<Entity, ApiError>>>, ApiError> {
        let requested = representations.iter().map(|Any(key)| id_of(key)).collect::<Vec<_>>();
        let ids = requested.iter().flatten().copied().collect::<Vec<_>>();
        self.limits.admit(ctx, &ids, requested.len())?;
        let mut outcomes = match Execution::of(ctx).appointments() {
            Ok(appointments) => appointments.get_many(ids).await.into_iter(),
            Err(error) => return Ok(requested.iter().map(|_| Some(Err(error.clone()))).collect()),
        };
        let entity = |(index, id): (usize, Result<_, ApiError>)| {
            let appointment: NullableAppointment = match id {
                Ok(_) => outcomes.next().and_then(|outcome| to_field(ctx, Some(index), outcome)),
                Err(error) => Some(Err(error)),
            };
            Some(appointment.unwrap_or(Err(ApiError::NotFound)).map(Entity))
        };
        Ok(requested.into_iter().enumerate().map(entity).collect())
    }
}

impl Subgraph {
    /// The root fields of the subgraph with this `sdl`.
    pub(crate) fn new(limits: RequestLimits, sdl: Arc<str>) -> Self {
        Self { limits, sdl }
    }
}

/// The appointment's id in a `representation`. Other members are ignored: a router may add some.
///
/// # Errors
/// `BAD_USER_INPUT`, without the values, which may be personal data.
fn id_of(representation: &Value) -> Result<uuid::Uuid, ApiError> {
    let invalid = |text: &str| Err(ApiError::BadUserInput(text.to_owned()));
    let Value::Object(members) = representation else {
        return invalid("A representation is not an object. Send an object with __typename and id.");
    };
    match members.get("__typename") {
        Some(Value::String(name)) if *name == Appointment::type_name() => {}
        Some(_) => {
            return invalid(
                "The representation has an unknown __typename. Appointment is the only entity of this subgraph.",
            );
        }
        None => return invalid("The representation has no __typename. Add __typename: \"Appointment\"."),
    }
    match members.get(KEY) {
        Some(id) => Uuid::parse(id.clone()).map(|id| id.0).or_else(|_| {
            invalid(
                "The id of the representation is not a UUID such as 9a0f170e-0aa0-47db-ab14-4ddcdcbad061.",
            )
        }),
        None => invalid("The representation has no id. Add the id of the appointment."),
    }
}

impl OutputType for Entity {
    fn type_name() -> Cow<'static, str> {
        "_Entity".into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Union, |registry| {
            ProjectedAppointment::create_type_info(registry);
            MetaType::Union {
                name: Self::type_name().into_owned(),
                description: Some("An entity that another subgraph may extend.".to_owned()),
                possible_types: [Appointment::type_name().into_owned()].into_iter().collect(),
                visible: None,
                inaccessible: false,
                tags: Vec::new(),
                rust_typename: Some(std::any::type_name::<Self>()),
                directive_invocations: Vec::new(),
            }
        })
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        self.0.resolve(ctx, field).await
    }
}
