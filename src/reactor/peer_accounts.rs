//! What each peer has used of its rates. It is remembered beyond its connections, so that coming
//! again gains it nothing, and until the burst is free again, when it makes no difference any more.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::counters::Counters;
use super::fairness::{PEERS_CHECKED, PEERS_REMEMBERED};
use crate::connection::clock::Nanos;
use crate::connection::peer_address::PeerAddress;
use crate::connection::rate::{Paid, Share};
use crate::connection::{Decoder, Encoder, Unreadable};
use crate::limits::{Limits, Rate, Rates};

/// The accounts of the peers that have used something lately; a peer without one has used nothing.
#[derive(Debug)]
pub(super) struct PeerAccounts {
    rates: Rates,
    connect_rate: Option<Rate>,
    /// How many there may be.
    most: usize,
    accounts: HashMap<IpAddr, Account>,
    /// Which of them are forgiven first, each by the moment that it is [listed](Account::listed)
    /// with. The order is lazy: to use more does not move an account. It is moved when it has come
    /// to the front.
    order: BTreeSet<(Nanos, IpAddr)>,
}

#[derive(Debug, Default)]
struct Account {
    /// Until when the lines and bytes of all its connections are paid for.
    paid: Paid,
    /// Until when the connections that it has begun are paid for.
    connects: Nanos,
    /// Where it stands in the order: no later than it is forgiven.
    listed: Nanos,
}

/// What a peer has used in another loop, and is not paid for yet.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) peer: IpAddr,
    paid: Paid,
    connects: Nanos,
}

impl Used {
    /// Reads one of those that [`PeerAccounts::save`] has written.
    pub(super) fn read(from: &mut Decoder<'_>, now: Nanos) -> Result<Used, Unreadable> {
        let peer = PeerAddress::restore(from)?.get().ok_or(Unreadable("an account of nobody"))?;
        let paid = Paid::restore(from, now)?;
        Ok(Used { peer: peer.ip(), paid, connects: now.saturating_add(from.number()?) })
    }
}

impl Account {
    /// From when on it is as good as none.
    fn forgiven(&self) -> Nanos {
        self.paid.until().max(self.connects)
    }
}

impl PeerAccounts {
    /// Those of one book of so many.
    pub(super) fn new(limits: &Limits, of: usize) -> PeerAccounts {
        PeerAccounts {
            rates: limits.peer_rate,
            connect_rate: limits.peer_connect_rate,
            most: PEERS_REMEMBERED / of,
            accounts: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Writes down what is not paid for yet. Says of how many peers.
    pub(super) fn save(&self, now: Nanos, to: &mut Encoder) -> u64 {
        let PeerAccounts { rates: _, connect_rate: _, most: _, accounts, order: _ } = self;
        let mut count = 0;
        let owing = accounts.iter().filter(|(_, account)| account.forgiven() > now);
        for (peer, Account { paid, connects, listed: _ }) in owing {
            count += 1;
            PeerAddress::from(Some((*peer, 0).into())).save(to);
            paid.save(now, to);
            to.put_left(*connects, now);
        }
        count
    }

    /// The peer has used that in the loop before.
    pub(super) fn take_over(&mut self, used: Used, now: Nanos, counters: &mut Counters) {
        self.charge(used.peer, now, counters, |account| {
            (account.paid, account.connects) = (used.paid, used.connects);
        });
    }

    /// Whether the accounts are kept by the rates of these limits.
    pub(super) fn are_of(&self, limits: &Limits) -> bool {
        (self.rates, self.connect_rate) == (limits.peer_rate, limits.peer_connect_rate)
    }

    /// How much the peer may have now.
    pub(super) fn allow(&self, peer: IpAddr, now: Nanos) -> Share {
        self.rates.allow(self.paid(peer), now)
    }

    fn paid(&self, peer: IpAddr) -> Paid {
        self.accounts.get(&peer).map_or(Paid::default(), |account| account.paid)
    }

    /// Counts a connection that begins, unless that is one too many; says whether it may.
    pub(super) fn begin(&mut self, peer: IpAddr, now: Nanos, counters: &mut Counters) -> bool {
        let Some(rate) = self.connect_rate else { return true };
        let paid = self.accounts.get(&peer).map_or(0, |account| account.connects);
        if rate.allows(paid, now) == 0 {
            return false;
        }
        self.charge(peer, now, counters, |account| {
            account.connects = rate.spend(account.connects, now, 1);
        });
        true
    }

    /// What one waits for that has to wait.
    pub(super) fn wanted(&self, reads: bool) -> Share {
        self.rates.wanted(reads)
    }

    /// When the peer has that much.
    pub(super) fn ready(&self, peer: IpAddr, reads: bool) -> Nanos {
        self.rates.ready(self.paid(peer), self.wanted(reads))
    }

    /// Counts what was used.
    pub(super) fn spend(&mut self, peer: IpAddr, used: Share, now: Nanos, counters: &mut Counters) {
        let rates = self.rates;
        self.charge(peer, now, counters, |account| rates.spend(&mut account.paid, used, now));
    }

    /// Puts something on a peer's account, which is made if there is none.
    fn charge(
        &mut self,
        peer: IpAddr,
        now: Nanos,
        counters: &mut Counters,
        charge: impl FnOnce(&mut Account),
    ) {
        if let Some(account) = self.accounts.get_mut(&peer) {
            return charge(account);
        }
        self.make_room(now, counters);
        let mut account = Account::default();
        charge(&mut account);
        account.listed = account.forgiven();
        self.order.insert((account.listed, peer));
        self.accounts.insert(peer, account);
    }

    /// Forgets some that are forgiven. If there are too many all the same, the one nearest to that
    /// has to go, of those that were looked at.
    fn make_room(&mut self, now: Nanos, counters: &mut Counters) {
        let mut nearest = None;
        for _ in 0..PEERS_CHECKED {
            let Some(&(listed, peer)) = self.order.first() else { return };
            if listed > now && self.accounts.len() < self.most {
                return;
            }
            let forgiven = self.accounts.get(&peer).map_or(0, Account::forgiven);
            if forgiven <= now || forgiven <= listed {
                self.forget(peer, now, counters);
                continue;
            }
            // It has used more since it was listed.
            self.order.pop_first();
            self.order.insert((forgiven, peer));
            self.accounts.entry(peer).and_modify(|account| account.listed = forgiven);
            nearest = nearest.into_iter().chain([(forgiven, peer)]).min();
        }
        if let Some((_, peer)) = nearest.filter(|_| self.accounts.len() >= self.most) {
            self.forget(peer, now, counters);
        }
    }

    fn forget(&mut self, peer: IpAddr, now: Nanos, counters: &mut Counters) {
        if let Some(account) = self.accounts.remove(&peer) {
            self.order.remove(&(account.listed, peer));
            counters.peers_forgotten += u64::from(account.forgiven() > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const LINE: Share = Share { lines: 1, bytes: 0 };

    fn accounts(most: usize) -> PeerAccounts {
        let rate = Rate { per_second: 1, burst: 3 };
        let limits =
            Limits { peer_rate: rate.into(), peer_connect_rate: Some(rate), ..Limits::default() };
        PeerAccounts { most, ..PeerAccounts::new(&limits, 1) }
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn lines(accounts: &PeerAccounts, last: u8, now: Nanos) -> usize {
        accounts.allow(ip(last), now).lines
    }

    fn agrees(accounts: &PeerAccounts) {
        assert_eq!(accounts.accounts.len(), accounts.order.len());
        for (listed, peer) in &accounts.order {
            let account = &accounts.accounts[peer];
            assert!(account.listed == *listed && *listed <= account.forgiven(), "{account:?}");
        }
    }

    #[test]
    fn one_that_has_used_nothing_costs_nothing() {
        let accounts = accounts(2);
        assert_eq!(lines(&accounts, 1, SECOND), 3);
        assert!(accounts.accounts.is_empty());
    }

    #[test]
    fn those_that_are_forgiven_go_as_others_come() {
        let (mut accounts, mut counters) = (accounts(1000), Counters::default());
        for last in 0..200 {
            accounts.spend(ip(last), LINE, SECOND, &mut counters);
        }
        // Two of them have used more, which does not move them before they come to the front.
        for last in [0, 1] {
            accounts.spend(ip(last), Share { lines: 2, ..LINE }, SECOND, &mut counters);
        }
        assert_eq!(accounts.order.first(), Some(&(2 * SECOND, ip(0))));
        for (come, last) in (1..).zip(200..225) {
            accounts.spend(ip(last), LINE, 2 * SECOND, &mut counters);
            assert_eq!(accounts.accounts.len(), 202 + come - PEERS_CHECKED * come);
            agrees(&accounts);
        }
        assert_eq!([0, 1, 2].map(|last| lines(&accounts, last, 2 * SECOND)), [1, 1, 3]);
        assert_eq!(counters.peers_forgotten, 0);
    }

    #[test]
    fn where_there_is_no_room_the_one_nearest_to_forgiven_goes() {
        let (mut accounts, mut counters) = (accounts(3), Counters::default());
        for (last, used) in [(1, 3), (2, 1), (3, 2)] {
            accounts.spend(ip(last), Share { lines: used, bytes: 0 }, SECOND, &mut counters);
        }
        accounts.spend(ip(4), LINE, SECOND, &mut counters);
        assert_eq!((accounts.accounts.len(), counters.peers_forgotten), (3, 1));
        let left = [1, 2, 3, 4].map(|last| lines(&accounts, last, SECOND));
        assert_eq!(left, [0, 3, 1, 2]);
        agrees(&accounts);
        // What was listed early and has used more since is not the one.
        accounts.spend(ip(4), Share { lines: 2, bytes: 0 }, SECOND, &mut counters);
        accounts.spend(ip(5), LINE, SECOND, &mut counters);
        let left = [1, 3, 4, 5].map(|last| lines(&accounts, last, SECOND));
        assert_eq!((left, counters.peers_forgotten), ([0, 3, 0, 2], 2));
        agrees(&accounts);
        // One that is forgiven is not missed.
        accounts.spend(ip(6), LINE, 3 * SECOND, &mut counters);
        assert_eq!((accounts.accounts.len(), counters.peers_forgotten), (3, 2));
        agrees(&accounts);
    }

    #[test]
    fn however_many_have_used_more_a_newcomer_costs_little() {
        let (mut accounts, mut counters) = (accounts(100), Counters::default());
        for _ in 0..2 {
            (0..100).for_each(|last| accounts.spend(ip(last), LINE, SECOND, &mut counters));
        }
        accounts.spend(ip(200), LINE, SECOND, &mut counters);
        let stale = accounts.order.iter().filter(|(listed, _)| *listed == 2 * SECOND).count();
        assert_eq!(stale, 100 - PEERS_CHECKED + 1);
        assert_eq!((accounts.accounts.len(), counters.peers_forgotten), (100, 1));
        agrees(&accounts);
    }

    #[test]
    fn connections_have_an_account_of_their_own() {
        let (mut accounts, mut counters) = (accounts(9), Counters::default());
        let mut begin = |now| accounts.begin(ip(1), now, &mut counters);
        assert_eq!([(); 5].map(|()| begin(SECOND)), [true, true, true, false, false]);
        assert_eq!([(); 2].map(|()| begin(2 * SECOND)), [true, false]);
        assert!(accounts.begin(ip(2), 2 * SECOND, &mut counters));
        assert_eq!(lines(&accounts, 1, 2 * SECOND), 3);
    }
}
