//! The control socket of a server: a line protocol with which one looks inside, by hand or with `reactor
//! status`. `text` makes the tables.

mod text;

use std::borrow::Cow;
use std::fmt;

use super::views::{ProcessReader, json};
use super::{FOREIGN, handle_lines};
use crate::text::{command, is_foreign, parse, printable};
use crate::{
    Ask, ConnId, Context, Cursor, Farewell, Handler, Limits, Page, Report, Saved, Selection,
    ServiceContext, Status,
};

const HELP: &str = "\
HELP                   lists the commands
STATUS [JSON]          the loop, its services and where they listen; with JSON, all connections too
LIST [SERVICE] [JSON]  the connections, of one service or of all; a line each
CLOSE #ID [WHY]        closes a connection; the log says why
LIMITS SERVICE         the limits of a service
LOG LEVEL              what the log says from now on: off, error, warn, info, debug, trace
RELOAD                 reads again what is read at SIGHUP
UPGRADE                has the program as it is on the disk now go on, with all clients
STOP                   shuts down gracefully
BYE                    ends this connection
";

/// Something that the embedder does; the words say why it has not.
type Action<T> = Box<dyn FnMut(T) -> Result<(), String>>;

/// A control socket: says what the loop and its connections do, closes one, stops the reactor. It is a
/// line protocol and made for people: `nc -U PATH`, then `HELP`.
///
/// An answer is any number of lines, and a last one that is `OK` or begins with `ERROR `. No other line
/// begins like that. Commands may be in any case, and several may be sent at once; each is answered
/// before the next one is looked at. `LIST` is sent in pieces, so it takes no more memory for ten thousand
/// connections than for a hundred. `STATUS JSON` and `LIST JSON` have the fields of
/// [`views::json`](super::views::json). `age`, and what a connection has sent, are known where
/// [accounts are kept](crate::Reactor::set_accounting).
///
/// Whoever reaches it can end the server, also through a [`Web`](super::Web) beside it unless each of its
/// listeners [asks who comes](crate::Context::hand_over). So listen at a Unix socket, for certain users only:
///
/// ```
/// use reactor::services::{Admin, Echo};
/// use reactor::{Listen, Reactor};
///
/// # let path = std::env::temp_dir().join(format!("reactor-doc-{}-admin.sock", std::process::id()));
/// # let path = path.as_path();
/// let mut reactor = Reactor::new()?;
/// reactor.listen("127.0.0.1:0", Echo)?;
/// // Root, and user 1000 as whom the server runs.
/// let private = Listen::at(path)?.unix_mode(0o600).allow_uids([0, 1000]);
/// reactor.listen(private, Admin::new())?;
/// reactor.set_accounting(true);
/// # Ok::<(), reactor::Error>(())
/// ```
///
/// Its clients count as connections like others. They do not delay a shutdown: an answer that was not
/// taken by then is cut off.
pub struct Admin {
    process: ProcessReader,
    log: Option<Action<String>>,
    reload: Option<Action<()>>,
    upgrade: Option<Action<()>>,
}

/// The outcome of an [upgrade](Admin::on_upgrade), in words for those who have asked for it; posted to the handler.
#[derive(Clone, Debug)]
pub struct Upgraded(pub Result<String, String>);

impl Admin {
    /// One that can do what the library can: `LOG`, `RELOAD` and `UPGRADE` are refused.
    pub fn new() -> Admin {
        let process = ProcessReader::new(env!("CARGO_PKG_VERSION"));
        Admin { process, log: None, reload: None, upgrade: None }
    }

    /// What reads the state of the process, and knows the program's version; without this it is that of
    /// this crate.
    pub fn process(self, process: ProcessReader) -> Admin {
        Admin { process, ..self }
    }

    /// What `LOG LEVEL` does: `set` is given the level in lower case, one of `off`, `error`, `warn`,
    /// `info`, `debug` and `trace`, and may refuse.
    pub fn on_log(self, mut set: impl FnMut(&str) -> Result<(), String> + 'static) -> Admin {
        Admin { log: Some(Box::new(move |level| set(&level))), ..self }
    }

    /// What `RELOAD` does; it may refuse.
    pub fn on_reload(self, mut reload: impl FnMut() -> Result<(), String> + 'static) -> Admin {
        Admin { reload: Some(Box::new(move |()| reload())), ..self }
    }

    /// What `UPGRADE` does: it begins an upgrade, as with [`hand_on`](crate::Reactor::hand_on), or says why not. The
    /// answer comes once [`Upgraded`] is posted, in this process, whose connections stay here.
    pub fn on_upgrade(self, mut begin: impl FnMut() -> Result<(), String> + 'static) -> Admin {
        Admin { upgrade: Some(Box::new(move |()| begin())), ..self }
    }

    /// Begins the answer to a command.
    fn answer(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) -> Result<Answer, String> {
        let (verb, rest) = command(line);
        let rest = rest.trim_ascii();
        let overview = |cx: &mut Context<'_, Session>, wanted| {
            cx.session().wanted = Some(wanted);
            cx.request_report(Ask::Overview { watch: false });
            Ok(Answer::Later)
        };
        match &*verb.to_ascii_uppercase() {
            b"HELP" => Ok(Answer::Text(HELP)),
            b"STATUS" if rest.is_empty() => overview(cx, Wanted::Status),
            b"STATUS" if rest.eq_ignore_ascii_case(b"JSON") => {
                overview(cx, Wanted::Rows(Rows { form: Form::Object, ..Rows::default() }))
            }
            b"STATUS" => Err("write STATUS or STATUS JSON".to_owned()),
            b"LIST" => overview(cx, Wanted::Rows(Rows::parse(rest))),
            b"LIMITS" => overview(cx, Wanted::Limits(printable(rest))),
            b"CLOSE" => {
                let (id, why) = command(rest);
                let id = id.strip_prefix(b"#").unwrap_or(id);
                let number = parse(id).ok_or("write CLOSE #ID, with an ID that LIST shows")?;
                let why = match why.trim_ascii() {
                    b"" => "no reason was given".to_owned(),
                    why => printable(why),
                };
                cx.session().wanted = Some(Wanted::Close(number));
                cx.request_report(Ask::Close { number, why });
                Ok(Answer::Later)
            }
            b"LOG" => {
                let levels = ["off", "error", "warn", "info", "debug", "trace"];
                let level = printable(rest).to_ascii_lowercase();
                if !levels.contains(&&*level) {
                    return Err(format!("write LOG and one of {}", levels.join(", ")));
                }
                let set = self.log.as_mut().ok_or("this program has one level for its log")?;
                set(level).map(|()| Answer::Text(""))
            }
            b"RELOAD" => {
                let reload = self.reload.as_mut().ok_or("this program has nothing to reload")?;
                reload(()).map(|()| Answer::Text(""))
            }
            b"UPGRADE" => {
                let begin = self.upgrade.as_mut().ok_or("this program cannot be upgraded")?;
                begin(())?;
                cx.session().wanted = Some(Wanted::Upgrade);
                // The next command waits.
                cx.pause();
                Ok(Answer::Later)
            }
            b"STOP" => {
                log::info!("stopped by the administrator");
                cx.stop();
                Ok(Answer::Text(""))
            }
            b"BYE" => {
                cx.send("OK\n");
                cx.close();
                Ok(Answer::Later)
            }
            verb => Err(format!("there is no command {}; see HELP", printable(verb))),
        }
    }

    /// Goes on with what an overview was asked for.
    fn overview(
        &mut self,
        cx: &mut Context<'_, Session>,
        wanted: Wanted,
        status: &Status,
    ) -> Result<Answer, String> {
        let service = |name: &str| match status.services.iter().find(|one| one.name == name) {
            Some(service) => Ok(service),
            None => {
                let names: Vec<_> = status.services.iter().map(|one| &*one.name).collect();
                let names = printable(names.join(", ").as_bytes());
                if name.is_empty() {
                    return Err(format!("write the name of a service: {names}"));
                }
                Err(format!("there is no service {name:?}; the services are {names}"))
            }
        };
        match wanted {
            Wanted::Status => {
                let process = self.process.read(cx.now());
                write!(cx, "{}", text::Overview { status, process });
                Ok(Answer::Text(""))
            }
            Wanted::Limits(name) => {
                match &service(&name)?.limits {
                    Some(limits) => write!(cx, "{}", text::Listed(limits)),
                    None => return Err(format!("{name} has no connections to limit")),
                }
                Ok(Answer::Text(""))
            }
            Wanted::Rows(rows) => {
                if let Some(name) = &rows.service {
                    service(name)?;
                }
                let mut head = Vec::new();
                match rows.form {
                    Form::Table => head.extend(text::heading().bytes()),
                    Form::Object => {
                        let total = status.services.iter().map(|one| one.connections).sum();
                        json::begin(&mut head, status, self.process.read(cx.now()), true, total);
                        head.push(b'\n');
                    }
                    Form::Lines => {}
                }
                cx.send(head);
                rows.ask(cx);
                Ok(Answer::Later)
            }
            Wanted::Close(_) | Wanted::Upgrade => Ok(Answer::Later),
        }
    }

    /// Sends a page of connections. When there is room again, `on_drain` asks for the next one.
    fn page(cx: &mut Context<'_, Session>, mut rows: Rows, page: &Page) {
        let mut out = Vec::new();
        for connection in &page.connections {
            match rows.form {
                Form::Table => out.extend(text::Row(connection).to_string().bytes()),
                Form::Object if rows.begun => out.push(b','),
                Form::Object | Form::Lines => {}
            }
            if rows.form != Form::Table {
                json::connection(&mut out, connection);
            }
            out.push(b'\n');
            rows.begun = true;
        }
        // Who is gone reads no more of it.
        rows.after = page.next.filter(|_| cx.takes_output());
        if rows.after.is_none() {
            if rows.form == Form::Object {
                json::end(&mut out);
            }
            out.extend(b"OK\n");
            cx.send(out);
            return cx.resume();
        }
        cx.send(out);
        cx.session().wanted = Some(Wanted::Rows(rows));
        // The next command waits.
        cx.pause();
        cx.request_drain();
    }
}

impl Default for Admin {
    fn default() -> Admin {
        Admin::new()
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("process", &self.process).finish_non_exhaustive()
    }
}

/// What is sent now.
enum Answer {
    /// This, and `OK`.
    Text(&'static str),
    /// Nothing: it comes with a report, or has been sent.
    Later,
}

/// One client, and what it waits for.
#[derive(Debug, Default)]
pub struct Session {
    wanted: Option<Wanted>,
}

/// What a report was asked for.
#[derive(Debug)]
enum Wanted {
    Status,
    Limits(String),
    Close(u64),
    Rows(Rows),
    /// The outcome of an upgrade.
    Upgrade,
}

/// A list of connections that is being sent.
#[derive(Debug, Default)]
struct Rows {
    service: Option<String>,
    form: Form,
    /// A row was sent.
    begun: bool,
    after: Option<Cursor>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Table,
    /// JSON, an object for each line.
    Lines,
    /// One object of JSON, over many lines.
    Object,
}

impl Rows {
    /// Reads `[SERVICE] [JSON]`.
    fn parse(text: &[u8]) -> Rows {
        let words: Vec<_> = text.rsplitn(2, |byte| *byte == b' ').collect();
        let (form, name) = match words[..] {
            [last, ..] if last.eq_ignore_ascii_case(b"JSON") => {
                (Form::Lines, words.get(1).copied().unwrap_or_default())
            }
            _ => (Form::Table, text),
        };
        let name = printable(name.trim_ascii());
        Rows { service: Some(name).filter(|name| !name.is_empty()), form, ..Rows::default() }
    }

    /// Asks for the next page.
    fn ask(self, cx: &mut Context<'_, Session>) {
        let (service, after) = (self.service.clone(), self.after);
        cx.session().wanted = Some(Wanted::Rows(self));
        cx.request_report(Ask::Connections(Selection { service, after, ..Selection::default() }));
    }
}

/// Ends an answer, unless that is still to come.
fn end(cx: &mut Context<'_, Session>, answer: Result<Answer, String>) {
    match answer {
        Ok(Answer::Text(text)) => writeln!(cx, "{text}OK"),
        Ok(Answer::Later) => {}
        Err(why) => writeln!(cx, "ERROR {why}"),
    }
}

impl Handler for Admin {
    type Session = Session;
    type Message = Upgraded;

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        handle_lines(self, cx, bytes)
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        // A web page may have sent it, where this listens to TCP.
        if is_foreign(line) {
            cx.send(FOREIGN);
            return cx.close();
        }
        if !line.trim_ascii().is_empty() {
            let answer = self.answer(cx, line.trim_ascii());
            end(cx, answer);
        }
    }

    fn on_report(&mut self, cx: &mut Context<'_, Session>, report: &Report) {
        let wanted = cx.session().wanted.take();
        match (report, wanted) {
            (Report::Overview(status), Some(wanted)) => {
                let answer = self.overview(cx, wanted, status);
                end(cx, answer);
            }
            (Report::Connections(page), Some(Wanted::Rows(rows))) => Self::page(cx, rows, page),
            (Report::Closed(true), _) => end(cx, Ok(Answer::Text(""))),
            (Report::Closed(false), Some(Wanted::Close(number))) => {
                end(cx, Err(format!("there is no connection #{number}; see LIST")));
            }
            _ => {}
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, outcome: Upgraded) {
        let waits = |session: &Session| matches!(session.wanted, Some(Wanted::Upgrade));
        let all = cx.connections().filter(|(_, session)| waits(session));
        let all: Vec<ConnId> = all.map(|(id, _)| id).collect();
        for id in all {
            let Some(mut client) = cx.connection(id) else { continue };
            client.session().wanted = None;
            match &outcome.0 {
                Ok(text) => client.send(format!("{text}\nOK\n")),
                Err(why) => client.send(format!("ERROR {why}\n")),
            };
            client.resume();
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(Wanted::Rows(rows)) = cx.session().wanted.take() {
            rows.ask(cx);
        }
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Session>) {
        let all: Vec<ConnId> = cx.connections().map(|(id, _)| id).collect();
        for id in all {
            let Some(mut client) = cx.connection(id) else { continue };
            if client.unsent() > 0 {
                client.abort();
            } else if let Some(Wanted::Upgrade) = client.session().wanted {
                client.send("ERROR nothing has changed: it is shutting down\n");
            }
        }
    }

    // Who asked for the upgrade waits for its outcome here.
    fn save(&self, _cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        Some(Saved::stay())
    }

    fn farewell(&self, why: Farewell, limits: &Limits) -> Cow<'static, [u8]> {
        let text = match why {
            Farewell::LineTooLong => {
                format!("ERROR a command has at most {} bytes\n", limits.max_line)
            }
            Farewell::IdleTimeout | Farewell::LineTimeout => "ERROR idle for too long\n".to_owned(),
            Farewell::Upgrade => "ERROR the server is being upgraded; connect again\n".to_owned(),
            _ => "ERROR too many are connected here; try again later\n".to_owned(),
        };
        Cow::Owned(text.into_bytes())
    }
}
