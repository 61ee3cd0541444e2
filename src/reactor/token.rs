//! What the selector and the timers carry for a connection, a listener or a service.

use crate::connection::ConnId;
use crate::connection::id::{SLOT_BITS, SLOT_MASK};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a token holds a slot, a service and a generation: that takes 64-bit pointers");

/// Services that one reactor can hold; the last numbers are for the loop's own tokens.
pub(crate) const MOST_SERVICES: usize = 250;

/// The generation of listeners and services; serial numbers never have it in their low half.
const NOT_A_CONNECTION: u64 = 0;

/// A service's number, a slot, and a generation: the low half of the connection's serial number, so
/// that what belongs to a closed connection cannot reach the next one in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

/// Hands out serial numbers, one for the whole reactor. Of several cores each has the numbers with a
/// remainder of its own, so that no two have the same.
#[derive(Debug)]
pub(crate) struct Serials {
    last: u64,
    step: u64,
}

impl Token {
    pub(crate) const WAKER: Token = Token(u64::MAX);
    #[cfg(feature = "signals")]
    pub(crate) const SIGNALS: Token = Token(u64::MAX - 1);

    pub(crate) fn connection(service: usize, id: ConnId) -> Token {
        Token::pack(service, id.slot(), id.number())
    }

    pub(crate) fn listener(service: usize, number: usize) -> Token {
        Token::pack(service, number, NOT_A_CONNECTION)
    }

    fn pack(service: usize, slot: usize, generation: u64) -> Token {
        Token(generation << 32 | (service as u64) << SLOT_BITS | slot as u64)
    }

    pub(crate) fn service(self) -> usize {
        (self.0 >> SLOT_BITS & 0xff) as usize
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & SLOT_MASK) as usize
    }

    pub(crate) fn is_connection(self) -> bool {
        self.0 >> 32 != NOT_A_CONNECTION
    }

    /// The low half of a connection's number: all of it, for the first four billion. None for a
    /// listener.
    pub(super) fn generation(self) -> Option<u64> {
        self.is_connection().then_some(self.0 >> 32)
    }

    pub(crate) fn names(self, id: ConnId) -> bool {
        self.0 >> 32 == id.number() & 0xffff_ffff && self.slot() == id.slot()
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> mio::Token {
        mio::Token(token.0 as usize)
    }
}

impl From<mio::Token> for Token {
    fn from(token: mio::Token) -> Token {
        Token(token.0 as u64)
    }
}

impl Default for Serials {
    fn default() -> Serials {
        Serials { last: 0, step: 1 }
    }
}

impl Serials {
    /// Those of one of so many cores, the first of which is 0.
    pub(crate) fn of_core(core: usize, cores: usize) -> Serials {
        let (core, step) = (core as u64, cores as u64);
        // The first number of the first core is 1, as it is of one that is alone.
        let first = core + 1;
        Serials { last: first.wrapping_sub(step), step }
    }

    /// The last one that was given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What the last one is once so many more were given.
    pub(super) fn last_after(&self, count: usize) -> u64 {
        let mut later = Serials { ..*self };
        (0..count).for_each(|_| _ = later.next());
        later.last
    }

    /// Gives only later ones than this, which the same core of another process has given.
    pub(super) fn go_on_after(&mut self, last: u64) {
        self.last = last;
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.last = self.last.wrapping_add(self.step);
        if self.last & 0xffff_ffff == NOT_A_CONNECTION {
            self.last += self.step;
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_incarnation_only() {
        let first = ConnId::new(7, 3);
        let token = Token::connection(5, first);
        assert_eq!((token.service(), token.slot()), (5, 3));
        assert!(token.is_connection() && token.names(first));
        assert!(!token.names(ConnId::new(8, 3)));
        assert!(!token.names(ConnId::new(7, 4)));
        assert!(!Token::listener(5, 3).is_connection());
    }

    #[test]
    fn serials_never_look_like_a_listener() {
        let mut serials = Serials { last: 0xffff_fffe, step: 1 };
        assert_eq!((serials.last_after(0), serials.last_after(2)), (0xffff_fffe, 0x1_0000_0001));
        assert_eq!(serials.next(), 0xffff_ffff);
        assert_eq!(serials.next(), 0x1_0000_0001);
    }

    #[test]
    fn no_two_cores_have_the_same_serials() {
        let mut seen = Vec::new();
        for core in 0..3 {
            let mut serials = Serials::of_core(core, 3);
            seen.extend((0..3).map(|_| serials.next()));
        }
        assert_eq!(seen, [1, 4, 7, 2, 5, 8, 3, 6, 9]);
        // The low half of each is 0 once in a while.
        let mut serials = Serials { last: 0xffff_fffd, step: 3 };
        assert_eq!(serials.next(), 0x1_0000_0003);
    }

    #[test]
    fn ids_order_by_arrival_whatever_the_slot() {
        assert!(ConnId::new(1, 900) < ConnId::new(2, 0));
    }
}
