use std::io;
use std::net::SocketAddr;

use super::proxy::{Sending, Whom};
use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls::{TlsConnector, Towards};
#[cfg(feature = "websocket")]
use super::websocket::{self, WebSocket};
use super::{Address, ToAddress};
use crate::error::Error;

/// Where to connect to, and what goes before the bytes of the handler: for
/// [`ServiceContext::connect`](crate::ServiceContext::connect),
/// [`Reactor::connect`](crate::Reactor::connect) and [`Redial`](crate::client::Redial) where an address
/// alone does not say enough.
///
/// ```
/// use reactor::{Callbacks, Connect, Limits, Reactor};
///
/// let mut reactor = Reactor::new()?;
/// let service = reactor.add(Callbacks::new(), Limits::default())?;
/// reactor.connect(&service, Connect::to("127.0.0.1:2323")?.proxy())?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Connect {
    pub(crate) address: Address,
    /// Whom a PROXY header names; none for no header.
    whom: Option<Whom>,
    #[cfg(feature = "tls")]
    tls: Option<Towards>,
    #[cfg(feature = "websocket")]
    web_socket: Option<websocket::Towards>,
}

impl Connect {
    /// Connects there, over TCP or a Unix socket, and sends nothing before the bytes of the handler.
    /// Nothing is looked up or dialled yet.
    ///
    /// # Errors
    /// [`Error::Address`] where text is no address.
    pub fn to(address: impl ToAddress) -> Result<Connect, Error> {
        address.to_address().map(Connect::from)
    }

    /// Sends a header of the PROXY protocol, version 2, before anything else. It names this end of
    /// the connection as the client; over a Unix socket it names nobody. The server must expect one:
    /// see [`Listen::proxy`](crate::Listen::proxy).
    pub fn proxy(self) -> Connect {
        Connect { whom: Some(Whom::Ourselves), ..self }
    }

    /// As [`proxy`](Self::proxy), in the name of a client: where it came from, and where it connected
    /// to. If one of them is none, as over a Unix socket, the header names nobody. If one
    /// is of IPv4 and the other of IPv6, the former is written as `::ffff:192.0.2.1`. Of several calls of
    /// `proxy` and this the last one decides.
    pub fn proxy_for(self, peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Connect {
        Connect { whom: Some(Whom::Client(peer.zip(local))), ..self }
    }

    /// Speaks TLS there, with a server that has a certificate for `server_name`: the name of a host,
    /// which need not be the one that is connected to, or an IP address. The handler does not notice:
    /// it is told of the connection when the handshake is done, and all that holds for connections
    /// holds for the plaintext.
    ///
    /// * [`connect_timeout`](crate::Limits::connect_timeout) includes the handshake. If it fails, the
    ///   connection has never been open, and
    ///   [`close_detail`](crate::Context::close_detail) says why.
    /// * Under TLS 1.3 a server that refuses our certificate, or the lack of one, says so only after
    ///   that: the connection opens, and closes with
    ///   [`ErrorKind::InvalidData`](std::io::ErrorKind::InvalidData) and such a sentence.
    /// * To half-close is to say `close_notify`. An end without it is
    ///   [`ErrorKind::UnexpectedEof`](std::io::ErrorKind::UnexpectedEof).
    ///
    /// Where there is a PROXY header as well, it goes before TLS. Of several calls the last one
    /// decides. Needs the feature `tls`.
    ///
    /// # Errors
    /// [`Error::Address`] where `server_name` is neither a name nor an address.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: &TlsConnector, server_name: &str) -> Result<Connect, Error> {
        Ok(Connect { tls: Some(tls.towards(server_name)?), ..self })
    }

    /// Speaks WebSocket there, as a client: a line is a text message, or what is
    /// [binary](WebSocket::binary) goes as it comes. The handler does not notice.
    ///
    /// * [`connect_timeout`](crate::Limits::connect_timeout) includes the handshake. If the server
    ///   answers with anything but WebSocket, the connection has never been open, and
    ///   [`close_detail`](crate::Context::close_detail) says why. It is asked for the path `/`.
    /// * To half-close is to send a close frame. An end without one is
    ///   [`ErrorKind::UnexpectedEof`](std::io::ErrorKind::UnexpectedEof).
    ///
    /// Where there is TLS as well, it goes before it. Of several calls the last one decides. Needs
    /// the feature `websocket`.
    #[cfg(feature = "websocket")]
    pub fn web_socket(self, web_socket: &WebSocket) -> Connect {
        Connect { web_socket: Some(web_socket.towards()), ..self }
    }

    /// The address that is connected to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Puts the layers over a stream that is being dialled.
    pub(crate) fn over(&self, stream: Stream) -> io::Result<Stream> {
        let stream = self.over_plaintext(stream);
        #[cfg(feature = "tls")]
        let stream = match &self.tls {
            Some(tls) => tls.over(stream)?,
            None => stream,
        };
        #[cfg(feature = "websocket")]
        let stream = match self.web_socket {
            Some(web_socket) => web_socket.over(stream, &self.address),
            None => stream,
        };
        Ok(stream)
    }

    /// As [`over`](Self::over), where nobody at the other end speaks TLS or WebSocket.
    pub(crate) fn over_plaintext(&self, stream: Stream) -> Stream {
        match self.whom {
            Some(whom) => Stream::layer(Sending::new(stream, whom, self.address.as_socket())),
            None => stream,
        }
    }
}

impl From<Address> for Connect {
    fn from(address: Address) -> Connect {
        Connect {
            address,
            whom: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "websocket")]
            web_socket: None,
        }
    }
}

/// What [`ServiceContext::connect`](crate::ServiceContext::connect) takes: all that is an address to
/// [`listen`](crate::Reactor::listen) at too, or a [`Connect`].
pub trait ToConnect {
    /// Where to connect to and how.
    ///
    /// # Errors
    /// [`Error::Address`] where text is not an address.
    fn to_connect(self) -> Result<Connect, Error>;
}

impl<T: ToAddress> ToConnect for T {
    fn to_connect(self) -> Result<Connect, Error> {
        Connect::to(self)
    }
}

impl ToConnect for Connect {
    fn to_connect(self) -> Result<Connect, Error> {
        Ok(self)
    }
}

impl ToConnect for &Connect {
    fn to_connect(self) -> Result<Connect, Error> {
        Ok(self.clone())
    }
}
