//! A long list of names that is cheap to append to another, to copy and to throw away.
//!
//! Half a million names in as many `String`s would be half a million allocations to make, and to
//! free in one turn when somebody says CLEAR. So the names lie in chunks of about a thousand: their
//! text in a row, and where each ends. Copies of a list share its chunks. A shared chunk is copied
//! before it is changed.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// Bytes that the names of one chunk take at the most, unless a single name takes more. To change a
/// shared chunk copies so much, and one piece of a LIST is made of so much.
const CHUNK: usize = 32 * 1024;
/// Bytes that a name takes besides its text: where it ends.
const END: usize = size_of::<u32>();

/// There is no room for so many students; see [`Roulette::new`](super::Roulette::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for so many students")]
pub struct Full;

/// Names in their order. A list and all that are made of it, by [`empty`](Self::empty) or by a clone,
/// have one bound of memory together. What they share counts once.
#[derive(Clone)]
pub(super) struct Names {
    /// With each chunk the number of names up to its end.
    chunks: Vec<(usize, Rc<Chunk>)>,
    /// The bound, in bytes.
    memory: usize,
    /// How much of it is used.
    used: Rc<Cell<usize>>,
}

impl Names {
    /// An empty list with room for `memory` bytes of names.
    pub(super) fn new(memory: usize) -> Names {
        Names { chunks: Vec::new(), memory, used: Rc::default() }
    }

    /// An empty list under the same bound.
    pub(super) fn empty(&self) -> Names {
        Names { chunks: Vec::new(), memory: self.memory, used: Rc::clone(&self.used) }
    }

    /// The bound of memory, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |(upto, _)| *upto)
    }

    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let chunk = self.chunks.partition_point(|(upto, _)| *upto <= index);
        let (upto, chunk) = self.chunks.get(chunk)?;
        chunk.get(index + chunk.ends.len() - upto)
    }

    /// The names of one of the [`pieces`](Self::pieces), whose size is bounded: so that not all is
    /// done at once.
    pub(super) fn piece(&self, number: usize) -> impl Iterator<Item = &str> {
        self.chunks.get(number).into_iter().flat_map(|(_, chunk)| chunk.names())
    }

    pub(super) fn pieces(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn push(&mut self, name: &str) -> Result<(), Full> {
        let left = self.memory.saturating_sub(self.used.get());
        if weight(name) > left || u32::try_from(name.len()).is_err() {
            return Err(Full);
        }
        self.add(name);
        Ok(())
    }

    /// Appends another list. It costs a step for each chunk, not for each name.
    pub(super) fn append(&mut self, more: Names) {
        let mut more = more.chunks.into_iter();
        let mut first = more.next();
        // Many short lists must not become many small chunks.
        if let (Some((_, last)), Some((_, chunk))) = (self.chunks.last(), &first)
            && last.weight() + chunk.weight() <= CHUNK
        {
            chunk.names().for_each(|name| self.add(name));
            first = None;
        }
        for (_, chunk) in first.into_iter().chain(more) {
            self.chunks.push((self.len() + chunk.ends.len(), chunk));
        }
    }

    fn add(&mut self, name: &str) {
        match self.chunks.last_mut() {
            Some((_, last)) if last.weight() + weight(name) <= CHUNK => {}
            last => {
                if let Some(full) = last.and_then(|(_, last)| Rc::get_mut(last)) {
                    full.text.shrink_to_fit();
                    full.ends.shrink_to_fit();
                }
                self.chunks.push((self.len(), Rc::new(Chunk::new(&self.used))));
            }
        }
        if let Some((upto, last)) = self.chunks.last_mut() {
            *upto += 1;
            Rc::make_mut(last).add(name);
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The bytes of memory that a name takes.
fn weight(name: &str) -> usize {
    name.len() + END
}

struct Chunk {
    /// The names, with nothing in between.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// The weight of all chunks under one bound.
    used: Rc<Cell<usize>>,
}

impl Chunk {
    fn new(used: &Rc<Cell<usize>>) -> Chunk {
        Chunk { text: String::new(), ends: Vec::new(), used: Rc::clone(used) }
    }

    fn weight(&self) -> usize {
        self.text.len() + self.ends.len() * END
    }

    fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start as usize..end as usize])
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).filter_map(|index| self.get(index))
    }

    /// Appends a name, which must fit: see [`CHUNK`].
    fn add(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len() as u32);
        self.used.set(self.used.get() + weight(name));
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        self.used.set(self.used.get() + self.weight());
        Chunk { text: self.text.clone(), ends: self.ends.clone(), used: Rc::clone(&self.used) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.weight());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &Names) -> Vec<String> {
        (0..of.pieces()).flat_map(|number| of.piece(number)).map(str::to_owned).collect()
    }

    fn numbered(store: &Names, range: std::ops::Range<usize>) -> Names {
        let mut list = store.empty();
        range.for_each(|n| list.push(&format!("student {n}")).unwrap());
        list
    }

    #[test]
    fn every_name_is_found_by_its_number_whatever_the_lists_it_came_in() {
        let mut store = Names::new(usize::MAX);
        let mut wanted = Vec::new();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let mut list = store.empty();
            for _ in 0..random.usize(..3000) {
                // Now and then one that is a chunk by itself, often an empty one.
                let length = if random.u32(..5000) == 0 { 2 * CHUNK } else { random.usize(..20) };
                let name = "é".repeat(length / 2);
                list.push(&name).unwrap();
                wanted.push(name);
            }
            store.append(list);
        }
        assert_eq!(store.len(), wanted.len());
        assert!(names(&store) == wanted);
        let found = (0..wanted.len()).map(|index| store.get(index).unwrap());
        assert!(found.eq(&wanted));
        assert_eq!((store.get(wanted.len()), store.get(usize::MAX)), (None, None));
        assert_eq!(Names::new(0).get(0), None);
    }

    #[test]
    fn a_long_list_is_appended_as_it_lies() {
        let mut store = Names::new(usize::MAX);
        store.append(numbered(&store, 0..10_000));
        let list = numbered(&store, 0..100_000);
        let lay: Vec<_> = list.chunks.iter().map(|(_, chunk)| Rc::as_ptr(chunk)).collect();
        store.append(list);
        let lies = store.chunks.iter().map(|(_, chunk)| Rc::as_ptr(chunk));
        assert!(lies.skip(store.pieces() - lay.len()).eq(lay));
    }

    #[test]
    fn many_short_lists_fill_the_chunks() {
        let mut store = Names::new(usize::MAX);
        for n in 0..10_000 {
            store.append(numbered(&store, n..n + 1));
        }
        assert_eq!(store.pieces(), numbered(&store, 0..10_000).pieces());
        assert_eq!(names(&store), names(&numbered(&store, 0..10_000)));
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut store = Names::new(usize::MAX);
        store.append(numbered(&store, 0..3));
        let copy = store.clone();
        store.append(numbered(&store, 3..5000));
        assert_eq!((copy.len(), store.len()), (3, 5000));
        assert_eq!(names(&copy), ["student 0", "student 1", "student 2"]);
        assert_eq!(names(&store), names(&numbered(&store, 0..5000)));
    }

    #[test]
    fn all_lists_together_keep_within_the_memory() {
        let mut store = Names::new(100 * (END + 4));
        let fill = |list: &mut Names| {
            let mut count = 0;
            while list.push("four").is_ok() {
                count += 1;
            }
            count
        };
        let mut one = store.empty();
        assert_eq!(fill(&mut one), 100);
        let mut two = store.empty();
        assert_eq!(two.push("four"), Err(Full));
        drop(one);
        assert_eq!(fill(&mut two), 100);
        store.append(two);
        // A copy takes nothing as long as it is the same, and keeps what the other gives up.
        let copy = store.clone();
        assert_eq!(store.push(""), Err(Full));
        store = store.empty();
        assert_eq!(store.push(""), Err(Full));
        drop(copy);
        assert_eq!(fill(&mut store), 100);
        assert_eq!(store.used.get(), store.memory());
        store = store.empty();
        assert_eq!(store.used.get(), 0);
    }

    #[test]
    fn a_full_chunk_has_no_capacity_to_spare() {
        let list = numbered(&Names::new(usize::MAX), 0..10_000);
        for (_, chunk) in &list.chunks[..list.pieces() - 1] {
            assert_eq!(chunk.text.capacity() + chunk.ends.capacity() * END, chunk.weight());
            assert!(chunk.weight() > CHUNK - 20 && chunk.weight() <= CHUNK);
        }
    }
}
