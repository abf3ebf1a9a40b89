//! The keys of cached and shared copies. The caller's scope is a part of each, so no two scopes have a key in common.

use uuid::Uuid;

use crate::{cache::store::Key, caller::Scope};

/// An appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AppointmentKey {
    pub(crate) scope: Scope,
    pub(crate) id: Uuid,
}

/// A page of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    pub(crate) scope: Scope,
    /// Counted from 0.
    pub(crate) page: u64,
    pub(crate) per_page: u32,
}

impl Key for AppointmentKey {
    fn scope(&self) -> Scope {
        self.scope
    }
}

impl Key for PageKey {
    fn scope(&self) -> Scope {
        self.scope
    }
}
