//! One thread that serves thousands of clients at once: an IO-multiplexing reactor for line
//! protocols, over mio's non-blocking sockets, without an async runtime.
//!
//! You write a [`Handler`]: what to do when a client connects, when it sends a line and when it
//! leaves. You give it to a [`Reactor`] with an address, and run the loop:
//!
//! ```
//! use reactor::{CloseReason, Context, Handler, Reactor, text};
//!
//! /// The state that all connections of this service share.
//! #[derive(Default)]
//! struct Greeter {
//!     seen: u64,
//! }
//!
//! /// The state of one connection.
//! #[derive(Default)]
//! struct Session {
//!     name: Option<String>,
//! }
//!
//! impl Handler for Greeter {
//!     type Session = Session;
//!     type Message = (); // what other threads may post
//!
//!     fn on_open(&mut self, cx: &mut Context<'_, Session>) {
//!         self.seen += 1;
//!         writeln!(cx, "you are number {}; who are you?", self.seen);
//!     }
//!
//!     fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
//!         let name = text::printable(line); // what others are shown
//!         cx.broadcast(format!("{name} is here\n")); // to every connection of this handler
//!         cx.session().name = Some(name);
//!     }
//!
//!     fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
//!         if let Some(name) = cx.session().name.take() {
//!             cx.broadcast(format!("{name} has left\n"));
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), reactor::Error> {
//! let mut reactor = Reactor::new()?;
//! let service = reactor.listen("127.0.0.1:0", Greeter::default())?;
//! println!("try: nc 127.0.0.1 {}", service.port());
//! # reactor.stop();
//! reactor.run()?;
//! # Ok(())
//! # }
//! ```
//!
//! There is nothing to lock and nothing to spawn: all hooks run on the thread that runs the loop,
//! one after the other. Hence the one rule: **a hook must not block**, since no other client is
//! served while it runs.
//!
//! # Where to find what
//!
//! | you want to | look at |
//! | --- | --- |
//! | write a protocol of lines | [`Handler`], [`Context`] |
//! | write one out of closures, as in Node.js | [`Callbacks`] |
//! | take bodies behind lines, of any length | [`Context::take_block`], [`Handler::on_block`] |
//! | speak something other than lines, for a while or always | [`Handler::on_bytes`], [`Lines`] |
//! | send more than should lie in memory | [`Context::send_pieces`], [`Handler::on_drain`] |
//! | speak in datagrams: UDP, multicast, broadcast | [`DatagramHandler`], [`Reactor::datagrams`] |
//! | do something later | [`Context::set_timer`], [`ServiceContext::set_service_timer`] |
//! | do blocking work, or reach the handler from another thread | [`Service::handle`], [`Handle`] |
//! | use several cores | [`Cores`], and [`Peers`] for what they say to each other |
//! | be a client, and come back to a server that was lost | [`client`], [`client::Redial`] |
//! | connect outward | [`ServiceContext::connect`], [`ServiceContext::connect_from`], [`Reactor::connect`] |
//! | use the names of hosts | [`Host`], [`Address::resolve`] |
//! | talk to a terminal, a file, a child's pipes | [`ServiceContext::adopt`], [`Reactor::adopt`] |
//! | listen at sockets that systemd, a parent or another program has opened | [`Listen::from_tcp`], [`Listen::from_unix`] |
//! | upgrade the program without disconnecting anybody | [`Reactor::hand_on`], [`Reactor::succeed`], [`Handler::save`] |
//! | run inside another event loop | [`Reactor::turn`], [`Reactor::next_deadline`] |
//! | change limits, listeners and services while the loop runs | [`Reactor::set_limits`], [`Reactor::bind`], [`Reactor::rebind`], [`Reactor::unbind`], [`Reactor::remove`] between turns; the same of [`Cores`] |
//! | do that from another thread, or at SIGHUP | [`Remote`], `Cores::on_hangup`; with one core `Cores::new(1)` |
//! | read certificates again | [`Reactor::reload`], `Reactor::reload_on_hangup` |
//! | restrict who may connect | [`Listen`], [`Networks`], [`Context::peer_credentials`] |
//! | stand behind a balancer, or be one | [`Listen::proxy`], [`Connect::proxy_for`] |
//! | let browsers take part in a protocol of lines | `WebSocket` |
//! | read heads of HTTP, and keep other pages of a browser out | `http` |
//! | bound what clients may use | [`Limits`], [`DatagramOptions`], [`CloseReason`] |
//! | choose what a client is told that the loop closes | [`Handler::farewell`], [`Farewell`] |
//! | see what the loop does | [`Counters`], [`Reactor::set_name`] for the log |
//! | look inside: services, connections, turns; close one | [`Reactor::status`], [`Reactor::connections`], [`Reactor::close`]; in a handler [`Context::request_report`] |
//! | test a handler without sockets, or several cores in one thread | [`testing`]: `Harness`, `CoresByHand` |
//! | show one client's text to another, split commands into words, parse those, take telnet's out | [`text`] |
//! | look inside a server that runs | `services::Admin` |
//! | show others what the loop does: JSON, metrics for Prometheus | `services::views` |
//! | ask a Redis | `services::redis` |
//! | make a room, on several cores or several servers | `services::room` |
//! | use a ready-made service | `services` |
//!
//! # What the loop promises
//!
//! * A turn costs in proportion to what is ready, not to how many are connected. An idle
//!   connection owns no buffer.
//! * No client is served at the cost of another: a turn reads and handles a bounded share of each.
//! * What a turn sends to a connection leaves in one write.
//! * A client that does not read its own replies is no longer read; one that does not read what
//!   others send it is closed; a server that was dialled and does not read is sent no more. So memory
//!   stays below `connections x limits`, apart from what a hook makes in one call: a reply of gigabytes
//!   should be [streamed](Context::send_pieces).
//! * Closing never destroys the last reply; [`Handler::on_close`] comes exactly once.
//! * A [`ConnId`] never names another connection than the one that it was given to.
//! * Running out of descriptors, a panic in a hook, a reset at any moment: the other connections go
//!   on.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `cli` | yes | the program `reactor`, and the four below |
//! | `services` | with `cli` | the module `services` |
//! | `websocket` | with `cli` | `Listen::web_socket`, `Connect::web_socket`; the module `http` |
//! | `web` | with `cli` | `services::Web` |
//! | `signals` | with `cli` | `Reactor::stop_on_signals`: SIGINT and SIGTERM; `reload_on_hangup`, `Cores::on_hangup` |
//! | `tls` | yes | `Listen::tls`, `Connect::tls`; takes a C compiler to build |
//!
//! A library that embeds this one wants `default-features = false`, and perhaps some of the
//! features. It runs on Unix with 64-bit pointers.

#![forbid(unsafe_code)]
// Has rustdoc show the feature that an item needs; only nightly can, which docs.rs uses.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
mod cores;
mod datagram;
mod error;
mod handler;
mod limits;
mod net;
mod reactor;
#[cfg(feature = "services")]
pub mod services;
pub mod testing;

pub use connection::{CloseReason, ConnId, Decoder, Encoder, Saved, TimerId, Unreadable};
pub use cores::{Core, Cores, Peers, Remote, Spread};
pub use datagram::{DatagramContext, DatagramHandler, DatagramOptions};
pub use error::Error;
pub use handler::{Callbacks, Context, Farewell, Handler, Lines, ServiceContext, Writer};
pub use handler::{client, text};
pub use limits::{Limits, Rate, Rates};
#[cfg(feature = "websocket")]
pub use net::http;
#[cfg(feature = "tls")]
pub use net::tls::{PeerCertificate, Tls, TlsConnector};
#[cfg(feature = "websocket")]
pub use net::websocket::{Refusal, Upgrade, WebSocket};
pub use net::{
    Address, Connect, Credentials, Host, Listen, Networks, ToAddress, ToConnect, ToListen,
};
pub use reactor::{
    Ask, ConnectionStatus, CoreStatus, Counters, Cursor, Exit, HandedOn, Handle, ListenerStatus,
    Order, Page, Reactor, Refused, Report, Selection, Service, ServiceStatus, Status, Steps,
    Successor, TryPostError, Turns, Usage, Waits,
};
