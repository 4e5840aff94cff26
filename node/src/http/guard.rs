//! Who may ask: programs on this machine, not web pages from elsewhere.
//!
//! A page in a browser can send requests to a port of this machine. It cannot forge the headers `Host` and `Origin`, so a
//! foreign name in either is refused: the first also when a name of the attacker's resolves to this machine.

use axum::extract::Request;
use axum::http::{HeaderMap, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::diagnostic::{Code, Diagnostic};

/// Lets a request through, or answers it.
pub(super) async fn check(is_guarded: bool, request: Request, next: Next) -> Response {
    if is_guarded && let Err(refusal) = judge(request.headers(), request.uri().authority()) {
        return refusal.into_response();
    }
    next.run(request).await
}

fn judge(headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), Diagnostic> {
    // A request line with a full address overrides the header.
    let host = match authority {
        Some(authority) => Some(authority.host().to_owned()),
        None => text(headers, header::HOST.as_str())?
            .and_then(|host| host.parse::<Authority>().ok())
            .map(|host| host.host().to_owned()),
    };
    match host {
        Some(host) if is_local(&host) => {}
        Some(host) => return Err(refused(format!("the host `{host}` is not this machine"))),
        None => return Err(refused("the request names no host".to_owned())),
    }
    let Some(origin) = text(headers, header::ORIGIN.as_str())? else { return Ok(()) };
    let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    match page.and_then(|page| page.parse::<Authority>().ok()) {
        Some(page) if is_local(page.host()) => Ok(()),
        _ => Err(refused(format!("a page of `{}` may not use this node", origin.escape_debug()))),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Diagnostic> {
    let value = headers.get(name).map(|value| value.to_str());
    value.transpose().map_err(|_| refused(format!("the header `{name}` is no text")))
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refused(why: String) -> Diagnostic {
    Diagnostic::new(Code::Foreign, why)
        .hint("ask by a loopback address such as 127.0.0.1; a node started with --insecure answers all")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        judge(&headers, None).is_ok()
    }

    #[test]
    fn only_loopback_hosts_are_answered() {
        for host in ["127.0.0.1:7480", "localhost", "LOCALHOST:1", "[::1]:7480", "127.8.8.8"] {
            assert!(judged(host, None), "{host}");
        }
        for host in ["example.org", "10.0.0.1:7480", "localhost.example.org", "127.0.0.1.example.org", ""] {
            assert!(!judged(host, None), "{host}");
        }
        assert!(judge(&HeaderMap::new(), None).is_err(), "no host at all");
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        assert!(judged("127.0.0.1", Some("http://127.0.0.1:7480")));
        assert!(judged("127.0.0.1", Some("http://localhost:3000")));
        for origin in ["https://example.org", "null", "file://", "http://localhost.example.org"] {
            assert!(!judged("127.0.0.1", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_full_address_in_the_request_line_counts_more_than_the_header() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1".parse().unwrap());
        assert!(judge(&headers, Some(&"example.org".parse().unwrap())).is_err());
    }
}
