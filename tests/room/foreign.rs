//! A program that is not ours takes part: whoever has read docs/room.md can write one.

use std::io::{PipeWriter, Write, pipe};
use std::process::Command;

use crate::judge::MISSING;
use crate::rooms::Rooms;
use crate::util::program::Program;
use crate::util::redis::installed;
use crate::util::skip;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/room/foreign.py");

/// The program, and what it reads.
struct Foreign {
    program: Program,
    input: PipeWriter,
    heard: Vec<String>,
}

/// What the keys of the room begin with.
fn key(rooms: &Rooms) -> String {
    format!("reactor:{}", rooms.room)
}

impl Foreign {
    /// In the room with that name, and told of there.
    fn join(rooms: &mut Rooms, name: &str) -> Foreign {
        let (reader, input) = pipe().unwrap();
        let addr = rooms.redis().addr;
        let mut command = Command::new("python3");
        command.args([PROGRAM, &addr.ip().to_string(), &addr.port().to_string()]);
        command.args([&key(rooms), "10", name]);
        let program = Program::spawn_with(&mut command, reader);
        // Else the end of the input is not noticed.
        drop(command);
        let living = rooms.living();
        rooms.wait_for(&living, &format!("{name} is in the room."), 1);
        Foreign { program, input, heard: Vec::new() }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Reads on until it has heard a line that begins like that; gives it.
    fn until(&mut self, begin: &str) -> String {
        loop {
            let line = self.program.line();
            self.heard.push(line.clone());
            if line.starts_with(begin) {
                return line;
            }
        }
    }
}

#[test]
fn who_has_read_the_manual_takes_part() {
    if !installed() {
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("python3 is not installed");
    }
    let mut rooms = Rooms::start(1, &[]);
    let ear = rooms.swarm.ear(0).unwrap();
    let mut fay = Foreign::join(&mut rooms, "fay");
    fay.say("hello from afar");
    rooms.wait_for(&[0], "fay says: hello from afar", 1);
    rooms.swarm.send(ear, "SAY welcome\n");
    fay.until("s0-0 says: welcome");

    // Somebody comes, under another name in the end, and goes.
    let newcomer = rooms.join(0);
    let name = rooms.swarm.members[newcomer].name.clone();
    rooms.swarm.send(newcomer, "HELLO zoe\n");
    rooms.wait_for(&[0], "zoe is in the room.", 1);
    fay.until("zoe is in the room.");
    let who = rooms.who_is_there();
    assert!(who.ends_with(&["fay", "zoe"].map(str::to_owned)) && !who.contains(&name), "{who:?}");
    fay.say("WHO");
    assert_eq!(fay.until("WHO:"), format!("WHO: {}", who.join(" ")));
    rooms.swarm.leave(newcomer);
    fay.until("zoe has left the room.");

    // Another server comes, and one more such program; both are killed, and after a lease their members leave.
    rooms.add_server();
    rooms.join(1);
    fay.until("s1-0 is in the room.");
    let gil = Foreign::join(&mut rooms, "gil");
    fay.until("gil is in the room.");
    rooms.kill(1);
    drop(gil);
    for name in ["s1-0", "gil"] {
        rooms.wait_for(&[0], &format!("{name} has left the room."), 1);
    }

    // Somebody asks everybody to tell all of themselves; nobody has missed who is there.
    let room = key(&rooms);
    rooms.redis().ask(&format!("XTRIM {room} MAXLEN 0"));
    rooms.wait_for(&[0], MISSING, 1);
    assert!(rooms.who_is_there().contains(&"fay".to_owned()));

    rooms.swarm.send(ear, "SAY farewell\n");
    fay.until("s0-0 says: farewell");
    let Foreign { program, input, mut heard } = fay;
    drop(input);
    rooms.wait_for(&[0], "fay has left the room.", 1);
    let (status, rest, stderr) = program.end();
    assert_eq!(status, 0, "{stderr}");
    heard.extend(rest.lines().map(str::to_owned));
    heard.retain(|line| !line.starts_with("WHO:"));

    // What it has heard from its arrival on is what was heard at the other server.
    let story = rooms.swarm.story(ear);
    let lines = story.iter().map(|heard| heard.line).filter(|line| *line != MISSING);
    let lines: Vec<_> = lines.skip_while(|line| *line != "fay is in the room.").collect();
    assert_eq!(heard[0], "Someone has arrived...");
    let theirs: Vec<_> = heard[1..].iter().filter(|line| *line != MISSING).collect();
    assert_eq!(theirs, lines);
    // Nothing is left of any of those who went.
    assert_eq!(rooms.redis().ask(&format!("SCARD {room}:servers")), "1");
    let records = rooms.redis().ask(&format!("KEYS {room}:members:*"));
    assert_eq!(records.lines().count(), 1, "{records}");
}
