//! The steps of the two sides, in their order. A loop that is alone takes them one after the other;
//! [cores](crate::Cores) take them together.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::departing::{self, Frozen};
use super::over_sockets::{
    COMMIT, LISTENER, MAGIC, OFFER, PROTOCOL, Parcel, READY, REFUSED, TAKEN, failed, put_listener,
    receive_parcel, send_parcel, shown, silent, take_listener,
};
use super::{Going, HandedOn, Inheritance, Restored, Successor, install, restore};
use crate::connection::{Decoder, Encoder, Unreadable};
use crate::error::Error;
use crate::net::passed::{Passed, Received};
use crate::net::passing::Channel;
use crate::reactor::Reactor;
use crate::reactor::shutdown::Phase;

/// For each service of a loop, why the next one has not taken it over, or none if it has.
pub(crate) type Refusals = Vec<Option<String>>;

impl Successor {
    /// The most that each thing is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.channel.patience()
    }

    /// The other side is ready for the parcels.
    pub(crate) fn await_ready(&self) -> Result<(), Error> {
        self.channel.hear(READY).map(drop)
    }

    /// What the other side takes of so many services of each loop.
    pub(crate) fn hear_taken(&self, services: &[usize]) -> Result<Vec<Refusals>, Error> {
        let taken = self.channel.hear(TAKEN)?;
        let (mut from, mut all) = (Decoder::new(&taken.body), Vec::new());
        for count in services {
            let mut refusals = Refusals::new();
            for _ in 0..*count {
                refusals.push(from.option(|from| Ok(shown(from.text()?)))?);
            }
            all.push(refusals);
        }
        from.finish()?;
        Ok(all)
    }

    /// From now on all is the other side's.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        self.channel.say(COMMIT, &Encoder::default())
    }
}

/// Has messages taken until none is left, since handlers may post others meanwhile. `take` is told whether it is the
/// first time, and says how many it took.
///
/// # Errors
/// [`Error::Upgrade`] if there are always more. Handlers that answer each message with another one never come to rest.
pub(crate) fn come_to_rest(
    patience: Duration,
    mut take: impl FnMut(bool) -> Result<u64, Error>,
) -> Result<(), Error> {
    const MOST_ROUNDS: usize = 1000;
    let start = Instant::now();
    for round in 0..MOST_ROUNDS {
        let is_first = round == 0;
        // After the first round another core may still post.
        if take(is_first)? == 0 && !is_first {
            return Ok(());
        }
        if start.elapsed() > patience {
            break;
        }
    }
    Err(failed("messages are posted to the handlers without end"))
}

/// The old side.
impl Reactor<'_> {
    /// Offers the listening sockets to the loop that is to take over, so that it can listen at the same addresses
    /// without refusing a client. Both have them until [`hand_on`](Self::hand_on), but only this loop accepts.
    /// See [`Successor`] for all steps.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if the other loop does not read the offer in time or has gone, and
    /// [`Error::ShuttingDown`] if this loop is shutting down or has handed on already. Nothing changes here.
    pub fn offer(&mut self, to: &mut Successor) -> Result<(), Error> {
        self.offer_of(to, 1)
    }

    /// As [`offer`](Self::offer), for so many cores.
    pub(crate) fn offer_of(&mut self, to: &mut Successor, cores: usize) -> Result<(), Error> {
        self.may_begin()?;
        let listeners: Vec<_> = self.services.iter().flat_map(|it| it.listening()).collect();
        let mut offer = Encoder::default();
        offer.put_text(MAGIC);
        offer.put_number(PROTOCOL);
        offer.put_number(cores as u64);
        offer.put_number(self.state.nanos(Instant::now()));
        offer.put_number(listeners.len() as u64);
        to.channel.say(OFFER, &offer)?;
        to.offered = listeners.len();
        for listening in &listeners {
            put_listener(listening, &to.channel).map_err(|error| to.channel.unheard(&error))?;
        }
        Ok(())
    }

    /// Hands all services and their connections on to the loop that was [offered](Self::offer) the listening
    /// sockets. Call it between two turns. It blocks until the other loop is ready and has restored everything, and
    /// nobody is served meanwhile.
    ///
    /// After that this loop does not listen any more, and adds no services. It serves the connections that could not
    /// move until they end, for at most `patience`; those that are left then are closed as by [`stop`](Self::stop).
    /// Keep running turns until [`exit`](Self::exit) says that the loop has ended, which it does by itself once it has
    /// no connections.
    ///
    /// A service moves if its handler [saves](crate::Handler::save) its state and the other loop has a service of the
    /// same [name](Self::set_name) whose handler [restores](crate::Handler::restore) it. Services of one name go by
    /// their order. If a service does not move, its connections are closed with
    /// [`Farewell::Upgrade`](crate::Farewell::Upgrade), and the log has the reason.
    ///
    /// A connection moves if it is open, was accepted, and runs over a plain TCP or Unix socket, also behind a header
    /// of the PROXY protocol. Others stay: those over TLS or WebSocket, those that were dialled or adopted, and those
    /// that are being closed. Handlers may [close](crate::Saved::together) those that stay, or have [all
    /// stay](crate::Saved::stay). A service of datagrams hands on its socket, but no state of its handler.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if the other loop has gone, refuses, or does not answer in time, or if handlers answer each
    /// message with another one. This loop then goes on as if nothing had happened; end the other process.
    /// [`Error::ShuttingDown`] if this loop is shutting down, or has
    /// handed on already.
    pub fn hand_on(&mut self, to: Successor, patience: Duration) -> Result<HandedOn, Error> {
        self.may_begin()?;
        to.await_ready()?;
        self.offers_still(&to)?;
        come_to_rest(to.patience(), |_| Ok(self.take_posted()))?;
        let going = self.write_down(&to)?;
        let refusals = to.hear_taken(&[going.len()])?.concat();
        to.commit()?;
        Ok(self.leave(going, refusals, patience))
    }

    /// Whether it listens where it has [offered](Self::offer).
    pub(crate) fn offers_still(&self, to: &Successor) -> Result<(), Error> {
        match self.services.iter().map(|it| it.listening().len()).sum::<usize>() {
            now if now == to.offered => Ok(()),
            _ => Err(failed("where it listens has changed meanwhile; offer it again")),
        }
    }

    /// Has the handlers take the messages that wait for them. Says how many there were.
    pub(crate) fn take_posted(&mut self) -> u64 {
        // The wait for the other side is none of the handlers'.
        self.state.tick();
        departing::take_posted(&mut self.services, &mut self.state)
    }

    /// Writes all services down, and sends that. They go on as if that had not been.
    pub(crate) fn write_down(&mut self, to: &Successor) -> Result<Vec<Option<Going>>, Error> {
        let Frozen { parcel, going } = departing::write_down(&mut self.services, &mut self.state);
        let mut sockets = Vec::new();
        for (service, going) in self.services.iter().zip(&going) {
            let passed = going.iter().flat_map(|going| service.passed(going));
            sockets.extend(passed.filter_map(|passed| match passed {
                Passed::Socket(socket) => Some(socket),
                Passed::Wire(_) => None,
            }));
        }
        send_parcel(&to.channel, &parcel, &sockets).map_err(|error| to.channel.unheard(&error))?;
        Ok(going)
    }

    /// Another loop has all that goes: lets go of it. Nothing of this can fail.
    pub(crate) fn leave(
        &mut self,
        going: Vec<Option<Going>>,
        refusals: Refusals,
        patience: Duration,
    ) -> HandedOn {
        let mut handed_on = HandedOn::default();
        for ((service, going), refusal) in self.services.iter_mut().zip(going).zip(refusals) {
            let why = refusal.as_deref().or(going.is_none().then_some("its handler saves nothing"));
            if let Some(why) = why
                && service.connection_count() > 0
            {
                log::warn!("{}: its connections are not taken over: {why}", service.name());
            }
            let going = going.filter(|_| refusal.is_none());
            handed_on.connections += going.as_ref().map_or(0, |going| going.connections.len());
            service.give_up_listening(&mut self.state);
            service.leave(going, &mut self.state);
            handed_on.left += service.connection_count();
        }
        self.phase = Phase::HandedOn(self.state.after(patience));
        // The next turn may be the last one.
        self.state.shared.wake();
        handed_on
    }
}

/// The new side.
impl Reactor<'_> {
    /// Prepares this loop to take over from the loop at the other end of the socket, which [offers](Self::offer) its
    /// listening sockets. Call it before services are added. Then add and name the services as usual: a service that
    /// listens at an address of the other loop gets the socket of that loop. An address with port 0 gets a socket of
    /// that IP address, whatever its port. At last, call [`succeed`](Self::succeed).
    ///
    /// `patience` is how long this loop waits for each message of the other one.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if the other loop has gone, does not answer in time, speaks another version of the protocol,
    /// or has another number of cores; [`Error::Io`] if the socket cannot be made blocking. The other loop goes on.
    pub fn inherit(&mut self, from: UnixStream, patience: Duration) -> Result<(), Error> {
        self.inherit_of(from, patience, 1)
    }

    /// As [`inherit`](Self::inherit), for so many cores.
    pub(crate) fn inherit_of(
        &mut self,
        from: UnixStream,
        patience: Duration,
        cores: usize,
    ) -> Result<(), Error> {
        let channel = Channel::new(from, patience).map_err(Error::io("cannot use the socket"))?;
        let channel = channel.crash_for_tests();
        let offer = channel.hear(OFFER)?;
        let mut from = Decoder::new(&offer.body);
        let refuse = |why: &str| {
            let _ = channel.send(REFUSED, why.as_bytes(), &[]);
            failed(why)
        };
        if from.text() != Ok(MAGIC) || from.number() != Ok(PROTOCOL) {
            return Err(refuse("the two are of different versions; restart it instead"));
        }
        let (there, clock, count) = (from.size()?, from.number()?, from.size()?);
        from.finish()?;
        if there != cores {
            return Err(refuse(&format!(
                "{there} cores cannot go on as {cores}; start as many, or restart it instead"
            )));
        }
        let mut offers = Vec::new();
        for _ in 0..count {
            offers.push(take_listener(channel.hear(LISTENER)?)?);
        }
        // Ages are counted from moments that may lie far back.
        if let Some(start) = Instant::now().checked_sub(Duration::from_nanos(clock)) {
            self.state.set_start(start);
            self.state.tick();
        }
        self.state.inherited = Some(Box::new(Inheritance { channel, offers }));
        Ok(())
    }

    /// Tells the loop at the other end of the socket why this process cannot take over, if it fails before it can
    /// [inherit](Self::inherit) or [succeed](Self::succeed), for instance because of its configuration.
    /// [`hand_on`](Self::hand_on) fails there with these words, of which 1000 characters are shown.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if the other loop has gone or does not read for a second, [`Error::Io`] if the socket
    /// cannot be made blocking.
    pub fn refuse(from: UnixStream, why: &str) -> Result<(), Error> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let channel = Channel::new(from, PATIENCE).map_err(Error::io("cannot use the socket"))?;
        channel.send(REFUSED, why.as_bytes(), &[]).map_err(|error| silent(&error))
    }

    /// Takes over what the other loop [hands on](Self::hand_on). It blocks until that has happened, restores each
    /// service from the one of the same name, and calls [`on_start`](crate::Handler::on_start) and
    /// [`on_restored`](crate::Handler::on_restored). When it returns, this loop owns the connections, and serves them
    /// from its next turn on.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if the other loop has not handed on, or there is none because [`inherit`](Self::inherit) was
    /// not called. Drop this loop then without another turn: it would accept clients at the sockets of the other loop,
    /// which goes on.
    pub fn succeed(&mut self) -> Result<(), Error> {
        let parcel = self.receive_parcels(1)?.pop().ok_or(Unreadable("no parcel"))?;
        let restored = self.restore(parcel).map_err(|why| self.refuse_parcel(&why))?;
        self.confirm(&[&restored])?;
        self.go_on_with(&restored);
        Ok(())
    }

    /// The most that each thing is waited for; none if there is nothing to take over.
    pub(crate) fn heir_patience(&self) -> Option<Duration> {
        self.state.inherited.as_ref().map(|inherited| inherited.channel.patience())
    }

    fn inheritance(&self) -> Result<&Inheritance, Error> {
        self.state.inherited.as_deref().ok_or_else(|| failed("there is nothing to take over"))
    }

    /// What each of so many loops has handed on.
    pub(crate) fn receive_parcels(&self, loops: usize) -> Result<Vec<Parcel>, Error> {
        let inherited = self.inheritance()?;
        inherited.channel.say(READY, &Encoder::default())?;
        (0..loops).map(|_| receive_parcel(&inherited.channel)).collect()
    }

    /// Makes of a parcel what is to go on here.
    pub(crate) fn restore(&mut self, parcel: Parcel) -> Result<Vec<Restored>, String> {
        let sockets = parcel.sockets.into_iter().map(Received::Socket).collect();
        restore(&parcel.bytes, sockets, &mut self.services, &mut self.state)
    }

    /// Nothing of it can go on here. Gives that as an error.
    pub(crate) fn refuse_parcel(&self, why: &str) -> Error {
        if let Some(inherited) = &self.state.inherited {
            let _ = inherited.channel.send(REFUSED, why.as_bytes(), &[]);
        }
        failed(why)
    }

    /// Tells the other side what goes on here, and waits until that has let go.
    pub(crate) fn confirm(&self, all: &[&[Restored]]) -> Result<(), Error> {
        let (inherited, mut taken) = (self.inheritance()?, Encoder::default());
        for restored in all.iter().copied().flatten() {
            taken.put_option(restored.refused.as_ref(), |taken, why| taken.put_text(why));
        }
        inherited.channel.say(TAKEN, &taken)?;
        inherited.channel.hear(COMMIT).map(drop)
    }

    /// The other side has let go: what was restored and not refused is this loop's.
    pub(crate) fn go_on_with(&mut self, restored: &[Restored]) {
        for Restored { place, refused, .. } in restored {
            if let (Some(place), Some(_)) = (place, refused) {
                self.services[*place].lose_restored(&mut self.state);
            }
        }
        if let Some(mut inherited) = self.state.inherited.take() {
            inherited.own_listeners();
        }
        self.services.iter_mut().for_each(|service| service.own_listeners());
        self.state.tick();
        install(&mut self.services, &mut self.state);
        self.start();
        self.services.iter_mut().for_each(|service| service.tell_restored(&mut self.state));
    }
}
