//! What another process goes on with: the store, the names of LOADs that have not ended, and what is left of LISTs.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::names::{Full, Names};
use super::reply::Listing;
use super::{Roulette, Session};
use crate::{Decoder, Encoder, Unreadable};

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

impl Roulette {
    pub(super) fn save_store(&self, to: &mut Encoder) {
        let Roulette { version: _, students, random } = self;
        to.put_number(random.get_seed());
        let students = students.borrow();
        students.save(0..students.len(), to);
    }

    /// In the place of what this one has loaded itself.
    pub(super) fn restore_store(&mut self, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        let seed = from.number()?;
        let memory = self.students.borrow().memory();
        let students = Names::new(memory).restore(from)?;
        self.students = Rc::new(RefCell::new(students));
        self.random = fastrand::Rng::with_seed(seed);
        Ok(())
    }

    pub(super) fn save_client(&self, session: &Session, to: &mut Encoder) {
        let Session { commands, load, list } = session;
        to.put_number(*commands);
        to.put_option(load.as_deref(), |to, load| {
            to.put_option(load.as_ref().ok(), |to, names| names.save(0..names.len(), to));
        });
        to.put_option(list.as_deref(), |to, list| {
            let Listing { students, before, left } = list;
            to.put_option(left.clone(), |to, left| {
                to.put_number(left.start as u64);
                to.put_number(left.end as u64);
                // Of a store that was cleared since, nobody else knows the names.
                let own = !Rc::ptr_eq(students, &self.students);
                let names = students.borrow();
                to.put_option(own.then_some(names), |to, names| {
                    names.save(left.start - before..left.end - before, to);
                });
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
            let left = from.option(|from| {
                let range = from.size()?..from.size()?;
                let own = from.option(|from| empty().restore(from))?;
                Ok((range, own))
            })?;
            let mut list = Listing::new(&self.students);
            list.left = None;
            if let Some((range, own)) = left {
                if let Some(own) = own {
                    (list.students, list.before) = (Rc::new(RefCell::new(own)), range.start);
                }
                let there = list.before + list.students.borrow().len();
                if range.start > range.end || range.end > there {
                    return Err(Unreadable("a list of more than there is"));
                }
                list.left = Some(range);
            }
            Ok(Box::new(list))
        })?;
        Ok(Session { commands, load, list })
    }
}
