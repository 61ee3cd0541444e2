//! A client of Redis, or Valkey, that runs in the loop itself: without a runtime, without a thread but
//! for looking up names, over TCP, TLS or a Unix socket.
//!
//! [`Redis`] is a handler with one connection, which it dials again whenever it is lost. What it is to
//! do it is told in messages ([`Order`]), by its [`Handle`](crate::Handle): so any handler of the same
//! loop, a handler of another core and any thread can ask it, and none of them waits. Each request
//! brings along what is to be done with its replies, which most often is to post them back:
//!
//! ```no_run
//! use reactor::services::redis::{Ask, Order, Redis, RedisUrl, Reply, Unanswered};
//! use reactor::{ConnId, Context, Core, Cores, Handle, Handler, Limits, ServiceContext};
//!
//! /// Counts its visitors in Redis, over all processes that do.
//! struct Visitors {
//!     redis: Handle<Order>,
//!     own: Handle<Counted>,
//! }
//!
//! /// What Redis has answered for a client.
//! struct Counted(ConnId, Result<Vec<Reply>, Unanswered>);
//!
//! impl Handler for Visitors {
//!     type Session = ();
//!     type Message = Counted;
//!
//!     fn on_open(&mut self, cx: &mut Context<'_, ()>) {
//!         let (own, id) = (self.own.clone(), cx.id());
//!         let ask = Ask::new([["INCR", "visitors"]], move |counted| {
//!             let _ = own.post(Counted(id, counted));
//!         });
//!         let _ = self.redis.post(Order::Ask(ask));
//!     }
//!
//!     fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, Counted(id, counted): Counted) {
//!         let line = match counted.as_deref() {
//!             Ok([Reply::Integer(count)]) => format!("You are number {count}.\n"),
//!             Ok(_) => "Nobody can count today.\n".to_owned(),
//!             Err(why) => format!("Nobody counts: {why}.\n"),
//!         };
//!         cx.reply_to(id, line);
//!     }
//! }
//!
//! let url: RedisUrl = "redis://127.0.0.1/2".parse()?;
//! let client = Redis::new(url.connect()?, url.login(None))?;
//!
//! // One core is one loop in this thread; of several, all ask this client. A core gives a handler its own
//! // handle.
//! let mut cores = Cores::new(1)?;
//! let redis = cores.first().add(client, Limits::default())?.handle();
//! cores.listen("127.0.0.1:2300", move |core: Core<_>| Visitors {
//!     redis: redis.clone(),
//!     own: core.handle(),
//! })?;
//! cores.run()?;
//! # Ok::<(), reactor::Error>(())
//! ```

mod client;
mod login;
mod messages;
mod reader;
mod reply;
mod url;

pub use client::Redis;
pub use login::Login;
pub use messages::{Answer, Ask, Command, Failure, Order, State, Unanswered, Watcher};
pub use reply::{EntryId, Reply};
pub use url::RedisUrl;
