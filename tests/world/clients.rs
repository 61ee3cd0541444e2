//! What the clients of a world do, as the choices say.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use reactor::testing::{Client, Fault};
use reactor::{CloseReason, Listen, Networks, WebSocket};

use super::models::Model;
use super::proxies::Header;
use super::watched::Watched;
use super::web_sockets::WebSocketClient;
use super::{Choices, MOST_STEPS, Peer, World};

const ERRORS: &[ErrorKind] =
    &[ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::TimedOut];
/// What the loop takes of its mailbox in a turn: around it something may be lost.
const MESSAGES_PER_TURN: usize = 1024;
/// Of so many turns there is one before which another loop goes on, or is to.
const TURNS_PER_UPGRADE: usize = 12;
/// What a handshake of WebSocket may keep, with the room that is left in its buffer.
const MOST_OF_A_HANDSHAKE: usize = 16_384;
/// What the layer keeps of pings, besides.
const MOST_OF_PINGS: usize = 400;

impl<M: Model> World<M> {
    /// Some of them do something at once; then the loop takes a turn or two.
    pub(super) fn step(&mut self) -> Result<(), String> {
        for _ in 0..1 + self.choices.below(6) {
            self.act();
        }
        if self.choices.once_in(5) {
            let millis = self.choices.one_of(&[1, 20, 500, 3_000, 31_000, 3_600_000]);
            self.pass(Duration::from_millis(millis));
        }
        for _ in 0..1 + self.choices.below(3) {
            // Now and then twice and more, with no turn in between.
            while self.choices.once_in(TURNS_PER_UPGRADE) {
                self.upgrade()?;
            }
            if !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    /// Another loop, with another handler, goes on with all. Or it fails at that and this one does: since a hook
    /// of either panics, or the new loop ends with a part of what is written down, or with all of it.
    pub(super) fn upgrade(&mut self) -> Result<(), String> {
        let Watched { model, book, panics, .. } = self.server.handler();
        let Some(service) = model.successor() else { return Ok(()) };
        let limits = book.limits.clone();
        let spare = || M::start(&mut Choices::of_seed(0)).1;
        let next = Watched::new(service, spare(), &limits);
        // One is saved and restored, and hears of it.
        let hooks = 2 + 3 * self.peers.len();
        let panics = panics.is_some() && self.choices.once_in(3);
        let hook = if panics { 1 + self.choices.below(hooks) } else { 0 };
        next.hook_to_panic.set(hook);
        let ahead = Rc::clone(&next.hook_to_panic);
        self.server.handler_mut().hook_to_panic = Rc::clone(&ahead);
        let (fails, all) = (self.choices.once_in(3), self.choices.once_in(4));
        let reached = if all || !fails { 1000 } else { self.choices.below(1000) };
        let goes = if fails {
            !self.server.fail_upgrade(next, reached)
        } else if let Ok(old) = self.server.upgrade(next) {
            let service = old.model.successor().expect("it has had one");
            let mut between = Watched::new(service, spare(), &limits);
            between.go_on_for(old);
            let next = self.server.handler_mut();
            next.go_on_for(&mut between);
            next.book.upgraded = Some(next.book.clock);
            self.upgrades += 1;
            true
        } else {
            false
        };
        let Watched { book, lost, panicked, .. } = self.server.handler_mut();
        book.panics += u64::from(panicked.take());
        let panicked = hook > 0 && ahead.replace(0) == 0;
        match lost.take() {
            Some(id) => book.ends(id, CloseReason::Panicked),
            None if goes && (panicked || reached < 1000) => {
                return Err(format!("{reached} of 1000 were enough, panicked: {panicked}"));
            }
            None => {}
        }
        Ok(())
    }

    fn act(&mut self) {
        if self.peers.is_empty() || self.peers.len() < self.crowd && self.choices.once_in(10) {
            let alone = self.choices.below(8) > 0;
            let newcomers = if alone { 1 } else { 1 + self.choices.below(self.crowd) };
            return (0..newcomers).for_each(|_| self.come());
        }
        if M::POSTS && self.choices.once_in(20) {
            let messages = 1 + self.choices.size(MESSAGES_PER_TURN, MESSAGES_PER_TURN + 9);
            return (0..messages).for_each(|_| self.post());
        }
        let number = self.choices.below(self.peers.len());
        let (client, id) = (self.peers[number].client, self.peers[number].id);
        if self.peers[number].dialled {
            return self.answer(number);
        }
        match self.choices.below(24) {
            0..12 => self.talk(number),
            12 => self.end(number),
            13 => self.take_only(number, None),
            14 | 15 => {
                let room = self.choices.size(300, 6_000);
                self.take_only(number, Some(room));
            }
            16..20 => {
                let (reads, mut writes) = (self.faults(), self.faults());
                if self.peers[number].web.is_some() {
                    writes.clear();
                }
                self.server.handler_mut().book.disturbed(id);
                self.server.disturb(client, reads, writes);
            }
            20 => {
                let error = self.choices.one_of(ERRORS);
                let ways = if self.peers[number].web.is_some() { 3 } else { 4 };
                let way = self.choices.below(ways);
                let book = &mut self.server.handler_mut().book;
                if matches!(way, 1 | 2) {
                    book.loses(id, error)
                } else {
                    book.breaks(id, error)
                }
                match way {
                    0 => {
                        self.peers[number].broken = true;
                        self.server.refuse(client, error);
                    }
                    1 => self.server.disturb(client, [Fault::Error(error)], []),
                    // After so many bytes.
                    2 => {
                        let bytes = 1 + self.choices.below(20);
                        self.server.disturb(client, [Fault::Short(bytes), Fault::Error(error)], []);
                    }
                    _ => {
                        let bytes = 1 + self.choices.below(200);
                        self.server.disturb(client, [], [Fault::Short(bytes), Fault::Error(error)]);
                    }
                }
            }
            _ => {
                // All that it has to say, and its end, in one go.
                self.talk(number);
                self.feed(number, usize::MAX);
                if self.choices.once_in(4) {
                    self.end(number);
                }
            }
        }
    }

    fn post(&mut self) {
        if let Some(message) = self.server.handler_mut().model.post(&mut self.choices) {
            self.posted += 1;
            self.server.post(message);
        }
    }

    fn come(&mut self) {
        // Behind a proxy it runs over a plain socket once its header has come.
        let behind_proxy = self.plain && self.choices.once_in(20);
        match self.choices.below(if self.plain { 3 } else { 6 }) {
            _ if behind_proxy => self.come_by_proxy(),
            5 => self.come_over_web_socket(),
            4 => self.come_by_proxy(),
            3 => self.shake(),
            0 => self.connect(),
            last => {
                let last = last as u8;
                let client = self.server.connect_from(([127, 0, 0, last], 9).into());
                let id = self.server.id(client);
                self.server.handler_mut().book.comes_from(id, last);
                self.meet(client, false, false);
                self.meet_dialled();
            }
        }
    }

    pub(super) fn connect(&mut self) {
        let client = self.server.connect();
        self.meet(client, false, false);
        self.meet_dialled();
    }

    /// It has a handshake to do, of which each step takes an event and so long.
    fn shake(&mut self) {
        let count = 1 + self.choices.below(MOST_STEPS);
        let mut step = || Duration::from_micros(self.choices.one_of(&[0, 10, 700, 3_000]));
        let steps: Vec<_> = (0..count).map(|_| step()).collect();
        let client = self.server.connect_with_handshake(steps.clone());
        let id = self.server.id(client);
        self.server.handler_mut().book.shakes(id, steps);
        self.meet(client, false, false);
    }

    /// A proxy says who it is, or so it seems.
    fn come_by_proxy(&mut self) {
        let header = Header::choose(&mut self.choices);
        let listen = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback());
        let client = self.server.connect_through(&listen);
        let id = self.server.id(client);
        let book = &mut self.server.handler_mut().book;
        book.introduces(id, header.bytes.len(), header.is_unwelcome(&book.limits));
        header.peer.into_iter().for_each(|peer| book.comes_from(id, peer));
        self.meet(client, false, false);
        let number = self.peers.len() - 1;
        self.peers[number].header.extend(header.bytes);
    }

    /// It speaks WebSocket. It takes all that it is sent at once, so that its layer holds nothing back.
    fn come_over_web_socket(&mut self) {
        let request = WebSocketClient::request(&mut self.choices);
        let listen = Listen::at("127.0.0.1:0").unwrap().web_socket(&WebSocket::new().binary());
        let client = self.server.connect_through(&listen);
        let id = self.server.id(client);
        let book = &mut self.server.handler_mut().book;
        book.introduces(id, request.len(), false);
        self.meet(client, false, true);
        let number = self.peers.len() - 1;
        self.peers[number].header.extend(request);
        self.peers[number].web = Some(Box::default());
    }

    /// Whoever the service has dialled is one more client.
    pub(super) fn meet_dialled(&mut self) {
        for (_, client) in self.server.dialled() {
            let id = self.server.id(client);
            let Watched { model, book, .. } = self.server.handler_mut();
            book.dialled(id);
            model.dialled(book, id);
            self.meet(client, true, false);
        }
    }

    fn meet(&mut self, client: Client, dialled: bool, over_layer: bool) {
        let id = self.server.id(client);
        self.server.handler_mut().model.met(id);
        self.connections += 1;
        if !over_layer && !self.plain && self.choices.once_in(4) {
            let most = 1 + self.choices.size(100, 9_000);
            self.server.handler_mut().book.holds(id, most);
            self.server.hold(client, most);
        }
        self.peers.push(Peer {
            client,
            id,
            header: VecDeque::new(),
            talk: VecDeque::new(),
            came: 0,
            web: None,
            ended: false,
            limited: false,
            broken: false,
            dialled,
        });
    }

    /// It is being dialled: it accepts, refuses, or does nothing about it yet.
    fn answer(&mut self, number: usize) {
        let Peer { client, id, dialled, .. } = &mut self.peers[number];
        match self.choices.below(5) {
            0..3 => {
                *dialled = false;
                self.server.answer(*client);
            }
            3 => {
                self.server.handler_mut().book.breaks(*id, ErrorKind::ConnectionRefused);
                self.server.refuse(*client, ErrorKind::ConnectionRefused);
            }
            _ => {}
        }
    }

    fn faults(&mut self) -> Vec<Fault> {
        (0..self.choices.below(12))
            .map(|_| match self.choices.below(4) {
                0 => Fault::WouldBlock,
                1 => Fault::Interrupted,
                _ => Fault::Short(1 + self.choices.below(9)),
            })
            .collect()
    }

    /// It sends a piece of what it has to say.
    fn talk(&mut self, number: usize) {
        if self.peers[number].talk.is_empty() {
            for _ in 0..1 + self.choices.below(8) {
                let mut line = self.server.handler().model.talk(&mut self.choices, self.longest);
                let more = self.choices.size(4096, self.longest);
                line.extend(self.choices.text(more));
                line.extend(if self.choices.once_in(4) { &b"\r\n"[..] } else { b"\n" });
                self.peers[number].talk.extend(line);
            }
        }
        let most = self.choices.size(4096, 2 * self.longest);
        self.feed(number, 1 + most);
    }

    pub(super) fn feed(&mut self, number: usize, most: usize) {
        let peer = &mut self.peers[number];
        if peer.ended || self.server.is_broken(peer.client) {
            return;
        }
        let header = peer.header.drain(..peer.header.len().min(most));
        let mut piece: Vec<u8> = header.collect();
        let header = piece.len();
        let left = most - header;
        let open = self.server.session(peer.client).is_some();
        let book = &mut self.server.handler_mut().book;
        book.introduced(peer.id, header);
        match &mut peer.web {
            None => {
                piece.extend(peer.talk.drain(..peer.talk.len().min(left)));
                book.fed(peer.id, &piece[header..], open);
            }
            Some(web) => {
                let all = most == usize::MAX;
                if all || !web.has_rest() {
                    let words: Vec<u8> = peer.talk.drain(..peer.talk.len().min(left)).collect();
                    web.say(&words, all, &mut self.choices);
                }
                let (sent, means, owes) = web.send(left);
                if !sent.is_empty() {
                    book.fed(peer.id, &means, open);
                    book.owes(peer.id, owes);
                }
                piece.extend(sent);
                // Its layer keeps some of that, and takes as much memory again at the most.
                peer.came += piece.len();
                let most = MOST_OF_A_HANDSHAKE.min(2 * peer.came) + MOST_OF_PINGS;
                book.holds(peer.id, most);
            }
        }
        // No event is to come of nothing.
        if !piece.is_empty() {
            self.server.handler_mut().book.poked(peer.id);
            self.server.feed(peer.client, piece);
        }
    }

    pub(super) fn take_only(&mut self, number: usize, room: Option<usize>) {
        let peer = &mut self.peers[number];
        let room = room.filter(|_| peer.web.is_none());
        peer.limited = room.is_some();
        self.server.handler_mut().book.poked(peer.id);
        self.server.take_only(peer.client, room);
    }

    /// Over WebSocket an end is announced; some do not.
    fn says_goodbye(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        let id = peer.id;
        let Some(web) = peer.web.as_mut().filter(|_| !peer.ended && peer.header.is_empty()) else {
            return;
        };
        if self.choices.once_in(4) {
            return self.server.handler_mut().book.loses(id, ErrorKind::UnexpectedEof);
        }
        web.close(&mut self.choices);
        peer.talk.clear();
        while self.peers[number].web.as_ref().is_some_and(|web| web.has_rest())
            && !self.server.is_broken(self.peers[number].client)
        {
            self.feed(number, 1 << 20);
        }
    }

    pub(super) fn end(&mut self, number: usize) {
        self.says_goodbye(number);
        let peer = &mut self.peers[number];
        peer.ended = true;
        self.server.handler_mut().book.ended(peer.id);
        self.server.handler_mut().book.poked(peer.id);
        self.server.end(peer.client);
    }
}
