//! One client, and how it writes.

use std::time::{Duration, Instant};

use super::super::client::Unsent;
use super::super::lab::{Finding, Judged, Lab, Verdict, note, pass};
use super::super::talk::{Manner, Talk};
use super::{GROWTH, NOTHING_TO_SEND};
use crate::cli::protocol::{Script, shown};

/// How long it is watched whether a server says more than it should.
const QUIET: Duration = Duration::from_millis(100);
/// Requests in one segment, as far as they fit.
const AT_ONCE: u64 = 100;
/// What any socket takes at once.
const SEGMENT: usize = 32 * 1024;
const ENDLESS: usize = 16 << 20;
/// How long a server may take nothing before it counts as one that will take no more. A collection of
/// garbage on a busy machine is shorter.
const HELD_BACK: Duration = Duration::from_secs(2);

pub(super) fn greeting(lab: &Lab) -> Judged {
    let mut talk = Talk::greeting(lab)?;
    let begun = Instant::now();
    talk.finish(lab.soon())?;
    let took = begun.elapsed().as_millis();
    talk.expect_quiet(lab.within(QUIET))?;
    pass(match lab.protocol.greeting_lines() {
        0 => "none, as it should be".to_owned(),
        1 => format!("1 line after {took} ms"),
        lines => format!("{lines} lines after {took} ms"),
    })
}

/// A dialogue of the protocol.
pub(in crate::cli::check) fn dialogue(lab: &Lab, script: &Script) -> Judged {
    let mut talk = Talk::begin(lab, script)?;
    talk.finish(lab.soon())?;
    if script.goes_on() {
        talk.expect_quiet(lab.within(QUIET))?;
    }
    let (sent, expected) = script.lines();
    pass(format!("{sent} sent, {expected} right"))
}

pub(super) fn split(lab: &Lab) -> Judged {
    let Some(script) = lab.usual().filter(|script| script.lines().0 > 0) else {
        return note("not tried: the first dialogue sends nothing");
    };
    let mut talk = Talk::begin(lab, script)?;
    talk.set_manner(Manner::ByteByByte);
    talk.finish(lab.soon())?;
    talk.expect_quiet(lab.within(QUIET))?;
    pass("each byte came by itself")
}

pub(super) fn segment(lab: &Lab) -> Judged {
    let (Some(script), Some(one)) = (lab.usual(), lab.rounds(1, 1)) else {
        return note(NOTHING_TO_SEND);
    };
    let rounds = (SEGMENT / (one.len() + 8)).clamp(2, AT_ONCE as usize) as u64;
    let mut talk = ahead(lab, script, rounds, |bytes| bytes)?;
    talk.has_sent(format!("{rounds} requests at once, as {}", shown(&first(lab, &talk))));
    finish_rounds(&mut talk, lab, script, rounds)?;
    pass(format!("{rounds} requests, {rounds} replies"))
}

pub(super) fn other_line_end(lab: &Lab) -> Judged {
    let Some(script) = lab.usual().filter(|script| script.lines().0 > 0) else {
        return note("not tried: the first dialogue sends nothing");
    };
    let mut talk = Talk::begin(lab, script)?;
    talk.set_line_end(lab.other_line_end());
    talk.finish(lab.soon())?;
    pass("taken as well")
}

pub(super) fn last_line(lab: &Lab) -> Judged {
    let (Some(script), Some(_)) = (lab.usual(), lab.rounds(1, 1)) else {
        return note(NOTHING_TO_SEND);
    };
    let end = lab.protocol.line_end.bytes();
    let without = |bytes: Vec<u8>| bytes.strip_suffix(end).map_or(bytes.clone(), <[u8]>::to_vec);
    let mut talk = ahead(lab, script, 1, without)?;
    talk.client.end();
    talk.has_sent(format!("{}, and the end", shown(&without(first(lab, &talk)))));
    finish_rounds(&mut talk, lab, script, 1)?;
    talk.expect_end(lab.soon())?;
    pass("answered, and the connection ended")
}

pub(super) fn half_close(lab: &Lab) -> Judged {
    let (Some(script), Some(_)) = (lab.usual(), lab.rounds(1, 1)) else {
        return note(NOTHING_TO_SEND);
    };
    let mut talk = ahead(lab, script, 1, |bytes| bytes)?;
    talk.client.end();
    talk.has_sent(format!("{}, and the end", shown(&first(lab, &talk))));
    finish_rounds(&mut talk, lab, script, 1)?;
    talk.expect_end(lab.soon())?;
    pass("answered, and the connection ended")
}

/// What it sends in its first round.
fn first(lab: &Lab, talk: &Talk<'_>) -> Vec<u8> {
    lab.rounds(talk.number, 1).unwrap_or_default()
}

/// Is greeted, and sends so many rounds at once, changed as wanted.
fn ahead<'l>(
    lab: &'l Lab,
    script: &'l Script,
    rounds: u64,
    change: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Result<Talk<'l>, Finding> {
    let mut talk = Talk::begin(lab, script)?;
    // Whoever is greeted first has nothing to send yet.
    talk.set_manner(Manner::Sent);
    talk.greeted(lab.soon())?;
    let bytes = change(lab.rounds(talk.number, rounds).unwrap_or_default());
    talk.put(&bytes, lab.soon())?;
    Ok(talk)
}

fn finish_rounds<'l>(
    talk: &mut Talk<'l>,
    lab: &'l Lab,
    script: &'l Script,
    rounds: u64,
) -> Result<(), Finding> {
    let until = lab.soon();
    talk.finish(until)?;
    for _ in 1..rounds {
        talk.begin_round(script);
        talk.finish(until)?;
    }
    Ok(())
}

const GARBAGE: &[u8] =
    b"\xff\xfe\x00caf\xe9 \xc3\n\0\0\0\n\x1b[2J\x07\r\r\n\xff\xfb\x1f\xff\xf0\n\xed\xa0\x80\xf8";

pub(super) fn garbage(lab: &Lab) -> Judged {
    for ends in [true, false] {
        let mut talk = Talk::greeting(lab)?;
        talk.finish(lab.soon())?;
        // It may be let go in the middle of it.
        let _ = talk.client.send(GARBAGE, lab.soon());
        if ends {
            talk.client.end();
        }
        talk.client.listen(lab.within(QUIET));
    }
    lab.serves_after(&format!("two clients that sent {}", shown(GARBAGE)))?;
    pass("a new client is served as before")
}

pub(super) fn endless(lab: &Lab) -> Judged {
    let before = lab.memory();
    let mut talk = Talk::greeting(lab)?;
    talk.finish(lab.soon())?;
    let piece = [b'x'; 64 * 1024];
    let over = lab.within(2 * lab.patience);
    let mut sent = 0;
    let outcome = loop {
        if sent >= ENDLESS || Instant::now() > over {
            break None;
        }
        match talk.client.send(&piece, lab.within(HELD_BACK)) {
            Ok(()) => sent += piece.len(),
            Err((more, why)) => {
                sent += more;
                break Some(why);
            }
        }
        // A farewell would hold it up.
        if talk.client.discard().is_none() {
            break Some(Unsent::Broken(std::io::ErrorKind::ConnectionReset.into()));
        }
    };
    // What is on the way arrives.
    talk.client.listen(lab.within(QUIET));
    let grown = lab.memory().zip(before).map(|(after, before)| after.saturating_sub(before));
    talk.client.leave(lab.soon());
    lab.serves_after(&format!("a client that sent {} without a line end", mib(sent as u64)))?;
    let verdict = match (outcome, grown) {
        (Some(Unsent::Broken(_)), _) => {
            format!("its connection was ended after {}", mib(sent as u64))
        }
        (Some(Unsent::Stuck), _) => {
            format!("it was read up to {} and no further", mib(sent as u64))
        }
        (None, Some(grown)) if grown >= GROWTH => {
            return Ok(Verdict::Fail(Finding {
                sent: format!("{} without a line end", mib(sent as u64)),
                expected: "the end of the connection, or no more memory than before".to_owned(),
                came: format!("{} more memory", mib(grown)),
            }));
        }
        (None, Some(grown)) => format!("{} read, {} more memory", mib(sent as u64), mib(grown)),
        (None, None) => {
            return note(format!(
                "it took all {}; with --server-pid or --run one sees whether its memory grows",
                mib(sent as u64)
            ));
        }
    };
    pass(verdict)
}

/// Bytes for people.
pub(super) fn mib(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
