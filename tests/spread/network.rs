//! What lies between the servers and Redis: connections, and what is on its way in them.

use std::collections::VecDeque;

use reactor::services::room::{Link, Reply};

use super::redis::{Client, Command};

/// A connection, from when Redis has it.
pub struct Connection {
    /// Which server has dialled it.
    pub server: usize,
    pub link: Link,
    /// What Redis knows of it.
    pub client: Client,
    /// On the way to Redis, with when it comes there.
    pub to_redis: VecDeque<(u64, Command)>,
    /// Of each request under way, how many answers it will have.
    pub requests: VecDeque<usize>,
    /// The answers to the first of them so far.
    pub answers: Vec<Reply>,
    /// On the way to the server, with when it comes there.
    pub to_server: VecDeque<(u64, Vec<Reply>)>,
    /// A read waits for entries until then.
    pub blocked: Option<(u64, Command)>,
    /// The server has dropped it: what is on its way may come to Redis all the same.
    pub dropped: bool,
    /// Nothing comes through, in either direction, before then.
    pub stalled: u64,
}

impl Connection {
    pub fn new(server: usize, link: Link) -> Connection {
        Connection {
            server,
            link,
            client: Client::default(),
            to_redis: VecDeque::new(),
            requests: VecDeque::new(),
            answers: Vec::new(),
            to_server: VecDeque::new(),
            blocked: None,
            dropped: false,
            stalled: 0,
        }
    }

    /// When Redis has something to do for it.
    pub fn redis_due(&self) -> Option<u64> {
        match &self.blocked {
            Some((until, _)) => Some(*until),
            None => self.to_redis.front().map(|(at, _)| (*at).max(self.stalled)),
        }
    }

    /// When something comes to its server.
    pub fn server_due(&self) -> Option<u64> {
        self.to_server.front().map(|(at, _)| (*at).max(self.stalled))
    }

    /// An answer leaves Redis; whole requests are delivered.
    pub fn answer(&mut self, reply: Reply, arrives: u64) {
        self.answers.push(reply);
        if self.requests.front() == Some(&self.answers.len()) {
            self.requests.pop_front();
            let arrives = self.to_server.back().map_or(arrives, |(last, _)| arrives.max(*last));
            self.to_server.push_back((arrives, std::mem::take(&mut self.answers)));
        }
    }
}
