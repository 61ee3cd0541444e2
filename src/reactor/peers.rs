//! What one peer may take up: connections at once (`max_per_peer`), connections a second
//! (`peer_connect_rate`), and with all its connections together lines and bytes a second
//! (`peer_rate`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counters::Counters;
use super::fairness::BOOKS;
use super::loop_state::LoopState;
use super::peer_accounts::{PeerAccounts, Used};
use super::peer_lines::PeerLines;
use crate::connection::clock::Nanos;
use crate::connection::connection::Connection;
use crate::connection::flags::Flag;
use crate::connection::rate::Share;
use crate::connection::{ConnId, Decoder, Encoder, Unreadable};
use crate::limits::Limits;

/// Counts the connections that were accepted from each peer and keeps what they have used, where that
/// is limited. It is asked whether one more may come, which then counts, and is told of each that goes.
#[derive(Debug)]
pub(crate) struct Peers {
    /// How many each address may have. Without a limit nothing is counted.
    most: Option<usize>,
    /// Something depends on what a peer has used before.
    remembers: bool,
    books: Books,
    /// Those that wait until their peer has something left.
    lines: PeerLines,
}

/// Where it is written down what each peer has.
#[derive(Debug)]
enum Books {
    Own(Box<Book>),
    /// The books of all cores that the service runs on.
    Shared(Arc<SharedBooks>),
}

/// What the peers of one service have, or some of them.
#[derive(Debug)]
struct Book {
    /// How many connections each has. An address without any is not in the map.
    open: HashMap<IpAddr, usize>,
    /// What each has used of its rates; none where there are none.
    accounts: Option<PeerAccounts>,
}

/// The books of a service that runs on several cores. Each peer is in one of them, so that two cores
/// seldom want the same book; each is locked for as long as one entry takes.
#[derive(Debug)]
pub(crate) struct SharedBooks(Vec<Mutex<Book>>);

impl SharedBooks {
    pub(crate) fn new(limits: &Limits) -> SharedBooks {
        SharedBooks((0..BOOKS).map(|_| Mutex::new(Book::new(limits, BOOKS))).collect())
    }

    fn change(&self, limits: &Limits) {
        for book in &self.0 {
            book.lock().unwrap_or_else(PoisonError::into_inner).change(limits, BOOKS);
        }
    }

    fn book(&self, peer: IpAddr) -> MutexGuard<'_, Book> {
        let bits = match peer {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // The rest is zero in a key.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        // A multiplicative hash, whose upper bits are the good ones. Who can choose addresses that meet
        // in one book gains the wait for a lock that is held for some hundred nanoseconds.
        let place = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.0[place as usize % self.0.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// One of so many, between which the peers are divided.
    fn new(limits: &Limits, of: usize) -> Book {
        let accounts = Peers::remembers(limits).then(|| PeerAccounts::new(limits, of));
        Book { open: HashMap::new(), accounts }
    }

    /// Applies new limits. Where a rate has changed, what peers have used is forgotten.
    fn change(&mut self, limits: &Limits, of: usize) {
        let kept = self.accounts.take().filter(|accounts| accounts.are_of(limits));
        self.accounts = kept.or_else(|| Book::new(limits, of).accounts);
    }

    fn remove(&mut self, peer: IpAddr) {
        if let Some(open) = self.open.get_mut(&peer) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&peer);
            }
        }
    }
}

impl Books {
    fn look<R>(&self, peer: IpAddr, at: impl FnOnce(&Book) -> R) -> R {
        match self {
            Books::Own(book) => at(book),
            Books::Shared(books) => at(&books.book(peer)),
        }
    }

    fn write<R>(&mut self, peer: IpAddr, into: impl FnOnce(&mut Book) -> R) -> R {
        match self {
            Books::Own(book) => into(book),
            Books::Shared(books) => into(&mut books.book(peer)),
        }
    }
}

/// Why a newcomer may not come, in the words of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("full with {0} connections (max_connections)")]
    Full(usize),
    #[error("{0} has {1} connections (max_per_peer)")]
    TooMany(IpAddr, usize),
    #[error("{0} connects too fast (peer_connect_rate)")]
    TooFast(IpAddr),
}

impl Peers {
    pub(super) fn new(limits: &Limits) -> Peers {
        Peers::written_in(Books::Own(Box::new(Book::new(limits, 1))), limits)
    }

    /// Those of a service that runs on several cores.
    pub(super) fn shared(books: Arc<SharedBooks>, limits: &Limits) -> Peers {
        Peers::written_in(Books::Shared(books), limits)
    }

    fn written_in(books: Books, limits: &Limits) -> Peers {
        let (most, remembers) = (limits.max_per_peer, Peers::remembers(limits));
        Peers { most, remembers, books, lines: PeerLines::default() }
    }

    /// Whether anything depends on what a peer has used before.
    fn remembers(limits: &Limits) -> bool {
        limits.peer_rate.are_set() || limits.peer_connect_rate.is_some()
    }

    /// Whether there is any limit by peer.
    pub(crate) fn are_limited(limits: &Limits) -> bool {
        limits.max_per_peer.is_some() || Peers::remembers(limits)
    }

    /// Asks all limits by peer whether one more may come from there; then it counts.
    pub(super) fn judge(
        &mut self,
        peer: Option<SocketAddr>,
        service: usize,
        state: &mut LoopState,
    ) -> Option<Refusal> {
        if self.most.is_none() && !self.remembers {
            return None;
        }
        let peer = peer?;
        let (key, ip, most) = (peer_key(peer), peer.ip().to_canonical(), self.most);
        let (now, counters) = (state.turn.now, state.counters(service));
        self.books.write(key, |book| {
            if let Some(most) = most
                && book.open.get(&key).is_some_and(|open| *open >= most)
            {
                return Some(Refusal::TooMany(ip, most));
            }
            if let Some(accounts) = &mut book.accounts
                && !accounts.begin(key, now, counters)
            {
                return Some(Refusal::TooFast(ip));
            }
            if most.is_some() {
                *book.open.entry(key).or_default() += 1;
            }
            None
        })
    }

    /// Applies new limits, with the connections that are open. Where several cores share the books, each does
    /// this: the first one changes the rates in them, and each counts its own connections.
    pub(super) fn change<'c>(
        &mut self,
        limits: &Limits,
        conns: impl Iterator<Item = &'c Connection>,
    ) {
        let (before, after) = (self.most.is_some(), limits.max_per_peer.is_some());
        (self.most, self.remembers) = (limits.max_per_peer, Peers::remembers(limits));
        if before != after {
            for peer in conns.filter(|conn| is_there(conn)).filter_map(key) {
                self.books.write(peer, |book| match after {
                    true => *book.open.entry(peer).or_default() += 1,
                    false => book.remove(peer),
                });
            }
        }
        match &mut self.books {
            Books::Own(book) => book.change(limits, 1),
            Books::Shared(books) => books.change(limits),
        }
    }

    /// Counts a connection from there, which nobody has judged.
    pub(super) fn count(&mut self, peer: Option<SocketAddr>) {
        if let Some(peer) = peer.filter(|_| self.most.is_some()).map(peer_key) {
            self.books.write(peer, |book| *book.open.entry(peer).or_default() += 1);
        }
    }

    /// Nothing came of a connection from there that was counted.
    pub(super) fn uncount(&mut self, peer: Option<SocketAddr>) {
        if let Some(peer) = peer.filter(|_| self.most.is_some()).map(peer_key) {
            self.books.write(peer, |book| book.remove(peer));
        }
    }

    /// Writes down what each peer has used. Of books that all cores share the first one writes all.
    pub(super) fn save(&self, first: bool, now: Nanos, to: &mut Encoder) {
        let (place, mut count) = (to.put_number_later(), 0);
        let mut save = |book: &Book| {
            if let Some(accounts) = &book.accounts {
                count += accounts.save(now, to);
            }
        };
        match &self.books {
            Books::Own(book) => save(book),
            Books::Shared(books) if first => {
                let locked = |book: &Mutex<Book>| {
                    save(&book.lock().unwrap_or_else(PoisonError::into_inner));
                };
                books.0.iter().for_each(locked);
            }
            Books::Shared(_) => {}
        }
        to.set_number(place, count);
    }

    /// Reads what [`save`](Self::save) has written.
    pub(super) fn read_accounts(
        &self,
        from: &mut Decoder<'_>,
        now: Nanos,
    ) -> Result<Vec<Used>, Unreadable> {
        let mut all = Vec::new();
        for _ in 0..from.size()? {
            all.push(Used::read(from, now)?);
        }
        Ok(all)
    }

    /// Charges it to the peers.
    pub(super) fn charge_accounts(&mut self, all: Vec<Used>, now: Nanos, counters: &mut Counters) {
        for used in all {
            self.books.write(used.peer, |book| {
                if let Some(accounts) = &mut book.accounts {
                    accounts.take_over(used, now, counters);
                }
            });
        }
    }

    pub(super) fn remove(&mut self, conn: &Connection) {
        if let Some(peer) = self.counted(conn) {
            self.books.write(peer, |book| book.remove(peer));
        }
    }

    #[cfg(test)]
    pub(super) fn are_empty(&self) -> bool {
        match &self.books {
            Books::Own(book) => book.open.is_empty(),
            Books::Shared(books) => books.0.iter().all(|book| book.lock().unwrap().open.is_empty()),
        }
    }

    /// What the connection counts under, if it does.
    fn counted(&self, conn: &Connection) -> Option<IpAddr> {
        self.most?;
        key(conn)
    }

    /// What the connection's peer goes by, if anything depends on what that has used before.
    fn remembered(&self, conn: &Connection) -> Option<IpAddr> {
        if self.remembers { key(conn) } else { None }
    }

    /// Looks at the accounts that the peer is in; none where there are none.
    fn look<R>(&self, peer: IpAddr, at: impl FnOnce(&PeerAccounts) -> R) -> Option<R> {
        self.books.look(peer, |book| book.accounts.as_ref().map(at))
    }

    /// What the connection may have as far as its peer goes: nothing while others of its peer wait,
    /// unless it has waited with them and was woken.
    pub(super) fn allow(&self, conn: &Connection, now: Nanos) -> Share {
        let Some(peer) = self.remembered(conn) else { return Share::UNBOUNDED };
        if conn.place() == 0 && self.lines.first(peer).is_some() {
            return Share::default();
        }
        self.look(peer, |accounts| accounts.allow(peer, now)).unwrap_or(Share::UNBOUNDED)
    }

    /// Has the connection wait in the line of its peer, where it may stand already. Gives when its turn
    /// comes; none while others are before it.
    pub(super) fn wait(&mut self, conn: &mut Connection) -> Option<Nanos> {
        let peer = key(conn)?;
        if conn.place() == 0 {
            let gone = conn.flags.has(Flag::Gone);
            conn.extras().place = self.lines.join(peer, conn.id, gone);
        }
        let first = self.lines.first(peer) == Some(conn.id);
        first.then(|| self.ready(conn))
    }

    /// The connection waits no longer. Gives the one of its peer whose turn is next now, if that was
    /// the turn of this one.
    pub(super) fn leave(&mut self, conn: &mut Connection) -> Option<ConnId> {
        let place = conn.take_place()?;
        self.lines.leave(key(conn)?, place)
    }

    /// Those that wait with the first one, and for whom there is enough now as well, one after the
    /// other. `reads` says of each whether it has to read first.
    pub(super) fn for_whom_there_is(
        &self,
        first: &Connection,
        now: Nanos,
        reads: impl Fn(ConnId) -> bool,
    ) -> Vec<ConnId> {
        let Some(peer) = self.remembered(first) else { return Vec::new() };
        let found = self.look(peer, |accounts| {
            let mut left = accounts.allow(peer, now);
            let enough = |id: &ConnId| {
                let after = left.without(accounts.wanted(reads(*id)));
                after.inspect(|after| left = *after).is_some()
            };
            self.lines.of(peer).take_while(enough).filter(|id| *id != first.id).collect()
        });
        found.unwrap_or_default()
    }

    /// When its peer has enough left for the connection to go on.
    pub(super) fn ready(&self, conn: &Connection) -> Nanos {
        let peer = self.remembered(conn);
        let when = peer.and_then(|peer| self.look(peer, |all| all.ready(peer, conn.reads())));
        // No deadline is 0.
        when.unwrap_or(0).max(1)
    }

    /// Counts what the connection has used.
    pub(super) fn spend(
        &mut self,
        conn: &Connection,
        used: Share,
        now: Nanos,
        counters: &mut Counters,
    ) {
        if !used.is_nothing()
            && let Some(peer) = self.remembered(conn)
        {
            self.books.write(peer, |book| {
                if let Some(accounts) = &mut book.accounts {
                    accounts.spend(peer, used, now, counters);
                }
            });
        }
    }
}

/// Whether the connection counts for its peer: from when it was accepted until its end is reported.
fn is_there(conn: &Connection) -> bool {
    conn.flags.has(Flag::Open) || conn.flags.has(Flag::Handshaking)
}

/// What the connection's peer goes by. Those that were dialled have none, and neither have those
/// whose peer is still to be named.
pub(super) fn key(conn: &Connection) -> Option<IpAddr> {
    let exempt = conn.flags.has(Flag::Outbound) || conn.flags.has(Flag::Unjudged);
    conn.peer.get().filter(|_| !exempt).map(peer_key)
}

/// What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// since a client that has one such address has the whole network.
fn peer_key(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::connection::StreamTraits;
    use crate::limits::Rate;

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let home = |text: &str| peer_key(text.parse().unwrap()).to_string();
        assert_eq!(home("[2001:db8:1:2:3:4:5:6]:7"), "2001:db8:1:2::");
        assert_eq!(home("[::ffff:127.0.0.2]:7"), "127.0.0.2");
        assert_eq!(home("127.0.0.3:7"), "127.0.0.3");
    }

    /// A connection that is open, from there.
    fn from(last: u8) -> Connection {
        let mut conn = Connection::new(ConnId::new(1, 0), StreamTraits::default(), 1);
        conn.peer = Some(SocketAddr::from(([192, 0, 2, last], 7))).into();
        conn.flags.set(Flag::Open, true);
        conn
    }

    #[test]
    fn cores_change_the_limits_one_after_the_other_and_each_counts_its_own() {
        let most = |most| Limits { max_per_peer: most, ..Limits::default() };
        let none = Limits::default();
        let books = Arc::new(SharedBooks::new(&none));
        let mut cores = [(); 2].map(|()| Peers::shared(Arc::clone(&books), &none));
        let conns = [[from(1), from(2)], [from(1), from(3)]];
        let open = || -> Vec<_> {
            let all = (1..4).map(|last| IpAddr::from([192, 0, 2, last]));
            all.map(|peer| books.book(peer).open.get(&peer).copied()).collect()
        };
        for _ in 0..2 {
            // One that is there when it changes, and one that comes between.
            cores[0].change(&most(Some(9)), conns[0].iter());
            assert_eq!(open(), [Some(1), Some(1), None]);
            cores[0].count(conns[0][1].peer.get());
            cores[1].change(&most(Some(9)), conns[1].iter());
            assert_eq!(open(), [Some(2), Some(2), Some(1)]);
            cores[0].remove(&conns[0][1]);
            for (core, conns) in cores.iter_mut().zip(&conns) {
                core.change(&most(None), conns.iter());
            }
            assert!(cores[0].are_empty());
        }
    }

    #[test]
    fn rates_begin_anew_once_however_many_cores_change_them() {
        let rate =
            |burst| Limits { peer_rate: Rate { per_second: 1, burst }.into(), ..Limits::default() };
        let books = Arc::new(SharedBooks::new(&rate(3)));
        let mut cores = [(); 2].map(|()| Peers::shared(Arc::clone(&books), &rate(3)));
        let (conn, mut counters) = (from(1), Counters::default());
        let line = Share { lines: 1, bytes: 0 };
        let lines = |cores: &[Peers; 2]| [0, 1].map(|core| cores[core].allow(&conn, 1).lines);
        cores[1].spend(&conn, line, 1, &mut counters);
        assert_eq!(lines(&cores), [2, 2]);
        cores[0].change(&rate(5), [].iter());
        assert_eq!(lines(&cores), [5, 5]);
        cores[0].spend(&conn, line, 1, &mut counters);
        cores[1].change(&rate(5), [].iter());
        assert_eq!(lines(&cores), [4, 4]);
        // None: one that does not know yet has no bound either.
        cores[0].change(&Limits::default(), [].iter());
        assert_eq!(lines(&cores), [usize::MAX; 2]);
        cores[1].spend(&conn, line, 1, &mut counters);
        cores[1].change(&Limits::default(), [].iter());
        assert!(books.0.iter().all(|book| book.lock().unwrap().accounts.is_none()));
    }
}
