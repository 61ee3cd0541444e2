//! The way to all cores from any thread.

use std::fmt;

use super::Cores;
use crate::error::Error;
use crate::reactor::Handle;

/// Something to do with all cores.
pub(super) type Change<'h> = Box<dyn FnOnce(&mut Cores<'h>) + Send + 'h>;

/// Changes the [cores](Cores) while they run, from any thread: adds services, removes them, sets limits.
///
/// ```
/// use reactor::{Callbacks, Cores, Error};
///
/// let mut cores = Cores::new(2)?;
/// let remote = cores.remote();
/// std::thread::spawn(move || -> Result<(), Error> {
///     // What takes long, such as to read a file, is done here: the cores serve meanwhile.
///     remote.post(|cores| {
///         let echo = |_| Callbacks::new().on_line(|cx, line: &[u8]| _ = cx.send(line));
///         match cores.listen("127.0.0.1:0", echo) {
///             Ok(echo) => println!("try: nc 127.0.0.1 {}", echo.port()),
///             Err(error) => eprintln!("{error}"),
///         }
///         # cores.first().stop();
///     })
/// });
/// cores.run()?;
/// # Ok::<(), Error>(())
/// ```
pub struct Remote<'h>(pub(super) Handle<Change<'h>>);

impl<'h> Remote<'h> {
    /// Has a change made between two turns of the first core, which it holds up for as long as it takes.
    /// Changes of one thread are made in their order. What a change does to other cores they do after their
    /// next turn, in the order of the changes too, but that they hear one turn later of a service that is
    /// removed.
    ///
    /// A stop that is asked for after this comes after the change; but once it is asked for nothing new
    /// begins, and [`Error::ShuttingDown`] is what a change hears that adds or binds. A change that is posted
    /// after the stop is dropped, and so are those that the [time](Cores::set_shutdown_timeout) for a
    /// shutdown is too short for; the log says how many. Other cores drop what has not reached them before
    /// their shutdown has begun.
    ///
    /// A panic in a change is logged and the cores go on; what it had changed by then stays.
    ///
    /// # Errors
    /// [`Error::ShuttingDown`] when the first core has ended: the change is dropped.
    pub fn post(&self, change: impl FnOnce(&mut Cores<'h>) + Send + 'h) -> Result<(), Error> {
        self.0.post(Box::new(change)).map_err(|_| Error::ShuttingDown)
    }
}

impl Clone for Remote<'_> {
    fn clone(&self) -> Self {
        Remote(self.0.clone())
    }
}

impl fmt::Debug for Remote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
