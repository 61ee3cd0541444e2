//! Ready-made services. Each is a handler that can be used in any program, and that reads as a tutorial
//! of the library: a service is written with the public names of this crate alone. What the program
//! adds, such as the options of its command line, is not here. Needs the feature `services`.
//!
//! Read them in the order of this table; each shows something new:
//!
//! | service | default port | shows |
//! | --- | --- | --- |
//! | [`Echo`] | 2323 | a greeting, lines in, lines out, as fast as it goes |
//! | [`Time`] | 2205 | timers, a session, a client that only listens |
//! | [`Presence`] | 9907 | shared state, broadcast, who is here, commands, safe text; one room on several cores |
//! | [`Roulette`](roulette::Roulette) | 1313, 2613 | a long upload, a reply of any length in pieces, bounded memory, JSON |
//! | [`Forward`] | – | bytes instead of lines, dialling out, pausing one side for the other |
//! | `Web` | 8023 | HTTP on [`on_bytes`](Handler::on_bytes), answers that wait for a report of the loop, handing over |
//! | [`Admin`] | –, Unix | looking inside the loop: reports, a long list page by page |
//! | [`Redis`](redis::Redis) | – | being a client: dialling again, lines with bodies, backpressure, questions of other services |
//! | [`Announcer`] | 9908, UDP | datagrams: multicast, a timer, an answer to a question |
//! | [`Directory`] | 9908, UDP | datagrams: a table that is bounded and forgets what is silent |
//!
//! What the loop knows of itself is in [`views`], as JSON and as metrics.
//! For a room of your own, on several cores or several servers, begin with [`room`].

use crate::{Context, Handler, Unreadable};

mod admin;
mod announcer;
mod directory;
mod echo;
mod forward;
mod presence;
pub mod redis;
pub mod room;
pub mod roulette;
mod time;
pub mod views;
#[cfg(feature = "web")]
mod web;

pub use admin::{Admin, Upgraded};
pub use announcer::Announcer;
pub use directory::{Announced, Change, Directory};
pub use echo::Echo;
pub use forward::Forward;
pub use presence::Presence;
pub use time::Time;
#[cfg(feature = "web")]
pub use web::Web;

/// The default [`on_bytes`](Handler::on_bytes), but for [telnet's commands](crate::Lines::skip_telnet).
fn handle_lines<H: Handler>(
    handler: &mut H,
    cx: &mut Context<'_, H::Session>,
    bytes: &[u8],
) -> usize {
    let mut lines = cx.lines(bytes);
    while lines.skip_telnet(cx)
        && let Some(line) = lines.next(cx)
    {
        handler.on_line(cx, line);
    }
    lines.taken()
}

/// What a client is sent that [speaks another protocol](crate::text::is_foreign).
const FOREIGN: &str = "This is neither HTTP nor TLS.\n";

/// Refuses what another version of a service has written down.
fn known_version(version: u32, known: u32) -> Result<(), Unreadable> {
    if version == known { Ok(()) } else { Err(Unreadable("an unknown version")) }
}

/// The first line of a client without the byte order mark that some programs write in front of UTF-8.
fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
}
