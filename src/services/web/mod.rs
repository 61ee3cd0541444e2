//! The page, the metrics, and the other services over WebSocket. `answer` writes one answer, `listing`
//! streams the connections, and `page` has the page with what a browser may do with it.

mod answer;
mod listing;
mod page;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use answer::{Manner, TEXT, last_words};
use listing::Listing;
use page::Page;

use super::views::ProcessReader;
use super::views::metrics::{self, Format};
use crate::http::{Forbidden, Head, MAX_HEAD, Request, Sites, percent_decode};
use crate::text::printable;
use crate::{
    Ask, CloseReason, Context, Error, Farewell, Handler, Limits, Report, Saved, ServiceContext,
    Status, WebSocket,
};

/// The methods that there are (RFC 9110, section 9.3; RFC 5789).
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Who may not close connections.
const NOT_ADMIN: &str =
    "only the page itself may close connections, on this machine and with --web-admin";
const NOBODY: &str = "there is no such connection";
const NO_SERVICE: &str = "there is no such service";
const STOPPING: &str = "shutting down";
const WEB_SOCKET: &str = "this is WebSocket, a line a message: connect to ws://HOST:PORT/ws/NAME\n";

/// How long a request that was turned away keeps the next ones out of the log.
const QUIET: Duration = Duration::from_secs(10);

/// A web server in the same loop: a page that shows what the loop does, metrics for Prometheus, and the
/// services of the reactor over WebSocket.
///
/// | path | what |
/// | --- | --- |
/// | `/` | the page |
/// | `/metrics` | Prometheus' text format; OpenMetrics where `Accept` prefers it |
/// | `/healthz` | 200 `ok`, or 503 while the reactor shuts down |
/// | `/status.json` | the state of the loop, its services, and the first 100 connections; `?all` of them; those of `?service=NAME`; the first by `?sort=`, one of `unsent`, `idle`, `oldest`, `bytes_in`, `bytes_out` and `lines`; `?watch` has the steps of turns measured for 5 s |
/// | `/ws/NAME` | the service of that [name](crate::Reactor::set_name) over WebSocket: the same room as behind its other doors. Not one that [takes nobody over](crate::Context::hand_over), such as `Admin` at a Unix socket |
/// | `POST /close/ID` | closes a connection, where [that is allowed](Self::admin) |
///
/// It speaks HTTP/1.1 and 1.0, keeps connections open, answers pipelined requests in their order, and
/// takes no bodies. What it does not take is answered with its status and `Connection: close`; the heads
/// of requests are read [strictly](crate::http). [`limits`](Self::limits) are the limits for it.
///
/// Who reaches it sees the addresses of all clients: so let it listen at 127.0.0.1, or say who may
/// connect. To see what each connection has sent, let the reactor
/// [keep accounts](crate::Reactor::set_accounting).
///
/// ```
/// use reactor::Reactor;
/// use reactor::services::{Echo, Web};
///
/// # fn main() -> Result<(), reactor::Error> {
/// let mut reactor = Reactor::new()?;
/// reactor.set_accounting(true);
/// reactor.listen("127.0.0.1:0", Echo)?;
/// let web = reactor.listen_with("127.0.0.1:0", Web::new(), Web::limits())?;
/// println!("see http://127.0.0.1:{}/", web.port());
/// # reactor.stop();
/// # reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Web {
    sites: Sites,
    web_socket: WebSocket,
    admin: bool,
    page: Page,
    process: ProcessReader,
    /// When the log has last told of a request that may not come in.
    told: Option<Instant>,
    /// Another process has taken over: each answer is the last one of its connection.
    is_left: bool,
}

/// What a connection is about.
#[derive(Debug, Default)]
pub struct Session {
    head: Head,
    /// The answer that is being made. The connection is paused meanwhile, so that the answers to the
    /// next requests come behind it.
    pending: Option<Box<Pending>>,
}

/// An answer that waits for the loop's report.
#[derive(Debug)]
struct Pending {
    manner: Manner,
    what: What,
}

#[derive(Debug)]
enum What {
    Health,
    Metrics(Format),
    Listing(Box<Listing>),
    /// To close the connection of this number.
    Close(u64),
}

impl Default for Web {
    fn default() -> Self {
        Self::new()
    }
}

impl Web {
    /// One for addresses, `localhost` and the pages from there; nobody may close anything.
    pub fn new() -> Web {
        Web {
            sites: Sites::new(),
            web_socket: WebSocket::new(),
            admin: false,
            page: Page::new(),
            process: ProcessReader::new(env!("CARGO_PKG_VERSION")),
            told: None,
            is_left: false,
        }
    }

    /// The names that it goes by, and whose pages may come in.
    pub fn sites(self, sites: Sites) -> Web {
        Web { web_socket: WebSocket::new().sites(sites.clone()), sites, ..self }
    }

    /// Whether `POST /close/ID` may close any connection of the reactor; the page has a button for it
    /// then.
    ///
    /// Only a page that came from here may do so, that is, with an `Origin` that equals `Host`, and only
    /// from this machine: not over a Unix socket, and not through a proxy that says that it is one, by a
    /// PROXY header, by one of HTTP, or by HTTP/1.0.
    pub fn admin(self, admin: bool) -> Web {
        Web { admin, ..self }
    }

    /// What is said of the process, such as its version; that of this crate unless it is set.
    pub fn process(self, process: ProcessReader) -> Web {
        Web { process, ..self }
    }

    /// Limits for it: 1,000 connections, 10 s for the head of a request, and a minute in which nothing
    /// moves.
    ///
    /// The 10 s are [`line_timeout`](Limits::line_timeout). It counts from the first byte of a head, and
    /// ends with its last, however it drips in.
    pub fn limits() -> Limits {
        Limits {
            max_connections: 1000,
            max_frame: Some(MAX_HEAD),
            line_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(60)),
            ..Limits::default()
        }
    }

    fn answer(&mut self, cx: &mut Context<'_, Session>, request: &Request<'_>) {
        let manner = Manner::of(request, self.is_left);
        if let Err(forbidden) = self.sites.check(request) {
            self.log(cx, request, forbidden);
            return manner.refuse(cx, 403, &forbidden.to_string());
        }
        if !METHODS.contains(&request.method()) {
            return manner.refuse(cx, 501, "there is no such method");
        }
        let path = request.path();
        let allowed = match path {
            "/" | "/metrics" | "/healthz" | "/status.json" => &["GET", "HEAD"][..],
            _ if path.starts_with("/ws/") => &["GET"],
            _ if path.starts_with("/close/") => &["POST"],
            _ => return manner.refuse(cx, 404, "there is no such page; see /"),
        };
        if !allowed.contains(&request.method()) {
            let allowed = allowed.join(", ");
            let body = format!("here goes {allowed} alone\n");
            return manner.send(cx, 405, &[TEXT, ("Allow", &allowed)], body);
        }
        match path {
            "/" => manner.send(cx, 200, &self.page.headers(), page::TEXT),
            "/metrics" => ask(cx, manner, What::Metrics(preferred(request)), false),
            "/healthz" => ask(cx, manner, What::Health, false),
            "/status.json" => match Listing::asked_for(request) {
                Ok(listing) => {
                    let watch = request.query("watch").is_some();
                    ask(cx, manner, What::Listing(Box::new(listing)), watch);
                }
                Err(why) => manner.refuse(cx, 400, why),
            },
            _ => match path.strip_prefix("/ws/") {
                Some(name) => self.upgrade(cx, manner, request, name),
                None => self.close(cx, manner, request),
            },
        }
    }

    /// Tells of a request that may not come in, unless it has just told of another one.
    fn log(&mut self, cx: &Context<'_, Session>, request: &Request<'_>, why: Forbidden) {
        if self.told.is_some_and(|told| cx.now().saturating_duration_since(told) < QUIET) {
            return;
        }
        self.told = Some(cx.now());
        let name = if why == Forbidden::Host { "Host" } else { "Origin" };
        let value = printable(request.header(name).unwrap_or_default());
        log::warn!("{} is turned away: {why} ({name}: {value})", cx.id());
    }

    /// Has the connection go on in another service, over WebSocket.
    fn upgrade(
        &self,
        cx: &mut Context<'_, Session>,
        manner: Manner,
        request: &Request<'_>,
        name: &str,
    ) {
        let upgrade = match self.web_socket.answer(request) {
            Ok(upgrade) => upgrade,
            Err(refusal) if refusal.status() == 426 => {
                let how = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
                let headers = [TEXT, how[0], how[1], ("Sec-WebSocket-Version", "13")];
                return manner.send(cx, 426, &headers, WEB_SOCKET);
            }
            Err(refusal) => return manner.refuse(cx, refusal.status(), &refusal.to_string()),
        };
        match cx.hand_over(&percent_decode(name), upgrade) {
            Ok(()) => {}
            Err(Error::ShuttingDown) => manner.refuse(cx, 503, STOPPING),
            Err(Error::HandOver { why, .. }) => manner.refuse(cx, 404, why),
            Err(_) => manner.refuse(cx, 404, NO_SERVICE),
        }
    }

    /// Closes a connection, if who asks for it may; whether it came through a PROXY header is known
    /// once the report is there.
    fn close(&self, cx: &mut Context<'_, Session>, manner: Manner, request: &Request<'_>) {
        // No browser speaks HTTP/1.0; nginx does unless it is told otherwise.
        let through =
            request.minor_version() == 0 || request.headers().any(|(name, _)| is_of_proxy(name));
        if !self.is_admin(cx) || through || !request.is_same_origin() {
            return manner.refuse(cx, 403, NOT_ADMIN);
        }
        let number = request.path().strip_prefix("/close/").unwrap_or_default();
        match number.parse() {
            Ok(number) => ask(cx, manner, What::Close(number), false),
            Err(_) => manner.refuse(cx, 404, NOBODY),
        }
    }

    /// Whether somebody at that peer's address may close connections.
    fn is_admin(&self, cx: &Context<'_, Session>) -> bool {
        let peer = cx.peer_addr();
        self.admin && peer.is_some_and(|addr| addr.ip().to_canonical().is_loopback())
    }

    /// Goes on with an answer once the report is there that it waits for. Gives it back if it waits on.
    fn go_on(
        &mut self,
        cx: &mut Context<'_, Session>,
        mut pending: Box<Pending>,
        report: &Report,
    ) -> Option<Box<Pending>> {
        let manner = pending.manner;
        match (&mut pending.what, report) {
            (What::Health, Report::Overview(Status { stopping: false, .. })) => {
                manner.send(cx, 200, &[TEXT], "ok\n");
            }
            (What::Health, _) => manner.refuse(cx, 503, STOPPING),
            (What::Metrics(format), Report::Overview(status)) => {
                let mut text = String::new();
                metrics::encode(&mut text, status, self.process.read(cx.now()), *format);
                manner.send(cx, 200, &[("Content-Type", format.content_type())], text);
            }
            (What::Close(number), Report::Overview(status)) => {
                if status.stopping || is_behind_proxy(cx, status) {
                    manner.refuse(cx, 403, NOT_ADMIN);
                    return None;
                }
                let why = "asked for on the page".to_owned();
                cx.request_report(Ask::Close { number: *number, why });
                return Some(pending);
            }
            (What::Close(_), Report::Closed(true)) => manner.send(cx, 200, &[TEXT], "closed\n"),
            (What::Close(_), _) => manner.refuse(cx, 404, NOBODY),
            (What::Listing(listing), Report::Overview(status)) => {
                let admin = self.is_admin(cx);
                let process = self.process.read(cx.now());
                if !listing.begin(cx, manner, status, process, admin) {
                    manner.refuse(cx, 404, NO_SERVICE);
                } else if manner.is_head() {
                    manner.end_pieces(cx);
                } else {
                    cx.request_report(listing.ask());
                    return Some(pending);
                }
            }
            (What::Listing(listing), Report::Connections(page)) => {
                if listing.send(cx, manner, page) {
                    cx.request_drain();
                    return Some(pending);
                }
            }
            (What::Metrics(_) | What::Listing(_), _) => manner.refuse(cx, 500, "no report came"),
        }
        None
    }
}

/// Whether a header is one by which a proxy says that it is one, under any of the usual names: one that
/// speaks HTTP may connect from this machine.
fn is_of_proxy(name: &str) -> bool {
    const BY_PROXIES: [&str; 8] =
        ["forwarded", "via", "x-forwarded", "x-real", "x-client", "x-original", "x-proxy", "cf-"];
    let name = name.to_ascii_lowercase();
    BY_PROXIES.iter().any(|prefix| name.starts_with(prefix))
}

/// Makes the answer once the loop has said how it is.
fn ask(cx: &mut Context<'_, Session>, manner: Manner, what: What, watch: bool) {
    cx.session().pending = Some(Box::new(Pending { manner, what }));
    cx.pause();
    cx.request_report(Ask::Overview { watch });
}

/// Whether the visitor is gone, and closes the connection then: no answer holds back what was asked for,
/// which is more than anybody who has to read the answers could have the loop do.
fn is_gone(cx: &mut Context<'_, Session>) -> bool {
    let gone = !cx.takes_output();
    if gone {
        cx.close();
    }
    gone
}

/// Whether the connection came through a listener behind a proxy: then its peer's address is what
/// somebody has said.
fn is_behind_proxy(cx: &Context<'_, Session>, status: &Status) -> bool {
    let Some(here) = cx.local_addr() else { return true };
    let listeners = status.services.iter().flat_map(|service| &service.listeners);
    let mut proxied = listeners.filter(|listener| listener.layers.contains(&"proxy"));
    proxied.any(|listener| {
        let mut at = listener.address.as_sockets().iter().map(|addr| addr.port());
        at.any(|port| port == here.port())
    })
}

fn preferred(request: &Request<'_>) -> Format {
    let accept = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Accept"));
    let accept: Vec<_> = accept.map(|(_, value)| String::from_utf8_lossy(value)).collect();
    Format::accepted(&accept.join(","))
}

impl Handler for Web {
    type Session = Session;
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        if is_gone(cx) {
            return bytes.len();
        }
        match cx.session().head.parse(bytes) {
            Ok(None) => 0,
            // The rest is offered again, unless an answer waits for its report.
            Ok(Some((request, length))) => {
                self.answer(cx, &request);
                length
            }
            Err(bad) => {
                cx.send(last_words(bad.status(), &bad.to_string()));
                cx.close();
                bytes.len()
            }
        }
    }

    fn on_report(&mut self, cx: &mut Context<'_, Session>, report: &Report) {
        let Some(pending) = cx.session().pending.take().filter(|_| !is_gone(cx)) else { return };
        let pending = self.go_on(cx, pending, report);
        if pending.is_none() {
            cx.resume();
        }
        cx.session().pending = pending;
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(What::Listing(listing)) = cx.session().pending.as_ref().map(|it| &it.what) {
            let next = listing.ask();
            cx.request_report(next);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
        // The session stays until the client has closed its side too.
        *cx.session() = Session::default();
    }

    // An answer is under way, or none is awaited.
    fn save(&self, _cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        Some(Saved::stay())
    }

    /// A page and Prometheus ask over one connection for hours, and would go on to be told of this process.
    fn on_handed_on(&mut self, cx: &mut ServiceContext<'_, Session>) {
        self.is_left = true;
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        for id in all {
            let Some(mut visitor) = cx.connection(id) else { continue };
            let Session { head, pending } = visitor.session();
            match pending {
                Some(pending) => pending.manner = pending.manner.last(),
                None if head.is_empty() => visitor.close(),
                None => {}
            }
        }
    }

    fn farewell(&self, why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        let (status, why) = match why {
            // A browser opens connections ahead, and must not take this for the answer to a request.
            Farewell::IdleTimeout | Farewell::Upgrade => return Cow::Borrowed(b""),
            Farewell::LineTimeout => (408, "the request did not come in time"),
            Farewell::LineTooLong | Farewell::FrameTooLong => (431, "the head is too long"),
            _ => (503, "too many connections, try again later"),
        };
        Cow::Owned(last_words(status, why))
    }
}
