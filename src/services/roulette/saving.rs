//! What another process goes on with: the store, the names of LOADs that have not ended, and what is left of LISTs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::names::{Full, Names};
use super::reply::Listing;
use super::{Roulette, Session};
use crate::{Decoder, Encoder, Unreadable};

/// Stores that were cleared while clients list them: what is still to be sent of each, and how many names were before.
/// The keys only tell them apart.
pub(super) type Cleared = BTreeMap<u64, (usize, Rc<RefCell<Names>>)>;

impl Names {
    fn save(&self, range: Range<usize>, to: &mut Encoder) {
        to.put_number(range.len() as u64);
        range.filter_map(|index| self.get(index)).for_each(|name| to.put_text(name));
    }

    /// Reads what was written, at the end of this list.
    fn restore(mut self, from: &mut Decoder<'_>) -> Result<Names, Unreadable> {
        for _ in 0..from.number()? {
            self.push(from.text()?).map_err(|Full| Unreadable("no room for so many students"))?;
        }
        Ok(self)
    }
}

impl Listing {
    /// Tells its store apart from all others, if that is not this one.
    fn cleared(&self, store: &Rc<RefCell<Names>>) -> Option<u64> {
        let other = !Rc::ptr_eq(&self.students, store);
        other.then(|| Rc::as_ptr(&self.students).addr() as u64)
    }
}

impl Roulette {
    pub(super) fn save_store<'s>(
        &self,
        clients: impl Iterator<Item = &'s Session>,
        to: &mut Encoder,
    ) {
        let Roulette { version: _, students, random, cleared: _ } = self;
        to.put_number(random.get_seed());
        let names = students.borrow();
        names.save(0..names.len(), to);
        // Each of them once, however many clients list it: a copy for each client might have no room.
        let mut cleared: BTreeMap<u64, (&Listing, Range<usize>)> = BTreeMap::new();
        for list in clients.filter_map(|client| client.list.as_deref()) {
            if let Some(key) = list.cleared(students)
                && let Some(left) = &list.left
            {
                let (_, all) = cleared.entry(key).or_insert((list, left.clone()));
                *all = all.start.min(left.start)..all.end.max(left.end);
            }
        }
        to.put_number(cleared.len() as u64);
        for (key, (Listing { students, before, left: _ }, all)) in cleared {
            to.put_number(key);
            to.put_number(all.start as u64);
            students.borrow().save(all.start - before..all.end - before, to);
        }
    }

    /// In the place of what this one has loaded itself.
    pub(super) fn restore_store(&mut self, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        let seed = from.number()?;
        let memory = self.students.borrow().memory();
        let students = Names::new(memory).restore(from)?;
        let mut cleared = Cleared::new();
        for _ in 0..from.number()? {
            let (key, before) = (from.number()?, from.size()?);
            let names = students.empty().restore(from)?;
            cleared.insert(key, (before, Rc::new(RefCell::new(names))));
        }
        self.students = Rc::new(RefCell::new(students));
        self.random = fastrand::Rng::with_seed(seed);
        self.cleared = cleared;
        Ok(())
    }

    pub(super) fn save_client(&self, session: &Session, to: &mut Encoder) {
        let Session { commands, load, list } = session;
        to.put_number(*commands);
        to.put_option(load.as_deref(), |to, load| {
            to.put_option(load.as_ref().ok(), |to, names| names.save(0..names.len(), to));
        });
        to.put_option(list.as_deref(), |to, list| {
            to.put_option(list.left.clone(), |to, left| {
                to.put_number(left.start as u64);
                to.put_number(left.end as u64);
                to.put_option(list.cleared(&self.students), Encoder::put_number);
            });
        });
    }

    pub(super) fn restore_client(&self, from: &mut Decoder<'_>) -> Result<Session, Unreadable> {
        let empty = || self.students.borrow().empty();
        let commands = from.number()?;
        let load = from.option(|from| {
            let names = from.option(|from| empty().restore(from))?;
            Ok(Box::new(names.ok_or(Full)))
        })?;
        let list = from.option(|from| {
            let left = from
                .option(|from| Ok((from.size()?..from.size()?, from.option(Decoder::number)?)))?;
            let mut list = Listing::new(&self.students);
            list.left = match left {
                Some((left, cleared)) => self.left_of(&mut list, left, cleared)?,
                None => None,
            };
            Ok(Box::new(list))
        })?;
        Ok(Session { commands, load, list })
    }

    /// What is left of a list, which is of a store that was cleared if it has a key.
    fn left_of(
        &self,
        list: &mut Listing,
        left: Range<usize>,
        cleared: Option<u64>,
    ) -> Result<Option<Range<usize>>, Unreadable> {
        if let Some(key) = cleared {
            // It is not there for a client that is being closed, and is sent no more.
            let Some((before, students)) = self.cleared.get(&key) else { return Ok(None) };
            (list.before, list.students) = (*before, Rc::clone(students));
        }
        let there = list.before.saturating_add(list.students.borrow().len());
        if left.start < list.before || left.start > left.end || left.end > there {
            return Err(Unreadable("a list of more than there is"));
        }
        Ok(Some(left))
    }
}
