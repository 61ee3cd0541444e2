//! Step 10 of docs/tutorial.md: the whole room, with its tests.

use std::time::Duration;

use reactor::text::{command, printable};
use reactor::{CloseReason, Context, Error, Handler, Reactor, TimerId};

const PATIENCE: Duration = Duration::from_secs(30);

struct Room;

#[derive(Default)]
struct Session {
    name: Option<String>,
}

/// Sends a line to everybody who has a name.
fn tell(cx: &mut Context<'_, Session>, line: String) {
    cx.broadcast_if(line + "\n", |_, session| session.name.is_some());
}

impl Handler for Room {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.set_timer(PATIENCE);
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let (verb, rest) = command(line);
        let text = printable(rest);
        match (verb, cx.session().name.clone()) {
            (b"NAME", None) if !text.is_empty() => {
                cx.session().name = Some(text.clone());
                tell(cx, format!("* {text} is here"));
            }
            (b"SAY", Some(name)) => tell(cx, format!("{name}: {text}")),
            (b"BYE", _) => {
                cx.send("OK\n");
                cx.close();
            }
            _ => writeln!(cx, "ERR first NAME who, once; then SAY text; BYE"),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Session>, _timer: TimerId) {
        if cx.session().name.is_none() {
            cx.send("ERR too late\n");
            cx.close();
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
        if let Some(name) = cx.session().name.take() {
            tell(cx, format!("* {name} has left"));
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8110".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Room)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use reactor::testing::Harness;

    use super::*;

    #[test]
    fn all_who_have_a_name_hear_what_is_said() {
        let mut room = Harness::new(Room);
        let [ann, bob, eve] = [room.connect(), room.connect(), room.connect()];
        room.feed(ann, "NAME ann\n");
        room.feed(bob, "NAME bob\n");
        room.feed(ann, "SAY hello\n");
        assert_eq!(room.sent(ann), b"* ann is here\n* bob is here\nann: hello\n");
        assert_eq!(room.sent(bob), b"* bob is here\nann: hello\n");
        assert_eq!(room.sent(eve), b"");
    }

    #[test]
    fn a_line_may_come_in_pieces_and_two_in_one() {
        let mut room = Harness::new(Room);
        let ann = room.connect();
        for piece in ["NA", "ME ann", "\nSAY one\nSA", "Y two\n"] {
            room.feed(ann, piece);
        }
        assert_eq!(room.sent(ann), b"* ann is here\nann: one\nann: two\n");
    }

    #[test]
    fn the_others_hear_of_a_client_that_is_cut_off() {
        let mut room = Harness::new(Room);
        let [ann, bob] = [room.connect(), room.connect()];
        room.feed(ann, "NAME ann\n");
        room.feed(bob, "NAME bob\n");
        room.sent(ann);
        room.reset(bob);
        assert_eq!(room.sent(ann), b"* bob has left\n");
    }

    #[test]
    fn who_says_no_name_has_to_leave() {
        let mut room = Harness::new(Room);
        let [ann, eve] = [room.connect(), room.connect()];
        room.feed(ann, "NAME ann\n");
        room.advance(PATIENCE);
        assert_eq!(room.sent(eve), b"ERR too late\n");
        assert_eq!(room.closed(eve), Some(CloseReason::Closed));
        assert_eq!(room.closed(ann), None);
    }
}
