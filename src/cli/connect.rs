use std::cell::RefCell;
use std::io::{self, ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use reactor::{CloseReason, Context, Handler, Limits, Reactor, services};

use super::address::{self, Endpoint, look_up_server};
use super::crlf::Crlf;
use super::failure::{Failure, unreachable, why};
use super::trust::Trust;
use super::units::duration;
use super::unused_options::GivenOptions;

/// Connect to a server: what is typed goes there, what it says is printed.
///
/// Standard input may be a terminal, a pipe, a file or nothing. At its end our side of the
/// connection ends (as with nc -N), and the rest of what the server says is still printed. When
/// the server ends its side, a terminal session ends; other input is still sent to its end.
///
/// Exit status: 0 if both sides have ended, also if nobody reads the output any more; 1 if the
/// connection fails or is reset, or if input or output fails; 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// The server: PORT (on 127.0.0.1), HOST:PORT, [IPV6]:PORT or unix:PATH; or the name of a
    /// service of ours, at its default port on 127.0.0.1. With tls: in front, TLS is spoken there; with
    /// proxy: in front of that, a PROXY header of version 2 goes first and names us; with ws: behind those, it
    /// is WebSocket, a line a message.
    #[arg(value_name = "ADDR", value_parser = address::server)]
    server: Endpoint,

    /// How long the server may take to be looked up and to accept, and with TLS or WebSocket to shake
    /// hands: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// End lines with CRLF on the way out, for protocols that insist on it.
    #[arg(long)]
    crlf: bool,

    #[command(flatten)]
    trust: Trust,
}

/// How a side ended, and what the system said if it was an error.
type Ending = (CloseReason, Option<io::Error>);

/// What became of the two sides.
#[derive(Debug, Default)]
struct Ends {
    /// Standard input and output could be used, and so the server was dialled.
    began: bool,
    /// The server was connected.
    connected: bool,
    server: Option<Ending>,
    stdio: Option<Ending>,
}

/// Forwards between standard input and output, which are its one client, and the server.
struct Client<'a> {
    forward: services::Forward,
    crlf: Option<Crlf>,
    /// The input is a terminal.
    typed: bool,
    ends: &'a RefCell<Ends>,
}

type Session = <services::Forward as Handler>::Session;

impl Handler for Client<'_> {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        let mut ends = self.ends.borrow_mut();
        (ends.began, ends.connected) = (true, cx.is_outbound());
        drop(ends);
        self.forward.on_open(cx);
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        match &mut self.crlf {
            Some(crlf) if !cx.is_outbound() => {
                self.forward.on_bytes(cx, &crlf.convert(bytes));
                bytes.len()
            }
            _ => self.forward.on_bytes(cx, bytes),
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        self.forward.on_drain(cx);
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Session>) {
        if cx.is_outbound() && self.typed {
            // There is no point in typing on for a server that has hung up.
            cx.close();
        } else {
            self.forward.on_eof(cx);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, reason: CloseReason) {
        let mut ends = self.ends.borrow_mut();
        let ending = (reason, cx.error());
        if cx.is_outbound() {
            ends.server = Some(ending);
            // However it ended, what it said before is printed.
            self.forward.on_close(cx, CloseReason::PeerClosed);
        } else {
            ends.stdio = Some(ending);
            self.forward.on_close(cx, reason);
        }
        if ends.stdio.is_some() && (ends.server.is_some() || !ends.began) {
            cx.stop();
        }
    }
}

impl Connect {
    /// `--timeout` includes the time that the lookup took.
    fn limits(&self, looking_up: Duration) -> Limits {
        Limits {
            connect_timeout: self.timeout.saturating_sub(looking_up),
            // A pager may take the output as late as it likes.
            flush_timeout: Duration::MAX,
            ..Limits::default()
        }
    }

    fn client<'a>(
        &self,
        server: reactor::Connect,
        typed: bool,
        ends: &'a RefCell<Ends>,
    ) -> Client<'a> {
        let forward = services::Forward::to(server);
        Client { forward, crlf: self.crlf.then(Crlf::default), typed, ends }
    }
}

/// Forwards until both sides have ended.
pub(crate) fn connect(args: &Connect, given: &GivenOptions) -> Result<ExitCode, Failure> {
    let ends = RefCell::default();
    let began = Instant::now();
    let server = look_up_server(&args.server, args.timeout)?;
    let server = args.trust.connect(&server, given)?;
    let client = args.client(server, io::stdin().is_terminal(), &ends);
    let mut reactor = Reactor::new()?;
    let service = reactor.add(client, args.limits(began.elapsed()))?;
    reactor.set_name(&service, "connect");
    reactor.adopt(&service, io::stdin(), io::stdout())?;
    let _ = reactor.run()?;
    drop(reactor);
    verdict(args, ends.into_inner()).map(|()| ExitCode::SUCCESS).map_err(Failure::Runtime)
}

/// Whether it ended as it should.
fn verdict(args: &Connect, ends: Ends) -> Result<(), String> {
    let Connect { server, timeout, .. } = args;
    match (ends.stdio, ends.server) {
        // Nobody reads the output any more.
        (Some((CloseReason::Error(ErrorKind::BrokenPipe), _)), _) => Ok(()),
        (Some((_, Some(error))), _) => Err(unusable(&error)),
        (_, Some((CloseReason::ConnectTimeout, _))) => Err(format!(
            "cannot connect to {server}: no answer within {timeout:?}; --timeout allows it more"
        )),
        (_, Some((CloseReason::PeerClosed, _))) => Ok(()),
        (_, Some((reason, error))) if ends.connected => {
            let why = error.map_or_else(|| reason.to_string(), |error| why(&error));
            Err(format!("the connection to {server} broke: {why}"))
        }
        (_, Some((reason, error))) => {
            let why = unreachable(&server.address, reason, error);
            Err(format!("cannot connect to {server}: {why}"))
        }
        (_, None) => Err("standard input and output cannot be used".to_owned()),
    }
}

/// Says which of standard input and output has failed, as far as that can be told.
fn unusable(error: &io::Error) -> String {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    // Reading and writing nothing. In the background, a terminal would stop us.
    let (what, remedy) = if !stdin.is_terminal() && rustix::io::read(&stdin, &mut [0; 0]).is_err() {
        ("input cannot be read", "; redirect it with <FILE, or </dev/null for none")
    } else if !stdout.is_terminal() && rustix::io::write(&stdout, &[]).is_err() {
        ("output cannot be written", "; redirect it with >FILE")
    } else {
        ("input or output", "")
    };
    format!("standard {what}: {}{remedy}", why(error))
}

#[cfg(test)]
mod tests {
    use reactor::testing::{Client as Peer, Harness};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Standard input and output, and the server.
    fn start(ends: &RefCell<Ends>) -> (Harness<Client<'_>>, Peer, Peer) {
        let server = address::server("127.0.0.1:9").unwrap();
        let args = Connect {
            server,
            timeout: Duration::from_secs(3),
            crlf: false,
            trust: Trust::default(),
        };
        let client = args.client(args.server.plainly(), false, ends);
        let mut harness = Harness::with_limits(client, args.limits(Duration::ZERO));
        let stdio = harness.connect();
        let (_, server) = harness.dialled().remove(0);
        (harness, stdio, server)
    }

    #[test]
    fn the_server_has_as_long_as_it_is_given() {
        let ends = RefCell::default();
        let (mut harness, _, server) = start(&ends);
        harness.advance(Duration::from_millis(2999));
        assert_eq!(harness.closed(server), None);
        harness.advance(Duration::from_millis(1));
        assert_eq!(harness.closed(server), Some(CloseReason::ConnectTimeout));
        assert!(harness.is_stopping());
    }

    #[test]
    fn a_pager_may_take_its_time() {
        let ends = RefCell::default();
        let (mut harness, stdio, server) = start(&ends);
        harness.answer(server);
        harness.take_only(stdio, Some(0));
        harness.feed(server, "a long story");
        harness.end(server);
        harness.end(stdio);
        harness.advance(DAY);
        assert!(!harness.is_stopping());
        harness.take_only(stdio, None);
        assert_eq!(harness.sent(stdio), b"a long story");
        assert!(harness.is_stopping());
    }

    #[test]
    fn so_may_a_server_that_has_nothing_to_say() {
        let ends = RefCell::default();
        let (mut harness, stdio, server) = start(&ends);
        harness.answer(server);
        harness.take_only(server, Some(0));
        harness.end(server);
        harness.feed(stdio, "a long story");
        harness.end(stdio);
        harness.advance(DAY);
        assert!(harness.closed(stdio).is_some() && !harness.is_stopping());
        harness.take_only(server, None);
        assert_eq!(harness.sent(server), b"a long story");
        assert!(harness.is_stopping());
    }

    #[test]
    fn what_came_before_a_reset_is_printed() {
        let ends = RefCell::default();
        let (mut harness, stdio, server) = start(&ends);
        harness.answer(server);
        harness.take_only(stdio, Some(0));
        harness.feed(server, "a long story");
        harness.reset(server);
        harness.take_only(stdio, None);
        assert_eq!(harness.sent(stdio), b"a long story");
        harness.end(stdio);
        assert!(harness.is_stopping());
        let reset = CloseReason::Error(ErrorKind::ConnectionReset);
        assert_eq!(ends.borrow().server.as_ref().map(|(reason, _)| *reason), Some(reset));
    }
}
