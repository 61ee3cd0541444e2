//! The handshakes of layers. A step of one may compute for as long as thousands of lines take, so all
//! services together have one share of the turn for them, and they have it in rotation.

use std::ops::DerefMut;
use std::time::Instant;

use super::loop_state::LoopState;
use super::service::{ActiveService, AnyService};
use crate::connection::input::Scratch;
use crate::handler::Handler;

/// Moves handshakes on, a step of one service after the other, beginning behind the one that had
/// the last step, until the share is used up or none is waiting. What is left waits for the next
/// turn.
pub(crate) fn move_on<S>(services: &mut [S], state: &mut LoopState, scratch: &mut Scratch)
where
    S: DerefMut<Target: AnyService>,
{
    state.turn.begin_step();
    let mut without = 0;
    while without < services.len() && !state.turn.step_is_spent() {
        state.last_handshake = (state.last_handshake + 1) % services.len();
        let moved = services[state.last_handshake].move_handshake(state, scratch);
        without = if moved { 0 } else { without + 1 };
    }
}

impl<H: Handler> ActiveService<H> {
    /// Moves the handshake that has waited longest a step on; says whether there is one.
    pub(super) fn move_oldest_handshake(
        &mut self,
        state: &mut LoopState,
        scratch: &mut Scratch,
    ) -> bool {
        let Some(id) = self.table.queues.handshakes.pop_front() else { return false };
        // What the steps before have computed is not the time of a hook.
        state.turn.clock = Instant::now();
        state.turn.step.count_handshake();
        self.serve(id, state, scratch);
        self.slow_hooks.check(state, &self.table.name, self.table.limits.slow_call);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::connection::clock::Nanos;
    use crate::limits::Limits;
    use crate::net::memory::{Pipe, Wire};
    use crate::net::stream::Stream;
    use crate::reactor::handle::{Mailbox, Shared};
    use crate::reactor::loop_state::ServiceEntry;
    use crate::reactor::table::Table;
    use crate::{Callbacks, Context};

    /// A service with so many newcomers, each of which waits for one step of this cost.
    fn waiting<'h>(
        (number, newcomers): (usize, usize),
        cost: Nanos,
        opened: &'h RefCell<Vec<usize>>,
        state: &mut LoopState,
    ) -> Box<dyn AnyService + 'h> {
        let open = move |_: &mut Context<'_, ()>| opened.borrow_mut().push(number);
        let (mailbox, _) = Mailbox::new(&state.shared);
        state.services.push(ServiceEntry::new("waiting", true, mailbox.identity()));
        let table = Table::new(number, "waiting", Limits::default());
        let mut service = ActiveService::new(Callbacks::new().on_connection(open), table, mailbox);
        for _ in 0..newcomers {
            let wire = Wire { connected: true, steps: [cost].into(), ..Wire::default() };
            let stream = Stream::layer(Pipe::new(Rc::new(RefCell::new(wire))));
            let id = service.admit_unjudged(stream, None, state).unwrap();
            service.table.enqueue(id);
        }
        Box::new(service)
    }

    /// Which service opened a connection in each of so many turns.
    fn opened(newcomers: [usize; 4], cost: Nanos, turns: usize) -> Vec<Vec<usize>> {
        let mut state = LoopState::new(None, Arc::new(Shared::default()));
        let opened = RefCell::default();
        let each = newcomers.into_iter().enumerate();
        let mut services: Vec<_> =
            each.map(|service| waiting(service, cost, &opened, &mut state)).collect();
        let mut turn = || {
            move_on(&mut services, &mut state, &mut Scratch::default());
            opened.take()
        };
        (0..turns).map(|_| turn()).collect()
    }

    #[test]
    fn a_service_with_one_does_not_wait_behind_thousands_of_another() {
        let turns = opened([3_000, 1, 0, 3], 5_000_000, 9);
        assert_eq!(turns.concat(), [1, 3, 0, 3, 0, 3, 0, 0, 0]);
        assert!(turns.iter().all(|turn| turn.len() == 1), "{turns:?}");
    }

    #[test]
    fn the_services_share_the_time_of_a_turn() {
        let turns = opened([3_000, 1, 0, 3], 500_000, 3);
        assert_eq!(turns, [[1, 3, 0, 3], [0, 3, 0, 0], [0; 4]]);
    }

    #[test]
    fn what_costs_nothing_has_a_bound_too() {
        let turns = opened([200, 200, 0, 0], 0, 3);
        assert_eq!(turns.iter().map(Vec::len).collect::<Vec<_>>(), [250, 150, 0]);
    }
}
