use std::process::{ExitCode, Termination};

/// How a reactor came to its end. A `main` may return it, in a `Result` too: a clean end is exit
/// status 0, the other 1.
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

impl Termination for Exit {
    fn report(self) -> ExitCode {
        match self {
            Exit::Clean => ExitCode::SUCCESS,
            Exit::Cut { .. } => ExitCode::FAILURE,
        }
    }
}
