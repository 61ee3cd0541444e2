//! TLS towards servers: whom to trust and who we are. The options of all commands that connect.

use reactor::Connect;

use super::address::{Endpoint, Layer};
use super::failure::Failure;
use super::unused_options::GivenOptions;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Trust {
    /// Trust the servers whose certificates these CAs have issued, as PEM [default: those that the
    /// system trusts]. For a server with TLS: at an address with tls: in front, or a Redis at rediss://.
    ///
    /// The very certificate of a server will do, if it is not that of a CA.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,

    /// The name that the server's certificate must be for [default: the host of its address].
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// Our own certificate, for servers that ask for one, and the intermediate ones, as PEM.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<std::path::PathBuf>,

    /// Its private key, as PEM, not encrypted.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<std::path::PathBuf>,
}

/// The options, as clap knows them.
#[cfg(feature = "tls")]
const OPTIONS: [&str; 4] = ["ca", "server_name", "cert", "key"];
#[cfg(not(feature = "tls"))]
const OPTIONS: [&str; 0] = [];

impl Trust {
    /// How to connect there, in our own name. Options that this does not need are refused.
    pub(crate) fn connect(
        &self,
        server: &Endpoint,
        given: &GivenOptions,
    ) -> Result<Connect, Failure> {
        let wanted = server.layers.has(Layer::Tls);
        self.refuse_unless(wanted, given, "a server with TLS; write tls:ADDR")?;
        if wanted { self.over(server.plainly()) } else { Ok(server.plainly()) }
    }

    /// Refuses the options unless there is a server with TLS; `user` says how to have one.
    pub(crate) fn refuse_unless(
        &self,
        wanted: bool,
        given: &GivenOptions,
        user: &str,
    ) -> Result<(), Failure> {
        given.refuse_unless(wanted, &OPTIONS, user)
    }
}

#[cfg(not(feature = "tls"))]
impl Trust {
    /// Speaks TLS there, which this program cannot.
    pub(crate) fn over(&self, _plainly: Connect) -> Result<Connect, Failure> {
        Err(Failure::Usage("this program was built without TLS".to_owned()))
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::path::Path;

    use reactor::{Address, Connect, Error, TlsConnector};

    use super::{Failure, Trust};

    impl Trust {
        /// Speaks TLS there, in our own name.
        pub(crate) fn over(&self, plainly: Connect) -> Result<Connect, Failure> {
            let name = match (&self.server_name, plainly.address()) {
                (Some(name), _) => name.clone(),
                (None, Address::Host(host)) => host.name().to_owned(),
                (None, Address::Tcp(addr)) => addr.ip().to_canonical().to_string(),
                (None, Address::Unix(_)) => {
                    let what = "a Unix socket has no name to check the server's certificate for: \
                                give --server-name NAME";
                    return Err(Failure::Usage(what.to_owned()));
                }
            };
            let connect = plainly.tls(&self.connector()?, &name);
            connect.map_err(|error| match (error, &self.server_name) {
                (Error::Address { text, why }, Some(_)) => {
                    Failure::Usage(format!("--server-name {text:?}: {why}"))
                }
                (error, _) => error.into(),
            })
        }

        fn connector(&self) -> Result<TlsConnector, Failure> {
            let mut tls = match &self.ca {
                Some(ca) => {
                    TlsConnector::with_roots(ca).map_err(|error| file(error, |_| "--ca"))?
                }
                None => TlsConnector::new().map_err(|error| {
                    Failure::Runtime(format!("{error}: or give the server's CA with --ca FILE"))
                })?,
            };
            if let Some((cert, key)) = self.cert.as_ref().zip(self.key.as_ref()) {
                let option = |path: &Path| if path == *cert { "--cert" } else { "--key" };
                tls = tls.certificate(cert, key).map_err(|error| file(error, option))?;
            }
            Ok(tls)
        }
    }

    /// Names the option that a file was given with.
    fn file(error: Error, option: impl Fn(&Path) -> &'static str) -> Failure {
        match error {
            Error::Certificate { path, why } => {
                Failure::Runtime(format!("{} {}: {why}", option(&path), path.display()))
            }
            error => error.into(),
        }
    }
}
