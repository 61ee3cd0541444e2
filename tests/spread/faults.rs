//! What befalls a world.

use reactor::services::room::bus::Bus;
use reactor::services::room::{Link, Room, ServerId};
use reactor::{Decoder, Encoder};

use super::{SERVERS, World};

/// What may befall a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    RedisFrozen,
    LinkCut,
    ServerFrozen,
    Partition,
    Killed,
    DataLost,
    Trimmed,
    OutOfMemory,
    Password,
    Stopped,
    Slow,
    Upgraded,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Fault] = &[
        Fault::RedisFrozen,
        Fault::LinkCut,
        Fault::ServerFrozen,
        Fault::Partition,
        Fault::Killed,
        Fault::DataLost,
        Fault::Trimmed,
        Fault::OutOfMemory,
        Fault::Password,
        Fault::Stopped,
        Fault::Slow,
        Fault::Upgraded,
    ];

    /// By what the loss of data is counted.
    pub const DATA_LOST: &str = "data lost, an older AOF";

    /// By what it is counted, if it lasts so many milliseconds.
    fn name(self, time: u64) -> &'static str {
        match self {
            Fault::RedisFrozen if time <= 3_000 => "Redis frozen, up to 3 s",
            Fault::RedisFrozen => "Redis frozen, up to 20 s",
            Fault::LinkCut => "CLIENT KILL, a link drops",
            Fault::ServerFrozen if time <= 3_000 => "a server frozen, up to 3 s",
            Fault::ServerFrozen => "a server frozen, up to 20 s",
            Fault::Partition if time <= 3_000 => "a server's network down, up to 3 s",
            Fault::Partition => "a server's network down, up to 20 s",
            Fault::Killed => "kill -9 of a server",
            Fault::DataLost => Fault::DATA_LOST,
            Fault::Trimmed => "trimmed by somebody",
            Fault::OutOfMemory => "out of memory",
            Fault::Password => "another password",
            Fault::Stopped => "KILL, a graceful stop",
            Fault::Slow => "slow Redis",
            Fault::Upgraded => "a server upgraded",
        }
    }
}

impl World {
    /// Something happens that should not.
    pub(super) fn befall(&mut self) {
        if self.faults.is_empty() {
            return;
        }
        let fault = self.faults[self.random.usize(..self.faults.len())];
        let number = self.random.usize(..SERVERS);
        let time = [500, 3_000, 7_000, 20_000][self.random.usize(..4)];
        let time = self.aim.time.unwrap_or(time);
        self.note(|| format!("---- {fault:?} (server {number}, {time} ms)"));
        let until = (self.now + time).min(self.trouble);
        self.saw(fault.name(until - self.now));
        match fault {
            Fault::RedisFrozen => self.redis_frozen = until,
            Fault::LinkCut => {
                if !self.connections.is_empty() {
                    let at = self.random.usize(..self.connections.len());
                    let may_come = self.random.bool();
                    self.reset(at, may_come);
                }
            }
            Fault::ServerFrozen => {
                self.servers[number].frozen = until;
            }
            Fault::Partition => {
                if self.aim.time.is_some() || self.random.bool() {
                    self.servers[number].apart = until;
                }
                for connection in self.connections.iter_mut().filter(|it| it.server == number) {
                    connection.stalled = connection.stalled.max(until);
                }
            }
            Fault::Killed => {
                if self.servers[number].room.is_some() {
                    self.end_process(number);
                }
            }
            Fault::DataLost => {
                let saved = self.saved.len();
                let back = self.random.usize(..saved.min(3));
                let which = if self.random.u8(..5) == 0 { 0 } else { saved - 1 - back };
                let data = self.saved[which].clone();
                self.redis.restart(data);
                self.watch_lines();
                // Nobody may have heard that.
                self.leases.values_mut().for_each(|lease| lease.gone.clear());
                self.drop_all();
            }
            Fault::Trimmed => self.redis.trim_all(self.random.usize(..3)),
            Fault::OutOfMemory => {
                self.redis.out_of_memory = true;
                self.memory_back = until;
            }
            Fault::Password => {
                self.wrong_password = until;
                self.drop_all();
            }
            Fault::Stopped => self.stop(number),
            Fault::Slow => self.slow_until = until,
            Fault::Upgraded => self.upgrade(number),
        }
    }

    /// Another process goes on with a server: with its clients, but not with its connections to Redis. What was on
    /// its way in those may still come there.
    fn upgrade(&mut self, number: usize) {
        let now = self.instant();
        let server = &self.servers[number];
        let Some(room) = server.room.as_ref().filter(|_| server.frozen <= self.now) else { return };
        let mut saved = Encoder::default();
        if room.save(now, &mut saved).is_none() {
            assert!(server.stopping, "a room that goes on can go over");
            return;
        }
        let mut from = Decoder::new(saved.as_bytes());
        let mut new = Room::new(self.settings(), ServerId(self.random.u128(..)), now);
        new.restore(&mut from, now).and_then(|()| from.finish()).unwrap();
        // What it has read is what it writes.
        let mut again = Encoder::default();
        new.save(now, &mut again).unwrap();
        assert_eq!(saved, again);
        self.saw("upgraded");
        self.drop_connection(number, Link::Commands);
        self.drop_connection(number, Link::Reader);
        // Most often it takes milliseconds, and at the worst as long as the new process may be silent.
        let pause = [0, 20, 1_000, 4_000][self.random.usize(..4)];
        let server = &mut self.servers[number];
        (server.room, server.frozen) = (Some(new), self.now + pause);
        server.dialled.clear();
        server.lost.clear();
        self.with(number, Room::tick);
    }

    /// A server ends gracefully.
    fn stop(&mut self, number: usize) {
        let server = &mut self.servers[number];
        if server.room.is_none() || server.frozen > self.now || server.stopping {
            return;
        }
        server.stopping = true;
        let process = server.process;
        let listed = self.redis.members_of("room:servers");
        let lease = self.leases.iter_mut().find(|(_, lease)| lease.process == process);
        let (id, lease) = lease.unwrap();
        (lease.over, lease.stops) = (true, true);
        lease.unknown = !listed.iter().any(|server| server.starts_with(id.as_str()));
        // Whoever says KILL may have said something before.
        let member = self.servers[number].clients.keys().next_back().copied();
        if let Some(member) = member.filter(|it| !self.servers[number].held.contains(it)) {
            self.says(number, member);
        }
        self.with(number, Room::stop);
    }
}
