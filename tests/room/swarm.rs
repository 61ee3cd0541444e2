//! Thousands of clients in the thread of the test, and all that each of them has heard.
//!
//! The thread waits for anything only in [`Swarm::until`], where all of them read: nobody is a slow
//! reader because the test waits for something else.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::judge::Heard;
use crate::rooms::full;

/// How long anything may take: the machine may be busy, and a room of 3,000 has much to say.
fn patience() -> Duration {
    Duration::from_secs(if full() { 600 } else { 120 })
}

/// How long the loop sleeps at the most before it asks again for what it waits for.
const LOOK: Duration = Duration::from_millis(5);
/// What a newcomer is sent, in lines.
const WELCOME: usize = 7;

/// Each line once: the members keep its number.
#[derive(Default)]
struct Lines {
    texts: Vec<Rc<str>>,
    numbers: HashMap<Rc<str>, u32>,
    /// Whose each one is, if a member has said it.
    speakers: Vec<Option<usize>>,
    /// To whom each one is said.
    to: Vec<To>,
}

/// To whom a line is said. Each is looked at once: a thousand members have heard it.
#[derive(Clone, Copy, PartialEq)]
enum To {
    All,
    /// Whoever has sent something that gets an answer.
    Asker,
    /// Whoever has asked for WHO, which begins with it.
    Who,
    /// The same, if it is behind that.
    WhoElse,
}

impl To {
    fn of(line: &str) -> To {
        if line == "Currently connected users:" {
            To::Who
        } else if line.starts_with(" - ") {
            To::WhoElse
        } else if ["What? ", "The name ", "KILL "].iter().any(|its| line.starts_with(its)) {
            To::Asker
        } else {
            To::All
        }
    }
}

/// A client.
pub struct Member {
    pub name: String,
    /// Which server it is connected to.
    pub server: usize,
    /// The connection has ended.
    pub ended: bool,
    stream: TcpStream,
    unfinished: Vec<u8>,
    unsent: Vec<u8>,
    /// The numbers of the lines that it has heard, and when, in milliseconds.
    heard: Vec<(u32, u32)>,
    /// The number of the line that tells of it by its name.
    hello: u32,
    /// It has heard that one.
    is_in: bool,
    speech: Option<Speech>,
}

/// How a member speaks by itself.
#[derive(Clone, Copy)]
pub struct Pace {
    /// So many lines may be on their way before it has heard the first of them.
    pub window: u32,
    /// The time between two lines.
    pub pause: Duration,
}

struct Speech {
    pace: Pace,
    next: Instant,
    on: bool,
    said: u32,
    back: u32,
}

pub struct Swarm {
    poll: Poll,
    events: Events,
    buf: Vec<u8>,
    start: Instant,
    lines: Lines,
    pub members: Vec<Member>,
    names: HashMap<String, usize>,
    speakers: Vec<usize>,
}

impl Swarm {
    pub fn new() -> Swarm {
        Swarm {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            buf: vec![0; 64 * 1024],
            start: Instant::now(),
            lines: Lines::default(),
            members: Vec::new(),
            names: HashMap::new(),
            speakers: Vec::new(),
        }
    }

    /// One more client, which tells its name; it is called `s1-7` if it is the seventh of server 1.
    pub fn join(&mut self, server: usize, addr: SocketAddr) -> usize {
        let before = self.members.iter().filter(|member| member.server == server).count();
        let name = format!("s{server}-{before}");
        let mut stream = TcpStream::connect(addr).unwrap();
        let id = self.members.len();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(id), both).unwrap();
        let unsent = format!("HELLO {name}\n").into_bytes();
        self.names.insert(name.clone(), id);
        let hello = self.number_of(&format!("{name} is in the room."));
        self.members.push(Member {
            name,
            server,
            ended: false,
            stream,
            unfinished: Vec::new(),
            unsent,
            heard: Vec::new(),
            hello,
            is_in: false,
            speech: None,
        });
        id
    }

    /// Whether a member has heard its own name.
    pub fn is_in(&self, id: usize) -> bool {
        self.members[id].is_in
    }

    pub fn send(&mut self, id: usize, text: &str) {
        self.members[id].unsent.extend(text.as_bytes());
        self.members[id].flush();
    }

    /// A member leaves without a word.
    pub fn leave(&mut self, id: usize) {
        let member = &mut self.members[id];
        let _ = member.stream.shutdown(std::net::Shutdown::Both);
        member.ended = true;
    }

    /// From now on this one says numbered lines by itself.
    pub fn speaks(&mut self, id: usize, pace: Pace) {
        let (next, on) = (Instant::now(), true);
        if let Some(speech) = &mut self.members[id].speech {
            (speech.pace, speech.on) = (pace, true);
            return;
        }
        self.members[id].speech = Some(Speech { pace, next, on, said: 0, back: 0 });
        self.speakers.push(id);
    }

    /// Nobody says anything by itself any more.
    pub fn hush(&mut self) {
        for id in &self.speakers {
            self.members[*id].speech.as_mut().unwrap().on = false;
        }
    }

    /// Those who have spoken by themselves.
    pub fn speakers(&self) -> impl Iterator<Item = usize> {
        self.speakers.iter().copied()
    }

    /// How many lines each has said.
    pub fn said(&self) -> Vec<(&str, u32)> {
        let speakers = self.speakers.iter().map(|id| &self.members[*id]);
        speakers.map(|it| (it.name.as_str(), it.speech.as_ref().unwrap().said)).collect()
    }

    /// How many lines of its own a member has said, and how many of them it has heard.
    pub fn progress(&self, id: usize) -> (u32, u32) {
        self.members[id].speech.as_ref().map_or((0, 0), |speech| (speech.said, speech.back))
    }

    /// Whoever speaks by itself, and is still there, has heard all that it has said.
    pub fn all_back(&self) -> bool {
        let mut speakers = self.speakers.iter().map(|id| &self.members[*id]);
        speakers.all(|it| it.ended || it.speech.as_ref().is_some_and(|it| it.said == it.back))
    }

    /// The number of a line, if anybody has heard it.
    fn number(&self, line: &str) -> Option<u32> {
        self.lines.numbers.get(line).copied()
    }

    /// How often a member has heard a line.
    pub fn times(&self, id: usize, line: &str) -> usize {
        let Some(number) = self.number(line) else { return 0 };
        self.members[id].heard.iter().filter(|heard| heard.0 == number).count()
    }

    /// Whether every member of these servers that is still there has heard a line this often, or more.
    pub fn have_heard(&self, servers: &[usize], line: &str, times: usize) -> bool {
        let Some(number) = self.number(line) else { return false };
        let mut members =
            self.members.iter().filter(|it| !it.ended && servers.contains(&it.server));
        members.all(|member| {
            let its = member.heard.iter().rev().filter(|heard| heard.0 == number);
            its.take(times).count() == times
        })
    }

    /// Moves what can be moved, or waits a moment.
    fn turn(&mut self) {
        if let Err(error) = self.poll.poll(&mut self.events, Some(LOOK)) {
            assert_eq!(error.kind(), ErrorKind::Interrupted);
            return;
        }
        let now = self.start.elapsed().as_millis() as u32;
        for event in &self.events {
            let id = event.token().0;
            let member = &mut self.members[id];
            member.flush();
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                member.read(id, now, &mut self.buf, &mut self.lines, &self.names);
            }
        }
        let now = Instant::now();
        for id in &self.speakers {
            self.members[*id].speak(now);
        }
    }

    /// Waits until something is so; meanwhile all read, and those speak who speak by themselves.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&Swarm) -> bool) {
        let deadline = Instant::now() + patience();
        while !so(self) {
            if Instant::now() > deadline {
                panic!("in vain: {what}; {}", self.state());
            }
            self.turn();
        }
    }

    /// The length of a fault, in which things go on.
    pub fn during(&mut self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.turn();
        }
    }

    /// The last that the first member of each server has heard.
    fn state(&self) -> String {
        let mut text = format!("said: {:?}", self.said());
        for server in 0..=self.members.iter().map(|it| it.server).max().unwrap_or(0) {
            let Some(ear) = self.ear(server) else { continue };
            let last = self.end_of(ear);
            text += &format!("\n{}: {last:#?}", self.members[ear].name);
        }
        text
    }

    /// The last lines that a member has heard.
    pub fn end_of(&self, id: usize) -> Vec<&str> {
        let heard = &self.members[id].heard;
        let last = heard[heard.len().saturating_sub(12)..].iter();
        last.map(|it| &*self.lines.texts[it.0 as usize]).collect()
    }

    /// The member of a server with a number.
    pub fn of(&self, server: usize, number: usize) -> usize {
        self.names[&format!("s{server}-{number}")]
    }

    /// The first member of a server.
    pub fn ear(&self, server: usize) -> Option<usize> {
        self.members.iter().position(|member| member.server == server)
    }

    /// What a member has heard from the room, without what was said to it alone.
    pub fn heard(&self, id: usize) -> Vec<(u32, u32)> {
        let mut inside_who = false;
        let mut public = Vec::with_capacity(self.members[id].heard.len());
        for heard in self.members[id].heard.iter().skip(WELCOME) {
            let to = self.lines.to[heard.0 as usize];
            inside_who = to == To::Who || inside_who && to == To::WhoElse;
            if !inside_who && to != To::Asker {
                public.push(*heard);
            }
        }
        public
    }

    /// The same with the lines themselves.
    pub fn story(&self, id: usize) -> Vec<Heard<'_>> {
        let with_text = |(number, at): (u32, u32)| Heard {
            at: Duration::from_millis(at.into()),
            line: &self.lines.texts[number as usize],
        };
        self.heard(id).into_iter().map(with_text).collect()
    }

    /// The number of a line that somebody may hear.
    pub fn number_of(&mut self, line: &str) -> u32 {
        self.lines.number(line, &self.names)
    }

    /// Asks who is there, and waits for the answer, which ends with what the member says then.
    #[track_caller]
    pub fn who(&mut self, id: usize) -> Vec<String> {
        let from = self.members[id].heard.len();
        // What follows an answer to WHO is heard behind it.
        self.send(id, "WHO\nWHAT\n");
        let end = self.number_of("What? I only understand HELLO, SAY, WHO, BYE and KILL commands");
        self.until("WHO is answered", |swarm| {
            swarm.members[id].heard[from..].iter().any(|heard| heard.0 == end)
        });
        let lines =
            self.members[id].heard[from..].iter().map(|it| &*self.lines.texts[it.0 as usize]);
        let lines = lines.skip_while(|line| *line != "Currently connected users:").skip(1);
        let names = lines.map_while(|line| line.strip_prefix(" - "));
        names.map(str::to_owned).collect()
    }
}

impl Member {
    fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.ended {
            match self.stream.write(&self.unsent) {
                Ok(count) => _ = self.unsent.drain(..count),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    return;
                }
                // What was sent before the end is read all the same.
                Err(_) => self.unsent.clear(),
            }
        }
    }

    fn read(
        &mut self,
        id: usize,
        now: u32,
        buf: &mut [u8],
        lines: &mut Lines,
        names: &HashMap<String, usize>,
    ) {
        while !self.ended {
            match self.stream.read(buf) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.unfinished.extend(&buf[..count]);
                    let mut at = 0;
                    while let Some(length) =
                        self.unfinished[at..].iter().position(|byte| *byte == b'\n')
                    {
                        let line = str::from_utf8(&self.unfinished[at..at + length]).unwrap();
                        let number = lines.number(line, names);
                        self.heard.push((number, now));
                        self.is_in |= number == self.hello;
                        if lines.speakers[number as usize] == Some(id)
                            && let Some(speech) = &mut self.speech
                        {
                            speech.back += 1;
                        }
                        at += length + 1;
                    }
                    self.unfinished.drain(..at);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
    }

    fn speak(&mut self, now: Instant) {
        let Some(speech) = &mut self.speech else { return };
        let mut lines = String::new();
        while speech.on
            && !self.ended
            && speech.said < speech.back + speech.pace.window
            && speech.next <= now
        {
            speech.said += 1;
            speech.next = now + speech.pace.pause;
            lines += &format!("SAY {}\n", speech.said);
        }
        if !lines.is_empty() {
            self.unsent.extend(lines.as_bytes());
            self.flush();
        }
    }
}

impl Lines {
    fn number(&mut self, line: &str, names: &HashMap<String, usize>) -> u32 {
        if let Some(number) = self.numbers.get(line) {
            return *number;
        }
        let number = self.texts.len() as u32;
        let text: Rc<str> = Rc::from(line);
        self.to.push(To::of(line));
        self.texts.push(Rc::clone(&text));
        self.numbers.insert(text, number);
        let speaker = line.split_once(" says: ").and_then(|(name, _)| names.get(name));
        self.speakers.push(speaker.copied());
        number
    }
}
