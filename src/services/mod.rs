//! Ready-made services, each a [`Handler`](crate::Handler) that reads as a tutorial of the library,
//! and each usable on its own in a program of yours.
//!
//! | service | default port | shows |
//! | --- | --- | --- |
//! | [`Echo`] | 2323 | the smallest useful handler: a greeting, lines in, lines out |
//! | [`Time`] | 2205 | timers, a session, a client that only listens |
//! | [`Presence`] | 9907 | shared state, broadcast, who is here, commands, safe text |
//! | [`Roulette`](roulette::Roulette) | 1313, 2613 | a long upload, a reply of any length in pieces, bounded memory, JSON |

mod echo;
mod presence;
pub mod roulette;
mod time;

pub use echo::Echo;
pub use presence::Presence;
pub use time::Time;
