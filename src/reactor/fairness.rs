//! Every bound of a turn or of a queue that is not a setting, with its reason, and the budget of a
//! step of a turn.
//!
//! What a user can set is in `limits.rs` and in [`DatagramOptions`](crate::DatagramOptions). These
//! are bounds too, and stand elsewhere:
//!
//! * How much memory a buffer keeps is not a matter of fairness and stands beside the buffer:
//!   `ARENA_KEPT`, `ARENA_FIRST` and `BACKLOG_KEPT` in `connection/output.rs`, `HEADROOM` and `FRESH`
//!   in `connection/input.rs`.
//! * What part of a burst of bytes is waited for is part of the rule that it serves: `PART_OF_BURST` in
//!   `connection/rate.rs`.
//! * What a closing client has to take in each flush timeout is part of the rule that it serves:
//!   `LEAST_TAKEN` in `connection/backpressure.rs`.
//! * How many services there may be follows from the layout of a token: `MOST_SERVICES` in
//!   `token.rs`.
//! * `net/` does not know the loop. It has the queues of the kernel, `BACKLOG` and
//!   `UNSENT_IN_KERNEL` in `net/tcp.rs`; how soon the next address of a host is tried, `NEXT_AFTER`
//!   in `net/happy_eyeballs.rs`; how often the lock of a Unix path is tried, `TRIES` in
//!   `net/unix_path.rs`; the work of one read of TLS, `FRUITLESS_READS` in `net/tls/stream.rs`; and
//!   how large the files of TLS may be, `LONGEST` and `MESSAGE` in `net/tls/files.rs`.

use std::time::Duration;

use super::loop_state::Turn;
use crate::connection::clock::Nanos;

// What one turn fetches.

/// Events that the first wait has room for. A wait that fills the buffer doubles it.
pub(super) const FIRST_EVENTS: usize = 1024;

/// The buffer of events grows no further: 64 Ki events take about a megabyte, and more of them make
/// a turn longer without making it cheaper.
pub(super) const MOST_EVENTS: usize = 64 * 1024;

// What the whole loop does in a turn.

/// Time that handshakes have. A step that begins within it is finished. With the dearest key that is
/// taken, RSA of 4096 bits, one step takes longer than this, so a turn has one of them; with the usual
/// keys a turn has some ten.
const HANDSHAKES_PER_TURN: Nanos = 2_000_000;

/// What a step of a handshake counts beside the time that its layer has computed: its system calls, and
/// the hook of a connection that opens. So a turn has no more than 250 steps, however cheap.
const HANDSHAKE_STEP: Nanos = 8_000;

// What one service does in a turn. What is left over waits for the next turn, behind the other
// services.

/// Connections that are served: few enough that their replies leave soon after they are written, so
/// many that the system call of a wait costs each of them next to nothing.
pub(super) const SERVED_PER_TURN: usize = 256;

/// Connections that have ended and are reported and freed at once, which is twice a turn: to close a
/// socket costs as much as to serve a connection.
pub(super) const REAPED_AT_ONCE: usize = 256;

/// Messages that are taken: other threads may post faster than the handler works.
pub(crate) const MESSAGES_PER_TURN: usize = 1024;

/// Timers that fire: a handler may have set one for each of its connections to the same moment.
pub(crate) const TIMERS_PER_TURN: usize = 1024;

/// Newcomers that are passed over in a row, since they were gone before they could be accepted or
/// come from an address that is not allowed: a flood of them must not keep the loop in one call.
pub(super) const PASSED_OVER: usize = 64;

/// Reports that handlers are given: each may take as long as hundreds of lines.
pub(super) const REPORTS_PER_TURN: usize = 16;

/// Slots of connections that are looked at for these reports; the report that goes past it is the last
/// one of the turn. To look at one takes some nanoseconds.
pub(super) const SLOTS_SEEN: usize = 16 * 1024;

/// Connections on a page in the order of the table: what is said of them is some ten lines of output
/// each.
pub(super) const ROWS_PER_PAGE: usize = 256;

/// Slots that are looked at for one such page, where most of them are vacant.
pub(super) const SLOTS_PER_PAGE: usize = 4096;

/// Connections on a page in another order, which cannot be continued.
pub(super) const ROWS_RANKED: usize = 1024;

// What one step of a turn may cost; see `Step`.

/// Bytes of output that a step gathers, so that it leaves soon and the arena stays small.
const OUTPUT_PER_STEP: usize = 256 * 1024;

/// Copies of broadcasts that a step queues: a few bytes to thousands cost time, and hardly any room
/// in the arena.
const COPIES_PER_STEP: usize = 256 * 1024;

// What one connection has of a turn, beside what its limits say.

/// Receivers of a broadcast that count as one line against its sender's share of a turn.
pub(super) const RECEIVERS_PER_LINE: usize = 64;

/// Bytes that are written for one connection: a fast reader with a long backlog must not hold up
/// the others.
pub(super) const WRITTEN_PER_TURN: usize = 1024 * 1024;

// What is done again only after a while.

/// Without descriptors, accepting is tried again after so long if no connection closes before.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Running out of descriptors is logged, and answered with the spare one, no more often than this:
/// the others may wait in the kernel's queue for a place.
pub(super) const STARVED_EVERY: Duration = Duration::from_secs(1);

/// A complaint that clients or a slow handler could repeat is logged no more often than this.
pub(crate) const LOG_EVERY: Duration = Duration::from_secs(10);

/// Errors of a datagram socket in a row after which it rests: asking on and on would keep the loop
/// busy with nothing else.
pub(crate) const DATAGRAM_ERRORS: u32 = 16;

/// How long a datagram socket rests that only fails.
pub(crate) const DATAGRAM_REST: Duration = Duration::from_secs(1);

// What else is bounded.

/// Where the system is to choose a port for two families: how many ports that are free for the one
/// are tried for the other.
pub(super) const PORTS_TRIED: usize = 16;

/// Calls of hooks between two readings of the clock: a reading costs as much as a short line, and
/// so many calls together must not hold the loop either.
pub(super) const CALLS_PER_CLOCK_READING: u32 = 16;

/// Slots that a service begins with, and keeps while it has no connections: broadcasts walk over all
/// slots, and the memory of more is of use to others. Allocators take so many straight from the
/// system: only slots in use lie in memory, and growing leaves no smaller tables behind.
pub(super) const SLOTS_KEPT: usize = 2048;

/// Peers of which a service remembers what they have used of their rates: some 10 MB.
pub(super) const PEERS_REMEMBERED: usize = 65_536;

/// Books in which several cores write down what the peers of a service have: so many that cores seldom
/// wait for each other, and few enough that they cost next to nothing.
pub(super) const BOOKS: usize = 64;

/// How many of them are looked at for each that is new, to forget those that have paid: more than
/// one, so that they become fewer, and few enough that a newcomer costs next to nothing.
pub(super) const PEERS_CHECKED: usize = 8;

/// Connections that the log tells of for each turn, at the level `trace`: more than one line holds
/// nobody reads.
pub(super) const TOLD_PER_TURN: usize = 20;

/// How long a connection lingers at a shutdown, where its [`linger`](crate::Limits::linger) may be
/// minutes: the process should end soon.
pub(super) const LINGER_AT_SHUTDOWN: Duration = Duration::from_millis(500);

/// What one step of a turn has used up. The steps of a service are accepting, serving, timers,
/// messages and reaping; the handshakes of all services are one more. Each has a budget of its own,
/// so that none can use up another's.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Copies of broadcasts that it has queued.
    copies: usize,
    /// Length of the arena when it began.
    arena_began: usize,
    /// Time that handshakes have taken.
    pub(super) spent: Nanos,
}

impl Step {
    /// Counts a broadcast to so many connections.
    pub(super) fn count_copies(&mut self, receivers: usize) {
        self.copies += receivers;
    }

    /// Counts one step of a handshake, beside what its layer adds to `spent`.
    pub(super) fn count_handshake(&mut self) {
        self.spent = self.spent.saturating_add(HANDSHAKE_STEP);
    }
}

impl Turn {
    pub(super) fn begin_step(&mut self) {
        self.step = Step { copies: 0, arena_began: self.arena.len(), spent: 0 };
    }

    /// The step has caused as much output as it may; the rest is for the next turn.
    pub(super) fn step_is_spent(&self) -> bool {
        self.step.copies > COPIES_PER_STEP
            || self.arena.len() - self.step.arena_began > OUTPUT_PER_STEP
            || self.step.spent >= HANDSHAKES_PER_TURN
    }
}
