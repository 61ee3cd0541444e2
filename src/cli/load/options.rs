use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use reactor::Limits;

use super::payload;
use super::talk::Talk;
use crate::cli::address::{self, Endpoint};
use crate::cli::failure::Failure;
use crate::cli::trust::Trust;
use crate::cli::units::{bytes, count, duration, per_second};
use crate::cli::unused_options::GivenOptions;

/// Load a server and measure it: throughput, latency, and whether every reply is right.
///
/// It speaks to our services as the modes say, to any echo server with --plain, to servers that answer
/// a line with some with --send and --expect, and to others with --script.
///
/// All clients are connected first, then the time counts; in the modes churn and time it counts
/// from the first connect. Clients that are not greeted within --duration (5 s at least, plus what
/// --ramp takes) are given up. Every line is unique, and every reply is compared byte for byte, the
/// greeting too. At the end, the server has 5 s for the replies that it owes; then they are
/// missing. SIGINT ends the run early, with the result so far. A reply that is still owed at the
/// end counts as a latency of the time it has waited so far, so that a server which stalls for good
/// does not look fast.
///
/// The result goes to stdout; if there were errors, a line on stderr says so. Exit status: 0 if
/// every reply was right, 1 if one was wrong or missing or if a connection failed or was lost, 2 if
/// the command line is wrong.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = RESULT)]
pub(crate) struct Load {
    /// The server: PORT (on 127.0.0.1), HOST:PORT, [IPV6]:PORT or unix:PATH; or the name of a
    /// service of ours, at its default port on 127.0.0.1. With tls: in front, TLS is spoken there;
    /// with proxy: in front of that, each client begins with a PROXY header of version 2 that names it;
    /// with ws: behind those, it is WebSocket, a line a message.
    ///
    /// Over TLS, most clients resume the session of an earlier one, so their handshakes cost less.
    #[arg(value_name = "ADDR", value_parser = address::server)]
    pub(crate) target: Endpoint,

    /// What the clients do.
    #[arg(long, value_name = "MODE", default_value = "echo")]
    pub(crate) mode: Mode,

    /// Connections open at once. Each takes a file descriptor here and one at the server, which
    /// has a limit of its own (--max-connections).
    #[arg(short = 'c', long, value_name = "N", default_value = "50", value_parser = count)]
    pub(crate) clients: usize,

    /// Lines in flight: per client in the mode pipeline [default: 16], in all in the mode
    /// presence, 64 at most [default: 1].
    #[arg(long, value_name = "D", value_parser = count)]
    pub(crate) depth: Option<usize>,

    /// Bytes in each line that is sent, its LF counted: 16 to 1M, 20 at least in the mode presence.
    /// K and M stand for 1024 and 1024².
    #[arg(long, value_name = "BYTES", default_value = "32", value_parser = bytes)]
    pub(crate) size: usize,

    /// How long: 500ms, 30s, 5m, 1h [default: 10s; mode time: until the server has closed every
    /// connection; with --requests: until they are answered].
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Send exactly so many lines in all, requests of --send or rounds of --script, in the modes echo and
    /// pipeline, and make so many visits in the mode churn; then the run is over.
    ///
    /// Without --duration it also ends when no right reply has come for 5 s. If not all were sent and
    /// answered, the result says what is missing and the exit status is 1.
    #[arg(short = 'n', long, value_name = "N", value_parser = requests)]
    pub(crate) requests: Option<u64>,

    /// Load the server for so long before the result counts, in the modes echo and pipeline. Errors
    /// count from the beginning.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) warm_up: Option<Duration>,

    /// Threads that load, each with a share of the clients, for a server that does more than one thread
    /// can ask for; in the modes echo, pipeline, idle and churn.
    #[arg(short = 't', long, value_name = "N", default_value = "1", value_parser = count)]
    pub(crate) threads: usize,

    /// Open at most so many connections per second [default: as fast as they are accepted, 256
    /// in flight].
    #[arg(long, value_name = "N/s", value_parser = per_second)]
    pub(crate) ramp: Option<f64>,

    /// Send so many lines per second in all, at even intervals, in the modes echo, pipeline and
    /// presence [default: the next line as soon as a reply has come].
    ///
    /// A line whose turn comes while its client still waits for replies is sent later, and its
    /// latency counts from when it should have been sent: a server that stalls cannot hide it by
    /// holding the load back too (coordinated omission). Those that still had to wait at the end
    /// are counted as unsent, and as latencies of the time they had waited. The tester reads the
    /// clock every millisecond; its own lateness does not count.
    #[arg(short = 'q', long, value_name = "N/s", value_parser = per_second)]
    pub(crate) rate: Option<f64>,

    /// The server's process on this machine (Linux): tells its CPU time per line and its resident
    /// memory per client, from /proc.
    ///
    /// CPU time comes in steps of 10 ms, so there is none per line below 100 ms. Memory comes in
    /// pages, and what a server has used before it may use again unseen: ask a fresh one, with
    /// thousands of clients. The kernel's own memory for sockets is not in it.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Print the result as one JSON object on one line; see below.
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw the distribution of the latencies into this file, as SVG; with --compare that of the other
    /// run too.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Write a line for each second into this file while it runs, as CSV with a head: elapsed_s, lines,
    /// lines_per_s, p50_us, p90_us, p99_us, p99_9_us, max_us, errors. The last line is what is left of a
    /// second. A second without a reply has no latencies.
    #[arg(long, value_name = "FILE")]
    pub(crate) series: Option<PathBuf>,

    /// Compare with an earlier result, a file that --json has written: both side by side, and for each
    /// difference whether it is noise.
    ///
    /// It is noise if it is smaller than what the seconds of the two runs differ by anyway: than the root
    /// of the sum of the squares of their standard deviations. That takes 5 whole seconds of each.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) trust: Trust,

    #[command(flatten)]
    pub(crate) talk: Talk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Each client keeps one line in flight.
    Echo,
    /// Each client keeps --depth lines in flight.
    Pipeline,
    /// Each client connects and says nothing until the end.
    Idle,
    /// Each client connects, sends one line and BYE, and does it again; a latency is such a visit.
    Churn,
    /// The clients SAY something by turns in the room of the presence service, which must have no
    /// other guests; a latency lasts until the last client has heard it.
    Presence,
    /// Each client listens to the time service until it closes; a latency is a line's deviation
    /// from the rhythm.
    Time,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Pipeline => "pipeline",
            Mode::Idle => "idle",
            Mode::Churn => "churn",
            Mode::Presence => "presence",
            Mode::Time => "time",
        }
    }

    /// Whether the clients can be shared out among threads: those of other modes have to do with each other.
    pub(crate) fn has_threads(self) -> bool {
        !matches!(self, Mode::Presence | Mode::Time)
    }

    /// The service that it loads.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Mode::Presence => "presence",
            Mode::Time => "time",
            Mode::Echo | Mode::Pipeline | Mode::Idle | Mode::Churn => "echo",
        }
    }

    /// What the latencies are called in the result.
    pub(crate) fn measured(self) -> &'static str {
        if self == Mode::Time { "jitter" } else { "latency" }
    }

    /// Whether the load begins with the first connect, not when all clients are connected.
    pub(crate) fn begins_at_once(self) -> bool {
        matches!(self, Mode::Churn | Mode::Time)
    }
}

const RESULT: &str = "\
A latency lasts from the beginning of the turn of the tester's loop that sends a line to the
beginning of the turn that finds its reply: a tester that is busy makes them longer. Where no reply
has come, it lasts until the tester gives up, 5 s after the end, or until a signal. That of a line
that --rate could not send lasts until the end. The same holds for visits (mode churn) and for lines
that not everybody has heard (presence); in the mode time, a line that is overdue at the end
deviates by as much. What was lost with its connection has no latency.

The JSON object, with durations in seconds (_s) or microseconds (_us), null where nothing was
measured:
  date                when it was over, in UTC
  mode, target        as asked for
  protocol            the file of --script, the line of --send, plain, or null
  clients, threads, depth, size, warm_up_s, requests
                      as asked for
  connected           clients that were connected and greeted
  connections         connections that were; more than clients in the mode churn
  connect_s           from the first connect until the last client was greeted
  elapsed_s           from the start of the load to its end or the last reply
  interrupted         whether a signal ended it early
  sent                in the modes echo, pipeline and churn: lines, requests or rounds, as many as
                      were sent
  lines               right lines received: replies, in the mode presence deliveries; with --send
                      right replies, with --script rounds, each of which counts once
  lines_each          in the mode time: lines of a client that the server has closed
  messages            in the mode presence: what was said and reached everybody
  lines_per_s, bytes_sent_per_s, bytes_received_per_s
                      without the greetings and goodbyes, except in the mode churn
  rate_per_s          what --rate asked for
  unsent              with --rate: lines that were due, but had to wait for replies to the end
  latency_us          {count, min, mean, p50, p90, p99, p99_9, max}; what is owed at the end is in
                      it, so count is above lines then
  latency_curve_us    the latency at the quantile 1 - 10^(-k/20), for k from 0 on
  seconds             the whole seconds: {count}, and of lines_per_s, p50_us, p90_us, p99_us and
                      p99_9_us the {mean, deviation}, null below two of them
  compared            with --compare: {file, date, otherwise}, what was asked for otherwise, and of
                      lines_per_s, p50_us, ... {before, now, change_percent, is_noise}; is_noise is
                      null where there are too few seconds
  interval_us         in the mode time: the median of the time from line to line
  errors              how many; then errors_by_kind {kind: how many}
  first_wrong         the first wrong line; then first_wrong_expected, and first_wrong_sent, the
                      request
  tester              {cpu_percent, is_bottleneck}
  server              {pid, cpu_us_per_line, cpu_percent, rss_before_bytes, rss_connected_bytes,
                      rss_end_bytes, rss_bytes_per_client}, with --server-pid";

/// A number of requests.
fn requests(text: &str) -> Result<u64, String> {
    count(text).map(|number| number as u64)
}

const MOST_SIZE: usize = 1 << 20;
/// Bytes that may be in flight to one client. All of them may wait here to be sent.
const MOST_IN_FLIGHT: usize = 64 << 20;
const MOST_SAYINGS: usize = 64;

impl Load {
    /// Refuses options that do not go together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        let least = match self.mode {
            Mode::Presence => payload::SHORTEST + payload::SAY.len(),
            _ => payload::SHORTEST,
        };
        if !(least..=MOST_SIZE).contains(&self.size) {
            return usage(format!("--size: it must be from {least} bytes to 1M"));
        }
        if self.mode == Mode::Presence && self.depth() > MOST_SAYINGS {
            return usage("--depth: it must not be above 64 in the mode presence".to_owned());
        }
        if self.depth().saturating_mul(self.size) > MOST_IN_FLIGHT {
            return usage("--depth: with that --size it is more than 64M per client".to_owned());
        }
        if self.clients > payload::MOST_CLIENTS {
            return usage(format!("--clients: it must not be above {}", payload::MOST_CLIENTS));
        }
        if self.threads > self.clients {
            return usage("--threads: each needs a client, see --clients".to_owned());
        }
        Ok(())
    }

    /// Refuses options that the mode has no use for.
    pub(crate) fn check_mode(&self, given: &GivenOptions) -> Result<(), Failure> {
        use Mode::{Churn, Echo, Idle, Pipeline, Presence, Time};
        let refuse_unless = |modes: &[Mode], options: &[&str]| {
            let names: Vec<_> = modes.iter().map(|mode| mode.name()).collect();
            let (last, others) = names.split_last().expect("there is one at least");
            let user = format!("the modes {} and {last}", others.join(", "));
            given.refuse_unless(modes.contains(&self.mode), options, &user)
        };
        refuse_unless(&[Pipeline, Presence], &["depth"])?;
        refuse_unless(&[Echo, Pipeline, Presence], &["rate"])?;
        refuse_unless(&[Echo, Pipeline, Churn], &["requests"])?;
        refuse_unless(&[Echo, Pipeline], &["warm_up"])?;
        refuse_unless(&[Echo, Pipeline, Idle, Churn], &["threads", "plain"])?;
        refuse_unless(&[Echo, Pipeline, Churn, Presence], &["size"])?;
        refuse_unless(&[Echo, Pipeline, Churn], &["send", "expect", "script", "crlf"])?;
        given.refuse_unless(
            self.talk.words().is_none(),
            &["size"],
            "the lines of echo services",
        )?;
        refuse_unless(&[Echo, Pipeline, Idle, Churn, Presence], &["greeting", "no_greeting"])?;
        refuse_unless(&[Echo, Pipeline, Churn, Presence, Time], &["svg", "series", "compare"])
    }

    pub(crate) fn clients(&self) -> u32 {
        self.clients as u32
    }

    /// Lines in flight, of one client or, in the mode presence, in all.
    pub(crate) fn depth(&self) -> usize {
        self.depth.unwrap_or(if self.mode == Mode::Pipeline { 16 } else { 1 })
    }

    /// How many connections there may be altogether.
    pub(crate) fn most_connections(&self) -> u64 {
        self.requests.filter(|_| self.mode == Mode::Churn).unwrap_or(u64::MAX)
    }

    /// None if the server decides when it ends, or the number of requests does.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let ends = self.mode == Mode::Time || self.requests.is_some();
        let usual = (!ends).then_some(Duration::from_secs(10));
        self.duration.or(usual)
    }

    /// The output may hold all that can be in flight, since what is above it would be refused, and the
    /// input the longest reply or greeting.
    pub(crate) fn limits(&self) -> Limits {
        let most = (2 * self.depth() * (self.size + 64)).max(1 << 20);
        if self.talk.words().is_some() {
            // The lines of a dialogue are as long as the file says.
            let max_output = 2 * MOST_IN_FLIGHT;
            return Limits { max_output, max_line: 2 * MOST_SIZE, ..Limits::default() };
        }
        Limits { max_output: most, max_line: (self.size + 64).max(1024), ..Limits::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        load: Load,
    }

    fn parse(args: &[&str]) -> Result<Load, String> {
        let args = [&["load"], args].concat();
        let read = |error: clap::Error| error.to_string();
        let matches = Alone::command().try_get_matches_from(args).map_err(read)?;
        let Alone { load } = Alone::from_arg_matches(&matches).map_err(read)?;
        let checked = load.check().and_then(|()| load.check_mode(&GivenOptions::new(&matches)));
        checked.map_err(|failure| failure.to_string())?;
        Ok(load)
    }

    #[test]
    fn the_defaults() {
        let load = parse(&["2323"]).unwrap();
        assert_eq!(load.target.to_string(), "127.0.0.1:2323");
        assert_eq!((load.mode, load.clients(), load.depth(), load.size), (Mode::Echo, 50, 1, 32));
        assert_eq!(load.duration(), Some(Duration::from_secs(10)));
        assert_eq!((load.ramp, load.rate, load.server_pid), (None, None, None));
    }

    #[test]
    fn what_follows_from_the_mode() {
        assert_eq!(parse(&["1", "--mode", "pipeline"]).unwrap().depth(), 16);
        assert_eq!(parse(&["1", "--mode", "presence"]).unwrap().depth(), 1);
        assert_eq!(parse(&["1", "--mode", "time"]).unwrap().duration(), None);
        let ramped = parse(&["unix:/a", "--ramp", "500/s", "--rate", "2500"]).unwrap();
        assert_eq!((ramped.ramp, ramped.rate), (Some(500.0), Some(2500.0)));
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        for (args, words) in [
            (&["1", "--depth", "4"][..], "--depth goes with the modes pipeline and presence"),
            (&["1", "--mode", "presence", "--depth", "65"], "above 64"),
            (&["1", "--mode", "churn", "--rate", "9"], "--rate goes with"),
            (
                &["1", "--mode", "presence", "-n", "9"],
                "--requests goes with the modes echo, pipeline",
            ),
            (&["1", "--mode", "churn", "--warm-up", "9s"], "--warm-up goes with"),
            (&["1", "--mode", "time", "--threads", "2"], "--threads goes with"),
            (&["1", "--threads", "3", "-c", "2"], "each needs a client"),
            (&["1", "--mode", "idle", "--series", "a.csv"], "--series goes with"),
            (&["1", "--greeting", "0"], "--no-greeting"),
            (&["1", "--greeting", "hi", "--no-greeting"], "cannot be used with"),
            (&["1", "--size", "15"], "from 16 bytes"),
            (&["1", "--size", "2M"], "to 1M"),
            (&["1", "--size", "19", "--mode", "presence"], "from 20 bytes"),
            (&["1", "--size", "1M", "--depth", "65", "--mode", "pipeline"], "64M per client"),
            (&["1", "--clients", "1048577"], "above 1048576"),
            (&["1", "--mode", "idle", "--svg", "a.svg"], "--svg goes with"),
            (&["1", "--clients", "0"], "above 0"),
            (&["1", "--ramp", "0/s"], "above 0"),
            (&["1", "--mode", "loud"], "possible values"),
            (&["localhost"], "write localhost:PORT"),
            (&["0"], "port 0"),
            (&[], "ADDR"),
        ] {
            let said = parse(args).unwrap_err();
            assert!(said.contains(words), "{args:?}: {said}");
        }
    }
}
