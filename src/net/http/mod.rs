//! The heads of HTTP/1.1 requests, and what is answered to them: what a WebSocket handshake and the
//! page have in common. There is no client here, and no body of a request.
//!
//! [`Head`] finds the [`Request`] in the bytes of a connection, however they come in pieces. [`Sites`]
//! says whether it may have come from a page of a browser. [`response`] makes the bytes of an answer.
//!
//! Somebody else may stand in front, such as a balancer or a cache, and must not see other requests
//! than we do in the same bytes (RFC 9112, section 11.2). So whatever can be read in two ways is
//! refused, never mended, and [`BadRequest`] has the status: an answer with it has to be the
//! last one of the connection.
//!
//! ```
//! use reactor::http::{Head, Sites, response};
//!
//! let bytes = b"GET /hello?name=J%C3%BCrgen HTTP/1.1\r\nHost: localhost:8023\r\n\r\n";
//! let mut head = Head::default(); // a connection keeps it from one piece to the next
//! assert!(head.parse(&bytes[..30])?.is_none());
//! let (request, length) = head.parse(bytes)?.expect("it is all there");
//! assert_eq!(length, bytes.len());
//! assert_eq!((request.method(), request.path()), ("GET", "/hello"));
//! assert_eq!(request.query("name").as_deref(), Some("Jürgen"));
//! assert!(Sites::new().check(&request).is_ok());
//! let answer = response(200, &[("Content-Type", "text/plain")], "hello\n");
//! assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
//! # Ok::<(), reactor::http::BadRequest>(())
//! ```

mod request;
mod response;
mod sites;
#[cfg(test)]
mod tests;

pub use request::{BadRequest, Head, MAX_HEAD, MAX_HEADERS, Request, percent_decode};
pub use response::{head, response};
pub use sites::{Forbidden, Origin, Sites};
