//! What is wrong with a handshake or a peer's certificate, as a sentence about the peer that ends in
//! the remedy where there is one. What rustls says is for who writes programs.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};
use x509_cert::name::Name;

/// What went wrong, in one line.
fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert).into_owned(),
        Error::NoCertificatesPresented => {
            "it gave no certificate; it needs one that the clients' CA has issued".to_owned()
        }
        Error::InvalidMessage(_) => "what it sends is no TLS; does it speak plainly?".to_owned(),
        Error::PeerIncompatible(why) => {
            format!("it has no version or cipher of TLS in common with us ({why:?})")
        }
        Error::DecryptError => "a record of TLS was not intact".to_owned(),
        error => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired at {}; it needs a new one", moment(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let from = moment(*not_before);
            format!("its certificate is not valid before {from}; is the clock right?")
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no name".to_owned() } else { names };
            let wanted = expected.to_str();
            format!(
                "its certificate is for {names} and not for {wanted}; give a server name that it \
                 is for"
            )
        }
        CertificateError::UnknownIssuer => {
            "its certificate was issued by nobody whom we trust; give its CA as well".to_owned()
        }
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            "its certificate was made for another purpose (extendedKeyUsage)".to_owned()
        }
        CertificateError::Other(OtherError(error)) => match error.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "its certificate is that of a CA, which only issues others; make one with \
                 -addext basicConstraints=critical,CA:FALSE"
                    .to_owned()
            }
            _ if error.is::<Sentence>() => error.to_string(),
            _ => format!("its certificate cannot be used ({error})"),
        },
        error => format!("its certificate cannot be used ({error})"),
    }
}

fn of_alert(alert: AlertDescription) -> Cow<'static, str> {
    let why = match alert {
        AlertDescription::CertificateRequired => {
            return "it lets in only clients with a certificate; give one that its CA has issued"
                .into();
        }
        AlertDescription::HandshakeFailure => {
            return "it agrees to no handshake; it may want a client's certificate".into();
        }
        AlertDescription::UnrecognisedName => return "it knows no server of that name".into(),
        AlertDescription::ProtocolVersion => return "it speaks neither TLS 1.3 nor 1.2".into(),
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
        AlertDescription::UnknownCA => "it does not trust who issued it",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnsupportedCertificate => "it was made for another purpose",
        AlertDescription::AccessDenied => "it has no access",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it finds something wrong with it"
        }
        AlertDescription::DecryptError => "its signature is wrong",
        alert => return format!("it refuses to go on ({alert:?})").into(),
    };
    format!("it refuses our certificate: {why}").into()
}

/// As ISO 8601 has it.
fn moment(at: UnixTime) -> String {
    let since = Duration::from_secs(at.as_secs());
    DateTime::from_unix_duration(since)
        .map_or_else(|_| since.as_secs().to_string(), |at| at.to_string())
}

/// A name without what it is a name of.
fn bare(presented: &str) -> String {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    shown(inner.unwrap_or(presented).trim_matches('"'))
}

/// A text of the peer's, which may be anything: what a terminal would not show is escaped.
fn shown(text: &str) -> String {
    let escaped = |c: char| match c {
        '\\' | '"' | '\'' => String::from(c),
        c => c.escape_debug().to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Whose a certificate is, or who has issued it.
fn named(name: &Name) -> String {
    shown(&name.to_string())
}

/// Verifies as webpki does, and tells which certificate it refuses where webpki does not.
#[derive(Debug)]
pub(super) struct Verifier(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        verified.map_err(|error| {
            let told = match &error {
                Error::InvalidCertificate(CertificateError::UnknownIssuer) => issuer(end_entity),
                Error::InvalidCertificate(
                    CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYetContext { .. },
                ) => outdated(end_entity, intermediates),
                _ => None,
            };
            told.map_or(error, |told| {
                let told = OtherError(Arc::new(Sentence(told)));
                Error::InvalidCertificate(CertificateError::Other(told))
            })
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}

/// Who has issued a certificate that nobody whom we trust has.
fn issuer(der: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let content = certificate.tbs_certificate();
    if content.issuer() == content.subject() {
        let whose = named(content.subject());
        return Some(format!(
            "its certificate ({whose}) is self-signed and not among those that we trust; if it is \
             the right one, give it as the CA"
        ));
    }
    let (whose, issuer) = (named(content.subject()), named(content.issuer()));
    Some(format!(
        "its certificate ({whose}) was issued by {issuer}, whom we do not trust; if that is right, \
         give the certificate of that CA"
    ))
}

/// Which of those between the certificate and the root is not valid now; none where the first is not.
fn outdated(first: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<String> {
    let now = SystemTime::now();
    let bad = |der: &CertificateDer<'_>| {
        let certificate = Certificate::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let validity = content.validity();
        let whose = named(content.subject());
        if validity.not_after.to_system_time() < now {
            let at = validity.not_after;
            return Some(format!("the certificate of its CA ({whose}) expired at {at}"));
        }
        let early = validity.not_before.to_system_time() > now;
        early.then(|| {
            let from = validity.not_before;
            format!("the certificate of its CA ({whose}) is not valid before {from}")
        })
    };
    match bad(first) {
        Some(_) => None,
        None => others.iter().find_map(bad),
    }
}

/// The peer may not come with the certificate that it has, or without one.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl Refused {
    /// As the error of a stream, if that is what went wrong.
    pub(super) fn told(error: &Error) -> io::Error {
        let why = sentence(error);
        match error {
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
                io::Error::new(ErrorKind::InvalidData, Refused(why))
            }
            _ => io::Error::new(ErrorKind::InvalidData, why),
        }
    }

    /// Whether an error is this one.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Refused>())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// One that a verifier has made.
#[derive(Debug)]
struct Sentence(String);

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Sentence {}
