//! Redacted `Debug` output for types that may hold personal data. [`crate::logging`] enforces the rest of the rule.

/// Implements `Debug` with the name of the type only.
macro_rules! opaque_debug {
    ($($name:ident $(<$t:ident>)?),*) => {$(
        /// Names the type only: the fields may hold personal data.
        impl$(<$t>)? std::fmt::Debug for $name$(<$t>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

pub(crate) use opaque_debug;
