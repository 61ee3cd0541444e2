use std::borrow::Cow;
use std::fmt;

use httparse::{EMPTY_HEADER, Header, Status};

use super::sites::Authority;

/// The longest head that is taken: the request line, the headers and the empty line.
pub const MAX_HEAD: usize = 8 * 1024;

/// The most headers that are taken.
pub const MAX_HEADERS: usize = 64;

/// The headers that have to stand alone: of two, each reader could believe another one.
const ONCE: [&str; 3] = ["Host", "Content-Length", "Origin"];

/// The head of an HTTP/1.0 or HTTP/1.1 request: all of it, since none has a body.
#[derive(Clone, PartialEq, Eq)]
pub struct Request<'b> {
    method: &'b str,
    target: &'b str,
    minor: u8,
    headers: Vec<Header<'b>>,
}

/// Why bytes are no request that is taken, and with which status to say so.
///
/// Where the next request would begin is not known, so the connection has to end behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    status: u16,
    why: &'static str,
}

/// Where the search for the end of a head is, as its bytes come in pieces. One of these belongs to
/// each connection; it serves one request after the other.
///
/// A head that comes byte by byte is parsed once a line, not once a byte: as there are at most
/// [`MAX_HEADERS`] lines, that bounds what a client can have us do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// So many bytes are known to be no whole head.
    searched: u16,
}

impl Head {
    /// Parses `bytes` as [`Request::parse`] does. They have to begin with those of the call before,
    /// unless that one gave a request; then they begin behind that.
    ///
    /// # Errors
    /// If they are no request that is taken. A wrong line may be told only with its end.
    pub fn parse<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<Option<(Request<'b>, usize)>, BadRequest> {
        let searched = usize::from(self.searched).min(bytes.len());
        // The first piece tells those who speak no HTTP at all, and may never send an LF.
        let worth = searched == 0 || bytes.len() >= MAX_HEAD || bytes[searched..].contains(&b'\n');
        let found = if worth { Request::parse(bytes)? } else { None };
        self.searched = match found {
            Some(_) => 0,
            None => bytes.len() as u16, // below MAX_HEAD, or it had been an error
        };
        Ok(found)
    }

    /// Whether nothing of a request has come yet.
    pub fn is_empty(self) -> bool {
        self.searched == 0
    }

    #[cfg(test)]
    pub(super) fn searched(self) -> u16 {
        self.searched
    }
}

impl<'b> Request<'b> {
    /// Parses the head that `bytes` begin with, and says how many of them it takes. None if it is
    /// not complete.
    ///
    /// Where a head comes in small pieces, [`Head`] saves most of the work.
    ///
    /// # Errors
    /// | status | for |
    /// | --- | --- |
    /// | 400 | what is no HTTP; an LF without CR, a space in front of a colon, a header that is continued on a second line, a control byte (RFC 9112, sections 2.2, 5); no `Host`, or a wrong one (section 3.2); two of `Host`, `Content-Length` or `Origin`; a target that is none of this server's, such as a whole URL |
    /// | 413 | a body (RFC 9110, section 15.5.14) |
    /// | 414, 431 | a request line or headers that exceed [`MAX_HEAD`] or [`MAX_HEADERS`] (RFC 6585, section 5) |
    /// | 501 | `Transfer-Encoding` (RFC 9112, section 6.1) |
    /// | 505 | another version than 1.0 and 1.1, also the preface of HTTP/2 |
    pub fn parse(bytes: &'b [u8]) -> Result<Option<(Request<'b>, usize)>, BadRequest> {
        let bytes = &bytes[..bytes.len().min(MAX_HEAD)];
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => {
                check_line_ends(bytes)?;
                return if bytes.len() < MAX_HEAD { Ok(None) } else { Err(too_long(bytes)) };
            }
            Err(error) => return Err(explain(error, bytes)),
        };
        check_line_ends(&bytes[..length])?;
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(bad("it is no HTTP request"));
        };
        let request = Request { method, target, minor, headers: parsed.headers.to_vec() };
        request.check()?;
        Ok(Some((request, length)))
    }

    /// What httparse takes and a server of ours does not.
    fn check(&self) -> Result<(), BadRequest> {
        for name in ONCE {
            if self.all(name).count() > 1 {
                return Err(bad("it has two of Host, Content-Length or Origin"));
            }
        }
        check_target(self.method, self.target)?;
        match self.header("Host") {
            Some(host) if Authority::parse(host).is_some() => {}
            Some(_) => return Err(bad("its Host is none")),
            // RFC 9112, section 3.2: required since HTTP/1.1.
            None if self.minor > 0 => return Err(bad("it has no Host")),
            None => {}
        }
        let length = self.header("Content-Length");
        if self.header("Transfer-Encoding").is_some() {
            // With both, whoever believes the other one sees another request: section 6.3.
            return Err(match length {
                Some(_) => bad("it has both Content-Length and Transfer-Encoding"),
                None => BadRequest { status: 501, why: "Transfer-Encoding is not known here" },
            });
        }
        match length {
            None => Ok(()),
            Some(b"") => Err(bad("its Content-Length is no number")),
            Some(digits) if !digits.iter().all(u8::is_ascii_digit) => {
                Err(bad("its Content-Length is no number"))
            }
            Some(digits) if digits.iter().all(|digit| *digit == b'0') => Ok(()),
            Some(_) => Err(BadRequest { status: 413, why: "a request has no body here" }),
        }
    }

    /// The method, as `GET`. It is case-sensitive (RFC 9110, section 9.1).
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// What was asked for: the path and the query as they came, or `*` of `OPTIONS`.
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The part of the target in front of the query, as it came.
    pub fn path(&self) -> &'b str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The value of a parameter of the query, percent-decoded and a `+` as a space; empty if it has
    /// none, as in `?all`. Of several the first.
    pub fn query(&self, name: &str) -> Option<Cow<'b, str>> {
        let (_, query) = self.target.split_once('?')?;
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
        let mut pairs =
            parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        let (_, value) = pairs.find(|(key, _)| decode(key, true) == name)?;
        Some(decode(value, true))
    }

    /// 0 of HTTP/1.0, 1 of HTTP/1.1.
    pub fn minor_version(&self) -> u8 {
        self.minor
    }

    /// The value of a header without the spaces around it, of several the first. Names are not
    /// case-sensitive.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// All headers in their order, also those of one name.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        values(&self.headers, name)
    }

    /// Whether a header is a list that has this token, over all headers of that name (RFC 9110,
    /// section 5.6.1). Tokens are compared without regard to case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        has_token(&self.headers, name, token)
    }

    /// Whether another request may follow on this connection (RFC 9112, section 9.3). A client of
    /// HTTP/1.0 that asks for it has to be told `Connection: keep-alive`.
    pub fn keep_alive(&self) -> bool {
        let close = self.has_token("Connection", "close");
        !close && (self.minor > 0 || self.has_token("Connection", "keep-alive"))
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers may have passwords.
        write!(f, "Request({:?} {:?} HTTP/1.{})", self.method, self.target, self.minor)
    }
}

impl BadRequest {
    /// The status to answer with: 400, 413, 414, 431, 501 or 505.
    pub fn status(self) -> u16 {
        self.status
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for BadRequest {}

const fn bad(why: &'static str) -> BadRequest {
    BadRequest { status: 400, why }
}

/// Only a CRLF ends a line, and one empty line may come in front (RFC 9112, section 2.2).
fn check_line_ends(head: &[u8]) -> Result<(), BadRequest> {
    if head.first() == Some(&b'\n') || head.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r')
    {
        return Err(bad("a line of it ends without CR"));
    }
    if head.starts_with(b"\r\n\r\n") {
        return Err(bad("it begins with empty lines"));
    }
    Ok(())
}

/// The target has to be a path, or `*` of `OPTIONS`: the forms for proxies name the host once more
/// (RFC 9112, section 3.2), and a server that takes them has to say which of the two counts.
fn check_target(method: &str, target: &str) -> Result<(), BadRequest> {
    let ours = target.starts_with('/') || (target, method) == ("*", "OPTIONS");
    if !ours {
        return Err(bad("its target is no path"));
    }
    let mut rest = target.bytes();
    while let Some(byte) = rest.next() {
        let wrong = match byte {
            b'%' => !rest
                .next()
                .zip(rest.next())
                .is_some_and(|(high, low)| high.is_ascii_hexdigit() && low.is_ascii_hexdigit()),
            byte => byte == b'#' || !byte.is_ascii_graphic(),
        };
        if wrong {
            return Err(bad("its target has bytes that need to be percent-encoded"));
        }
    }
    Ok(())
}

/// Which part of a head was too long.
fn too_long(bytes: &[u8]) -> BadRequest {
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    match line.contains(&b'\n') {
        false => BadRequest { status: 414, why: "its first line is longer than 8 KiB" },
        true => BadRequest { status: 431, why: "its head is longer than 8 KiB" },
    }
}

fn explain(error: httparse::Error, bytes: &[u8]) -> BadRequest {
    match error {
        httparse::Error::TooManyHeaders => {
            BadRequest { status: 431, why: "it has more than 64 headers" }
        }
        httparse::Error::Version if is_other_version(bytes) => {
            BadRequest { status: 505, why: "only HTTP/1.0 and HTTP/1.1 are known here" }
        }
        httparse::Error::HeaderName => bad("the name of a header has a byte that none has"),
        httparse::Error::HeaderValue => bad("the value of a header has a control byte"),
        _ => bad("it is no HTTP request"),
    }
}

/// Whether the first line ends with a version, if one of others: RFC 9112, section 2.3.
fn is_other_version(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let word = bytes.split(|byte| *byte == b' ').nth(2).unwrap_or_default();
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// As [`Request::header`], of a name that may come more than once.
pub(in crate::net) fn values<'b>(
    headers: &[Header<'b>],
    name: &str,
) -> impl Iterator<Item = &'b [u8]> {
    headers.iter().filter(move |one| one.name.eq_ignore_ascii_case(name)).map(|one| one.value)
}

/// As [`Request::has_token`].
pub(in crate::net) fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Undoes percent-encoding (RFC 3986, section 2.1), as in a part of a path. What is no UTF-8 becomes
/// U+FFFD, and what is no escape stays.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    decode(text, false)
}

/// The same; in a query, as forms write it, a `+` is a space.
pub(super) fn decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || plus && byte == b'+') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        decoded.push(match (first, behind) {
            (b'+', _) if plus => b' ',
            (b'%', [high, low, behind @ ..])
                if let Some((high, low)) = digit(high).zip(digit(low)) =>
            {
                rest = behind;
                high << 4 | low
            }
            _ => *first,
        });
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}
