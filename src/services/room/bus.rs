//! What is said on a bus, and the trait that every bus has.

use std::sync::Arc;
use std::time::Instant;

use crate::{Decoder, Encoder, Unreadable};

/// Who a member is: [`ConnId::to_bits`](crate::ConnId::to_bits) of its connection, which no other member
/// of this process ever has.
pub type MemberId = u64;

/// What a member does. Names and texts are [fit to be shown](crate::text::printable).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has connected. The first event of each member.
    Arrive,
    /// It has told its name, or that it wants none.
    Hello(Option<String>),
    /// It has said something.
    Say(String),
    /// It has said that it is about to leave; [`Seat::bye`](super::Seat::bye) also closes its connection.
    Bye,
    /// It wants to know who is there; [`Told::Who`] comes when all that it did before has been heard.
    Who,
    /// It is to be told this when all that it did before has been heard: [`Told::Line`].
    Answer(String),
    /// It is gone. The last event of each member.
    Leave,
}

impl Event {
    /// How many bytes it about takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Event::Say(text) | Event::Answer(text) | Event::Hello(Some(text)) => 16 + text.len(),
            _ => 16,
        }
    }
}

/// What everybody hears, in the same order everywhere. A name is none where none was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody has connected.
    Arrived,
    /// Somebody has told a name, or is without one from now on.
    Named {
        /// The new one.
        name: Option<String>,
    },
    /// Somebody has said something.
    Said {
        /// Who.
        name: Option<String>,
        /// What.
        text: String,
    },
    /// Somebody is about to leave.
    Leaving {
        /// Who.
        name: Option<String>,
    },
    /// Somebody is gone.
    Left {
        /// Who.
        name: Option<String>,
    },
    /// The room goes on without what is said elsewhere.
    CutOff,
    /// What is said elsewhere is heard again.
    Whole,
    /// So many lines were said elsewhere meanwhile, and are not said here.
    SaidElsewhere(u64),
    /// Somebody may not have heard everything.
    Missing,
}

/// What one member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Who is there, in order of arrival: the answer to [`Event::Who`]. Shared, since thousands may ask at once.
    Who(Arc<[Option<String>]>),
    /// The name of its last [`Event::Hello`] is another's. It keeps the one that it had.
    NameTaken(String),
    /// What [`Event::Answer`] had in it.
    Line(String),
}

/// What a bus asks of whoever holds it. A member that is gone, or of another process, is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// News for everybody here.
    ToAll {
        /// What has happened.
        news: News,
        /// The member here that has caused it, if one has: what it hears is the reply to its own line, so
        /// it is held back, not closed, if it does not read it.
        by: Option<MemberId>,
    },
    /// News for everybody here but this member, which has caused it: its arrival.
    ToOthers(MemberId, News),
    /// An answer to one member.
    To(MemberId, Told),
    /// Read nothing more of this member, and let no deadline of its silence run, until its release. It is
    /// said once before that.
    Hold(MemberId),
    /// Read it again.
    Release(MemberId),
    /// Tell by [`Bus::drained`] when everybody here has taken what was said so far. Of two, only the last
    /// one counts.
    Drain,
}

/// What makes one order of what is said, and carries it to everybody. It has no socket, no thread and no
/// clock of its own: [`Seat`](super::Seat) drives it, on the first core.
///
/// 1. Every member of this process has one [`Event::Arrive`], then what it does, then one
///    [`Event::Leave`]. What comes after that, or before, is ignored.
/// 2. Each [`Event::Hello`], [`Event::Say`] and [`Event::Bye`] becomes news for everybody on the bus, its
///    member included, unless it is refused, which its member is told. Each [`Event::Who`] and
///    [`Event::Answer`] is answered. The events of one member keep their order, answers included.
/// 3. News have one order: what two members hear while both are there, they hear in the same one.
/// 4. After each call, [`poll`](Self::poll) is called until it gives none, and then
///    [`deadline`](Self::deadline). An [`Event::Bye`] and an [`Event::Answer`] behind it are one call.
pub trait Bus {
    /// A member has done something.
    fn event(&mut self, member: MemberId, event: Event, now: Instant);

    /// What is to be done next; none if nothing is, until something is told again.
    fn poll(&mut self) -> Option<Action>;

    /// When [`tick`](Self::tick) is to be called at the latest; none if nothing is waited for.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has come, or [something](super::Message::wake) has happened elsewhere that the bus
    /// knows of by itself.
    fn tick(&mut self, now: Instant) {
        let _ = now;
    }

    /// Everybody has taken what was said up to the last [`Action::Drain`].
    fn drained(&mut self, now: Instant) {
        let _ = now;
    }

    /// The service shuts down. No event comes after this, and nobody hears anything more.
    fn stop(&mut self, now: Instant) {
        let _ = now;
    }

    /// Saves what another process needs to go on with the room, its members included, who keep their ids; see
    /// [`Handler::save`](crate::Handler::save). With None, which is the default, the room ends here and its members are
    /// closed.
    ///
    /// It must change nothing, since the upgrade may fail. Write a moment as the time since then, or until then.
    fn save(&self, now: Instant, to: &mut Encoder) -> Option<()> {
        let _ = (now, to);
        None
    }

    /// Restores what [`save`](Self::save) has written. No other method but `save` is called before. Do nothing yet that
    /// others can see: the upgrade may still fail, and the old process then goes on.
    ///
    /// # Errors
    /// [`Unreadable`] if it is invalid. The bus must then be as it was.
    fn restore(&mut self, from: &mut Decoder<'_>, now: Instant) -> Result<(), Unreadable> {
        let _ = (from, now);
        Err(Unreadable("this bus takes nothing over"))
    }
}
