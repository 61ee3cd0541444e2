//! The PROXY protocol: a header in front of a connection's bytes in which a proxy says who the
//! client is. `header` reads and makes one; `receiving` and `sending` are the layers that have done
//! their work once it has been read or sent, and give way to the stream below.

pub(crate) mod header;
mod receiving;
mod sending;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use thiserror::Error;

use self::header::Origin;
use self::receiving::Receiving;
pub(crate) use self::sending::{Sending, Whom};
use super::Networks;
use super::layer::Acceptor;
use super::stream::Stream;

/// What the layer is called in front of an address.
const NAME: &str = "proxy";

/// Puts the layer that reads the header over newcomers, with the rules for those that it names.
#[derive(Clone, Debug)]
pub(crate) struct Proxied(Rc<Rules>);

#[derive(Debug)]
struct Rules {
    /// Where clients may come from; none for anywhere.
    allow: Option<Networks>,
    /// Whether the limits say how much one address may have.
    per_peer: bool,
}

/// Why a newcomer is turned away after it came from a proxy that is believed.
#[derive(Debug, Error)]
pub(crate) enum Rejected {
    #[error("it must begin with a PROXY header: {0}")]
    Header(header::Fault),
    #[error("{0} is in none of the allowed networks")]
    NotAllowed(IpAddr),
    #[error("its PROXY header names no address that could be judged")]
    Unknown,
}

impl Proxied {
    pub(crate) fn new(allow: Option<Networks>, per_peer: bool) -> Proxied {
        Proxied(Rc::new(Rules { allow, per_peer }))
    }
}

impl Acceptor for Proxied {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accept(&self, newcomer: Stream) -> io::Result<Stream> {
        Ok(Stream::layer(Receiving::new(newcomer, Rc::clone(&self.0))))
    }
}

impl Rules {
    /// Gives the client's address; none for one that keeps the address of the proxy.
    fn judge_peer(&self, origin: Origin) -> Result<Option<SocketAddr>, Rejected> {
        match (origin, &self.allow) {
            (Origin::Local, _) => Ok(None),
            // It would be judged by the proxy's address, which all others have too.
            (Origin::Unknown, Some(_)) => Err(Rejected::Unknown),
            (Origin::Unknown, None) if self.per_peer => Err(Rejected::Unknown),
            (Origin::Unknown, None) => Ok(None),
            (Origin::Client { source, .. }, Some(allow)) if !allow.contain(source.ip()) => {
                Err(Rejected::NotAllowed(source.ip()))
            }
            (Origin::Client { source, .. }, _) => Ok(Some(source)),
        }
    }
}

impl Rejected {
    /// The reason that an error has, if it is one of these.
    pub(crate) fn of(error: &io::Error) -> Option<&Rejected> {
        error.get_ref()?.downcast_ref()
    }
}

/// What is no header is a handshake that failed. A client that is not allowed was refused, and no other
/// handshake of a newcomer fails with this kind.
impl From<Rejected> for io::Error {
    fn from(why: Rejected) -> io::Error {
        let kind = match why {
            Rejected::Header(_) => ErrorKind::InvalidData,
            Rejected::NotAllowed(_) | Rejected::Unknown => ErrorKind::PermissionDenied,
        };
        io::Error::new(kind, why)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::net::layer::Opened;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (mio::net::UnixStream::from_std(ours).into(), theirs)
    }

    fn peer(opened: io::Result<Option<Opened>>) -> Option<SocketAddr> {
        opened.unwrap().expect("the header is there").peer
    }

    #[test]
    fn it_gives_way_to_the_socket_with_all_that_follows() {
        let (socket, mut theirs) = pair();
        let mut stream = Proxied::new(None, false).accept(socket).unwrap();
        assert!(stream.handshake(1, &mut 0).unwrap().is_none());
        theirs.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 5 6\r\nhello").unwrap();
        assert_eq!(peer(stream.handshake(1, &mut 0)), Some(([192, 0, 2, 7], 5).into()));
        assert!(matches!(stream, Stream::Socket(_)));
        let mut buf = [0; 100];
        let count = stream.read(&mut buf).unwrap();
        assert_eq!(&buf[..count], b"hello");
    }

    #[test]
    fn it_gives_way_once_the_header_is_sent() {
        let (socket, mut theirs) = pair();
        let mut stream = Stream::layer(Sending::new(socket, Whom::Ourselves, None));
        assert_eq!(peer(stream.handshake(1, &mut 0)), None);
        assert!(matches!(stream, Stream::Socket(_)));
        stream.write_all(b"hello").unwrap();
        stream.shutdown_write().unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [&header::write(None)[..], b"hello"].concat());
    }

    #[test]
    fn a_client_without_an_address_is_refused_where_somebody_would_judge_it() {
        let all = || "0.0.0.0/0,::/0".parse().ok();
        for (allow, per_peer, served) in
            [(None, false, true), (None, true, false), (all(), false, false)]
        {
            let rules = Rules { allow, per_peer };
            assert_eq!(rules.judge_peer(Origin::Unknown).is_ok(), served);
            assert!(matches!(rules.judge_peer(Origin::Local), Ok(None)));
        }
    }
}
