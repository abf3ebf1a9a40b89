//! What a call is authorised with: the caller's token, or the gateway's own, which may turn out to be worth nothing.

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
    /// Where it is the gateway's own.
    service: Option<(ServiceToken, Arc<Current<Bearer>>)>,
}

impl Authorisation {
    /// For a call of `caller`.
    pub(crate) async fn of(caller: &Caller, service: Option<&ServiceToken>) -> Result<Self, UpstreamError> {
        match (caller.credential(), service) {
            (Credential::Token(token), _) => {
                let mut header = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| UpstreamError::Unauthenticated)?;
                header.set_sensitive(true);
                Ok(Self { header, service: None })
            }
            (Credential::Service, Some(service)) => {
                let current = service.current().await.map_err(UpstreamError::NoServiceToken)?;
                Ok(Self::of_service(service.clone(), current))
            }
            (Credential::Service, None) => {
                Err(UpstreamError::NoServiceToken("there is no client to get one with".into()))
            }
        }
    }

    fn of_service(service: ServiceToken, current: Arc<Current<Bearer>>) -> Self {
        Self { header: current.value.0.clone(), service: Some((service, current)) }
    }

    /// `Bearer …`, as it is sent.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.header.clone()
    }

    /// What to try once more with after a 401, which says that nothing was done: a fresh token of the gateway's own.
    pub(crate) async fn fresh(&self) -> Option<Self> {
        let (service, refused) = self.service.as_ref()?;
        let current = service.newer_than(refused).await?;
        Some(Self::of_service(service.clone(), current))
    }

    /// What a 401 means that stays.
    pub(crate) fn refused(&self) -> UpstreamError {
        match self.service {
            Some(_) => UpstreamError::ServiceTokenRefused,
            None => UpstreamError::Unauthenticated,
        }
    }
}
