//! Datagram sockets in the same loop: one socket with its handler is a service like any other.

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
use crate::reactor::service::type_name_of;
use crate::reactor::{Reactor, Service};

impl<'h> Reactor<'h> {
    /// Serves a protocol of datagrams (UDP) at an address, with the default [`DatagramOptions`].
    /// Port 0 asks for a free port; a multicast address is joined. The service that it gives
    /// knows its address and posts to the handler; it neither listens nor dials. Of a
    /// [host](crate::Host) it is the first address that can be had.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Lookup`], [`Error::Listen`] (with the remedy),
    /// [`Error::TooManyServices`], [`Error::ShuttingDown`]. The reactor goes on as if it had not been asked.
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
    /// Those of `datagrams`, [`Error::Limit`], and [`Error::Address`] for a group that is none.
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
            bound = Socket::bind(*wanted, &options);
            if bound.is_ok() {
                break;
            }
        }
        let (socket, local) = bound?;
        let mut endpoint = Endpoint::new(index, type_name_of::<H>(), socket, local, options);
        endpoint.register(&self.state).map_err(|error| Error::listen(&address, error))?;
        let (mailbox, handle) = Mailbox::new(&self.state.shared);
        let mut service = Datagrams::new(handler, endpoint, mailbox);
        service.call(&mut self.state, H::on_bound);
        self.services.push(Box::new(service));
        Ok(Service { index, address: Some(Address::Tcp(local)), handle })
    }
}
