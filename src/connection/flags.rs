//! The yes-or-no facts of a connection, a bit each. A byte each would make every connection
//! 16 bytes larger.

/// Makes the flags and a list of all.
macro_rules! flags {
    ($($(#[$about:meta])* $flag:ident,)*) => {
        /// One such fact.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Flag {
            $($(#[$about])* $flag,)*
        }

        impl Flag {
            pub(super) const ALL: &[Flag] = &[$(Flag::$flag),*];
        }
    };
}

flags! {
    // What the socket has told.
    /// The socket may have input: set by an event, cleared by WouldBlock or a short read.
    Readable,
    /// A short read proves nothing, so reading goes on until WouldBlock. Set for good where the
    /// stream may read short, as a Unix socket does in front of a descriptor. Otherwise set by an
    /// event, since data and FIN can share one edge and a read stops at urgent data, and cleared by
    /// WouldBlock.
    ReadOn,
    /// A read gave the end of input.
    Eof,
    /// The kernel takes no output until an event says so.
    Blocked,
    /// The selector has told of an error of the socket, which a read would give.
    Broken,
    /// A read or a write has failed, so nothing more reaches the peer. What has come from it is
    /// still handled; then the connection ends, for the reason that it has by now.
    Gone,

    // Why its input is not handled. One of the first five ends by `stop_waiting`.
    /// The handler has paused it.
    Paused,
    /// It has used up its [`rate`](crate::Limits::rate), or its peer its
    /// [`peer_rate`](crate::Limits::peer_rate), for now.
    Throttled,
    /// Its unsent replies are past [`high_water`](crate::Limits::high_water).
    Held,
    /// The handler has [asked](crate::Context::request_report) for a report on its behalf.
    Asked,
    /// What it has said waits for other [cores](crate::Cores).
    Ahead,
    /// A line above [`max_line`](crate::Limits::max_line) came; nothing after it is handled.
    Overlong,

    // How its input is handled.
    /// What comes next is a block, not lines.
    InBlock,

    // What the handler has asked for, and what it has been told.
    /// The handler has ended our side: no more output is taken, and once all is sent the write
    /// side is shut.
    Finished,
    /// The handler asked to be told when there is room for more output.
    Drain,
    /// The handler has been told of the end of input.
    EofTold,
    /// `on_open` was called and `on_close` not yet.
    Open,
    /// It never opened and its end is to be told all the same: the handler dialled or adopted it.
    Failed,

    // What it is.
    /// It comes from another service and waits for its `on_open`.
    Arrived,
    /// It was dialled rather than accepted.
    Outbound,
    /// It was accepted and has not done the handshake of its layers. It counts as a connection, but
    /// the handler does not know of it.
    Handshaking,
    /// Its handshake has named its peer or is to do so, and the limits by peer were not asked for that
    /// address yet. It does not count for them.
    Unjudged,
    /// It runs over two descriptors, not over a socket. What is unread in them is for whoever
    /// reads them next.
    Descriptors,

    // Which of the reactor's lists it stands in.
    /// It stands in the ready list.
    Queued,
    /// It stands in the list of those to flush.
    Dirty,
    /// It stands in the list of those that have ended.
    Ending,
}

/// The flags that are set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags(u32);

/// Those for which input is not handled.
const HINDERING: u32 = 1 << Flag::Paused as u32
    | 1 << Flag::Throttled as u32
    | 1 << Flag::Held as u32
    | 1 << Flag::Asked as u32
    | 1 << Flag::Ahead as u32
    | 1 << Flag::Overlong as u32;

impl Flags {
    /// Whether any is set for which input is not handled: one test, of which the compiler makes several
    /// if it is written as such.
    #[inline]
    pub(crate) fn hinder_input(self) -> bool {
        self.0 & HINDERING != 0
    }

    /// Whether this flag is set.
    #[inline]
    pub(crate) fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    /// Sets the flag, or clears it.
    #[inline]
    pub(crate) fn set(&mut self, flag: Flag, holds: bool) {
        // Without a branch: what holds is seldom known beforehand.
        self.0 = self.0 & !(1 << flag as u32) | u32::from(holds) << flag as u32;
    }

    /// Clears the flag; says whether it was set.
    pub(crate) fn take(&mut self, flag: Flag) -> bool {
        let held = self.has(flag);
        self.set(flag, false);
        held
    }
}
