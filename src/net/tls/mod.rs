//! TLS under a listener: the handler does not notice it.

mod files;
mod records;
mod stream;

use std::any::Any;
use std::cell::RefCell;
#[cfg(feature = "signals")]
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::{fmt, io};

use rustls::ServerConfig;

pub(super) use self::stream::TlsStream;
use super::layer::Acceptor;
use super::stream::Stream;
use crate::error::Error;

/// A certificate and its key, for [`Listen::tls`](crate::Listen::tls). A clone is the same one:
/// what [`reload`](Self::reload) reads is used by all listeners that have it. It stays in its
/// thread: a reactor in another one reads the files for itself.
///
/// TLS 1.3 and 1.2, without client certificates. Needs the feature `tls`.
///
/// ```no_run
/// use reactor::{Listen, Reactor, Tls};
///
/// let mut reactor = Reactor::new()?;
/// let tls = Tls::from_files("cert.pem", "key.pem")?;
/// reactor.listen(Listen::at("127.0.0.1:2323")?.tls(&tls), reactor::Callbacks::new())?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone)]
pub struct Tls(Rc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    config: RefCell<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads two PEM files: the server's certificate, followed by those between it and the root,
    /// and its private key (RSA, ECDSA or Ed25519; PKCS #8, PKCS #1 or SEC 1; not encrypted).
    ///
    /// # Errors
    /// [`Error::Certificate`] names the file and the remedy: missing, not readable, not PEM,
    /// expired or not valid yet, a key of another certificate, or something else for which nobody
    /// could connect, as more certificates than a handshake has room for.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Tls, Error> {
        let (certificate, key) = (certificate.into(), key.into());
        let config = RefCell::new(files::read(&certificate, &key, files::open)?);
        Ok(Tls(Rc::new(Inner { certificate, key, config })))
    }

    /// Reads the files again, for the connections that come from now on; those that are there
    /// keep what they have. It reads from the disk, so the loop stands still that long; what has
    /// become a pipe or a device meanwhile is not waited for.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files); then the old one stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        self.0.read_again()
    }

    pub(crate) fn acceptor(&self) -> Rc<dyn Acceptor> {
        Rc::clone(&self.0) as Rc<dyn Acceptor>
    }
}

/// Whether this layer is TLS.
pub(super) fn is_tls(layer: &dyn Acceptor) -> bool {
    (layer as &dyn Any).is::<Inner>()
}

impl Acceptor for Inner {
    fn accept(&self, newcomer: Stream) -> io::Result<Stream> {
        TlsStream::new(newcomer, Arc::clone(&self.config.borrow())).map(Stream::layer)
    }

    #[cfg(feature = "signals")]
    fn reload(&self) -> Result<Option<&Path>, Error> {
        self.read_again().map(|()| Some(&*self.certificate))
    }
}

impl Inner {
    fn read_again(&self) -> Result<(), Error> {
        let config = files::read(&self.certificate, &self.key, files::open_at_once)?;
        self.config.replace(config);
        Ok(())
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.certificate.display())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
