/** Stands where an id belongs as long as nobody knows one. */
const UNKNOWN_ID = '00000000-0000-0000-0000-000000000000';

/**
 * The operations that the page opens with, one a tab, which GraphiQL titles by the operation's name. `variables` makes
 * them of the ids that exist on the sandbox: the first an ordinary appointment, then others of different shapes.
 */
export const examples = [
  {
    query: `
# Welcome! The play button, or Ctrl-Enter, runs
# this operation. Its variables are below and,
# beside them, the headers with your token.
#
# One appointment, as a mobile screen shows it.
query MobileScreen($id: UUID!) {
  appointment(id: $id) {
    id
    reference
    phase
    appointmentAt
    endsAt
    durationInMinutes
    claimant {
      name
    }
    meeting {
      roomName
      roomUrl
    }
  }
}`,
    variables: ([id = UNKNOWN_ID]) => ({ id }),
  },
  {
    query: `
# Several in one request, in the order asked.
# An id that nobody knows is null; the others
# come all the same.
query SeveralByIds($ids: [UUID!]!) {
  appointmentsByIds(ids: $ids) {
    id
    reference
    status
    phase
    appointmentAt
    interpreterLanguage
    department {
      name
    }
    claimant {
      name
    }
  }
}`,
    variables: (ids) => ({ ids: ids.length > 0 ? ids : [UNKNOWN_ID] }),
  },
  {
    query: `
# What a call screen asks before it draws its
# buttons: single flags by name, or all of them
# as a list, here those that are on.
query FeatureScreen($id: UUID!) {
  appointment(id: $id) {
    id
    phase
    features {
      webcamAccessClaimant
      microphoneAccess
      screenSharing
      bandwidth
      all(enabled: true) {
        name
        enabled
      }
    }
  }
}`,
    variables: ([id = UNKNOWN_ID]) => ({ id }),
  },
  {
    query: `
# The list, ten at a time. To go on, put the
# endCursor of the answer into the variables,
# as "after".
query List($after: String) {
  appointments(first: 10, after: $after) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    edges {
      cursor
      node {
        id
        reference
        phase
        appointmentAt
      }
    }
  }
}`,
    variables: () => ({ after: null }),
  },
  {
    query: `
# A change: of made-up data on the sandbox, of
# a real appointment anywhere else, so take
# care there. What the input leaves out stays
# as it is, and what is wrong with it comes as
# userErrors.
mutation Change(
  $id: UUID!
  $input: UpdateAppointmentInput!
) {
  updateAppointment(id: $id, input: $input) {
    appointment {
      id
      durationInMinutes
      endsAt
    }
    userErrors {
      field
      message
    }
  }
}`,
    variables: ([id = UNKNOWN_ID]) => ({ id, input: { durationInMinutes: 50 } }),
  },
  {
    query: `
# Live: the appointment as it is, then again
# each time that it changes, until you stop it.
#
# Play this. Then open this page in a second
# tab of your browser, play Change there with
# other minutes, come back and see. (GraphiQL's
# own tabs will not do: to leave one is to stop
# what it plays.)
subscription Live($id: UUID!) {
  appointmentChanged(id: $id) {
    id
    phase
    durationInMinutes
    appointmentAt
    endsAt
    sessionStartedAt
    sessionEndedAt
  }
}`,
    variables: ([id = UNKNOWN_ID]) => ({ id }),
  },
];
