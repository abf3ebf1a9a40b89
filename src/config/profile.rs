//! The two sets of defaults: one for a laptop, one for production.

use super::key::Key;

/// Which defaults there are. A key that is set anywhere beats them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A newcomer sees everything: GraphiQL, the schema, metrics, words for people.
    #[default]
    Development,
    /// Nothing is shown that a client does not need, and limits fit what mobile apps and their backends ask for: twenty
    /// appointments by name with all their fields, or a hundred by one list.
    Production,
}

/// The keys whose default in production is another one, in the order of [`KEYS`](crate::config::keys::KEYS).
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

impl Key {
    /// The default in production, where it is another one.
    pub fn production(&self) -> Option<&'static str> {
        PRODUCTION.iter().find(|(name, _)| *name == self.name).map(|(_, value)| *value)
    }

    /// The default in `profile`.
    pub fn default_in(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Development => self.default,
            Profile::Production => self.production().unwrap_or(self.default),
        }
    }
}

impl Profile {
    /// Its name in the configuration.
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
    fn each_strict_value_is_that_of_a_key_and_another_than_in_development() {
        let of_keys: Vec<_> = KEYS.iter().filter_map(|key| Some((key.name, key.production()?))).collect();
        assert_eq!(of_keys, PRODUCTION, "known keys, in their order");
        assert!(KEYS.iter().all(|key| key.production() != Some(key.default)));
    }
}
