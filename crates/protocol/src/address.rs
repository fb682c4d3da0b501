//! Where a peer listens, as text: `HOST:PORT`. It is a hint and no proof of anything; the key it is dialled by is.

/// A host name has at most 253 bytes, a port 5 digits.
const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;

/// Whether a text is a host's name or address with a port, and nothing else.
#[must_use]
pub fn is_host_and_port(text: &str) -> bool {
    text.len() <= ADDRESS_BYTES_MAX
        && text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::is_host_and_port;

    #[test]
    fn hosts_and_ports_are_told_from_other_texts() {
        for right in ["localhost:1", "10.0.0.1:7410", "[::1]:65535", "a-b.c_d:80"] {
            assert!(is_host_and_port(right), "{right}");
        }
        for wrong in
            ["", ":1", "host", "host:", "host:0", "host:65536", "host:+1", "[::g]:1", "a b:1", "a/b:1"]
        {
            assert!(!is_host_and_port(wrong), "{wrong}");
        }
        assert!(!is_host_and_port(&format!("{}:1", "a".repeat(300))));
    }
}
