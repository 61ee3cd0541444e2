//! The public methods that change services while the loop runs: between two turns, and before the first.

use super::listening::Bound;
use super::{Reactor, Service};
use crate::error::Error;
use crate::limits::Limits;
use crate::net::{Address, Listen, ToListen};

impl Reactor<'_> {
    /// Has other limits hold for a service from now on, for the connections that are there too. It takes
    /// longer the more these are.
    ///
    /// * Whoever has been idle, or at a line, for longer than it may be now is closed as ever, with words.
    ///   But a lower number of connections closes nobody: who is one too many stays, and no other one may
    ///   come until there are fewer.
    /// * A [`rate`](Limits::rate) that changes begins with its whole burst; so do those by peer, whatever
    ///   has been used before.
    /// * For [`max_per_peer`](Limits::max_per_peer) those count that are there.
    /// * [`keepalive`](Limits::keepalive) and [`user_timeout`](Limits::user_timeout) are set anew on each
    ///   socket; what TCP has waited for so far counts.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Datagrams`], [`Error::Removed`], [`Error::ShuttingDown`]. Then the limits
    /// are those of before.
    pub fn set_limits<M>(&mut self, service: &Service<M>, limits: Limits) -> Result<(), Error> {
        self.set_limits_at(self.place(service)?, limits)
    }

    /// Has a service listen at an address no longer. Its connections stay, and so do its other listeners.
    /// Of a [host](crate::Host) all addresses go.
    ///
    /// The socket is closed at once, so that another service may listen there. Those whom the system has
    /// let in by then come first: they are served as newcomers in the next turns, as many as the system's
    /// queue may hold (4,096) and as there are descriptors for. Who is let in between the last look at that
    /// queue and the close, some microseconds, finds itself reset.
    ///
    /// # Errors
    /// [`Error::NotListening`] says where the service does listen. [`Error::Lookup`],
    /// [`Error::Datagrams`], [`Error::Removed`], [`Error::ShuttingDown`].
    pub fn unbind<M>(&mut self, service: &Service<M>, address: &Address) -> Result<(), Error> {
        self.unbind_at(self.place(service)?, address)
    }

    /// Has other rules hold at an address that a service listens on, for those who come from now on: who
    /// may come ([`allow`](Listen::allow), [`allow_uids`](Listen::allow_uids)), what they speak
    /// ([`proxy`](Listen::proxy), `tls`, `web_socket`), and the mode of a Unix socket's file. They take the
    /// place of all that held before: an address alone takes them away. The socket stays, and with it
    /// those who wait there.
    ///
    /// # Errors
    /// [`Error::NotListening`] says where the service does listen. [`Error::Listen`] where the file's mode
    /// cannot be what was asked for: it cannot become what the umask had made of it
    /// ([`unix_mode`](Listen::unix_mode)), and somebody else may have put a file there. Those of
    /// [`listen`](Self::listen) and [`unbind`](Self::unbind). Then the rules are those of before.
    pub fn rebind<M>(&mut self, service: &Service<M>, listen: impl ToListen) -> Result<(), Error> {
        self.rebind_at(self.place(service)?, listen.to_listen()?).map(drop)
    }

    /// Removes a service, as a [shutdown](Self::stop) of it alone: it accepts no newcomers and
    /// dials nobody, is told by [`on_shutdown`](crate::Handler::on_shutdown) once the messages are
    /// handled that were posted before, and all its connections are closed gracefully with
    /// [`CloseReason::Shutdown`](crate::CloseReason::Shutdown). Those that are still there when the
    /// [time for a shutdown](Self::set_shutdown_timeout) is over, counted from now, are cut off. Then the
    /// handler is dropped, and another service may have its place.
    ///
    /// It takes some turns; [`status`](Self::status) shows the service until then. Its key is of no more
    /// use from now on, and no connection is handed over to it.
    ///
    /// ```
    /// use reactor::{Callbacks, Error, Reactor};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let service = reactor.listen("127.0.0.1:0", Callbacks::new())?;
    /// reactor.remove(&service)?;
    /// assert!(matches!(reactor.bind(&service, "127.0.0.1:0"), Err(Error::Removed)));
    /// reactor.turn(None)?;
    /// assert!(reactor.status().services.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Removed`] if it was removed before, and [`Error::ShuttingDown`]: then it goes with the
    /// others.
    pub fn remove<M>(&mut self, service: &Service<M>) -> Result<(), Error> {
        let place = self.place(service)?;
        self.may_change()?;
        self.remove_at(place);
        Ok(())
    }

    /// Reads the files of the layers of all listeners again, as their certificates, for those who come
    /// from now on; the log says what came of it. What cannot be read stays as it was. With the feature
    /// `signals`, `reload_on_hangup` does the same.
    pub fn reload(&mut self) {
        self.reload_layers("");
    }

    /// A shutdown is the end of all changes.
    fn may_change(&self) -> Result<(), Error> {
        if self.state.is_ending() { Err(Error::ShuttingDown) } else { Ok(()) }
    }
}

/// The same by the place of the service, for several cores.
impl Reactor<'_> {
    pub(crate) fn set_limits_at(&mut self, place: usize, limits: Limits) -> Result<(), Error> {
        limits.check()?;
        self.may_change()?;
        self.state.tick();
        self.services[place].set_limits(limits, &mut self.state)
    }

    pub(crate) fn unbind_at(&mut self, place: usize, address: &Address) -> Result<(), Error> {
        self.may_change()?;
        let address = address.clone().resolve()?;
        self.services[place].unbind(&address, &mut self.state)
    }

    pub(crate) fn rebind_at(&mut self, place: usize, listen: Listen) -> Result<Bound, Error> {
        self.may_change()?;
        let listen = Listen { address: listen.address.resolve()?, ..listen };
        self.services[place].rebind(listen, &mut self.state)
    }
}
