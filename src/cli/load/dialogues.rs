//! What is said to servers that are not ours: the dialogues of a protocol, round by round.

use super::greeting::{Greeted, Greeting};
use super::payload::{Cx, Payload, Reply};
use crate::cli::protocol::{Dialogue, Mismatch, Next, Protocol, Script};

/// A [`Payload`] in which each client goes through one dialogue again and again. A request is a round, and
/// its reply is complete with the last line that the dialogue expects.
#[derive(Debug)]
pub(crate) struct Dialogues<'p> {
    protocol: &'p Protocol,
    /// The clients have them by turns.
    scripts: Vec<&'p Script>,
    /// All that a round says is sent at once, and the next round does not wait for the end of this one.
    pipelined: bool,
    /// A line may end with LF or with CRLF.
    lenient: bool,
    /// The client that the calls are about.
    client: u32,
    /// What it says next.
    out: Vec<u8>,
    /// Where its round went wrong.
    mismatch: Option<Mismatch>,
}

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Talker<'p> {
    dialogue: Option<Dialogue<'p>>,
    /// The round that is read has begun, and is not complete.
    in_round: bool,
    /// What it has said last, unless that can be made again.
    said: Vec<u8>,
}

impl<'p> Dialogues<'p> {
    pub(crate) fn new(protocol: &'p Protocol, pipelined: bool, lenient: bool) -> Dialogues<'p> {
        Dialogues {
            protocol,
            scripts: scripts(protocol).collect(),
            pipelined,
            lenient,
            client: 0,
            out: Vec::new(),
            mismatch: None,
        }
    }

    fn script(&self) -> &'p Script {
        self.scripts[self.client as usize % self.scripts.len()]
    }

    /// Begins a round. `number` counts from 0.
    fn begin(&self, own: &mut Talker<'p>, number: u32) {
        let (script, client) = (self.script(), u64::from(self.client));
        let new = || Dialogue::new(self.protocol, script, client);
        let dialogue = own.dialogue.get_or_insert_with(new);
        dialogue.begin_round(script);
        dialogue.set_round(u64::from(number) + 1);
        own.in_round = true;
    }

    /// Says what is to be said before something is awaited. Returns whether the round is complete.
    fn go_on(&mut self, own: &mut Talker<'p>) -> bool {
        let Some(dialogue) = &mut own.dialogue else { return false };
        let before = self.out.len();
        let done = loop {
            match dialogue.next() {
                Next::Send(_) if self.pipelined => {}
                Next::Send(bytes) => self.out.extend(bytes),
                Next::End => {}
                Next::AwaitLine | Next::AwaitEnd => break false,
                Next::Done => break true,
            }
        };
        if self.out.len() > before {
            own.said.clear();
            own.said.extend_from_slice(&self.out[before..]);
        }
        done
    }

    /// A line as it came, without its end.
    fn without_end<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        if !self.lenient {
            return self.protocol.without_end(line);
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

/// The dialogues that can be repeated on one connection.
pub(crate) fn scripts(protocol: &Protocol) -> impl Iterator<Item = &Script> {
    protocol.dialogues.iter().filter(|script| script.goes_on())
}

impl<'p> Payload for Dialogues<'p> {
    type Own = Talker<'p>;

    fn greeting(&self) -> Greeting {
        if self.protocol.greeting_lines() > 0 { Greeting::Dialogue } else { Greeting::None }
    }

    /// It is looked at again from its beginning until it is complete.
    fn greet(&mut self, own: &mut Talker<'p>, bytes: &[u8]) -> Greeted {
        let script = self.script();
        let mut dialogue = Dialogue::new(self.protocol, script, u64::from(self.client));
        let mut taken = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[taken..]) {
            let line = &bytes[taken..=taken + end];
            if let Err(mismatch) = dialogue.on_line(self.without_end(line)) {
                return Greeted::No(mismatch.expected.into_bytes());
            }
            taken += end + 1;
            if dialogue.is_greeted() {
                own.dialogue = Some(dialogue);
                return Greeted::Yes(taken);
            }
        }
        Greeted::NotYet
    }

    fn set_reader(&mut self, client: u32) {
        self.client = client;
    }

    fn send(&mut self, cx: &mut Cx<'_, Self>, client: u32, first: u32, count: u32) -> usize {
        self.client = client;
        let (script, client) = (self.script(), u64::from(self.client));
        for number in (first..).take(count as usize) {
            if self.pipelined {
                let n = u64::from(number) + 1;
                let ahead = script.ahead(client, n, self.protocol.line_end);
                self.out.extend(ahead.unwrap_or_default());
            } else {
                let own = cx.session().own.payload();
                self.begin(own, number);
                self.go_on(own);
            }
        }
        self.flush(cx)
    }

    fn flush(&mut self, cx: &mut Cx<'_, Self>) -> usize {
        let bytes = self.out.len();
        if bytes > 0 {
            cx.send(&self.out);
            self.out.clear();
        }
        bytes
    }

    fn read(&mut self, own: &mut Talker<'p>, number: u32, bytes: &[u8]) -> Reply {
        let Some(end) = memchr::memchr(b'\n', bytes) else { return Reply::Incomplete };
        if !own.in_round {
            self.begin(own, number);
            self.go_on(own);
        }
        let line = self.without_end(&bytes[..=end]);
        let Some(dialogue) = &mut own.dialogue else { return Reply::Incomplete };
        if let Err(mismatch) = dialogue.on_line(line) {
            self.mismatch = Some(mismatch);
            own.in_round = false;
            // Where the next reply begins is known only if each is a line.
            let single = self.script().lines() == (1, 1);
            return if single { Reply::Wrong(end + 1) } else { Reply::Broken(end + 1) };
        }
        if self.go_on(own) {
            own.in_round = false;
            return Reply::Right(end + 1);
        }
        Reply::Part(end + 1)
    }

    fn read_unasked(&mut self, own: &mut Talker<'p>, bytes: &[u8]) -> Reply {
        if !self.protocol.ignores_lines() {
            return Reply::Wrong(bytes.len());
        }
        let Some(end) = memchr::memchr(b'\n', bytes) else { return Reply::Incomplete };
        let line = self.without_end(&bytes[..=end]);
        let (script, client) = (self.script(), u64::from(self.client));
        let new = || Dialogue::new(self.protocol, script, client);
        match own.dialogue.get_or_insert_with(new).on_line(line) {
            Ok(()) => Reply::Part(end + 1),
            Err(_) => Reply::Wrong(end + 1),
        }
    }

    fn explain(&mut self, own: &Talker<'p>, client: u32, number: u32) -> (Vec<u8>, Vec<u8>) {
        let n = u64::from(number) + 1;
        let ahead = self.script().ahead(u64::from(client), n, self.protocol.line_end);
        let said = ahead.filter(|_| self.pipelined).unwrap_or_else(|| own.said.clone());
        let expected = self.mismatch.take().map(|mismatch| mismatch.expected);
        (said, expected.unwrap_or_default().into_bytes())
    }
}
