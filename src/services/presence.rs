use super::room::bus::{Bus, Event, News, Told};
use super::room::names::{ANONYMOUS, NAME_LENGTH, Name, Names};
use super::room::{InProcess, Message, Seat, Words};
use super::{FOREIGN, handle_lines, known_version, without_mark};
use crate::text::{command, is_foreign, printable};
use crate::{
    CloseReason, ConnId, Context, Core, Decoder, Encoder, Handler, Saved, ServiceContext, TimerId,
    Unreadable,
};

/// What a newcomer is sent.
const WELCOME: &str = "\
Welcome to the Presence Server
  Tell me who you are with 'HELLO name'
  Say something to other users with 'SAY message'
  Ask me who is connected with 'WHO'
  Leave with 'BYE'
  Shutdown server with 'KILL'
";

/// What a client is sent for a line that is no command.
const HINT: &str = "What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n";
const NO_KILL: &str = "KILL is disabled on this server.\n";
const KILLED: &str = "KILL command received. Bringing server down...\n";

/// A chat room: everybody is told who comes, who leaves and what is said.
///
/// ```text
/// $ nc 127.0.0.1 9907
/// ...
/// HELLO olivier
/// olivier is in the room.
/// SAY hello everybody
/// olivier says: hello everybody
/// ```
///
/// A client that does not read what the others say is closed as a slow consumer, while they go on. If
/// somebody may talk faster than the others can read, set a [`peer_rate`](crate::Limits::peer_rate) of
/// lines and of bytes: a new connection gains them nothing then, and neither does a long line. A client
/// that begins a line like a browser is closed too, so that no web page talks in its visitors' names.
///
/// Names and messages are [made safe to show](printable). A name is cut at 64 characters. Several
/// clients may have the same one, unless the room is one of [unique names](Presence::unique_names).
/// [Telnet commands](crate::Lines::skip_telnet) in front of a line are no part of it, nor is a byte order mark
/// in front of a client's first line.
///
/// On one core the room is all here, and what is said is sent at once. [Over several](Presence::on) the first
/// core makes the order of what is said, and everybody hears the same in the same order. What a client hears
/// last after a BYE is that it is about to leave.
#[derive(Debug, Default)]
pub struct Presence {
    allow_kill: bool,
    names: Names,
    /// Where the room is not all here.
    seat: Option<Seat<English>>,
}

impl Presence {
    /// An empty room. `allow_kill` says whether anybody in it may shut down the whole reactor with
    /// KILL.
    pub fn new(allow_kill: bool) -> Presence {
        Presence { allow_kill, ..Presence::default() }
    }

    /// The same room, in which no two clients have the same name: a HELLO with one that somebody else
    /// there has is refused, with one line to its sender, who keeps the name of before.
    ///
    /// `An anonymous user` may be any number, and nobody by a HELLO. Names are the same if they differ
    /// only in case, in the width or the composition of their characters (NFKC), or in what cannot be
    /// seen in them. Of what NFKC makes, 64 characters are compared. A Cyrillic `о` is another letter
    /// than a Latin `o`, though.
    ///
    /// A client that is gone keeps its name until the loop has found that out, as
    /// [`keepalive`](crate::Limits::keepalive) does.
    pub fn unique_names(self) -> Presence {
        Presence { names: Names::unique(), ..self }
    }

    /// The part of the same room on one of several cores: the last step of making it.
    ///
    /// ```no_run
    /// use reactor::Cores;
    /// use reactor::services::Presence;
    ///
    /// let mut cores = Cores::new(4)?;
    /// cores.listen("127.0.0.1:9907", |core| Presence::new(false).unique_names().on(&core))?;
    /// cores.run()?;
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn on(self, core: &Core<Message>) -> Presence {
        if core.count() == 1 {
            return self;
        }
        let bus = InProcess::new();
        let bus = if self.names.are_unique() { bus.unique_names() } else { bus };
        self.on_bus(core, || bus)
    }

    /// As [`on`](Self::on), with a bus of your own, which decides about [unique](Self::unique_names) names
    /// too. On the first core, `bus` makes it.
    pub fn on_bus<B: Bus + 'static>(
        self,
        core: &Core<Message>,
        bus: impl FnOnce() -> B,
    ) -> Presence {
        Presence { seat: Some(Seat::new(core, English, bus)), ..self }
    }
}

/// What is heard in the room.
#[derive(Debug)]
struct English;

impl Words for English {
    fn welcome(&mut self) -> String {
        WELCOME.to_owned()
    }

    fn news(&mut self, news: &News) -> String {
        match news {
            News::Arrived => ARRIVED.to_owned(),
            News::Named { name } => named(name.as_deref()),
            News::Said { name, text } => said(name.as_deref(), text),
            News::Leaving { name } => leaving(name.as_deref()),
            News::Left { name } => left(name.as_deref()),
            News::CutOff => "The room is cut off from the other servers.\n".to_owned(),
            News::Whole => "The room is whole again.\n".to_owned(),
            News::SaidElsewhere(1) => "1 line was said elsewhere meanwhile.\n".to_owned(),
            News::SaidElsewhere(lines) => format!("{lines} lines were said elsewhere meanwhile.\n"),
            News::Missing => "Some messages may be missing.\n".to_owned(),
        }
    }

    fn told(&mut self, told: &Told) -> String {
        match told {
            Told::Who(names) => users(names.iter().map(Option::as_deref)),
            Told::NameTaken(name) => taken(name),
            Told::Line(line) => line.clone(),
        }
    }
}

const ARRIVED: &str = "Someone has arrived...\n";

fn named(name: Option<&str>) -> String {
    format!("{} is in the room.\n", name.unwrap_or(ANONYMOUS))
}

fn said(name: Option<&str>, text: &str) -> String {
    format!("{} says: {text}\n", name.unwrap_or(ANONYMOUS))
}

fn leaving(name: Option<&str>) -> String {
    format!("{} is about to leave the room.\n", name.unwrap_or(ANONYMOUS))
}

fn left(name: Option<&str>) -> String {
    format!("{} has left the room.\n", name.unwrap_or(ANONYMOUS))
}

fn taken(name: &str) -> String {
    format!("The name {name} is taken; choose another with 'HELLO name'\n")
}

fn users<'a>(names: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut list = "Currently connected users:\n".to_owned();
    names.for_each(|name| list.extend([" - ", name.unwrap_or(ANONYMOUS), "\n"]));
    list
}

/// Who one client is.
#[derive(Debug, Default)]
pub struct Session {
    /// None before a HELLO, and after a HELLO without a name.
    name: Option<Box<Name>>,
    /// It has sent a line.
    heard: bool,
}

impl Session {
    fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &*name.shown)
    }
}

impl Handler for Presence {
    type Session = Session;
    type Message = Message;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Session>) {
        if let Some(seat) = &mut self.seat {
            seat.on_start(cx);
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        match &mut self.seat {
            Some(seat) => seat.on_open(cx),
            None => {
                cx.broadcast_to_others(ARRIVED);
                cx.send(WELCOME);
            }
        }
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        handle_lines(self, cx, bytes)
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let first = !std::mem::replace(&mut cx.session().heard, true);
        let line = if first { without_mark(line) } else { line };
        if is_foreign(line) {
            return self.close(cx, FOREIGN);
        }
        let (word, rest) = command(line);
        match word.to_ascii_uppercase().as_slice() {
            b"HELLO" => self.hello(cx, rest),
            b"SAY" if rest.is_empty() => self.say(cx, "nothing...".to_owned()),
            b"SAY" => self.say(cx, printable(rest)),
            b"WHO" => self.who(cx),
            b"BYE" => self.bye(cx),
            b"KILL" if self.allow_kill => self.kill(cx),
            b"KILL" => self.reply(cx, NO_KILL),
            _ => self.reply(cx, HINT),
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Session>) {
        self.close(cx, "");
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(seat) = &mut self.seat {
            seat.on_drain(cx);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
        // Told however the client left, with or without a BYE.
        if let Some(seat) = &mut self.seat {
            return seat.on_close(cx);
        }
        let line = left(cx.session().name());
        self.rename(cx, None);
        cx.broadcast(line);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Session>, timer: TimerId) {
        if let Some(seat) = &mut self.seat {
            seat.on_service_timer(cx, timer);
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, message: Message) {
        if let Some(seat) = &mut self.seat {
            seat.on_message(cx, message);
        }
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Session>) {
        if let Some(seat) = &mut self.seat {
            seat.on_shutdown(cx);
        }
    }

    fn save(&self, cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        // The names are those of the sessions.
        let Presence { allow_kill: _, names: _, seat } = self;
        let mut saved = Saved::new(1).together();
        saved.state().put_flag(seat.is_some());
        if let Some(seat) = seat {
            seat.save(cx, saved.state())?;
        }
        Some(saved)
    }

    fn save_session(
        &self,
        _cx: &ServiceContext<'_, Session>,
        _id: ConnId,
        session: &Session,
        to: &mut Encoder,
    ) {
        let Session { name, heard } = session;
        to.put_option(name.as_ref(), |to, name| to.put_text(&name.shown));
        to.put_flag(*heard);
    }

    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        known_version(version, 1)?;
        match (from.flag()?, &mut self.seat) {
            (false, None) => Ok(()),
            (true, Some(seat)) => seat.restore(from),
            (false, Some(_)) => Err(Unreadable("the room is on a bus now, and was not")),
            (true, None) => Err(Unreadable("the room is not on a bus any more")),
        }
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Session, Unreadable> {
        let name = from.option(Decoder::text)?.map(|name| self.names.name(name.to_owned()));
        Ok(Session { name, heard: from.flag()? })
    }

    fn on_restored(&mut self, cx: &mut Context<'_, Session>) {
        if self.seat.is_some() {
            // Who has which name the bus knows.
            return;
        }
        let (id, name) = (cx.id().to_bits(), cx.session().name.take());
        // Names may be unique only since now: then whoever came first keeps the name.
        let name = name.filter(|name| !self.names.is_taken(name, id));
        self.rename(cx, name);
    }
}

impl Presence {
    fn hello(&mut self, cx: &mut Context<'_, Session>, rest: &[u8]) {
        let text = String::from_utf8_lossy(rest);
        let word = text.split_whitespace().next();
        let name = word.map(|word| {
            let word: String = word.chars().take(NAME_LENGTH).collect();
            printable(word.as_bytes())
        });
        if let Some(seat) = &mut self.seat {
            return seat.event(cx, Event::Hello(name));
        }
        let name = name.map(|name| self.names.name(name));
        let id = cx.id().to_bits();
        if let Some(name) = name.as_ref().filter(|name| self.names.is_taken(name, id)) {
            cx.send(taken(&name.shown));
            return;
        }
        self.rename(cx, name);
        let line = named(cx.session().name());
        cx.broadcast(line);
    }

    /// Gives a client another name, or none.
    fn rename(&mut self, cx: &mut Context<'_, Session>, name: Option<Box<Name>>) {
        let id = cx.id().to_bits();
        let former = std::mem::replace(&mut cx.session().name, name);
        self.names.rename(id, former.as_deref(), cx.session().name.as_deref());
    }

    fn say(&mut self, cx: &mut Context<'_, Session>, text: String) {
        if let Some(seat) = &mut self.seat {
            return seat.event(cx, Event::Say(text));
        }
        let line = said(cx.session().name(), &text);
        cx.broadcast(line);
    }

    fn who(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(seat) = &mut self.seat {
            return seat.event(cx, Event::Who);
        }
        // Who is gone may have asked thousands of times, and nothing holds that back.
        if !cx.takes_output() {
            return;
        }
        let mut clients: Vec<_> = cx.connections().collect();
        // Ids sort by arrival.
        clients.sort_unstable_by_key(|(id, _)| *id);
        let list = users(clients.iter().map(|(_, client)| client.name()));
        cx.send(list);
    }

    fn bye(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(seat) = &mut self.seat {
            return seat.bye(cx);
        }
        let line = leaving(cx.session().name());
        cx.broadcast(line);
        cx.close();
    }

    fn kill(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(seat) = &mut self.seat {
            return seat.stop(cx, KILLED);
        }
        cx.send(KILLED);
        cx.stop();
    }

    /// Sends a client something behind what it is to hear of its own lines.
    fn reply(&mut self, cx: &mut Context<'_, Session>, line: &str) {
        match &mut self.seat {
            Some(seat) => seat.event(cx, Event::Answer(line.to_owned())),
            None => _ = cx.send(line),
        }
    }

    /// Closes a client's connection, likewise.
    fn close(&mut self, cx: &mut Context<'_, Session>, line: &str) {
        if let Some(seat) = &mut self.seat {
            return seat.close(cx, line);
        }
        cx.send(line);
        cx.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::names::{NOBODYS, folded};
    use super::*;
    use crate::testing::{Client, Harness};

    fn room() -> (Harness<Presence>, Client, Client) {
        let mut server = Harness::new(Presence::default());
        let (alice, bob) = (server.connect(), server.connect());
        server.feed(alice, b"HELLO alice\n");
        server.feed(bob, b"hello bob smith\n");
        server.sent(alice);
        server.sent(bob);
        (server, alice, bob)
    }

    fn text(server: &mut Harness<Presence>, client: Client) -> String {
        String::from_utf8(server.sent(client)).unwrap()
    }

    #[test]
    fn arrivals_are_told_to_the_others_and_the_newcomer_is_welcomed() {
        let mut server = Harness::new(Presence::default());
        let alice = server.connect();
        assert_eq!(text(&mut server, alice), WELCOME);
        let bob = server.connect();
        assert_eq!(text(&mut server, alice), "Someone has arrived...\n");
        assert_eq!(text(&mut server, bob), WELCOME);
    }

    #[test]
    fn hello_and_say_reach_everybody() {
        let (mut server, alice, bob) = room();
        server.feed(alice, b"SAY hi there\nsay\nSAY \nHELLO\nSAY  x\n");
        let heard = "alice says: hi there\nalice says: nothing...\nalice says: nothing...\n\
                     An anonymous user is in the room.\nAn anonymous user says:  x\n";
        assert_eq!(text(&mut server, alice), heard);
        assert_eq!(text(&mut server, bob), heard);
    }

    #[test]
    fn who_lists_by_arrival_even_when_a_slot_is_used_again() {
        let (mut server, alice, bob) = room();
        server.feed(alice, b"BYE\n");
        server.end(alice);
        let carol = server.connect();
        server.sent(bob);
        server.sent(carol);
        server.feed(carol, b"WHO\n");
        assert_eq!(
            text(&mut server, carol),
            "Currently connected users:\n - bob\n - An anonymous user\n"
        );
        assert_eq!(text(&mut server, bob), "");
    }

    #[test]
    fn leaving_is_told_however_it_comes_about() {
        let (mut server, alice, bob) = room();
        server.feed(alice, b"BYE\nSAY never\n");
        assert_eq!(text(&mut server, alice), "alice is about to leave the room.\n");
        assert_eq!(
            text(&mut server, bob),
            "alice is about to leave the room.\nalice has left the room.\n"
        );
        let carol = server.connect();
        server.sent(bob);
        server.reset(carol);
        assert_eq!(text(&mut server, bob), "An anonymous user has left the room.\n");
    }

    #[test]
    fn kill_needs_leave() {
        let (mut server, alice, _) = room();
        server.feed(alice, b"KILL\n");
        assert_eq!(text(&mut server, alice), "KILL is disabled on this server.\n");
        assert!(!server.is_stopping());

        let mut server = Harness::new(Presence::new(true));
        let alice = server.connect();
        server.sent(alice);
        server.feed(alice, b"kill\n");
        assert_eq!(text(&mut server, alice), "KILL command received. Bringing server down...\n");
        assert!(server.is_stopping() && server.is_shut(alice));
    }

    #[test]
    fn names_that_are_unique_only_since_an_upgrade_are_those_of_who_came_first() {
        let (mut server, alice, bob) = room();
        server.feed(bob, "HELLO Alice\n");
        [alice, bob].into_iter().for_each(|client| _ = server.sent(client));
        assert!(server.upgrade(Presence::default().unique_names()).is_ok());
        // Neither line is the client's first one, which may have a mark.
        server.feed(bob, "\u{feff}WHO\nHELLO alice\nWHO\n");
        let list = users_of(" - alice\n - An anonymous user\n");
        assert_eq!(text(&mut server, bob), format!("{HINT}{}{list}", taken("alice")));
    }

    /// A room on a bus, as that of several cores or servers.
    fn on(bus: impl Bus + 'static) -> Presence {
        Presence { seat: Some(Seat::alone(English, bus)), ..Presence::default() }
    }

    #[test]
    fn a_room_on_a_bus_goes_over_with_its_members_and_their_names() {
        let on_bus = || on(InProcess::new().unique_names());
        let mut server = Harness::new(on_bus());
        let [alice, nobody, bob] = [(); 3].map(|()| server.connect());
        server.feed(bob, "HELLO bob\n");
        server.feed(alice, "HELLO alice\nSA");
        [alice, nobody, bob].into_iter().for_each(|client| _ = server.sent(client));
        // From one core without a bus it does not go to one with a bus, nor back.
        assert!(server.upgrade(Presence::default()).is_err());
        for _ in 0..2 {
            assert!(server.upgrade(on_bus()).is_ok());
        }
        let dave = server.connect();
        server.feed(dave, "HELLO Alice\nHELLO dave\n");
        server.feed(alice, "Y hi\nWHO\n");
        server.reset(bob);
        let heard = text(&mut server, alice);
        let list = " - alice\n - An anonymous user\n - bob\n - dave\n";
        assert_eq!(
            heard,
            format!(
                "{ARRIVED}dave is in the room.\nalice says: hi\nCurrently connected users:\n\
                 {list}bob has left the room.\n"
            )
        );
        assert_eq!(text(&mut server, nobody), heard.replace(&users_of(list), ""));
        assert!(text(&mut server, dave).contains(&taken("Alice")));
    }

    fn users_of(list: &str) -> String {
        format!("Currently connected users:\n{list}")
    }

    /// What was said and not heard goes along, and so do those who wait for it.
    #[test]
    fn what_is_under_way_to_a_bus_is_heard_once_in_the_next_process() {
        use std::time::{Duration, Instant};

        use super::super::room::{Room, ServerId, Settings};

        // There is no Redis: after 5 s the room goes on alone.
        let on_bus = || on(Room::new(Settings::default(), ServerId(1), Instant::now()));
        let mut server = Harness::new(on_bus());
        let (alice, bob) = (server.connect(), server.connect());
        let upgrade = |server: &mut Harness<Presence>| {
            let old = server.upgrade(on_bus()).unwrap();
            // Whatever the old one is told now, it is not the room any more.
            assert!(old.seat.is_some());
        };
        upgrade(&mut server);
        server.feed(alice, "HELLO alice\nSAY one\nWHO\nSAY two\nBYE\n");
        server.advance(Duration::from_secs(2));
        upgrade(&mut server);
        assert_eq!(text(&mut server, alice) + &text(&mut server, bob), "");
        (0..5).for_each(|_| server.advance(Duration::from_secs(1)));
        upgrade(&mut server);
        server.advance(Duration::from_secs(1));
        // Whoever has come before the cut has its place behind it.
        let said = "alice is in the room.\nalice says: one\n";
        let list = users_of(" - alice\n - An anonymous user\n");
        let rest = "alice says: two\nalice is about to leave the room.\n";
        let own = format!("{WELCOME}{ARRIVED}{said}{list}{rest}");
        assert_eq!(text(&mut server, alice), own);
        let heard = format!("{WELCOME}{said}{rest}alice has left the room.\n");
        assert_eq!(text(&mut server, bob), heard);
    }

    #[test]
    fn anything_else_gets_a_hint() {
        let (mut server, alice, bob) = room();
        server.feed(alice, b"\nHELLOO x\n");
        let hint = "What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n";
        assert_eq!(text(&mut server, alice), hint.repeat(2));
        assert_eq!(text(&mut server, bob), "");
    }

    #[test]
    fn a_web_page_cannot_talk_in_the_name_of_its_visitor() {
        let mut server = Harness::new(Presence::new(true));
        let (alice, page) = (server.connect(), server.connect());
        server.sent(alice);
        server.sent(page);
        let body = "HELLO spam\r\nSAY buy\r\nKILL\r\n";
        server.feed(page, format!("POST / HTTP/1.1\r\nHost: localhost:9907\r\n\r\n{body}"));
        assert_eq!(text(&mut server, page), FOREIGN);
        assert_eq!(server.closed(page), Some(CloseReason::Closed));
        assert_eq!(text(&mut server, alice), "An anonymous user has left the room.\n");
        assert!(!server.is_stopping());
    }

    #[test]
    fn names_are_compared_as_people_see_them() {
        for (one, other) in [
            ("alice", "ALICE"),
            ("stra\u{df}e", "STRASSE"),
            (
                "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
                "\u{3c3}\u{3b9}\u{301}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c3}",
            ),
            ("zo\u{eb}", "zoe\u{308}"),
            ("\u{ff21}\u{ff4e}\u{ff4e}", "ann"),
            ("\u{fb01}n", "fin"),
            ("\u{212a}im", "kim"),
            ("bo\u{200c}b", "b\u{200d}o\u{fe0f}b"),
            ("a\u{345}b", "A\u{399}B"),
        ] {
            assert_eq!(folded(one), folded(other), "{one:?} {other:?}");
        }
        assert_ne!(folded("b\u{43e}b"), folded("bob"));
        // Nobody is refused this one, and nobody can take it.
        assert_eq!([folded("an\u{a0}ANONYMOUS user"), folded(ANONYMOUS)], [NOBODYS; 2]);
    }

    #[test]
    fn no_name_is_dear_to_compare() {
        // Each of these is eighteen others to NFKC, and three in upper case.
        for dear in ["\u{fdfa}", "\u{390}", "\u{3316}"] {
            let length = folded(&dear.repeat(NAME_LENGTH)).chars().count();
            assert!(length <= 3 * NAME_LENGTH, "{length} of {dear}");
        }
        let (one, other) = ("\u{fdfa}".repeat(3), "\u{fdfa}".repeat(3) + "x");
        assert_ne!(folded(&one), folded(&other));
    }

    #[test]
    fn nobodys_terminal_is_at_the_mercy_of_the_others() {
        let (mut server, alice, bob) = room();
        server.feed(alice, b"HELLO a\x1b[31m\xff\nSAY \x1b]0;owned\x07\n");
        assert_eq!(
            text(&mut server, bob),
            "a?[31m\u{fffd} is in the room.\na?[31m\u{fffd} says: ?]0;owned?\n"
        );
        server.feed(alice, format!("HELLO {}\n", "é".repeat(100)).as_bytes());
        let expected = format!("{} is in the room.\n", "é".repeat(64));
        assert_eq!(text(&mut server, bob), expected);
    }
}
