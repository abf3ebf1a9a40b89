//! An operation that is being executed, as its resolvers see it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use async_graphql::{Context, ContextBase, PathSegment, parser::types::OperationType};

use super::{draft::Draft, stale::Staleness};
use crate::{
    appointments::operation::Appointments, config::limits::Limits, error::ApiError,
    graphql::pipeline::plan::Plan, response_memory::ResponseMemory,
};

/// What an operation may ask through: none where its caller has no credential, so that there is nothing to ask with.
pub type Access = Result<Appointments, ApiError>;

/// One operation that is being run, as its resolvers see it.
pub(crate) struct Run {
    pub(crate) access: Access,
    pub(crate) plan: Arc<Plan>,
    pub(crate) sequence: Sequence,
    pub(crate) tally: Tally,
    pub(crate) staleness: Staleness,
    /// The answer as far as it is written; of a subscription, the next event.
    pub(crate) draft: Mutex<Draft>,
    pub(crate) memory: ResponseMemory,
}

impl Run {
    pub(crate) fn new(access: Access, plan: Arc<Plan>, limits: &Limits, memory: &ResponseMemory) -> Self {
        let maximum = usize::try_from(limits.answer.as_u64()).unwrap_or(usize::MAX);
        let owner = access.as_ref().ok().map(|appointments| appointments.caller().identity());
        let draft = Draft::new(plan.kind() == OperationType::Mutation, maximum, owner, memory);
        Self {
            access,
            plan,
            sequence: Sequence::default(),
            tally: Tally::default(),
            staleness: Staleness::default(),
            draft: Mutex::new(draft),
            memory: memory.clone(),
        }
    }

    pub(crate) fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of<'a, T>(ctx: &ContextBase<'a, T>) -> &'a Self {
        // Every request is given one.
        ctx.data_unchecked::<Arc<Self>>()
    }

    /// What to ask through.
    pub(crate) fn appointments(&self) -> Result<&Appointments, ApiError> {
        self.access.as_ref().map_err(Clone::clone)
    }

    /// Records that the field that is being resolved serves a value of this `age`: at `index` in a list, if it is one. It has
    /// to be a root field.
    pub(crate) fn note_stale(ctx: &Context<'_>, index: Option<usize>, age: Duration) {
        let field = ctx.field();
        let key = PathSegment::Field(field.alias().unwrap_or_else(|| field.name()).to_owned());
        let path = [key].into_iter().chain(index.map(PathSegment::Index)).collect();
        Self::of(ctx).staleness.note(path, age);
    }
}

/// What the fields of one operation ask for together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ids: Mutex<HashSet<uuid::Uuid>>,
    pub(crate) items: AtomicUsize,
}

/// The changes of one operation, one after the other. Where one fails, its error leaves the operation without data, in
/// which nobody could see what became of those behind it: so they are not sent.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    pub(crate) has_failed: AtomicBool,
}
