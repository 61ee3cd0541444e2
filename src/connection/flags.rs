//! The yes-or-no facts of a connection, a bit each: a byte each would be a tenth of what an idle
//! connection costs.

/// Each for its own reason to wait or to be visited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flag {
    /// The socket may have input: set by an event, cleared by WouldBlock or a short read.
    Readable,
    /// A short read proves nothing here, so reading goes on until WouldBlock: the peer has shut
    /// its side (data and FIN can share one edge), or has sent urgent data or, over a Unix
    /// socket, a descriptor (the kernel stops a read there).
    ReadOn,
    /// A read gave the end of input.
    Eof,
    /// The handler has been told of the end of input.
    EofTold,
    /// A line above the limit came; nothing after it is interpreted.
    Overlong,
    /// The handler has ended our side: no more output is taken, and once all is sent the write
    /// side is shut.
    Finished,
    /// The handler paused reading.
    Paused,
    /// It has used up its [`rate`](crate::Limits::rate) for now.
    Throttled,
    /// Its own unsent replies are past the high-water mark.
    Held,
    /// The kernel takes no output until an event says so.
    Blocked,
    /// It stands in the ready list.
    Queued,
    /// It stands in the list of those to flush.
    Dirty,
    /// It stands in the list of those to end.
    Ending,
    /// `on_open` was called and `on_close` not yet.
    Open,
    /// It was dialled rather than accepted.
    Outbound,
    /// Its end is to be reported though it never opened: an outbound connection that failed.
    Failed,
    /// It was accepted and has not done its handshake: it counts, but the handler does not know.
    Handshaking,
    /// The selector has told of an error of its socket, which a read would give.
    Broken,
    /// The handler asked to be told when there is room for more output.
    Drain,
    /// It runs over two descriptors, not over a socket: what is unread in them is for whoever reads
    /// them next.
    Descriptors,
    /// Nothing more reaches the peer, since a write has failed. What has come from it is still
    /// handled; then the connection ends, for the reason that it has by now.
    Gone,
}

/// Those that hold now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    #[inline]
    pub(crate) fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Flag, holds: bool) {
        // Without a branch: what holds is seldom known beforehand.
        self.0 = self.0 & !(1 << flag as u32) | u32::from(holds) << flag as u32;
    }

    /// Clears it; says whether it held.
    pub(crate) fn take(&mut self, flag: Flag) -> bool {
        let held = self.has(flag);
        self.set(flag, false);
        held
    }
}
