//! The oracle: what each client has sent and must get, kept while the service runs, so that the
//! first byte that is lost, repeated or out of order shows in the turn in which it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reactor::{CloseReason, ConnId, Limits};

use super::record::{Record, Stage, Text, shown};

/// After so much in a turn no other handshake is moved on.
const SHAKEN_PER_TURN: Duration = Duration::from_millis(2);

/// All that must hold, and whether it did.
pub struct Book {
    /// The time in the simulation.
    pub clock: Duration,
    /// What it was before it last moved on.
    before: Duration,
    /// What it was at the last upgrade. The new loop first looks whether it owes output to those whose time is over,
    /// and judges them a moment later.
    pub upgraded: Option<Duration>,
    pub limits: Limits,
    /// Those of before: somebody may be told only now of what they have caused.
    past: Vec<Limits>,
    /// Of the output of all together.
    pub budget: usize,
    /// Of the input that all together have not finished.
    pub input_budget: usize,
    pub stopping: bool,
    /// The service pauses whom it likes, without telling.
    pub pauses: bool,
    /// Panics that were thrown on purpose.
    pub panics: u64,
    /// Connections that were told of, and of their end.
    pub opened: u64,
    pub closed: u64,
    /// Those whose handshake failed.
    pub failed: u64,
    pub lines: u64,
    /// Messages that were handled.
    pub messages: u64,
    /// Those that were posted before the shutdown was asked for.
    pub before_shutdown: u64,
    /// Bytes that all clients got.
    pub received: u64,
    /// Bytes that streams had taken and not sent when their connections were cut.
    pub held: u64,
    /// What the loop says to those that it closes for a limit.
    farewells: Vec<(CloseReason, Vec<u8>)>,
    records: BTreeMap<ConnId, Record>,
    /// How many are open.
    open: usize,
    /// Those that ended in this turn.
    ended: Vec<ConnId>,
    /// Of these, those whose input was too much.
    cut: Vec<ConnId>,
    /// From which address they come, where they come from one. Others are a peer each.
    addresses: BTreeMap<ConnId, u8>,
    /// What the last steps of the handshakes that ended in this turn cost.
    shaken: Duration,
    /// Whose own request is being handled: what is said to others meanwhile they did not ask for.
    own: Option<ConnId>,
    /// Bytes that are due to all, and the most that ever were.
    unsent: usize,
    most_unsent: usize,
    digest: DefaultHasher,
    /// Tells all that happens on stderr.
    pub trace: bool,
    /// The first promise that was broken.
    complaint: Option<String>,
}

impl Book {
    pub fn new(limits: Limits, farewells: Vec<(CloseReason, Vec<u8>)>) -> Book {
        Book {
            clock: Duration::ZERO,
            before: Duration::ZERO,
            limits,
            past: Vec::new(),
            budget: usize::MAX,
            input_budget: usize::MAX,
            stopping: false,
            pauses: false,
            upgraded: None,
            panics: 0,
            opened: 0,
            closed: 0,
            failed: 0,
            lines: 0,
            messages: 0,
            before_shutdown: 0,
            received: 0,
            held: 0,
            farewells,
            records: BTreeMap::new(),
            open: 0,
            ended: Vec::new(),
            cut: Vec::new(),
            addresses: BTreeMap::new(),
            shaken: Duration::ZERO,
            own: None,
            unsent: 0,
            most_unsent: 0,
            digest: DefaultHasher::new(),
            trace: false,
            complaint: None,
        }
    }

    pub fn change_limits(&mut self, limits: Limits) {
        if self.trace {
            eprintln!("{:?} {limits:?}", self.clock);
        }
        for record in self.records.values_mut() {
            record.due_before = record.due.rest().len();
        }
        self.past.push(std::mem::replace(&mut self.limits, limits));
    }

    /// Notes a broken promise. A panic here would be caught by the loop as the handler's own.
    pub fn complain(&mut self, what: String) {
        self.complaint.get_or_insert(what);
    }

    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Of all that happened so far.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    fn note(&mut self, what: &str, id: ConnId, more: impl Hash + Debug) {
        (what, id, self.clock, &more).hash(&mut self.digest);
        if self.trace {
            eprintln!("{:>8.3} {id} {what} {more:?}", self.clock.as_secs_f64());
        }
    }

    /// So many bytes have come out at a client's end, whatever they mean.
    pub fn came(&mut self, id: ConnId, count: usize) {
        (id, count).hash(&mut self.digest);
    }

    // ---- What clients do ----

    pub fn dialled(&mut self, id: ConnId) {
        let moved = self.clock;
        let stage = Stage::Dialled;
        self.records.insert(id, Record { stage, moved, outbound: true, ..Record::new() });
    }

    /// It comes from this address.
    pub fn comes_from(&mut self, id: ConnId, address: u8) {
        self.addresses.insert(id, address);
    }

    /// What it is judged together with.
    fn peer(&self, id: ConnId) -> (Option<u8>, Option<ConnId>) {
        match self.addresses.get(&id) {
            Some(address) => (Some(*address), None),
            None => (None, Some(id)),
        }
    }

    /// It comes through a handshake.
    pub fn shakes(&mut self, id: ConnId, steps: Vec<Duration>) {
        let moved = self.clock;
        self.records.insert(id, Record { moved, steps, ..Record::new() });
    }

    /// It, or its proxy, sends a header first.
    pub fn introduces(&mut self, id: ConnId, header: usize, unwelcome: bool) {
        let (moved, header) = (self.clock, Some(header));
        self.records.insert(id, Record { moved, header, unwelcome, ..Record::new() });
    }

    /// So much of the header is sent.
    pub fn introduced(&mut self, id: ConnId, count: usize) {
        if let Some(left) = self.records.get_mut(&id).and_then(|record| record.header.as_mut()) {
            *left -= count;
        }
    }

    /// An event of it is to come.
    pub fn poked(&mut self, id: ConnId) {
        if let Some(record) = self.records.get_mut(&id) {
            (record.pokes, record.poked) = (record.pokes + 1, true);
        }
    }

    /// The loop has it open, or not any more.
    pub fn fed(&mut self, id: ConnId, bytes: &[u8], open: bool) {
        if let Some(record) = self.records.get_mut(&id) {
            if record.input.rest().is_empty() && record.block.is_none() {
                record.begun = self.clock;
            }
            record.input.extend(bytes);
            record.fed = self.clock;
            let sound = !record.disturbed && record.errors.is_empty();
            if open && sound && record.due.rest().is_empty() {
                record.fresh.extend(bytes);
            }
        }
    }

    /// It owes the rest of a message, or does not any more. Where reads may fail the loop need not have seen
    /// that yet.
    pub fn owes(&mut self, id: ConnId, owes: bool) {
        let clock = self.clock;
        if let Some(record) = self.records.get_mut(&id) {
            record.looks(clock);
            record.owes = match record.owes {
                owed if record.disturbed && !owes => owed,
                owed => owes.then(|| owed.unwrap_or(clock)),
            };
        }
    }

    pub fn ended(&mut self, id: ConnId) {
        if let Some(record) = self.records.get_mut(&id) {
            record.ended = true;
        }
    }

    /// Its reads and writes may fail for a while.
    pub fn disturbed(&mut self, id: ConnId) {
        if let Some(record) = self.records.get_mut(&id) {
            (record.disturbed, record.fresh) = (true, Vec::new());
        }
    }

    /// Its stream holds up to `most` bytes of what it takes.
    pub fn holds(&mut self, id: ConnId, most: usize) {
        if let Some(record) = self.records.get_mut(&id) {
            record.holds = most;
        }
    }

    /// How many its stream holds after a turn.
    pub fn held(&mut self, id: ConnId, held: usize) {
        if let Some(record) = self.records.get_mut(&id) {
            record.held = held;
        }
    }

    /// The connection may break with this error from now on.
    pub fn breaks(&mut self, id: ConnId, error: ErrorKind) {
        if let Some(record) = self.records.get_mut(&id) {
            record.errors.push(error);
            record.fresh.clear();
        }
    }

    /// It has done so. The service may have ended it since, after the flush in which it broke.
    pub fn broke(&mut self, id: ConnId) {
        let Some(record) = self.records.get_mut(&id) else { return };
        let ended_now =
            matches!(record.stage, Stage::Ending(Some(_))) && record.ending == self.clock;
        if record.stage == Stage::Open || ended_now {
            record.broke.get_or_insert(self.clock);
        }
    }

    /// As [`breaks`](Self::breaks), at a read: then what it has sent is lost with it.
    pub fn loses(&mut self, id: ConnId, error: ErrorKind) {
        self.breaks(id, error);
        if let Some(record) = self.records.get_mut(&id) {
            record.lossy = true;
        }
    }

    pub fn received(&mut self, id: ConnId, got: &[u8]) {
        if got.is_empty() {
            return;
        }
        self.note("received", id, Text(got));
        self.received += got.len() as u64;
        let Some(record) = self.records.get_mut(&id) else {
            return self.complain(format!("{id} got {} before it was open", shown(got)));
        };
        record.moves(self.clock);
        let due = record.due.rest();
        if due.starts_with(got) {
            self.unsent -= got.len();
            record.due.skip(got.len());
            record.others = record.others.min(record.due.rest().len());
            return;
        }
        let same = due.iter().zip(got).take_while(|(due, got)| due == got).count();
        let (due, more) = (&due[same..], &got[same..]);
        let words = [&record.last_words, more].concat();
        let farewell = self.farewells.iter().any(|(_, farewell)| farewell.starts_with(&words));
        if farewell && (due.is_empty() || record.streamed) {
            let lost = record.due.rest().len();
            self.unsent -= lost;
            record.due.skip(lost);
            record.others = 0;
            record.last_words = words;
        } else {
            let (due, more) = (shown(due), shown(more));
            self.complain(format!("{id} got {more} where {due} was due"));
        }
    }

    /// The client and the loop are both done with it.
    pub fn forget(&mut self, id: ConnId) {
        let record = self.records.remove(&id);
        self.addresses.remove(&id);
        self.failed += u64::from(record.as_ref().is_some_and(Record::is_shaking));
        self.unsent -= record.map_or(0, |record| record.due.rest().len());
    }

    // ---- What the handler is told ----

    pub fn opened(&mut self, id: ConnId) {
        self.note("opened", id, ());
        self.opened += 1;
        let clock = self.clock;
        let record = self.records.entry(id).or_insert_with(Record::new);
        let stage = std::mem::replace(&mut record.stage, Stage::Open);
        (record.moved, record.opened) = (clock, true);
        self.open += 1;
        let early = record.pokes < record.steps.len()
            || record.header.is_some_and(|left| left > 0)
            || record.unwelcome;
        // The others of the turn were over its share already.
        let crowded = self.shaken >= SHAKEN_PER_TURN;
        self.shaken += record.steps.last().copied().unwrap_or_default();
        if early || !record.steps.is_empty() && crowded {
            let many = record.steps.len();
            let wrong = format!("{id} opened after {many} steps, early: {early}, late: {crowded}");
            self.complain(wrong);
        }
        if stage != Stage::Dialled {
            self.complain(format!("{id} opened though {stage:?}"));
        }
    }

    /// The handler is told who it is: whoever the client or its proxy said, or the one that was dialled.
    pub fn is_known_as(&mut self, id: ConnId, peer: Option<SocketAddr>) {
        let address = self.addresses.get(&id).map(|last| IpAddr::from([127, 0, 0, *last]));
        let accepted = self.records.get(&id).is_some_and(|record| !record.outbound);
        if accepted && peer.map(|peer| peer.ip()) != address {
            self.complain(format!("{id} is taken for {peer:?}, and is {address:?}"));
        }
    }

    /// Bytes are offered to the handler: exactly those that follow what it has taken.
    pub fn offered(&mut self, id: ConnId, bytes: &[u8], at_eof: bool) {
        let Some(record) = self.records.get(&id) else {
            return self.complain(format!("input of {id}, which nobody knows"));
        };
        let input = record.input.rest();
        let wrong = if record.block.is_some() {
            format!("was offered {} in a block", shown(bytes))
        } else if !input.starts_with(bytes) {
            format!("was offered {} where {} was sent", shown(bytes), shown(input))
        } else if at_eof && (!record.has_ended() || input.len() > bytes.len()) {
            "was offered its last bytes too early".to_owned()
        } else {
            return self.takes_input(id);
        };
        self.complain(format!("{id} {wrong}"));
    }

    pub fn took(&mut self, id: ConnId, count: usize) {
        self.note("took", id, count);
        if let Some(record) = self.records.get_mut(&id) {
            record.moves(self.clock);
            record.input.skip(count);
            if count > 0 {
                record.begun = self.clock;
            }
        }
    }

    pub fn line(&mut self, id: ConnId, line: &[u8]) {
        self.note("line", id, Text(line));
        self.lines += 1;
        self.takes_input(id);
        let block = self.records.get(&id).and_then(|record| record.block);
        if line.len() > self.limits.max_line || block.is_some() {
            let length = line.len();
            self.complain(format!(
                "{id}: a line of {length} bytes was handled, in a block: {block:?}"
            ));
        }
    }

    fn takes_input(&mut self, id: ConnId) {
        let Some(record) = self.records.get_mut(&id) else { return };
        record.served = true;
        // What waits until a broken one takes output is resumed, and nobody else knows.
        let paused = record.paused && (!record.drains || record.errors.is_empty());
        if record.stage != Stage::Open || paused || record.eof_told {
            let (stage, paused) = (record.stage, record.paused);
            self.complain(format!("{id}: input though {stage:?}, paused: {paused}"));
        }
    }

    /// The service makes a block of the next bytes.
    pub fn takes_block(&mut self, id: ConnId, count: usize) {
        let record = self.records.get_mut(&id);
        if let Some(record) =
            record.filter(|record| record.stage == Stage::Open && !record.eof_told)
        {
            // It is no sign of life.
            record.looks(self.clock);
            (record.block, record.begun) = (Some(count), self.clock);
        }
    }

    /// A piece of a block is given to the handler: exactly what follows, and no more than there is
    /// of the block.
    pub fn piece(&mut self, id: ConnId, piece: &[u8], end: bool) {
        self.note("piece", id, (Text(piece), end));
        self.takes_input(id);
        let Some(record) = self.records.get_mut(&id) else { return };
        // The end of a block of no bytes is no sign of life.
        if piece.is_empty() {
            record.looks(self.clock);
        } else {
            record.moves(self.clock);
        }
        let (block, fits) = (record.block, record.input.rest().starts_with(piece));
        let left = block.and_then(|block| block.checked_sub(piece.len()));
        // Only a block of no bytes has an empty piece.
        let wanted =
            left.is_some() && end == (left == Some(0)) && piece.is_empty() == (block == Some(0));
        (record.block, record.begun) = (left.filter(|left| *left > 0), self.clock);
        if fits {
            record.input.skip(piece.len());
        }
        // An unfinished line may have become a part of the block.
        let most = self.limits.max_line + self.limits.bytes_per_turn;
        if !fits || !wanted || piece.len() > most {
            let (length, piece, sent) = (piece.len(), shown(piece), shown(record.input.rest()));
            let wrong = format!(
                "{id}: {block:?} of a block, got {length}: {piece}, end: {end}, before {sent}"
            );
            self.complain(wrong);
        }
    }

    pub fn eof(&mut self, id: ConnId) {
        self.note("eof", id, ());
        self.takes_input(id);
        let Some(record) = self.records.get_mut(&id) else { return };
        record.eof_told = true;
        let block = record.block.take();
        if !record.has_ended() || !record.input.rest().is_empty() || block == Some(0) {
            let left = shown(record.input.rest());
            self.complain(format!("{id}: the end was told before {left}"));
        }
    }

    /// `keeps` tells which input the service may leave.
    pub fn closed(&mut self, id: ConnId, reason: CloseReason, keeps: impl Fn(&[u8]) -> bool) {
        self.note("closed", id, reason);
        self.closed += 1;
        let (clock, stopping) = (self.clock, self.stopping);
        let words = self.farewells.iter().map(|(_, words)| words.len()).max().unwrap_or_default();
        let too_much = self.most_unsent + self.records.len() * words > self.budget;
        let most_kept: usize = self.records.values().map(|record| record.most_kept).sum();
        let full = most_kept > self.input_budget;
        let Book { limits, past, records, .. } = self;
        let all = || [&*limits].into_iter().chain(past.iter());
        let was_ended_for = |record: &Record| {
            let mut why = all().map(|limits| record.was_ended_for(reason, stopping, limits));
            why.clone().find(Result::is_ok).or_else(|| why.next()).expect("there is one")
        };
        let Some(record) = records.get_mut(&id) else {
            // It was dialled and given up within one turn.
            return;
        };
        record.moves(clock);
        if reason == CloseReason::TotalInput {
            self.cut.push(id);
        }
        let (stage, patience) = (record.stage, clock - record.ending);
        let why = match (stage, reason) {
            (Stage::Closed(_), _) => Err("was closed before"),
            (Stage::Ending(None), CloseReason::Stalled) => Ok(()),
            (Stage::Ending(_), CloseReason::Stalled) if patience >= limits.flush_timeout => Ok(()),
            (Stage::Ending(Some(CloseReason::Closed)), CloseReason::PeerClosed) if record.ended => {
                Ok(())
            }
            (Stage::Ending(Some(given)), _) if given == reason => Ok(()),
            (_, CloseReason::TotalOutput) if too_much => Ok(()),
            // See `check_input`.
            (_, CloseReason::TotalInput) => Ok(()),
            // It had broken before, which nobody else could know.
            (Stage::Ending(Some(_)), CloseReason::Error(_)) if record.broke.is_some() => {
                was_ended_for(record)
            }
            // The loop was faster, by a moment.
            (Stage::Ending(Some(_)), _) if !patience.is_zero() => Err("another reason was given"),
            _ => was_ended_for(record),
        };
        self.open -= usize::from(stage == Stage::Open);
        (record.stage, record.closed) = (Stage::Closed(reason), clock);
        let broke = matches!(stage, Stage::Open | Stage::Ending(None))
            && matches!(reason, CloseReason::Error(_));
        // One that had broken may have been ended for what it had not finished.
        let unheard = record.is_unheard(keeps) && !full;
        if broke
            && !stopping
            && !all().any(|limits| record.may_be_unheard(limits, clock))
            && unheard
        {
            let input = shown(record.input.rest());
            let unheard = format!("{id} closed with {reason:?} and was never heard: {input}");
            self.complain(unheard);
        } else if let Err(why) = why {
            let errors = &record.errors;
            let all = format!("{id} closed with {reason:?}: {why}; {stage:?}, {errors:?}");
            self.complain(all);
        }
        self.ended.push(id);
    }

    // ---- What the service does ----

    /// Whether it is neither gone nor closing.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.records.get(&id).is_some_and(|record| record.stage == Stage::Open)
    }

    /// Whether it is open or about to be.
    pub fn is_there(&self, id: ConnId) -> bool {
        let there = |record: &Record| matches!(record.stage, Stage::Open | Stage::Dialled);
        self.records.get(&id).is_some_and(there)
    }

    /// Whether the service was told of the end of its input.
    pub fn heard_all(&self, id: ConnId) -> bool {
        self.records.get(&id).is_some_and(|record| record.eof_told)
    }

    /// How long ago the service was told of its end.
    pub fn closed_for(&self, id: ConnId) -> Option<Duration> {
        let record = self.records.get(&id)?;
        let closed = matches!(record.stage, Stage::Closed(_));
        closed.then(|| self.clock - record.closed)
    }

    /// Bytes that it has still to get.
    pub fn due(&self, id: ConnId) -> usize {
        self.records.get(&id).map_or(0, |record| record.due.rest().len())
    }

    /// Bytes that the loop itself has for it.
    pub fn unsent(&self, id: ConnId) -> usize {
        let unsent = |record: &Record| record.due.rest().len() - record.held;
        self.records.get(&id).map_or(0, unsent)
    }

    /// Bytes that the loop itself has for it, at the least.
    pub fn backlog(&self, id: ConnId) -> usize {
        let backlog = |record: &Record| record.due.rest().len().saturating_sub(record.holds);
        self.records.get(&id).map_or(0, backlog)
    }

    /// Whether the service has not ended its side.
    pub fn takes_output(&self, id: ConnId) -> bool {
        let takes = |record: &Record| record.stage == Stage::Open && !record.finished;
        self.records.get(&id).is_some_and(takes)
    }

    /// Whether what is said to it now will reach it.
    pub fn has_room(&self, id: ConnId) -> bool {
        let full = |record: &Record| record.is_full(&self.limits);
        self.takes_output(id) && !self.records.get(&id).is_some_and(full)
    }

    /// Whether it is open, and nothing has disturbed it.
    pub fn is_healthy(&self, id: ConnId) -> bool {
        self.is_open(id) && self.records.get(&id).is_some_and(|record| record.errors.is_empty())
    }

    pub fn let_pass(&mut self, time: Duration) {
        self.before = self.clock;
        self.clock += time;
    }

    fn is_metered(&self) -> bool {
        let Limits { rate, peer_rate, .. } = &self.limits;
        (*rate, *peer_rate) != Default::default()
    }

    /// Whether nobody need have found out that it is broken: it is paused, or too fast.
    pub fn may_wait(&self, id: ConnId) -> bool {
        let waits = |record: &Record| {
            let rests = record.paused || self.pauses || self.is_metered();
            // The deadline comes a moment later for one whose input was still worked off when it came,
            // or was to be, since its rate had just let it go on.
            let look = if self.is_metered() { self.before } else { self.clock };
            let late = record.broke_for(self.limits.flush_timeout, look);
            rests && (!late || record.moved == self.clock)
        };
        self.records.get(&id).is_some_and(waits)
    }

    /// All that are open, in the order of their arrival.
    pub fn open(&self) -> Vec<ConnId> {
        let open = self.records.iter().filter(|(_, record)| record.stage == Stage::Open);
        open.map(|(id, _)| *id).collect()
    }

    /// Nothing comes of it where it takes no output, or is full.
    pub fn say(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) {
        let count = bytes.as_ref().len();
        if let Some(record) = self.records.get_mut(&id)
            && record.stage == Stage::Open
            && !record.finished
            && !record.is_full(&self.limits)
        {
            record.due.extend(bytes.as_ref());
            record.largest = record.largest.max(count);
            if self.own != Some(id) {
                record.others += count;
            }
            self.unsent += count;
            self.most_unsent = self.most_unsent.max(self.unsent);
        }
    }

    pub fn say_all(&mut self, bytes: impl AsRef<[u8]>) {
        for id in self.open() {
            self.say(id, bytes.as_ref());
        }
    }

    /// As [`say`](Self::say), of what the service sends in pieces.
    pub fn stream(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) {
        self.answer(id, bytes);
        if let Some(record) = self.records.get_mut(&id) {
            record.streamed = true;
        }
    }

    /// As [`say`](Self::say), of what holds back a client that does not read, but not the others
    /// that cause it.
    pub fn answer(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) {
        self.say(id, bytes);
        if let Some(record) = self.records.get_mut(&id) {
            record.unbounded = true;
        }
    }

    /// The service ends it, by a close or otherwise.
    pub fn ends(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(record) = self.records.get_mut(&id)
            && matches!(record.stage, Stage::Open | Stage::Dialled)
        {
            self.open -= usize::from(record.stage == Stage::Open);
            record.ends(Some(reason), self.clock);
        }
    }

    /// The service says no more, but still listens.
    pub fn finishes(&mut self, id: ConnId) {
        if let Some(record) = self.records.get_mut(&id) {
            record.finished = true;
        }
    }

    /// Whether it waits until it takes its output.
    pub fn drains(&mut self, id: ConnId, drains: bool) {
        if let Some(record) = self.records.get_mut(&id) {
            record.moves(self.clock);
            record.drains = drains;
        }
    }

    pub fn pauses(&mut self, id: ConnId, paused: bool) {
        let record = self.records.get_mut(&id).filter(|record| record.paused != paused);
        if let Some(record) = record {
            record.moves(self.clock);
            if !paused {
                // A pause does not count as time that a line took.
                record.begun = self.clock;
            }
            record.paused = paused;
        }
    }

    /// A hook begins, about the request of this connection or nobody's.
    pub fn handles(&mut self, own: Option<ConnId>) {
        self.own = own;
    }

    /// The loop says who is open: whoever is not any more is about to be closed by it.
    pub fn sync(&mut self, count: usize, open: impl Iterator<Item = ConnId>) {
        if count == self.open {
            // They would have to be the same, since nobody opens unnoticed.
            return;
        }
        let open: BTreeSet<_> = open.collect();
        self.open = open.len();
        for (id, record) in &mut self.records {
            match (record.stage, open.contains(id)) {
                (Stage::Open, false) => record.ends(None, self.clock),
                (Stage::Ending(_) | Stage::Closed(_), true) => {
                    self.complaint.get_or_insert(format!("{id} is open after its end"));
                }
                _ => {}
            }
        }
    }

    // ---- What must hold ----

    /// Before a turn: how much the loop keeps of the input of each.
    pub fn weigh(&mut self, id: ConnId, kept: Option<usize>) {
        self.shaken = Duration::ZERO;
        if let Some(record) = self.records.get_mut(&id) {
            // What it has sent may all be read, into a buffer that is an eighth too large.
            let most = record.input.rest().len() * 9 / 8 + record.holds;
            (record.kept, record.most_kept) = (kept, kept.map_or(0, |kept| kept.max(most)));
            record.served = false;
        }
    }

    /// After a turn, with how much is kept now: who was ended for it had to be.
    pub fn check_input(&mut self, total: usize, kept: &BTreeMap<ConnId, usize>) {
        let budget = self.input_budget;
        let sum: usize = kept.values().sum();
        if total > budget || total != sum {
            self.complain(format!("{total} bytes of input are kept, of {sum}, may be {budget}"));
        }
        // Some have ended in a turn before and are told of only now.
        let cut: BTreeMap<_, _> = std::mem::take(&mut self.cut)
            .into_iter()
            .filter_map(|id| Some((id, self.records.get(&id).filter(|cut| cut.kept.is_some())?)))
            .map(|(id, record)| (id, record.most_kept))
            .collect();
        let Some(largest) = cut.values().max() else { return };
        let most: usize = self.records.values().map(|record| record.most_kept).sum();
        let before_last = most - cut.values().sum::<usize>() + largest;
        // What these have was the same all the time.
        let same: BTreeMap<_, _> = kept
            .iter()
            .filter(|(id, kept)| {
                let same = |record: &Record| {
                    !record.served && record.holds == 0 && record.kept == Some(**kept)
                };
                self.records.get(id).is_some_and(same)
            })
            .collect();
        // What each peer had at most, and has at least.
        let (mut had, mut has) = (BTreeMap::new(), BTreeMap::new());
        for (id, record) in &self.records {
            *had.entry(self.peer(*id)).or_insert(0) += record.most_kept;
        }
        for (id, kept) in &same {
            *has.entry(self.peer(**id)).or_insert(0) += **kept;
        }
        // Of the peer that has most the largest goes first.
        let unjust = |(id, most): (&ConnId, &usize)| {
            let peer = self.peer(*id);
            has.iter().any(|(other, has)| *other != peer && *has > had[&peer])
                || same.iter().any(|(other, kept)| self.peer(**other) == peer && *kept > most)
        };
        let wrong = if cut.values().any(|most| *most == 0) {
            "one had nothing"
        } else if most <= budget {
            "there was enough room"
        } else if before_last <= budget / 8 * 7 {
            "there was enough room after others"
        } else if cut.iter().any(unjust) {
            "others had more"
        } else if same.values().copied().sum::<usize>() > budget / 8 * 7 {
            "more had to"
        } else {
            return;
        };
        self.complain(format!("{cut:?} ended for {most} of {budget} bytes of input: {wrong}"));
    }

    /// After a turn: one that is in a handshake is still `there`, or has a reason not to be, which the
    /// loop may tell a turn later. When the loop sleeps, it has no more time than the limits say.
    pub fn check_handshake(
        &mut self,
        id: ConnId,
        there: bool,
        reason: Option<CloseReason>,
        sleeps: bool,
    ) {
        let Some(record) = self.records.get_mut(&id).filter(|record| record.is_shaking()) else {
            return;
        };
        if sleeps && std::mem::take(&mut record.poked) {
            record.made += 1;
        }
        let (done, breaks_off) = (record.has_shaken(), record.breaks_off());
        let late = self.clock - record.moved >= self.limits.handshake_timeout;
        let may_end = late || breaks_off || self.stopping || !record.errors.is_empty();
        if there {
            if sleeps && (late || done || record.ended && breaks_off || self.stopping) {
                self.complain(format!("{id} is still in its handshake"));
            }
        } else if reason == Some(CloseReason::TotalInput) {
            // What its layer keeps until then is input like any other. See `check_input`.
            if !std::mem::replace(&mut record.cut, true) {
                self.cut.push(id);
                self.note("cut in its handshake", id, ());
            }
        } else if !may_end && (reason.is_some() || sleeps) {
            self.complain(format!("{id} ended in its handshake, for {reason:?}"));
        }
    }

    /// When the loop sleeps: nobody owes the rest of a line or of a block for longer than it may.
    pub fn check_owed(&mut self) {
        if self.pauses || self.is_metered() || self.upgraded == Some(self.clock) {
            return;
        }
        let late =
            |(_, record): &(&ConnId, &Record)| record.owes_too_long(self.clock, &self.limits);
        if let Some((id, record)) = self.records.iter().find(late) {
            let (block, input) = (record.block, shown(record.input.rest()));
            let wrong =
                format!("{id} has said no more for too long, in a block: {block:?}, {input}");
            self.complain(wrong);
        }
    }

    /// After a turn, when the clients have got what it sent: those that ended have all of it. Gives
    /// those that are owed more than the limits allow, or for too long, if they are still open.
    pub fn after_turn(&mut self) -> BTreeMap<ConnId, String> {
        for id in std::mem::take(&mut self.ended) {
            if let Some(wrong) = self.records.get(&id).and_then(|record| self.lacks(record)) {
                self.complain(format!("{id} {wrong}"));
            }
        }
        let mut owed = BTreeMap::new();
        for (id, record) in &mut self.records {
            if matches!(record.stage, Stage::Dialled | Stage::Open) {
                record.fresh.clear();
            }
            match record.is_owed_too_much(self.clock, &self.limits) {
                // What is said of those that the flush ended leaves with the next turn.
                Some(what) if record.over == 2 => _ = owed.insert(*id, what),
                Some(_) => record.over += 1,
                None => record.over = 0,
            }
        }
        owed
    }

    /// What one that ended in peace did not get.
    fn lacks(&self, record: &Record) -> Option<String> {
        let Stage::Closed(reason) = record.stage else { return None };
        let farewell = self.farewells.iter().find(|(why, _)| *why == reason);
        let words = match reason {
            _ if record.streamed && reason != CloseReason::Closed => return None,
            // It may have been full.
            CloseReason::LineTooLong | CloseReason::IdleTimeout
                if record.outbound && record.last_words.is_empty() =>
            {
                b""
            }
            CloseReason::LineTooLong | CloseReason::LineTimeout | CloseReason::IdleTimeout
                if !record.finished =>
            {
                &farewell?.1[..]
            }
            CloseReason::PeerClosed
            | CloseReason::Closed
            | CloseReason::Panicked
            | CloseReason::Shutdown => b"",
            _ => return None,
        };
        let due = record.due.rest();
        if !record.errors.is_empty() || due.is_empty() && record.last_words == words {
            return None;
        }
        let got = shown(&record.last_words);
        Some(format!("closed with {reason:?}: lacks {}, last words {got}", shown(due)))
    }

    /// When nothing is left to do: whether our side of it has ended is as the service wanted it.
    pub fn side_ended(&mut self, id: ConnId, ended: bool) {
        if let Some(record) = self.records.get(&id).filter(|_| self.is_healthy(id))
            && record.finished != ended
        {
            let finished = record.finished;
            self.complain(format!(
                "{id}: our side has ended: {ended}, and should have: {finished}"
            ));
        }
    }

    /// When nothing is left to do and nothing disturbs: everybody who can has got everything, and
    /// has been heard. `keeps` tells which input the service may leave for later.
    pub fn at_rest(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        let mut wrong = None;
        for (id, record) in &self.records {
            if record.stage != Stage::Open || !record.errors.is_empty() {
                continue;
            }
            let (input, due) = (record.input.rest(), record.due.rest());
            if !due.is_empty() {
                wrong = Some(format!("{id} never got {}", shown(due)));
            } else if !record.paused && record.is_unheard(&keeps) {
                wrong = Some(format!("{id} was never heard: {}", shown(input)));
            } else if !record.paused && record.ended && !record.eof_told {
                wrong = Some(format!("the end of {id} was never told"));
            }
        }
        wrong.into_iter().for_each(|wrong| self.complain(wrong));
    }
}
