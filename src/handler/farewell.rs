/// What a [`farewell`](Handler::farewell) is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Farewell {
    /// The newcomer is one too many for [`max_connections`](Limits::max_connections), or there
    /// is no file descriptor for it.
    TooManyConnections,
    /// The newcomer's address has [`max_per_peer`](Limits::max_per_peer) connections already.
    TooManyFromPeer,
    /// The line is not finished within [`line_timeout`](Limits::line_timeout).
    LineTimeout,
    /// The line is above [`max_line`](Limits::max_line).
    LineTooLong,
    /// Nothing moved for [`idle_timeout`](Limits::idle_timeout).
    IdleTimeout,
}
