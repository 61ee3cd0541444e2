//! The presence service over real sockets, byte for byte as its protocol says: on one core, and as the
//! module `presence_on_cores` on three.

#![cfg(feature = "services")]

use reactor::services::Presence;
use reactor::services::room::Message;
use reactor::{CloseReason, Exit, Limits};

use crate::util::{Client, Server};

const WELCOME: &str = "Welcome to the Presence Server\n  \
                       Tell me who you are with 'HELLO name'\n  \
                       Say something to other users with 'SAY message'\n  \
                       Ask me who is connected with 'WHO'\n  \
                       Leave with 'BYE'\n  \
                       Shutdown server with 'KILL'\n";

fn server() -> Server<Message> {
    start(Limits::default(), Presence::default)
}

fn start(limits: Limits, make: impl Fn() -> Presence + Send + Sync + 'static) -> Server<Message> {
    let cores = if module_path!().ends_with("presence_on_cores") { 3 } else { 1 };
    Server::on_cores(cores, limits, move |core| make().on(&core))
}

/// A newcomer, welcomed, whom the others have been told of.
fn join(server: &Server<Message>, others: &mut [&mut Client]) -> Client {
    let mut client = server.connect();
    client.expect(WELCOME);
    expect_all(others, "Someone has arrived...\n");
    client
}

#[track_caller]
fn expect_all(clients: &mut [&mut Client], text: &str) {
    for client in clients {
        client.expect(text);
    }
}

#[test]
fn the_newcomer_is_welcomed_and_the_others_are_told() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    let carol = join(&server, &mut [&mut alice, &mut bob]);
    drop(carol);
    expect_all(&mut [&mut alice, &mut bob], "An anonymous user has left the room.\n");
}

#[test]
fn hello_and_say_reach_everyone_the_sender_too() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    for (sent, heard) in [
        ("SAY hi\n", "An anonymous user says: hi\n"),
        ("HELLO alice\n", "alice is in the room.\n"),
        ("hello  Alice Liddell\r\n", "Alice is in the room.\n"),
        ("SAY hi there\n", "Alice says: hi there\n"),
        ("say   Two  Blanks \r\n", "Alice says:   Two  Blanks \n"),
        ("SAY\n", "Alice says: nothing...\n"),
        ("Say \n", "Alice says: nothing...\n"),
        ("SAY été\n", "Alice says: été\n"),
        ("HELLO\n", "An anonymous user is in the room.\n"),
        ("HELLO  \n", "An anonymous user is in the room.\n"),
    ] {
        alice.send(sent);
        expect_all(&mut [&mut alice, &mut bob], heard);
    }
}

#[test]
fn who_lists_by_arrival_after_slots_were_used_again() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    alice.send("HELLO alice\n");
    expect_all(&mut [&mut alice, &mut bob], "alice is in the room.\n");
    bob.send("HELLO bob\n");
    expect_all(&mut [&mut alice, &mut bob], "bob is in the room.\n");
    // The first slot becomes free, and the next newcomers get it.
    alice.send("BYE\n");
    assert_eq!(alice.rest(), b"alice is about to leave the room.\n");
    drop(alice);
    bob.expect("alice is about to leave the room.\nalice has left the room.\n");
    let mut carol = join(&server, &mut [&mut bob]);
    let mut dave = join(&server, &mut [&mut bob, &mut carol]);
    dave.send("HELLO dave\n");
    expect_all(&mut [&mut bob, &mut carol, &mut dave], "dave is in the room.\n");
    let list = "Currently connected users:\n - bob\n - An anonymous user\n - dave\n";
    for client in [&mut bob, &mut carol, &mut dave] {
        client.send("who\n");
        client.expect(list);
    }
    bob.send("SAY nobody else heard of it\n");
    let heard = "bob says: nobody else heard of it\n";
    expect_all(&mut [&mut bob, &mut carol, &mut dave], heard);
}

#[test]
fn bye_is_told_to_everyone_and_its_sender_closed() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    alice.send("HELLO alice\nBye\nSAY never\n");
    assert_eq!(alice.rest(), b"alice is in the room.\nalice is about to leave the room.\n");
    bob.expect(
        "alice is in the room.\nalice is about to leave the room.\nalice has left the room.\n",
    );
}

#[test]
fn those_who_remain_hear_of_an_end_however_it_came() {
    let server = start(Limits { max_line: 200, ..Limits::default() }, Presence::default);
    let mut bob = join(&server, &mut []);
    for n in 0..4 {
        let mut client = join(&server, &mut [&mut bob]);
        client.send(format!("HELLO c{n}\n"));
        expect_all(&mut [&mut bob, &mut client], &format!("c{n} is in the room.\n"));
        match n {
            0 => drop(client),
            1 => client.reset(),
            2 => {
                client.send([b'x'; 300]);
                assert_eq!(client.rest(), b"Line too long (limit 200 bytes)\n");
            }
            _ => {
                client.send("SAY last words without an end");
                client.end();
                client.expect("c3 says: last words without an end\n");
                bob.expect("c3 says: last words without an end\n");
            }
        }
        bob.expect(format!("c{n} has left the room.\n"));
    }
}

#[test]
fn kill_is_refused_unless_allowed() {
    let refusing = server();
    let mut alice = join(&refusing, &mut []);
    alice.send("KILL\nkill -9\n");
    alice.expect("KILL is disabled on this server.\nKILL is disabled on this server.\n");
    alice.send("SAY still here\n");
    alice.expect("An anonymous user says: still here\n");

    let killable = start(Limits::default(), || Presence::new(true));
    let mut alice = join(&killable, &mut []);
    let mut bob = join(&killable, &mut [&mut alice]);
    bob.send("kill\n");
    assert_eq!(bob.rest(), b"KILL command received. Bringing server down...\n");
    assert_eq!(alice.rest(), b"");
    drop((alice, bob));
    let (exit, counters) = killable.stop();
    assert_eq!((exit, counters.closed(CloseReason::Shutdown)), (Exit::Clean, 2));
}

#[test]
fn anything_else_gets_a_hint_for_the_sender_only() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    let hint = "What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n";
    for line in ["\n", "HELLOO x\n", " SAY x\n", "été\n", "quit\r\n"] {
        alice.send(line);
        alice.expect(hint);
    }
    alice.send(b"\xff\xfe\n");
    alice.expect(hint);
    alice.send("SAY x\n");
    expect_all(&mut [&mut alice, &mut bob], "An anonymous user says: x\n");
}

#[test]
fn names_are_cut_and_control_characters_replaced() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    let long = "é".repeat(64);
    let cases: [(&[u8], &str); 5] = [
        (b"HELLO a\x1b[2Jb\x07\x7f\xc2\x9b\n", "a?[2Jb??? is in the room.\n"),
        (
            b"SAY \x1b]0;owned\x07 \x00tab\there \xc2\x80\n",
            "a?[2Jb??? says: ?]0;owned? ?tab?here ?\n",
        ),
        (b"HELLO caf\xe9\n", "caf\u{fffd} is in the room.\n"),
        (b"SAY caf\xe9\r\r\n", "caf\u{fffd} says: caf\u{fffd}?\n"),
        (b"SAY x\n", "caf\u{fffd} says: x\n"),
    ];
    for (sent, heard) in cases {
        alice.send(sent);
        expect_all(&mut [&mut alice, &mut bob], heard);
    }
    alice.send(format!("HELLO {long}é\n"));
    expect_all(&mut [&mut alice, &mut bob], &format!("{long} is in the room.\n"));
    alice.send(format!("HELLO {long}\nWHO\n"));
    bob.expect(format!("{long} is in the room.\n"));
    alice.expect(format!(
        "{long} is in the room.\nCurrently connected users:\n - {long}\n - An anonymous user\n"
    ));
}

/// The program of the course: five users come one after the other, one of them leaves meanwhile,
/// and each says HELLO when it comes.
#[test]
fn presence_script_five_users_come_and_one_leaves() {
    let server = server();
    let mut sacha = join(&server, &mut []);
    sacha.send("HELLO Sacha\n");
    sacha.expect("Sacha is in the room.\n");
    let mut fabienne = join(&server, &mut [&mut sacha]);
    fabienne.send("HELLO Fabienne\n");
    expect_all(&mut [&mut sacha, &mut fabienne], "Fabienne is in the room.\n");
    let mut olivier = join(&server, &mut [&mut sacha, &mut fabienne]);
    olivier.send("HELLO Olivier\n");
    expect_all(&mut [&mut sacha, &mut fabienne, &mut olivier], "Olivier is in the room.\n");
    sacha.send("BYE\n");
    assert_eq!(sacha.rest(), b"Sacha is about to leave the room.\n");
    drop(sacha);
    let farewell = "Sacha is about to leave the room.\nSacha has left the room.\n";
    expect_all(&mut [&mut fabienne, &mut olivier], farewell);
    let mut jean = join(&server, &mut [&mut fabienne, &mut olivier]);
    jean.send("HELLO Jean\n");
    expect_all(&mut [&mut fabienne, &mut olivier, &mut jean], "Jean is in the room.\n");
    let mut nicole = join(&server, &mut [&mut fabienne, &mut olivier, &mut jean]);
    nicole.send("HELLO Nicole\nWHO\n");
    let mut others = [&mut fabienne, &mut olivier, &mut jean];
    expect_all(&mut others, "Nicole is in the room.\n");
    nicole.expect("Nicole is in the room.\nCurrently connected users:\n");
    nicole.expect(" - Fabienne\n - Olivier\n - Jean\n - Nicole\n");
    // Nobody has heard anything else, up to the end.
    server.handle.stop();
    for client in [&mut fabienne, &mut olivier, &mut jean, &mut nicole] {
        assert_eq!(client.rest(), b"");
    }
}

// ---- Telnet, byte order marks ----

#[test]
fn telnets_commands_are_answered_and_no_part_of_a_line() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut putty = join(&server, &mut [&mut alice]);
    putty.send(b"\xff\xfb\x1f\xff\xfd\x01\xff\xfb\x03HELLO putty\r\n");
    putty.expect(b"\xff\xfe\x1f\xff\xfc\x01\xff\xfe\x03putty is in the room.\n");
    // Nobody else hears of it.
    alice.expect("putty is in the room.\n");
    putty.send(b"\xff\xf4\xff\xfd\x06SAY \xff\xf4hi\r\n\xff\xf1BYE\r\n\xff\xfd\x06");
    let said = "putty says: \u{fffd}\u{fffd}hi\nputty is about to leave the room.\n";
    assert_eq!(putty.rest(), [b"\xff\xfb\x06", said.as_bytes()].concat());
    alice.expect(said);
    alice.expect("putty has left the room.\n");
}

#[test]
fn a_byte_order_mark_is_skipped_in_front_of_the_first_line_alone() {
    let server = server();
    let mut alice = join(&server, &mut []);
    alice.send("\u{feff}HELLO alice\n");
    alice.expect("alice is in the room.\n");
    alice.send("\u{feff}WHO\n");
    alice.expect("What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n");
    let mut putty = join(&server, &mut [&mut alice]);
    for byte in b"\xff\xfd\x01\xef\xbb\xbfSAY x\n" {
        putty.send([*byte]);
    }
    putty.expect(b"\xff\xfc\x01An anonymous user says: x\n");
    let mut page = join(&server, &mut [&mut putty]);
    page.send("\u{feff}GET / HTTP/1.1\r\n");
    assert_eq!(page.rest(), b"This is neither HTTP nor TLS.\n");
}

// ---- What the others see ----

#[test]
fn nothing_that_deceives_the_eye_reaches_the_others() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut mallory = join(&server, &mut [&mut alice]);
    for (sent, heard) in [
        ("HELLO bob\u{2800}says:\u{2800}x", "bob?says:?x is in the room."),
        ("HELLO An\u{3164}anonymous\u{3164}user", "An?anonymous?user is in the room."),
        ("HELLO \u{200b}\u{2060}", "?? is in the room."),
        ("HELLO \u{e0041}", "? is in the room."),
        ("HELLO mal\u{202e}yas", "mal?yas is in the room."),
        ("SAY \u{2067}abc\u{2066}def\u{2069}", "mal?yas says: ?abc?def?"),
        ("SAY hi\u{2028}alice says: I resign\u{2029}", "mal?yas says: hi?alice says: I resign?"),
        ("HELLO \u{f8ff}\u{ad}\u{feff}", "??? is in the room."),
        ("HELLO नर्\u{200d}द\u{200d}", "नर्\u{200d}द? is in the room."),
        (
            "SAY می\u{200c}خواهم ❤\u{fe0f} \u{fe0f}",
            "नर्\u{200d}द? says: می\u{200c}خواهم ❤\u{fe0f} ?",
        ),
    ] {
        mallory.send(format!("{sent}\n"));
        expect_all(&mut [&mut alice, &mut mallory], &format!("{heard}\n"));
    }
    // Where a name is cut, no joiner is left that joins nothing.
    let long = "x".repeat(63);
    mallory.send(format!("HELLO {long}\u{200d}x\n"));
    alice.expect(format!("{long}? is in the room.\n"));
}

// ---- Unique names ----

#[test]
fn a_name_that_somebody_has_is_refused_if_names_are_unique() {
    let server = start(Limits::default(), || Presence::default().unique_names());
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    let taken =
        |name: &str| format!("The name {name} is taken; choose another with 'HELLO name'\n");
    alice.send("HELLO Zo\u{eb}\n");
    expect_all(&mut [&mut alice, &mut bob], "Zo\u{eb} is in the room.\n");
    bob.send("HELLO bob\n");
    expect_all(&mut [&mut alice, &mut bob], "bob is in the room.\n");
    // In another case, composed otherwise, wide, with something that nobody sees.
    for name in
        ["Zo\u{eb}", "zOE\u{308}", "\u{ff3a}o\u{eb}", "Z\u{200d}o\u{eb}", "Zo\u{eb}\u{fe0f}"]
    {
        bob.send(format!("HELLO {name}\n"));
        bob.expect(taken(name));
    }
    // Who is refused keeps the former name, and one's own name is free for oneself.
    bob.send("SAY x\nHELLO BOB\n");
    let heard = "bob says: x\nBOB is in the room.\n";
    expect_all(&mut [&mut alice, &mut bob], heard);
    // A name is free once its owner has another, or none, or is gone.
    alice.send("HELLO stra\u{df}e\n");
    expect_all(&mut [&mut alice, &mut bob], "stra\u{df}e is in the room.\n");
    bob.send("HELLO STRASSE\nHELLO zo\u{eb}\nHELLO\n");
    bob.expect(taken("STRASSE"));
    let heard = "zo\u{eb} is in the room.\nAn anonymous user is in the room.\n";
    expect_all(&mut [&mut alice, &mut bob], heard);
    alice.send("HELLO zo\u{eb}\n");
    expect_all(&mut [&mut alice, &mut bob], "zo\u{eb} is in the room.\n");
    drop(alice);
    bob.expect("zo\u{eb} has left the room.\n");
    bob.send("HELLO Zo\u{eb}\n");
    bob.expect("Zo\u{eb} is in the room.\n");
    // Anonymous may be any number.
    let mut carol = join(&server, &mut [&mut bob]);
    carol.send("HELLO\nWHO\n");
    expect_all(&mut [&mut bob, &mut carol], "An anonymous user is in the room.\n");
    carol.expect("Currently connected users:\n - Zo\u{eb}\n - An anonymous user\n");
}

#[test]
fn two_may_have_one_name_otherwise() {
    let server = server();
    let mut alice = join(&server, &mut []);
    let mut bob = join(&server, &mut [&mut alice]);
    for client in [0, 1] {
        [&mut alice, &mut bob][client].send("HELLO bob\n");
        expect_all(&mut [&mut alice, &mut bob], "bob is in the room.\n");
    }
}
