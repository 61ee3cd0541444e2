use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore};

use super::files::{self, Identity};
use super::sentences::Verifier;
use super::stream::TlsStream;
use crate::error::Error;
use crate::net::stream::Stream;

/// Whom to trust when connecting with TLS, and our own certificate where servers ask for one: for
/// [`Connect::tls`](crate::Connect::tls). A clone shares the sessions, so that a second handshake
/// with a server costs less than the first.
///
/// TLS 1.3 and 1.2. A server must have a certificate for its name that a root has issued, valid now;
/// there is no way around it. Needs the feature `tls`.
///
/// ```no_run
/// use reactor::{Callbacks, Connect, Limits, Reactor, TlsConnector};
///
/// let tls = TlsConnector::new()?;
/// let mut reactor = Reactor::new()?;
/// let service = reactor.add(Callbacks::new(), Limits::default())?;
/// reactor.connect(&service, Connect::to("example.org:443")?.tls(&tls, "example.org")?)?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TlsConnector {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl TlsConnector {
    /// Trusts the roots that the system trusts, or those that the variables `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name. It reads them from the disk.
    ///
    /// # Errors
    /// [`Error::Io`] where there are none.
    pub fn new() -> Result<TlsConnector, Error> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            let why =
                format!("there are none{why}; install ca-certificates, or give a file of roots");
            return Err(Error::Io {
                what: "the system's root certificates",
                source: io::Error::new(io::ErrorKind::NotFound, why),
            });
        }
        TlsConnector::trusting(Arc::new(roots), None)
    }

    /// Trusts the certificates in a PEM file and no others: roots, or the very certificate of a
    /// server, if that is not one of a CA.
    ///
    /// # Errors
    /// [`Error::Certificate`] names the file and the remedy.
    pub fn with_roots(file: impl Into<PathBuf>) -> Result<TlsConnector, Error> {
        TlsConnector::trusting(files::read_roots(&file.into(), files::open)?, None)
    }

    /// Shows servers that ask for one this certificate. The two PEM files are as for
    /// [`Tls::from_files`](crate::Tls::from_files).
    ///
    /// # Errors
    /// [`Error::Certificate`] names the file and the remedy.
    pub fn certificate(
        self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<TlsConnector, Error> {
        let identity = Identity::read(&certificate.into(), &key.into(), files::open)?;
        TlsConnector::trusting(self.roots, Some(identity))
    }

    fn trusting(
        roots: Arc<RootCertStore>,
        identity: Option<Identity>,
    ) -> Result<TlsConnector, Error> {
        // These cannot fail: the provider has both versions, and there are roots.
        let failed = |error: &dyn std::fmt::Display| Error::Io {
            what: "TLS",
            source: io::Error::other(error.to_string()),
        };
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = Arc::new(Verifier(verifier.build().map_err(|error| failed(&error))?));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                identity.used(|chain, key| builder.with_client_auth_cert(chain, key))?
            }
        };
        Ok(TlsConnector { roots, config: Arc::new(config) })
    }

    pub(crate) fn towards(&self, name: &str) -> Result<Towards, Error> {
        // The dot at the end of a full name is not part of what certificates are for.
        let bare = name.strip_suffix('.').unwrap_or(name).to_owned();
        let name = ServerName::try_from(bare).map_err(|_| Error::Address {
            text: name.to_owned(),
            why: "no name of a server: write that of a host, as example.org, or an IP address"
                .to_owned(),
        })?;
        Ok(Towards { config: Arc::clone(&self.config), name })
    }
}

/// TLS towards a server.
#[derive(Clone, Debug)]
pub(crate) struct Towards {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Towards {
    /// Puts TLS over a stream that is being dialled.
    pub(crate) fn over(&self, stream: Stream) -> io::Result<Stream> {
        let client = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let client = client.map_err(io::Error::other)?;
        Ok(Stream::layer(TlsStream::new(stream, Connection::Client(client))))
    }
}
