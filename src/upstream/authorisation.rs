//! The `Authorization` header of a call: the caller's token, or the gateway's own.

use std::sync::Arc;

use reqwest::header::HeaderValue;

use super::{
    error::UpstreamError,
    service_token::{Bearer, ServiceToken},
};
use crate::{
    caller::{Caller, Credential},
    refresh::Current,
};

/// The `Authorization` header of a call.
pub(crate) struct Authorisation {
    header: HeaderValue,
    /// The source of the token, if it is the gateway's own.
    service: Option<(ServiceToken, Arc<Current<Bearer>>)>,
}

impl Authorisation {
    /// Returns the header for a call of `caller`. Waits for the first service token.
    pub(crate) async fn of(caller: &Caller, service: Option<&ServiceToken>) -> Result<Self, UpstreamError> {
        match (caller.credential(), service) {
            (Credential::Token(token), _) => {
                // Never fails: tokens that a header cannot hold are rejected before.
                let mut header =
                    HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| UpstreamError::Lost)?;
                header.set_sensitive(true);
                Ok(Self { header, service: None })
            }
            (Credential::Service, Some(service)) => {
                let current = service.current().await.map_err(UpstreamError::NoServiceToken)?;
                Ok(Self::of_service(service.clone(), current))
            }
            (Credential::Service, None) => {
                Err(UpstreamError::NoServiceToken("no OAuth client is configured".into()))
            }
        }
    }

    fn of_service(service: ServiceToken, current: Arc<Current<Bearer>>) -> Self {
        Self { header: current.value.0.clone(), service: Some((service, current)) }
    }

    /// The header value, `Bearer …`.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Returns a newer service token after a 401; `None` for a caller's token, or if no newer token is available.
    pub(crate) async fn renewed(&self) -> Option<Self> {
        let (service, rejected) = self.service.as_ref()?;
        let current = service.newer_than(rejected).await?;
        Some(Self::of_service(service.clone(), current))
    }

    /// The error for a 401 that is final.
    pub(crate) fn rejected(&self) -> UpstreamError {
        match self.service {
            Some(_) => UpstreamError::ServiceTokenRefused,
            None => UpstreamError::Unauthenticated,
        }
    }
}
