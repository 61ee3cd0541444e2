//! TLS under a listener: the handler does not notice it.

mod files;
mod stream;

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::error::Error;

pub(crate) use stream::TlsStream;

/// A certificate and its key, for [`Listen::tls`](crate::Listen::tls). A clone is the same one:
/// what [`reload`](Self::reload) reads is used by all listeners that have it. It stays in its
/// thread: a reactor in another one reads the files for itself.
///
/// TLS 1.3 and 1.2, without client certificates.
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
        let Inner { certificate, key, .. } = &*self.0;
        let config = files::read(certificate, key, files::open_at_once)?;
        self.0.config.replace(config);
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.config.borrow())
    }

    #[cfg(feature = "signals")]
    pub(crate) fn certificate(&self) -> &std::path::Path {
        &self.0.certificate
    }

    #[cfg(feature = "signals")]
    pub(crate) fn is(&self, other: &Tls) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.0.certificate.display())
    }
}
