use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Request;

/// Which hosts and which pages are ours: what keeps other people's pages out of a server that a
/// browser can reach.
///
/// A browser lets every page that is open in it connect to every address, also to `127.0.0.1`. It
/// says truly where the page came from, so that is what is looked at:
///
/// * `Host` has to be a literal address, `localhost`, or one that was [named](Self::host). Otherwise
///   a page could have its own name point to an address of ours, and be of the same origin (DNS rebinding).
/// * `Origin` has to have the host and the port of `Host`, or to be one that was
///   [named](Self::origin) (RFC 6454, section 7; RFC 6455, section 10.2). `null`, as a page from a file or a sandbox sends it,
///   is nobody's. Without an `Origin` it is no page that asks.
///
/// Both are checked in all requests, so `/metrics` by a name takes a [`host`](Self::host) too. A client of HTTP/1.0
/// without a `Host` is no browser, and may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    hosts: Vec<String>,
    origins: Vec<Origin>,
}

/// Why a request is answered with 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forbidden {
    /// Its `Host` is no address, and no name of ours.
    Host,
    /// Its `Origin` is another page's.
    Origin,
}

/// Where a page came from (RFC 6454, section 6.2), as `https://example.org` or `http://[::1]:8023`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    place: Authority,
}

/// A host, and a port if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    host: Name,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Ip(IpAddr),
    /// In lower case.
    Dns(String),
}

impl Sites {
    /// Literal addresses and `localhost`, and their own pages.
    pub fn new() -> Sites {
        Sites::default()
    }

    /// Takes requests for this name too, as `example.org`, on any port.
    pub fn host(mut self, name: impl AsRef<str>) -> Sites {
        self.hosts.push(name.as_ref().to_ascii_lowercase());
        self
    }

    /// Lets pages from there come too. Parse text as an [`Origin`] to learn whether it is one.
    pub fn origin(mut self, origin: Origin) -> Sites {
        self.origins.push(origin);
        self
    }

    /// Whether a request may come in.
    ///
    /// # Errors
    /// If its `Host` or its `Origin` are not ours: answer with 403 (RFC 6455, section 4.2.2).
    pub fn check(&self, request: &Request<'_>) -> Result<(), Forbidden> {
        if !request.header("Host").is_none_or(|host| self.is_ours(host)) {
            return Err(Forbidden::Host);
        }
        let named = |origin| Origin::parse(origin).is_some_and(|it| self.origins.contains(&it));
        match request.header("Origin") {
            Some(origin) if !request.is_same_origin() && !named(origin) => Err(Forbidden::Origin),
            _ => Ok(()),
        }
    }

    fn is_ours(&self, host: &[u8]) -> bool {
        Authority::parse(host).is_some_and(|asked| match &asked.host {
            Name::Ip(_) => true,
            Name::Dns(name) => name == "localhost" || self.hosts.contains(name),
        })
    }
}

impl Request<'_> {
    /// Whether a page asks that came from this very server: whether it has an `Origin`, and that has the
    /// host and the port of `Host`. [`Sites::check`] says whether `Host` is ours.
    pub fn is_same_origin(&self) -> bool {
        let origin = self.header("Origin").and_then(Origin::parse);
        let asked = self.header("Host").and_then(Authority::parse);
        origin.zip(asked).is_some_and(|(origin, asked)| origin.is_of(&asked))
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Forbidden::Host => "this server has no such name",
            Forbidden::Origin => "pages of other servers may not come in",
        })
    }
}

impl std::error::Error for Forbidden {}

impl Origin {
    fn parse(text: &[u8]) -> Option<Origin> {
        let (scheme, place) = str::from_utf8(text).ok()?.split_once("://")?;
        let mut letters = scheme.bytes();
        let named = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let scheme = scheme.to_ascii_lowercase();
        let mut place = Authority::parse(place.as_bytes())?;
        // Browsers leave it out.
        place.port = place.port.filter(|port| default_port(&scheme) != Some(*port));
        named.then_some(Origin { scheme, place })
    }

    /// Whether the page came from where `asked` leads: that may stand behind a proxy with TLS, so
    /// either scheme of the web will do.
    fn is_of(&self, asked: &Authority) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        let port = |place: &Authority| place.port.unwrap_or(default);
        self.place.host == asked.host && port(&self.place) == port(asked)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Origin, &'static str> {
        Origin::parse(text.as_bytes()).ok_or("write SCHEME://HOST or SCHEME://HOST:PORT")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.place.host {
            Name::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Name::Ip(ip) => write!(f, "{ip}")?,
            Name::Dns(name) => f.write_str(name)?,
        }
        self.place.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Authority {
    /// Reads `uri-host [ ":" port ]` (RFC 9110, section 7.2).
    pub(super) fn parse(text: &[u8]) -> Option<Authority> {
        let text = str::from_utf8(text).ok()?;
        let (host, port) = match text.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            // A port may be empty (RFC 3986, section 3.2.3).
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(v6) => Name::Ip(IpAddr::V6(v6?.parse().ok()?)),
            None => Name::parse(host)?,
        };
        Some(Authority { host, port })
    }
}

impl Name {
    fn parse(text: &str) -> Option<Name> {
        if let Ok(v4) = text.parse() {
            return Some(Name::Ip(IpAddr::V4(v4)));
        }
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_name = !text.is_empty() && text.bytes().all(of_name);
        is_name.then(|| Name::Dns(text.to_ascii_lowercase()))
    }
}
