//! Servers whose program is started once more, while everybody talks.

use rustix::process::{Pid, Signal, kill_process};

use crate::rooms::{Rooms, nothing_is_heard_of_it};
use crate::util::program::Program;
use crate::util::redis::installed;

/// The processes that have gone on for each server.
struct Successors(Vec<Option<u32>>);

impl Successors {
    /// Upgrades a server, the one before having ended; no connection of its members does.
    fn upgrade(&mut self, rooms: &Rooms, server: usize) {
        let pid = self.0[server].unwrap_or_else(|| rooms.server(server).pid());
        let (status, said, error) = Program::run(&["upgrade", &pid.to_string()]);
        assert_eq!((status, &*error), (0, ""), "{said}");
        let successor = said.split_once("process ").expect("no process").1;
        let digits: String = successor.chars().take_while(char::is_ascii_digit).collect();
        self.0[server] = digits.parse().ok();
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        for pid in self.0.iter().flatten() {
            let pid = Pid::from_raw((*pid).try_into().unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Nobody leaves, and no line is lost, doubled or out of order: no server of the room hears of it.
#[test]
fn a_server_is_upgraded_again_and_again() {
    if !installed() {
        return;
    }
    for options in [&[][..], &["--unique-names"]] {
        let mut rooms = Rooms::start(2, options);
        let mut successors = Successors(vec![None; 2]);
        rooms.talk();
        for server in [0, 1, 0, 0, 1] {
            successors.upgrade(&rooms, server);
            rooms.go_on_talking(3);
        }
        // Redis has the two servers that it had.
        let servers = rooms.redis().ask("SCARD reactor:lobby:servers");
        assert_eq!(servers, "2");
        nothing_is_heard_of_it(&rooms.conclude());
    }
}
