//! The state of one executing operation, shared by its resolvers.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use async_graphql::{Context, ContextBase, PathSegment, parser::types::OperationType};

use super::{draft::Draft, stale::StaleRecorder};
use crate::{
    appointments::operation::Appointments, config::limits::Limits, error::ApiError,
    graphql::pipeline::plan::Plan, response_memory::ResponseMemory,
};

/// Access to appointments on behalf of the caller, or the error of a caller without a valid credential.
pub type Access = Result<Appointments, ApiError>;

/// The state of one executing operation.
pub(crate) struct Execution {
    pub(crate) access: Access,
    pub(crate) plan: Arc<Plan>,
    pub(crate) sequence: MutationSequence,
    /// Shared by the operations of one request.
    pub(crate) requested: Arc<RequestedTotals>,
    pub(crate) stale: StaleRecorder,
    /// The response written so far; for a subscription, the next event.
    pub(crate) draft: Mutex<Draft>,
    pub(crate) memory: ResponseMemory,
}

impl Execution {
    pub(crate) fn new(
        access: Access,
        plan: Arc<Plan>,
        requested: Arc<RequestedTotals>,
        limits: &Limits,
        memory: &ResponseMemory,
    ) -> Self {
        let maximum = usize::try_from(limits.answer.as_u64()).unwrap_or(usize::MAX);
        let owner = access.as_ref().ok().map(|appointments| appointments.caller().identity());
        let draft = Draft::new(plan.kind() == OperationType::Mutation, maximum, owner, memory);
        Self {
            access,
            plan,
            sequence: MutationSequence::default(),
            requested,
            stale: StaleRecorder::default(),
            draft: Mutex::new(draft),
            memory: memory.clone(),
        }
    }

    pub(crate) fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of<'a, T>(ctx: &ContextBase<'a, T>) -> &'a Self {
        // `Operation::into_request` attaches one to each request.
        ctx.data_unchecked::<Arc<Self>>()
    }

    /// The caller's access to appointments.
    pub(crate) fn appointments(&self) -> Result<&Appointments, ApiError> {
        self.access.as_ref().map_err(Clone::clone)
    }

    /// The index of the current root field, equal in all requests with this document, operation and variables.
    pub(crate) fn root_index(ctx: &Context<'_>) -> usize {
        let field = ctx.field();
        // Each field that is resolved is part of the plan.
        Self::of(ctx).plan.shape.index(field.alias().unwrap_or_else(|| field.name())).unwrap_or_default()
    }

    /// Records that the current root field serves stale data of this `age`, at `index` if the field is a list.
    pub(crate) fn record_stale(ctx: &Context<'_>, index: Option<usize>, age: Duration) {
        let field = ctx.field();
        let key = PathSegment::Field(field.alias().unwrap_or_else(|| field.name()).to_owned());
        let path = [key].into_iter().chain(index.map(PathSegment::Index)).collect();
        Self::of(ctx).stale.record(path, age);
    }
}

/// The ids and items that all root fields of one request ask for, in total.
#[derive(Debug, Default)]
pub(crate) struct RequestedTotals {
    pub(crate) ids: Mutex<HashSet<uuid::Uuid>>,
    pub(crate) items: AtomicUsize,
}

/// The serial changes of one operation. A failed change nulls the whole `data`, which would hide the outcome of the
/// changes behind it, so those are skipped.
#[derive(Debug, Default)]
pub(crate) struct MutationSequence {
    pub(crate) has_failed: AtomicBool,
}
