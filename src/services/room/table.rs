//! Who is in the room, as one server knows it, and the news that each change is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::bus::News;
use super::encoding::{all, put_all, put_since, since};
use super::entry::{Content, Here, Member, ServerId, believed_name};
use super::names::{NOBODYS, folded};
use crate::services::redis::Reply;
use crate::{Decoder, Encoder, Unreadable};

/// How many servers are remembered; of those that are gone, the ones of long ago are forgotten.
const MOST_SERVERS: usize = 4096;
/// How many members of other servers are believed.
pub(super) const MOST_MEMBERS: usize = 1 << 20;

/// What is known of a server.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Its current life, or its last one.
    pub life: u64,
    /// It is not gone.
    pub alive: bool,
    /// The number of its last entry that was heeded.
    pub last: u64,
    /// The number of its last `Here` that was heeded.
    pub here: u64,
    /// How many lines it has told of that were said among its members only.
    pub said: u64,
    /// Its members, by its own numbers of them.
    pub members: BTreeMap<u64, Member>,
    /// Since when its lease has not been there.
    pub missing: Option<Instant>,
}

impl Server {
    /// The server of a record, as a server that joins finds it.
    fn from_record(life: u64, record: &Reply) -> Server {
        let mut server = Server { life, alive: true, ..Server::default() };
        for (field, value) in record.pairs() {
            let number = crate::text::parse::<u64>(value);
            match (field, number, crate::text::parse(field)) {
                (b"last", Some(last), _) => server.last = last,
                (b"here", Some(here), _) => server.here = here,
                (b"said", Some(said), _) => server.said = said,
                (_, Some(order), Some(id)) => {
                    server.members.insert(id, Member { name: None, order });
                }
                _ => {}
            }
        }
        for (field, value) in record.pairs() {
            let id = field.strip_suffix(b".name").and_then(crate::text::parse::<u64>);
            if let Some(member) = id.and_then(|id| server.members.get_mut(&id)) {
                member.name = believed_name(value);
            }
        }
        server
    }

    fn save(&self, now: Instant, to: &mut Encoder) {
        let Server { life, alive, last, here, said, members, missing } = self;
        [life, last, here, said].into_iter().for_each(|number| to.put_number(*number));
        to.put_flag(*alive);
        to.put_option(*missing, |to, at| put_since(to, at, now));
        put_all(to, members.iter(), |to, (id, member)| {
            to.put_number(*id);
            member.save(to);
        });
    }

    fn restore(from: &mut Decoder<'_>, now: Instant) -> Result<Server, Unreadable> {
        let (life, last) = (from.number()?, from.number()?);
        let (here, said, alive) = (from.number()?, from.number()?, from.flag()?);
        let missing = from.option(|from| since(from, now))?;
        let members = all(from, |from| Ok((from.number()?, Member::restore(from)?)))?;
        Ok(Server { life, alive, last, here, said, members, missing })
    }
}

/// Everybody who is known to be there.
#[derive(Debug)]
pub(super) struct Table {
    /// This one.
    own: ServerId,
    /// The servers, this one included, and those that are gone.
    servers: BTreeMap<ServerId, Server>,
    /// The highest order of a member so far.
    order: u64,
    /// How many members all servers have.
    members: usize,
    /// What is [compared](folded) of each name, and whose it is; none if any number may have the same.
    names: Option<BTreeSet<(String, ServerId, u64)>>,
    /// WHO's answer, until somebody comes, goes or changes its name.
    list: Option<Arc<[Option<String>]>>,
}

/// What comes of an entry's content.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What everybody hears, but for a newcomer itself.
    pub news: Option<News>,
    /// A HELLO was refused: somebody has that name.
    pub taken: Option<String>,
}

impl Table {
    /// A room with one server, which has nobody.
    pub(super) fn new(own: ServerId, unique_names: bool) -> Table {
        let servers = [(own, Server { life: 1, alive: true, ..Server::default() })].into();
        let names = unique_names.then(BTreeSet::new);
        Table { own, servers, order: 0, members: 0, names, list: None }
    }

    pub(super) fn save(&self, now: Instant, to: &mut Encoder) {
        let Table { own: _, servers, order, members: _, names: _, list: _ } = self;
        put_all(to, servers.iter(), |to, (id, server)| {
            id.save(to);
            server.save(now, to);
        });
        to.put_number(*order);
    }

    /// Reads it into a room of that server, which is among them.
    pub(super) fn restore(
        own: ServerId,
        unique_names: bool,
        from: &mut Decoder<'_>,
        now: Instant,
    ) -> Result<Table, Unreadable> {
        let mut table = Table::new(own, unique_names);
        let servers: BTreeMap<_, _> =
            all(from, |from| Ok((ServerId::restore(from)?, Server::restore(from, now)?)))?;
        if !servers.contains_key(&own) {
            return Err(Unreadable("a room without its own server"));
        }
        for (id, mut server) in servers {
            let members = std::mem::take(&mut server.members);
            table.servers.insert(id, server);
            for (number, member) in members {
                table.change(id, number, Some(member));
            }
        }
        table.order = table.order.max(from.number()?);
        Ok(table)
    }

    /// The servers, this one included, and those that are gone.
    pub(super) fn servers(&self) -> &BTreeMap<ServerId, Server> {
        &self.servers
    }

    /// What is known of a server besides its members.
    pub(super) fn server(&mut self, id: ServerId) -> Option<&mut Server> {
        self.servers.get_mut(&id)
    }

    /// What is known of a member.
    pub(super) fn member(&self, server: ServerId, member: u64) -> Option<&Member> {
        self.servers.get(&server)?.members.get(&member)
    }

    /// WHO's answer: by order; of two with the same, which happens when they come to two servers at
    /// once, the servers' names decide.
    pub(super) fn who(&mut self) -> Arc<[Option<String>]> {
        let make = || {
            let there = self.servers.iter().filter(|(_, server)| server.alive);
            let mut members: Vec<_> = there
                .flat_map(|(id, server)| server.members.iter().map(move |it| (it.1.order, id, it)))
                .collect();
            members.sort_unstable_by_key(|(order, server, (member, _))| (*order, *server, *member));
            members.into_iter().map(|(_, _, (_, member))| member.name.clone()).collect()
        };
        Arc::clone(self.list.get_or_insert_with(make))
    }

    /// A place behind all others.
    pub(super) fn next_order(&mut self) -> u64 {
        self.order = self.order.saturating_add(1);
        self.order
    }

    /// Takes a server as a record shows it. Of two lives the later one counts.
    pub(super) fn join(&mut self, id: ServerId, life: u64, record: &Reply) -> Vec<News> {
        if self.servers.get(&id).is_some_and(|known| known.life >= life) || !self.has_place(id) {
            return Vec::new();
        }
        let mut server = Server::from_record(life, record);
        let members = std::mem::take(&mut server.members);
        self.replace_members(id, BTreeMap::new());
        self.servers.insert(id, server);
        let members = self.replace_members(id, members).1;
        members.iter().map(arrival).collect()
    }

    /// Puts a member there, or takes it away; what it was before. All changes of members come here.
    fn change(&mut self, id: ServerId, member: u64, to: Option<Member>) -> Option<Member> {
        self.list = None;
        self.order = to.as_ref().map_or(self.order, |to| self.order.max(to.order));
        let name = |of: &Option<Member>| Some((folded(of.as_ref()?.name.as_deref()?), id, member));
        let new = self.names.is_some().then(|| name(&to)).flatten();
        let members = &mut self.servers.entry(id).or_default().members;
        let is_there = to.is_some();
        let before = match to {
            Some(to) => members.insert(member, to),
            None => members.remove(&member),
        };
        self.members += usize::from(is_there);
        self.members -= usize::from(before.is_some());
        if let Some(names) = &mut self.names {
            name(&before).map(|name| names.remove(&name));
            names.extend(new);
        }
        before
    }

    /// Gives a server other members: those that are gone, and those that are new or have another name.
    fn replace_members(
        &mut self,
        id: ServerId,
        mut now: BTreeMap<u64, Member>,
    ) -> (Vec<Member>, Vec<Member>) {
        let known = self.servers.get(&id).map(|server| &server.members);
        let known = known.into_iter().flat_map(BTreeMap::keys);
        let gone: Vec<_> = known.filter(|member| !now.contains_key(member)).copied().collect();
        let gone = gone.into_iter().filter_map(|member| self.change(id, member, None)).collect();
        let kept = self.servers.get(&id).map_or(0, |server| server.members.len());
        let most = MOST_MEMBERS.saturating_sub(self.members - kept);
        while now.len() > most {
            now.pop_last();
        }
        let news = now.into_iter().filter_map(|(number, member)| {
            let before = self.change(id, number, Some(member.clone()));
            before.is_none_or(|before| before.name != member.name).then_some(member)
        });
        let news = news.collect();
        (gone, news)
    }

    /// Whether somebody else has a name that looks like this one.
    fn is_taken(&self, name: &str, by: (ServerId, u64)) -> bool {
        let Some(names) = &self.names else { return false };
        let compared = folded(name);
        let first = (compared.clone(), ServerId(0), 0);
        let mut owners = names.range(first..).take_while(|owner| owner.0 == compared);
        compared == NOBODYS || owners.any(|(_, server, member)| (*server, *member) != by)
    }

    /// What a server's entry about one of its members changes, and what is heard of it.
    pub(super) fn apply(&mut self, id: ServerId, content: &Content) -> Outcome {
        // Who has which name is decided in the stream where it must be; elsewhere the entry knows it,
        // even if the one that told the name was lost.
        let speaker = |member: &u64, name: &Option<String>| {
            let known = self.member(id, *member).filter(|_| self.names.is_some());
            known.map_or_else(|| name.clone(), |known| known.name.clone())
        };
        let news = match content {
            Content::Arrive { member, order } if id == self.own || self.members < MOST_MEMBERS => {
                self.change(id, *member, Some(Member { name: None, order: *order }));
                Some(News::Arrived)
            }
            Content::Hello { name: Some(name), member } if self.is_taken(name, (id, *member)) => {
                return Outcome { taken: Some(name.clone()), news: None };
            }
            Content::Name { member, name }
                if self.member(id, *member).is_none_or(|known| known.name == *name) =>
            {
                None
            }
            Content::Hello { member, name } | Content::Name { member, name } => {
                // One whose arrival was lost will be told of by its server.
                self.member(id, *member).map(|known| known.order).map(|order| {
                    self.change(id, *member, Some(Member { name: name.clone(), order }));
                    News::Named { name: name.clone() }
                })
            }
            Content::Say { member, name, text } => {
                Some(News::Said { name: speaker(member, name), text: text.clone() })
            }
            Content::Bye { member, name } => Some(News::Leaving { name: speaker(member, name) }),
            Content::Leave { member } => self.change(id, *member, None).map(departure),
            Content::Arrive { .. } | Content::Gone { .. } | Content::Ask | Content::Here(_) => None,
        };
        Outcome { news, taken: None }
    }

    /// Takes over what a server says of itself. Only the differences are heard.
    pub(super) fn resync(
        &mut self,
        id: ServerId,
        life: u64,
        number: u64,
        here: &Here,
    ) -> Vec<News> {
        if !self.has_place(id) {
            return Vec::new();
        }
        let (gone, new) = self.replace_members(id, here.members.iter().cloned().collect());
        let server = self.servers.entry(id).or_default();
        (server.life, server.alive, server.here) = (life, true, number);
        server.last = server.last.max(here.base);
        server.missing = None;
        let said = here.said.saturating_sub(server.said);
        server.said = server.said.max(here.said);
        let told = (said > 0).then_some(News::SaidElsewhere(said));
        let differences = gone.into_iter().map(departure).chain(new.iter().map(arrival));
        differences.chain(told).collect()
    }

    /// A server is gone: its members leave, in the order of their arrival.
    pub(super) fn bury(&mut self, id: ServerId) -> Vec<News> {
        let (mut members, _) = self.replace_members(id, BTreeMap::new());
        members.sort_by_key(|member| member.order);
        self.servers.get_mut(&id).into_iter().for_each(|server| server.alive = false);
        members.into_iter().map(departure).collect()
    }

    /// Another life of a server begins: its members come last, in the order that they had.
    pub(super) fn begin_another_life(&mut self, id: ServerId, life: u64) {
        self.list = None;
        let server = self.servers.entry(id).or_default();
        server.life = life;
        let mut members: Vec<_> = server.members.values_mut().collect();
        members.sort_by_key(|member| member.order);
        for member in members {
            self.order = self.order.saturating_add(1);
            member.order = self.order;
        }
    }

    /// Whether there are as many servers as are remembered, and none of them is gone.
    pub(super) fn is_full(&self) -> bool {
        self.servers.len() >= MOST_SERVERS && self.servers.values().all(|server| server.alive)
    }

    /// Whether a server can be remembered. The one that is gone and was heard of least may be forgotten.
    fn has_place(&mut self, id: ServerId) -> bool {
        if self.servers.len() >= MOST_SERVERS && !self.servers.contains_key(&id) {
            let gone = self.servers.iter().filter(|(_, server)| !server.alive);
            let oldest = gone.min_by_key(|(_, server)| server.here).map(|(id, _)| *id);
            return oldest.and_then(|id| self.servers.remove(&id)).is_some();
        }
        true
    }
}

fn arrival(member: &Member) -> News {
    match &member.name {
        Some(name) => News::Named { name: Some(name.clone()) },
        None => News::Arrived,
    }
}

fn departure(member: Member) -> News {
    News::Left { name: member.name }
}
