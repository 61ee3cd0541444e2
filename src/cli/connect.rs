use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use reactor::{Address, CloseReason, Context, Handler, Limits, Reactor, services};

use super::crlf::Crlf;
use super::failure::Failure;
use super::quantity::duration;
use super::target::{self, look_up};

/// Connect to a server: what is typed goes there, what it says is printed.
///
/// Standard input may be a terminal, a pipe, a file or nothing. At its end our side of the
/// connection ends (as with nc -N), and the rest of what the server says is still printed. When
/// the server ends its side, that is the end at a terminal; other input is still sent to its end.
///
/// Exit status: 0 when both sides have ended, also when nobody reads the output any more; 1 when
/// the connection cannot be had or is reset, or when input or output fails; 2 when the command
/// line is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// The server: PORT (on 127.0.0.1), HOST:PORT, [IPV6]:PORT or unix:PATH; or the name of a
    /// service of ours, at its default port on 127.0.0.1.
    #[arg(value_name = "ADDR", value_parser = target::server)]
    server: Address,

    /// As nc has it.
    #[arg(hide = true, value_parser = apart)]
    port: Option<Infallible>,

    /// How long the server may take to be looked up and to accept: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// End lines with CRLF on the way out, for protocols that insist on it.
    #[arg(long)]
    crlf: bool,
}

/// Says how what came apart is written.
fn apart(text: &str) -> Result<Infallible, String> {
    let port = if text.parse::<u16>().is_ok() { text } else { "PORT" };
    Err(format!("host and port are one word: write HOST:{port}"))
}

/// What became of the two sides.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// Standard input and output were to be had, and so the server was dialled.
    began: bool,
    /// The server was there.
    connected: bool,
    server: Option<CloseReason>,
    stdio: Option<CloseReason>,
}

/// Forwards between standard input and output, which are its one client, and the server.
struct Client<'a> {
    forward: services::Forward,
    crlf: Option<Crlf>,
    /// The input is a terminal.
    typed: bool,
    ends: &'a Cell<Ends>,
}

type Session = <services::Forward as Handler>::Session;

impl Handler for Client<'_> {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        self.ends.update(|ends| Ends { began: true, connected: cx.is_outbound(), ..ends });
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
            // Nobody wants to type on for a server that has hung up.
            cx.close();
        } else {
            self.forward.on_eof(cx);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, reason: CloseReason) {
        let mut ends = self.ends.get();
        if cx.is_outbound() {
            ends.server = Some(reason);
            // However it ended, what it said before is printed.
            self.forward.on_close(cx, CloseReason::PeerClosed);
        } else {
            ends.stdio = Some(reason);
            self.forward.on_close(cx, reason);
        }
        self.ends.set(ends);
        if ends.stdio.is_some() && (ends.server.is_some() || !ends.began) {
            cx.stop();
        }
    }
}

impl Connect {
    /// After looking the server up, which its time includes.
    fn limits(&self, looking_up: Duration) -> Limits {
        Limits {
            connect_timeout: self.timeout.saturating_sub(looking_up),
            // A pager may take the output as late as it likes.
            flush_timeout: Duration::MAX,
            ..Limits::default()
        }
    }

    fn client<'a>(&self, server: Address, typed: bool, ends: &'a Cell<Ends>) -> Client<'a> {
        let forward = services::Forward::new(server);
        Client { forward, crlf: self.crlf.then(Crlf::default), typed, ends }
    }
}

/// Forwards until both sides have ended.
pub(crate) fn connect(args: &Connect) -> Result<ExitCode, Failure> {
    let ends = Cell::default();
    let began = Instant::now();
    let server = look_up(&args.server, args.timeout)?;
    let client = args.client(server, io::stdin().is_terminal(), &ends);
    let mut reactor = Reactor::new()?;
    let service = reactor.add(client, args.limits(began.elapsed()))?;
    reactor.set_name(&service, "connect");
    reactor.adopt(&service, io::stdin(), io::stdout())?;
    let _ = reactor.run()?;
    drop(reactor);
    verdict(args, ends.get()).map(|()| ExitCode::SUCCESS).map_err(Failure::Runtime)
}

/// Whether it ended as it should.
fn verdict(args: &Connect, ends: Ends) -> Result<(), String> {
    let Connect { server, timeout, .. } = args;
    match (ends.stdio, ends.server) {
        // Nobody wants to hear more.
        (Some(CloseReason::Error(ErrorKind::BrokenPipe)), _) => Ok(()),
        (Some(CloseReason::Error(kind)), _) => Err(format!("standard input or output: {kind}")),
        (_, Some(CloseReason::ConnectTimeout)) => Err(format!(
            "cannot connect to {server}: no answer within {timeout:?}; --timeout allows it more"
        )),
        (_, Some(CloseReason::PeerClosed)) => Ok(()),
        (_, Some(reason)) if ends.connected => Err(format!("{server}: {reason}")),
        (_, Some(CloseReason::Error(ErrorKind::NotFound))) => {
            Err(format!("cannot connect to {server}: there is no such socket"))
        }
        (_, Some(reason)) => Err(format!("cannot connect to {server}: {reason}")),
        (_, None) => Err("standard input and output cannot be used".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use reactor::testing::{Client as Peer, Harness};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Standard input and output, and the server.
    fn start(ends: &Cell<Ends>) -> (Harness<Client<'_>>, Peer, Peer) {
        let server = "127.0.0.1:9".parse().unwrap();
        let args = Connect { server, port: None, timeout: Duration::from_secs(3), crlf: false };
        let client = args.client(args.server.clone(), false, ends);
        let mut harness = Harness::with_limits(client, args.limits(Duration::ZERO));
        let stdio = harness.connect();
        let (_, server) = harness.dialled().remove(0);
        (harness, stdio, server)
    }

    #[test]
    fn the_server_has_as_long_as_it_is_given() {
        let ends = Cell::default();
        let (mut harness, _, server) = start(&ends);
        harness.advance(Duration::from_millis(2999));
        assert_eq!(harness.closed(server), None);
        harness.advance(Duration::from_millis(1));
        assert_eq!(harness.closed(server), Some(CloseReason::ConnectTimeout));
        assert!(harness.is_stopping());
    }

    #[test]
    fn a_pager_may_take_its_time() {
        let ends = Cell::default();
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
        let ends = Cell::default();
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
        let ends = Cell::default();
        let (mut harness, stdio, server) = start(&ends);
        harness.answer(server);
        harness.take_only(stdio, Some(0));
        harness.feed(server, "a long story");
        harness.reset(server);
        harness.take_only(stdio, None);
        assert_eq!(harness.sent(stdio), b"a long story");
        harness.end(stdio);
        assert!(harness.is_stopping());
        assert_eq!(ends.get().server, Some(CloseReason::Error(ErrorKind::ConnectionReset)));
    }
}
