//! Many clients, or one that is in the way of others.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::super::client::{self, Client, Silence, Unsent};
use super::super::lab::{Finding, Judged, Lab, Verdict, note, pass, unconnected};
use super::super::talk::{RESET, Talk, together};
use super::lines::mib;
use super::{GROWTH, NO_USUAL, NOTHING_TO_SEND};
use crate::cli::protocol::{Script, shown};

const CROWD: usize = 100;
const SILENT: usize = 20;
const CHURN: usize = 200;
const RESETS: usize = 10;
/// What a flooding client sends at once.
const BATCH: usize = 16 * 1024;
const FLOOD: Duration = Duration::from_millis(1500);
/// How long a server may take nothing before it counts as one that will take no more.
const HELD_BACK: Duration = Duration::from_secs(1);
/// A client that is owed this much has asked for enough.
const OWED: usize = 96 << 20;
/// So much was not kept by the kernel, of a server that has a receiver with a small buffer.
const KEPT: usize = 16 << 20;
/// So many bytes are sent between two looks at the memory.
const LOOK: usize = 1 << 20;
/// Descriptors that a server may have more than before.
const SPARE: usize = 5;

pub(super) fn at_once(lab: &Lab) -> Judged {
    let Some(script) = lab.usual() else { return note(NO_USUAL) };
    let (clients, refused) = connect_all(lab);
    let talks = clients.into_iter().map(|client| Talk::greeting_over(lab, client));
    let mut talks: Vec<_> = talks.collect();
    let judged = match refused {
        Some(finding) => Err(not_all(talks.len(), "a connection", Some(finding))),
        None => talk_together(lab, script, &mut talks),
    };
    client::leave(talks.into_iter().map(|talk| talk.client).collect());
    judged
}

fn talk_together<'l>(lab: &'l Lab, script: &'l Script, talks: &mut [Talk<'l>]) -> Judged {
    let (greeted, wrong) = together(talks, silence(lab));
    if greeted < CROWD {
        return Err(not_all(greeted, "the greeting", wrong));
    }
    talks.iter_mut().for_each(|talk| talk.begin_round(script));
    let (served, wrong) = together(talks, silence(lab));
    if served < CROWD {
        return Err(not_all(served, "its replies", wrong));
    }
    pass(format!("{CROWD} of {CROWD} served while all were connected"))
}

fn not_all(served: usize, what: &str, finding: Option<Finding>) -> Finding {
    let (sent, came) = finding.map_or_else(Default::default, |it| (it.sent, it.came));
    let of = match served {
        0 => "none of them".to_owned(),
        1 => "one of them, one at a time".to_owned(),
        served => format!("{served} of them"),
    };
    Finding {
        sent: format!("{CROWD} connects, and none leaves; the next: {sent}"),
        expected: format!("for each: {what}"),
        came: format!("that for {of}; for the next: {came}"),
    }
}

/// How long all may wait for one of them. A connect that found the server's queue full is tried again after one
/// second, two, and four.
fn silence(lab: &Lab) -> Silence {
    Silence::new(2 * lab.patience, lab.deadline)
}

/// All at the same time: where the server's queue is short, they wait together and not one after the other.
fn connect_all(lab: &Lab) -> (Vec<Client>, Option<Finding>) {
    let mut silence = silence(lab);
    let (mut connected, mut refused) = (Vec::new(), None);
    let mut dialling: Vec<_> = (0..CROWD).map(|_| Client::dial(lab.address)).collect();
    loop {
        let before = connected.len();
        for client in std::mem::take(&mut dialling) {
            match client.and_then(|client| Ok((client.is_connected()?, client))) {
                Ok((true, client)) => connected.push(client),
                Ok((false, client)) => dialling.push(Ok(client)),
                Err(error) => refused = refused.or_else(|| Some(unconnected(error))),
            }
        }
        if connected.len() > before {
            silence.restart();
        }
        let waiting: Vec<_> = dialling.iter().flatten().collect();
        if waiting.is_empty() || !silence.wait(&waiting, PollFlags::OUT) {
            break;
        }
    }
    for client in dialling.into_iter().flatten() {
        refused = refused.or_else(|| Some(unconnected(ErrorKind::TimedOut.into())));
        // There is nobody to say goodbye to.
        client.reset();
    }
    (connected, refused)
}

pub(super) fn silent(lab: &Lab) -> Judged {
    let mut crowd = Vec::new();
    for _ in 0..SILENT {
        crowd.push(lab.connect()?);
    }
    let served = lab.serves_after(&format!("{SILENT} clients that say nothing and stay"));
    client::leave(crowd);
    served?;
    pass(format!("a client is served beside {SILENT} of them"))
}

pub(super) fn slow_reader(lab: &Lab) -> Judged {
    let (Some(script), Some((batch, owed))) = (lab.usual(), batch(lab)) else {
        return note(NOTHING_TO_SEND);
    };
    let before = lab.memory();
    let mut slow = lab.connect_narrow()?;
    let over = lab.within(4 * lab.patience);
    let (mut sent, mut unread, mut looked) = (0, 0, 0);
    let outcome = loop {
        if sent >= looked + LOOK {
            looked = sent;
            if grown(lab, before) >= Some(4 * GROWTH) {
                break None;
            }
        }
        if unread >= OWED || Instant::now() > over {
            break None;
        }
        match slow.send(&batch, lab.within(HELD_BACK)) {
            Ok(()) => (sent, unread) = (sent + batch.len(), unread + owed),
            Err((more, why)) => {
                sent += more;
                break Some(why);
            }
        }
    };
    let grown = grown(lab, before);
    let done = format!("a client that asked for {} and reads nothing", mib(unread as u64));
    let served = lab.serves_after(&done);
    // Only what comes now can say where the replies were, if nobody looked at the memory.
    let times = if outcome.is_none() && grown.is_none() { 3 } else { 1 };
    let kept = slow.leave(lab.within(times * lab.patience));
    served?;
    let growth = grown.map_or(String::new(), |grown| format!(", {} more memory", mib(grown)));
    let read = format!("{} of its requests{growth}", mib(sent as u64));
    let verdict = match (outcome, grown) {
        (Some(Unsent::Stuck), _) => return pass(format!("held back after {read}")),
        (Some(Unsent::Broken(_)), _) => return pass(format!("let go after {read}")),
        // Its memory has grown with what it owes.
        (None, Some(grown)) if grown >= GROWTH && grown >= unread as u64 / 2 => {
            format!("{} more memory", mib(grown))
        }
        (None, Some(_)) if unread as u64 >= 4 * GROWTH => return pass(format!("read {read}")),
        (None, None) if kept >= KEPT => {
            format!("more than {} of replies in its memory", mib(kept as u64))
        }
        (None, Some(_)) => return note(format!("it had read {read} when the time was over")),
        (None, None) => {
            return note(format!(
                "it had read {read} when the time was over; with --server-pid or --run one sees whether its \
                 memory grows"
            ));
        }
    };
    Err(Finding {
        sent: format!("{}, as {}", mib(sent as u64), shown(&script_bytes(lab, script))),
        expected: "at some point no more is read, or the connection is ended".to_owned(),
        came: format!("it reads on and on: {verdict}"),
    })
}

fn grown(lab: &Lab, before: Option<u64>) -> Option<u64> {
    Some(lab.memory()?.saturating_sub(before?))
}

fn script_bytes(lab: &Lab, script: &Script) -> Vec<u8> {
    script.ahead(1, 1, lab.protocol.line_end).unwrap_or_default()
}

/// Many rounds at once, and at least how many bytes of replies they are owed. They are all of one
/// client and of the same round.
fn batch(lab: &Lab) -> Option<(Vec<u8>, usize)> {
    let one = lab.rounds(1, 1)?;
    let count = BATCH.div_ceil(one.len());
    Some((one.repeat(count), lab.usual()?.least_reply() * count))
}

pub(super) fn flood(lab: &Lab) -> Judged {
    let (Some(script), Some((batch, _))) = (lab.usual(), batch(lab)) else {
        return note(NOTHING_TO_SEND);
    };
    let flooder = lab.connect()?;
    let (over, patience, deadline) = (AtomicBool::new(false), lab.patience, lab.deadline);
    let soon = || (Instant::now() + patience).min(deadline);
    thread::scope(|scope| {
        let flood = || flood_until(flooder, &batch, &over, soon);
        if let Err(error) = thread::Builder::new().spawn_scoped(scope, flood) {
            return note(format!("not tried: no thread for the flood ({error})"));
        }
        let judged = beside(lab, script);
        over.store(true, Relaxed);
        judged
    })
}

/// Sends and reads as fast as it can.
fn flood_until(mut flooder: Client, batch: &[u8], over: &AtomicBool, soon: impl Fn() -> Instant) {
    let mut rest = batch;
    while !over.load(Relaxed) {
        if flooder.discard().is_none() {
            return;
        }
        match flooder.send(rest, Instant::now() + Duration::from_millis(1)) {
            Ok(()) => rest = batch,
            Err((sent, Unsent::Stuck)) => rest = &rest[sent..],
            Err((_, Unsent::Broken(_))) => return,
        }
    }
    flooder.leave(soon());
}

/// A quiet client beside a flood: it comes, and asks now and then.
fn beside(lab: &Lab, script: &Script) -> Judged {
    let over = lab.within(FLOOD);
    let flooded =
        |finding: Finding| finding.after("a client that asks as fast as it can; a quiet one");
    let mut talk = Talk::begin(lab, script).map_err(flooded)?;
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    loop {
        let begun = Instant::now();
        if let Err(finding) = talk.finish(lab.soon()) {
            // What the flood says in a room is told to the quiet one, too.
            if lab.protocol.ignores_lines() && finding.came == RESET {
                return note(
                    "the quiet one was let go, as it did not read as fast as the other spoke",
                );
            }
            return Err(flooded(finding));
        }
        longest = longest.max(begun.elapsed());
        rounds += 1;
        if Instant::now() > over {
            return pass(format!("the quiet one waited {longest:.0?} at most, in {rounds} rounds"));
        }
        // In a room, who does not read for a moment is behind by what the flood has said.
        if !lab.protocol.ignores_lines() {
            thread::sleep(Duration::from_millis(10));
        }
        talk.begin_round(script);
    }
}

pub(super) fn reset(lab: &Lab) -> Judged {
    let Some((batch, _)) = batch(lab) else { return note(NOTHING_TO_SEND) };
    let half = lab.rounds(1, 1).map_or(0, |one| one.len() / 2);
    for number in 0..2 * RESETS {
        let greeted = Talk::greeting(lab).and_then(|mut talk| {
            talk.finish(lab.soon())?;
            Ok(talk)
        });
        let after = |finding: Finding| {
            finding.after(&format!("{number} of {} clients that reset; a new one", 2 * RESETS))
        };
        let mut talk = greeted.map_err(after)?;
        let bytes = if number % 2 == 0 { &batch[..half] } else { &batch[..] };
        // It may be stuck, since it reads nothing.
        let _ = talk.client.send(bytes, lab.within(HELD_BACK));
        talk.client.reset();
    }
    lab.serves_after(&format!("{} clients that reset their connections", 2 * RESETS))?;
    pass(format!("a new client is served after {} of them", 2 * RESETS))
}

pub(super) fn churn(lab: &Lab) -> Judged {
    let Some(script) = lab.usual() else { return note(NO_USUAL) };
    let before = lab.descriptors();
    let over = lab.within(3 * lab.patience);
    let mut visits = 0;
    while visits < CHURN && Instant::now() < over {
        let visit = Talk::begin(lab, script).and_then(|mut talk| talk.finish(lab.soon()));
        visit.map_err(|finding| finding.after(&format!("{visits} visits, one after the other")))?;
        visits += 1;
    }
    let Some((before, mut after)) = before.zip(lab.descriptors()) else {
        return pass(format!("{visits} visits"));
    };
    // It notices the last ones in a moment.
    let until = lab.soon();
    while after > before + SPARE && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        after = lab.descriptors().unwrap_or(before);
    }
    if after > before + SPARE {
        return Ok(Verdict::Fail(Finding {
            sent: format!("{visits} visits, one after the other, all of them over"),
            expected: format!("about {before} open descriptors, as before"),
            came: format!("{after} open descriptors"),
        }));
    }
    pass(format!("{visits} visits; {before} descriptors before, {after} after"))
}
