use std::process::ExitCode;
use std::time::Duration;

use reactor::services::views::ProcessReader;
use reactor::{Address, Cores, Limits, Rate, Rates};

use super::access::Access;
use super::address::{self, Endpoint, LISTENER_LOOKUP, look_up};
use super::admin::AdminOptions;
use super::announce::Announce;
use super::bus::{BusOptions, PresenceBus};
use super::descriptors::Demand;
use super::event_loop::{catch_signals, run_until_stopped};
use super::failure::Failure;
use super::logging::LogOptions;
use super::service::{self, ServiceOptions, Setup};
use super::target::Target;
use super::units::{
    Patience, bytes, count, duration, output, patience, rates, threads, whole_rate,
};
use super::unused_options::GivenOptions;
use super::{descriptors, logging};

/// Serve one or more services until SIGINT or SIGTERM.
///
/// Once all of them listen, stdout says where, one line for each address; the log goes to stderr.
/// The first SIGINT or SIGTERM ends after the clients have received what was sent to them, a second
/// one ends at once. SIGHUP reads the TLS certificate again, and opens the
/// file of the log anew.
///
/// Limits hold for each SERVICE separately, those per connection for each of its connections. The
/// service web has limits of its own: 1,000 connections, 10 s for a request, idle for a minute.
///
/// Exit status: 0 after a graceful end, 1 after a failure or if clients were cut off before they
/// had all their output, 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = service::table(), after_long_help = service::table())]
pub(crate) struct Serve {
    /// What to serve, and where; without any, every service at its default port.
    ///
    /// ADDR is PORT (on --host), HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 takes a free one. If a
    /// HOST has several addresses, the service listens on all of them. Without ADDR it listens on
    /// its default port on --host. The service web is at 127.0.0.1 unless its ADDR names a host: it
    /// shows who is connected, and not to everybody for whom --host is.
    ///
    /// In front of it may stand what clients speak there, in the order of the bytes on the wire.
    /// proxy: (echo=proxy:2323) is a PROXY header, version 1 or 2, in which a balancer says who the
    /// client is; see --proxy-from. tls: is TLS; see --tls-cert. ws: is WebSocket, a line a message, for
    /// pages in browsers; see --origin. A host called proxy is written proxy.:PORT.
    ///
    /// Several ADDRs with commas between them are doors of one service: echo=2323,unix:/run/e.sock.
    /// A service that is given twice is two, which share nothing; the log calls the second echo-2.
    #[arg(value_name = "SERVICE[=ADDR[,ADDR]...]", value_parser = Target::parse)]
    targets: Vec<Target>,

    /// The IP address or host to listen on if only a port is given; 0.0.0.0 or :: for all. It does
    /// not move web.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", value_parser = address::host)]
    host: Address,

    #[command(flatten)]
    access: Access,

    /// Connections open at once, per service; one more is told so and closed [default: 10000].
    ///
    /// Each takes a file descriptor. With this option the descriptors must suffice for N; without
    /// it, a warning says for how many they do.
    #[arg(long, value_name = "N", value_parser = count)]
    max_connections: Option<usize>,

    /// Bytes in one line, per connection; a client that sends a longer one is told so and closed.
    /// K, M and G stand for 1024, 1024² and 1024³.
    #[arg(long, value_name = "BYTES", default_value = "64K", value_parser = bytes)]
    max_line: usize,

    /// Unsent bytes that others cause, per connection; a client that lets more pile up is closed.
    ///
    /// Two other bounds follow from it. More than a quarter of it may be unsent for 10 s only. A
    /// connection whose own requests leave a quarter of it unsent is not read until at most a
    /// sixteenth is left.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = output)]
    max_output: usize,

    /// Close a connection that is idle for this long: 500ms, 30s, 5m, 1h [default:
    /// never].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle_timeout: Option<Duration>,

    /// How long a client may take to finish a line that it has begun; `never` for no limit.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = patience)]
    line_timeout: Patience,

    /// Lines a second that are handled of one connection, and bytes a second that are read of it:
    /// 10/s, or 10/s,64K/s; a faster one waits, and loses nothing [default: no limit].
    ///
    /// A line may have as many bytes as --max-line says, so lines alone do not bound what others are
    /// sent.
    #[arg(long, value_name = "N/s[,BYTES/s]", value_parser = rates)]
    rate: Option<Rates>,

    /// Lines that may come at once before the rate counts [default: those of a second].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(requires = "rate")]
    burst: Option<u32>,

    /// Connections open at once from one address (of IPv6: from one /64), per service; one more is
    /// told so and closed [default: no limit].
    #[arg(long, value_name = "N", value_parser = count)]
    max_per_peer: Option<usize>,

    /// As --rate, for all connections from one address together, also if it comes again [default: no
    /// limit].
    ///
    /// Against somebody who floods a room: --peer-rate 10/s,64K/s.
    #[arg(long, value_name = "N/s[,BYTES/s]", value_parser = rates)]
    peer_rate: Option<Rates>,

    /// Connections a second that one address may begin, per service; one more is told so and
    /// closed [default: no limit].
    #[arg(long, value_name = "N/s", value_parser = whole_rate)]
    peer_connect_rate: Option<Rate>,

    /// Unsent bytes of all services together; beyond it, the clients that let most pile up are
    /// closed.
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = output)]
    max_total_output: usize,

    /// Memory for unfinished lines, and for unfinished records of TLS, of all services together;
    /// beyond it, the clients with the longest are closed.
    #[arg(long, value_name = "BYTES", default_value = "128M", value_parser = output)]
    max_total_input: usize,

    /// Time without traffic after which TCP asks whether the peer is still there; `never` for not
    /// at all.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = patience)]
    keepalive: Patience,

    /// Close a connection whose peer's machine acknowledges or accepts nothing for this long
    /// [default: the system's, some 15 minutes].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    user_timeout: Option<Duration>,

    /// Threads that serve, each with a loop of its own; auto for as many as there are cores.
    ///
    /// echo, time and presence run on all of them, and each client on the one of two that has fewer. The
    /// roulettes and web, which keep something for all their clients, run on the first. Limits hold for all
    /// threads together.
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads)]
    threads: usize,

    #[command(flatten)]
    services: ServiceOptions,

    #[command(flatten)]
    bus: BusOptions,

    #[command(flatten)]
    announce: Announce,

    #[command(flatten)]
    admin: AdminOptions,

    #[command(flatten)]
    log: LogOptions,
}

impl Serve {
    pub(crate) fn targets(&self) -> Vec<Target> {
        if self.targets.is_empty() {
            return service::SERVICES.iter().map(Target::usual).collect();
        }
        self.targets.clone()
    }

    /// Where all of them are to listen, before hosts are looked up.
    fn endpoints(&self) -> Vec<Endpoint> {
        self.targets().iter().flat_map(|target| target.endpoints(&self.host)).collect()
    }

    /// Refuses the options that nothing uses.
    fn check(&self, given: &GivenOptions<'_>) -> Result<(), Failure> {
        let targets = self.targets();
        let endpoints = self.endpoints();
        let tcp = endpoints.iter().any(|endpoint| !endpoint.is_unix());
        let known = endpoints.iter().any(Endpoint::knows_clients);
        let host = self.announce.goes_by_host() || targets.iter().any(Target::goes_by_host);
        let serves = |name| targets.iter().any(|target| target.service.name.starts_with(name));
        Access::check(given, &endpoints, Some(targets.iter().any(|target| target.service.http)))?;
        for (options, used, user) in [
            (&["time_interval", "time_count"][..], serves("time"), "the service time; add it"),
            (
                &["allow_kill", "unique_names", "presence_bus"],
                serves("presence"),
                "the service presence; add it",
            ),
            (&["web_admin"], serves("web"), "the service web; add it"),
            (
                &[
                    "max_connections",
                    "max_line",
                    "max_output",
                    "idle_timeout",
                    "line_timeout",
                    "rate",
                    "max_per_peer",
                    "peer_rate",
                    "peer_connect_rate",
                ],
                targets.iter().any(|target| !target.service.http),
                "another service than web, whose limits are its own; leave it out",
            ),
            (
                &["roulette_file", "roulette_memory"],
                serves("roulette"),
                "the services roulette and roulette2; add one",
            ),
            (
                &["max_per_peer", "peer_rate", "peer_connect_rate"],
                known,
                "TCP, and only Unix sockets listen; leave it out",
            ),
            (
                &["keepalive", "user_timeout"],
                tcp,
                "TCP, and only Unix sockets listen; leave it out",
            ),
            (&["host"], host, "a port, and every service has its whole address; leave it out"),
        ] {
            given.refuse_unless(used, options, user)?;
        }
        Ok(())
    }

    fn rate(&self) -> Rates {
        let rates = self.rate.unwrap_or_default();
        let burst = |rate: Rate| Rate { burst: self.burst.unwrap_or(rate.burst), ..rate };
        Rates { lines: rates.lines.map(burst), ..rates }
    }

    /// The limits of each service.
    pub(crate) fn limits(&self) -> Result<Limits, Failure> {
        let usual = Limits::default();
        let limits = Limits {
            max_connections: self.max_connections.unwrap_or(usual.max_connections),
            max_line: self.max_line,
            max_output: self.max_output,
            soft_output: self.max_output / 4,
            high_water: self.max_output / 4,
            low_water: self.max_output / 16,
            idle_timeout: self.idle_timeout,
            line_timeout: self.line_timeout.0,
            rate: self.rate(),
            peer_rate: self.peer_rate.unwrap_or_default(),
            max_per_peer: self.max_per_peer,
            peer_connect_rate: self.peer_connect_rate,
            keepalive: self.keepalive.0,
            user_timeout: self.user_timeout,
            ..usual
        };
        limits.check()?;
        Ok(limits)
    }
}

/// What the services go by in the log: a second one of a name has its number behind it.
fn names(targets: &[Target]) -> Vec<String> {
    let named = |(number, target): (usize, &Target)| {
        let name = target.service.name;
        match targets[..number].iter().filter(|before| before.service.name == name).count() {
            0 => name.to_owned(),
            before => format!("{name}-{}", before + 1),
        }
    };
    targets.iter().enumerate().map(named).collect()
}

/// Listens, says where, and serves until a signal or KILL.
pub(crate) fn serve(args: &Serve, given: &GivenOptions<'_>) -> Result<ExitCode, Failure> {
    args.check(given)?;
    let limits = args.limits()?;
    let targets = args.targets();
    let students = args.services.roulette.students()?;
    let rooms = targets.iter().filter(|target| target.service.name == "presence").count();
    let bus = args.bus.open(given, rooms)?;
    let entrance = args.access.entrance(&args.endpoints())?;
    // Before signals are caught: a lookup may take long, and Ctrl-C must end it.
    let host = look_up(&args.host, LISTENER_LOOKUP)?;
    let look_up = |endpoint: Endpoint| endpoint.look_up(LISTENER_LOOKUP);
    let endpoints = targets.iter().map(|it| it.endpoints(&host).into_iter().map(look_up).collect());
    let endpoints = endpoints.collect::<Result<Vec<Vec<_>>, _>>()?;
    let stdout = logging::init(&args.log)?;
    let raised = descriptors::raise();
    let demand = Demand {
        threads: args.threads,
        // Those of web are few, and nobody has asked for a number of them.
        services: targets.iter().filter(|target| !target.service.http).count(),
        listeners: endpoints.iter().flatten().map(|endpoint| endpoint.each().len()).sum(),
        clients: limits.max_connections,
        each: 1,
    };
    if let (Ok(raised), Some(_)) = (&raised, args.max_connections) {
        demand.check(raised.limit)?;
    }

    let mut cores = Cores::new(args.threads)?;
    catch_signals(&mut cores)?;
    cores.set_max_total_output(args.max_total_output);
    cores.set_max_total_input(args.max_total_input);
    let process = ProcessReader::new(env!("CARGO_PKG_VERSION"));
    let process = process.log_lines_dropped(stdout.lost_lines());
    let mut ready = String::new();
    let dial = |bus: PresenceBus| bus.dial(cores.first(), args.services.unique_names);
    let over_redis = bus.map(dial).transpose()?;
    let (mut services, mut known) = (Vec::new(), Vec::new());
    for ((target, known_as), endpoints) in targets.iter().zip(names(&targets)).zip(endpoints) {
        let name = target.service.name;
        let mut setup = Setup {
            name,
            known_as: &known_as,
            cores: &mut cores,
            listens: endpoints.iter().map(|it| entrance.listen(it)).collect::<Result<_, _>>()?,
            options: &args.services,
            students: &students,
            over_redis: over_redis.as_ref(),
            limits: limits.clone(),
            sites: args.access.sites(),
            process: &process,
        };
        let addresses = (target.service.start)(&mut setup)?;
        let bound = endpoints.iter().zip(addresses);
        let bound = bound.map(|(asked, address)| Endpoint { address, layers: asked.layers });
        for endpoint in bound.flat_map(|endpoint| endpoint.each()) {
            ready.push_str(&format!("{name} listening on {endpoint}\n"));
            services.push((name, endpoint));
            known.push(known_as.clone());
        }
    }
    drop(students);
    args.announce.start(&host, &services, cores.first())?;
    let warning = args.admin.start(&mut cores)?;
    // Not earlier: a failure must be one line, and alone.
    descriptors::report(&raised, demand);
    warning.inspect(|why| log::warn!("{why}"));
    known.iter().zip(&services).for_each(|(name, (_, at))| args.access.warn_if_open(name, at));
    stdout.say(ready);
    run_until_stopped(&mut cores)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use log::LevelFilter;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        serve: Serve,
    }

    fn serve(args: &[&str]) -> Serve {
        Alone::try_parse_from([&["serve"], args].concat()).unwrap().serve
    }

    #[test]
    fn without_options_the_limits_are_the_librarys() {
        let serve = serve(&[]);
        assert_eq!(serve.limits().unwrap(), Limits::default());
        assert_eq!(serve.targets().len(), service::SERVICES.len());
        assert_eq!(serve.log.log, LevelFilter::Info);
    }

    #[test]
    fn any_output_limit_leaves_the_others_in_order() {
        for text in ["1K", "1025", "64K", "1G"] {
            let limits = serve(&["--max-output", text]).limits().unwrap();
            assert_eq!(limits.soft_output, limits.max_output / 4, "{text}");
            assert!(limits.low_water < limits.high_water, "{text}");
        }
    }

    #[test]
    fn limits_can_be_switched_off_and_on() {
        let limits = serve(&["--line-timeout", "never", "--keepalive", "never"]).limits().unwrap();
        assert_eq!((limits.line_timeout, limits.keepalive), (None, None));
        let rate = serve(&["--rate", "20/s"]).limits().unwrap().rate;
        assert_eq!(rate, Rate { per_second: 20, burst: 20 }.into());
        let rate = serve(&["--rate", "20", "--burst", "7"]).limits().unwrap().rate;
        assert_eq!(rate, Rate { per_second: 20, burst: 7 }.into());
        let rate = serve(&["--rate", "20/s,4K/s", "--burst", "7"]).limits().unwrap().rate;
        let (lines, bytes) = ((20, 7), (4096, 4096));
        let [lines, bytes] =
            [lines, bytes].map(|(per_second, burst)| Some(Rate { per_second, burst }));
        assert_eq!(rate, Rates { lines, bytes });
        let limits = serve(&["--peer-rate", "9/s", "--peer-connect-rate", "5/s"]).limits().unwrap();
        assert_eq!(limits.peer_rate, Rate { per_second: 9, burst: 9 }.into());
        assert_eq!(limits.peer_connect_rate, Some(Rate { per_second: 5, burst: 5 }));
        let args = |args: &[&str]| Alone::try_parse_from([&["serve"], args].concat());
        for wrong in [
            &["--burst", "7"][..],
            &["--rate", "0"],
            &["--rate", "1", "--burst", "0"],
            &["--rate", ",64K/s"],
            &["--peer-rate", "64K/s"],
            &["--peer-rate", "9/s", "--burst", "7"],
            &["--peer-connect-rate", "5/s,1K/s"],
        ] {
            assert!(args(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn limits_that_cannot_be_kept_are_named() {
        for (option, value) in
            [("--max-line", "0"), ("--max-output", "2G"), ("--max-connections", "99999999")]
        {
            let failure = serve(&[option, value]).limits().unwrap_err();
            assert!(failure.to_string().starts_with(option), "{failure}");
        }
    }

    #[test]
    fn a_service_that_is_given_again_has_a_number() {
        let targets = serve(&["echo", "time=1,2", "echo=3", "echo=4"]).targets();
        assert_eq!(names(&targets), ["echo", "time", "echo-2", "echo-3"]);
    }

    #[test]
    fn levels_in_any_case() {
        assert_eq!(serve(&["--log", "off"]).log.log, LevelFilter::Off);
        assert_eq!(serve(&["--log", "TRACE"]).log.log, LevelFilter::Trace);
    }
}
