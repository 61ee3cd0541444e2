/// How a reactor came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nobody had to be cut off: the kernel has taken all that was sent, or the client was gone
    /// or [closed](crate::CloseReason) for not taking it.
    Clean,
    /// Some did not take their last output before the shutdown timeout, or before a second
    /// signal.
    Cut {
        /// How many.
        connections: usize,
    },
}
