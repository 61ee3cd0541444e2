//! The options of `serve`: those of the whole server, and those that each service has for itself.

use std::time::Duration;

use clap::Command;
use reactor::{Address, Limits, Rate, Rates};

use crate::cli::access::Access;
use crate::cli::address::{self, Place};
use crate::cli::admin::AdminOptions;
use crate::cli::announce::Announce;
use crate::cli::bus::BusOptions;
use crate::cli::failure::Failure;
use crate::cli::logging::LogOptions;
use crate::cli::service::ServiceOptions;
use crate::cli::successor::UpgradeOptions;
use crate::cli::target::Target;
use crate::cli::units::{
    Patience, bytes, count, duration, output, patience, rates, threads, whole_rate,
};
use crate::cli::unused_options::{GivenOptions, Use};

/// Options that hold for all services together.
#[derive(Debug, clap::Args)]
pub(crate) struct Whole {
    /// The IP address or host to listen on if only a port is given; 0.0.0.0 or :: for all. It does
    /// not move web.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", value_parser = address::host)]
    pub(crate) host: Address,

    /// Threads that serve, each with a loop of its own; auto for as many as there are cores.
    ///
    /// echo, time and presence run on all of them, and each client on the one of two that has fewer. The
    /// roulettes and web, which keep something for all their clients, run on the first. Limits hold for all
    /// threads together.
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads)]
    pub(crate) threads: usize,

    /// Unsent bytes of all services together; beyond it, the clients that let most pile up are
    /// closed.
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = output)]
    pub(crate) max_total_output: usize,

    /// Memory for unfinished lines, and for unfinished records of TLS, of all services together;
    /// beyond it, the clients with the longest are closed.
    #[arg(long, value_name = "BYTES", default_value = "128M", value_parser = output)]
    pub(crate) max_total_input: usize,

    #[command(flatten)]
    pub(crate) bus: BusOptions,

    #[command(flatten)]
    pub(crate) announce: Announce,

    #[command(flatten)]
    pub(crate) admin: AdminOptions,

    #[command(flatten)]
    pub(crate) upgrade: UpgradeOptions,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Options that each service has for itself, if a file gives it some.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EachService {
    #[command(flatten)]
    pub(crate) access: Access,

    /// Connections open at once, per service; one more is told so and closed [default: 10000].
    ///
    /// Each takes a file descriptor. With this option the descriptors must suffice for N; without
    /// it, a warning says for how many they do.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_connections: Option<usize>,

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

    /// Time without traffic after which TCP asks whether the peer is still there; `never` for not
    /// at all.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = patience)]
    keepalive: Patience,

    /// Close a connection whose peer's machine acknowledges or accepts nothing for this long
    /// [default: the system's, some 15 minutes].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    user_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) services: ServiceOptions,
}

/// The options of one of these kinds, as clap knows them.
pub(super) fn command_of<T: clap::Args>() -> Command {
    T::augment_args(Command::new("serve").no_binary_name(true).disable_help_flag(true))
}

impl Whole {
    /// Refuses options that are wrong, or that none of these services uses.
    pub(super) fn check<'t>(
        &self,
        given: &GivenOptions,
        targets: impl Iterator<Item = &'t Target> + Clone,
    ) -> Result<(), Failure> {
        let host = self.announce.goes_by_host() || targets.clone().any(Target::goes_by_host);
        let user = "a port, and every service has its whole address; leave it out";
        given.refuse_unless(host, &["host"], user)?;
        self.bus.check(given, targets.filter(|target| target.service.name == "presence").count())
    }
}

impl EachService {
    /// Who uses the options, where there is this service alone.
    pub(super) fn uses(target: &Target) -> Vec<Use> {
        let places = &target.places;
        let is = |name| target.service.name.starts_with(name);
        let lines = !target.service.http;
        let mut uses = Access::uses(places, Some(target.service.http));
        uses.extend([
            Use {
                options: &["time_interval", "time_count"],
                used: is("time"),
                user: "the service time; add it",
            },
            Use {
                options: &["allow_kill", "unique_names"],
                used: is("presence"),
                user: "the service presence; add it",
            },
            Use { options: &["web_admin"], used: is("web"), user: "the service web; add it" },
            Use {
                options: &[
                    "max_connections",
                    "max_line",
                    "max_output",
                    "idle_timeout",
                    "line_timeout",
                    "rate",
                    "burst",
                    "max_per_peer",
                    "peer_rate",
                    "peer_connect_rate",
                ],
                used: lines,
                user: "another service than web, whose limits are its own; leave it out",
            },
            Use {
                options: &["roulette_file", "roulette_memory"],
                used: is("roulette"),
                user: "the services roulette and roulette2; add one",
            },
            Use {
                options: &["max_per_peer", "peer_rate", "peer_connect_rate"],
                used: places.iter().any(Place::may_know_clients),
                user: "TCP, and only Unix sockets listen; leave it out",
            },
            Use {
                options: &["keepalive", "user_timeout"],
                used: places.iter().any(Place::may_be_tcp),
                user: "TCP, and only Unix sockets listen; leave it out",
            },
        ]);
        uses
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

#[cfg(test)]
mod tests {
    use log::LevelFilter;

    use super::*;

    fn try_parse<T: clap::Args>(args: &[&str]) -> Result<T, clap::Error> {
        T::from_arg_matches(&command_of::<T>().try_get_matches_from(args)?)
    }

    fn each(args: &[&str]) -> EachService {
        try_parse(args).unwrap()
    }

    #[test]
    fn without_options_the_limits_are_the_librarys() {
        assert_eq!(each(&[]).limits().unwrap(), Limits::default());
    }

    #[test]
    fn any_output_limit_leaves_the_others_in_order() {
        for text in ["1K", "1025", "64K", "1G"] {
            let limits = each(&["--max-output", text]).limits().unwrap();
            assert_eq!(limits.soft_output, limits.max_output / 4, "{text}");
            assert!(limits.low_water < limits.high_water, "{text}");
        }
    }

    #[test]
    fn limits_can_be_switched_off_and_on() {
        let limits = each(&["--line-timeout", "never", "--keepalive", "never"]).limits().unwrap();
        assert_eq!((limits.line_timeout, limits.keepalive), (None, None));
        let rate = each(&["--rate", "20/s"]).limits().unwrap().rate;
        assert_eq!(rate, Rate { per_second: 20, burst: 20 }.into());
        let rate = each(&["--rate", "20", "--burst", "7"]).limits().unwrap().rate;
        assert_eq!(rate, Rate { per_second: 20, burst: 7 }.into());
        let rate = each(&["--rate", "20/s,4K/s", "--burst", "7"]).limits().unwrap().rate;
        let (lines, bytes) = ((20, 7), (4096, 4096));
        let [lines, bytes] =
            [lines, bytes].map(|(per_second, burst)| Some(Rate { per_second, burst }));
        assert_eq!(rate, Rates { lines, bytes });
        let limits = each(&["--peer-rate", "9/s", "--peer-connect-rate", "5/s"]).limits().unwrap();
        assert_eq!(limits.peer_rate, Rate { per_second: 9, burst: 9 }.into());
        assert_eq!(limits.peer_connect_rate, Some(Rate { per_second: 5, burst: 5 }));
        let args = try_parse::<EachService>;
        for wrong in [
            &["--rate", "0"][..],
            &["--rate", "1", "--burst", "0"],
            &["--rate", ",64K/s"],
            &["--peer-rate", "64K/s"],
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
            let failure = each(&[option, value]).limits().unwrap_err();
            assert!(failure.to_string().starts_with(option), "{failure}");
        }
    }

    #[test]
    fn levels_in_any_case() {
        let whole = |args: &[&str]| try_parse::<Whole>(args).unwrap();
        assert_eq!(whole(&[]).log.log, LevelFilter::Info);
        assert_eq!(whole(&["--log", "off"]).log.log, LevelFilter::Off);
        assert_eq!(whole(&["--log", "TRACE"]).log.log, LevelFilter::Trace);
    }

    #[test]
    fn each_option_of_a_service_has_its_users() {
        let target = Target::parse("echo").unwrap();
        let uses = EachService::uses(&target);
        for arg in command_of::<EachService>().get_arguments() {
            let known = uses.iter().any(|it| it.options.contains(&arg.get_id().as_str()));
            assert!(known, "{}: say in `uses` who uses it", arg.get_id());
        }
    }
}
