//! A client of the gateway: it lists appointments, reads one, and extends it by five minutes.
//!
//! ```sh
//! cargo run --example rust-client -- [URL] [TOKEN] [ID]
//! ```
//!
//! The defaults are a gateway on its sandbox, and the first appointment of the list.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of a command")]
#![allow(unreachable_pub, reason = "generated types")]

mod client;

use std::{env, process::ExitCode};

use graphql_client::GraphQLQuery;
use uuid::Uuid;

use crate::client::{Client, ClientError, Partial};

// The scalars of the schema. `Uuid` is that of the crate.
type DateTime = String;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema.graphql",
    query_path = "examples/rust-client/appointments.graphql",
    normalization = "rust",
    response_derives = "Debug"
)]
struct Upcoming;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema.graphql",
    query_path = "examples/rust-client/appointments.graphql",
    normalization = "rust",
    response_derives = "Debug"
)]
struct Details;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema.graphql",
    query_path = "examples/rust-client/appointments.graphql",
    normalization = "rust",
    response_derives = "Debug"
)]
struct Extend;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().unwrap_or("http://127.0.0.1:8080/graphql".to_owned());
    let token = arguments.next().unwrap_or("sandbox-all".to_owned());
    match run(&Client::new(url, token), arguments.next()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let Some(pause) = error.retry_after() {
                eprintln!("Try again in {} s.", pause.as_secs());
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(client: &Client, id: Option<String>) -> Result<(), ClientError> {
    let list = complete(client.query::<Upcoming>(upcoming::Variables { first: 3 }).await?).appointments;
    for node in &list.nodes {
        let [start, reference] =
            [&node.appointment_at, &node.reference].map(|text| text.as_deref().unwrap_or("-"));
        println!("{}  {start}  {reference}", node.id);
    }
    if let Some(total) = list.total_count {
        println!("{} of {total} appointments", list.nodes.len());
    }

    let id = match id {
        Some(id) => Uuid::parse_str(&id).map_err(|_| ClientError::Input(format!("{id} is not a UUID.")))?,
        None => {
            list.nodes.first().ok_or_else(|| ClientError::Input("There is no appointment.".to_owned()))?.id
        }
    };
    let details = complete(client.query::<Details>(details::Variables { id }).await?);
    // A null without an error: the appointment does not exist. Errors, such as FORBIDDEN, have been reported above.
    let appointment = details
        .appointment
        .ok_or_else(|| ClientError::Input(format!("There is no appointment {id} to extend.")))?;
    println!("{appointment:#?}");

    let minutes = appointment.duration_in_minutes.unwrap_or_default() + 5;
    let payload =
        complete(client.mutate::<Extend>(extend::Variables { id, minutes }).await?).update_appointment;
    // The input was rejected, and nothing has changed.
    for error in &payload.user_errors {
        eprintln!("{}: {}", error.field.as_deref().unwrap_or_default().join("."), error.message);
    }
    if let Some(minutes) = payload.appointment.and_then(|changed| changed.duration_in_minutes) {
        println!("The appointment now takes {minutes} minutes.");
    }
    Ok(())
}

/// Returns the data, and reports errors beside it: the fields at their paths are null.
fn complete<Data>(partial: Partial<Data>) -> Data {
    for error in &partial.errors {
        eprintln!("incomplete: {error}");
    }
    partial.data
}
