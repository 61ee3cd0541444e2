//! Certificates made on the spot, and a client that speaks TLS.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::util::PATIENCE;
use crate::util::folder::Folder;

/// A folder with `cert.pem` and `key.pem`, removed when dropped.
pub struct Pem(Folder);

impl Pem {
    pub fn new(name: &str) -> Pem {
        let pem = Pem(Folder::new(name));
        pem.renew(2040);
        pem
    }

    /// Writes another certificate, valid until that year, and its key.
    pub fn renew(&self, until: i32) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(self.cert(), cert.pem()).unwrap();
        std::fs::write(self.key(), key.serialize_pem()).unwrap();
    }

    pub fn cert(&self) -> PathBuf {
        self.0.file("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.0.file("key.pem")
    }

    /// The options of the program.
    pub fn options(&self) -> [String; 2] {
        [
            format!("--tls-cert={}", self.cert().display()),
            format!("--tls-key={}", self.key().display()),
        ]
    }

    pub fn trust(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.cert()).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_webpki_verifier(verifier.build().unwrap())
            .with_no_client_auth()
    }

    /// A client that accepts this certificate and no other, and has shaken hands.
    #[track_caller]
    pub fn connect(&self, addr: SocketAddr) -> TlsClient {
        self.connect_with(addr, rustls::ALL_VERSIONS)
    }

    /// One whose handshake has not begun.
    pub fn begin(&self, addr: SocketAddr) -> TlsClient {
        self.begin_with(addr, rustls::ALL_VERSIONS)
    }

    pub fn begin_with(
        &self,
        addr: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsClient {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(self.trust(versions)), name).unwrap();
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        TlsClient { stream, tls, received: Vec::new(), end: None }
    }

    #[track_caller]
    pub fn connect_with(
        &self,
        addr: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsClient {
        let mut client = self.begin_with(addr, versions);
        client.until("the handshake", |client| !client.tls.is_handshaking());
        client
    }
}

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With `close_notify`.
    Clean,
    /// Without.
    Cut,
}

/// A client that reads and writes at once, so that nobody waits for anybody.
pub struct TlsClient {
    pub stream: TcpStream,
    pub tls: ClientConnection,
    pub received: Vec<u8>,
    pub end: Option<End>,
}

impl TlsClient {
    /// Moves what the sockets take and give; says whether anything moved.
    pub fn step(&mut self, reading: bool) -> bool {
        let mut moved = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("write: {error}"),
            }
        }
        if !reading || self.end.is_some() {
            return moved;
        }
        match self.tls.read_tls(&mut self.stream) {
            Ok(_) => moved = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("read: {error}"),
        }
        self.tls.process_new_packets().expect("TLS");
        let mut buf = [0; 64 * 1024];
        loop {
            match self.tls.reader().read(&mut buf) {
                Ok(0) => self.end = Some(End::Clean),
                Ok(count) => {
                    self.received.extend(&buf[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    self.end = Some(End::Cut);
                }
                Err(error) => panic!("read: {error}"),
            }
            return moved;
        }
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, so: impl Fn(&TlsClient) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            if !self.step(true) {
                std::thread::yield_now();
            }
        }
    }

    /// Queues bytes and sends what the socket takes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tls.set_buffer_limit(None);
        self.tls.writer().write_all(bytes.as_ref()).unwrap();
        self.step(false);
    }

    /// Says that nothing more comes; still reads.
    pub fn close_notify(&mut self) {
        self.tls.send_close_notify();
        self.step(false);
    }

    /// Asserts that exactly these bytes come next.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        self.until("bytes", |client| client.received.len() >= wanted.len() || client.end.is_some());
        let rest = self.received.split_off(wanted.len().min(self.received.len()));
        let got = std::mem::replace(&mut self.received, rest);
        assert!(
            got == wanted,
            "got {:?}, wanted {:?}",
            String::from_utf8_lossy(&got[..got.len().min(200)]),
            String::from_utf8_lossy(&wanted[..wanted.len().min(200)])
        );
    }

    /// All that comes until the server's end, and how that was.
    #[track_caller]
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        self.until("the end", |client| client.end.is_some());
        (std::mem::take(&mut self.received), self.end.unwrap())
    }
}

/// A CA that issues certificates on the spot, with a folder for them that is removed when dropped.
pub struct Authority {
    folder: Folder,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

/// The files of a certificate and its key.
pub type Files = (PathBuf, PathBuf);

impl Authority {
    pub fn new(name: &str) -> Authority {
        // Two tests of one process may use the same name.
        let folder = Folder::new(name);
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("{name} CA"));
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(folder.file("ca.pem"), issuer.as_ref().pem()).unwrap();
        Authority { folder, issuer }
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.file("ca.pem")
    }

    /// A certificate that is valid now for this name, unless that is changed.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Files {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&cert, &key)
    }

    /// One that nobody has issued.
    pub fn self_signed(&self, name: &str, is_ca: rcgen::IsCa) -> Files {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        self.write(&cert, &key)
    }

    fn write(&self, cert: &rcgen::Certificate, key: &rcgen::KeyPair) -> Files {
        let number = std::fs::read_dir(self.folder.path()).unwrap().count();
        let file = |kind: &str| self.folder.file(&format!("{kind}-{number}.pem"));
        let (cert_file, key_file) = (file("cert"), file("key"));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }
}

/// Makes a certificate one of the year 2001.
pub fn expired(params: &mut rcgen::CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
}
