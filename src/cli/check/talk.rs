//! A client in a dialogue, over its socket.

use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::client::{Came, Client, Silence, Unsent};
use super::lab::{Finding, Lab};
use crate::cli::protocol::{Dialogue, LineEnd, Mismatch, Next, Protocol, Script, shown};

/// What came, if that is it.
pub(super) const RESET: &str = "a reset of the connection";

/// Between two bytes of who sends them one by one: long enough for each to be read by itself.
const PAUSE: Duration = Duration::from_millis(1);
/// So many bytes go one by one; the rest together.
const SLOWLY: usize = 100;

/// What one client has of the checker's time before the next one has its turn.
const SHARE: Duration = Duration::from_millis(20);

/// How a client sends what it has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Whole,
    ByteByByte,
    /// It has been sent already.
    Sent,
}

#[derive(Debug)]
pub(super) struct Talk<'l> {
    pub(super) client: Client,
    dialogue: Dialogue<'l>,
    protocol: &'l Protocol,
    patience: Duration,
    /// When all must be over.
    deadline: Instant,
    manner: Manner,
    pub(super) number: u64,
    /// What was sent last, for people.
    sent: String,
}

impl<'l> Talk<'l> {
    /// Connects; the greeting comes first.
    pub(super) fn begin(lab: &'l Lab, script: &'l Script) -> Result<Talk<'l>, Finding> {
        let number = lab.number();
        let client = lab.connect()?;
        Ok(Talk::over(lab, client, number, Dialogue::new(&lab.protocol, script, number)))
    }

    /// Connects, and expects no more than the greeting.
    pub(super) fn greeting(lab: &'l Lab) -> Result<Talk<'l>, Finding> {
        Ok(Talk::greeting_over(lab, lab.connect()?))
    }

    /// The same over a connection that is there.
    pub(super) fn greeting_over(lab: &'l Lab, client: Client) -> Talk<'l> {
        let number = lab.number();
        Talk::over(lab, client, number, Dialogue::greeting(&lab.protocol, number))
    }

    fn over(lab: &'l Lab, client: Client, number: u64, dialogue: Dialogue<'l>) -> Talk<'l> {
        let sent = "nothing: the server speaks first".to_owned();
        let (protocol, patience, deadline) = (&lab.protocol, lab.patience, lab.deadline);
        let manner = Manner::Whole;
        Talk { client, dialogue, protocol, patience, deadline, manner, number, sent }
    }

    pub(super) fn set_manner(&mut self, manner: Manner) {
        self.manner = manner;
    }

    pub(super) fn set_line_end(&mut self, line_end: LineEnd) {
        self.dialogue.set_line_end(line_end);
    }

    /// What was sent is described by these words from now on.
    pub(super) fn has_sent(&mut self, words: impl Into<String>) {
        (self.manner, self.sent) = (Manner::Sent, words.into());
    }

    pub(super) fn begin_round(&mut self, script: &'l Script) {
        self.dialogue.begin_round(script);
    }

    /// Goes on as far as it gets without waiting. Whether the round is over.
    pub(super) fn step(&mut self) -> Result<bool, Finding> {
        self.go_on(Instant::now())
    }

    /// Goes on to the end of the round.
    pub(super) fn finish(&mut self, until: Instant) -> Result<(), Finding> {
        match self.go_on(until)? {
            true => Ok(()),
            false => Err(self.silence()),
        }
    }

    /// Waits for the greeting alone.
    pub(super) fn greeted(&mut self, until: Instant) -> Result<(), Finding> {
        while !self.dialogue.is_greeted() {
            let came = self.client.receive(until);
            if !self.hear(came)? || Instant::now() > until {
                return Err(self.silence());
            }
        }
        Ok(())
    }

    fn go_on(&mut self, mut until: Instant) -> Result<bool, Finding> {
        // Who is sent lines without end must not listen without end.
        let mut longest = until.max(Instant::now() + SHARE);
        while Instant::now() < self.deadline {
            match self.dialogue.next() {
                Next::Send(bytes) => {
                    let begun = Instant::now();
                    self.send(&bytes, until)?;
                    if self.manner == Manner::ByteByByte {
                        // This was not the server's time.
                        (until, longest) = (until + begun.elapsed(), longest + begun.elapsed());
                    }
                }
                Next::End => self.client.end(),
                Next::AwaitLine | Next::AwaitEnd => {
                    if Instant::now() > longest {
                        return Ok(false);
                    }
                    let came = self.client.receive(until);
                    if !self.hear(came)? {
                        return Ok(false);
                    }
                }
                Next::Done => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Whether something has come; an error if it was wrong.
    fn hear(&mut self, came: Came) -> Result<bool, Finding> {
        let judged = match came {
            Came::Nothing => return Ok(false),
            Came::Line(line) => self.dialogue.on_line(self.protocol.without_end(&line)),
            Came::End(rest) => self.dialogue.on_end(&rest),
            Came::Broken(error) => Err(self.mismatch(broken(&error))),
            Came::Endless => {
                let head = shown(self.client.unfinished());
                Err(self.mismatch(format!("a line without an end: {head}")))
            }
        };
        judged.map_err(|wrong| self.finding(wrong))?;
        Ok(true)
    }

    fn send(&mut self, bytes: &[u8], until: Instant) -> Result<(), Finding> {
        let (slowly, rest) = match self.manner {
            Manner::Sent => return Ok(()),
            Manner::Whole => (&[][..], bytes),
            Manner::ByteByByte => bytes.split_at(bytes.len().min(SLOWLY)),
        };
        self.sent = shown(bytes);
        if self.manner == Manner::ByteByByte {
            self.sent.push_str(", each byte by itself");
        }
        let until = until.max(Instant::now() + self.patience).min(self.deadline);
        for byte in slowly {
            self.put(&[*byte], until)?;
            std::thread::sleep(PAUSE);
        }
        self.put(rest, until)
    }

    pub(super) fn put(&mut self, bytes: &[u8], until: Instant) -> Result<(), Finding> {
        self.client.send(bytes, until).map_err(|(sent, why)| match why {
            Unsent::Stuck => {
                let came =
                    format!("nothing; it has read {sent} bytes of it at the most, and no more");
                self.finding(self.mismatch(came))
            }
            // What came before may say why.
            Unsent::Broken(error) => {
                let came = self.client.receive(Instant::now());
                match self.hear(came) {
                    Err(finding) => finding,
                    Ok(_) => self.finding(self.mismatch(broken(&error))),
                }
            }
        })
    }

    /// Nothing more may come for this long.
    pub(super) fn expect_quiet(&mut self, until: Instant) -> Result<(), Finding> {
        loop {
            let came = self.client.receive(until);
            if !self.hear(came)? || Instant::now() > until {
                let rest = self.client.unfinished();
                return match rest.is_empty() {
                    true => Ok(()),
                    false => Err(self.finding(self.mismatch(shown(rest)))),
                };
            }
        }
    }

    /// The server must end the connection, and say nothing more but what others cause.
    pub(super) fn expect_end(&mut self, until: Instant) -> Result<(), Finding> {
        loop {
            let came = self.client.receive(until);
            let ended = matches!(came, Came::End(_));
            let expected =
                |finding| Finding { expected: "the end of the connection".to_owned(), ..finding };
            let heard = self.hear(came).map_err(expected)?;
            match (ended, heard) {
                (true, _) => return Ok(()),
                (false, true) if Instant::now() < until => {}
                (false, _) => return Err(expected(self.silence())),
            }
        }
    }

    /// It waits for what does not come.
    pub(super) fn silence(&self) -> Finding {
        let came = match self.client.unfinished() {
            [] => "nothing".to_owned(),
            rest => format!("{} without a line end", shown(rest)),
        };
        self.finding(self.mismatch(came))
    }

    fn mismatch(&self, came: String) -> Mismatch {
        Mismatch { expected: self.dialogue.expected(), came }
    }

    fn finding(&self, Mismatch { expected, came }: Mismatch) -> Finding {
        Finding { sent: self.sent.clone(), expected, came }
    }
}

fn broken(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset => RESET.to_owned(),
        _ => format!("a broken connection: {error}"),
    }
}

/// Goes on with all of them at once, until all are through or none was for so long. How many are, and what went
/// wrong first, which may be that nothing came.
pub(super) fn together(talks: &mut [Talk<'_>], mut silence: Silence) -> (usize, Option<Finding>) {
    let mut waiting: Vec<usize> = (0..talks.len()).collect();
    let mut wrong = None;
    let mut through = 0;
    loop {
        let before = through;
        waiting.retain(|number| match talks[*number].step() {
            Ok(false) => true,
            Ok(true) => {
                through += 1;
                false
            }
            Err(finding) => {
                wrong.get_or_insert(finding);
                false
            }
        });
        if through > before {
            silence.restart();
        }
        let clients: Vec<_> = waiting.iter().map(|number| &talks[*number].client).collect();
        if waiting.is_empty() || !silence.wait(&clients, PollFlags::IN) {
            let silent = waiting.first().map(|number| talks[*number].silence());
            return (through, wrong.or(silent));
        }
    }
}
