//! Hosts and origins as browsers name them, for `http.hosts` and `http.origins`.
//!
//! Two texts for one place are equal here: case, default ports, a final dot and the forms of an
//! IPv6 address make no difference.

use std::net::{IpAddr, Ipv6Addr};

/// A host, as a URL names it, and the port if it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebHost {
    /// A name in lower case, or an address without brackets.
    pub name: String,
    /// The port, if it is given.
    pub port: Option<u16>,
}

impl WebHost {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (address.to_canonical().to_string(), rest.strip_prefix(':').or(empty(rest))?)
        } else {
            let (name, port) = text.split_once(':').unwrap_or((text, ""));
            (plain_name(name)?, port)
        };
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
        digits.then_some(Self { name, port })
    }

    /// Whether it names the machine of its user: `localhost`, a name below it, or an address of
    /// loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.name == "localhost"
            || self.name.ends_with(".localhost")
            || self.name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The empty text, if `text` is empty.
fn empty(text: &str) -> Option<&str> {
    text.is_empty().then_some(text)
}

/// The characters of a name in a URL, percent escapes included (RFC 3986, section 3.2.2).
fn plain_name(name: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b);
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty() && name.bytes().all(plain)).then(|| name.to_ascii_lowercase())
}

/// Where a page comes from: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: WebHost,
}

impl WebOrigin {
    /// Reads `scheme://host` or `scheme://host:port`; `None` for anything else, `null` included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        if !formed || !scheme.bytes().all(plain) {
            return None;
        }
        let origin = Self { scheme: scheme.to_ascii_lowercase(), host: WebHost::parse(host)? };
        let host = WebHost { port: origin.port(&origin.host), ..origin.host.clone() };
        Some(Self { host, ..origin })
    }

    /// Whether a page of this origin was loaded from `host`.
    #[must_use]
    pub fn is_at(&self, host: &WebHost) -> bool {
        self.host.name == host.name && self.host.port == self.port(host)
    }

    /// The port of `host` under this scheme.
    fn port(&self, host: &WebHost) -> Option<u16> {
        host.port.or(match self.scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        })
    }
}

/// Reads an entry of `http.hosts`; an IPv6 address may lack its brackets.
#[must_use]
pub fn host_entry(text: &str) -> Option<WebHost> {
    let address = text.parse::<Ipv6Addr>().ok();
    let address = address.map(|a| WebHost { name: a.to_canonical().to_string(), port: None });
    address.or_else(|| WebHost::parse(text)).filter(|host| !host.name.contains('*'))
}

/// The entries of `http.hosts` and `http.origins` that are none: their keys, and what is wrong.
pub(super) fn problems(
    hosts: &[String],
    origins: &[String],
) -> impl Iterator<Item = (&'static str, String)> {
    let form = "write each host as a URL names it, without scheme and path and without `*`, such \
                as \"kvs.example.org\"";
    let hosts = hosts.iter().filter(|text| host_entry(text).is_none());
    let origins = origins.iter().filter(|text| WebOrigin::parse(text).is_none());
    let hosts = hosts.map(move |bad| ("http.hosts", format!("`{bad}` is not a host; {form}")));
    hosts.chain(origins.map(|bad| ("http.origins", origin_problem(bad))))
}

fn origin_problem(bad: &str) -> String {
    match bad {
        "null" | "*" => format!(
            "`{bad}` would let every page of the web read and write all data; name the origins \
             of your pages, such as \"https://app.example.org\""
        ),
        _ => format!(
            "`{bad}` is not an origin; write scheme, host and port without a path, such as \
             \"https://app.example.org\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<(String, Option<u16>)> {
        WebHost::parse(text).map(|host| (host.name, host.port))
    }

    #[test]
    fn hosts_are_read_as_urls_name_them() {
        for (text, name, port) in [
            ("Localhost", "localhost", None),
            ("localhost.:8080", "localhost", Some(8080)),
            ("127.0.0.1:", "127.0.0.1", None),
            ("[::1]:1", "::1", Some(1)),
            ("[0:0::0:1]", "::1", None),
            ("[::ffff:127.0.0.1]", "127.0.0.1", None),
            ("a_b.example", "a_b.example", None),
        ] {
            assert_eq!(host(text), Some((name.to_owned(), port)), "{text}");
        }
        for bad in
            ["", ":80", "a b", "a/b", "a@b", "a:b", "a:70000", "a:+1", "::1", "[::1", "[::1]x", "ü"]
        {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let loopback = |text| WebHost::parse(text).unwrap().is_loopback();
        for here in ["localhost", "app.localhost:1", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(loopback(here), "{here}");
        }
        for there in
            ["localhost.evil.example", "xlocalhost", "0.0.0.0", "10.0.0.1", "127.1", "[::]"]
        {
            assert!(!loopback(there), "{there}");
        }
    }

    #[test]
    fn origins_are_compared_with_their_ports() {
        let at = |origin: &str, host: &str| {
            WebOrigin::parse(origin).unwrap().is_at(&WebHost::parse(host).unwrap())
        };
        assert!(at("http://a:8080", "A:8080") && at("http://a", "a:80") && at("http://a:80", "a"));
        assert!(at("https://a", "a") && at("https://a", "a:443"));
        assert!(!at("http://a", "a:8080") && !at("http://a:8080", "a") && !at("http://b", "a"));
        assert_eq!(WebOrigin::parse("HTTPS://A:443"), WebOrigin::parse("https://a"));
        for bad in ["null", "*", "", "a", "http://", "http://a/", "://a", "1x://a", "http://a b"] {
            assert_eq!(WebOrigin::parse(bad), None, "{bad}");
        }
        assert!(WebOrigin::parse("chrome-extension://abcdef").is_some());
    }
}
