//! Changes to all cores, from any thread.

use std::fmt;

use super::Cores;
use crate::error::Error;
use crate::reactor::Handle;

/// A change to all cores.
pub(super) type Change<'h> = Box<dyn FnOnce(&mut Cores<'h>) + Send + 'h>;

/// Changes [`Cores`] while they run, from any thread: adds, changes and removes services, sets limits. It can be
/// cloned, and [`Cores::remote`] gives it.
///
/// A change is a closure, and a channel brings its result back:
///
/// ```
/// use std::sync::mpsc::channel;
/// use reactor::{Callbacks, Cores, Error, Limits};
///
/// let mut cores = Cores::new(2)?;
/// let remote = cores.remote();
/// std::thread::spawn(move || -> Result<(), Error> {
///     // Slow work, such as reading a file, belongs here: the cores serve meanwhile.
///     let (tell, told) = channel();
///     remote.post(move |cores| {
///         let echo = |_| Callbacks::new().on_line(|cx, line: &[u8]| _ = cx.send(line));
///         let _ = tell.send(cores.listen("127.0.0.1:0", echo));
///     })?;
///     // A change that is dropped drops its end of the channel.
///     let echo = told.recv().unwrap_or(Err(Error::ShuttingDown))?;
///     println!("try: nc 127.0.0.1 {}", echo.port());
///     remote.post(move |cores| {
///         let limits = Limits { max_connections: 500, ..Limits::default() };
///         if let Err(error) = cores.set_limits(&echo, limits) {
///             eprintln!("{error}");
///         }
///         # cores.first().stop();
///     })
/// });
/// cores.run()?;
/// # Ok::<(), Error>(())
/// ```
///
/// The example `changing` is a whole program.
///
/// Do not wait for the result in a hook: the first core would wait for itself.
///
/// [`Spread`](crate::Spread), [`Limits`](crate::Limits), [`Networks`](crate::Networks) and
/// [`Address`](crate::Address) can be sent along in the closure. [`Listen`](crate::Listen), `Tls` and
/// `WebSocket` cannot, since they are not [`Send`]: make them in the closure.
pub struct Remote<'h>(pub(super) Handle<Change<'h>>);

impl<'h> Remote<'h> {
    /// Has a change made between two turns of the first core, which it holds up for as long as it takes.
    /// Changes of one thread are made in their order. What a change does to other cores they do after their
    /// next turn, in the order of the changes too, but that they hear one turn later of a service that is
    /// removed.
    ///
    /// A shutdown that is asked for after this begins after the change. But from the moment that it is asked
    /// for, what it does to services gives [`Error::ShuttingDown`]. Changes are dropped that are posted
    /// after that, or that do not fit into the [shutdown timeout](Cores::set_shutdown_timeout); the log says
    /// how many. The other cores drop what has not reached them when their shutdown begins.
    ///
    /// A panic in a change is logged, and the cores go on. What the change had done by then stays.
    ///
    /// # Errors
    /// [`Error::ShuttingDown`] if the first core has ended. The change is dropped.
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
