//! Addresses in the configuration: `HOST:PORT`, with a name or an IP address as the host.
//!
//! Promises that what is no address is refused with the mistake that was made, and that a name is
//! resolved once, when the configuration is loaded. Must not know which key an address belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The longest host name (the bound of DNS).
const HOST_BYTES_MAX: usize = 253;

/// The address that `text` names. A name is resolved now; of several addresses, one of IPv4 is
/// taken, because the default addresses of clients are of IPv4, too.
///
/// # Errors
/// What is wrong with the text and how to write it, or that the name does not resolve.
pub(super) fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = host_and_port(text)?;
    let found = (host, port).to_socket_addrs();
    let found: Vec<_> = found.map_err(|e| format!("cannot resolve `{host}`: {e}"))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("`{host}` resolves to no address"))
}

/// What to do about an address that cannot be listened on.
#[must_use]
pub fn listen_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "stop the process that listens there, or change",
        std::io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address; see `ip address`, and change"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; use a higher port, and change"
        }
        _ => "change",
    }
}

/// Checks an address to which others send: as [`host_and_port`], with a port that is not 0.
///
/// # Errors
/// What is wrong with the text and how to write it.
pub(super) fn check_remote(text: &str) -> Result<(), String> {
    match host_and_port(text)? {
        (_, 0) => Err(format!("`{text}` has port 0, which nobody can reach; write its real port")),
        (host, _) if host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) => {
            Err(format!("`{text}` is every address of a machine; write one of them"))
        }
        _ => Ok(()),
    }
}

/// Splits `HOST:PORT`. The host is a name, an IPv4 address, or an IPv6 address without its
/// brackets.
///
/// # Errors
/// What is wrong with the text and how to write it.
pub(super) fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    if text.is_empty() {
        return Err("is empty; write HOST:PORT".to_owned());
    }
    if text.contains(char::is_whitespace) {
        return Err(format!("`{text}` contains a space; write HOST:PORT without one"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(format!("`{text}` is a URL; leave out `{scheme}://`: `{rest}`"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let split = rest.split_once("]:");
        let Some((host, port)) = split.filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok()) else {
            return Err(format!(
                "`{text}` is no IPv6 address and port; write one like `[::1]:8080`"
            ));
        };
        return Ok((host, parse_port(text, port)?));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let only_digits = text.bytes().all(|b| b.is_ascii_digit());
        return Err(if only_digits {
            format!("`{text}` has no host; write 127.0.0.1:{text}, or 0.0.0.0:{text} for all")
        } else {
            format!("`{text}` has no port; write {text}:PORT")
        });
    };
    if host.contains(':') {
        return Err(format!(
            "`{text}` has more than one `:`; write an IPv6 address in brackets, like `[::1]:8080`"
        ));
    }
    if host.is_empty() || host == "*" {
        return Err(format!(
            "`{text}` has no host; write 127.0.0.1:{port}, or 0.0.0.0:{port} for all addresses"
        ));
    }
    check_host(text, host)?;
    Ok((host, parse_port(text, port)?))
}

fn check_host(text: &str, host: &str) -> Result<(), String> {
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` in `{text}` is no IPv4 address; it has four numbers to 255"));
    }
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // a final dot marks a complete name
    let name = host.strip_suffix('.').unwrap_or(host);
    if host.len() > HOST_BYTES_MAX || !name.split('.').all(label_ok) {
        return Err(format!("`{host}` in `{text}` is no host name; write HOST:PORT"));
    }
    Ok(())
}

fn parse_port(text: &str, port: &str) -> Result<u16, String> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let parsed = port.parse().ok().filter(|_| digits);
    parsed.ok_or_else(|| format!("`{port}` in `{text}` is no port; write a number up to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken() {
        for (text, host, port) in [
            ("a:1", "a", 1),
            ("n1.kvs_x.svc.:7946", "n1.kvs_x.svc.", 7946),
            ("10.0.0.1:0", "10.0.0.1", 0),
            ("[::1]:65535", "::1", 65535),
        ] {
            assert_eq!(host_and_port(text), Ok((host, port)));
        }
        // every machine that runs tests knows this name
        let local = resolve("localhost:8080").unwrap();
        assert!(local.ip().is_loopback() && local.port() == 8080, "{local}");
        assert_eq!(resolve("[::]:1").unwrap().to_string(), "[::]:1");
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, words) in [
            ("", "is empty"),
            (" a:1", "a space"),
            ("a:1 ", "a space"),
            ("udp://a:1", "leave out `udp://`: `a:1`"),
            ("http://a:1/", "leave out `http://`: `a:1`"),
            ("::1:7946", "in brackets, like `[::1]:8080`"),
            ("a:1:2", "more than one `:`"),
            ("[::1]", "write one like"),
            ("[a]:1", "no IPv6 address"),
            ("8080", "127.0.0.1:8080, or 0.0.0.0:8080"),
            (":8080", "127.0.0.1:8080, or 0.0.0.0:8080"),
            ("*:8080", "127.0.0.1:8080, or 0.0.0.0:8080"),
            ("localhost", "write localhost:PORT"),
            ("a:", "is no port"),
            ("a:http", "`http` in `a:http` is no port"),
            ("a:65536", "up to 65535"),
            ("a:+1", "is no port"),
            ("10.0.0.256:1", "no IPv4 address"),
            ("10.0.1:1", "no IPv4 address"),
            ("a/b:1", "no host name"),
            ("a..b:1", "no host name"),
            ("user@host:1", "no host name"),
        ] {
            let error = host_and_port(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(check_remote("a:0").unwrap_err().contains("port 0"));
        assert!(check_remote("0.0.0.0:1").unwrap_err().contains("write one of them"));
        assert!(check_remote("[::]:1").is_err() && check_remote("a:1").is_ok());
    }

    #[test]
    fn a_port_in_use_is_not_the_only_reason() {
        use std::io::{Error, ErrorKind};
        let advice = |kind: ErrorKind| listen_advice(&Error::from(kind));
        assert!(advice(ErrorKind::AddrInUse).contains("stop the process"));
        assert!(advice(ErrorKind::AddrNotAvailable).contains("ip address"));
        assert!(advice(ErrorKind::PermissionDenied).contains("higher port"));
    }
}
