//! The state that all handlers share.

use super::{access::Access, faults::Draws, store::Store};

/// Everything that the handlers share.
pub(crate) struct Sandbox {
    pub(crate) access: Access,
    pub(crate) faults: Draws,
    pub(crate) store: Store,
}
