//! The kinds of client, in the order in which they come. `lines`: one client, and how it writes. `crowd`:
//! many of them, or one that is in the way of others. `restart`: the server as a process.

mod crowd;
mod lines;
mod restart;

use super::lab::{Judged, Lab};

const NO_USUAL: &str = "not tried: the first dialogue ends the connection";
const NOTHING_TO_SEND: &str =
    "not tried: the first dialogue sends nothing, or what comes decides what";
/// Growth of the memory that is no chance.
const GROWTH: u64 = 8 << 20;

/// A kind of client.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What it does.
    pub(super) does: &'static str,
    /// Why that matters: what in a server makes it fail.
    pub(super) why: &'static str,
    pub(super) judge: fn(&Lab) -> Judged,
}

/// Before the dialogues of the protocol come.
pub(super) const GREETING: Kind = Kind {
    name: "greeting",
    does: "connects and listens",
    why: "TCP does not say who speaks first, so the protocol must: a server that reads before it greets, or whose \
          greeting stays in a buffer (flush!), and a client that waits for it, wait for each other for ever.",
    judge: lines::greeting,
};

pub(super) use self::lines::dialogue;

/// What a client of a dialogue does.
pub(super) const DIALOGUE: &str = "holds this dialogue of the protocol";
/// Why it matters, where the protocol does not say it.
pub(super) const DIALOGUE_WHY: &str =
    "A protocol is a promise about bytes: clients of others rely on each of them.";

/// Behind the dialogues.
pub(super) const KINDS: [Kind; 14] = [
    Kind {
        name: "split",
        does: "sends each byte by itself",
        why: "TCP is a stream of bytes: what the client wrote at once may come in many reads. A server that takes \
              what a read (recv, 'data') gives for a line answers pieces; collect until the LF comes.",
        judge: lines::split,
    },
    Kind {
        name: "segment",
        does: "sends 100 requests at once, and then reads",
        why: "One read may bring many lines: a server that answers once a read, or forgets what stands behind \
              the first LF, loses the others. And replies come in the order of the lines, or nobody knows whose \
              they are.",
        judge: lines::segment,
    },
    Kind {
        name: "crlf",
        does: "ends its lines the other way: CRLF for LF",
        why: "telnet and Windows end lines with CRLF: a server that cuts at the LF alone takes the CR for a letter of \
              the line, and then commands are unknown and replies end in \\r.",
        judge: lines::other_line_end,
    },
    Kind {
        name: "last-line",
        does: "sends its last line without a line end, and ends its side",
        why: "The end of the input ends the last line too (printf hello | nc -N): a server that throws away what is \
              left in its buffer at the end loses it, and one that then does not close keeps the client waiting.",
        judge: lines::last_line,
    },
    Kind {
        name: "half-close",
        does: "asks, ends its side, and listens",
        why: "A client that has ended its side can still listen: a server that closes as soon as it reads the end loses \
              replies, and one that never closes keeps a socket, and a thread, for each client that has gone.",
        judge: lines::half_close,
    },
    Kind {
        name: "bytes",
        does: "sends bytes that are no text, and goes",
        why: "A server does not choose its input: an exception for one client's bytes (strict UTF-8, NUL, a telnet \
              command) that nobody catches ends the only thread there is.",
        judge: lines::garbage,
    },
    Kind {
        name: "endless-line",
        does: "sends 16 MiB without a line end",
        why: "A server that collects until the LF collects what anybody likes to send: readline and its like have \
              no bound of their own, so one client can take all memory.",
        judge: lines::endless,
    },
    Kind {
        name: "at-once",
        does: "is 100 clients, all connected, who then talk",
        why: "accept, talk, close, accept: such a server talks to one, and the others wait in the backlog, connected \
              and unheard. It needs a thread or a process for each, or one loop that asks which sockets are ready.",
        judge: crowd::at_once,
    },
    Kind {
        name: "silent",
        does: "is 20 clients who say nothing, and one who talks",
        why: "A blocking read waits as long as its client likes. Whoever reads from one client while others wait, or \
              has a fixed number of threads, is stopped by those who say nothing.",
        judge: crowd::silent,
    },
    Kind {
        name: "slow-reader",
        does: "asks and asks, and reads no reply",
        why: "Replies that a client does not read must wait somewhere. In the server's memory they grow without bound, \
              so it must stop reading that client; and if it waits in write with one thread for all, all wait.",
        judge: crowd::slow_reader,
    },
    Kind {
        name: "flood",
        does: "asks as fast as it can, beside one who is quiet",
        why: "One busy client must not have the loop for itself: a server that reads from one socket until there is \
              nothing left never comes to the others.",
        judge: crowd::flood,
    },
    Kind {
        name: "reset",
        does: "is gone without goodbye: in a line, and before the replies",
        why: "A reset is an error of read or of write (and SIGPIPE in C, which ends the process): it must end one \
              connection, and not the server.",
        judge: crowd::reset,
    },
    Kind {
        name: "churn",
        does: "connects, asks and goes, 200 times",
        why: "What a server takes for a client (a descriptor, a thread) it must give back when the client goes, or it \
              ends some day with 'too many open files'.",
        judge: crowd::churn,
    },
    Kind {
        name: "restart",
        does: "is connected while the server is killed and started again",
        why: "The killed server's connections stay in the kernel for a minute (TIME_WAIT) and hold its port: without \
              SO_REUSEADDR before bind a server cannot be started again at once.",
        judge: restart::restart,
    },
];
