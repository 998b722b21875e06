//! The wall between this node and the web pages that a browser shows on the same machine.
//!
//! A browser lets any page send requests to any address, loopback included, and says where the page
//! comes from: `Sec-Fetch-Site`, `Origin`, `Host`. Promises that a request passes only if no page of
//! another origin made it, or one that `http.origins` names, and that a page whose own name was
//! turned towards loopback (DNS rebinding) reaches nothing. Knows no tokens.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    TRANSFER_ENCODING, VARY,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Version};
use axum::response::Response;

use crate::config::HttpConfig;
use crate::config::web::{WebHost, WebOrigin, host_entry};
use crate::http::answer::error::Error;
use crate::http::resources;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
/// The header fields of answers that a page of a named origin may read, besides those that every
/// page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, kvs-node, kvs-timestamp, kvs-origin, kvs-expires-at, kvs-position, x-request-id, \
     retry-after",
);
/// How long a browser remembers the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Decides which requests of browsers pass.
pub(crate) struct Wall {
    /// Whether this node listens on a loopback address, so that only names of loopback fit.
    loopback: bool,
    hosts: Vec<WebHost>,
    origins: Vec<WebOrigin>,
}

/// What an answer says to a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The named origin that the request comes from.
    origin: Option<HeaderValue>,
    /// Whether the answer depends on the origin.
    varies: bool,
}

impl Wall {
    pub(crate) fn new(http: &HttpConfig, loopback: bool) -> Self {
        Self {
            loopback,
            hosts: http.hosts.iter().filter_map(|text| host_entry(text)).collect(),
            origins: http.origins.iter().filter_map(|text| WebOrigin::parse(text)).collect(),
        }
    }

    /// What the answer to a request with these headers says to a browser, whether or not it passes.
    pub(crate) fn admission(&self, headers: &HeaderMap) -> Admission {
        let named = self.named_origin(headers);
        let varies = !self.origins.is_empty() || headers.contains_key(ORIGIN);
        Admission { origin: named.cloned(), varies }
    }

    /// Refuses what no client of this node sends.
    ///
    /// # Errors
    /// `bad_request` for a missing, repeated or senseless `Host`, `misdirected` for one of another
    /// place, `forbidden` for a page of another origin, `unsupported_media` for a transfer coding.
    pub(crate) fn check(&self, request: &Parts) -> Result<(), Error> {
        let host = own_host(request)?;
        if self.loopback
            && !request.uri.path().starts_with("/health/")
            && let Some((host, text)) = &host
            && !host.as_ref().is_some_and(|host| self.is_own(host))
        {
            return Err(Error::Misdirected(text.chars().take(100).collect()));
        }
        let host = host.and_then(|(host, _)| host);
        if !self.passes(request, host.as_ref()) {
            return Err(Error::Forbidden(
                "a web page of another origin may not use this node; to let it, add its origin to \
                 http.origins",
            ));
        }
        check_coding(&request.headers)
    }

    fn is_own(&self, host: &WebHost) -> bool {
        let fits = |known: &WebHost| {
            known.name == host.name && (known.port.is_none() || known.port == host.port)
        };
        host.is_loopback() || self.hosts.iter().any(fits)
    }

    /// Whether no page of another origin sent it, or one that is named.
    fn passes(&self, request: &Parts, host: Option<&WebHost>) -> bool {
        let headers = &request.headers;
        let only = |name: &HeaderName, fits: &[&str]| {
            headers.get_all(name).iter().all(|value| fits.iter().any(|fit| value == *fit))
        };
        if headers.contains_key(SEC_FETCH_SITE) {
            let reads = request.method == Method::GET || request.method == Method::HEAD;
            let navigates = headers.contains_key(SEC_FETCH_MODE);
            return only(&SEC_FETCH_SITE, &["same-origin", "none"])
                || (reads && navigates && only(&SEC_FETCH_MODE, &["navigate"]))
                || self.named_origin(headers).is_some();
        }
        let origin = match only_value(headers, &ORIGIN) {
            Ok(None) => return true,
            Ok(Some(value)) => value.to_str().ok().and_then(WebOrigin::parse),
            Err(()) => None,
        };
        self.named_origin(headers).is_some()
            || origin.zip(host).is_some_and(|(origin, host)| origin.is_at(host))
    }

    /// The request's `Origin`, if it is one and `http.origins` names it.
    fn named_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let value = only_value(headers, &ORIGIN).ok().flatten()?;
        let origin = WebOrigin::parse(value.to_str().ok()?)?;
        self.origins.contains(&origin).then_some(value)
    }
}

/// The one value of a header field, `None` without one.
///
/// # Errors
/// The field is there twice.
fn only_value<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(()) } else { Ok(first) }
}

/// The host that a request is for, and its text; `None` for HTTP/1.0 without one. An empty host is
/// correct and names nothing.
fn own_host(request: &Parts) -> Result<Option<(Option<WebHost>, String)>, Error> {
    let value = only_value(&request.headers, &HOST)
        .map_err(|()| Error::bad("the request has more than one Host; send one"))?;
    if value.is_none() && request.version >= Version::HTTP_11 {
        return Err(Error::bad("an HTTP/1.1 request needs a Host; add it"));
    }
    let senseless = || Error::bad("the Host of the request is neither a name nor an address");
    let header = value.map(|value| value.to_str().map_err(|_| senseless())).transpose()?;
    // the authority of the target, where a client sends one, counts more (RFC 9112, section 3.2.2)
    let target = request.uri.authority().map(axum::http::uri::Authority::as_str);
    let Some(text) = target.or(header) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some((None, String::new())));
    }
    let host = WebHost::parse(text).ok_or_else(senseless)?;
    Ok(Some((Some(host), text.to_owned())))
}

/// Refuses transfer codings besides `chunked`: hyper would hand over the coded bytes as the body.
fn check_coding(headers: &HeaderMap) -> Result<(), Error> {
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match only_value(headers, &TRANSFER_ENCODING) {
        Ok(None) => Ok(()),
        Ok(Some(value)) if chunked(value) => Ok(()),
        _ => Err(Error::TransferCoding),
    }
}

/// The answer to a preflight, `None` if the request is none. The browser asks before a page of a
/// named origin sends a request, and never sends a token with the question.
pub(crate) fn preflight(request: &Parts, admission: &Admission) -> Option<Response> {
    admission.origin.as_ref()?;
    let asks = request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if request.method != Method::OPTIONS || !asks {
        return None;
    }
    let resource = resources::RESOURCES.get(resources::find(request.uri.path())?)?;
    let methods: Vec<_> = resource.operations.iter().map(|op| op.verb.name()).collect();
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_str(&methods.join(", ")).ok()?);
    if let Some(asked) = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    if request.headers.contains_key(REQUEST_PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    Some(response)
}

impl Admission {
    /// Adds what a browser must know before it shows the answer to a page.
    pub(crate) fn dress(self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

#[cfg(test)]
#[path = "browsers_tests.rs"]
mod tests;
