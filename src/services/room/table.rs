//! Who is in the room, as one server knows it, and what is said of each change.

use std::collections::BTreeMap;
use std::time::Instant;

use super::entry::{Event, Here, Member, ServerId, believed_name};
use super::names::{ANONYMOUS, NOBODYS, folded};
use super::reply::Reply;

/// How many servers are remembered; of those that are gone, the ones of long ago are forgotten.
const MOST_SERVERS: usize = 4096;

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
}

/// The name that others see.
fn shown(name: Option<&str>) -> &str {
    name.unwrap_or(ANONYMOUS)
}

/// Everybody who is known to be there.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The servers, this one included, and those that are gone.
    pub servers: BTreeMap<ServerId, Server>,
    /// The highest order of a member so far.
    pub order: u64,
    /// No two members may have the same name.
    pub unique_names: bool,
}

/// What comes of an event.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What everybody hears, but for a newcomer itself.
    pub lines: Vec<String>,
    /// A HELLO was refused: somebody has that name.
    pub taken: Option<String>,
}

impl Table {
    /// WHO's answer: by order; of two with the same, which happens when they come to two servers at
    /// once, the servers' names decide.
    pub(super) fn who(&self) -> String {
        let there = self.servers.iter().filter(|(_, server)| server.alive);
        let mut members: Vec<_> = there
            .flat_map(|(id, server)| server.members.iter().map(move |it| (it.1.order, id, it)))
            .collect();
        members.sort_unstable_by_key(|(order, server, (member, _))| (*order, *server, *member));
        let names = members.iter().map(|(_, _, (_, member))| shown(member.name.as_deref()));
        let names: String = names.map(|name| format!(" - {name}\n")).collect();
        format!("Currently connected users:\n{names}")
    }

    /// A place behind all others.
    pub(super) fn next_order(&mut self) -> u64 {
        self.order = self.order.saturating_add(1);
        self.order
    }

    /// Takes a server as a record shows it. Of two lives the later one counts.
    pub(super) fn join(&mut self, id: ServerId, life: u64, record: &Reply) -> Vec<String> {
        let server = Server::from_record(life, record);
        if self.servers.get(&id).is_some_and(|known| known.life >= life) {
            return Vec::new();
        }
        let orders = server.members.values().map(|member| member.order);
        self.order = orders.fold(self.order, u64::max);
        let lines = server.members.values().map(arrival).collect();
        self.servers.insert(id, server);
        lines
    }

    /// Whether somebody else has a name that looks like this one.
    fn is_taken(&self, name: &str, by: (ServerId, u64)) -> bool {
        let compared = folded(name);
        let there = self.servers.iter().filter(|(_, server)| server.alive);
        let mut others = there
            .flat_map(|(id, server)| server.members.iter().map(move |(it, who)| ((*id, *it), who)))
            .filter(|(id, _)| *id != by)
            .filter_map(|(_, member)| member.name.as_deref());
        compared == NOBODYS || others.any(|other| folded(other) == compared)
    }

    /// What a server's entry about one of its members changes, and what is heard of it.
    pub(super) fn apply(&mut self, id: ServerId, event: &Event) -> Outcome {
        if let Event::Hello { member, name: Some(name) } = event
            && self.unique_names
            && self.is_taken(name, (id, *member))
        {
            return Outcome { taken: Some(name.clone()), ..Outcome::default() };
        }
        let members = &mut self.servers.entry(id).or_default().members;
        let named = |members: &BTreeMap<u64, Member>, id| {
            shown(members.get(id).and_then(|member| member.name.as_deref())).to_owned()
        };
        // Who has which name is decided in the stream where it must be; elsewhere the entry knows it,
        // even if the one that told the name was lost.
        let unique_names = self.unique_names;
        let speaker = |members: &BTreeMap<u64, Member>, id, name: &Option<String>| {
            let decided = unique_names && members.contains_key(id);
            if decided { named(members, id) } else { shown(name.as_deref()).to_owned() }
        };
        let line = match event {
            Event::Arrive { member, order } => {
                members.insert(*member, Member { name: None, order: *order });
                self.order = self.order.max(*order);
                Some("Someone has arrived...\n".to_owned())
            }
            Event::Hello { member, name } => {
                // One whose arrival was lost will be told of by its server.
                members.get_mut(member).map(|member| {
                    member.name.clone_from(name);
                    format!("{} is in the room.\n", shown(name.as_deref()))
                })
            }
            Event::Say { member, name, text } => {
                Some(format!("{} says: {text}\n", speaker(members, member, name)))
            }

            Event::Bye { member, name } => {
                Some(format!("{} is about to leave the room.\n", speaker(members, member, name)))
            }
            Event::Leave { member } => members.remove(member).map(|member| departure(&member)),
            Event::Gone { .. } | Event::Ask | Event::Here(_) => None,
        };
        Outcome { lines: line.into_iter().collect(), taken: None }
    }

    /// Takes over what a server says of itself. Only the differences are heard.
    pub(super) fn resync(&mut self, id: ServerId, life: u64, here: &Here) -> Vec<String> {
        let server = self.servers.entry(id).or_default();
        if !server.alive {
            server.members.clear();
        }
        (server.life, server.alive) = (life, true);
        server.last = server.last.max(here.base);
        server.missing = None;
        let now: BTreeMap<u64, Member> = here.members.iter().cloned().collect();
        let before = std::mem::replace(&mut server.members, now);
        self.order = server.members.values().map(|it| it.order).fold(self.order, u64::max);
        let gone = before.iter().filter(|(id, _)| !server.members.contains_key(id));
        let mut lines: Vec<_> = gone.map(|(_, member)| departure(member)).collect();
        for (id, member) in &server.members {
            let known = before.get(id);
            if known.is_none_or(|known| known.name != member.name) {
                lines.push(arrival(member));
            }
        }
        let said = here.said.saturating_sub(server.said);
        server.said = server.said.max(here.said);
        if said > 0 {
            let lines_were = if said == 1 { "line was" } else { "lines were" };
            lines.push(format!("{said} {lines_were} said elsewhere meanwhile.\n"));
        }
        self.forget_the_oldest();
        lines
    }

    /// A server is gone: its members leave, in the order of their arrival.
    pub(super) fn bury(&mut self, id: ServerId) -> Vec<String> {
        let Some(server) = self.servers.get_mut(&id) else { return Vec::new() };
        server.alive = false;
        let mut members: Vec<_> = std::mem::take(&mut server.members).into_values().collect();
        members.sort_by_key(|member| member.order);
        members.iter().map(departure).collect()
    }

    /// Bounds the memory that the names of servers take.
    fn forget_the_oldest(&mut self) {
        if self.servers.len() > MOST_SERVERS {
            let gone = self.servers.iter().filter(|(_, server)| !server.alive);
            let oldest = gone.min_by_key(|(_, server)| server.here).map(|(id, _)| *id);
            oldest.map(|id| self.servers.remove(&id));
        }
    }
}

fn arrival(member: &Member) -> String {
    match &member.name {
        Some(name) => format!("{name} is in the room.\n"),
        None => "Someone has arrived...\n".to_owned(),
    }
}

fn departure(member: &Member) -> String {
    format!("{} has left the room.\n", shown(member.name.as_deref()))
}
