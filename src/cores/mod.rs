//! Several cores: a loop on each, and a service over all of them. A loop stays one thread; what holds
//! them together stands here, around the loops, and a loop that is alone comes by none of it.
//!
//! How things flow:
//!
//! ```text
//!            first core                                     another core
//!  socket -> Listener -> Distributor --- mpsc, wake ---> Arrivals -> Listener -> judge -> connection
//!            (accepts)   less loaded                     (no socket)  |
//!                        of two              SharedLimits: places (compare-exchange), SharedBooks (mutexes)
//!
//!  hook -> Peers::post -> Mailbox of the other core ............... on_message
//!          Wakes: one wake-up a core and turn
//!          past AHEAD: the connection is not read until the other core has caught up
//!
//!  hook -> request_report -> ForCores -> Driver -- Mail::Ask --> Driver: status, connections, close
//!          on_report <--------------- merged <- Mail::Answer -
//!
//!  Remote::post -> change of Cores, between two turns of the first core
//!                  add, bind, set_... -> first core, at once
//!                                     -> Mail::Do to each other core, after its turn
//!
//!  signal, stop, KILL -> the loop ends -> Driver: stops and wakes the others; likewise a panic
//! ```
//!
//! * The first core runs in the thread that runs [`Cores`], has the listening sockets and the signals,
//!   and those services that are bound to one core. It exists from the beginning, so that an address
//!   that cannot be listened on is an error at once. Of the other cores there is only a
//!   [`Seed`](crate::reactor::for_cores::Seed) until their threads make reactors of them.
//! * Whatever changes another core is a task in its mail, whether that core runs yet or not. A thread that starts
//!   does the tasks in its mail first. So there is one way to add a service, at any time.
//! * A newcomer is handed over as the bare socket that the system gave. Its layers, the limits and the
//!   farewell are those of the core that gets it: a `Listener` there takes it from a queue as it would
//!   from a socket. With that nothing below `net/listener.rs` knows of cores.
//! * Limits are those of the service. `max_connections` is one number; counts and buckets by peer are
//!   in books that all cores share, each peer in one of them. The bounds on the memory of all
//!   connections are looked at after each turn: each core publishes what its connections have, and when
//!   the sum is too much, the core that has most ends some.
//! * What happens between turns is the [`Driver`](driver::Driver)'s: it runs the loop turn by turn.
//!
//! Read `cores` first, then `running`, which has the threads, and `driver`, which is what a core does for the
//! others after each turn; `remote` is the way in from any thread; `upgrade` is how all of them go over to another process;
//! `answers` puts together what the cores answer, `peers` is what handlers say to each other, `by_hand`
//! is how tests choose which core runs next.

mod answers;
pub(crate) mod by_hand;
mod common;
#[expect(clippy::module_inception, reason = "the wing is named after what it is about")]
mod cores;
mod driver;
mod peers;
mod remote;
mod running;
mod upgrade;

pub use cores::{Cores, Spread};
pub use peers::{Core, Peers};
pub use remote::Remote;
