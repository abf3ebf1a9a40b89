//! The response of a token endpoint (RFC 6749, section 5.1), decoded leniently: only `access_token` is needed. A member of
//! an unexpected type is ignored, and named in the log.

use std::{collections::HashMap, time::Duration};

use oauth2::{AccessToken, RefreshToken, Scope, TokenResponse, basic::BasicTokenType};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;

/// The maximum lifetime of a token. Adding it to a point in time cannot overflow.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A token response. It never prints the token.
#[derive(Debug, Serialize)]
pub(crate) struct AccessTokenResponse {
    access_token: AccessToken,
    token_type: BasicTokenType,
    /// `None` without a positive number of seconds.
    expires_in: Option<Duration>,
    /// The members that were ignored because of their type.
    ignored: Vec<&'static str>,
}

type Members = HashMap<String, Box<RawValue>>;

impl AccessTokenResponse {
    /// The members that were ignored because of their type.
    pub(crate) fn ignored(&self) -> &[&'static str] {
        &self.ignored
    }

    /// # Errors
    /// The member without which there is no token.
    fn of(members: &Members) -> Result<Self, &'static str> {
        let access_token =
            member(members, "access_token").ok_or("it has no access token: access_token is missing")?;
        let access_token =
            string(access_token).ok_or("it has no access token: access_token is not a string")?;
        if access_token.is_empty() {
            return Err("it has no access token: access_token is empty");
        }
        let mut ignored = Vec::new();
        let token_type = member(members, "token_type").and_then(|member| {
            let name = string(member);
            ignored.extend(name.is_none().then_some("token_type"));
            name
        });
        let expires_in = member(members, "expires_in").and_then(|member| {
            let seconds = seconds(member);
            ignored.extend(seconds.is_none().then_some("expires_in"));
            seconds
        });
        Ok(Self {
            access_token: AccessToken::new(access_token),
            token_type: token_type.map_or(BasicTokenType::Bearer, |name| kind(&name)),
            expires_in: expires_in.and_then(lifetime),
            ignored,
        })
    }
}

/// The member `name`. Null counts as absent.
fn member<'m>(members: &'m Members, name: &str) -> Option<&'m RawValue> {
    members.get(name).map(AsRef::as_ref).filter(|member| member.get() != "null")
}

fn string(member: &RawValue) -> Option<String> {
    serde_json::from_str(member.get()).ok()
}

/// A number in any notation, or a string with one.
fn seconds(member: &RawValue) -> Option<f64> {
    let text = string(member);
    let number = text.as_deref().unwrap_or(member.get()).trim();
    // Infinity and NaN have names in Rust.
    let is_numeric = number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    number.parse().ok().filter(|_| is_numeric)
}

/// Some issuers write 0 or a negative number for tokens without a fixed lifetime.
fn lifetime(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME))
}

/// The type by its name, in any case. Without one, the token is used as the only type that is supported.
fn kind(name: &str) -> BasicTokenType {
    let name = name.trim().to_ascii_lowercase();
    match name.as_str() {
        // The last one is Apigee's.
        "" | "bearer" | "bearertoken" => BasicTokenType::Bearer,
        _ => BasicTokenType::Extension(name),
    }
}

impl<'de> Deserialize<'de> for AccessTokenResponse {
    /// The errors name members and never quote a value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        // Of duplicate members the last one counts.
        let members =
            serde_json::from_str(json.get()).map_err(|_| D::Error::custom("it is not a JSON object"))?;
        Self::of(&members).map_err(D::Error::custom)
    }
}

impl TokenResponse for AccessTokenResponse {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        None
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<AccessTokenResponse, String> {
        serde_json::from_str(json).map_err(|error: serde_json::Error| error.to_string())
    }

    fn expires_in(value: &str) -> (Option<Duration>, bool) {
        let response = read(&format!(r#"{{"access_token":"a","expires_in":{value}}}"#)).unwrap();
        (response.expires_in, response.ignored == ["expires_in"])
    }

    #[test]
    fn any_number_or_numeric_string_is_a_lifetime() {
        for value in
            ["3600", "3600.0", "3.6e3", "36E+2", r#""3600""#, r#"" 3600 ""#, r#""3600.0""#, r#""3.6e3""#]
        {
            assert_eq!(expires_in(value), (Some(Duration::from_secs(3600)), false), "{value}");
        }
        assert_eq!(expires_in("0.25"), (Some(Duration::from_millis(250)), false));
        for value in ["99999999999999999999", "1e300", "1e999", r#""1e999""#] {
            assert_eq!(expires_in(value), (Some(MAX_LIFETIME), false), "{value}");
        }
        for value in ["0", "-1", "-1e999", r#""0""#, "null"] {
            assert_eq!(expires_in(value), (None, false), "{value}");
        }
        for value in ["true", r#""soon""#, r#""""#, r#""NaN""#, "[3600]", r#"{"seconds":3600}"#] {
            assert_eq!(expires_in(value), (None, true), "{value}");
        }
    }

    #[test]
    fn only_a_token_of_another_type_is_no_bearer_token() {
        let kind = |value: &str| {
            let response = read(&format!(r#"{{"access_token":"a","token_type":{value}}}"#)).unwrap();
            (response.token_type, response.ignored == ["token_type"])
        };
        for value in [r#""Bearer""#, r#""bearer""#, r#""BEARER""#, r#""BearerToken""#, r#""""#, "null"] {
            assert_eq!(kind(value), (BasicTokenType::Bearer, false), "{value}");
        }
        for value in ["1", r#"["Bearer"]"#, "true", "{}"] {
            assert_eq!(kind(value), (BasicTokenType::Bearer, true), "{value}");
        }
        assert_eq!(kind(r#""MAC""#), (BasicTokenType::Extension("mac".to_owned()), false));
    }

    #[test]
    fn errors_name_the_member_and_quote_nothing() {
        for (json, fault) in [
            (r#""secret""#, "it is not a JSON object"),
            (r#"["secret"]"#, "it is not a JSON object"),
            ("{}", "it has no access token: access_token is missing"),
            (r#"{"access_token":null,"token":"secret"}"#, "it has no access token: access_token is missing"),
            (r#"{"access_token":["secret"]}"#, "it has no access token: access_token is not a string"),
            (r#"{"access_token":{"secret":1}}"#, "it has no access token: access_token is not a string"),
            (r#"{"access_token":""}"#, "it has no access token: access_token is empty"),
        ] {
            let error = read(json).map(|_| ()).unwrap_err();
            assert!(error.starts_with(fault) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn other_members_may_be_anything() {
        let json = r#"{"scope":["a"],"refresh_token":7,"x":1e999,"y":"\ud800","access_token":"old","access_token":"new",
            "id_token":{}}"#;
        let response = read(json).unwrap();
        assert_eq!((response.access_token.secret().as_str(), response.ignored()), ("new", &[][..]));
        assert!(!format!("{response:?}").contains("new"));
    }

    proptest! {
        #[test]
        fn any_member_is_read_without_a_panic(name in "access_token|token_type|expires_in", value: String, json: String) {
            let _ = read(&json);
            let _ = read(&format!(r#"{{"access_token":"a",{name:?}:{value}}}"#));
            let _ = read(&serde_json::json!({ "access_token": "a", name: value }).to_string());
        }

        #[test]
        fn every_positive_number_is_a_bounded_lifetime(seconds in proptest::num::f64::POSITIVE) {
            for value in [format!("{seconds:e}"), format!("\"{seconds}\"")] {
                let (lifetime, is_ignored) = expires_in(&value);
                prop_assert!(!is_ignored && lifetime.is_none_or(|lifetime| lifetime <= MAX_LIFETIME));
            }
        }
    }
}
