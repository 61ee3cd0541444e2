//! Who may connect: the options of all commands that listen.

use std::path::Path;
#[cfg(feature = "tls")]
use std::path::PathBuf;

use nix::unistd::User;
use reactor::http::{Origin, Sites};
#[cfg(feature = "tls")]
use reactor::{Error, Tls};
use reactor::{Listen, Networks, WebSocket};

use super::address::{Endpoint, Layer, Place};
use super::failure::Failure;
use super::units::mode;
use super::unused_options::Use;

/// The options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Access {
    /// Serve only clients from these networks: 127.0.0.0/8,::1/128 [default: any].
    ///
    /// Others are closed without a word; the log says so. Unix sockets are not affected. At the
    /// addresses with proxy: it is about the clients that the proxy names.
    #[arg(long, value_name = "NETWORKS", value_parser = networks, value_delimiter = ',')]
    allow: Vec<Networks>,

    /// Believe the PROXY headers of proxies from these networks, and of those that come over Unix
    /// sockets [default: 127.0.0.0/8,::1/128].
    ///
    /// At an address with proxy: nobody else is served. They are closed without a word; the log says
    /// so.
    #[arg(long, value_name = "NETWORKS", value_parser = networks, value_delimiter = ',')]
    proxy_from: Vec<Networks>,

    /// Permissions of Unix sockets, in octal: with 0660, owner and group may connect [default: as
    /// the umask says].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    unix_mode: Option<u32>,

    /// Serve only these users at Unix sockets, whatever the permissions say: alice,1000 [default: any].
    ///
    /// Others are closed without a word; the log says so. Root is a user like others. TCP is not
    /// affected.
    #[arg(long, value_name = "USER", value_parser = user, value_delimiter = ',')]
    allow_uid: Vec<u32>,

    /// Let pages from there connect as well: https://example.org. May be given more than once.
    ///
    /// It is about the addresses with ws: and those of web. A page is let in if it comes from the very
    /// host and port that it connects to; others get 403, and the log says so. Clients that are no
    /// browsers have no origin, and may come.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    origin: Vec<Origin>,

    /// Take requests for this name as well: example.org. May be given more than once.
    ///
    /// It is about the addresses with ws: and those of web. A request is for a literal address,
    /// localhost, or one of these names; otherwise it gets 403, since a page may have its own name point
    /// here.
    #[arg(long, value_name = "NAME", value_parser = web_host)]
    web_host: Vec<String>,

    /// The certificate for the addresses with tls: in front, and the intermediate ones, as PEM.
    /// SIGHUP reads it again, for the connections that come then.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, as PEM, not encrypted.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Ask the clients there for a certificate, and let nobody in without one that a CA in this file
    /// has issued. SIGHUP reads it again, too.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
}

impl Access {
    /// Who uses the options, where somebody listens there.
    /// `web` says whether one of them is the service web, where there are services.
    pub(crate) fn uses(listeners: &[Place], web: Option<bool>) -> Vec<Use> {
        let proxied = |it: &Place| it.layers.has(Layer::Proxy);
        let browsers =
            web == Some(true) || listeners.iter().any(|it| it.layers.has(Layer::WebSocket));
        let of_browsers = match web {
            Some(_) => "the service web or an address with ws:, and there is neither",
            None => "an address with ws:, and there is none",
        };
        vec![
            Use {
                options: &["unix_mode"],
                used: listeners.iter().any(Place::makes_file),
                user: "a Unix socket that is made here, and there is none; write unix:PATH, or \
                       SocketMode= in the .socket unit",
            },
            Use {
                options: &["allow_uid"],
                used: listeners.iter().any(Place::may_be_unix),
                user: "a Unix socket, and none listens; write unix:PATH, or --allow NETWORKS for TCP",
            },
            Use {
                options: &["allow"],
                used: listeners.iter().any(Place::may_know_clients),
                user: "TCP, and only Unix sockets listen; see --allow-uid",
            },
            Use {
                options: &["proxy_from"],
                used: listeners.iter().any(|it| proxied(it) && it.may_be_tcp()),
                user: "an address for proxies over TCP, and there is none; write proxy:ADDR",
            },
            Use { options: &["origin", "web_host"], used: browsers, user: of_browsers },
            #[cfg(feature = "tls")]
            Use {
                options: &["tls_cert", "tls_key", "tls_client_ca"],
                used: listeners.iter().any(|it| it.layers.has(Layer::Tls)),
                user: "an address with TLS, and there is none; write tls:ADDR",
            },
        ]
    }

    /// Which hosts and which pages are ours.
    pub(crate) fn sites(&self) -> Sites {
        let sites = self.web_host.iter().fold(Sites::new(), Sites::host);
        self.origin.iter().cloned().fold(sites, Sites::origin)
    }

    /// Reads the certificate if one of these listeners needs it and it was not read already.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables))]
    pub(crate) fn entrance(
        &self,
        listeners: &[Place],
        known: &mut Certificates,
    ) -> Result<Entrance<'_>, Failure> {
        Ok(Entrance {
            access: self,
            #[cfg(feature = "tls")]
            tls: match listeners.iter().any(|it| it.layers.has(Layer::Tls)) {
                true => Some(self.certificate(known)?),
                false => None,
            },
        })
    }

    #[cfg(feature = "tls")]
    fn certificate(&self, known: &mut Certificates) -> Result<Tls, Failure> {
        let Some((cert, key)) = self.tls_cert.as_ref().zip(self.tls_key.as_ref()) else {
            let what = "tls: needs --tls-cert FILE and --tls-key FILE";
            return Err(Failure::Usage(what.to_owned()));
        };
        let files = [Some(cert), Some(key), self.tls_client_ca.as_ref()].map(Option::<&_>::cloned);
        if let Some((_, tls)) = known.0.iter().find(|(same, _)| *same == files) {
            return Ok(tls.clone());
        }
        let tls = self.read(cert, key).map_err(|error| match error {
            Error::Certificate { path, why } => {
                let option = match &*path {
                    path if path == cert => "--tls-cert",
                    path if path == key => "--tls-key",
                    _ => "--tls-client-ca",
                };
                Failure::Runtime(format!("{option} {}: {why}", path.display()))
            }
            error => error.into(),
        })?;
        known.0.push((files, tls.clone()));
        Ok(tls)
    }

    #[cfg(feature = "tls")]
    fn read(&self, cert: &Path, key: &Path) -> Result<Tls, Error> {
        let tls = Tls::from_files(cert, key)?;
        match &self.tls_client_ca {
            None => Ok(tls),
            Some(ca) => tls.client_ca(ca),
        }
    }

    /// The warning if other machines can connect and `--allow` does not say which. The program listens all
    /// the same.
    pub(crate) fn warning(&self, name: &str, at: &Endpoint) -> Option<String> {
        let addr = at.address.as_socket();
        let beyond = addr.is_some_and(|addr| !addr.ip().to_canonical().is_loopback());
        // Behind a proxy it is the proxy that lets them in.
        let open = self.allow.is_empty() && beyond && !at.layers.has(Layer::Proxy);
        open.then(|| {
            format!(
                "{name}: every machine that reaches {at} may connect; say who may with --allow \
                 NETWORKS"
            )
        })
    }
}

/// The certificates that were read, with their files: listeners with the same files have the same one.
#[derive(Default)]
pub(crate) struct Certificates(#[cfg(feature = "tls")] Vec<([Option<PathBuf>; 3], Tls)>);

/// [`Access`] with the certificate that it names.
pub(crate) struct Entrance<'a> {
    access: &'a Access,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Entrance<'_> {
    /// The certificate that was read for TLS.
    pub(crate) fn certificate(&self) -> Option<&Path> {
        #[cfg(feature = "tls")]
        return self.tls.as_ref().and(self.access.tls_cert.as_deref());
        #[cfg(not(feature = "tls"))]
        None
    }

    /// The mode that a Unix socket is to have.
    pub(crate) fn unix_mode(&self) -> Option<u32> {
        self.access.unix_mode
    }

    /// How to listen there.
    pub(crate) fn listen(&self, endpoint: &Endpoint) -> Result<Listen, Failure> {
        let mut listen = match &endpoint.socket {
            Some(socket) => socket.listen()?,
            None => Listen::at(&endpoint.address)?,
        };
        if !self.access.allow.is_empty() {
            listen = listen.allow(self.access.allow.iter().cloned().collect());
        }
        if let Some(mode) = self.access.unix_mode {
            listen = listen.unix_mode(mode);
        }
        if !self.access.allow_uid.is_empty() {
            listen = listen.allow_uids(self.access.allow_uid.iter().copied());
        }
        if endpoint.layers.has(Layer::Proxy) {
            listen = listen.proxy(match &*self.access.proxy_from {
                [] => Networks::loopback(),
                from => from.iter().cloned().collect(),
            });
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.as_ref().filter(|_| endpoint.layers.has(Layer::Tls)) {
            listen = listen.tls(tls);
        }
        if endpoint.layers.has(Layer::WebSocket) {
            listen = listen.web_socket(&WebSocket::new().sites(self.access.sites()));
        }
        Ok(listen)
    }
}

/// Reads a user: what the system calls it, or its number.
fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => {
            Err("no user has this name; write a name or a number, as alice or 1000".to_owned())
        }
        Err(error) => Err(format!("users cannot be looked up ({error}); write a number, as 1000")),
    }
}

fn origin(text: &str) -> Result<Origin, String> {
    text.parse().map_err(why)
}

/// A name alone: the port does not matter.
fn web_host(text: &str) -> Result<String, String> {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match !text.is_empty() && text.bytes().all(of_name) {
        true => Ok(text.to_owned()),
        false => Err("write the name of a host, without a port: example.org".to_owned()),
    }
}

fn networks(text: &str) -> Result<Networks, String> {
    text.parse().map_err(why)
}

fn why(error: reactor::Error) -> String {
    match error {
        // Clap names the value itself.
        reactor::Error::Address { text, why } => format!("{text:?}: {why}"),
        error => error.to_string(),
    }
}
