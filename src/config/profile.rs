//! The two sets of defaults: development and production.

use super::key::ConfigKey;

/// A set of defaults. Every other layer of the configuration overrides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// GraphiQL, introspection, metrics and human-readable logs are enabled.
    #[default]
    Development,
    /// Only the API is exposed. The limits fit mobile apps and their backends: twenty appointments by id with all fields,
    /// or a list of a hundred.
    Production,
}

/// The keys with another default in production, in the order of [`KEYS`](crate::config::keys::KEYS).
const PRODUCTION: &[(&str, &str)] = &[
    ("websocket.max_message", "64KiB"),
    ("limits.body", "64KiB"),
    ("limits.query", "32KiB"),
    ("limits.tokens", "2000"),
    ("limits.depth", "15"),
    ("limits.fields", "1500"),
    ("limits.root_fields", "25"),
    ("limits.aliases", "25"),
    ("limits.directives", "20"),
    ("limits.cost", "20000"),
    ("limits.errors", "5"),
    ("limits.items", "300"),
    ("rate_limit.per_second", "100"),
    ("graphql.introspection", "false"),
    ("graphql.suggestions", "false"),
    ("graphiql.enabled", "false"),
    ("metrics.enabled", "false"),
    ("log.format", "json"),
];

impl ConfigKey {
    /// Returns the default in production if it differs from development.
    pub fn production(&self) -> Option<&'static str> {
        PRODUCTION.iter().find(|(name, _)| *name == self.name).map(|(_, value)| *value)
    }

    /// Returns the default in `profile`.
    pub fn default_in(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Development => self.default,
            Profile::Production => self.production().unwrap_or(self.default),
        }
    }
}

impl Profile {
    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn production_defaults_belong_to_known_keys_and_differ() {
        let overridden: Vec<_> = KEYS.iter().filter_map(|key| Some((key.name, key.production()?))).collect();
        assert_eq!(overridden, PRODUCTION, "known keys, in their order");
        assert!(KEYS.iter().all(|key| key.production() != Some(key.default)));
    }
}
