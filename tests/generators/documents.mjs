// The documents of an app: a query with a fragment, a list, a change and a subscription.

/** The definitions, with names that begin with `prefix`, for a claimant's `field`. */
export const documents = (prefix, field = 'name') => [
  `fragment ${prefix}_parts on Appointment { id reference status claimant { ${field} } }`,
  `query ${prefix}AppointmentQuery($id: UUID!) { appointment(id: $id) { ...${prefix}_parts } }`,
  `query ${prefix}ListQuery($first: Int = 2, $after: String) {
    appointments(first: $first, after: $after) { nodes { ...${prefix}_parts } pageInfo { hasNextPage endCursor } }
  }`,
  `mutation ${prefix}CancelMutation($id: UUID!) {
    cancelAppointment(id: $id) { appointment { id status } userErrors { message } }
  }`,
  `subscription ${prefix}ChangedSubscription($id: UUID!) { appointmentChanged(id: $id) { ...${prefix}_parts } }`,
];
