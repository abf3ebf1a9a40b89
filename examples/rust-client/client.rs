//! Requests to the gateway and the handling of their errors, for operations of any type.

use std::{fmt, time::Duration};

use graphql_client::{GraphQLQuery, Response};
use serde_json::Value;
use uuid::Uuid;

const MEDIA_TYPE: &str = "application/graphql-response+json";

/// The time for one operation. The gateway returns the data that it has by then, and errors for the rest.
const TIMEOUT: &str = "5s";

/// The longest pause that the gateway may ask for before the client gives up.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The pause before a mutation without an answer is sent again.
const PAUSE_WITHOUT_ANSWER: Duration = Duration::from_secs(1);

/// A client with the token of one user.
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// Data with the errors beside it.
pub struct Partial<Data> {
    pub data: Data,
    pub errors: Vec<OperationError>,
}

/// An error in a response: the message, the path and `extensions` with the code.
#[derive(Debug)]
pub struct OperationError(graphql_client::Error);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The user's input. The text says what to change.
    #[error("{0}")]
    Input(String),
    /// No response.
    #[error("The gateway cannot be reached: {0}")]
    Connection(#[from] reqwest::Error),
    /// A response that is not the gateway's, for example that of a proxy.
    #[error("HTTP status {0} without a GraphQL response")]
    NotGraphql(reqwest::StatusCode),
    /// A response that does not fit the schema that this client was compiled with.
    #[error("The response does not match the schema: {0}")]
    Decoding(#[from] serde_json::Error),
    /// Errors without data.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rejected(Vec<OperationError>),
}

impl Client {
    pub fn new(url: String, token: String) -> Self {
        // The TLS library of this workspace needs a provider. It fails harmlessly if there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { http: reqwest::Client::new(), url, token }
    }

    /// Sends a query, once more after a short `Retry-After`: queries change nothing.
    pub async fn query<Q: GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Partial<Q::ResponseData>, ClientError> {
        let body = serde_json::to_vec(&Q::build_query(variables))?;
        match self.send(&body, None).await {
            Err(error) if error.retry_after().is_some_and(|pause| pause <= MAX_PAUSE) => {
                tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                self.send(&body, None).await
            }
            result => result,
        }
    }

    /// Sends a mutation, once more if the gateway's answer was lost. The gateway recognises the key, and makes the
    /// change once.
    pub async fn mutate<Q: GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Partial<Q::ResponseData>, ClientError> {
        let body = serde_json::to_vec(&Q::build_query(variables))?;
        let key = Uuid::new_v4().to_string();
        match self.send(&body, Some(&key)).await {
            Err(error) if error.is_loss_of_answer() => {
                tokio::time::sleep(PAUSE_WITHOUT_ANSWER).await;
                self.send(&body, Some(&key)).await
            }
            result => result,
        }
    }

    async fn send<Data: serde::de::DeserializeOwned>(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
    ) -> Result<Partial<Data>, ClientError> {
        let mut request = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("accept", MEDIA_TYPE)
            .header("content-type", "application/json")
            .header("x-request-timeout", TIMEOUT)
            .body(body.to_vec());
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await?;
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        if !media_type.is_some_and(|value| value.starts_with(MEDIA_TYPE)) {
            return Err(ClientError::NotGraphql(response.status()));
        }
        // With this media type every status has a GraphQL response, and the codes in it say more than the status.
        let Response { data, errors, .. } = serde_json::from_slice(&response.bytes().await?)?;
        let errors = errors.unwrap_or_default().into_iter().map(OperationError).collect();
        match data {
            Some(data) => Ok(Partial { data, errors }),
            None => Err(ClientError::Rejected(errors)),
        }
    }
}

impl ClientError {
    /// Whether the gateway may have handled the request without an answer that arrived: the connection was lost, or a
    /// proxy answered in its place.
    fn is_loss_of_answer(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::NotGraphql(status) => matches!(status.as_u16(), 502..=504),
            _ => false,
        }
    }

    /// The pause that the gateway asks for, of a rate limit or an overload.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Rejected(errors) = self else { return None };
        errors
            .iter()
            .filter_map(|error| error.extension("retryAfterSeconds")?.as_u64())
            .max()
            .map(Duration::from_secs)
    }
}

impl OperationError {
    fn extension(&self, name: &str) -> Option<&Value> {
        self.0.extensions.as_ref()?.get(name)
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Programs decide by the code. The message is for people.
        let code = self.extension("code").and_then(Value::as_str).unwrap_or("UNKNOWN");
        if let Some(path) = &self.0.path {
            let path = path.iter().map(ToString::to_string).collect::<Vec<_>>();
            write!(formatter, "{}: ", path.join("."))?;
        }
        write!(formatter, "{} ({code})", self.0.message)?;
        if code == "OUTCOME_UNKNOWN" {
            write!(formatter, " Read the appointment before you change it again.")?;
        }
        Ok(())
    }
}
