use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use super::{FOREIGN, handle_lines, without_mark};
use crate::text::{command, is_foreign, printable};
use crate::{CloseReason, ConnId, Context, Handler};

/// What a newcomer is sent.
const WELCOME: &str = "\
Welcome to the Presence Server
  Tell me who you are with 'HELLO name'
  Say something to other users with 'SAY message'
  Ask me who is connected with 'WHO'
  Leave with 'BYE'
  Shutdown server with 'KILL'
";

/// The name of a client that has not told its name.
pub(super) const ANONYMOUS: &str = "An anonymous user";
/// What is [compared](folded) of that one, which nobody can take.
pub(super) const NOBODYS: &str = "an anonymous user";
/// How many characters of a name are kept.
const NAME_LENGTH: usize = 64;

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
#[derive(Clone, Debug, Default)]
pub struct Presence {
    allow_kill: bool,
    /// Whose each name is, by what is [compared](folded) of it; none if any number may have the same.
    names: Option<HashMap<String, ConnId>>,
}

impl Presence {
    /// An empty room. `allow_kill` says whether anybody in it may shut down the whole reactor with
    /// KILL.
    pub fn new(allow_kill: bool) -> Presence {
        Presence { allow_kill, names: None }
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
        Presence { names: Some(HashMap::new()), ..self }
    }

    /// What a client calls itself, as this room needs it.
    fn name(&self, shown: String) -> Box<Name> {
        let compared = self.names.as_ref().map_or_else(String::new, |_| folded(&shown));
        Box::new(Name { shown, compared })
    }

    /// Whether somebody other than this client has the name.
    fn is_taken(&self, name: &Name, id: ConnId) -> bool {
        let Some(names) = &self.names else { return false };
        let owner = names.get(&name.compared);
        owner.is_some_and(|owner| *owner != id) || name.compared == NOBODYS
    }

    /// Gives a client another name, or none. Its former one may be another's from now on.
    fn rename(&mut self, cx: &mut Context<'_, Session>, name: Option<Box<Name>>) {
        let id = cx.id();
        let former = std::mem::replace(&mut cx.session().name, name);
        let Some(names) = &mut self.names else { return };
        if let Some(former) = former {
            names.remove(&former.compared);
        }
        if let Some(name) = &cx.session().name {
            names.insert(name.compared.clone(), id);
        }
    }
}

/// What is compared of a name: NFKC, in upper and then in lower case, since there are letters that only
/// one of the two makes the same, and NFKC again. Without what a [printable] name may have and nobody
/// sees: joiners and variation selectors.
///
/// Of what the first NFKC makes, as many characters count as a name may have. There are letters of which
/// it makes eighteen, and a thousand lines of those would keep all others waiting.
pub(super) fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let seen =
        name.chars().filter(|c| !matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}'));
    let name: String = seen.nfkc().take(NAME_LENGTH).collect();
    name.to_uppercase().to_lowercase().nfkc().collect()
}

/// What a client has called itself.
#[derive(Debug)]
struct Name {
    shown: String,
    /// What is [compared](folded) of it. Empty where any number may have the same name.
    compared: String,
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
    fn name(&self) -> &str {
        self.name.as_ref().map_or(ANONYMOUS, |name| &name.shown)
    }
}

impl Handler for Presence {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.broadcast_to_others("Someone has arrived...\n");
        cx.send(WELCOME);
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        handle_lines(self, cx, bytes)
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let first = !std::mem::replace(&mut cx.session().heard, true);
        let line = if first { without_mark(line) } else { line };
        if is_foreign(line) {
            cx.send(FOREIGN);
            return cx.close();
        }
        let (word, rest) = command(line);
        match word.to_ascii_uppercase().as_slice() {
            b"HELLO" => self.hello(cx, rest),
            b"SAY" => say(cx, rest),
            b"WHO" => who(cx),
            b"BYE" => {
                let name = cx.session().name().to_owned();
                cx.broadcast(format!("{name} is about to leave the room.\n"));
                cx.close();
            }
            b"KILL" if self.allow_kill => {
                cx.send("KILL command received. Bringing server down...\n");
                cx.stop();
            }
            b"KILL" => {
                cx.send("KILL is disabled on this server.\n");
            }
            _ => {
                cx.send("What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n");
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
        // Told however the client left, with or without a BYE.
        let line = format!("{} has left the room.\n", cx.session().name());
        self.rename(cx, None);
        cx.broadcast(line);
    }
}

impl Presence {
    fn hello(&mut self, cx: &mut Context<'_, Session>, rest: &[u8]) {
        let text = String::from_utf8_lossy(rest);
        let word = text.split_whitespace().next();
        let name = word.map(|word| {
            let word: String = word.chars().take(NAME_LENGTH).collect();
            self.name(printable(word.as_bytes()))
        });
        if let Some(name) = name.as_ref().filter(|name| self.is_taken(name, cx.id())) {
            let name = &name.shown;
            return writeln!(cx, "The name {name} is taken; choose another with 'HELLO name'");
        }
        self.rename(cx, name);
        let line = format!("{} is in the room.\n", cx.session().name());
        cx.broadcast(line);
    }
}

fn say(cx: &mut Context<'_, Session>, text: &[u8]) {
    let text = if text.is_empty() { "nothing...".to_owned() } else { printable(text) };
    let line = format!("{} says: {text}\n", cx.session().name());
    cx.broadcast(line);
}

fn who(cx: &mut Context<'_, Session>) {
    // Who is gone may have asked thousands of times, and nothing holds that back.
    if !cx.takes_output() {
        return;
    }
    let mut users: Vec<_> = cx.connections().collect();
    // Ids sort by arrival.
    users.sort_unstable_by_key(|(id, _)| *id);
    let names: String = users.iter().map(|(_, user)| format!(" - {}\n", user.name())).collect();
    write!(cx, "Currently connected users:\n{names}");
}

#[cfg(test)]
mod tests {
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
