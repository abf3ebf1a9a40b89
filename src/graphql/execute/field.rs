//! Output of the model's lenient values: null for an absent value, null with an error at its path for a malformed one.

use std::borrow::Cow;

use async_graphql::{
    ContextSelectionSet, OutputType, Positioned, ServerError, ServerResult, Value,
    parser::types::Field as Selection, registry::Registry,
};

use crate::{
    error::ApiError,
    model::{Entries, Field},
};

impl<T: OutputType> OutputType for Field<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn qualified_type_name() -> String {
        Option::<T>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Option::<T>::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        selection: &Positioned<Selection>,
    ) -> ServerResult<Value> {
        match self {
            Self::Value(value) => value.resolve(ctx, selection).await,
            Self::Absent => Ok(Value::Null),
            Self::Malformed => {
                report(ctx, selection, malformed_value());
                Ok(Value::Null)
            }
        }
    }
}

impl<T: OutputType> OutputType for Entries<T> {
    fn type_name() -> Cow<'static, str> {
        Vec::<T>::type_name()
    }

    fn qualified_type_name() -> String {
        Vec::<T>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<T>::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        selection: &Positioned<Selection>,
    ) -> ServerResult<Value> {
        if self.malformed {
            report(ctx, selection, malformed_list());
        }
        self.items.resolve(ctx, selection).await
    }
}

/// The error of a malformed value, which is served as null.
pub(crate) fn malformed_value() -> ServerError {
    ApiError::UpstreamInvalidResponse("The appointments service sent a value of an unexpected type.").into()
}

/// The error of a list with missing entries.
pub(crate) fn malformed_list() -> ServerError {
    let text = "The appointments service sent a malformed list. Malformed entries are omitted.";
    ApiError::UpstreamInvalidResponse(text).into()
}

fn report(ctx: &ContextSelectionSet<'_>, selection: &Positioned<Selection>, mut error: ServerError) {
    error.locations = vec![selection.pos];
    ctx.add_error(ctx.set_error_path(error));
}
