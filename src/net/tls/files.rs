//! Certificates and keys as files: what can be wrong with them, in words that name the file
//! and the remedy. What the libraries say of it is for who writes programs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, RootCertStore};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Reader, SliceReader};
use x509_cert::{Certificate, Version};

use crate::error::Error;

/// Bytes of the longest file of certificates that is one; what never ends is none.
const LONGEST: u64 = 1024 * 1024;
/// Bytes of the longest handshake message that all clients take, less than the 65,535 of rustls by
/// what the records around it need. The certificates are one message, each with five bytes of its
/// own and four for all in TLS 1.3, fewer in 1.2.
const MESSAGE: usize = 64_000;
/// Bits of the RSA keys that can be used.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// How to open a file.
pub(super) type Open = fn(&Path) -> io::Result<File>;

/// Waits for whoever writes to it, where it is a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Waits for nobody; what is no file any longer is looked at only once it is open, for it may become
/// something else at any moment before.
pub(super) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("no longer a file")),
    }
}

/// A certificate, those between it and the root, and its key.
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) secret: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn read(certificate: &Path, key: &Path, open: Open) -> Result<Identity, Error> {
        let (chain, secret) = (read_chain(certificate, open)?, read_key(key, open)?);
        Ok(Identity { certificate: certificate.to_owned(), key: key.to_owned(), chain, secret })
    }

    /// Makes a configuration of them; what is wrong with them then, in words of our own.
    pub(super) fn used<T>(
        self,
        make: impl FnOnce(
            Vec<CertificateDer<'static>>,
            PrivateKeyDer<'static>,
        ) -> Result<T, rustls::Error>,
    ) -> Result<T, Error> {
        let Identity { certificate, key, chain, secret } = self;
        make(chain, secret).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let certificate = certificate.display();
                let why = format!("it is not the key of {certificate}; give the one made with it");
                Error::certificate(&key, &why)
            }
            rustls::Error::InvalidCertificate(CertificateError::UnhandledCriticalExtension) => {
                let why = "it has a critical extension that is not known here; make one without it";
                Error::certificate(&certificate, why)
            }
            rustls::Error::InvalidCertificate(_) => {
                let why = "it is malformed, and would be refused; make another one";
                Error::certificate(&certificate, why)
            }
            _ => {
                let why = "it cannot be used; make one of RSA with 2048 to 4096 bits, ECDSA P-256 or \
                           P-384, or Ed25519";
                Error::certificate(&key, why)
            }
        })
    }
}

/// Reads the certificates of those who are trusted to issue others.
pub(super) fn read_roots(path: &Path, open: Open) -> Result<Arc<RootCertStore>, Error> {
    let failed = |number: usize| {
        let why = format!("number {number} in it is not a certificate; copy it again");
        Error::certificate(path, &why)
    };
    let mut roots = RootCertStore::empty();
    for (der, number) in read_certificates(path, open)?.into_iter().zip(1..) {
        roots.add(der).map_err(|_| failed(number))?;
    }
    Ok(Arc::new(roots))
}

/// Reads at least one certificate.
fn read_certificates(path: &Path, open: Open) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read_file(path, open)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Err(error) => Err(Error::certificate(path, bad_pem(&error))),
        Ok(all) if all.is_empty() => {
            let why = "no certificate in it; give a text with -----BEGIN CERTIFICATE-----";
            Err(Error::certificate(path, why))
        }
        Ok(all) => Ok(all),
    }
}

fn read_chain(path: &Path, open: Open) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |why: &str| Error::certificate(path, why);
    let chain = read_certificates(path, open)?;
    let parsed = chain.iter().zip(1..).map(|(der, number)| {
        Certificate::from_der(der).map_err(|_| {
            failed(&format!("number {number} in it is not a certificate; copy it again"))
        })
    });
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    if let Some(why) = parsed.first().and_then(unfit) {
        return Err(failed(&why));
    }
    let long = chain.iter().map(|der| der.len() + 5).sum::<usize>() + 4;
    if long > MESSAGE {
        return Err(failed(&format!(
            "its {} certificates are too long for a handshake ({long} bytes of {MESSAGE}); give the \
             first, and those between it and the root",
            chain.len()
        )));
    }
    Ok(chain)
}

/// Why everybody would refuse this certificate.
fn unfit(certificate: &Certificate) -> Option<String> {
    let content = certificate.tbs_certificate();
    let validity = content.validity();
    let now = SystemTime::now();
    if content.version() != Version::V3 {
        let version = content.version() as u8 + 1;
        return Some(format!("it is of X.509 version {version}; make one of version 3"));
    }
    if validity.not_after.to_system_time() <= now {
        return Some(format!("it expired at {}; renew it", validity.not_after));
    }
    if validity.not_before.to_system_time() > now {
        return Some(format!(
            "it is not valid before {}; is the clock right?",
            validity.not_before
        ));
    }
    let bits = rsa_bits(certificate).filter(|bits| !RSA_BITS.contains(bits))?;
    let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
    Some(format!("its key is RSA of {bits} bits; make one of {least} to {most}"))
}

/// The length of its key, if that is one of RSA.
fn rsa_bits(certificate: &Certificate) -> Option<usize> {
    let key = certificate.tbs_certificate().subject_public_key_info();
    let bits = key.subject_public_key.as_bytes().filter(|_| key.algorithm.oid == RSA)?;
    let mut reader = SliceReader::new(bits).ok()?;
    let modulus = reader.sequence(|key| -> der::Result<usize> {
        let (modulus, _exponent) = (UintRef::decode(key)?, UintRef::decode(key)?);
        let bytes = modulus.as_bytes();
        let unused = bytes.first().map_or(0, |byte| byte.leading_zeros() as usize);
        Ok(bytes.len() * 8 - unused)
    });
    modulus.ok()
}

fn read_key(path: &Path, open: Open) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read_file(path, open)?;
    let encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let why = match error {
            _ if encrypted => {
                "it is encrypted; write it without a password: openssl pkey -in FILE -out KEY"
            }
            pem::Error::NoItemsFound => {
                "no private key in it; give a text with -----BEGIN PRIVATE KEY-----"
            }
            _ => bad_pem(&error),
        };
        Error::certificate(path, why)
    })
}

fn bad_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "bad PEM: it is cut off before a line with -----END; copy the whole of it"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "bad PEM: a line with -----BEGIN does not end in dashes; copy it again"
        }
        _ => "bad PEM: no base64 between -----BEGIN and -----END; copy it again",
    }
}

fn read_file(path: &Path, open: Open) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    match open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text)) {
        Err(error) => {
            let why = format!("cannot be read ({error}); give a file of PEM that can");
            Err(Error::certificate(path, &why))
        }
        Ok(_) if text.len() as u64 > LONGEST => {
            let why = "longer than 1 MiB; give certificates or a key, as PEM";
            Err(Error::certificate(path, why))
        }
        Ok(_) if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") => {
            let why = "it is UTF-16; write it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW";
            Err(Error::certificate(path, why))
        }
        // A byte order mark would hide the first line.
        Ok(_) => Ok(text.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(text)),
    }
}
