use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use reactor::{Address, Cores, Limits, Listen, WebSocket, services};

use super::access::{Access, Certificates, Entrance};
use super::address::{self, Endpoint, LISTENER_LOOKUP, LOCALHOST, Layer, Place, look_up_server};
use super::admin::AdminOptions;
use super::descriptors::Demand;
use super::event_loop::{catch_signals, ready, run_until_stopped};
use super::failure::Failure;
use super::logging::LogOptions;
use super::predecessor::Predecessor;
use super::successor::{UpgradeOptions, Upgrades};
use super::systemd::Inherited;
use super::trust::Trust;
use super::units::{count, duration, threads};
use super::unused_options::GivenOptions;
use super::{descriptors, logging};

/// Forward a port: each client of LISTEN is connected to TARGET, and bytes go both ways as they
/// are.
///
/// A side that does not read slows the other down, and memory does not grow. The end of one
/// direction is passed on while the other goes on, and so is a reset. If TARGET cannot be reached,
/// the client is closed; the log says why, and warns once when TARGET goes and when it is back.
///
/// Once it listens, one line on stdout says where; the log goes to stderr. The first SIGINT or
/// SIGTERM closes all connections after what has been received is sent on, a second one ends at
/// once.
///
/// Exit status: 0 after a graceful end, 1 after a failure or if somebody was cut off before all
/// that was meant for them was sent, 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Forward {
    /// Where to listen: PORT (on 127.0.0.1), HOST:PORT, [IPV6]:PORT, unix:PATH, or systemd:NAME for the
    /// sockets that systemd has opened under this name; port 0 takes a free one. With tls: in front it
    /// speaks TLS there, and passes on the plaintext; with proxy: in front of that, a PROXY header comes
    /// first and says who the client is; with ws: behind those, it is WebSocket, of which it passes on
    /// what the messages hold.
    #[arg(value_parser = address::listener)]
    listen: Place,

    /// Where to connect to: PORT (on 127.0.0.1), HOST:PORT, [IPV6]:PORT or unix:PATH; or the name
    /// of a service of ours, at its default port on 127.0.0.1. A host is looked up once, at the
    /// start; of its addresses each client gets the first that answers. With tls: in front, TLS is
    /// spoken there; with proxy: in front of that, TARGET is told who the client is, in a PROXY header
    /// of version 2; with ws: behind those, it is WebSocket, in binary messages.
    #[arg(value_parser = address::server)]
    target: Endpoint,

    #[command(flatten)]
    access: Access,

    #[command(flatten)]
    trust: Trust,

    /// Clients at once; one more is closed, and the log says so [default: 10000].
    ///
    /// Each takes two file descriptors. With this option the descriptors must suffice for N;
    /// without it, a warning says for how many they do.
    #[arg(long, value_name = "N", value_parser = count)]
    max_connections: Option<usize>,

    /// How long TARGET may take to be looked up, and to accept, and with TLS or WebSocket to
    /// shake hands: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    connect_timeout: Duration,

    /// Close both sides if one of them is idle for this long: 500ms, 30s, 5m, 1h
    /// [default: never].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle_timeout: Option<Duration>,

    /// Threads that forward, each with a loop of its own; auto for as many as there are cores.
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads)]
    threads: usize,

    #[command(flatten)]
    admin: AdminOptions,

    #[command(flatten)]
    upgrade: UpgradeOptions,

    #[command(flatten)]
    log: LogOptions,
}

impl Forward {
    fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            // The client's connection and the target's.
            max_connections: self
                .max_connections
                .unwrap_or(usual.max_connections)
                .saturating_mul(2),
            connect_timeout: self.connect_timeout,
            idle_timeout: self.idle_timeout,
            ..usual
        }
    }

    fn listen(&self, endpoint: &Endpoint, entrance: &Entrance<'_>) -> Result<Listen, Failure> {
        let listen = entrance.listen(endpoint)?;
        if !endpoint.layers.has(Layer::WebSocket) {
            return Ok(listen);
        }
        // Bytes as they are: neither side need speak in lines.
        Ok(listen.web_socket(&WebSocket::new().sites(self.access.sites()).binary()))
    }
}

/// Listens, says where, and forwards until a signal.
pub(crate) fn forward(
    args: &Forward,
    given: &GivenOptions,
    inherited: &Inherited,
    predecessor: &Predecessor,
) -> Result<ExitCode, Failure> {
    let places = std::slice::from_ref(&args.listen);
    given.refuse_unused(&Access::uses(places, None))?;
    let entrance = args.access.entrance(places, &mut Certificates::default())?;
    let listeners = args.listen.endpoints(&LOCALHOST, inherited)?;
    inherited.check_used(listeners.iter().filter_map(|endpoint| endpoint.socket.as_deref()))?;
    let look_up = |endpoint: Endpoint| endpoint.look_up(LISTENER_LOOKUP);
    let listeners = listeners.into_iter().map(look_up).collect::<Result<Vec<_>, _>>()?;
    let target = look_up_server(&args.target, args.connect_timeout)?;
    if listeners.iter().any(|listen| is_itself(&listen.address, &target.address)) {
        let what = "LISTEN and TARGET are the same: it would connect to itself without end";
        return Err(Failure::Usage(what.to_owned()));
    }
    let mut connect = args.trust.connect(&target, given)?;
    if target.layers.has(Layer::WebSocket) {
        connect = connect.web_socket(&WebSocket::new().binary());
    }
    let stdout = logging::init(&args.log)?;
    let raised = descriptors::raise();
    let limits = args.limits();
    let demand = Demand {
        threads: args.threads,
        listeners: listeners.iter().map(Endpoint::descriptors).sum(),
        clients: vec![limits.max_connections / 2],
        each: 2,
    };
    if let (Ok(raised), Some(_)) = (&raised, args.max_connections) {
        demand.check(raised.limit)?;
    }
    let mut cores = Cores::new(args.threads)?;
    let notices = catch_signals(&mut cores, predecessor)?;
    let upgrades = Upgrades::start(&cores, &args.upgrade, inherited, &notices)?;
    predecessor.inherit(&mut cores)?;
    let mut handler = services::Forward::to(connect);
    if target.layers.has(Layer::Proxy) {
        handler = handler.introduce_clients();
    }
    let service = cores.add(move |_| handler.clone(), limits)?;
    cores.set_name(&service, "forward");
    let mut bound = Vec::new();
    for endpoint in &listeners {
        let address = cores.bind(&service, args.listen(endpoint, &entrance)?);
        let address = address.map_err(|error| Failure::listen(error, "for LISTEN"))?;
        bound.extend(Endpoint::new(endpoint.layers, address).each());
    }
    let warning = args.admin.start(&mut cores, upgrades.on_request())?;
    descriptors::report(&raised, &demand);
    warning.inspect(|why| log::warn!("{why}"));
    let warnings = bound.iter().filter_map(|endpoint| args.access.warning("forward", endpoint));
    warnings.for_each(|why| log::warn!("{why}"));
    let line = |endpoint| format!("forward listening on {endpoint}\n");
    let lines = bound.iter().map(line).collect();
    ready(&cores, predecessor, &notices, move || stdout.say(lines))?;
    run_until_stopped(&mut cores, &upgrades)
}

/// Whether a connection to the target would arrive at the listener.
fn is_itself(listen: &Address, target: &Address) -> bool {
    if let (Address::Unix(_), _) | (_, Address::Unix(_)) = (listen, target) {
        return listen == target;
    }
    let heard = |target| listen.as_sockets().iter().any(|listen| is_heard(*listen, target));
    target.as_sockets().iter().any(|target| heard(*target))
}

fn is_heard(listen: SocketAddr, target: SocketAddr) -> bool {
    // Connecting to the unspecified address leads to this machine's own.
    let reached = match target.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let listening = listen.ip().to_canonical();
    // A listener at [::] hears both families.
    let everywhere = listening.is_unspecified() && (listening.is_ipv6() || reached.is_ipv4());
    let heard = everywhere && reached.is_loopback() || listening == reached;
    heard && listen.port() == target.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_itself() {
        for (listen, target, itself) in [
            ("127.0.0.1:7", "127.0.0.1:7", true),
            ("127.0.0.1:7", "127.0.0.1:8", false),
            ("127.0.0.1:7", "127.0.0.2:7", false),
            ("127.0.0.1:7", "0.0.0.0:7", true),
            ("127.0.0.1:7", "[::ffff:127.0.0.1]:7", true),
            ("[::1]:7", "[::]:7", true),
            ("[::1]:7", "127.0.0.1:7", false),
            ("0.0.0.0:7", "127.0.0.2:7", true),
            ("0.0.0.0:7", "[::1]:7", false),
            ("0.0.0.0:7", "192.0.2.1:7", false),
            ("[::]:7", "127.0.0.1:7", true),
            ("[::]:7", "[::]:7", true),
            ("unix:/tmp/a", "127.0.0.1:7", false),
            ("unix:/tmp/a", "unix:/tmp/a", true),
            ("unix:/tmp/a", "unix:/tmp/b", false),
        ] {
            let (here, there) = (listen.parse().unwrap(), target.parse().unwrap());
            assert_eq!(is_itself(&here, &there), itself, "{listen} to {target}");
        }
    }
}
