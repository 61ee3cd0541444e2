use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The certificate that a peer has shown, and proved to be its own; see
/// [`Context::peer_certificate`](crate::Context::peer_certificate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate(Vec<u8>);

impl PeerCertificate {
    pub(crate) fn new(der: &[u8]) -> PeerCertificate {
        PeerCertificate(der.to_vec())
    }

    /// Whose it is, as RFC 4514 writes it: `CN=alice,O=Example`. What the CA has put into it may be
    /// any text; see [`text::printable`](crate::text::printable) before it is shown.
    pub fn subject(&self) -> String {
        let parsed = Certificate::from_der(&self.0);
        parsed.map(|it| it.tbs_certificate().subject().to_string()).unwrap_or_default()
    }

    /// All of it, as DER, for who needs more.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}
