//! TLS under a listener: the handler does not notice it.

mod stream;

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::Error;

pub(crate) use stream::TlsStream;

/// Bytes of the longest file of certificates that is one; what never ends is none.
const LONGEST: u64 = 1024 * 1024;

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
    /// expired or not valid yet, a key of another certificate.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Tls, Error> {
        let (certificate, key) = (certificate.into(), key.into());
        let config = RefCell::new(read(&certificate, &key)?);
        Ok(Tls(Rc::new(Inner { certificate, key, config })))
    }

    /// Reads the files again, for the connections that come from now on; those that are there
    /// keep what they have. It reads from the disk, so the loop stands still that long.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files); then the old one stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        for path in [&self.0.certificate, &self.0.key] {
            if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
                // The loop would wait for whoever writes to a pipe.
                return Err(Error::certificate(path, "no longer a file"));
            }
        }
        let config = read(&self.0.certificate, &self.0.key)?;
        self.0.config.replace(config);
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.config.borrow())
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

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let chain = read_chain(certificate)?;
    let secret = read_key(key)?;
    let about = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let certificate = certificate.display();
            Error::certificate(key, &format!("it is not the key of {certificate}"))
        }
        rustls::Error::InvalidCertificate(_) => Error::certificate(certificate, &error.to_string()),
        _ => Error::certificate(
            key,
            &format!("cannot be used ({error}); make one of RSA, ECDSA P-256 or P-384, or Ed25519"),
        ),
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(about)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(about)?;
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read_file(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| Error::certificate(path, &format!("bad PEM: {error}")))?;
    let Some(first) = chain.first() else {
        let why = "no certificate in it; give a text with -----BEGIN CERTIFICATE-----";
        return Err(Error::certificate(path, why));
    };
    let first = Certificate::from_der(first)
        .map_err(|error| Error::certificate(path, &format!("not a certificate: {error}")))?;
    let validity = first.tbs_certificate().validity();
    let now = SystemTime::now();
    if validity.not_after.to_system_time() <= now {
        let date = validity.not_after;
        return Err(Error::certificate(path, &format!("it expired at {date}; renew it")));
    }
    if validity.not_before.to_system_time() > now {
        let why = format!("it is not valid before {}; is the clock right?", validity.not_before);
        return Err(Error::certificate(path, &why));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read_file(path)?;
    let encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if encrypted => Error::certificate(
            path,
            "it is encrypted; write it without a password: openssl pkey -in FILE -out KEY",
        ),
        rustls::pki_types::pem::Error::NoItemsFound => {
            let why = "no private key in it; give a text with -----BEGIN PRIVATE KEY-----";
            Error::certificate(path, why)
        }
        _ => Error::certificate(path, &format!("bad PEM: {error}")),
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map(|file| file.take(LONGEST + 1));
    match file.and_then(|mut file| file.read_to_end(&mut text)) {
        Err(error) => Err(Error::certificate(path, &format!("cannot be read: {error}"))),
        Ok(_) if text.len() as u64 > LONGEST => Err(Error::certificate(path, "too long for one")),
        Ok(_) => Ok(text),
    }
}
