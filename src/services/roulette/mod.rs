//! Quiz roulette: a teacher loads the names of the students and asks for one at random. `reply` makes
//! the JSON, `names` keeps the students, `saving` has another process go on with them.

mod names;
mod reply;
mod saving;

use std::cell::RefCell;
use std::rc::Rc;

use super::{FOREIGN, handle_lines, known_version, without_mark};
use crate::text::is_foreign;
use crate::{
    CloseReason, ConnId, Context, Decoder, Encoder, Handler, Saved, ServiceContext, Unreadable,
};

pub use names::Full;
use names::Names;
use reply::{Listing, Reply};

const GREETING: &str = "Hello. Online HELP is available. Will you find it?\n";
const HUH: &str = "Huh? please use HELP if you don't know what commands are available.\n";
const NOBODY: &str = "There is no student, you cannot pick a random one";
const SUCCESS: &str = "success";

/// The protocol that the roulette speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Protocol 1.0: HELP, RANDOM, LOAD, INFO, BYE.
    One,
    /// Protocol 2.0: CLEAR and LIST too, and LOAD and BYE are answered in JSON.
    Two,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Version::One => "1.0",
            Version::Two => "2.0",
        }
    }
}

/// Picks a student at random, from a store that all its clients share.
///
/// ```text
/// $ nc 127.0.0.1 2613
/// Hello. Online HELP is available. Will you find it?
/// LOAD
/// Send your data [end with ENDOFDATA]
/// john doe
/// bill smith
/// ENDOFDATA
/// {"status":"success","numberOfNewStudents":2}
/// RANDOM
/// {"fullname":"bill smith"}
/// ```
///
/// The names of a LOAD enter the store together, at its ENDOFDATA. If the client is gone before that,
/// none does. A LIST shows the store as it was when the list was asked for, whatever others load or
/// clear while it is sent; a shutdown cuts it off. A name is kept as it came, but for what is not UTF-8,
/// which becomes U+FFFD. In a reply, the characters that are [not safe to show](crate::text::unprintable)
/// are escaped, so that a program gets the whole name and a terminal obeys none.
///
/// A command is a whole line, in upper or lower case; a line with anything behind the command is
/// unknown. [Telnet commands](crate::Lines::skip_telnet) in front of a line are no part of it, nor is a byte
/// order mark in front of a client's first line. A client that begins like a browser is closed, so that
/// no web page loads or clears anything.
#[derive(Debug)]
pub struct Roulette {
    version: Version,
    /// LISTs under way read it too. LOAD only ever appends to it, and CLEAR leaves it to them.
    students: Rc<RefCell<Names>>,
    random: fastrand::Rng,
    /// From when the state of another process is restored until all clients are.
    cleared: saving::Cleared,
}

impl Roulette {
    /// An empty store with room for names of `memory` bytes in all. A name takes its bytes in UTF-8
    /// and four more, so 64 MiB are room for three million names.
    ///
    /// The names of LOADs that have not ended count too, and those that were cleared while a LIST still
    /// reads them, so that no number of clients can take more. A LIST itself takes no room. A LOAD for
    /// which there is no room is refused at its end, with
    /// `{"error":"No room for so many students, none of them was loaded (limit N bytes)"}`.
    pub fn new(version: Version, memory: usize) -> Roulette {
        let students = Rc::new(RefCell::new(Names::new(memory)));
        Roulette {
            version,
            students,
            random: fastrand::Rng::new(),
            cleared: saving::Cleared::new(),
        }
    }

    /// Adds the students of a text, one name per line, as LOAD does. Returns how many. An empty line
    /// is a student with an empty name.
    ///
    /// # Errors
    /// [`Full`] if there is no room for all of them. Then none is added.
    pub fn load(&mut self, text: &[u8]) -> Result<usize, Full> {
        let mut names = self.students.borrow().empty();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            names.push(&String::from_utf8_lossy(line))?;
        }
        let count = names.len();
        self.students.borrow_mut().append(names);
        Ok(count)
    }
}

/// What one client has done and is about to do. What most clients do not have is boxed.
#[derive(Debug, Default)]
pub struct Session {
    commands: u64,
    /// The names of a LOAD until its ENDOFDATA; an error once there was no room for them.
    load: Option<Box<Result<Names, Full>>>,
    /// A LIST that is being sent.
    list: Option<Box<Listing>>,
}

impl Handler for Roulette {
    type Session = Session;
    type Message = ();

    fn on_start(&mut self, _cx: &mut ServiceContext<'_, Session>) {
        // Each list that goes on has its store by now.
        self.cleared.clear();
    }

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.send(GREETING);
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        handle_lines(self, cx, bytes)
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let Some(load) = cx.session().load.as_deref_mut() else { return self.command(cx, line) };
        if line.eq_ignore_ascii_case(b"ENDOFDATA") {
            return self.loaded(cx);
        }
        if let Ok(names) = load
            && let Err(full) = names.push(&String::from_utf8_lossy(line))
        {
            // The names so far are freed at once; the rest of the LOAD is only read.
            *load = Err(full);
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        send_list(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
        // The session stays until the client has closed its side too. Its names are freed now.
        *cx.session() = Session::default();
    }

    fn save(&self, cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        let mut saved = Saved::new(1).together();
        self.save_store(cx.connections().map(|(_, client)| client), saved.state());
        Some(saved)
    }

    fn save_session(
        &self,
        _cx: &ServiceContext<'_, Session>,
        _id: ConnId,
        session: &Session,
        to: &mut Encoder,
    ) {
        self.save_client(session, to);
    }

    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        known_version(version, 1)?;
        self.restore_store(from)
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Session, Unreadable> {
        self.restore_client(from)
    }
}

impl Roulette {
    fn command(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let line = if cx.session().commands == 0 { without_mark(line) } else { line };
        if is_foreign(line) {
            cx.send(FOREIGN);
            return cx.close();
        }
        cx.session().commands += 1;
        let two = self.version == Version::Two;
        match line.to_ascii_uppercase().as_slice() {
            b"HELP" => {
                let more = if two { ", CLEAR, LIST" } else { "" };
                writeln!(cx, "Commands: [HELP, RANDOM, LOAD, INFO, BYE{more}]");
            }
            b"INFO" => {
                let protocol_version = self.version.name();
                let number_of_students = self.students.borrow().len();
                cx.send(Reply::Info { protocol_version, number_of_students }.line());
            }
            b"LOAD" => {
                cx.send("Send your data [end with ENDOFDATA]\n");
                cx.session().load = Some(Box::new(Ok(self.students.borrow().empty())));
            }
            b"RANDOM" => {
                cx.send(self.pick());
            }
            b"LIST" if two => {
                cx.session().list = Some(Box::new(Listing::new(&self.students)));
                send_list(cx);
            }
            b"CLEAR" if two => {
                let empty = self.students.borrow().empty();
                self.students = Rc::new(RefCell::new(empty));
                cx.send("DATASTORE CLEARED\n");
            }
            b"BYE" => {
                let (status, number_of_commands) = (SUCCESS, cx.session().commands);
                if two {
                    cx.send(Reply::Bye { status, number_of_commands }.line());
                }
                cx.close();
            }
            _ => {
                cx.send(HUH);
            }
        }
    }

    /// The reply to RANDOM.
    fn pick(&mut self) -> Vec<u8> {
        let students = self.students.borrow();
        let count = students.len();
        let index = if count == 0 { 0 } else { self.random.usize(..count) };
        let reply = match students.get(index) {
            Some(fullname) => Reply::Student { fullname },
            None => Reply::Error { error: NOBODY },
        };
        reply.line()
    }

    /// At ENDOFDATA all names of the LOAD enter the store, or none.
    fn loaded(&mut self, cx: &mut Context<'_, Session>) {
        match cx.session().load.take().map(|load| *load) {
            Some(Ok(names)) => {
                let (status, number_of_new_students) = (SUCCESS, names.len());
                self.students.borrow_mut().append(names);
                match self.version {
                    Version::One => cx.send("DATA LOADED\n"),
                    Version::Two => {
                        cx.send(Reply::Loaded { status, number_of_new_students }.line())
                    }
                };
            }
            Some(Err(Full)) => {
                let limit = self.students.borrow().memory();
                let error = &format!(
                    "No room for so many students, none of them was loaded (limit {limit} bytes)"
                );
                cx.send(Reply::Error { error }.line());
            }
            None => {}
        }
    }
}

/// Sends a LIST as fast as the client takes it, so one that reads slowly costs the memory of a
/// piece. The client's next command is read after the last piece, so the replies stay in order.
fn send_list(cx: &mut Context<'_, Session>) {
    if cx.send_pieces(|session| session.list.as_mut()?.next_piece()) {
        cx.session().list = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::ErrorKind;

    use super::*;
    use crate::Limits;
    use crate::testing::{Client, Harness};

    const MEMORY: usize = 1 << 20;

    #[test]
    fn a_web_page_cannot_load_or_clear() {
        let (mut server, page) = start(Version::Two);
        let body = "LOAD\r\nspam\r\nENDOFDATA\r\n";
        server.feed(page, format!("POST / HTTP/1.1\r\nHost: localhost:2613\r\n\r\n{body}"));
        assert_eq!(text(&mut server, page), FOREIGN);
        assert_eq!(server.closed(page), Some(CloseReason::Closed));
        assert_eq!(server.handler().students.borrow().len(), 0);
    }

    #[test]
    fn commands_are_counted_on_in_another_process() {
        let (mut server, client) = start(Version::Two);
        server.feed(client, "RANDOM\nRANDOM\n");
        assert!(server.upgrade(Roulette::new(Version::Two, MEMORY)).is_ok());
        server.feed(client, "BYE\n");
        let replies = text(&mut server, client);
        assert!(replies.contains("\"numberOfCommands\":3"), "{replies}");
    }

    fn start(version: Version) -> (Harness<Roulette>, Client) {
        let mut server = Harness::new(Roulette::new(version, MEMORY));
        let client = server.connect();
        assert_eq!(text(&mut server, client), GREETING);
        (server, client)
    }

    fn text(server: &mut Harness<Roulette>, client: Client) -> String {
        String::from_utf8(server.sent(client)).unwrap()
    }

    /// What the client gets for these lines.
    fn ask(server: &mut Harness<Roulette>, client: Client, lines: impl AsRef<[u8]>) -> String {
        server.feed(client, lines);
        text(server, client)
    }

    #[test]
    fn protocol_one() {
        let (mut server, client) = start(Version::One);
        let said = ask(&mut server, client, "help\nINFO\nRANDOM\nLOAD\n\nnobody\nbye\nEndOfData\n");
        assert_eq!(
            said,
            "Commands: [HELP, RANDOM, LOAD, INFO, BYE]\n\
             {\"protocolVersion\":\"1.0\",\"numberOfStudents\":0}\n\
             {\"error\":\"There is no student, you cannot pick a random one\"}\n\
             Send your data [end with ENDOFDATA]\n\
             DATA LOADED\n"
        );
        let said = ask(&mut server, client, "Info\nLIST\nCLEAR\n\nRANDOM \nENDOFDATA\nBye\nINFO\n");
        let info = "{\"protocolVersion\":\"1.0\",\"numberOfStudents\":3}\n";
        assert_eq!(said, format!("{info}{}", HUH.repeat(5)));
        assert!(server.is_shut(client));
    }

    #[test]
    fn protocol_two() {
        let (mut server, client) = start(Version::Two);
        let said = ask(
            &mut server,
            client,
            "help\nLIST\nload\njohn doe\r\nbill smith\nendofdata\nlist\nClear\ninfo\nwhat?\nbye\n",
        );
        assert_eq!(
            said,
            format!(
                "Commands: [HELP, RANDOM, LOAD, INFO, BYE, CLEAR, LIST]\n\
                 {{\"students\":[]}}\n\
                 Send your data [end with ENDOFDATA]\n\
                 {{\"status\":\"success\",\"numberOfNewStudents\":2}}\n\
                 {{\"students\":[{{\"fullname\":\"john doe\"}},{{\"fullname\":\"bill smith\"}}]}}\n\
                 DATASTORE CLEARED\n\
                 {{\"protocolVersion\":\"2.0\",\"numberOfStudents\":0}}\n\
                 {HUH}\
                 {{\"status\":\"success\",\"numberOfCommands\":8}}\n"
            )
        );
        assert!(server.is_shut(client));
    }

    #[test]
    fn a_load_enters_as_a_whole_and_only_with_its_end() {
        let (mut server, one) = start(Version::Two);
        let (two, gone, ended) = (server.connect(), server.connect(), server.connect());
        server.feed(one, "LOAD\na\nb\n");
        server.feed(two, "LOAD\nc\n");
        server.feed(gone, "LOAD\nnever\n");
        server.reset(gone);
        server.feed(ended, "LOAD\nd\nENDOFDATA\nLOAD\nnever\nand this");
        server.end(ended);
        server.sent(two);
        server.feed(two, "d2\nENDOFDATA\nLIST\n");
        let list =
            "{\"students\":[{\"fullname\":\"d\"},{\"fullname\":\"c\"},{\"fullname\":\"d2\"}]}\n";
        let loaded = "{\"status\":\"success\",\"numberOfNewStudents\":2}\n";
        assert_eq!(text(&mut server, two), format!("{loaded}{list}"));
        // The end of the input is the end of the last line, so this one is complete.
        server.sent(one);
        server.feed(one, "ENDOFDATA");
        server.end(one);
        assert_eq!(text(&mut server, one), loaded);
        assert_eq!(server.handler().students.borrow().len(), 5);
    }

    #[test]
    fn the_choice_is_uniform() {
        let (mut server, client) = start(Version::One);
        server.handler_mut().random = fastrand::Rng::with_seed(1313);
        ask(&mut server, client, "LOAD\na\nb\nc\nd\ne\nENDOFDATA\n");
        let said = ask(&mut server, client, "RANDOM\n".repeat(10_000));
        let mut counts = BTreeMap::new();
        said.lines().for_each(|line| *counts.entry(line).or_insert(0) += 1);
        let names = ["a", "b", "c", "d", "e"].map(|name| format!("{{\"fullname\":\"{name}\"}}"));
        assert!(counts.keys().eq(&names), "{counts:?}");
        // Five standard deviations are 200; the seed makes it the same each time.
        assert!(counts.values().all(|count| (1800..2200).contains(count)), "{counts:?}");
    }

    #[test]
    fn names_are_safe_for_terminals_and_quoted_for_json() {
        let (mut server, client) = start(Version::Two);
        let names = b"LOAD\nO\"Neil \\ \xc3\xa9\n\xff\x1b[2J\tx\x7f\xc2\x9b\n{}\nENDOFDATA\nLIST\n";
        let said = ask(&mut server, client, names);
        assert_eq!(
            said.lines().nth(2).unwrap(),
            "{\"students\":[{\"fullname\":\"O\\\"Neil \\\\ é\"},\
             {\"fullname\":\"\u{fffd}\\u001b[2J\\tx\\u007f\\u009b\"},{\"fullname\":\"{}\"}]}"
        );
    }

    /// A long list and what it is sent as.
    fn long(server: &mut Harness<Roulette>) -> String {
        let names: Vec<_> = (0..20_000).map(|n| format!("student {n}")).collect();
        assert_eq!(server.handler_mut().load(names.join("\r\n").as_bytes()), Ok(20_000));
        let students: Vec<_> =
            names.iter().map(|it| format!("{{\"fullname\":\"{it}\"}}")).collect();
        format!("{{\"students\":[{}]}}\n", students.join(","))
    }

    #[test]
    fn a_list_is_what_it_was_when_asked_for_and_later_commands_wait() {
        let (mut server, slow) = start(Version::Two);
        let before = long(&mut server);
        let other = server.connect();
        server.take_only(slow, Some(1000));
        server.feed(slow, "LIST\nINFO\nLIST\nBYE\n");
        server.end(slow);
        assert!(server.unsent() < before.len() - 1000, "all of it lies unread in memory");
        ask(&mut server, other, "LOAD\nnew\nENDOFDATA\n");
        ask(&mut server, other, "CLEAR\nLOAD\nnewer\nENDOFDATA\n");
        assert!(server.session(slow).unwrap().list.is_some());
        server.take_only(slow, None);
        let said = text(&mut server, slow);
        assert!(said.starts_with(&before), "not the list as it was");
        assert_eq!(
            &said[before.len()..],
            "{\"protocolVersion\":\"2.0\",\"numberOfStudents\":1}\n\
             {\"students\":[{\"fullname\":\"newer\"}]}\n\
             {\"status\":\"success\",\"numberOfCommands\":4}\n"
        );
    }

    /// A copy for each of them took more room than there is, so that nobody could upgrade.
    #[test]
    fn a_store_that_was_cleared_goes_over_once_for_all_that_list_it() {
        let (mut server, other) = start(Version::Two);
        let list = long(&mut server);
        let slow: Vec<_> = (0..6).map(|_| server.connect()).collect();
        for (number, client) in slow.iter().enumerate() {
            text(&mut server, *client);
            server.take_only(*client, Some(number * 50_000));
            server.feed(*client, "LIST\n");
        }
        ask(&mut server, other, "CLEAR\nLOAD\nnewer\nENDOFDATA\n");
        for _ in 0..2 {
            assert!(server.upgrade(Roulette::new(Version::Two, MEMORY)).is_ok());
        }
        for client in slow {
            server.take_only(client, None);
            assert_eq!(text(&mut server, client), list);
        }
        // Nothing of it is left.
        let name = format!("{}\n", "x".repeat(32_000));
        let loaded = ask(&mut server, other, format!("LOAD\n{}ENDOFDATA\n", name.repeat(32)));
        assert!(loaded.contains("success"), "{loaded}");
    }

    /// Not even what is loaded while they are under way makes a copy of anything.
    #[test]
    fn lists_under_way_take_no_room() {
        let (mut server, other) = start(Version::Two);
        // The room that is left is less than two chunks.
        let name = format!("{}\n", "x".repeat(32_000));
        ask(&mut server, other, format!("LOAD\n{}ENDOFDATA\n", name.repeat(31)));
        let slow: Vec<_> = (0..10)
            .map(|number| {
                let client = server.connect();
                server.take_only(client, Some(0));
                server.feed(client, "LIST\n");
                let said = ask(&mut server, other, "LOAD\nnew\nENDOFDATA\n");
                assert!(said.contains("success"), "LIST {number}: {said}");
                client
            })
            .collect();
        for (number, client) in slow.into_iter().enumerate() {
            server.take_only(client, None);
            let said = text(&mut server, client);
            assert_eq!(said.matches("\"fullname\":").count(), 31 + number);
            assert!(said.ends_with("]}\n"));
        }
    }

    #[test]
    fn no_list_is_made_for_a_client_that_is_gone() {
        let (mut server, client) = start(Version::Two);
        long(&mut server);
        server.take_only(client, Some(1000));
        server.feed(client, "LIST\n".repeat(500));
        let before = server.counters().turns;
        server.reset(client);
        assert_eq!(server.closed(client), Some(CloseReason::Error(ErrorKind::ConnectionReset)));
        // Each piece would take a turn.
        let turns = server.counters().turns - before;
        assert!(turns < 50, "{turns} turns");
    }

    #[test]
    fn a_short_list_leaves_in_one_write() {
        let (mut server, client) = start(Version::Two);
        let writes = server.writes(client);
        ask(&mut server, client, "LIST\nINFO\n");
        assert_eq!(server.writes(client), writes + 1);
    }

    #[test]
    fn a_load_without_room_is_refused_at_its_end_and_costs_the_others_nothing() {
        let (mut server, greedy) = start(Version::Two);
        let other = server.connect();
        ask(&mut server, other, "LOAD\nfirst\nENDOFDATA\n");
        let name = format!("{}\n", "x".repeat(60_000));
        ask(&mut server, greedy, format!("LOAD\n{}", name.repeat(20)));
        // It has given back what it had, though it goes on.
        let loaded = "{\"status\":\"success\",\"numberOfNewStudents\":17}\n";
        let load = format!("LOAD\n{}ENDOFDATA\n", name.repeat(17));
        assert!(ask(&mut server, other, &load).ends_with(loaded));
        let refusal = "{\"error\":\"No room for so many students, none of them was loaded \
                       (limit 1048576 bytes)\"}\n";
        assert_eq!(ask(&mut server, greedy, format!("{name}\nEndOfData\n")), refusal);
        // Full of unread lists that nobody needs any more, it is full all the same.
        server.take_only(greedy, Some(0));
        server.feed(greedy, "LIST\n");
        ask(&mut server, other, "CLEAR\n");
        assert!(ask(&mut server, other, &load).ends_with(refusal));
        server.reset(greedy);
        assert!(ask(&mut server, other, &load).ends_with(loaded));
        let info = "{\"protocolVersion\":\"2.0\",\"numberOfStudents\":17}\n";
        assert_eq!(ask(&mut server, other, "INFO\n"), info);
        assert_eq!(server.handler_mut().load(name.as_bytes()), Err(Full));
    }

    #[test]
    fn one_that_only_lingers_holds_no_names() {
        let limits = Limits { max_line: 100, ..Limits::default() };
        let mut server = Harness::with_limits(Roulette::new(Version::One, 100), limits);
        let (overlong, next) = (server.connect(), server.connect());
        let names = "x\n".repeat(20);
        server.feed(overlong, format!("LOAD\n{names}{}\n", "x".repeat(101)));
        assert!(server.is_shut(overlong) && server.left_over().0 == 2);
        assert!(ask(&mut server, next, format!("LOAD\n{names}ENDOFDATA\n")).ends_with("LOADED\n"));
    }
}
