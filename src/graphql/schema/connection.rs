//! The appointment list as a Relay connection (GraphQL Cursor Connections Specification).

use async_graphql::SimpleObject;

use super::cursor::Cursor;
use crate::{appointments::list::Window, graphql::execute::projection::ProjectedAppointment, model::Entries};

/// A page of the appointment list.
#[derive(SimpleObject)]
pub(crate) struct AppointmentConnection {
    /// The appointments with their cursors.
    edges: Entries<AppointmentEdge>,
    /// The appointments without cursors.
    nodes: Entries<ProjectedAppointment>,
    /// The position of the page in the list.
    page_info: PageInfo,
    /// The length of the whole list. Null if the upstream does not report it.
    total_count: Option<i32>,
}

/// An appointment in the list.
#[derive(SimpleObject)]
pub(crate) struct AppointmentEdge {
    /// The position of the appointment. Pass it as `after` to continue behind it.
    cursor: String,
    /// The appointment.
    node: ProjectedAppointment,
}

/// The position of a page in its list.
#[derive(SimpleObject)]
#[graphql(shareable)]
pub(crate) struct PageInfo {
    /// Whether more appointments follow this page.
    has_next_page: bool,
    /// Whether appointments precede this page.
    has_previous_page: bool,
    /// The cursor of the first appointment in the page. Null if the page is empty.
    start_cursor: Option<String>,
    /// The cursor of the last position in the page. Null if the page is empty.
    end_cursor: Option<String>,
}

impl AppointmentConnection {
    /// A connection for the `window` at position `start`.
    pub(crate) fn new(start: u64, window: Window) -> Self {
        let Window { items, is_malformed: malformed, last, has_next, total, page_cap, age: _ } = window;
        let cursor = |position| Cursor { position, page_cap }.encode();
        Self {
            page_info: PageInfo {
                has_next_page: has_next,
                has_previous_page: start > 0,
                start_cursor: items.first().map(|(position, _)| cursor(*position)),
                // The last position, not the last appointment, so that clients move past omitted malformed items.
                end_cursor: last.map(cursor),
            },
            total_count: total.and_then(|total| i32::try_from(total).ok()),
            nodes: Entries {
                items: items.iter().map(|(_, node)| ProjectedAppointment(node.clone())).collect(),
                malformed,
            },
            edges: Entries {
                items: items
                    .into_iter()
                    .map(|(position, node)| AppointmentEdge {
                        cursor: cursor(position),
                        node: ProjectedAppointment(node),
                    })
                    .collect(),
                malformed,
            },
        }
    }
}
