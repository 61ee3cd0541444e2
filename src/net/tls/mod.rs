//! TLS, under a listener and towards servers: the handler does not notice it.

mod certificate;
mod connector;
mod files;
mod records;
mod sentences;
mod stream;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{Connection, ServerConfig, ServerConnection};

pub use self::certificate::PeerCertificate;
pub use self::connector::TlsConnector;
pub(super) use self::connector::Towards;
use self::files::{Identity, Open};
pub(crate) use self::sentences::Refused;
pub(super) use self::stream::TlsStream;
use super::layer::{Acceptor, Elsewhere};
use super::stream::Stream;
use crate::error::Error;

/// What the layer is called in front of an address.
const NAME: &str = "tls";

/// A certificate and its key, for [`Listen::tls`](crate::Listen::tls). A clone is the same one:
/// what [`reload`](Self::reload) reads is used by all listeners that have it. It is not
/// [`Send`]: a reactor on another thread reads the files for itself.
///
/// TLS 1.3 and 1.2. Clients are asked for a certificate after [`client_ca`](Self::client_ca). Needs
/// the feature `tls`.
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
    /// Those whose clients may come; none where nobody is asked.
    client_ca: Option<PathBuf>,
    /// It has the sessions too. The cores that listen with it have the same; it is locked for no
    /// longer than it takes to clone or to replace it.
    config: Arc<Mutex<Arc<ServerConfig>>>,
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
        Inner::read(certificate.into(), key.into(), None)
    }

    /// Asks clients for a certificate, and lets nobody in without one that a CA in this PEM file has
    /// issued, for use by clients where it says for what, and that is valid now. Whom it names, a
    /// handler can [ask](crate::Context::peer_certificate). Clones that were made before do not ask.
    ///
    /// A client that is refused counts in
    /// [`handshakes_failed`](crate::Counters::handshakes_failed). Under TLS 1.3 it learns that after
    /// its own handshake is done. Whether a certificate was revoked is not looked at.
    ///
    /// # Errors
    /// [`Error::Certificate`] names the file and the remedy.
    pub fn client_ca(self, file: impl Into<PathBuf>) -> Result<Tls, Error> {
        Inner::read(self.0.certificate.clone(), self.0.key.clone(), Some(file.into()))
    }

    /// Reads the files again, for the connections that come from now on; those that are there
    /// keep what they have. All sessions are forgotten, so that no client resumes one for which it
    /// would not be let in any more. It reads from the disk, so the loop stands still that long; what has
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
    fn name(&self) -> &'static str {
        NAME
    }

    fn accept(&self, newcomer: Stream) -> io::Result<Stream> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let server = ServerConnection::new(Arc::clone(&config));
        drop(config);
        let server = Connection::Server(server.map_err(io::Error::other)?);
        Ok(Stream::layer(TlsStream::new(newcomer, server)))
    }

    fn elsewhere(&self) -> Elsewhere {
        let Inner { certificate, key, client_ca, config } = self;
        let (certificate, key, client_ca) = (certificate.clone(), key.clone(), client_ca.clone());
        let config = Arc::clone(config);
        Box::new(move || Rc::new(Inner { certificate, key, client_ca, config }))
    }

    fn asks_who(&self) -> bool {
        self.client_ca.is_some()
    }

    fn reload(&self) -> Result<Option<&Path>, Error> {
        self.read_again().map(|()| Some(&*self.certificate))
    }
}

impl Inner {
    fn read(certificate: PathBuf, key: PathBuf, ca: Option<PathBuf>) -> Result<Tls, Error> {
        let config = configure(&certificate, &key, ca.as_deref(), files::open)?;
        let config = Arc::new(Mutex::new(config));
        Ok(Tls(Rc::new(Inner { certificate, key, client_ca: ca, config })))
    }

    fn read_again(&self) -> Result<(), Error> {
        let Inner { certificate, key, client_ca, .. } = self;
        let config = configure(certificate, key, client_ca.as_deref(), files::open_at_once)?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

fn configure(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    open: Open,
) -> Result<Arc<ServerConfig>, Error> {
    let identity = Identity::read(certificate, key, open)?;
    let provider = Arc::new(ring::default_provider());
    let clients = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => {
            let roots = files::read_roots(path, open)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
            verifier.build().map_err(|error| Error::certificate(path, &error.to_string()))?
        }
    };
    identity.used(|chain, secret| {
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions()?;
        builder.with_client_cert_verifier(clients).with_single_cert(chain, secret).map(Arc::new)
    })
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
