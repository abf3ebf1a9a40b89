//! `http.*`: the HTTP server.

use std::{fmt, time::Duration};

use bytesize::ByteSize;

/// `http.statuses`: the edition of GraphQL over HTTP that determines the statuses of responses in
/// `application/graphql-response+json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StatusEdition {
    /// September 2026
    #[default]
    Edition2026,
    /// The drafts up to 2025.
    Edition2025,
}

/// `http.client_cache`: the HTTP caching that clients are permitted for responses to GET.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCache {
    /// Clients must not store responses.
    Off,
    /// Clients revalidate their copy before each use.
    #[default]
    Validate,
    /// Clients need no revalidation while the data behind a response is fresh.
    Fresh,
}

/// `http.*`: statuses, CORS, connections, timeouts and graceful shutdown.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// `http.path`
    pub path: GraphqlPath,
    /// `http.statuses`
    pub statuses: StatusEdition,
    /// `http.client_cache`
    pub client_cache: ClientCache,
    /// `http.origins`, each as in the `Origin` header of a browser
    pub origins: Vec<String>,
    /// `http.cors_headers`, in lower case
    pub cors_headers: Vec<String>,
    /// `http.compression`
    pub compression: bool,
    /// `http.deadline`
    pub deadline: Duration,
    /// `http.max_connections`
    pub max_connections: usize,
    /// `http.write_timeout`
    pub write_timeout: Duration,
    /// `http.send_timeout`
    pub send_timeout: Duration,
    /// `http.max_response_memory`
    pub max_response_memory: ByteSize,
    /// `http.header_timeout`
    pub header_timeout: Duration,
    /// `http.idle_timeout`
    pub idle_timeout: Duration,
    /// `http.body_timeout`
    pub body_timeout: Duration,
    /// `http.drain_delay`
    pub drain_delay: Duration,
    /// `http.drain_deadline`
    pub drain_deadline: Duration,
}

/// The path of the GraphQL endpoint. Below it is a resource for each persisted document: `/graphql/<id>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphqlPath {
    endpoint: String,
    /// The common name of the paths below it.
    document_route: String,
}

/// The other paths of the gateway. GraphiQL is at `/`.
const RESERVED: [&str; 6] =
    ["/assets", "/graphiql.json", "/livez", "/metrics", "/readyz", "/THIRD-PARTY-LICENSES.txt"];

impl GraphqlPath {
    /// Parses a path. A trailing slash has no meaning.
    ///
    /// # Errors
    /// The problem and its remedy.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('/').filter(|path| !path.is_empty() && *path != "/").unwrap_or(text);
        let is_valid = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        let segments =
            path.strip_prefix('/').ok_or("does not begin with a slash; write a path such as /graphql")?;
        if path != "/" && !segments.split('/').all(is_valid) {
            return Err(
                "is not a plain path; write segments of letters, digits and -._~, such as /api/graphql"
                    .to_owned(),
            );
        }
        if RESERVED.iter().any(|reserved| path == *reserved || path.starts_with(&format!("{reserved}/"))) {
            return Err(
                "is the path of another resource of the gateway; write another path, such as /graphql"
                    .to_owned(),
            );
        }
        let document_route = format!("{}/{{id}}", path.trim_end_matches('/'));
        Ok(Self { endpoint: path.to_owned(), document_route })
    }

    /// Whether a request for `path` is one for the endpoint. A trailing slash is accepted.
    fn is_endpoint(&self, path: &str) -> bool {
        path == self.endpoint || path.strip_suffix('/') == Some(&self.endpoint)
    }

    /// The id of the persisted document at `path`, percent-encoded. A trailing slash is accepted.
    pub(crate) fn encoded_id<'p>(&self, path: &'p str) -> Option<&'p str> {
        let below = path.strip_prefix(self.endpoint.trim_end_matches('/'))?;
        let segment = below.strip_prefix('/')?;
        let segment = segment.strip_suffix('/').unwrap_or(segment);
        let is_segment = !segment.is_empty() && !segment.contains('/');
        let is_reserved = || self.is_root() && RESERVED.iter().any(|reserved| reserved[1..] == *segment);
        (is_segment && !is_reserved()).then_some(segment)
    }

    /// Whether a request for `path` is one for the endpoint, or for a persisted document below it.
    pub fn matches(&self, path: &str) -> bool {
        self.is_endpoint(path) || self.encoded_id(path).is_some()
    }

    /// The route of `path`, if it matches: the same for all persisted documents.
    pub(crate) fn route(&self, path: &str) -> Option<&str> {
        match self.encoded_id(path) {
            Some(_) => Some(&self.document_route),
            None => self.is_endpoint(path).then_some(&self.endpoint),
        }
    }

    /// The path, without a trailing slash except in `/`.
    pub fn as_str(&self) -> &str {
        &self.endpoint
    }

    /// Whether this is the path of GraphiQL.
    pub(crate) fn is_root(&self) -> bool {
        self.endpoint == "/"
    }
}

impl fmt::Display for GraphqlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_plain_segments_and_is_not_reserved() {
        for (text, path) in [
            ("/graphql", "/graphql"),
            ("/graphql/", "/graphql"),
            ("/api/v1.0/gql", "/api/v1.0/gql"),
            ("/", "/"),
        ] {
            assert_eq!(GraphqlPath::parse(text).map(|path| path.to_string()), Ok(path.to_owned()), "{text}");
        }
        for text in [
            "",
            "graphql",
            "//",
            "/a//b",
            "/a//",
            "/.",
            "/a/../b",
            "/a b",
            "/a?b",
            "/a%20b",
            "/é",
            "/livez",
            "/livez/",
            "/metrics/x",
            "/assets/graphql",
            "https://a/graphql",
        ] {
            assert!(GraphqlPath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_trailing_slash_of_a_request_is_accepted() {
        let path = GraphqlPath::parse("/api/graphql").unwrap();
        assert!(path.matches("/api/graphql") && path.matches("/api/graphql/"));
        for other in ["/api/graphql//", "/api", "/api/", "/api/graphqls", "/API/graphql", "/", ""] {
            assert!(!path.matches(other), "{other}");
        }
        assert!(GraphqlPath::parse("/").unwrap().matches("/"));
    }

    #[test]
    fn one_segment_below_the_endpoint_is_an_id() {
        let path = GraphqlPath::parse("/api/graphql").unwrap();
        for (request, id) in [
            ("/api/graphql/abc", Some("abc")),
            ("/api/graphql/abc/", Some("abc")),
            ("/api/graphql/sha256:abc", Some("sha256:abc")),
            ("/api/graphql/a%2Fb", Some("a%2Fb")),
            ("/api/graphql/livez", Some("livez")),
            ("/api/graphql", None),
            ("/api/graphql/", None),
            ("/api/graphql//", None),
            ("/api/graphql//a", None),
            ("/api/graphql/a/b", None),
            ("/api/graphql/a//", None),
            ("/api/graphqla", None),
            ("/abc", None),
        ] {
            assert_eq!(path.encoded_id(request), id, "{request}");
            let route = match request {
                "/api/graphql" | "/api/graphql/" => Some("/api/graphql"),
                _ => id.map(|_| "/api/graphql/{id}"),
            };
            assert_eq!(path.route(request), route, "{request}");
        }
        let root = GraphqlPath::parse("/").unwrap();
        for (request, id) in
            [("/abc", Some("abc")), ("/", None), ("//", None), ("/livez", None), ("/a/b", None)]
        {
            assert_eq!(root.encoded_id(request), id, "{request}");
        }
        assert_eq!((root.route("/"), root.route("/abc")), (Some("/"), Some("/{id}")));
    }
}
