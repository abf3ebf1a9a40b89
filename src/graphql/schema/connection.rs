//! The list as a Relay connection (GraphQL Cursor Connections Specification).

use async_graphql::SimpleObject;

use super::cursor::Cursor;
use crate::{appointments::list::Window, graphql::execute::projection::Written, model::Entries};

/// A window of the list of appointments.
#[derive(SimpleObject)]
pub(crate) struct AppointmentConnection {
    /// The appointments with their cursors.
    edges: Entries<AppointmentEdge>,
    /// The appointments alone.
    nodes: Entries<Written>,
    /// Where the window lies in the list.
    page_info: PageInfo,
    /// How long the whole list is. Null where the upstream does not say.
    total_count: Option<i32>,
}

/// An appointment in the list.
#[derive(SimpleObject)]
pub(crate) struct AppointmentEdge {
    /// Its place: what to give as `after` to go on behind it.
    cursor: String,
    /// The appointment.
    node: Written,
}

/// Where a window lies in its list.
#[derive(SimpleObject)]
pub(crate) struct PageInfo {
    /// Whether the list goes on behind the window.
    has_next_page: bool,
    /// Whether there is something before the window.
    has_previous_page: bool,
    /// The cursor of the first in the window; null where there is none.
    start_cursor: Option<String>,
    /// The cursor of the last in the window; null where there is none.
    end_cursor: Option<String>,
}

impl AppointmentConnection {
    /// Of the `window` that began at `start`.
    pub(crate) fn new(start: u64, window: Window) -> Self {
        let Window { items, is_malformed: malformed, last, has_next, total, page_cap, age: _ } = window;
        let cursor = |position| Cursor { position, page_cap }.encode();
        Self {
            page_info: PageInfo {
                has_next_page: has_next,
                has_previous_page: start > 0,
                start_cursor: items.first().map(|(position, _)| cursor(*position)),
                // Of the last place, not of the last appointment: who goes on from there gets past what was left out.
                end_cursor: last.map(cursor),
            },
            total_count: total.and_then(|total| i32::try_from(total).ok()),
            nodes: Entries {
                items: items.iter().map(|(_, node)| Written(node.clone())).collect(),
                malformed,
            },
            edges: Entries {
                items: items
                    .into_iter()
                    .map(|(position, node)| AppointmentEdge { cursor: cursor(position), node: Written(node) })
                    .collect(),
                malformed,
            },
        }
    }
}
