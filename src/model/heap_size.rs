//! The heap memory of values, by which caches are bounded.

/// The memory that a value owns beside its own size, in bytes.
pub trait HeapSize {
    /// Returns the approximate heap memory.
    fn heap_size(&self) -> usize;
}

/// Defines a struct whose heap memory is that of its fields, so that no field can be left out of it. `FIELDS` are the names
/// of the fields, `LAYOUT` is their names and types.
macro_rules! heap_sized {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ })+) => {$(
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)+ }

        impl $name {
            /// The names of the fields.
            #[cfg(test)]
            #[allow(dead_code, reason = "not every type has a test of its fields")]
            pub(crate) const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// The names and types of the fields, in order.
            #[allow(dead_code, reason = "not every type is encoded")]
            pub(crate) const LAYOUT: &'static str =
                concat!(stringify!($name), "{", $(stringify!($field), ":", stringify!($type), ",",)+ "}");
        }

        impl $crate::model::heap_size::HeapSize for $name {
            fn heap_size(&self) -> usize {
                0 $(+ $crate::model::heap_size::HeapSize::heap_size(&self.$field))+
            }
        }
    )+};
}
pub(crate) use heap_sized;

/// Values without heap memory.
macro_rules! without_heap {
    ($($type:ty),+) => {$(
        impl $crate::model::heap_size::HeapSize for $type {
            fn heap_size(&self) -> usize {
                0
            }
        }
    )+};
}
pub(crate) use without_heap;

without_heap!(bool, i32);

impl HeapSize for Box<str> {
    fn heap_size(&self) -> usize {
        allocation(self.len())
    }
}

/// The memory use of a heap allocation of `bytes`. Allocators round up to multiples of 16 and add a header of 8 bytes.
pub(crate) fn allocation(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}
