//! What must be true of what everybody has heard.
//!
//! Whoever is at the same server hears the same bytes: [`is_rest`]. What is heard at different servers is
//! one order, in which each line is once, or something tells that it is missing: [`judge`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

pub const MISSING: &str = "Some messages may be missing.";
pub const CUT_OFF: &str = "The room is cut off from the other servers.";
pub const WHOLE: &str = "The room is whole again.";
/// How long a room does not say again that messages may be missing, and some more for the way.
const TOLD_ONCE: Duration = Duration::from_millis(1500);

/// A line, and when it was heard.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'t> {
    pub at: Duration,
    pub line: &'t str,
}

/// What was heard at one server, from a time on at which everybody had heard the same.
pub struct Witness<'t> {
    pub server: usize,
    /// The server was there to the end.
    pub stayed: bool,
    pub heard: Vec<Heard<'t>>,
    /// Who was there at the beginning, and at the end.
    pub who: [BTreeSet<String>; 2],
}

/// Whether somebody who came later has heard the rest of what the first one has heard. Its own arrival
/// it is not told of: one such line, in front of `settled`, may be in `all` only.
pub fn is_rest(all: &[u32], heard: &[u32], arrival: u32, settled: usize) -> Result<(), String> {
    let mut rest = heard.len();
    let mut skipped = false;
    for (at, line) in all.iter().enumerate().rev() {
        if rest == 0 {
            return Ok(());
        }
        if heard[rest - 1] == *line {
            rest -= 1;
        } else if *line == arrival && !skipped && at < settled {
            skipped = true;
        } else {
            return Err(format!("line {at} of {} is another: number {rest}", all.len()));
        }
    }
    if rest == 0 { Ok(()) } else { Err(format!("{rest} lines that the first one has not heard")) }
}

/// The server of a member called `s1-7`, its name in front of a line of its own, and the line's number.
fn said(line: &str) -> Option<(usize, &str, u32)> {
    let (name, number) = line.split_once(" says: ")?;
    Some((home(name)?, name, number.parse().ok()?))
}

pub fn home(name: &str) -> Option<usize> {
    name.strip_prefix('s')?.split_once('-')?.0.parse().ok()
}

/// How many lines a server tells that were said elsewhere.
fn elsewhere(line: &str) -> Option<u32> {
    let (count, rest) = line.split_once(' ')?;
    let told = matches!(
        rest,
        "line was said elsewhere meanwhile." | "lines were said elsewhere meanwhile."
    );
    count.parse().ok().filter(|_| told)
}

/// Everybody has heard every line that was said, once and in one order, or was told otherwise.
pub fn judge(witnesses: &[Witness<'_>], said: &BTreeMap<&str, u32>) -> Result<(), String> {
    for witness in witnesses {
        let with_server = |why| format!("server {}: {why}", witness.server);
        is_plausible(witness).map_err(with_server)?;
        has_heard_all(witness, witnesses, said).map_err(with_server)?;
    }
    is_one_order(witnesses)
}

/// Each line by itself: it is one that is said in a room, once, and agrees with who is there.
fn is_plausible(witness: &Witness<'_>) -> Result<(), String> {
    let mut last: HashMap<&str, u32> = HashMap::new();
    let [mut present, finally] = witness.who.clone();
    let mut cut = false;
    for Heard { line, at } in &witness.heard {
        if let Some((_, speaker, number)) = said(line) {
            let before = last.insert(speaker, number).unwrap_or(0);
            if number <= before {
                return Err(format!("{line:?} was heard behind number {before}, at {at:?}"));
            }
        } else if let Some(name) = line.strip_suffix(" is in the room.") {
            if !present.insert(name.to_owned()) {
                return Err(format!("{line:?}, who has been there"));
            }
        } else if let Some(name) = line.strip_suffix(" has left the room.") {
            if !present.remove(name) {
                return Err(format!("{line:?}, who was not there"));
            }
        } else if *line == CUT_OFF {
            if std::mem::replace(&mut cut, true) {
                return Err("cut off, for the second time".to_owned());
            }
        } else if *line == WHOLE {
            if !std::mem::replace(&mut cut, false) {
                return Err("whole again, and it was".to_owned());
            }
        } else if *line != MISSING
            && *line != "Someone has arrived..."
            && elsewhere(line).is_none()
            && !line.ends_with(" is about to leave the room.")
        {
            return Err(format!("nothing that is said in a room: {line:?}"));
        }
    }
    if witness.stayed && present != finally {
        let differ: Vec<_> = present.symmetric_difference(&finally).collect();
        return Err(format!("WHO differs from what was told, by {differ:?}"));
    }
    Ok(())
}

/// What was said, and was not heard here, has a reason that was told.
fn has_heard_all(
    witness: &Witness<'_>,
    witnesses: &[Witness<'_>],
    all: &BTreeMap<&str, u32>,
) -> Result<(), String> {
    if !witness.stayed {
        return Ok(());
    }
    let anywhere: HashSet<&str> = witnesses
        .iter()
        .filter(|other| other.stayed)
        .flat_map(|other| other.heard.iter().map(|heard| heard.line))
        .collect();
    let stayed = |server| witnesses.iter().any(|it| it.server == server && it.stayed);
    let mut places: HashMap<&str, Vec<(u32, usize)>> = HashMap::new();
    for (place, heard) in witness.heard.iter().enumerate() {
        if let Some((_, speaker, number)) = said(heard.line) {
            places.entry(speaker).or_default().push((number, place));
        }
    }
    let told: u32 = witness.heard.iter().filter_map(|heard| elsewhere(heard.line)).sum();
    let (mut counted, mut excused) = (0, false);
    for (speaker, count) in all {
        let its = places.remove(speaker).unwrap_or_default();
        let server = home(speaker).expect("speakers are named after their servers");
        let mut its = its.into_iter().peekable();
        let mut before = None;
        for number in 1..=*count {
            if let Some(it) = its.next_if(|it| it.0 == number) {
                before = Some(it.1);
                continue;
            }
            let line = format!("{speaker} says: {number}");
            if server == witness.server {
                return Err(format!("{line:?} was never heard, and it was said here"));
            }
            let next = its.peek().map(|it| it.1);
            if !stayed(server) && !anywhere.contains(line.as_str()) {
                continue;
            }
            if is_told(&witness.heard, before, next) {
                excused = true;
            } else {
                counted += 1;
                if counted > told {
                    return Err(format!("{line:?} was never heard; {told} lines were told of"));
                }
            }
        }
        if let Some((number, _)) = its.next() {
            return Err(format!("{speaker} has not said {number}"));
        }
    }
    if !excused && counted != told {
        return Err(format!("{told} lines were told of, and {counted} are missing"));
    }
    match places.keys().next() {
        Some(stranger) => Err(format!("{stranger} has said nothing")),
        None => Ok(()),
    }
}

/// Whether it was told, between two places, that messages may be missing.
fn is_told(heard: &[Heard<'_>], before: Option<usize>, next: Option<usize>) -> bool {
    let from = before.map_or(Duration::ZERO, |place| heard[place].at.saturating_sub(TOLD_ONCE));
    let to = next.map_or(Duration::MAX, |place| heard[place].at + TOLD_ONCE);
    heard.iter().any(|it| it.line == MISSING && from <= it.at && it.at <= to)
}

/// Lines of a server that it has said at home at another place than the others heard them: when it was cut
/// off, or had lost them.
fn out_of_turn<'t>(witness: &Witness<'t>) -> impl Iterator<Item = &'t str> {
    let (mut cut, mut told) = (false, None);
    witness.heard.iter().filter_map(move |heard| {
        match heard.line {
            CUT_OFF => cut = true,
            WHOLE => cut = false,
            MISSING => told = Some(heard.at),
            _ => {}
        }
        let lost = told.is_some_and(|told| heard.at < told + TOLD_ONCE);
        let own = said(heard.line).is_some_and(|(server, ..)| server == witness.server);
        (own && (cut || lost)).then_some(heard.line)
    })
}

/// There is an order of all lines in which each server has heard what it has heard.
fn is_one_order(witnesses: &[Witness<'_>]) -> Result<(), String> {
    let astray: HashSet<&str> = witnesses.iter().flat_map(out_of_turn).collect();
    // Who leaves twice, or comes twice, does so at places of its own at each server.
    let mut often: HashSet<&str> = HashSet::new();
    for witness in witnesses {
        let mut once = HashSet::new();
        often.extend(witness.heard.iter().map(|it| it.line).filter(|line| !once.insert(*line)));
    }
    let told = |line: &str| said(line).is_some();
    let counts = |line: &&str| told(line) && !astray.contains(line) && !often.contains(line);
    let mut queues: Vec<VecDeque<&str>> = witnesses
        .iter()
        .map(|it| it.heard.iter().map(|it| it.line).filter(counts).collect())
        .collect();
    let mut in_all: HashMap<&str, usize> = HashMap::new();
    for line in queues.iter().flatten() {
        *in_all.entry(line).or_default() += 1;
    }
    let mut in_front: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut look: Vec<usize> = (0..queues.len()).collect();
    while let Some(queue) = look.pop() {
        let Some(line) = queues[queue].front() else { continue };
        let there = in_front.entry(line).or_default();
        there.push(queue);
        if there.len() == in_all[line] {
            let there = std::mem::take(there);
            there.iter().for_each(|queue| _ = queues[*queue].pop_front());
            look.extend(there);
        }
    }
    let heads: Vec<_> = queues.iter().map(|queue| queue.front()).collect();
    if heads.iter().any(Option::is_some) {
        return Err(format!("no one order: what each server hears next is {heads:?}"));
    }
    Ok(())
}

/// Nobody has heard anything that the others have not: the same lines, all of them, in one order.
pub fn same(witnesses: &[Witness<'_>]) -> Result<(), String> {
    let lines = |it: &Witness<'_>| it.heard.iter().map(|it| it.line.to_owned()).collect::<Vec<_>>();
    let first = lines(&witnesses[0]);
    for other in &witnesses[1..] {
        let these = lines(other);
        let (one, other) = (witnesses[0].server, other.server);
        if let Some(at) = first.iter().zip(&these).position(|(this, that)| this != that) {
            let (this, that) = (&first[at], &these[at]);
            return Err(format!("line {at} is {this:?} at server {one}, {that:?} at {other}"));
        }
        if first.len() != these.len() {
            let (this, that) = (first.len(), these.len());
            return Err(format!("{this} lines at server {one}, {that} at {other}"));
        }
    }
    Ok(())
}

mod tests {
    use super::*;

    const ARRIVED: u32 = 0;

    #[test]
    fn who_comes_later_hears_the_rest_but_for_its_own_arrival() {
        let all = [1, ARRIVED, 2, ARRIVED, 3, 4, 5];
        let is = |heard: &[u32]| is_rest(&all, heard, ARRIVED, 5);
        for right in [&all[..], &[2, ARRIVED, 3, 4, 5], &[2, 3, 4, 5], &[ARRIVED, 2, 3, 4, 5], &[]]
        {
            assert_eq!(is(right), Ok(()), "{right:?}");
        }
        for wrong in [
            &[2, 3, 5, 4][..],
            &[2, 3, 4, 4, 5],
            &[2, 3, 5],
            &[2, 3, 4],
            &[3, 4, 5, 6],
            &[1, 2, 3, 4, 5],
            &[9, 1, ARRIVED, 2, ARRIVED, 3, 4, 5],
        ] {
            assert!(is(wrong).is_err(), "{wrong:?}");
        }
        // From `settled` on an arrival that was not told of is lost.
        assert!(is_rest(&[1, 2, ARRIVED, 3], &[2, 3], ARRIVED, 2).is_err());
    }

    fn witness<'t>(server: usize, lines: &[&'t str]) -> Witness<'t> {
        let at = |place: usize| Duration::from_secs(10 * place as u64);
        let heard = lines.iter().enumerate();
        let heard = heard.map(|(place, line)| Heard { at: at(place), line }).collect();
        Witness { server, stayed: true, heard, who: Default::default() }
    }

    const A: &str = "s0-1 says: 1";
    const B: &str = "s0-1 says: 2";
    const X: &str = "s1-1 says: 1";
    const Y: &str = "s1-1 says: 2";

    /// Two lines of each of two servers were said.
    fn outcome(one: &[&str], other: &[&str]) -> Result<(), String> {
        let said = BTreeMap::from([("s0-1", 2), ("s1-1", 2)]);
        judge(&[witness(0, one), witness(1, other)], &said)
    }

    #[test]
    fn a_line_heard_twice_lost_or_elsewhere_in_the_order_is_noticed() {
        assert_eq!(outcome(&[A, X, B, Y], &[A, X, B, Y]), Ok(()));
        let wrong = |one: &[&str], other: &[&str], why: &str| {
            let told = outcome(one, other).unwrap_err();
            assert!(told.contains(why), "{told}");
        };
        wrong(&[A, X, A, B, Y], &[A, X, B, Y], "behind number 1");
        wrong(&[A, X, B, B, Y], &[A, X, B, Y], "behind number 2");
        wrong(&[B, X, A, Y], &[A, X, B, Y], "behind number 2");
        wrong(&[A, X, B], &[A, X, B, Y], "never heard");
        wrong(&[A, B, Y], &[A, X, B, Y], "never heard");
        wrong(&[A, X, Y], &[A, X, B, Y], "it was said here");
        wrong(&[X, A, B, Y], &[A, X, B, Y], "no one order");
        wrong(&[A, X, B, Y, "s1-1 says: 3"], &[A, X, B, Y], "has not said 3");
        wrong(&[A, X, B, Y, "s1-2 says: 1"], &[A, X, B, Y], "has said nothing");
        wrong(&[A, X, B, Y, "s1-1 says:"], &[A, X, B, Y], "nothing that is said");
    }

    #[test]
    fn three_orders_that_agree_in_pairs_only_are_noticed() {
        let (one, two, three) = ("s0-1 says: 1", "s1-1 says: 1", "s2-1 says: 1");
        let pairs = [witness(0, &[one, two]), witness(1, &[two, three]), witness(2, &[three, one])];
        assert!(is_one_order(&pairs).is_err());
        assert_eq!(is_one_order(&pairs[..2]), Ok(()));
    }

    #[test]
    fn what_is_missing_must_be_told() {
        assert_eq!(outcome(&[A, X, MISSING, B], &[A, X, B, Y]), Ok(()));
        assert_eq!(outcome(&[A, MISSING, B, Y], &[A, X, B, Y]), Ok(()));
        assert!(outcome(&[A, B, Y, MISSING], &[A, X, B, Y]).is_err(), "too late");
        let cut = [A, X, CUT_OFF, Y, WHOLE, B];
        assert_eq!(outcome(&[A, X, B, "1 line was said elsewhere meanwhile."], &cut), Ok(()));
        assert!(outcome(&[A, X, B, "2 lines were said elsewhere meanwhile."], &cut).is_err());
        assert!(outcome(&[A, X, B], &cut).is_err());
        assert!(outcome(&[A, X, B, Y], &[A, CUT_OFF, X, B, Y, CUT_OFF]).is_err());
        assert!(outcome(&[A, X, B, Y], &[A, X, B, Y, WHOLE]).is_err());
        // What was under way at a cut-off was heard at home at another place.
        assert_eq!(outcome(&[A, X, Y, B], &[A, X, CUT_OFF, Y, WHOLE, B]), Ok(()));
        assert_eq!(outcome(&[A, X, B, Y], &[A, X, CUT_OFF, Y, WHOLE, B]), Ok(()));
    }

    #[test]
    fn who_comes_and_leaves_does_so_once() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let outcome = |lines: &[&str], before: &[&str], after: &[&str]| {
            let mut witness = witness(0, lines);
            witness.who = [names(before), names(after)];
            judge(&[witness], &BTreeMap::new())
        };
        let (comes, leaves) = ("s1-1 is in the room.", "s1-1 has left the room.");
        assert_eq!(outcome(&[comes, leaves, comes], &[], &["s1-1"]), Ok(()));
        assert_eq!(outcome(&[leaves], &["s1-1", "s0-1"], &["s0-1"]), Ok(()));
        assert!(outcome(&[comes, leaves, leaves], &[], &[]).is_err());
        assert!(outcome(&[comes], &["s1-1"], &["s1-1"]).is_err());
        assert!(outcome(&[leaves], &[], &[]).is_err());
        assert!(outcome(&[], &["s1-1"], &[]).is_err());
    }

    #[test]
    fn a_dead_servers_last_lines_may_be_nobodys() {
        let said = BTreeMap::from([("s2-1", 3)]);
        let mut dead = witness(2, &["s2-1 says: 1", "s2-1 says: 2"]);
        dead.stayed = false;
        let lines = ["s2-1 says: 1", "s2-1 says: 2"];
        let judged = |one: &[&str], other: &[&str], dead: Witness<'_>| {
            judge(&[witness(0, one), witness(1, other), dead], &said)
        };
        assert!(judged(&lines, &lines[..1], witness(2, &lines)).is_err());
        let dead_again = Witness { who: Default::default(), heard: dead.heard.clone(), ..dead };
        assert_eq!(judged(&lines, &lines, dead), Ok(()));
        // What one of those who stayed has heard, the other has heard.
        assert!(judged(&lines, &lines[..1], dead_again).is_err());
    }
}
