//! Who may connect: the options of all commands that listen.

use reactor::{Address, Listen, Networks};

use super::quantity::mode;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Access {
    /// Serve only who comes from these networks: 127.0.0.0/8,::1/128 [default: any].
    ///
    /// The others are closed without a word; the log says so. Unix sockets are not affected.
    #[arg(long, value_name = "NETWORKS", value_parser = networks)]
    allow: Option<Networks>,

    /// Permissions of Unix sockets, in octal: with 0660, owner and group may connect [default: as
    /// the umask says].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    unix_mode: Option<u32>,
}

impl Access {
    /// How to listen there.
    pub(crate) fn listen(&self, address: &Address) -> Result<Listen, reactor::Error> {
        let mut listen = Listen::at(address)?;
        if let Some(networks) = &self.allow {
            listen = listen.allow(networks.clone());
        }
        if let Some(mode) = self.unix_mode {
            listen = listen.unix_mode(mode);
        }
        Ok(listen)
    }

    /// Says so where other machines can connect and nobody has said which of them may. What was
    /// asked for is done all the same.
    pub(crate) fn warn_if_open(&self, name: &str, address: &Address) {
        let beyond = |address: &Address| {
            address.as_socket().is_some_and(|addr| !addr.ip().to_canonical().is_loopback())
        };
        if self.allow.is_none() && beyond(address) {
            log::warn!(
                "{name}: every machine that reaches {address} may connect; say who may with \
                 --allow NETWORKS"
            );
        }
    }
}

fn networks(text: &str) -> Result<Networks, String> {
    text.parse().map_err(|error: reactor::Error| match error {
        // Clap names the value itself.
        reactor::Error::Address { text, why } => format!("{text:?}: {why}"),
        error => error.to_string(),
    })
}
