//! One server without a bus: that what is asked of a room holds there, so that it can be asked elsewhere.

use std::time::Duration;

use crate::judge::same;
use crate::rooms::Rooms;
use crate::swarm::Pace;

#[test]
fn everybody_hears_the_same() {
    let mut rooms = Rooms::alone();
    rooms.talk();
    rooms.swarm.speaks(5, Pace { window: 100, pause: Duration::ZERO });
    rooms.go_on_talking(10);
    let [first, second] = [rooms.join(0), rooms.join(0)];
    let who = rooms.who_is_there();
    let names = [first, second].map(|id| rooms.swarm.members[id].name.clone());
    assert!(who.ends_with(&names), "{who:?}");
    rooms.swarm.leave(first);
    rooms.swarm.leave(7);
    let left = |name: &str| format!("{name} has left the room.");
    rooms.wait_for(&[0], &left(&names[0]), 1);
    rooms.wait_for(&[0], &left("s0-7"), 1);
    rooms.go_on_talking(3);
    let witnesses = rooms.conclude();
    assert!(witnesses[0].heard.len() > 100);
    assert_eq!(same(&witnesses), Ok(()));
}
