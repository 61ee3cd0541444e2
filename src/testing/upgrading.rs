use super::Harness;
use super::harness::Loop;
use super::memory_loop::MemoryLoop;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::handler::Handler;
use crate::net::passed::{Passed, Received};
use crate::reactor::service::AnyService;
use crate::reactor::upgrade::{Frozen, Going, Succession, freeze, install, restore};

impl<H: Handler> Harness<H> {
    /// Has a new loop with this handler go on with the service, as another process does after
    /// [`Reactor::hand_on`](crate::Reactor::hand_on): what the handler [saves](Handler::save) is written down
    /// and read again, the clients stay, and time stands still meanwhile. Gives the handler of before.
    ///
    /// It is all or nothing here. A client is in the way that could not go: one that is being dialled, was
    /// dialled or adopted, is in a handshake, speaks through a layer, is closing, or has broken, or any if all
    /// [stay](crate::Saved::stay).
    ///
    /// # Errors
    /// Gives the new handler back if a client is in the way, or if the one handler does not save or the other
    /// one does not restore. Then the old one goes on as if nothing had happened.
    pub fn upgrade(&mut self, handler: H) -> Result<&mut H, H> {
        let (mut new, going) = self.succeeded_by(handler, |_| {})?;
        self.inner.service.leave(Some(going), &mut self.inner.state);
        let peers = std::mem::take(&mut self.inner.wires.peers).into_iter();
        let table = &self.inner.service.table;
        let (stay, go) = peers.partition(|(id, _)| table.get(*id).is_some());
        (self.inner.wires.peers, new.inner.wires.peers) = (stay, go);
        let MemoryLoop { service, state, .. } = &mut new.inner;
        install(&mut [&mut *service], state);
        service.start(state);
        service.tell_restored(state);
        (new.former, new.past) = (std::mem::take(&mut self.former), self.past.clone());
        let old = std::mem::replace(self, new);
        self.former.push(old.inner);
        self.inner.run();
        Ok(&mut self.former.last_mut().expect("it was pushed").service.handler)
    }

    /// As [`upgrade`](Self::upgrade), but the new loop comes to an end when so many thousandths of what the old
    /// one has written have reached it. Says whether it notices, as it must where some are missing.
    #[doc(hidden)]
    pub fn fail_upgrade(&mut self, handler: H, thousandths: usize) -> bool {
        let cut = |parcel: &mut Vec<u8>| parcel.truncate(parcel.len() * thousandths / 1000);
        self.succeeded_by(handler, cut).is_err()
    }

    /// What would go on with this one, if that is what becomes of what this one has written.
    fn succeeded_by(
        &mut self,
        handler: H,
        on_the_way: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(Self, Going), H> {
        let limits = self.inner.service.table.limits.clone();
        let mut new = Harness::unstarted(handler, limits);
        let MemoryLoop { service, state, .. } = &mut self.inner;
        let Frozen { parcel, mut going } = freeze(&mut [&mut *service], state);
        let Some(going) = going.pop().flatten().filter(|it| !self.is_in_the_way(it)) else {
            return Err(new.inner.service.handler);
        };
        let passed = self.inner.service.passed(&going).into_iter();
        let received = passed.filter_map(|passed| match passed {
            Passed::Wire(wire) => Some(Received::Wire(wire)),
            Passed::Socket(_) => None,
        });
        new.listens = self.listens;
        (new.inner.by_hand, new.inner.panics) = (self.inner.by_hand, self.inner.panics);
        new.inner.wires.room = self.inner.wires.room;
        let (from, to) = (&self.inner.state, &mut new.inner.state);
        (to.turn.now, to.time_of_day) = (from.turn.now, from.time_of_day);
        (to.max_total_output, to.max_total_input) = (from.max_total_output, from.max_total_input);
        new.set_accounting(self.inner.service.table.accounts.are_kept());
        new.tell_of_listener();
        let MemoryLoop { service, state, .. } = &mut new.inner;
        let mut reached = parcel.as_bytes().to_vec();
        on_the_way(&mut reached);
        let restored = restore(&reached, received.collect(), &mut [&mut *service], state);
        match restored.as_deref() {
            Ok([one]) if one.refused.is_none() => Ok((new, going)),
            _ => Err(new.inner.service.handler),
        }
    }

    /// Whether somebody could not go whom the handler knows, or is to get to know.
    fn is_in_the_way(&self, going: &Going) -> bool {
        let MemoryLoop { service, state, .. } = &self.inner;
        let mut slots = service.table.connections.iter().map(|(_, slot)| slot);
        let known = |flags: crate::connection::flags::Flags| {
            flags.has(Flag::Open) || flags.has(Flag::Failed)
        };
        let ending = slots.any(|slot| {
            !going.has(slot.conn.id)
                && (known(slot.conn.flags) || slot.conn.stage == Stage::Connecting)
        });
        ending || state.is_ending()
    }

    /// A turn of the loops of before, as long as they have somebody. Says whether one of them worked.
    pub(super) fn turn_former(&mut self) -> bool {
        let mut worked = false;
        self.former.iter_mut().for_each(|one| worked |= one.turn());
        let Harness { inner, former, past, .. } = self;
        former.retain_mut(|one: &mut Loop<H>| {
            let over = one.service.table.connections.is_empty();
            if over {
                past.add(&one.state.counted());
                inner.wires.peers.append(&mut one.wires.peers);
            }
            !over
        });
        worked
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::connection::{ConnId, Decoder, Encoder, Saved, Unreadable};
    use crate::handler::{Context, ServiceContext};
    use crate::limits::{Limits, Rate, Rates};
    use crate::reactor::reports::Inspect;

    /// Says each line back with the number of lines that there were. `BYE` closes, `REST` pauses.
    #[derive(Default)]
    struct Count {
        lines: u64,
        /// The hook that panics.
        panics: &'static str,
    }

    impl Handler for Count {
        type Session = Vec<u8>;
        type Message = ();

        fn on_line(&mut self, cx: &mut Context<'_, Vec<u8>>, line: &[u8]) {
            self.lines += 1;
            cx.session().extend(line);
            match line {
                b"BYE" => cx.close(),
                b"REST" => cx.pause(),
                line => {
                    cx.send([self.lines.to_string().as_bytes(), b" ", line, b"\n"].concat());
                }
            }
        }

        fn save(&self, _cx: &ServiceContext<'_, Vec<u8>>) -> Option<Saved> {
            assert_ne!(self.panics, "save");
            let mut saved = Saved::new(1);
            saved.state().put_number(self.lines);
            match self.panics {
                "nothing" => None,
                "stay" => Some(Saved::stay()),
                _ => Some(saved),
            }
        }

        fn save_session(
            &self,
            _cx: &ServiceContext<'_, Vec<u8>>,
            _id: ConnId,
            session: &Vec<u8>,
            to: &mut Encoder,
        ) {
            assert_ne!(self.panics, "save_session");
            to.put_bytes(session);
        }

        fn restore(&mut self, _: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
            assert_ne!(self.panics, "restore");
            if self.panics == "not all" {
                return Ok(());
            }
            self.lines = from.number()?;
            Ok(())
        }

        fn restore_session(
            &mut self,
            _id: ConnId,
            _version: u32,
            from: &mut Decoder<'_>,
        ) -> Result<Vec<u8>, Unreadable> {
            assert_ne!(self.panics, "restore_session");
            from.bytes().map(<[u8]>::to_vec)
        }

        fn on_restored(&mut self, cx: &mut Context<'_, Vec<u8>>) {
            assert_ne!(self.panics, "on_restored");
            assert!(cx.session().is_ascii());
        }
    }

    fn with_panics(panics: &'static str) -> Count {
        Count { lines: 0, panics }
    }

    #[test]
    fn a_handler_that_panics_or_says_no_stays_where_it_is() {
        for panics in
            ["save", "save_session", "restore", "restore_session", "not all", "nothing", "stay"]
        {
            let mut server = Harness::new(with_panics(panics)).catching_panics();
            let client = server.connect();
            server.feed(client, "one\ntw");
            let (kept, left_over) = (server.kept(), server.left_over());
            assert!(server.upgrade(with_panics(panics)).is_err(), "{panics}");
            assert_eq!((server.kept(), server.left_over()), (kept, left_over));
            server.feed(client, "o\n");
            assert_eq!(server.sent(client), b"1 one\n2 two\n");
            assert_eq!(server.session(client).unwrap(), b"onetwo");
        }
    }

    #[test]
    fn a_panic_when_all_is_decided_is_that_of_one_connection() {
        let mut server = Harness::new(Count::default()).catching_panics();
        let clients = [(); 2].map(|()| server.connect());
        assert!(server.upgrade(with_panics("on_restored")).is_ok());
        assert_eq!(server.counters().panics, 2);
        clients.into_iter().for_each(|client| server.end(client));
        assert_eq!(server.left_over(), (0, 0));
    }

    #[test]
    fn who_cannot_go_is_in_the_way_and_who_only_lingers_is_not() {
        let mut server = Harness::new(Count::default());
        let client = server.connect();
        server.feed(client, "one\n");
        let slow = server.connect();
        server.take_only(slow, Some(0));
        server.feed(slow, "two\nBYE\n");
        assert!(server.upgrade(Count::default()).is_err(), "one is closing");
        server.take_only(slow, None);
        assert_eq!(server.sent(slow), b"2 two\n");
        assert!(server.is_shut(slow));
        assert!(server.upgrade(Count::default()).is_ok());
        let handshake = server.connect_with_handshake([Duration::ZERO; 2]);
        assert!(server.upgrade(Count::default()).is_err(), "one is in its handshake");
        server.end(handshake);
        server.reset(handshake);
        server.hold(client, 9);
        assert!(server.upgrade(Count::default()).is_err(), "one runs over a layer");
        server.hold(client, 0);
        assert!(server.upgrade(Count::default()).is_ok());
        server.feed(client, "four\n");
        assert_eq!(server.sent(client), b"1 one\n4 four\n");
        server.end(slow);
        server.end(client);
        assert_eq!((server.left_over(), server.counters().open), ((0, 0), 0));
    }

    /// No event comes for what the old loop has read already, nor for room that it has found already.
    #[test]
    fn what_was_left_over_from_a_turn_is_done_without_an_event() {
        let limits = Limits { lines_per_turn: 1, ..Limits::default() };
        let mut server = Harness::with_limits(Count::default(), limits).by_hand();
        let client = server.connect();
        server.feed(client, "one\ntwo\nthree\n");
        assert!(server.turn());
        assert_eq!(server.sent(client), b"1 one\n");
        for (line, reads) in [(&b"2 two\n"[..], 1), (b"3 three\n", 1)] {
            assert!(server.upgrade(Count::default()).is_ok());
            assert!(server.turn());
            assert_eq!(server.sent(client), line);
            assert_eq!(server.reads(client), reads);
        }
    }

    #[test]
    fn what_a_connection_has_done_is_counted_on() {
        let mut server = Harness::new(Count::default());
        server.set_accounting(true);
        let client = server.connect();
        server.feed(client, "one\n");
        server.advance(Duration::from_secs(5));
        for _ in 0..2 {
            assert!(server.upgrade(Count::default()).is_ok());
            server.feed(client, "two\n");
            server.advance(Duration::from_secs(1));
        }
        let MemoryLoop { service, state, .. } = &server.inner;
        let status = service.connection(server.id(client).slot(), state.turn.now).unwrap();
        let usage = status.usage.unwrap();
        assert_eq!((usage.lines_in, usage.bytes_in, usage.bytes_out), (3, 12, 18));
        assert_eq!(usage.age, Duration::from_secs(7));
    }

    #[test]
    fn no_newcomer_has_the_id_of_one_that_was_there_before() {
        let mut server = Harness::new(Count::default());
        let (gone, stays) = (server.connect(), server.connect());
        let (first, second) = (server.id(gone), server.id(stays));
        server.reset(gone);
        server.end(gone);
        assert!(server.upgrade(Count::default()).is_ok());
        let third = server.connect();
        assert!(first < second && second < server.id(third), "{first} {second} {third:?}");
        assert_eq!(server.session(stays).map(Vec::len), Some(0));
    }

    /// Otherwise to upgrade would be to give everybody a burst.
    #[test]
    fn what_was_used_of_a_rate_is_owed_in_the_next_loop() {
        let rate = Rates::from(Rate { per_second: 1, burst: 3 });
        let (of_peer, own) =
            (Limits { peer_rate: rate, ..Limits::default() }, Limits { rate, ..Limits::default() });
        for (limits, other) in [(of_peer, &b""[..]), (own, b"5 e\n")] {
            let mut server = Harness::with_limits(Count::default(), limits);
            let peer = ([192, 0, 2, 1], 9).into();
            let (one, two) = (server.connect_from(peer), server.connect_from(peer));
            server.feed(one, "a\nb\nc\nd\n");
            assert_eq!(server.sent(one), b"1 a\n2 b\n3 c\n");
            assert!(server.upgrade(Count::default()).is_ok());
            assert_eq!(server.sent(one), b"");
            server.advance(Duration::from_millis(999));
            assert_eq!(server.sent(one), b"");
            server.advance(Duration::from_millis(1));
            assert_eq!(server.sent(one), b"4 d\n");
            server.feed(two, "e\n");
            assert_eq!(server.sent(two), other);
        }
    }

    #[test]
    fn deadlines_go_on_from_where_they_were() {
        let minute = Some(Duration::from_secs(60));
        let limits = Limits { idle_timeout: minute, line_timeout: minute, ..Limits::default() };
        let mut server = Harness::with_limits(Count::default(), limits);
        let (idle, late) = (server.connect(), server.connect());
        server.feed(late, "unfini");
        server.advance(Duration::from_secs(59));
        server.feed(late, "shed");
        assert!(server.upgrade(Count::default()).is_ok());
        server.advance(Duration::from_millis(999));
        assert_eq!([idle, late].map(|client| server.closed(client)), [None, None]);
        server.advance(Duration::from_millis(1));
        assert_eq!(server.sent(idle), b"Idle for too long (limit 60 s)\n");
        assert_eq!(server.sent(late), b"Line not finished in time (limit 60 s)\n");
    }

    proptest! {
        /// What has been spoilt on the way is refused, or is another state; nothing worse comes of it.
        #[test]
        fn whatever_comes_the_old_loop_goes_on(
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            length in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut server = Harness::new(Count::default()).catching_panics();
            let clients = [(); 3].map(|()| server.connect());
            for client in clients {
                server.feed(client, "line\nRE");
                server.take_only(client, Some(3));
            }
            server.feed(clients[1], "ST\n");
            let spoil = |parcel: &mut Vec<u8>| {
                for (place, byte) in &places {
                    let place = place.index(parcel.len());
                    parcel[place] = *byte;
                }
                if cut {
                    parcel.truncate(length.index(parcel.len()));
                }
            };
            let _ = server.succeeded_by(Count::default(), spoil);
            for client in clients {
                server.take_only(client, None);
            }
            server.feed(clients[0], "ally\n");
            prop_assert_eq!(server.sent(clients[0]), b"1 line\n5 REally\n");
        }
    }
}
