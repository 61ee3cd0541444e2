//! Sockets that systemd has opened before it started the program; sd_listen_fds(3).

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::{env, fs, io};

use listenfd::ListenFd;
use reactor::{Address, Listen};
use socket2::SockRef;

use crate::cli::failure::Failure;
use crate::cli::predecessor::Predecessor;

/// The number of the first one.
const FIRST: usize = 3;

/// The name of a socket without one, as in sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// After an upgrade: what systemd has passed to the process before. Each line is NAME:ADDRESS, in the order of their
/// descriptors there.
pub(crate) const PASSED_ON: &str = "REACTOR_UPGRADE_SOCKETS";

/// What systemd has passed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<Arc<Socket>>,
    /// Why the sockets cannot be used.
    unusable: Option<String>,
    /// The process that they were passed to, if it is another one.
    other: Option<String>,
    /// As [`any`](Inherited::any).
    any: bool,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Socket {
    /// The number of its descriptor.
    fd: usize,
    /// As `FileDescriptorName=` has it.
    name: String,
    pub(crate) address: Address,
    opened: Opened,
}

#[derive(Debug)]
enum Opened {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// The process before hands it on.
    Elsewhere,
}

impl Inherited {
    /// Takes them. To be called first of all: while there is one thread, since variables of the
    /// environment are removed, and while nothing else is open that could have their numbers.
    pub(crate) fn take(predecessor: &Predecessor) -> Inherited {
        if predecessor.is_there() {
            let passed_on = env::var(PASSED_ON).unwrap_or_default();
            let sockets: Option<Vec<_>> = (FIRST..)
                .zip(passed_on.lines())
                .map(|(fd, line)| Socket::passed_on(fd, line).map(Arc::new))
                .collect();
            let unusable = sockets.is_none().then(|| format!("{PASSED_ON} is wrong"));
            let sockets = sockets.unwrap_or_default();
            return Inherited { sockets, unusable, ..Inherited::default() };
        }
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(count) = variable("LISTEN_FDS") else { return Inherited::default() };
        let other = variable("LISTEN_PID").filter(|pid| *pid != std::process::id().to_string());
        if other.is_some() {
            return Inherited { other, ..Inherited::default() };
        }
        let names = variable("LISTEN_FDNAMES");
        Inherited::read(&count, names.as_deref()).unwrap_or_else(|why| Inherited {
            unusable: Some(format!("systemd has passed {why}")),
            ..Inherited::default()
        })
    }

    /// What a process that goes on for this one is told of them. It is handed the sockets themselves.
    pub(crate) fn passed_on(&self) -> String {
        let line = |socket: &Arc<Socket>| format!("{}:{}\n", socket.name, socket.address);
        self.sockets.iter().map(line).collect()
    }

    fn read(count: &str, names: Option<&str>) -> Result<Inherited, String> {
        // More than any process may have open would take gigabytes to number.
        let passed: u16 = count
            .parse()
            .map_err(|_| format!("LISTEN_FDS={count}: it is no number of descriptors"))?;
        let passed = usize::from(passed);
        let names: Vec<_> = match names {
            Some(names) => names.split(':').collect(),
            None => vec![UNNAMED; passed],
        };
        if names.len() != passed {
            let named = names.len();
            return Err(format!("{passed} descriptors and {named} names: LISTEN_FDNAMES is wrong"));
        }
        let mut taken = ListenFd::from_env();
        let sockets = names.iter().enumerate().map(|(index, name)| {
            let socket = Socket::take(&mut taken, index, name);
            socket
                .map(Arc::new)
                .map_err(|why| format!("descriptor {} ({name}), {why}", index + FIRST))
        });
        Ok(Inherited { sockets: sockets.collect::<Result<_, _>>()?, ..Inherited::default() })
    }

    /// Stands for sockets of every name, at which nobody can listen: for `--check-config`.
    pub(crate) fn any() -> Inherited {
        Inherited { any: true, ..Inherited::default() }
    }

    /// Those of this name, for `systemd:NAME`.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<Arc<Socket>>, Failure> {
        self.check()?;
        let named = self.sockets.iter().filter(|socket| socket.name == name);
        let named: Vec<_> = named.map(Arc::clone).collect();
        if !named.is_empty() || self.any {
            return Ok(named);
        }
        let mut others: Vec<_> = self.sockets.iter().map(|socket| &*socket.name).collect();
        others.dedup();
        let why = match (&self.other, &*others) {
            (Some(pid), _) => format!(
                "the descriptors are for process {pid} (LISTEN_PID), and this is {}: start it without a \
                 shell around it, or with exec",
                std::process::id()
            ),
            (None, []) => format!(
                "systemd has passed no descriptors: start it by its .socket unit, or try it with \
                 systemd-socket-activate --fdname={name} -l PORT reactor ..."
            ),
            (None, others) => format!(
                "systemd has passed no descriptor of this name, but {}: see FileDescriptorName= in the \
                 .socket unit",
                others.join(", ")
            ),
        };
        Err(Failure::Runtime(format!("systemd:{name}: {why}")))
    }

    /// Fails unless each of them is used once.
    pub(crate) fn check_used<'a>(
        &self,
        used: impl Iterator<Item = &'a Socket> + Clone,
    ) -> Result<(), Failure> {
        self.check()?;
        for socket in &self.sockets {
            let Socket { name, fd, address, .. } = &**socket;
            let why = match used.clone().filter(|other| *other == &**socket).count() {
                0 => format!(
                    "systemd has passed descriptor {fd} ({name}, {address}), which nothing uses: write \
                     SERVICE=systemd:{name}, or take it out of the .socket unit"
                ),
                1 => continue,
                _ => format!(
                    "systemd:{name} is given twice, and each client can have but one service"
                ),
            };
            return Err(Failure::Runtime(why));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        self.unusable.as_ref().map_or(Ok(()), |why| Err(Failure::Runtime(why.clone())))
    }
}

impl Socket {
    /// Takes one of them, or says why it is no listening socket.
    fn take(taken: &mut ListenFd, index: usize, name: &str) -> Result<Socket, String> {
        let failed = |error: io::Error| error.to_string();
        let (opened, address) = if let Ok(Some(listener)) = taken.take_tcp_listener(index) {
            let address = Address::Tcp(listener.local_addr().map_err(failed)?);
            (Opened::Tcp(listener), address)
        } else if let Ok(Some(listener)) = taken.take_unix_listener(index) {
            let address = listener.local_addr().map_err(failed)?;
            let path = address.as_pathname();
            let path = path.ok_or(
                "which has an abstract name: write ListenStream=/PATH in the .socket unit",
            )?;
            (Opened::Unix(listener), Address::Unix(path.to_owned()))
        } else {
            return Err(
                "which is no stream socket of TCP or Unix: write ListenStream= in the .socket unit"
                    .to_owned(),
            );
        };
        let listens = match &opened {
            Opened::Tcp(listener) => SockRef::from(listener).is_listener(),
            Opened::Unix(listener) => SockRef::from(listener).is_listener(),
            Opened::Elsewhere => Ok(true),
        };
        match listens.map_err(failed)? {
            true => Ok(Socket { fd: index + FIRST, name: name.to_owned(), address, opened }),
            false => Err("which is a connection: write Accept=no in the .socket unit".to_owned()),
        }
    }

    fn passed_on(fd: usize, line: &str) -> Option<Socket> {
        let (name, address) = line.split_once(':')?;
        let (name, address) = (name.to_owned(), address.parse().ok()?);
        Some(Socket { fd, name, address, opened: Opened::Elsewhere })
    }

    /// A `Listen` for it. The descriptor stays open for later listeners.
    pub(crate) fn listen(&self) -> Result<Listen, Failure> {
        let copied = |error| {
            Failure::Runtime(format!(
                "systemd:{}: {error}; allow more of them (ulimit -n)",
                self.name
            ))
        };
        Ok(match &self.opened {
            Opened::Tcp(listener) => Listen::from_tcp(listener.try_clone().map_err(copied)?)?,
            Opened::Unix(listener) => Listen::from_unix(listener.try_clone().map_err(copied)?)?,
            Opened::Elsewhere => {
                let listen = Listen::at(self.address.clone())?;
                // Who may come there is decided by the mode that it has.
                match &self.address {
                    Address::Unix(path) => fs::metadata(path).map_or(listen.clone(), |found| {
                        listen.unix_mode(found.permissions().mode() & 0o777)
                    }),
                    _ => listen,
                }
            }
        })
    }
}

/// The same one.
impl PartialEq for Socket {
    fn eq(&self, other: &Socket) -> bool {
        self.fd == other.fd
    }
}

impl Eq for Socket {}
