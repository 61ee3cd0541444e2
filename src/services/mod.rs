//! Ready-made services, each a handler that reads as a tutorial of the library, and each usable on
//! its own in a program of yours.
//!
//! | service | default port | shows |
//! | --- | --- | --- |
//! | [`Echo`] | 2323 | a greeting, lines in, lines out, as fast as it goes |
//! | [`Time`] | 2205 | timers, a session, a client that only listens |
//! | [`Presence`] | 9907 | shared state, broadcast, who is here, commands, safe text |
//! | [`Roulette`](roulette::Roulette) | 1313, 2613 | a long upload, a reply of any length in pieces, bounded memory, JSON |
//! | [`Forward`] | – | bytes instead of lines, dialling out, pausing one side for the other |
//! | [`Announcer`] | 9908, UDP | datagrams: multicast, a timer, an answer to a question |
//! | [`Directory`] | 9908, UDP | datagrams: a table that is bounded and forgets who is silent |

mod announcer;
mod directory;
mod echo;
mod forward;
mod presence;
pub mod roulette;
mod time;

pub use announcer::Announcer;
pub use directory::{Announced, Change, Directory};
pub use echo::Echo;
pub use forward::Forward;
pub use presence::Presence;
pub use time::Time;

/// What a client that [is none](crate::text::is_foreign) hears.
const FOREIGN: &str = "This is neither HTTP nor TLS.\n";
