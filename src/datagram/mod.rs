//! UDP in the same loop: a datagram socket with its handler is a service like any other. What is
//! about connections is not here; the loop is that of `reactor`, whose public methods for datagrams
//! are in this file.
//!
//! Read `handler` first (the hooks and their contract), then `context` (what a hook can do) and
//! `options`. `service` has the steps of a turn; it works on an `endpoint`, which is a `socket` and
//! what waits in its `outbox`.

mod context;
pub(crate) mod endpoint;
mod handler;
mod options;
mod outbox;
pub(crate) mod service;
pub(crate) mod socket;

pub use context::DatagramContext;
pub use handler::DatagramHandler;
pub use options::DatagramOptions;

use endpoint::Endpoint;
use service::Datagrams;
use socket::Socket;

use crate::error::Error;
use crate::net::{Address, ToAddress};
use crate::reactor::handle::Mailbox;
use crate::reactor::loop_state::ServiceEntry;
use crate::reactor::service::type_name_of;
use crate::reactor::{Reactor, Service};

impl<'h> Reactor<'h> {
    /// Serves a protocol of datagrams (UDP) at an address, with the default [`DatagramOptions`].
    ///
    /// Port 0 asks for a free port. A multicast address is joined. Of a [host](crate::Host), the
    /// first address is taken that can be bound; its name is looked up at once, which blocks. The
    /// service that is returned knows its address and can post to the handler. It neither listens
    /// for connections nor dials.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Lookup`], [`Error::Listen`], [`Error::TooManyServices`] and
    /// [`Error::ShuttingDown`]. The reactor is then as it was before.
    pub fn datagrams<H>(
        &mut self,
        address: impl ToAddress,
        handler: H,
    ) -> Result<Service<H::Message>, Error>
    where
        H: DatagramHandler + 'h,
    {
        self.datagrams_with(address, handler, DatagramOptions::default())
    }

    /// As [`datagrams`](Self::datagrams), with options of your own: multicast, broadcast, limits.
    ///
    /// # Errors
    /// Those of [`datagrams`](Self::datagrams); [`Error::Limit`] for an option out of its range, and
    /// [`Error::Address`] for a group that is not a multicast address or of the wrong family.
    pub fn datagrams_with<H>(
        &mut self,
        address: impl ToAddress,
        handler: H,
        options: DatagramOptions,
    ) -> Result<Service<H::Message>, Error>
    where
        H: DatagramHandler + 'h,
    {
        let address = address.to_address()?.resolve()?;
        let index = self.next_index()?;
        let mut bound = Err(Error::Address {
            text: address.to_string(),
            why: "datagrams go between IP addresses: write HOST:PORT".to_owned(),
        });
        for wanted in address.as_sockets() {
            options.check(*wanted)?;
            bound = match self.state.inherited_datagrams(*wanted) {
                Some(socket) => Socket::inherited(socket),
                None => Socket::bind(*wanted, &options),
            };
            if bound.is_ok() {
                break;
            }
        }
        let (socket, local) = bound?;
        let mut endpoint = Endpoint::new(index, type_name_of::<H>(), socket, local, options);
        endpoint.register(&self.state).map_err(|error| Error::listen(&address, error))?;
        let (mailbox, handle) = Mailbox::new(&self.state.shared);
        let entry = ServiceEntry::new(type_name_of::<H>(), false, mailbox.identity());
        self.state.enter(index, entry);
        let mut service = Datagrams::new(handler, endpoint, mailbox);
        service.call(&mut self.state, H::on_bound);
        self.put(index, Box::new(service));
        Ok(Service { index, address: Some(Address::Tcp(local)), handle })
    }
}
