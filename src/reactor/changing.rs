//! The public methods that change services while the loop runs. They are called between two turns, or before the
//! first one.

use super::listening::Bound;
use super::shutdown::Phase;
use super::{Reactor, Service};
use crate::error::Error;
use crate::limits::Limits;
use crate::net::{Address, Listen, ToListen};

impl Reactor<'_> {
    /// Replaces the limits of a service. The new limits apply at once, also to the connections that are open;
    /// the cost is proportional to their number.
    ///
    /// * A connection that exceeds a shorter timeout is closed, and its client is told so.
    /// * A lower [`max_connections`](Limits::max_connections) closes nobody. Newcomers are refused until
    ///   there are fewer connections than that.
    /// * A [`rate`](Limits::rate) that changes starts with its full burst, and so does a rate by peer. What
    ///   was used under the old rate is forgotten.
    /// * The connections that are open count for [`max_per_peer`](Limits::max_per_peer).
    /// * [`keepalive`](Limits::keepalive) and [`user_timeout`](Limits::user_timeout) are set on every open
    ///   socket. TCP counts the time that it has waited already.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Datagrams`], [`Error::Removed`], [`Error::ShuttingDown`]. The old limits
    /// stay in force.
    pub fn set_limits<M>(&mut self, service: &Service<M>, limits: Limits) -> Result<(), Error> {
        self.set_limits_at(self.place(service)?, limits)
    }

    /// Stops listening at an address. The connections of the service and its other listeners stay. For a
    /// [host](crate::Host), it stops listening at all of its addresses.
    ///
    /// The socket is closed before this returns, so another service can listen there at once. Clients that
    /// wait in the system's queue (4,096 at most) are accepted first, as far as there are descriptors, and
    /// are served in the next turns. A client that connects in the microseconds between the last accept and
    /// the close is reset.
    ///
    /// # Errors
    /// [`Error::NotListening`] says where the service does listen. [`Error::Lookup`],
    /// [`Error::Datagrams`], [`Error::Removed`], [`Error::ShuttingDown`].
    pub fn unbind<M>(&mut self, service: &Service<M>, address: &Address) -> Result<(), Error> {
        self.unbind_at(self.place(service)?, address)
    }

    /// Replaces the rules at an address that a service listens on: who may connect
    /// ([`allow`](Listen::allow), [`allow_uids`](Listen::allow_uids)), what clients speak
    /// ([`proxy`](Listen::proxy), `tls`, `web_socket`), and the mode of a Unix socket's file. The new rules
    /// apply to clients that are accepted from now on. The socket stays open, so clients that wait in its
    /// queue are not lost.
    ///
    /// All old rules are replaced, not merged: a plain address leaves none.
    ///
    /// ```
    /// use reactor::{Callbacks, Listen, Networks, Reactor};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let service = reactor.add(Callbacks::new(), Default::default())?;
    /// let address = reactor.bind(&service, "127.0.0.1:0")?; // with the real port
    /// reactor.rebind(&service, Listen::at(&address)?.allow(Networks::loopback()))?;
    /// reactor.rebind(&service, &address)?; // everybody may connect again
    /// reactor.unbind(&service, &address)?;
    /// # Ok::<(), reactor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotListening`] says where the service does listen. [`Error::Listen`] if the file cannot have
    /// that mode: somebody else has put a file there, or the socket was made with a
    /// [`unix_mode`](Listen::unix_mode) and now has none, since the mode that the umask would give is not
    /// known any more. Also the errors of [`listen`](Self::listen) and [`unbind`](Self::unbind). The old
    /// rules stay in force.
    pub fn rebind<M>(&mut self, service: &Service<M>, listen: impl ToListen) -> Result<(), Error> {
        self.rebind_at(self.place(service)?, listen.to_listen()?).map(drop)
    }

    /// Removes a service, which is a graceful [shutdown](Self::stop) of this service alone. It accepts and
    /// dials no more. When the messages that were posted before are handled,
    /// [`on_shutdown`](crate::Handler::on_shutdown) is called, and all connections are closed gracefully with
    /// [`CloseReason::Shutdown`](crate::CloseReason::Shutdown). Those that are still open after the
    /// [shutdown timeout](Self::set_shutdown_timeout), counted from this call, are cut off. Then the handler
    /// is dropped.
    ///
    /// This takes some turns, and [`status`](Self::status) shows the service until it is over. The key is
    /// invalid from now on, and no connection is handed over to the service.
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
    /// [`Error::Removed`] if it was removed before. [`Error::ShuttingDown`] if the reactor is shutting down,
    /// which ends this service too.
    pub fn remove<M>(&mut self, service: &Service<M>) -> Result<(), Error> {
        let place = self.place(service)?;
        self.may_change()?;
        self.remove_at(place);
        Ok(())
    }

    /// Reads the files of all listeners again, such as TLS certificates, for clients that are accepted from
    /// now on. The log has the result. A file that cannot be read changes nothing. With the feature
    /// `signals`, `reload_on_hangup` does this at SIGHUP.
    pub fn reload(&mut self) {
        self.reload_layers("");
    }

    /// Nothing can be changed once a shutdown has begun.
    pub(super) fn may_change(&self) -> Result<(), Error> {
        if self.state.is_ending() { Err(Error::ShuttingDown) } else { Ok(()) }
    }

    /// Nothing new begins where another loop goes on with the services, either.
    pub(crate) fn may_begin(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Running => self.may_change(),
            _ => Err(Error::ShuttingDown),
        }
    }
}

/// The same methods by the place of a service, for `cores`.
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
        self.may_begin()?;
        let listen = Listen { address: listen.address.resolve()?, ..listen };
        self.services[place].rebind(listen, &mut self.state)
    }
}
