use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use log::LevelFilter;
use reactor::{Address, Limits, Rate};

use super::access::Access;
use super::announce::Announce;
use super::connect::Connect;
use super::discover::Discover;
use super::failure::Failure;
use super::forward::Forward;
use super::load::Load;
use super::service;
use super::target::{self, Target};
use super::units::{Patience, bytes, count, duration, output, patience, rate};
use super::unused_options::Given;

/// One thread that serves thousands of clients of line protocols.
#[derive(Debug, Parser)]
#[command(name = "reactor", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Load(Load),
    Forward(Forward),
    Connect(Connect),
    Discover(Discover),
}

/// Serve one or more services until SIGINT or SIGTERM.
///
/// Once all of them listen, each says where in one line on stdout, one for each address; the log goes to stderr. The
/// first SIGINT or SIGTERM lets the clients have what was sent to them, a second one ends at once.
/// SIGHUP reads the TLS certificate again.
///
/// Limits hold for each SERVICE on its own, those per connection for each of its connections.
///
/// Exit status: 0 after a graceful end, 1 after a failure or when clients were cut off before
/// they had all their output, 2 when the command line is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = service::table(), after_long_help = service::table())]
pub(crate) struct Serve {
    /// What to serve, and where; without any, every service at its default port.
    ///
    /// ADDR is PORT (on --host), HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 takes a free one. Of a
    /// HOST with several addresses it is all of them. With tls: in front (echo=tls:2323) it speaks
    /// TLS there; see --tls-cert.
    /// Without ADDR it is the service's default port on --host. A service that is given twice is
    /// two, which share nothing.
    #[arg(value_name = "SERVICE[=ADDR]", value_parser = Target::parse)]
    targets: Vec<Target>,

    /// The IP address or host to listen on where only a port is given; 0.0.0.0 or :: for all.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", value_parser = target::host)]
    pub(crate) host: Address,

    #[command(flatten)]
    pub(crate) access: Access,

    /// Connections open at once, per service; one more is told so and closed [default: 10000].
    ///
    /// Each takes a file descriptor. If it is given, the descriptors must suffice for it; else a
    /// warning says for how many they do.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_connections: Option<usize>,

    /// Bytes in one line, per connection; who sends a longer one is told so and closed. K, M
    /// and G stand for 1024, 1024² and 1024³.
    #[arg(long, value_name = "BYTES", default_value = "64K", value_parser = bytes)]
    max_line: usize,

    /// Unsent bytes that others cause, per connection; who lets more pile up is closed.
    ///
    /// The bounds below it follow from it: a quarter of it may be passed for 10 s only, and a
    /// connection whose own requests leave a quarter of it unsent is not read until no more than a
    /// sixteenth is left.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = output)]
    max_output: usize,

    /// Close a connection on which nothing moves for this long: 500ms, 30s, 5m, 1h [default:
    /// never].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle_timeout: Option<Duration>,

    /// How long a client may take to finish a line that it has begun; `never` for any time.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = patience)]
    line_timeout: Patience,

    /// Lines a second that are handled of one connection; a faster one waits, and loses nothing
    /// [default: any].
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<u32>,

    /// Lines that may come at once before the rate counts [default: those of a second].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(requires = "rate")]
    burst: Option<u32>,

    /// Connections open at once from one address (of IPv6: from one /64), per service; one more is
    /// told so and closed [default: any].
    #[arg(long, value_name = "N", value_parser = count)]
    max_per_peer: Option<usize>,

    /// Unsent bytes of all services together; past it those who let most pile up are closed.
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = output)]
    pub(crate) max_total_output: usize,

    /// After how long without traffic TCP asks whether the peer is still there; `never` for not
    /// at all.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = patience)]
    keepalive: Patience,

    /// Close a connection whose peer's machine acknowledges nothing for this long, or takes
    /// nothing [default: the system's, some 15 minutes].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    user_timeout: Option<Duration>,

    /// Let the clients of presence shut the whole program down with KILL.
    #[arg(long)]
    pub(crate) allow_kill: bool,

    /// The time from one line of the time service to the next: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) time_interval: Duration,

    /// Lines that each client of the time service gets; 0 for as many as it stays for.
    #[arg(long, value_name = "N", default_value = "15", value_parser = lines)]
    pub(crate) time_count: u64,

    /// The students that roulette and roulette2 begin with: a text with a name on each line.
    #[arg(long, value_name = "PATH")]
    pub(crate) roulette_file: Option<PathBuf>,

    /// Memory for the names of each roulette; a LOAD for which there is none left is refused.
    ///
    /// A name takes its own bytes and four more. The names of a LOAD that has not ended and of a
    /// LIST that is still being sent count too.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    pub(crate) roulette_memory: usize,

    #[command(flatten)]
    pub(crate) announce: Announce,

    /// What to log on stderr, and all that is worse.
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    #[arg(value_parser = levels())]
    pub(crate) log: LevelFilter,
}

impl Serve {
    pub(crate) fn targets(&self) -> Vec<Target> {
        if self.targets.is_empty() {
            return service::SERVICES.iter().map(Target::usual).collect();
        }
        self.targets.clone()
    }

    /// Refuses the options that nothing heeds.
    pub(crate) fn check(&self, given: &Given<'_>) -> Result<(), Failure> {
        let targets = self.targets();
        let addresses: Vec<_> =
            targets.iter().map(|target| target.spot(&self.host).address).collect();
        let tcp = addresses.iter().any(|address| !matches!(address, Address::Unix(_)));
        let host = self.announce.goes_by_host() || targets.iter().any(Target::goes_by_host);
        let serves = |name| targets.iter().any(|target| target.service.name.starts_with(name));
        Access::check(given, &addresses.iter().collect::<Vec<_>>())?;
        for (options, heeded, by) in [
            (&["time_interval", "time_count"][..], serves("time"), "the service time; add it"),
            (&["allow_kill"], serves("presence"), "the service presence; add it"),
            (
                &["roulette_file", "roulette_memory"],
                serves("roulette"),
                "the services roulette and roulette2; add one",
            ),
            (
                &["max_per_peer", "keepalive", "user_timeout"],
                tcp,
                "TCP, and only Unix sockets listen; leave it out",
            ),
            (&["host"], host, "a port, and every service has its whole address; leave it out"),
        ] {
            given.check(options, heeded, by)?;
        }
        Ok(())
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
            rate: self.rate.map(|per_second| {
                let burst = self.burst.unwrap_or(per_second);
                Rate { per_second, burst }
            }),
            max_per_peer: self.max_per_peer,
            keepalive: self.keepalive.0,
            user_timeout: self.user_timeout,
            ..usual
        };
        limits.check()?;
        Ok(limits)
    }
}

fn lines(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number, 0 for no end".to_owned())
}

/// The levels of the log, as an option takes them.
pub(super) fn levels() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|name| name.parse::<LevelFilter>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(args: &[&str]) -> Serve {
        let args = Args::try_parse_from([&["reactor", "serve"], args].concat()).unwrap();
        let Some(Command::Serve(serve)) = args.command else { panic!("not serve") };
        serve
    }

    #[test]
    fn clap_is_used_as_it_wants_to_be() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_options_the_limits_are_the_librarys() {
        let serve = serve(&[]);
        assert_eq!(serve.limits().unwrap(), Limits::default());
        assert_eq!(serve.targets().len(), service::SERVICES.len());
        assert_eq!(serve.log, LevelFilter::Info);
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
        assert_eq!(rate, Some(Rate { per_second: 20, burst: 20 }));
        let rate = serve(&["--rate", "20", "--burst", "7"]).limits().unwrap().rate;
        assert_eq!(rate, Some(Rate { per_second: 20, burst: 7 }));
        let args = |args: &[&str]| Args::try_parse_from([&["reactor", "serve"], args].concat());
        for wrong in [&["--burst", "7"][..], &["--rate", "0"], &["--rate", "1", "--burst", "0"]] {
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
    fn levels_in_any_case() {
        assert_eq!(serve(&["--log", "off"]).log, LevelFilter::Off);
        assert_eq!(serve(&["--log", "TRACE"]).log, LevelFilter::Trace);
    }
}
