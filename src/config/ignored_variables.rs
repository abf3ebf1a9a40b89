//! Environment variables that look like settings but are not: those that Kubernetes injects for a Service whose name
//! begins with `gateway`, and the proxy variables of other programs.

use std::net::{IpAddr, SocketAddr};

/// The names of the ignored variables in the environment.
#[derive(Debug, Clone, Default)]
pub struct IgnoredVariables {
    /// Variables of Kubernetes Services.
    pub(crate) service_links: Vec<String>,
    /// Proxy variables.
    pub(crate) proxies: Vec<String>,
}

const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Whether programs commonly read the address of a proxy from the variable `name`.
pub(crate) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// Whether Kubernetes injects the variable for a Service named `gateway` or `gateway-…`. The value is checked too, so that
/// a variable such as `GATEWAY_PORT=8080`, which is a mistake, is not ignored.
pub(crate) fn is_service_link(name: &str, value: &str) -> bool {
    // The name of the Service ends before one of the underscores.
    let rest = name.strip_prefix("GATEWAY").filter(|rest| rest.starts_with('_')).unwrap_or_default();
    rest.match_indices('_').any(|(at, _)| is_link(&rest[at + 1..], value))
}

/// Whether `value` has the form of the variable whose name is that of the Service, an underscore and `suffix`.
fn is_link(suffix: &str, value: &str) -> bool {
    let is_ip = || value.parse::<IpAddr>().is_ok();
    let is_port = || value.parse::<u16>().is_ok_and(|port| port > 0);
    match suffix {
        "SERVICE_HOST" => return is_ip(),
        "SERVICE_PORT" => return is_port(),
        "PORT" => return is_endpoint(value),
        _ => {}
    }
    if let Some(port_name) = suffix.strip_prefix("SERVICE_PORT_") {
        return !port_name.is_empty() && is_port();
    }
    let Some(rest) = suffix.strip_prefix("PORT_") else { return false };
    let parts: Vec<_> = rest.split('_').collect();
    let [port, protocol, member @ ..] = parts.as_slice() else { return false };
    let is_known = PROTOCOLS.iter().any(|known| known.to_uppercase() == **protocol);
    is_known
        && port.parse::<u16>().is_ok()
        && match member {
            [] => is_endpoint(value),
            ["PROTO"] => PROTOCOLS.contains(&value),
            ["PORT"] => value == *port,
            ["ADDR"] => is_ip(),
            _ => false,
        }
}

/// Whether `value` is a URL such as `tcp://10.0.0.1:8080`.
fn is_endpoint(value: &str) -> bool {
    value.split_once("://").is_some_and(|(protocol, address)| {
        PROTOCOLS.contains(&protocol) && address.parse::<SocketAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::keys::KEYS;

    /// The variables that Kubernetes injects for a Service with one port.
    fn variables(service: &str, ip: &str, port: u16, protocol: &str) -> Vec<(String, String)> {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let url = format!("{protocol}://{host}:{port}");
        let of_port = format!("PORT_{port}_{}", protocol.to_uppercase());
        [
            ("SERVICE_HOST", ip.to_owned()),
            ("SERVICE_PORT", port.to_string()),
            ("SERVICE_PORT_HTTP_ADMIN", port.to_string()),
            ("PORT", url.clone()),
            (&of_port, url),
            (&format!("{of_port}_PROTO"), protocol.to_owned()),
            (&format!("{of_port}_PORT"), port.to_string()),
            (&format!("{of_port}_ADDR"), ip.to_owned()),
        ]
        .map(|(suffix, value)| (format!("{service}_{suffix}"), value))
        .to_vec()
    }

    #[test]
    fn values_of_another_form_are_not_service_links() {
        for (name, value) in [
            ("GATEWAY_PORT", "8080"),
            ("GATEWAY_PORT", "tcp://gateway:8080"),
            ("GATEWAY_PORT", "http://10.0.0.1:8080"),
            ("GATEWAY_SERVICE_HOST", "gateway.example"),
            ("GATEWAY_SERVICE_PORT", "0"),
            ("GATEWAY_SERVICE_PORT_", "80"),
            ("GATEWAY_PORT_8080_TCP_PORT", "8081"),
            ("GATEWAY_PORT_8080_HTTP", "tcp://10.0.0.1:8080"),
            ("GATEWAY_PORT_HTTP_TCP", "tcp://10.0.0.1:8080"),
            ("GATEWAY_HOST", "10.0.0.1"),
            ("GATEWAYS_SERVICE_HOST", "10.0.0.1"),
            ("GATEWAY", "tcp://10.0.0.1:8080"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn no_key_is_named_like_a_service_link() {
        for key in KEYS {
            for value in ["10.0.0.1", "80", "tcp", "tcp://10.0.0.1:80"] {
                assert!(!is_service_link(&key.variable(), value), "{}", key.name);
            }
        }
    }

    proptest! {
        #[test]
        fn all_variables_of_a_service_are_recognised(
            service in "GATEWAY(_[A-Z0-9]{1,8}){0,3}",
            ip: IpAddr,
            port in 1_u16..,
            protocol in prop::sample::select(&PROTOCOLS[..]),
        ) {
            for (name, value) in variables(&service, &ip.to_string(), port, protocol) {
                prop_assert!(is_service_link(&name, &value), "{}={}", name, value);
            }
        }

        #[test]
        fn any_variable_is_read_without_a_panic(name: String, rest: String, value: String) {
            is_service_link(&name, &value);
            is_service_link(&format!("GATEWAY_{rest}"), &value);
        }
    }
}
