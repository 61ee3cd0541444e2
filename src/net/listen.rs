use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use super::inherited::{self, Inherited};
use super::layer::{Acceptor, Elsewhere};
use super::proxy::Proxied;
use super::{Address, Networks, ToAddress};
use crate::error::Error;

/// Where to listen, and which clients may come: for [`Reactor::listen`](crate::Reactor::listen) where an
/// address alone does not say enough.
///
/// At the path of a Unix socket, what a server of the same user has left there that is gone is
/// replaced; anything else that is there is an error, and stays. For as long as it is listened on,
/// `PATH.lock` is there and locked, so that two servers that start at once do not replace each other.
/// It is removed along with the socket at the end; one that a killed server left is used again.
///
/// This is not [`Send`]: make it in the thread that runs the loop, for a [`Remote`](crate::Remote) in the
/// change itself.
///
/// ```
/// use reactor::{Listen, Reactor};
/// # let path = std::env::temp_dir().join(format!("reactor-doc-{}.sock", std::process::id()));
/// # let shout = reactor::Callbacks::new();
///
/// let mut reactor = Reactor::new()?;
/// let inside = Listen::at("0.0.0.0:0")?.allow("127.0.0.0/8,192.168.0.0/16".parse()?);
/// let service = reactor.listen(inside, shout)?;
/// // The same handler for those of our group, over a Unix socket.
/// reactor.bind(&service, Listen::at(path.as_path())?.unix_mode(0o660))?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Listen {
    pub(crate) address: Address,
    /// A socket that listens there already; none if it is still to be opened.
    pub(crate) socket: Option<Rc<Inherited>>,
    pub(crate) unix_mode: Option<u32>,
    pub(crate) allow: Option<Networks>,
    /// Who may come over a Unix socket; none for everybody.
    pub(crate) uids: Option<Vec<u32>>,
    /// Whose PROXY headers are believed; none where there are no headers.
    pub(crate) proxies: Option<Networks>,
    /// What newcomers speak, in the order of the bytes on the wire, from the outside in, but for a
    /// PROXY header, which comes before all of it.
    pub(crate) layers: Vec<Rc<dyn Acceptor>>,
}

impl Listen {
    /// Listens there; every client that reaches it may come.
    ///
    /// # Errors
    /// [`Error::Address`] where text is no address.
    pub fn at(address: impl ToAddress) -> Result<Listen, Error> {
        Ok(Listen::plain(address.to_address()?, None))
    }

    fn plain(address: Address, socket: Option<Inherited>) -> Listen {
        Listen {
            unix_mode: socket.as_ref().and_then(|_| inherited::unix_mode(&address)),
            address,
            socket: socket.map(Rc::new),
            allow: None,
            uids: None,
            proxies: None,
            layers: Vec::new(),
        }
    }

    /// Listens at a socket that another program has opened, such as systemd before it starts a service, or
    /// an older process that hands its listener to its successor. Clients that connect before the loop runs
    /// wait in the socket's queue, and so do those that connect after the loop has ended.
    ///
    /// The socket becomes non-blocking, and gets the TCP options of the [limits](crate::Limits), for every
    /// process that shares it. The length of its queue is what its opener chose. The socket stays open for
    /// as long as this value or a clone of it lives, so a later loop can listen there with a clone.
    ///
    /// A child process usually inherits the socket as a descriptor, of which `std` makes a [`TcpListener`]:
    /// `TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?)` if it is standard input. For those of
    /// systemd, the crate `listenfd` needs no `unsafe` code.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use reactor::{Listen, Reactor};
    /// # let shout = reactor::Callbacks::new();
    ///
    /// let opened = TcpListener::bind("127.0.0.1:0")?;
    /// let mut reactor = Reactor::new()?;
    /// let service = reactor.listen(Listen::from_tcp(opened)?, shout)?;
    /// println!("try: nc 127.0.0.1 {}", service.port());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if it does not listen, as a connection, or is no TCP socket.
    pub fn from_tcp(listener: TcpListener) -> Result<Listen, Error> {
        let (socket, address) = Inherited::from_tcp(listener)?;
        Ok(Listen::plain(address, Some(socket)))
    }

    /// As [`from_tcp`](Self::from_tcp), at a Unix socket. The path belongs to the program that opened the
    /// socket: it is neither locked nor removed at the end, and [`unix_mode`](Self::unix_mode) does not
    /// apply.
    ///
    /// # Errors
    /// [`Error::Io`] if it does not listen, or has an abstract name instead of a path.
    pub fn from_unix(listener: UnixListener) -> Result<Listen, Error> {
        let (socket, address) = Inherited::from_unix(listener)?;
        Ok(Listen::plain(address, Some(socket)))
    }

    /// The permissions of a Unix socket's file, as `0o660`: a user that may write to it may connect.
    /// It is never more open than that, not while it is made either. Without it the process's umask
    /// decides. It does not apply to TCP, nor to a socket that another program has opened.
    ///
    /// More than `0o777` is [`Error::Listen`] when it is listened on.
    pub fn unix_mode(self, mode: u32) -> Listen {
        match self.socket {
            Some(_) => self,
            None => Listen { unix_mode: Some(mode), ..self },
        }
    }

    /// Whether it asks who comes: for a certificate, or as a Unix socket that not every user may write to.
    pub(crate) fn is_guarded(&self) -> bool {
        let for_all = self.uids.is_none() && self.unix_mode.is_some_and(|mode| mode & 0o002 != 0);
        let by_user = matches!(self.address, Address::Unix(_)) && !for_all;
        by_user || self.layers.iter().any(|layer| layer.asks_who())
    }

    /// The same socket under other rules.
    pub(crate) fn under(&self, rules: &Listen) -> Listen {
        let mut rules = Listen { address: self.address.clone(), ..rules.clone() };
        if self.socket.is_some() {
            // Its mode belongs to the program that opened it.
            (rules.socket, rules.unix_mode) = (self.socket.clone(), self.unix_mode);
        }
        rules
    }

    /// What newcomers speak, from the outside in. `per_peer` says whether limits depend on who they are.
    pub(crate) fn all_layers(&self, per_peer: bool) -> Vec<Rc<dyn Acceptor>> {
        // Who may come is judged once the header has said who comes.
        let proxied =
            || -> Rc<dyn Acceptor> { Rc::new(Proxied::new(self.allow.clone(), per_peer)) };
        self.proxies.iter().map(|_| proxied()).chain(self.layers.iter().cloned()).collect()
    }

    /// The same for another thread, at the address in force.
    pub(crate) fn elsewhere(&self, address: Address) -> ListenElsewhere {
        ListenElsewhere {
            address,
            unix_mode: self.unix_mode,
            allow: self.allow.clone(),
            uids: self.uids.clone(),
            proxies: self.proxies.clone(),
            layers: self.layers.iter().map(|layer| layer.elsewhere()).collect(),
        }
    }

    /// Only a client that comes from one of these networks is served. The others are closed without a word
    /// before the handler hears of them, and count as [refused](crate::Counters::refused). Over
    /// Unix sockets, where there are no such addresses, it says nothing; see
    /// [`allow_uids`](Self::allow_uids). Behind a
    /// [proxy](Self::proxy) it is about the client that the header names.
    ///
    /// An address proves no identity: only clients that cannot send from one of these are kept out.
    pub fn allow(self, networks: Networks) -> Listen {
        Listen { allow: Some(networks), ..self }
    }

    /// Only clients of these users are served at a Unix socket, whatever the modes of its file and of
    /// the folders above it are. The others are closed without a word before the handler hears of them,
    /// and count as [refused](crate::Counters::refused). It is about who connects to the socket, also
    /// where that is a [proxy](Self::proxy); to TCP it says nothing.
    ///
    /// Root is a user like others: who wants to let it in names 0. On a system that does not tell who
    /// connects, which are few, it is [`Error::Listen`] when it is listened on. Of several calls the
    /// last one decides.
    ///
    /// ```
    /// use reactor::Listen;
    ///
    /// let private = Listen::at("unix:/run/own.sock")?.unix_mode(0o666).allow_uids([0, 1000]);
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn allow_uids(self, uids: impl IntoIterator<Item = u32>) -> Listen {
        Listen { uids: Some(uids.into_iter().collect()), ..self }
    }

    /// Expects every connection there to begin with a header of the PROXY protocol, version 1 or 2,
    /// as HAProxy, nginx and the balancers of clouds send one. From then on the client that it names
    /// is the [peer](crate::Context::peer_addr): for the handler, in the log, for
    /// [`allow`](Self::allow) and for the limits. The handler does not notice.
    ///
    /// * Only proxies from these networks are believed, and those that reach a Unix socket; see
    ///   [`Networks::loopback`]. Whoever else comes is closed without a word and counts as
    ///   [refused](crate::Counters::refused), since an address that may be forged is worse than none.
    ///   For the same reason a connection without a header is never served.
    /// * A header has [`handshake_timeout`](crate::Limits::handshake_timeout), in any pieces. One that
    ///   is missing, malformed, or longer than 107 bytes in version 1 or 552 in version 2 counts in
    ///   [`handshakes_failed`](crate::Counters::handshakes_failed); the client hears nothing.
    /// * A connection of the proxy's own (`LOCAL`, a health check) is served under the proxy's
    ///   address, whatever `allow` says. A client whose address the header does not tell (`UNKNOWN`,
    ///   a Unix socket) is refused if `allow` or a limit by peer is set
    ///   ([`max_per_peer`](crate::Limits::max_per_peer) and the like), and otherwise served likewise.
    /// * TLVs are read over; if one of them is a checksum, it must be right. Where there is TLS as
    ///   well, the header comes before it.
    ///
    /// Without this call no header is looked for, and one that comes is input of the handler. Of several
    /// calls the last one decides. It needs no feature.
    ///
    /// ```
    /// use reactor::{Listen, Networks};
    ///
    /// let here = Listen::at("127.0.0.1:0")?.proxy(Networks::loopback());
    /// let inside = Listen::at("0.0.0.0:0")?.proxy("10.0.0.7,10.0.0.8".parse()?);
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn proxy(self, from: Networks) -> Listen {
        Listen { proxies: Some(from), ..self }
    }

    /// Speaks TLS there, from the first byte on. A plain connection cannot turn to TLS later, as
    /// STARTTLS does. The handler does not notice: it is told of a connection when the
    /// handshake is done, and all that holds for connections holds for the plaintext.
    ///
    /// * A handshake has [`handshake_timeout`](crate::Limits::handshake_timeout); one that fails
    ///   counts in [`handshakes_failed`](crate::Counters::handshakes_failed), and the handler
    ///   hears nothing of it. Until then too it counts as a connection for the limits.
    /// * To half-close is to say `close_notify`. A client that ends the connection without it,
    ///   as an attacker that cuts it could, ends with
    ///   [`ErrorKind::UnexpectedEof`](std::io::ErrorKind::UnexpectedEof): its whole lines are
    ///   handled and answered, an unfinished last one is not.
    /// * Newcomers that are refused are closed without their
    ///   [`farewell`](crate::Handler::farewell), which would cost a handshake each.
    /// * A connection takes some 8 KiB more memory, and up to 64 KiB of what it is sent lie
    ///   encrypted beyond the reach of its limits.
    ///
    /// Of several calls the last one decides: it takes the place of those before.
    ///
    /// Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &crate::net::tls::Tls) -> Listen {
        self.layers.retain(|layer| !crate::net::tls::is_tls(&**layer));
        self.layers.insert(0, tls.acceptor());
        self
    }

    /// Speaks WebSocket there, so that pages in browsers can connect: a line is a text message. The
    /// handler does not notice: it is told of a connection when the handshake is done, and all that
    /// holds for connections holds for the lines in the messages.
    ///
    /// * The request has [`handshake_timeout`](crate::Limits::handshake_timeout) and 8 KiB. What asks
    ///   for no WebSocket is told with status 426 what this port is. Pages of others are refused with
    ///   403; [`WebSocket::sites`](crate::WebSocket::sites) says which are ours. Either counts in
    ///   [`handshakes_failed`](crate::Counters::handshakes_failed) or
    ///   [`refused`](crate::Counters::refused), and the handler hears nothing of it. One too many is
    ///   told with 503 and the [`farewell`](crate::Handler::farewell).
    /// * [`max_line`](crate::Limits::max_line) bounds the lines in a message, whose own length means
    ///   nothing; [`line_timeout`](crate::Limits::line_timeout) is for a message that is not finished.
    ///   A ping is answered, and costs a line of the [rate](crate::Limits::rate).
    /// * A line that is not finished, such as a prompt, goes out as a fragment of a message: a page
    ///   does not see it before its end.
    /// * To half-close is to send a close frame. The one that answers the peer's goes out behind the
    ///   replies. It has code 1000, or 1001 at a shutdown, 1002 and 1007 for what breaks the protocol,
    ///   1009 for a line too long, 1008 for any other limit, 1012 at an upgrade. A client that ends without one ends with
    ///   [`ErrorKind::UnexpectedEof`](std::io::ErrorKind::UnexpectedEof): its whole lines are handled,
    ///   an unfinished last one is not. [`SlowConsumer`](crate::CloseReason::SlowConsumer) and the like
    ///   still are resets.
    ///
    /// Where there is TLS as well, it comes before it. Of several calls the last one decides. Needs
    /// the feature `websocket`.
    #[cfg(feature = "websocket")]
    pub fn web_socket(mut self, web_socket: &crate::net::websocket::WebSocket) -> Listen {
        self.layers.retain(|layer| !crate::net::websocket::is_web_socket(&**layer));
        self.layers.push(web_socket.acceptor());
        self
    }
}

/// A [`Listen`] on its way to another thread.
pub(crate) struct ListenElsewhere {
    address: Address,
    unix_mode: Option<u32>,
    allow: Option<Networks>,
    uids: Option<Vec<u32>>,
    proxies: Option<Networks>,
    layers: Vec<Elsewhere>,
}

impl ListenElsewhere {
    /// It has arrived.
    pub(crate) fn here(self) -> Listen {
        let ListenElsewhere { address, unix_mode, allow, uids, proxies, layers } = self;
        let layers = layers.into_iter().map(|layer| layer()).collect();
        Listen { address, socket: None, unix_mode, allow, uids, proxies, layers }
    }
}

/// What [`Reactor::listen`](crate::Reactor::listen) takes: all that is an address to
/// [`connect`](crate::Reactor::connect) too, or a [`Listen`].
pub trait ToListen {
    /// Where to listen and how.
    ///
    /// # Errors
    /// [`Error::Address`] where text is not an address.
    fn to_listen(self) -> Result<Listen, Error>;
}

impl<T: ToAddress> ToListen for T {
    fn to_listen(self) -> Result<Listen, Error> {
        Listen::at(self)
    }
}

impl ToListen for Listen {
    fn to_listen(self) -> Result<Listen, Error> {
        Ok(self)
    }
}
