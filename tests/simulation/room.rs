//! The room of presence on several cores, turned by hand in one thread: the seed says which of them runs
//! next. An oracle looks at all that each client hears. One client is there from the beginning and stays;
//! what it hears is the order, and all others must have heard a piece of it, from their arrival on.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use reactor::services::Presence;
use reactor::services::room::Message;
use reactor::testing::CoresByHand;
use reactor::{Core, Cores, Handle, Limits, Listen};

use crate::folder::Folder;
use crate::world::Choices;

/// Clients at once, at most.
const CROWD: usize = 20;
/// Lines of who says more than may be under way.
const FLOODS: [usize; 3] = [300, 300, 3000];
/// Messages that may wait for a core before who says more is held back.
const AHEAD: usize = 1024;
/// Lines of one member that may be under way.
const MOST_LINES: usize = 64;
/// Turns after which cores are taken to spin.
const MOST_TURNS: usize = 400_000;
const WELCOME: [&str; 6] = [
    "Welcome to the Presence Server",
    "  Tell me who you are with 'HELLO name'",
    "  Say something to other users with 'SAY message'",
    "  Ask me who is connected with 'WHO'",
    "  Leave with 'BYE'",
    "  Shutdown server with 'KILL'",
];
const ARRIVED: &str = "Someone has arrived...";
const HINT: &str = "What? I only understand HELLO, SAY, WHO, BYE and KILL commands";

type Outcome = Result<(), String>;

/// What has happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) news: usize,
    pub(crate) heard: usize,
    pub(crate) lists: usize,
    /// Turns after which somebody had as much under way as there may be.
    pub(crate) held: usize,
}

/// What a client has asked, and how much of the news it had heard when it was answered.
struct Answered {
    list: Vec<String>,
    news: usize,
}

struct Client {
    stream: UnixStream,
    number: usize,
    talk: VecDeque<u8>,
    /// What it has said of which it has not heard, in its order: news, answers and WHO.
    awaited: VecDeque<String>,
    said: usize,
    input: Vec<u8>,
    /// Lines of the welcome that it has heard.
    welcomed: usize,
    /// The news, from its arrival on.
    news: Vec<String>,
    lists: Vec<Answered>,
    /// A list is being read.
    in_list: bool,
    ended: bool,
}

impl Client {
    fn say(&mut self, line: &str, heard: String) {
        self.talk.extend(line.as_bytes());
        self.talk.push_back(b'\n');
        self.awaited.push_back(heard);
    }

    fn is_welcomed(&self) -> bool {
        self.welcomed == WELCOME.len()
    }

    fn name(&self) -> String {
        format!("c{}", self.number)
    }

    fn move_on(&mut self, read: bool) -> Result<bool, String> {
        let mut moved = false;
        while !self.talk.is_empty() {
            match self.stream.write(self.talk.make_contiguous()) {
                Ok(count) => drop(self.talk.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.talk.clear(),
            }
            moved = true;
        }
        let mut piece = [0; 4096];
        while read && !self.ended {
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => self.input.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It has said something that was not read: after its BYE, or its end.
                Err(_) => self.ended = true,
            }
            moved = true;
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.hear(String::from_utf8_lossy(&line).trim_end().to_owned())?;
        }
        Ok(moved)
    }

    fn hear(&mut self, line: String) -> Outcome {
        if let Some(words) = WELCOME.get(self.welcomed) {
            self.welcomed += 1;
            let complaint = || format!("{} heard {line:?} before its welcome", self.name());
            return (line == *words).then_some(()).ok_or_else(complaint);
        }
        if self.in_list
            && let Some(name) = line.strip_prefix(" - ")
        {
            self.lists.last_mut().expect("it is read").list.push(name.to_owned());
            return Ok(());
        }
        let goodbye = format!("c{} is about to leave the room.", self.number);
        if self.news.last() == Some(&goodbye) {
            return Err(format!("{} heard {line:?} behind its goodbye", self.name()));
        }
        self.in_list = line == "Currently connected users:";
        let own = format!("c{} ", self.number);
        let is_own = line.starts_with(&own) || line.starts_with("An anonymous user c");
        let is_reply = self.in_list || line == HINT;
        if is_own || is_reply {
            let wanted = self.awaited.pop_front();
            if wanted.as_ref() != Some(&line) {
                return Err(format!("{} heard {line:?}, not {wanted:?}", self.name()));
            }
        }
        if self.in_list {
            self.lists.push(Answered { list: Vec::new(), news: self.news.len() });
        } else if !is_reply {
            self.news.push(line);
        }
        Ok(())
    }
}

pub(crate) struct World {
    cores: CoresByHand<'static>,
    handles: Vec<Handle<Message>>,
    choices: Choices,
    /// The first one is there from the beginning, and only listens.
    clients: Vec<Client>,
    /// Those who have left, in whichever way.
    gone: Vec<Client>,
    came: usize,
    lazy: Option<usize>,
    turns: usize,
    trace: bool,
    pub(crate) history: History,
    folder: Folder,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> World {
        let mut choices = Choices::of_seed(seed);
        let count = choices.one_of(&[2, 2, 3, 5]);
        let limits = Limits {
            lines_per_turn: choices.one_of(&[1, 3, 64, 1024]),
            bytes_per_turn: choices.one_of(&[7, 64 << 10, 64 << 10]),
            accepts_per_turn: choices.one_of(&[1, 3, 64]),
            ..Limits::default()
        };
        let folder = Folder::new("room");
        let listen = Listen::at(folder.file("room").as_path()).unwrap();
        let mut cores = Cores::new(count).unwrap();
        let make = |core: Core<Message>| Presence::new(true).on(&core);
        let room = cores.listen_with(listen, make, limits).unwrap();
        World {
            handles: room.handles().to_vec(),
            cores: CoresByHand::new(cores).unwrap(),
            choices,
            clients: Vec::new(),
            gone: Vec::new(),
            came: 0,
            lazy: None,
            turns: 0,
            trace,
            history: History::default(),
            folder,
        }
    }

    fn note(&self, what: &str, number: usize) {
        if self.trace {
            println!("{what} {number}");
        }
    }

    pub(crate) fn live(&mut self, steps: usize) -> Outcome {
        self.come();
        self.settle()?;
        for _ in 0..steps {
            match self.choices.below(16) {
                0..4 => {
                    let count = self.choices.one_of(&[1, 1, 3, 8]);
                    (0..count).for_each(|_| self.come());
                }
                4..10 => self.talk(),
                10 => self.leave(),
                11 => {
                    self.lazy = Some(self.choices.below(self.handles.len()));
                    self.note("lazy is", self.lazy.unwrap_or(0));
                }
                12 => {
                    self.settle()?;
                    self.must_agree(true)?;
                }
                _ => drop(self.move_clients()?),
            }
            let most = self.choices.one_of(&[0, 1, 3, 10, 300]);
            self.run(most)?;
        }
        self.settle()?;
        self.must_agree(true)?;
        self.die()
    }

    fn come(&mut self) {
        if self.clients.len() >= CROWD {
            return;
        }
        let stream = UnixStream::connect(self.folder.file("room")).unwrap();
        stream.set_nonblocking(true).unwrap();
        self.note("comes", self.came);
        self.clients.push(Client {
            stream,
            number: self.came,
            talk: VecDeque::new(),
            awaited: VecDeque::new(),
            said: 0,
            input: Vec::new(),
            welcomed: 0,
            news: Vec::new(),
            lists: Vec::new(),
            in_list: false,
            ended: false,
        });
        self.came += 1;
    }

    /// One of the clients, but for the first.
    fn somebody(&mut self) -> Option<usize> {
        let others = self.clients.len() - 1;
        (others > 0).then(|| 1 + self.choices.below(others))
    }

    fn talk(&mut self) {
        let Some(who) = self.somebody() else { return };
        let what = self.choices.below(8);
        let flood = self.choices.one_of(&FLOODS);
        self.note("talks", who << 4 | what);
        let client = &mut self.clients[who];
        let name = client.name();
        if client.said == 0 {
            client.say(&format!("HELLO {name}"), format!("{name} is in the room."));
        }
        let count = if what == 0 { flood } else { 3 };
        for _ in 0..count {
            client.said += 1;
            match what {
                1 => client.say("WHO", "Currently connected users:".to_owned()),
                2 => client.say("WHAT", HINT.to_owned()),
                _ => {
                    let said = client.said;
                    client.say(&format!("SAY {said}"), format!("{name} says: {said}"));
                }
            }
        }
    }

    /// Somebody goes, in whichever way.
    fn leave(&mut self) {
        let Some(who) = self.somebody() else { return };
        self.note("leaves", who);
        let client = &mut self.clients[who];
        let name = client.name();
        match self.choices.below(3) {
            0 if client.said > 0 => {
                client.say("BYE", format!("{name} is about to leave the room."))
            }
            1 if client.talk.is_empty() => {
                let _ = client.stream.shutdown(std::net::Shutdown::Write);
            }
            _ => {
                let mut gone = self.clients.remove(who);
                // It is gone by a reset, or an end; what it has heard until then counts.
                gone.stream = UnixStream::pair().unwrap().0;
                gone.awaited.clear();
                self.gone.push(gone);
            }
        }
    }

    fn move_clients(&mut self) -> Result<bool, String> {
        let all = self.choices.once_in(2);
        let mut moved = false;
        for client in &mut self.clients {
            moved |= client.move_on(all || self.choices.once_in(2))?;
        }
        self.part();
        Ok(moved)
    }

    /// Those whose connection has ended are gone.
    fn part(&mut self) {
        while let Some(who) = self.clients.iter().position(|client| client.ended) {
            self.gone.push(self.clients.remove(who));
        }
    }

    fn run(&mut self, most: usize) -> Result<bool, String> {
        for turn in 0..most {
            let mut due: Vec<_> = (0..self.handles.len()).collect();
            due.retain(|core| Some(*core) != self.lazy && self.cores.is_due(*core));
            if due.is_empty() {
                return Ok(turn > 0);
            }
            let core = due[self.choices.below(due.len())];
            self.cores.turn(core);
            self.turns += 1;
            if self.turns > MOST_TURNS {
                return Err("the cores are never at rest".to_owned());
            }
            for (core, handle) in self.handles.iter().enumerate() {
                let waiting = handle.len();
                self.history.held += usize::from(waiting >= MOST_LINES);
                // What is under way of each member, its arrival and its end.
                if waiting > AHEAD + CROWD * MOST_LINES + 2 * self.came {
                    return Err(format!("{waiting} messages wait for core {core}"));
                }
            }
        }
        Ok(most > 0)
    }

    /// Runs until nobody has anything left to do.
    fn settle(&mut self) -> Outcome {
        self.lazy = None;
        loop {
            let mut moved = self.run(usize::MAX)?;
            for client in &mut self.clients {
                moved |= client.move_on(true)?;
            }
            self.part();
            if !moved {
                break;
            }
        }
        let waits = self.clients.iter().find(|it| !it.is_welcomed() || !it.awaited.is_empty());
        match waits {
            Some(it) => Err(format!("{} waits for {:?}", it.name(), it.awaited)),
            None => Ok(()),
        }
    }

    /// All have heard the same in the same order, and those who are there all of it.
    fn must_agree(&mut self, complete: bool) -> Outcome {
        let order = &self.clients[0].news;
        (self.history.news, self.history.heard, self.history.lists) = (order.len(), 0, 0);
        for (client, here) in self.clients[1..]
            .iter()
            .map(|client| (client, complete))
            .chain(self.gone.iter().map(|client| (client, false)))
        {
            self.history.heard += client.news.len();
            self.history.lists += client.lists.len();
            must_be_piece(order, client, here)?;
        }
        for gone in self.gone.iter().filter(|gone| gone.said > 0 && complete) {
            let (named, left) = (
                format!("{} is in the room.", gone.name()),
                format!("{} has left the room.", gone.name()),
            );
            let times = |line: &String| order.iter().filter(|it| *it == line).count();
            if times(&named) != times(&left) {
                return Err(format!(
                    "{} was named {} times and has left {} times",
                    gone.name(),
                    times(&named),
                    times(&left)
                ));
            }
        }
        Ok(())
    }

    /// Somebody stops it all; nobody hears that others leave.
    fn die(&mut self) -> Outcome {
        for _ in 0..self.choices.below(4) {
            self.talk();
            self.move_clients()?;
            self.run(20)?;
        }
        self.settle()?;
        let before = self.clients[0].news.len();
        let who = self.choices.below(self.clients.len());
        let killed = "KILL command received. Bringing server down...";
        self.clients[who].talk.extend(b"KILL\n");
        for _ in 0..400 {
            for client in &mut self.clients {
                client.move_on(true)?;
            }
            if self.cores.exit().is_some() {
                break;
            }
            self.run(1000)?;
            self.cores.advance(Duration::from_millis(50));
        }
        let exit = self.cores.exit().is_some();
        for (number, client) in self.clients.iter_mut().enumerate() {
            let heard = client.news.iter().filter(|line| *line == killed).count();
            client.news.retain(|line| line != killed);
            if heard != usize::from(number == who) || !client.ended || !exit {
                return Err(format!("{} at the end: told {heard} times", client.name()));
            }
        }
        if self.clients[0].news.len() != before {
            return Err(format!("at the end {:?} was heard", &self.clients[0].news[before..]));
        }
        self.must_agree(true)
    }
}

/// A client has heard all from its arrival on, up to now if it is here, and each list is that of its place.
/// Of several places at which that may have begun, one is right.
fn must_be_piece(order: &[String], client: &Client, here: bool) -> Outcome {
    let news = &client.news;
    let begins = |begin: &usize| {
        let after = &order[*begin..];
        let whole = !here || after.len() == news.len();
        order[begin - 1] == ARRIVED && whole && after.starts_with(news)
    };
    let mut outcome = match client.is_welcomed() {
        true => Err("no piece of the order was heard".to_owned()),
        false => Ok(()),
    };
    for begin in (1..=order.len()).filter(begins) {
        let mut lists = client.lists.iter();
        outcome = lists.try_for_each(|it| must_be_list(&order[..begin + it.news], &it.list));
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map_err(|complaint| format!("{}: {complaint}", client.name()))
}

/// A list has everybody who was there.
fn must_be_list(order: &[String], list: &[String]) -> Outcome {
    // The first client is there from the beginning.
    let (mut count, mut names) = (1, Vec::new());
    for line in order {
        count += usize::from(line == ARRIVED);
        if let Some(name) = line.strip_suffix(" has left the room.") {
            count -= 1;
            names.retain(|known| *known != name);
        } else if let Some(name) = line.strip_suffix(" is in the room.") {
            names.push(name);
        }
    }
    let mut listed: Vec<_> = list.iter().filter(|name| name.starts_with('c')).collect();
    listed.sort();
    names.sort_unstable();
    if list.len() != count || listed != names {
        return Err(format!("{count} were there, {names:?} by name; listed are {list:?}"));
    }
    Ok(())
}
