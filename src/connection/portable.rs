//! What of an open connection another process goes on with, written down and read again.
//!
//! Moments are written as ages and as time that is left, so that the time in between counts for nobody. All
//! that the loop derives is left out: the deadline, the lists, and what the selector says of a socket anew. The
//! timers are the handler's, which sets them again.
//!
//! All types are taken apart here without `..`, and each flag has its line: who adds one decides what
//! becomes of it.

use super::ConnId;
use super::block::Block;
use super::clock::Nanos;
use super::connection::{Connection, Extras, Stage, StreamTraits};
use super::encoding::{Decoder, Encoder, Unreadable};
use super::flags::Flag;
use super::input::Input;
use super::output::{Arena, Output};
use super::peer_address::PeerAddress;
use super::rate::Paid;

/// What becomes of a flag that is set.
enum Fate {
    /// It is written down as this bit, whatever its place in memory is.
    Goes(u32),
    /// It is found out again.
    Derived,
    /// A connection that has it goes nowhere.
    Stays,
}

impl Flag {
    fn fate(self) -> Fate {
        match self {
            Flag::Eof => Fate::Goes(0),
            Flag::Paused => Fate::Goes(1),
            Flag::Throttled => Fate::Goes(2),
            Flag::Held => Fate::Goes(3),
            Flag::InBlock => Fate::Goes(4),
            Flag::Finished => Fate::Goes(5),
            Flag::Drain => Fate::Goes(6),
            Flag::EofTold => Fate::Goes(7),
            // A selector tells of what holds as soon as the socket is registered with it, and the flush finds
            // out whether the kernel takes output.
            Flag::Readable | Flag::ReadOn | Flag::Broken | Flag::Blocked => Fate::Derived,
            // Every connection that goes is open.
            Flag::Open => Fate::Derived,
            Flag::Queued | Flag::Dirty => Fate::Derived,
            // Nobody could answer who is waited for.
            Flag::Asked | Flag::Ahead => Fate::Stays,
            // Nothing more reaches its peer, or nothing more of it is handled.
            Flag::Gone | Flag::Overlong | Flag::Ending => Fate::Stays,
            Flag::Failed | Flag::Arrived | Flag::Handshaking | Flag::Unjudged => Fate::Stays,
            Flag::Outbound | Flag::Descriptors => Fate::Stays,
        }
    }
}

impl Connection {
    /// Whether it is in a state that another process can go on with.
    pub(crate) fn is_portable(&self) -> bool {
        let stays = |flag: &Flag| self.flags.has(*flag) && matches!(flag.fate(), Fate::Stays);
        self.stage == Stage::Open && !Flag::ALL.iter().any(stays)
    }

    /// Writes it down. The arena has what was sent since the last flush.
    pub(crate) fn save(&self, arena: &Arena, now: Nanos, to: &mut Encoder) {
        let Connection {
            id,
            peer,
            input,
            output,
            others,
            active,
            deadline: _,
            extras,
            stage: _,
            reason: _,
            flags,
        } = self;
        let none = Extras::default();
        let Extras {
            timers: _,
            over_soft,
            paid,
            place: _,
            resumes: _,
            left: _,
            error: _,
            lost: _,
            block,
        } = extras.as_deref().unwrap_or(&none);
        to.put_number(id.to_bits());
        peer.save(to);
        input.save(now, to);
        output.save(arena, to);
        to.put_number(u64::from(*others));
        to.put_age(*active, now);
        to.put_option((*over_soft != 0).then_some(*over_soft), |to, since| to.put_age(since, now));
        paid.save(now, to);
        let block = block.as_ref().filter(|_| flags.has(Flag::InBlock));
        to.put_option(block, |to, block| block.save(now, to));
        let bit = |flag: &Flag| match flag.fate() {
            Fate::Goes(bit) if flags.has(*flag) => 1 << bit,
            _ => 0,
        };
        to.put_number(Flag::ALL.iter().map(bit).sum());
    }

    /// Reads what [`save`](Self::save) has written. Nothing is armed or listed.
    pub(crate) fn restore(from: &mut Decoder<'_>, now: Nanos) -> Result<Connection, Unreadable> {
        let id = ConnId::from_bits(from.number()?);
        let mut conn = Connection::new(id, StreamTraits::default(), now);
        conn.stage = Stage::Open;
        conn.peer = PeerAddress::restore(from)?;
        conn.input = Input::restore(from, now)?;
        conn.output = Output::restore(from)?;
        conn.others = u32::try_from(from.number()?).map_err(|_| Unreadable("more than unsent"))?;
        conn.active = from.since(now)?;
        let over_soft = from.option(|from| from.since(now))?.unwrap_or(0);
        let paid = Paid::restore(from, now)?;
        let block = from.option(|from| Block::restore(from, now))?;
        if over_soft != 0 || paid != Paid::default() || block.is_some() {
            let in_block = block.is_some();
            conn.extras = Some(Box::new(Extras { over_soft, paid, block, ..Extras::default() }));
            conn.flags.set(Flag::InBlock, in_block);
        }
        let mut bits = from.number()?;
        for flag in Flag::ALL {
            if let Fate::Goes(bit) = flag.fate()
                && bits & 1 << bit != 0
            {
                bits &= !(1 << bit);
                if matches!(flag, Flag::InBlock) && !conn.flags.has(Flag::InBlock) {
                    return Err(Unreadable("a block without an end"));
                }
                conn.flags.set(*flag, true);
            }
        }
        if bits != 0 {
            return Err(Unreadable("an unknown flag"));
        }
        conn.flags.set(Flag::Open, true);
        // As one that is woken: it finds out anew whether its rates allow something.
        if conn.stop_waiting(Flag::Throttled, now) {
            conn.active = now;
        }
        Ok(conn)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connection::CloseReason;
    use crate::connection::input::{Offer, Scratch};
    use crate::limits::{Limits, Rate, Rates};

    /// What is in a connection, none of it left out.
    fn contents(conn: &Connection, arena: &Arena, now: Nanos) -> Vec<String> {
        let Connection {
            id,
            peer,
            input,
            output,
            others,
            active,
            deadline,
            extras,
            stage,
            reason,
            flags,
        } = conn;
        let [mut ins, mut outs, mut block_left] = [(); 3].map(|()| Encoder::default());
        input.save(now, &mut ins);
        output.save(arena, &mut outs);
        let none = Extras::default();
        let Extras { timers, over_soft, paid, place, resumes, left, error, lost, block } =
            extras.as_deref().unwrap_or(&none);
        if let Some(block) = block {
            block.save(now, &mut block_left);
        }
        let age = |since: Nanos| if since == 0 { -1 } else { (now - since) as i64 };
        let mut owed = Encoder::default();
        paid.save(now, &mut owed);
        let set: Vec<_> = Flag::ALL.iter().filter(|flag| flags.has(**flag)).collect();
        vec![
            format!("{id} {:?} {stage:?} {reason:?} {deadline}", peer.get()),
            format!("{ins:?}"),
            format!("{outs:?}"),
            format!("{others} {} {} {owed:?} {block_left:?}", age(*active), age(*over_soft)),
            format!("{timers:?} {place} {resumes:?} {left} {error:?} {lost}"),
            format!("{set:?}"),
        ]
    }

    /// A connection in which every field that goes says something.
    fn full(now: Nanos) -> Connection {
        let mut conn = Connection::new(ConnId::new(77, 3), StreamTraits::default(), 1);
        conn.stage = Stage::Open;
        conn.peer = Some("[fe80::1%3]:9".parse().unwrap()).into();
        let (mut scratch, mut from) = (Scratch::default(), &b"taken and kept"[..]);
        let (_, offer) = conn.input.read(&mut from, &mut scratch, 99).unwrap();
        conn.input.give_back(offer.unwrap(), &scratch, 6, true, true, now - 5);
        let mut arena = Arena::default();
        arena.put(b"unsent");
        conn.output.push_since(&arena, 0);
        conn.output.keep(&arena);
        conn.others = 4;
        conn.active = now - 7;
        conn.begin_block(99, now - 9);
        let rate = Rates { lines: Some(Rate { per_second: 1, burst: 1 }), bytes: None };
        let share = crate::connection::rate::Share { lines: 3, bytes: 0 };
        let extras = conn.extras();
        extras.over_soft = now - 11;
        rate.spend(&mut extras.paid, share, now);
        conn
    }

    fn passed(conn: &Connection, arena: &Arena, then: Nanos, now: Nanos) -> Connection {
        let mut saved = Encoder::default();
        conn.save(arena, then, &mut saved);
        for end in 0..saved.as_bytes().len() {
            let cut = Connection::restore(&mut Decoder::new(&saved.as_bytes()[..end]), now);
            assert!(cut.is_err(), "cut at {end}");
        }
        let mut from = Decoder::new(saved.as_bytes());
        let conn = Connection::restore(&mut from, now).unwrap();
        from.finish().unwrap();
        conn
    }

    #[test]
    fn every_field_that_goes_comes() {
        let (then, now) = (1_000_000, 5_000_000);
        let conn = full(then);
        let mut empty = Connection::new(conn.id, StreamTraits::default(), then);
        empty.stage = Stage::Open;
        let arena = Arena::default();
        let nothing = contents(&empty, &arena, then);
        for flag in
            [Flag::Eof, Flag::Paused, Flag::Held, Flag::Finished, Flag::Drain, Flag::EofTold]
        {
            let mut conn = full(then);
            for flag in [flag, Flag::Open] {
                conn.flags.set(flag, true);
            }
            let wanted = contents(&conn, &arena, then);
            let same = wanted.iter().zip(&nothing).filter(|(one, other)| one == other).count();
            assert_eq!(same, 1, "all but what only an end has: {wanted:?}");
            assert_eq!(contents(&passed(&conn, &arena, then, now), &arena, now), wanted);
        }
    }

    #[test]
    fn what_the_selector_says_and_lists_are_found_out_anew() {
        let mut conn = full(100);
        conn.flags.set(Flag::Open, true);
        let wanted = contents(&conn, &Arena::default(), 100);
        for flag in Flag::ALL.iter().filter(|flag| matches!(flag.fate(), Fate::Derived)) {
            conn.flags.set(*flag, true);
            assert!(conn.is_portable());
        }
        let found = passed(&conn, &Arena::default(), 100, 200);
        assert_eq!(contents(&found, &Arena::default(), 200), wanted);
    }

    #[test]
    fn who_waits_for_a_rate_is_woken() {
        let mut conn = full(100);
        conn.throttle(Some(1_000));
        let found = passed(&conn, &Arena::default(), 100, 200);
        assert!(!found.flags.has(Flag::Throttled) && found.paid().until() > 3_000_000_000);
        assert_eq!((found.active, found.unfinished_since()), (200, Some(200)));
    }

    #[test]
    fn what_others_wait_for_or_what_has_no_peer_stays() {
        let mut conn = full(100);
        assert!(conn.is_portable());
        for flag in Flag::ALL.iter().filter(|flag| matches!(flag.fate(), Fate::Stays)) {
            conn.flags.set(*flag, true);
            assert!(!conn.is_portable(), "{flag:?}");
            conn.flags.set(*flag, false);
        }
        for stage in [Stage::Connecting, Stage::Leaving, Stage::Closing, Stage::Lingering] {
            conn.stage = stage;
            assert!(!conn.is_portable());
        }
    }

    /// Another process may be of another version of this program: what is written down in another way is
    /// another protocol (`reactor/upgrade/over_sockets.rs`).
    #[test]
    fn what_is_written_down_stays_as_it_is() {
        let mut conn = full(1_000_000_000);
        // A port that is the same in either order of bytes.
        conn.peer = Some("192.0.2.1:20560".parse().unwrap()).into();
        conn.flags.set(Flag::Paused, true);
        let mut saved = Encoder::default();
        conn.save(&Arena::default(), 1_000_000_000, &mut saved);
        let hex: String = saved.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let wanted = [
            "000000004d000003",                                 // the id
            "0000000000000004",                                 // an address of IPv4:
            "000000000000001a00000000000000000000ffffc0000201", // 26 bytes of it,
            "50500000000000000000",                             // with the port
            "010000000000000008616e64206b657074",               // input that is kept,
            "01000000000000000005",                             // searched, not hungry, its age
            "0000000000000006756e73656e74",                     // output,
            "0000000000000004",                                 // of which others caused so much
            "0000000000000007",                                 // when something last moved
            "01000000000000000b",                               // too much output since then
            "00000000b2d05e000000000000000000",                 // what is owed of the rates
            "0100000000000000630000000000000009",               // a block: what is left, its age
            "0000000000000012",                                 // the flags
        ];
        assert_eq!(hex, wanted.concat());
    }

    #[test]
    fn no_two_flags_have_the_same_bit() {
        let bits = Flag::ALL.iter().filter_map(|flag| match flag.fate() {
            Fate::Goes(bit) => Some(bit),
            _ => None,
        });
        assert!(bits.eq(0..8), "in the order of their bits");
    }

    proptest! {
        /// What the handler takes and the kernel takes, before and after, is what there was.
        #[test]
        fn no_byte_is_lost_wherever_it_lies(
            come in proptest::collection::vec(any::<u8>(), 1..9_000),
            unsent in proptest::collection::vec(any::<u8>(), 0..300),
            fresh in proptest::collection::vec(any::<u8>(), 0..300),
            taken in 0..9_000_usize,
            kept_twice in any::<bool>(),
            (hungry, searched) in any::<(bool, bool)>(),
        ) {
            let mut conn = Connection::new(ConnId::new(1, 0), StreamTraits::default(), 1);
            (conn.stage, conn.reason) = (Stage::Open, CloseReason::Closed);
            let (mut scratch, mut from, taken) =
                (Scratch::default(), &come[..], taken % come.len());
            let (_, offer) = conn.input.read(&mut from, &mut scratch, come.len()).unwrap();
            conn.input.give_back(offer.unwrap(), &scratch, taken / 2, hungry, searched, 3);
            if kept_twice {
                let offer = conn.input.lend().unwrap();
                conn.input.give_back(offer, &scratch, taken - taken / 2, hungry, searched, 3);
            }
            let taken = if kept_twice { taken } else { taken / 2 };
            let mut arena = Arena::default();
            arena.put(&unsent);
            conn.output.push_since(&arena, 0);
            conn.output.keep(&arena);
            arena.clear();
            arena.put(b"another's");
            let start = arena.len();
            arena.put(&fresh);
            conn.output.push_since(&arena, start);
            let mut conn = passed(&conn, &arena, 10, 20);
            let (known, unfinished) = (conn.input.known(), conn.input.unfinished_since());
            prop_assert_eq!(known, if searched { come.len() - taken } else { 0 });
            prop_assert_eq!(unfinished, hungry.then_some(13));
            let offer = conn.input.lend().unwrap_or(Offer::NOTHING);
            prop_assert_eq!(offer.bytes(&scratch), &come[taken..]);
            let mut sent = Vec::new();
            conn.output.flush(&mut sent, &Arena::default(), usize::MAX, &mut 0).unwrap();
            prop_assert_eq!(sent, [unsent, fresh].concat());
            prop_assert!(conn.has_room(Limits::default().max_output));
        }

        /// Whatever somebody writes, it is refused or it is a connection.
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            place in any::<prop::sample::Index>(),
            change in 1..=255_u8,
        ) {
            let _ = Connection::restore(&mut Decoder::new(&bytes), 7);
            let mut saved = Encoder::default();
            full(100).save(&Arena::default(), 100, &mut saved);
            let mut spoilt = saved.as_bytes().to_vec();
            let place = place.index(spoilt.len());
            spoilt[place] ^= change;
            if let Ok(conn) = Connection::restore(&mut Decoder::new(&spoilt), 7) {
                conn.due(&Limits::default(), None, None);
            }
        }
    }
}
