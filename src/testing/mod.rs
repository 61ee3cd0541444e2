//! Tests a handler without sockets and without real time. The loop's own code runs over pipes in
//! memory, with a clock that stands still until the test moves it. What needs a real socket, such as TLS
//! or accepting, cannot be tested so.
//!
//! [`Harness`] is for connections: begin there. [`DatagramHarness`] is the same for datagrams, and
//! [`CoresByHand`], which does have sockets, for what several cores say to each other. Whether what a
//! handler [saves](crate::Handler::save) is all that it needs in another process, [`Harness::upgrade`] tells.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use reactor::{CloseReason, Context, Handler, Limits, testing::Harness};
//!
//! struct Shout;
//!
//! impl Handler for Shout {
//!     type Session = ();
//!     type Message = ();
//!
//!     fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
//!         cx.send(line.to_ascii_uppercase());
//!         cx.send("!\n");
//!     }
//! }
//!
//! let limits = Limits { idle_timeout: Some(Duration::from_secs(60)), ..Limits::default() };
//! let mut server = Harness::with_limits(Shout, limits);
//! let client = server.connect();
//! server.feed(client, b"hel");
//! assert_eq!(server.sent(client), b"");
//! server.feed(client, b"lo\r\nyou");
//! server.end(client);
//! assert_eq!(server.sent(client), b"HELLO!\nYOU!\n");
//! assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
//! ```

mod datagram_harness;
mod harness;
mod memory_loop;
mod upgrading;

pub use datagram_harness::DatagramHarness;
pub use harness::{Client, Harness};

pub use crate::cores::by_hand::CoresByHand;
pub use crate::net::Fault;
