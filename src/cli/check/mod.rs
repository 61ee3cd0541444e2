//! `reactor check`: is a server of a line protocol right, and if not, why? It connects as one kind of
//! client after the other, and judges each by itself.
//!
//! Its sockets are its own and no reactor's: each kind is a short story that waits for one thing at a time, and a
//! fault of the library's own loop must not judge others. Read in this order:
//!
//! 1. `client`: a socket; no call waits longer than it is told. `server`: a process that is started here.
//! 2. `lab`: what all kinds share, and what a verdict is.
//! 3. `talk`: a client in a dialogue of the protocol.
//! 4. `kinds`: the kinds of client.
//! 5. `report`: what is said of them, to people or as JSON.

mod client;
mod kinds;
mod lab;
mod report;
mod server;
mod talk;

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use reactor::Address;

use self::client::Client;
use self::kinds::{DIALOGUE, DIALOGUE_WHY, GREETING, KINDS, dialogue};
use self::lab::{Finding, Judged, Lab, Verdict};
use self::report::{Report, Row};
use self::server::{Server, Starter};
use super::address::{self, Endpoint, look_up_server};
use super::descriptors;
use super::failure::{Failure, why};
use super::process::Usage;
use super::protocol::Protocol;
use super::units::duration;

const OUT_OF_TIME: &str = "not judged: the time is over; --time-limit gives more";
/// How long a server that is started here may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long it is watched after each kind of client whether that was the server's end.
const AFTERMATH: Duration = Duration::from_millis(30);
/// How long the first connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Judge a server of a line protocol, in whatever language it is written: is it right, and if not, why?
///
/// It connects as some twenty kinds of client, one after the other, and says of each whether the server passes,
/// with what was sent, what should have come, what came, and why it matters. What a kind of client does not need,
/// it does not judge: a server that serves one client at a time can still get its lines right. It ends within
/// the time limit, whatever the server does, and leaves no connection behind.
///
/// Exit status: 0 if nothing failed, 1 if something did, if the time was over before all was judged or if the server
/// cannot be reached, 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
#[command(after_long_help = RESULT)]
pub(crate) struct Check {
    /// The server: PORT (on 127.0.0.1), HOST:PORT or [IPV6]:PORT; or the name of a service of ours, at its default
    /// port on 127.0.0.1.
    #[arg(value_name = "ADDR", value_parser = address::server, required_unless_present = "list")]
    server: Option<Endpoint>,

    /// What it should speak: echo, time, presence, roulette, roulette2, or a file; see below.
    #[arg(long, value_name = "NAME|FILE", default_value = "echo")]
    protocol: String,

    /// Only this kind of client, or this dialogue of the protocol; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Say what kinds of client there are, and what each does.
    #[arg(long)]
    list: bool,

    /// How long a reply may take: 500ms, 2s.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    patience: Duration,

    /// How long all of it may take. What is not judged by then gets a note; a slow machine may need more.
    #[arg(long, value_name = "DURATION", default_value = "50s", value_parser = duration)]
    time_limit: Duration,

    /// The server's process on this machine (Linux): its memory and its descriptors are looked at.
    #[arg(long, value_name = "PID", conflicts_with = "run")]
    server_pid: Option<u32>,

    /// Start the server with this command, look at its memory and its descriptors, kill it and start it again. The
    /// command is one program with its arguments, as a shell reads them, NAME=VALUE in front if it needs that. It
    /// stays in the foreground; its children are ended with it.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,

    /// Print the result as one JSON object on one line; see below.
    #[arg(long)]
    json: bool,
}

const RESULT: &str = "\
A protocol of one's own is a TOML file. docs/check.md teaches it; in short:
  name = \"keys\"
  greeting = [\"hello {session}\"]        lines that every client gets first
  ignore = [\"news: {any}\"]              lines that others may cause at any time
  [[dialogue]]
  name = \"key\"
  steps = [
      { send = \"NEW {client} {n}\" },    the numbers of the client and of its round
      { expect = \"key {key}\" },         one byte or more, captured by this name
      { send = \"GET {key}\" },
      { expect = \"{any}\" },             whatever it is
      { end = \"server\" },               it must end the connection; or \"client\"
  ]
The kinds of client hold the first dialogue, again and again, so it leaves the connection open.

The JSON object:
  target, protocol    as asked for
  passed, failed, notes, elapsed_s
  results             [{name, verdict, does, why, ...}], verdict being \"pass\" or \"note\" (then what was
                      seen is in said), or \"fail\" (then sent, expected and came tell of it)";

/// Judges, and prints what is to be said.
pub(crate) fn check(args: &Check) -> Result<ExitCode, Failure> {
    let protocol = Protocol::named(&args.protocol)?;
    let names = names(&protocol);
    if let Some(unknown) = args.only.iter().find(|only| !names.contains(*only)) {
        return Err(Failure::Usage(format!("--only {unknown}: there are {}", names.join(", "))));
    }
    let of_kinds = |name: &str| name == GREETING.name || KINDS.iter().any(|kind| kind.name == name);
    if let Some(script) = protocol.dialogues.iter().find(|script| of_kinds(&script.name)) {
        let (file, name) = (&args.protocol, &script.name);
        return Err(Failure::Runtime(format!(
            "{file}: the dialogue {name:?} is called as a kind of client is: choose another name"
        )));
    }
    if let Some(unknown) = protocol.left_out.iter().find(|name| !names.contains(*name)) {
        let (file, names) = (&args.protocol, names.join(", "));
        return Err(Failure::Runtime(format!(
            "{file}: leave_out: no {unknown:?}, there are {names}"
        )));
    }
    let Some(endpoint) = args.server.as_ref().filter(|_| !args.list) else {
        report::print(&report::list(&protocol))?;
        return Ok(ExitCode::SUCCESS);
    };
    let address = plain_address(endpoint)?;
    if let Some(pid) = args.server_pid
        && Usage::of(pid).is_none()
    {
        return Err(Failure::Runtime(format!("--server-pid {pid}: no such process in /proc")));
    }
    // A hundred clients at once; the usual limit is enough for them.
    let _ = descriptors::raise();
    let begun = Instant::now();
    let (starter, server) = match &args.run {
        Some(command) => start(command, address).map(|(it, server)| (Some(it), Some(server)))?,
        None => reach(endpoint, address).map(|()| (None, None))?,
    };
    let lab = Lab {
        address,
        protocol,
        patience: args.patience,
        deadline: begun + args.time_limit,
        server_pid: args.server_pid,
        starter,
        server: RefCell::new(server),
        clients: Cell::new(0),
    };
    let rows = judge(&lab, &args.only);
    let report = Report {
        target: endpoint.to_string(),
        protocol: &lab.protocol,
        rows,
        elapsed: begun.elapsed(),
    };
    report::print(&if args.json { report.json() } else { report.text() })?;
    let judged = Instant::now() < lab.deadline;
    Ok(if report.failed() == 0 && judged { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `--only` may name.
fn names(protocol: &Protocol) -> Vec<String> {
    let dialogues = protocol.dialogues.iter().map(|script| script.name.clone());
    let kinds = KINDS.iter().map(|kind| kind.name.to_owned());
    std::iter::once(GREETING.name.to_owned()).chain(dialogues).chain(kinds).collect()
}

fn plain_address(endpoint: &Endpoint) -> Result<SocketAddr, Failure> {
    if !endpoint.layers.is_empty() {
        let address = &endpoint.address;
        return Err(Failure::Usage(format!("check speaks plain TCP: write {address}")));
    }
    let found = look_up_server(endpoint, CONNECT)?;
    let first = match &found.address {
        Address::Tcp(address) => Some(*address),
        Address::Host(host) => host.addresses().first().copied(),
        Address::Unix(_) => None,
    };
    first.ok_or_else(|| Failure::Usage("check speaks TCP: write PORT or HOST:PORT".to_owned()))
}

/// That somebody listens there.
fn reach(endpoint: &Endpoint, address: SocketAddr) -> Result<(), Failure> {
    let Err(error) = Client::connect(address, Instant::now() + CONNECT) else { return Ok(()) };
    let why = match error.kind() {
        // Somebody does, and what he does will be judged.
        ErrorKind::ConnectionReset => return Ok(()),
        ErrorKind::ConnectionRefused => {
            "nobody listens there; start the server first, or let --run do it".to_owned()
        }
        _ => why(&error),
    };
    Err(Failure::Runtime(format!("cannot connect to {endpoint}: {why}")))
}

fn start(command: &str, address: SocketAddr) -> Result<(Starter, Server), Failure> {
    if Client::connect(address, Instant::now() + CONNECT).is_ok() {
        return Err(Failure::Runtime(format!(
            "--run: somebody listens on {address} already: end it, or leave --run out"
        )));
    }
    let failure = |why| Failure::Runtime(format!("--run {command}: {why}"));
    let starter = Starter::new(command).map_err(|error| failure(error.to_string()))?;
    let server = starter.start(address, Instant::now() + START).map_err(failure)?;
    Ok((starter, server))
}

/// One after the other; what is not wanted is left out.
fn judge(lab: &Lab, only: &[String]) -> Vec<Row> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let mut judges = Judges { lab, rows: Vec::new(), broken: None };
    if wanted(GREETING.name) {
        judges.judge(GREETING.name, GREETING.does, GREETING.why, || (GREETING.judge)(lab));
    }
    let mut usual = None;
    for (number, script) in lab.protocol.dialogues.iter().enumerate() {
        if wanted(&script.name) {
            let why = script.why.as_deref().unwrap_or(DIALOGUE_WHY);
            let failed = judges.judge(&script.name, DIALOGUE, why, || dialogue(lab, script));
            if failed && number == 0 {
                // All that is built on it would say the same again.
                usual = Some(format!("not tried: not even '{}' went well", script.name));
            }
        }
    }
    judges.broken = judges.broken.or(usual);
    for kind in KINDS.iter().filter(|kind| wanted(kind.name)) {
        judges.judge(kind.name, kind.does, kind.why, || (kind.judge)(lab));
    }
    judges.rows
}

struct Judges<'l> {
    lab: &'l Lab,
    rows: Vec<Row>,
    /// Why nothing more can be judged.
    broken: Option<String>,
}

impl Judges<'_> {
    /// Whether it failed.
    fn judge(&mut self, name: &str, does: &str, why: &str, how: impl Fn() -> Judged) -> bool {
        let lab = self.lab;
        let mut verdict = match &self.broken {
            Some(why) => Verdict::Note(why.clone()),
            None if Instant::now() > lab.deadline => Verdict::Note(OUT_OF_TIME.to_owned()),
            None if lab.protocol.left_out.iter().any(|it| it == name) => {
                Verdict::Note("not asked for: the protocol leaves it out".to_owned())
            }
            None => match how().unwrap_or_else(Verdict::Fail) {
                // It was not given the time that it is due.
                Verdict::Fail(_) if Instant::now() > lab.deadline => {
                    Verdict::Note(OUT_OF_TIME.to_owned())
                }
                verdict => verdict,
            },
        };
        if self.broken.is_none() {
            verdict = self.look_after(name, verdict);
        }
        let failed = matches!(verdict, Verdict::Fail(_));
        let [name, does, why] = [name, does, why].map(str::to_owned);
        self.rows.push(Row { name, does, why, verdict });
        failed
    }

    /// A server that has ended has failed, whatever else is said. If it was started here it is started again.
    fn look_after(&mut self, name: &str, verdict: Verdict) -> Verdict {
        let lab = self.lab;
        let gone = matches!(verdict, Verdict::Fail(_)) && lab.is_gone();
        let until = lab.within(if gone { lab.patience } else { AFTERMATH });
        let Some(ended) = lab.server.borrow_mut().as_mut().map(|it| it.ended_by(until)) else {
            if gone {
                self.broken = Some(format!("not tried: since '{name}' nobody listens there"));
            }
            return verdict;
        };
        let Some(how) = ended else { return verdict };
        let started = lab.starter.as_ref().map(|it| it.start(lab.address, lab.within(START)));
        match started.transpose() {
            Ok(server) => drop(lab.server.replace(server)),
            Err(_) => {
                self.broken = Some(format!("not tried: after '{name}' it does not start again"))
            }
        }
        match verdict {
            Verdict::Fail(finding) => {
                Verdict::Fail(Finding { came: format!("{}; {how}", finding.came), ..finding })
            }
            Verdict::Pass(said) | Verdict::Note(said) => Verdict::Fail(Finding {
                sent: format!("what this kind of client does: {said}"),
                expected: "a server that goes on".to_owned(),
                came: how,
            }),
        }
    }
}
