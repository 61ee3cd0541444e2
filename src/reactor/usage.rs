//! What each connection of a service has done so far: a table beside the connections, which is there
//! only while somebody wants it.

use std::time::Duration;

use super::loop_state::LoopState;
use super::status::Usage;
use super::table::Table;
use crate::connection::clock::Nanos;
use crate::connection::{ConnId, Decoder, Encoder, Unreadable};

/// The accounts, each at its connection's slot; none unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Option<Vec<Account>>);

/// What one connection has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// When it was opened.
    since: Nanos,
    lines_in: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Accounts {
    /// Opens accounts for so many slots that are there, or drops all.
    pub(super) fn keep(&mut self, on: bool, slots: usize, now: Nanos) {
        match on {
            true if self.0.is_some() => {}
            true => self.0 = Some(vec![Account { since: now, ..Account::default() }; slots]),
            false => self.0 = None,
        }
    }

    /// Whether somebody wants to know.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// A connection begins.
    pub(super) fn begin(&mut self, id: ConnId, now: Nanos) {
        if let Some(accounts) = &mut self.0 {
            let account = Account { since: now, ..Account::default() };
            match accounts.get_mut(id.slot()) {
                Some(place) => *place = account,
                None => accounts.resize(id.slot() + 1, account),
            }
        }
    }

    /// Writes down what the connection has done, if anybody has kept that.
    pub(super) fn save(&self, id: ConnId, now: Nanos, to: &mut Encoder) {
        let account = self.0.as_ref().and_then(|accounts| accounts.get(id.slot()));
        to.put_option(account, |to, Account { since, lines_in, bytes_in, bytes_out }| {
            to.put_age(*since, now);
            [lines_in, bytes_in, bytes_out].into_iter().for_each(|count| to.put_number(*count));
        });
    }

    /// Reads what [`save`](Self::save) has written.
    pub(super) fn read(from: &mut Decoder<'_>, now: Nanos) -> Result<Option<Account>, Unreadable> {
        from.option(|from| {
            Ok(Account {
                since: from.since(now)?,
                lines_in: from.number()?,
                bytes_in: from.number()?,
                bytes_out: from.number()?,
            })
        })
    }

    /// A connection goes on that another loop has had.
    pub(super) fn go_on(&mut self, id: ConnId, account: Option<Account>, now: Nanos) {
        self.begin(id, now);
        if let Some((own, before)) = self.of(id).zip(account) {
            *own = before;
        }
    }

    /// No connection is left: the memory of a crowd is given back.
    pub(super) fn clear(&mut self) {
        if let Some(accounts) = &mut self.0 {
            *accounts = Vec::new();
        }
    }

    /// The kernel has taken output of the connection's.
    #[inline]
    pub(super) fn count_output(&mut self, id: ConnId, bytes: usize) {
        if let Some(account) = self.of(id) {
            account.bytes_out += bytes as u64;
        }
    }

    /// The connection's account, if there is one.
    #[inline]
    fn of(&mut self, id: ConnId) -> Option<&mut Account> {
        self.0.as_mut()?.get_mut(id.slot())
    }

    /// The connection's account, as it is shown.
    pub(super) fn usage(&self, id: ConnId, now: Nanos) -> Option<Usage> {
        let Account { since, lines_in, bytes_in, bytes_out } = *self.0.as_ref()?.get(id.slot())?;
        let age = Duration::from_nanos(now.saturating_sub(since));
        Some(Usage { age, lines_in, bytes_in, bytes_out })
    }
}

/// What comes in counts for the service, and for the connection where accounts are kept.
impl<S> Table<S> {
    #[inline]
    pub(super) fn count_input(&mut self, id: ConnId, bytes: usize, state: &mut LoopState) {
        state.counters(self.service).bytes_in += bytes as u64;
        if let Some(account) = self.accounts.of(id) {
            account.bytes_in += bytes as u64;
        }
    }

    #[inline]
    pub(super) fn count_lines(&mut self, id: ConnId, lines: u64, state: &mut LoopState) {
        state.counters(self.service).lines_in += lines;
        if let Some(account) = self.accounts.of(id) {
            account.lines_in += lines;
        }
    }
}
