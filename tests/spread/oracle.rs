//! What each client has heard, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

/// Whoever has come, and whose name is still on its way.
const NOBODY: &str = "An anonymous user";

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
    /// Who has left for it though nothing has befallen them but that their server was gone, and how
    /// many of its server's deaths there were by then.
    taken_for_gone: BTreeMap<String, usize>,
    /// It is told nothing of the other servers.
    cut: bool,
    /// How many of its own lines it has not heard.
    unheard: usize,
    pub gone: bool,
}

/// A client with so many lines not read back is not read.
const MOST_LINES: usize = 64;

/// A line that somebody has said.
struct Line {
    speaker: String,
    process: usize,
    /// When it was said.
    at: u64,
    /// Somebody may have heard it at another place than the others: its server was cut off, or had lost it.
    out_of_turn: bool,
    /// It has been in the stream.
    written: bool,
    /// Somebody at another server has heard it.
    crossed: bool,
}

#[derive(Default)]
pub struct Oracle {
    pub listeners: Vec<Listener>,
    lines: Vec<Line>,
    /// Processes that were killed.
    pub killed: BTreeSet<usize>,
    /// How often it was written of each process that it is gone.
    pub gone: BTreeMap<usize, usize>,
    /// Of each name, which process serves it.
    homes: BTreeMap<String, usize>,
    /// Names whose clients have left.
    pub left: BTreeSet<String>,
    pub complaint: Option<String>,
    /// Lines heard, by all together.
    pub deliveries: u64,
    /// Milliseconds.
    pub now: u64,
}

/// How long a room does not say again that messages may be missing.
const TOLD_ONCE: u64 = 1_000;

/// The name in front of what is told of it.
fn about<'l>(line: &'l str, what: &str) -> Option<&'l str> {
    line.strip_suffix(what)
}

impl Oracle {
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

    /// A client is about to say the line of this number.
    pub fn says(&mut self, listener: usize) -> usize {
        let Listener { name, process, unheard, .. } = &mut self.listeners[listener];
        let (speaker, process) = (name.clone(), *process);
        *unheard += 1;
        if *unheard > MOST_LINES {
            let complaint = format!("{speaker} may say {unheard} lines that it has not heard");
            self.complaint.get_or_insert(complaint);
        }
        self.lines.push(Line {
            speaker,
            process,
            at: self.now,
            out_of_turn: false,
            written: false,
            crossed: false,
        });
        self.lines.len() - 1
    }

    pub fn hears(&mut self, listener: usize, line: &str) {
        self.deliveries += 1;
        if let Err(complaint) = self.heard(listener, line.trim_end_matches('\n')) {
            let Listener { name, process, .. } = &self.listeners[listener];
            self.complain(format!("{name} at process {process} heard {line:?}: {complaint}"));
        }
    }

    fn heard(&mut self, at: usize, line: &str) -> Result<(), String> {
        let listener = &mut self.listeners[at];
        if let Some((speaker, number)) = line.split_once(" says: t") {
            return self.heard_line(
                at,
                speaker,
                number.trim_end().parse().map_err(|_| "no number")?,
            );
        }
        if let Some(list) = line.strip_prefix("Currently connected users:") {
            let names = list.lines().filter_map(|name| name.strip_prefix(" - "));
            let names = names.filter(|name| *name != NOBODY);
            let names: BTreeSet<_> = names.map(str::to_owned).collect();
            listener.settled.get_or_insert(self.lines.len());
            let before = listener.present.replace(names.clone());
            if before.as_ref().is_some_and(|before| *before != names) {
                return Err(format!("it was told of {before:?}"));
            }
            return if names.contains(&listener.name) {
                Ok(())
            } else {
                Err("not itself".to_owned())
            };
        }
        if let Some(name) = about(line, " is in the room.") {
            let present = listener.present.as_mut();
            if present.is_some_and(|present| !present.insert(name.to_owned())) {
                return Err("it has been there".to_owned());
            }
        } else if let Some(name) = about(line, " has left the room.") {
            let present = listener.present.as_mut();
            if name != NOBODY && present.is_some_and(|present| !present.remove(name)) {
                return Err("it was not there".to_owned());
            }
            if name != NOBODY && !self.left.contains(name) {
                let home = self.homes.get(name).and_then(|home| self.gone.get(home));
                let before = listener.taken_for_gone.insert(name.to_owned(), *home.unwrap_or(&0));
                if home.is_none_or(|gone| *gone == before.unwrap_or(0)) {
                    return Err("nothing has happened to it".to_owned());
                }
            }
        } else if line == "Some messages may be missing." {
            listener.missing.push((self.now, listener.heard.len()));
        } else if line == "The room is cut off from the other servers." {
            if std::mem::replace(&mut listener.cut, true) {
                return Err("it was cut off already".to_owned());
            }
        } else if line == "The room is whole again." {
            // Whoever comes meanwhile is not told that it is not.
            listener.cut = false;
        } else if let Some((count, rest)) = line.split_once(' ')
            && rest.ends_with("said elsewhere meanwhile.")
        {
            listener.elsewhere += count.parse::<usize>().map_err(|_| "no number")?;
        } else if line != "Someone has arrived..."
            && !line.ends_with(" is about to leave the room.")
        {
            return Err("nothing that is said here".to_owned());
        }
        Ok(())
    }

    fn heard_line(&mut self, at: usize, speaker: &str, number: usize) -> Result<(), String> {
        let listener = &mut self.listeners[at];
        let line = self.lines.get_mut(number).ok_or("nobody has said that")?;
        if line.speaker != speaker {
            return Err(format!("{} has said that", line.speaker));
        }
        if !listener.known.insert(number) {
            return Err("for the second time".to_owned());
        }
        listener.heard.push(number);
        listener.unheard -= usize::from(speaker == listener.name);
        let at_home = line.process == listener.process;
        line.crossed |= !at_home;
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
    }

    /// What a line's number is, if it is one that somebody has said.
    pub fn number_of(line: &str) -> Option<usize> {
        line.trim_end().split_once(" says: t")?.1.parse().ok()
    }

    /// Once all is quiet: everybody sees the same names, and none twice.
    pub fn names_are_unique(&mut self, who: &[(usize, String)]) {
        for pair in who.windows(2).filter(|pair| pair[0].1 != pair[1].1) {
            self.complain(format!("WHO differs: {pair:?}"));
        }
        let mut names: Vec<_> = who[0].1.lines().filter(|name| !name.ends_with(NOBODY)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() < all {
            self.complain(format!("WHO lists somebody twice: {who:?}"));
        }
    }

    /// Once all is quiet: who is there, by the order of WHO.
    pub fn concludes(&mut self, who: &[(usize, String)]) {
        let names = |who: &str| -> Vec<String> {
            who.lines().filter_map(|line| line.strip_prefix(" - ")).map(str::to_owned).collect()
        };
        for pair in who.windows(2) {
            if names(&pair[0].1) != names(&pair[1].1) {
                self.complain(format!("WHO differs: {who:?}"));
            }
        }
        let there = self.listeners.iter().filter(|listener| !listener.gone);
        let there: BTreeSet<_> = there.map(|listener| listener.name.clone()).collect();
        let listed: BTreeSet<_> = who.iter().flat_map(|(_, who)| names(who)).collect();
        if there != listed {
            self.complain(format!("WHO lists {listed:?}, there are {there:?}"));
        }
        let mut complaints = Vec::new();
        for listener in self.listeners.iter().filter(|listener| !listener.gone) {
            let name = &listener.name;
            if listener.present.as_ref() != Some(&there) {
                let told = &listener.present;
                complaints.push(format!("{name} was told of {told:?}, there are {there:?}"));
            }
            complaints.extend(self.must_have_heard(listener));
        }
        complaints.extend(self.must_agree());
        complaints.into_iter().for_each(|complaint| self.complain(complaint));
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
            let died_with_it = self.killed.contains(&line.process) && !line.crossed;
            let before = listener.settled.is_none_or(|settled| number < settled);
            if !died_with_it && !before && !self.may_be_missing(listener, number) {
                excused += 1;
                last = number;
            }
        }
        let told = listener.elsewhere;
        (excused > told).then(|| {
            format!("{name} has not heard {excused} lines, was told of {told}; the last is t{last}")
        })
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
