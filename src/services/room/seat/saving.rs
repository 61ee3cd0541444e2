//! A seat that another process goes on with.

use std::time::Instant;

use super::super::encoding::{all, put_all};
use super::{Pending, Seat, Then, Words};
use crate::{ConnId, Decoder, Encoder, ServiceContext, Unreadable};

impl Pending {
    fn save(&self, to: &mut Encoder) {
        let Pending { lines, bytes, asks, then, held, paused } = self;
        to.put_number(*lines as u64);
        to.put_number(*bytes as u64);
        to.put_number((*asks).into());
        to.put_option(*then, |to, then| to.put_flag(matches!(then, Then::Stop)));
        to.put_flag(*held);
        to.put_flag(*paused);
    }

    fn restore(from: &mut Decoder<'_>) -> Result<Pending, Unreadable> {
        let then = |from: &mut Decoder<'_>| Ok(if from.flag()? { Then::Stop } else { Then::Close });
        Ok(Pending {
            lines: from.size()?,
            bytes: from.size()?,
            asks: u32::try_from(from.number()?).map_err(|_| Unreadable("a number too large"))?,
            then: from.option(then)?,
            held: from.flag()?,
            paused: from.flag()?,
        })
    }
}

impl<W: Words> Seat<W> {
    /// Saves the seat with its bus and its words, for the process that goes on with the room: to be called in
    /// [`Handler::save`](crate::Handler::save), whose connections then go [together](crate::Saved::together).
    /// None if the bus cannot go or is about to stop; the handler is then to return None, too.
    ///
    /// ```
    /// # use reactor::services::room::{Message, Seat, Words};
    /// # use reactor::{Decoder, Handler, Saved, ServiceContext, Unreadable};
    /// # struct Room<W> { seat: Seat<W> }
    /// # impl<W: Words> Handler for Room<W> {
    /// #     type Session = ();
    /// #     type Message = Message;
    /// fn save(&self, cx: &ServiceContext<'_, ()>) -> Option<Saved> {
    ///     let mut saved = Saved::new(1).together();
    ///     self.seat.save(cx, saved.state())?;
    ///     Some(saved)
    /// }
    ///
    /// fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
    ///     match version {
    ///         1 => self.seat.restore(from),
    ///         _ => Err(Unreadable("an unknown version")),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn save<S>(&self, cx: &ServiceContext<'_, S>, to: &mut Encoder) -> Option<()> {
        self.write(cx.now(), to)
    }

    fn write(&self, now: Instant, to: &mut Encoder) -> Option<()> {
        let Seat {
            words,
            bus,
            core,
            peers: _,
            arriving,
            pending,
            stopped,
            timer: _,
            drain,
            undrained,
            cores_undrained,
            drained,
        } = self;
        if *stopped {
            return None;
        }
        to.put_number(*core as u64);
        to.put_flag(bus.is_some());
        if let Some(bus) = bus {
            bus.save(now, to)?;
        }
        words.save(to);
        put_all(to, arriving.iter(), |to, id| to.put_number(id.to_bits()));
        put_all(to, pending.iter(), |to, (member, pending)| {
            to.put_number(*member);
            pending.save(to);
        });
        to.put_number(*drain);
        put_all(to, undrained.iter(), |to, id| to.put_number(id.to_bits()));
        to.put_number(*cores_undrained as u64);
        to.put_flag(*drained);
        Some(())
    }

    /// Restores what [`save`](Self::save) has written: to be called in
    /// [`Handler::restore`](crate::Handler::restore). Nothing else is needed: members are there again without an
    /// [`on_open`](Self::on_open).
    ///
    /// # Errors
    /// [`Unreadable`] if it is of another core, or is invalid. The seat, its bus and its words are then as they were.
    pub fn restore(&mut self, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        // There is no context here, and so no clock of the loop.
        let (now, mut before) = (Instant::now(), Encoder::default());
        let saved = self.write(now, &mut before);
        let restored = self.read(from, now);
        if restored.is_err() && saved.is_some() {
            // The bus may have members by now that nobody brings.
            self.read(&mut Decoder::new(before.as_bytes()), now)?;
        }
        restored
    }

    fn read(&mut self, from: &mut Decoder<'_>, now: Instant) -> Result<(), Unreadable> {
        if from.size()? != self.core {
            return Err(Unreadable("the seat of another core"));
        }
        match (from.flag()?, &mut self.bus) {
            // It refuses a room of another name.
            (true, Some(bus)) => bus.restore(from, now)?,
            (false, None) => {}
            _ => return Err(Unreadable("the bus is on another core")),
        }
        self.words.restore(from)?;
        let id = |from: &mut Decoder<'_>| from.number().map(ConnId::from_bits);
        self.arriving = all(from, id)?;
        self.pending = all(from, |from| Ok((from.number()?, Pending::restore(from)?)))?;
        self.drain = from.number()?;
        self.undrained = all(from, id)?;
        self.cores_undrained = from.size()?;
        self.drained = from.flag()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::InProcess;
    use super::super::super::bus::{Bus, Event, News, Told};
    use super::*;

    /// They cannot be read if they are two.
    struct Number(u64);

    impl Words for Number {
        fn welcome(&mut self) -> String {
            String::new()
        }

        fn news(&mut self, _news: &News) -> String {
            String::new()
        }

        fn told(&mut self, _told: &Told) -> String {
            String::new()
        }

        fn save(&self, to: &mut Encoder) {
            to.put_number(self.0);
        }

        fn restore(&mut self, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
            self.0 = Some(from.number()?).filter(|it| *it != 2).ok_or(Unreadable("two"))?;
            Ok(())
        }
    }

    fn seat(number: u64) -> Seat<Number> {
        let (mut bus, now) = (InProcess::new(), Instant::now());
        bus.event(number, Event::Arrive, now);
        let mut seat = Seat::alone(Number(number), bus);
        seat.arriving.insert(ConnId::from_bits(number));
        seat.pending.insert(number, Pending { asks: 1, ..Pending::default() });
        seat.drain = number;
        seat
    }

    fn saved(seat: &Seat<Number>) -> Encoder {
        let mut saved = Encoder::default();
        seat.write(Instant::now(), &mut saved).unwrap();
        saved
    }

    /// A member in the room that nobody brings would be in WHO for ever.
    #[test]
    fn what_cannot_be_read_changes_neither_the_bus_nor_the_words() {
        let (mut new, old) = (seat(1), saved(&seat(3)));
        let as_it_was = saved(&new);
        for end in 0..old.as_bytes().len() {
            new.restore(&mut Decoder::new(&old.as_bytes()[..end])).unwrap_err();
            assert_eq!(saved(&new), as_it_was, "cut off at {end}");
        }
        new.restore(&mut Decoder::new(saved(&seat(2)).as_bytes())).unwrap_err();
        assert_eq!(saved(&new), as_it_was);
        new.restore(&mut Decoder::new(old.as_bytes())).unwrap();
        assert_eq!(saved(&new), old);
    }
}
