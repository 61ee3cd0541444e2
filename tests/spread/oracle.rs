//! What each client has heard, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reactor::services::room::bus::{News, Told};

/// Who is there, as a room tells it.
pub type List = Arc<[Option<String>]>;

/// One client: who it is, and what it has heard.
pub struct Listener {
    pub name: String,
    /// Which process serves it.
    pub process: usize,
    /// Lines said before this one were said before it came.
    first: usize,
    /// Lines said elsewhere before this one were said before it was told who is there.
    settled: Option<usize>,
    /// The numbers of the lines that it has heard, in order.
    heard: Vec<usize>,
    /// The same, to find them.
    known: BTreeSet<usize>,
    /// Who is in the room, since it has asked.
    present: Option<BTreeSet<String>>,
    /// How many lines it was told of that were said elsewhere.
    elsewhere: usize,
    /// When it was told that messages may be missing, and how many lines it had heard by then.
    missing: Vec<(u64, usize)>,
    /// Who has left for it though nothing has befallen them but that their server was gone, and how often.
    taken_for_gone: BTreeMap<String, usize>,
    /// It is told nothing of the other servers.
    cut: bool,
    /// How many of its own lines it has not heard.
    unheard: usize,
    pub gone: bool,
}

/// A client with so many lines not read back is not read.
const MOST_LINES: usize = 64;
/// A client with so many bytes not read back is not read.
const MOST_BYTES: usize = 64 << 10;

/// A line that somebody has said.
struct Line {
    speaker: String,
    /// Which listener that is.
    by: usize,
    process: usize,
    /// When it was said.
    at: u64,
    /// Somebody may have heard it at another place than the others: its server was cut off, or had lost it.
    out_of_turn: bool,
    /// It has been in the stream.
    written: bool,
    /// It was in what Redis has lost, and has not been written again.
    lost: bool,
    /// The other processes that have read it.
    read_by: BTreeSet<usize>,
}

#[derive(Default)]
pub struct Oracle {
    pub listeners: Vec<Listener>,
    lines: Vec<Line>,
    /// Processes that were killed.
    pub killed: BTreeSet<usize>,
    /// How often it was written of each process that it is gone.
    pub gone: BTreeMap<usize, usize>,
    /// How many had come by the time when it was last written of a process that it is gone.
    pub was_gone: BTreeMap<usize, usize>,
    /// Of each name, which process serves it.
    homes: BTreeMap<String, usize>,
    /// Names whose clients have left.
    pub left: BTreeSet<String>,
    pub complaint: Option<String>,
    /// Lines heard, by all together.
    pub deliveries: u64,
    /// Milliseconds.
    pub now: u64,
    /// Several want the same name: who is who cannot be known.
    pub contested: bool,
}

/// How long a room does not say again that messages may be missing.
const TOLD_ONCE: u64 = 1_000;

/// The number of a line, if somebody has said it.
pub fn number_of(text: &str) -> Option<usize> {
    text.trim_end().strip_prefix('t')?.parse().ok()
}

impl Oracle {
    pub fn new(contested: bool) -> Oracle {
        Oracle { contested, ..Oracle::default() }
    }

    pub fn complain(&mut self, complaint: String) {
        self.complaint.get_or_insert(complaint);
    }

    pub fn arrives(&mut self, name: &str, process: usize) -> usize {
        self.homes.insert(name.to_owned(), process);
        self.listeners.push(Listener {
            name: name.to_owned(),
            process,
            first: self.lines.len(),
            settled: None,
            heard: Vec::new(),
            known: BTreeSet::new(),
            present: None,
            elsewhere: 0,
            missing: Vec::new(),
            taken_for_gone: BTreeMap::new(),
            cut: false,
            unheard: 0,
            gone: false,
        });
        self.listeners.len() - 1
    }

    /// A client is about to say the line of this number, as others before with so many bytes at least.
    pub fn says(&mut self, listener: usize, size: usize) -> usize {
        let Listener { name, process, unheard, .. } = &mut self.listeners[listener];
        let (speaker, process) = (name.clone(), *process);
        let too_much = *unheard >= MOST_LINES || *unheard * size >= MOST_BYTES;
        *unheard += 1;
        if too_much {
            let complaint = format!("{speaker} may say {unheard} lines that it has not heard");
            self.complaint.get_or_insert(complaint);
        }
        self.lines.push(Line {
            speaker,
            by: listener,
            process,
            at: self.now,
            out_of_turn: false,
            written: false,
            lost: false,
            read_by: BTreeSet::new(),
        });
        self.lines.len() - 1
    }

    pub fn hears(&mut self, listener: usize, news: &News) {
        self.deliveries += 1;
        let outcome = self.heard(listener, news);
        self.judge(listener, outcome, news);
    }

    /// A client is told something itself.
    pub fn told(&mut self, listener: usize, told: &Told) {
        if let Told::Who(list) = told {
            let outcome = self.listed(listener, list);
            self.judge(listener, outcome, told);
        }
    }

    fn judge(&mut self, at: usize, outcome: Result<(), String>, what: &impl std::fmt::Debug) {
        if let Err(complaint) = outcome {
            let Listener { name, process, .. } = &self.listeners[at];
            self.complain(format!("{name} at process {process} heard {what:?}: {complaint}"));
        }
    }

    fn listed(&mut self, at: usize, list: &List) -> Result<(), String> {
        let listener = &mut self.listeners[at];
        let names: BTreeSet<_> = list.iter().flatten().cloned().collect();
        listener.settled.get_or_insert(self.lines.len());
        if self.contested {
            return Ok(());
        }
        let before = listener.present.replace(names.clone());
        if before.as_ref().is_some_and(|before| *before != names) {
            return Err(format!("it was told of {before:?}"));
        }
        if names.contains(&listener.name) { Ok(()) } else { Err("not itself".to_owned()) }
    }

    fn heard(&mut self, at: usize, news: &News) -> Result<(), String> {
        let listener = &mut self.listeners[at];
        match news {
            News::Said { name, text } => {
                let speaker = name.as_deref().unwrap_or_default();
                return self.heard_line(at, speaker, number_of(text).ok_or("no number")?);
            }
            News::Named { name: Some(name) } if !self.contested => {
                let present = listener.present.as_mut();
                if present.is_some_and(|present| !present.insert(name.clone())) {
                    return Err("it has been there".to_owned());
                }
            }
            News::Left { name: Some(name) } if !self.contested => return self.has_left(at, name),
            News::Missing => listener.missing.push((self.now, listener.heard.len())),
            News::CutOff if std::mem::replace(&mut listener.cut, true) => {
                return Err("it was cut off already".to_owned());
            }
            // Whoever comes meanwhile is not told that it is not.
            News::Whole => listener.cut = false,
            News::SaidElsewhere(count) => listener.elsewhere += *count as usize,
            _ => {}
        }
        Ok(())
    }

    fn has_left(&mut self, at: usize, name: &str) -> Result<(), String> {
        let listener = &mut self.listeners[at];
        let present = listener.present.as_mut();
        if present.is_some_and(|present| !present.remove(name)) {
            return Err("it was not there".to_owned());
        }
        if !self.left.contains(name) {
            let gone = self.homes.get(name).and_then(|home| self.gone.get(home));
            let times = listener.taken_for_gone.entry(name.to_owned()).or_default();
            *times += 1;
            if *times > *gone.unwrap_or(&0) {
                return Err("nothing has happened to it".to_owned());
            }
        }
        Ok(())
    }

    fn heard_line(&mut self, at: usize, speaker: &str, number: usize) -> Result<(), String> {
        let listener = &mut self.listeners[at];
        let line = self.lines.get_mut(number).ok_or("nobody has said that")?;
        if line.speaker != speaker && !self.contested {
            return Err(format!("{} has said that", line.speaker));
        }
        if !listener.known.insert(number) {
            return Err("for the second time".to_owned());
        }
        listener.heard.push(number);
        listener.unheard -= usize::from(line.by == at);
        let at_home = line.process == listener.process;
        // What its own server had lost.
        line.out_of_turn |=
            at_home && listener.missing.last().is_some_and(|it| self.now < it.0 + TOLD_ONCE);
        Ok(())
    }

    /// A process that is cut off says this: what is its own is heard there before its turn.
    pub fn said_at_a_cut(&mut self, number: usize, process: usize) {
        let line = &mut self.lines[number];
        line.out_of_turn |= line.process == process;
    }

    /// A line is in the stream. If it is written again it was lost, and some have heard it before that.
    pub fn is_written(&mut self, number: usize) {
        let line = &mut self.lines[number];
        line.out_of_turn |= std::mem::replace(&mut line.written, true);
        line.lost = false;
    }

    /// Redis has lost a line.
    pub fn is_lost(&mut self, number: usize) {
        self.lines[number].lost = true;
    }

    /// A process has read a line, also if it has no clients.
    pub fn is_read(&mut self, number: usize, process: usize) {
        let line = &mut self.lines[number];
        if line.process != process {
            line.read_by.insert(process);
        }
    }

    /// Once all is quiet: everybody sees the same names, and none twice if that has to be.
    pub fn names_are_unique(&mut self, list: &List) {
        let mut names: Vec<_> = list.iter().flatten().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() < all {
            self.complain(format!("WHO lists somebody twice: {list:?}"));
        }
    }

    /// Once all is quiet: who is there, by the order of WHO.
    pub fn concludes(&mut self, who: &[List]) {
        for pair in who.windows(2).filter(|pair| pair[0] != pair[1]) {
            self.complain(format!("WHO differs: {pair:?}"));
        }
        let mut complaints = Vec::new();
        if !self.contested {
            complaints.extend(self.must_know_who_is_there(&who[0]));
        }
        let there = self.listeners.iter().filter(|listener| !listener.gone);
        complaints.extend(there.filter_map(|listener| self.must_have_heard(listener)));
        complaints.extend(self.must_agree());
        complaints.into_iter().for_each(|complaint| self.complain(complaint));
    }

    /// Those of a server that was taken for gone come behind all who were there then.
    pub fn who_was_gone_comes_last(&mut self, list: &List) {
        let number = |name: &String| self.listeners.iter().position(|it| it.name == *name);
        let listed: Vec<_> = list.iter().flatten().filter_map(number).collect();
        for (process, count) in &self.was_gone {
            let old = listed.iter().filter(|it| **it < *count);
            let is_back = |it: &&usize| self.listeners[**it].process == *process;
            let stayed = |it: &usize| !self.was_gone.contains_key(&self.listeners[*it].process);
            let mut behind = old.skip_while(|it| !is_back(it));
            if let Some(late) = behind.find(|it| stayed(it)) {
                let name = &self.listeners[*late].name;
                let complaint = format!("{name} comes behind process {process}, which was gone");
                return self.complain(complaint);
            }
        }
    }

    fn must_know_who_is_there(&self, list: &List) -> Option<String> {
        let there = self.listeners.iter().filter(|listener| !listener.gone);
        let names: BTreeSet<_> = there.clone().map(|listener| listener.name.clone()).collect();
        let listed: BTreeSet<_> = list.iter().flatten().cloned().collect();
        if names != listed {
            return Some(format!("WHO lists {listed:?}, there are {names:?}"));
        }
        let mut wrong = there.filter(|listener| listener.present.as_ref() != Some(&names));
        wrong.next().map(|Listener { name, present, .. }| {
            format!("{name} was told of {present:?}, there are {names:?}")
        })
    }

    fn must_have_heard(&self, listener: &Listener) -> Option<String> {
        let name = &listener.name;
        let unheard = (listener.first..self.lines.len()).filter(|it| !listener.known.contains(it));
        let (mut excused, mut last) = (0, 0);
        for number in unheard {
            let line = &self.lines[number];
            if line.process == listener.process {
                return Some(format!("{name} has never heard t{number}, of its own server"));
            }
            let before = listener.settled.is_none_or(|settled| number < settled);
            if !self.nobody_knows(line) && !before && !self.may_be_missing(listener, number) {
                excused += 1;
                last = number;
            }
        }
        let told = listener.elsewhere;
        (excused > told).then(|| {
            format!("{name} has not heard {excused} lines, was told of {told}; the last is t{last}")
        })
    }

    /// Whether nobody is left who could tell of a line: its process has ended, and no other has read it, or
    /// those have ended, too, and Redis has lost it.
    fn nobody_knows(&self, line: &Line) -> bool {
        let ended = |process: &usize| self.killed.contains(process);
        let readers = &line.read_by;
        ended(&line.process) && (readers.is_empty() || line.lost && readers.iter().all(ended))
    }

    /// Whether it was told that messages may be missing after the line was said, and before it has heard
    /// what the same server wrote next.
    fn may_be_missing(&self, listener: &Listener, number: usize) -> bool {
        let line = &self.lines[number];
        let next = listener.heard.iter().position(|heard| {
            let other = &self.lines[*heard];
            *heard > number && other.process == line.process && !other.out_of_turn
        });
        let told = |(at, heard): &(u64, usize)| {
            line.at < at + TOLD_ONCE && next.is_none_or(|next| *heard <= next)
        };
        listener.missing.iter().any(told)
    }

    /// Two who have heard the same lines have heard them in the same order.
    fn must_agree(&self) -> Option<String> {
        for (one, listener) in self.listeners.iter().enumerate() {
            for other in &self.listeners[one + 1..] {
                let common = |heard: &[usize], by: &Listener| -> Vec<usize> {
                    let heard = heard.iter().filter(|it| !self.lines[**it].out_of_turn);
                    heard.filter(|it| by.known.contains(it)).copied().collect()
                };
                let (these, those) =
                    (common(&listener.heard, other), common(&other.heard, listener));
                if these != those {
                    let at = these.iter().zip(&those).position(|(this, that)| this != that);
                    let at = at.map(|at| (these[at], those[at]));
                    let (one, other) = (&listener.name, &other.name);
                    return Some(format!("{one} and {other} heard another order: {at:?}"));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Process 1 has said a line which process 2 has read, and a client of process 3 has not heard. The processes
    /// that have ended, and whether Redis has lost the line; whether the client may complain.
    fn is_missed(ended: &[usize], lost: bool) -> bool {
        let mut oracle = Oracle::new(true);
        let speaker = oracle.arrives("ann", 1);
        let listener = oracle.arrives("bob", 3);
        oracle.told(listener, &Told::Who(List::default()));
        oracle.says(speaker, 0);
        oracle.listeners[speaker].gone = true;
        oracle.is_written(0);
        oracle.is_read(0, 1);
        oracle.is_read(0, 2);
        if lost {
            oracle.is_lost(0);
        }
        oracle.killed.extend(ended);
        oracle.concludes(&[List::default()]);
        oracle.complaint.is_some()
    }

    #[test]
    fn a_line_that_nobody_knows_of_any_more_is_not_missed() {
        assert!(!is_missed(&[1, 2], true));
        assert!(is_missed(&[1], true), "process 2 knows");
        assert!(is_missed(&[2], true), "process 1 knows");
        assert!(is_missed(&[1, 2], false), "Redis has it");
    }
}
