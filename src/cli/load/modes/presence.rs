//! The mode presence: the clients SAY something by turns, and all of them must hear it.

use reactor::{ConnId, Context, ServiceContext};

use super::Workload;
use crate::cli::load::fault::Fault;
use crate::cli::load::greeting::Greeting;
use crate::cli::load::payload::{SAY, Template};
use crate::cli::load::rate::FixedRate;
use crate::cli::load::run::{Client, Run};

const ARRIVED: &[u8] = b"Someone has arrived...\n";
const GONE: &[u8] = b"An anonymous user has left the room.\n";
/// What the presence service says first.
const GREETING: &str = "\
Welcome to the Presence Server
  Tell me who you are with 'HELLO name'
  Say something to other users with 'SAY message'
  Ask me who is connected with 'WHO'
  Leave with 'BYE'
  Shutdown server with 'KILL'
";
const SAYS: &str = "An anonymous user says: ";

/// One line that is in flight to everybody.
#[derive(Debug)]
struct Saying {
    sequence: u64,
    /// What every client must hear.
    line: Vec<u8>,
    /// Clients that have not heard it yet.
    unheard: u32,
    when: u64,
}

/// What one client has heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Session {
    /// A bit for each place in [`Presence::sayings`]: whether its line was heard. What the bit
    /// means is inverted each time that the place gets a new line.
    heard: u64,
}

type ServiceCx<'a> = ServiceContext<'a, Client<Session>>;
type Cx<'a> = Context<'a, Client<Session>>;

/// What the clients have in common.
#[derive(Debug)]
pub(crate) struct Presence {
    text: Template,
    heard: Template,
    /// The lines in flight, `depth` at most. Line n is at place n modulo `depth`.
    sayings: Vec<Saying>,
    depth: u64,
    rate: Option<FixedRate>,
    /// With `--rate`: when it was last seen that a line was due, all before it having been said.
    noticed: u64,
    /// The clients that are here, which speak by turns.
    speakers: Vec<ConnId>,
    pub(crate) next: u64,
    arrivals: u64,
    departures: u64,
}

impl Presence {
    pub(crate) fn new(run: &Run) -> Presence {
        let text = Template::new(SAY, run.plan.size);
        Presence {
            heard: Template::new(SAYS, text.len() - SAY.len() + SAYS.len()),
            text,
            sayings: Vec::new(),
            depth: run.plan.depth() as u64,
            rate: None,
            noticed: 0,
            speakers: Vec::new(),
            next: 0,
            arrivals: 0,
            departures: 0,
        }
    }

    /// The latest line whose number ends in these 32 bits. Lines carry no more of it.
    fn latest(&self, number: u32) -> u64 {
        self.next.wrapping_sub((self.next as u32).wrapping_sub(number).into())
    }

    /// Whether a client has yet to hear that line.
    fn lacks(&self, session: Session, sequence: u64) -> bool {
        let (place, round) = (sequence % self.depth, sequence / self.depth);
        session.heard >> place & 1 == round & 1
    }

    /// Whether the next line has a place, the line before it there having been heard by all.
    fn has_place(&self) -> bool {
        let place = (self.next % self.depth) as usize;
        self.sayings.get(place).is_none_or(|saying| saying.unheard == 0)
    }

    /// Lets the next client say the next line.
    fn say(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>, when: u64) {
        let sequence = self.next;
        self.next += 1;
        let speaker = sequence % self.speakers.len() as u64;
        for template in [&mut self.text, &mut self.heard] {
            template.set_client(speaker as u32);
            template.set_sequence(sequence as u32);
        }
        cx.send_to(self.speakers[speaker as usize], self.text.bytes());
        run.metrics.bytes_sent += self.text.len() as u64;
        let place = (sequence % self.depth) as usize;
        if place == self.sayings.len() {
            let line = Vec::with_capacity(self.heard.len());
            self.sayings.push(Saying { sequence, line, unheard: 0, when });
        }
        let saying = &mut self.sayings[place];
        saying.line.clear();
        saying.line.extend_from_slice(self.heard.bytes());
        saying.sequence = sequence;
        saying.unheard = run.here;
        saying.when = when;
    }

    /// Says the lines that are due and have a place. The latency of a line that had to wait for one
    /// counts from when it was due. A timer of our own that is late does not count.
    fn go_on(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>, now: u64) {
        while run.is_loading() && !self.speakers.is_empty() && self.has_place() {
            let when = match self.rate {
                None => now,
                Some(rate) if self.next < rate.come => rate.due(self.next).max(self.noticed),
                Some(_) => return,
            };
            self.say(run, cx, when);
        }
    }

    /// A client has heard a whole line.
    fn hears(&mut self, run: &mut Run, cx: &mut Cx<'_>, sequence: u64, now: u64) {
        cx.session().own.heard ^= 1 << (sequence % self.depth);
        run.right(1, now);
        let saying = &mut self.sayings[(sequence % self.depth) as usize];
        saying.unheard -= 1;
        if saying.unheard == 0 {
            run.metrics.messages += 1;
            run.metrics.latency(now.saturating_sub(saying.when), 1);
            self.go_on(run, cx, now);
        }
    }

    /// A client has heard a line that is not in flight, or that it has heard already.
    fn other(&mut self, run: &mut Run, line: &[u8]) {
        if line == ARRIVED {
            self.arrivals += 1;
        } else if line == GONE && self.departures > 0 {
            // The loss of that client is counted already.
        } else {
            let wanted = self.sayings.iter().find(|saying| saying.unheard > 0);
            let wanted = wanted.map_or(&b""[..], |saying| &saying.line);
            run.metrics.wrong(Fault::WrongReply, line, wanted);
        }
    }
}

impl Workload for Presence {
    type Session = Session;

    fn greeting(&self) -> Greeting {
        Greeting::Text(GREETING.into())
    }

    fn on_start(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        let now = run.now(cx);
        self.speakers = run.ids.iter().copied().flatten().collect();
        self.rate = run.plan.rate.map(|rate| FixedRate::new(now, rate, u64::MAX));
        self.on_tick(run, cx);
    }

    fn on_bytes(&mut self, run: &mut Run, cx: &mut Cx<'_>, bytes: &[u8]) -> usize {
        let now = run.now(cx);
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let line = rest.get(..self.heard.len());
            let number = line.and_then(|line| self.heard.sequence_of(line));
            let found = number.map(|number| self.latest(number)).filter(|sequence| {
                let saying = self.sayings.get((sequence % self.depth) as usize);
                saying.is_some_and(|saying| {
                    saying.sequence == *sequence && line == Some(&saying.line)
                })
            });
            if let Some(sequence) = found
                && self.lacks(cx.session().own, sequence)
            {
                taken += self.heard.len();
                self.hears(run, cx, sequence, now);
            } else if let Some(end) = memchr::memchr(b'\n', rest) {
                self.other(run, &rest[..=end]);
                taken += end + 1;
            } else {
                return taken;
            }
        }
    }

    fn is_paced(&self) -> bool {
        self.rate.is_some()
    }

    fn on_tick(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        let now = run.now(cx);
        if let Some(rate) = self.rate.as_mut().filter(|_| run.is_loading())
            && rate.look(now).start == self.next
        {
            self.noticed = now;
        }
        self.go_on(run, cx, now);
    }

    fn is_settled(&self, _run: &Run) -> bool {
        self.sayings.iter().all(|saying| saying.unheard == 0)
    }

    /// Counts the lines that not all have heard.
    fn count_all_owed(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        let now = run.now(cx);
        for saying in self.sayings.iter().filter(|saying| saying.unheard > 0) {
            run.metrics.latency(now.saturating_sub(saying.when), 1);
        }
    }

    fn give_up(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        self.count_all_owed(run, cx);
        for saying in &mut self.sayings {
            run.metrics.fault(Fault::MissingReply, u64::from(saying.unheard));
            saying.unheard = 0;
        }
    }

    fn on_gone(&mut self, run: &mut Run, cx: &mut Cx<'_>, _right: bool) {
        self.departures += 1;
        let session = cx.session().own;
        for place in 0..self.sayings.len() {
            let sequence = self.sayings[place].sequence;
            if self.sayings[place].unheard > 0 && self.lacks(session, sequence) {
                self.sayings[place].unheard -= 1;
                run.metrics.fault(Fault::MissingReply, 1);
            }
        }
        let gone = cx.id();
        self.speakers.retain(|id| *id != gone);
        let now = run.now(cx);
        self.go_on(run, cx, now);
    }

    fn conclude(&mut self, run: &mut Run) {
        if let Some(rate) = self.rate {
            let unsent = rate.come.saturating_sub(self.next);
            run.metrics.unsent = Some(unsent);
            rate.rest(self.next, 1, unsent, |due, lines| {
                let waited = run.ended.saturating_sub(due.max(self.noticed));
                run.metrics.latency(waited, lines);
            });
        }
        let guests = run.metrics.connections;
        // Of any two clients, the first must have been told that the second arrived.
        let wanted = guests * guests.saturating_sub(1) / 2;
        if self.departures > 0 || run.metrics.messages == 0 {
            return;
        }
        run.metrics.fault(Fault::MissingReply, wanted.saturating_sub(self.arrivals));
        run.metrics.fault(Fault::Unexpected, self.arrivals.saturating_sub(wanted));
    }
}
