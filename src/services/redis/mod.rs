//! A client of Redis, or Valkey, that runs in the loop itself: without a runtime, without a thread but
//! for looking up names, over TCP, TLS or a Unix socket.
//!
//! [`Redis`] is a handler with one connection, which it dials again whenever it is lost. What it is to
//! do it is told in messages ([`Order`]), by its [`Handle`](crate::Handle): so any handler of the same
//! loop, a handler of another core and any thread can ask it, and none of them waits. Each request
//! brings along what is to be done with its replies, which most often is to post them back:
//!
//! ```no_run
//! use reactor::services::redis::{Ask, Login, Order, Redis, RedisUrl, Reply, Unanswered};
//! use reactor::{Context, Handle, Handler, Limits, Reactor, ServiceContext};
//!
//! /// Counts its visitors in Redis, over all processes that do.
//! struct Visitors {
//!     redis: Handle<Order>,
//!     own: Option<Handle<Counted>>,
//! }
//!
//! enum Counted {
//!     Own(Handle<Counted>),
//!     Count(reactor::ConnId, Result<Vec<Reply>, Unanswered>),
//! }
//!
//! impl Handler for Visitors {
//!     type Session = ();
//!     type Message = Counted;
//!
//!     fn on_open(&mut self, cx: &mut Context<'_, ()>) {
//!         let (Some(own), id) = (self.own.clone(), cx.id()) else { return };
//!         let ask = Ask::new([["INCR", "visitors"]], move |counted| {
//!             let _ = own.post(Counted::Count(id, counted));
//!         });
//!         let _ = self.redis.post(Order::Ask(ask));
//!     }
//!
//!     fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, message: Counted) {
//!         match message {
//!             Counted::Own(handle) => self.own = Some(handle),
//!             Counted::Count(id, Ok(replies)) => match replies[..] {
//!                 [Reply::Integer(count)] => _ = cx.reply_to(id, format!("You are number {count}.\n")),
//!                 _ => _ = cx.reply_to(id, "Nobody can count today.\n"),
//!             },
//!             Counted::Count(id, Err(why)) => _ = cx.reply_to(id, format!("Nobody counts: {why}.\n")),
//!         }
//!     }
//! }
//!
//! let url: RedisUrl = "redis://127.0.0.1/2".parse()?;
//! let client = Redis::new(url.connect()?, url.login(None))?;
//!
//! let mut reactor = Reactor::new()?;
//! let redis = reactor.add(client, Limits::default())?.handle();
//! let visitors = reactor.listen("127.0.0.1:2300", Visitors { redis, own: None })?;
//! let own = visitors.handle();
//! let _ = visitors.handle().post(Counted::Own(own));
//! reactor.run()?;
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
