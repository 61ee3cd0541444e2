use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::bus::{Action, Bus, Event, MemberId, News, Told};
use super::encoding::{all, name, put_all};
use super::names::{Name, Names};
use crate::{Decoder, Encoder, Unreadable};

/// The bus inside one process: everything is heard at once, in the order in which it comes.
#[derive(Debug, Default)]
pub struct InProcess {
    members: HashMap<MemberId, Member>,
    /// How many have come so far.
    arrivals: u64,
    names: Names,
    /// Who is there, by arrival, if nothing has changed since somebody asked.
    list: Option<Arc<[Option<String>]>>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Member {
    /// Its place among those who have come.
    place: u64,
    name: Option<Box<Name>>,
}

impl InProcess {
    /// One without members.
    pub fn new() -> InProcess {
        InProcess::default()
    }

    /// The same, where no two members have the same name: [`Told::NameTaken`]. What is compared is that of
    /// [`Presence::unique_names`](crate::services::Presence::unique_names).
    pub fn unique_names(self) -> InProcess {
        InProcess { names: Names::unique(), ..self }
    }

    fn hello(&mut self, member: MemberId, name: Option<String>) -> Option<Action> {
        let name = name.map(|name| self.names.name(name));
        if let Some(name) = name.as_ref().filter(|name| self.names.is_taken(name, member)) {
            return Some(Action::To(member, Told::NameTaken(name.shown.clone())));
        }
        let news = News::Named { name: name.as_ref().map(|name| name.shown.clone()) };
        let named = self.members.get_mut(&member)?;
        self.list = None;
        let former = std::mem::replace(&mut named.name, name);
        self.names.rename(member, former.as_deref(), named.name.as_deref());
        Some(Action::ToAll { news, by: Some(member) })
    }

    fn leave(&mut self, member: MemberId) -> Option<Action> {
        let left = self.members.remove(&member)?;
        self.list = None;
        self.names.rename(member, left.name.as_deref(), None);
        let news = News::Left { name: left.name.map(|name| name.shown) };
        Some(Action::ToAll { news, by: None })
    }

    fn who(&mut self) -> Told {
        let members = &self.members;
        let list = self.list.get_or_insert_with(|| {
            let mut members: Vec<_> = members.values().collect();
            members.sort_unstable_by_key(|member| member.place);
            members.into_iter().map(Member::shown).collect()
        });
        Told::Who(Arc::clone(list))
    }
}

impl Bus for InProcess {
    fn event(&mut self, member: MemberId, event: Event, _now: Instant) {
        let name = self.members.get(&member).map(Member::shown);
        let to_all = |news| Some(Action::ToAll { news, by: Some(member) });
        let action = match (event, name) {
            (Event::Arrive, None) => {
                self.arrivals += 1;
                self.list = None;
                self.members.insert(member, Member { place: self.arrivals, name: None });
                Some(Action::ToOthers(member, News::Arrived))
            }
            // Twice the first, or what comes before it or after the last.
            (Event::Arrive, Some(_)) | (_, None) => None,
            (Event::Hello(name), _) => self.hello(member, name),
            (Event::Say(text), Some(name)) => to_all(News::Said { name, text }),
            (Event::Bye, Some(name)) => to_all(News::Leaving { name }),
            (Event::Who, _) => Some(Action::To(member, self.who())),
            (Event::Answer(line), _) => Some(Action::To(member, Told::Line(line))),
            (Event::Leave, _) => self.leave(member),
        };
        self.actions.extend(action);
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn save(&self, _now: Instant, to: &mut Encoder) -> Option<()> {
        let InProcess { members, arrivals, names: _, list: _, actions } = self;
        put_all(to, members.iter(), |to, (id, Member { place, name })| {
            to.put_number(*id);
            to.put_number(*place);
            to.put_option(name.as_ref(), |to, name| to.put_text(&name.shown));
        });
        to.put_number(*arrivals);
        put_all(to, actions.iter(), |to, action| action.save(to));
        Some(())
    }

    fn restore(&mut self, from: &mut Decoder<'_>, _now: Instant) -> Result<(), Unreadable> {
        let mut names = self.names.none();
        let mut saved: Vec<(_, _, Option<String>)> =
            all(from, |from| Ok((from.number()?, from.number()?, name(from)?)))?;
        saved.sort_unstable_by_key(|(_, place, _)| *place);
        let mut members = HashMap::new();
        for (id, place, name) in saved {
            let name = name.map(|name| names.name(name));
            // Names may be unique only since now: then whoever came first keeps the name.
            let name = name.filter(|name| !names.is_taken(name, id));
            names.rename(id, None, name.as_deref());
            members.insert(id, Member { place, name });
        }
        let (arrivals, actions) = (from.number()?, all(from, Action::restore)?);
        *self = InProcess { members, arrivals, names, list: None, actions };
        Ok(())
    }
}

impl Member {
    fn shown(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.shown.clone())
    }
}
