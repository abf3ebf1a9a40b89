//! `sandbox.*`: the built-in upstream.

use crate::sandbox::faults::Faults;

/// `sandbox.*`: the built-in upstream with made-up data.
#[derive(Debug, Clone, Default)]
pub struct SandboxConfig {
    /// `sandbox.enabled`
    pub enabled: bool,
    /// The rest of `sandbox.*`
    pub faults: Faults,
}
