//! One answer of what each core has answered.

use std::cmp::Reverse;
use std::time::Duration;

use crate::reactor::{
    Ask, ConnectionStatus, Counters, Cursor, Order, Page, Report, Selection, ServiceStatus, Status,
    Steps, Turns,
};

/// What one core is to be asked, so that all of them together answer what was asked for.
pub(super) fn part(what: &Ask, core: usize) -> Ask {
    match what {
        Ask::Connections(which) if which.order == Order::Table => {
            // A page is of one core; of the others it takes how many they have.
            let wanted = which.after.map_or(0, |after| after.core);
            let most = if core == wanted { which.most } else { 0 };
            let after = which.after.filter(|_| core == wanted);
            Ask::Connections(Selection { most, after, ..which.clone() })
        }
        what => what.clone(),
    }
}

/// Adds what a core has answered to what others have.
pub(super) fn add(
    sum: Option<Report>,
    core: usize,
    report: Report,
    what: &Ask,
    cores: usize,
) -> Report {
    match (sum, report, what) {
        (None, Report::Connections(page), Ask::Connections(which)) => {
            let page = turn_over(page, core, which, cores);
            Report::Connections(page)
        }
        (None, Report::Overview(status), _) => Report::Overview(of_core(core, status)),
        (None, report, _) => report,
        (Some(Report::Overview(mut sum)), Report::Overview(other), _) => {
            add_status(&mut sum, of_core(core, other));
            Report::Overview(sum)
        }
        (Some(Report::Connections(sum)), Report::Connections(page), Ask::Connections(which)) => {
            let page = turn_over(page, core, which, cores);
            Report::Connections(add_page(sum, page, which))
        }
        (Some(Report::Closed(sum)), Report::Closed(closed), _) => Report::Closed(sum || closed),
        // Each answers what it was asked.
        (Some(sum), _, _) => sum,
    }
}

/// Where to go on: behind the last connection of a core with the first of the next one.
fn turn_over(page: Page, core: usize, which: &Selection, cores: usize) -> Page {
    if which.order != Order::Table {
        return page;
    }
    if core != which.after.map_or(0, |after| after.core) {
        return Page { next: None, ..page };
    }
    let next_core = (core + 1 < cores).then_some(Cursor { core: core + 1, service: 0, slot: 0 });
    let next = page.next.map(|next| Cursor { core, ..next }).or(next_core);
    Page { next, ..page }
}

fn add_page(sum: Page, page: Page, which: &Selection) -> Page {
    let mut connections = sum.connections;
    connections.extend(page.connections);
    if which.order != Order::Table {
        connections.sort_by_key(|row| (Reverse(rank(row, which.order)), row.id));
        connections.truncate(which.most);
    }
    Page { connections, next: sum.next.or(page.next), total: sum.total + page.total }
}

/// The higher it is, the sooner the connection comes.
fn rank(row: &ConnectionStatus, order: Order) -> u64 {
    let usage = row.usage.unwrap_or_default();
    match order {
        Order::Table | Order::Oldest => 0,
        Order::Unsent => row.unsent as u64,
        Order::Idle => u64::try_from(row.idle.as_nanos()).unwrap_or(u64::MAX),
        Order::BytesIn => usage.bytes_in,
        Order::BytesOut => usage.bytes_out,
        Order::Lines => usage.lines_in,
    }
}

/// What a core says of itself, which does not know the others.
pub(super) fn of_core(index: usize, mut status: Status) -> Status {
    status.cores.iter_mut().for_each(|core| core.index = index);
    status
}

/// Adds the state of another core. Services are matched by name, and those of the same name by their order. A
/// service that the first core has removed may still be on the other one.
pub(super) fn add_status(sum: &mut Status, other: Status) {
    let Status { counters, uptime, turns, services, unsent, stopping, cores } = other;
    sum.cores.extend(cores);
    sum.cores.sort_by_key(|core| core.index);
    add_counters(&mut sum.counters, &counters);
    sum.uptime = sum.uptime.max(uptime);
    add_turns(&mut sum.turns, turns);
    sum.unsent += unsent;
    sum.stopping |= stopping;
    let mut unmatched: Vec<_> = (0..sum.services.len()).collect();
    for service in services {
        let same = |place: &usize| sum.services[*place].name == service.name;
        let Some(found) = unmatched.iter().position(same) else {
            // It accepts no more.
            sum.services.push(ServiceStatus { listeners: Vec::new(), ..service });
            continue;
        };
        let known = &mut sum.services[unmatched.remove(found)];
        // The listeners are those of the first core, which the others get their newcomers from.
        add_counters(&mut known.counters, &service.counters);
        known.connections += service.connections;
        known.unsent += service.unsent;
    }
}

fn add_counters(sum: &mut Counters, other: &Counters) {
    sum.add(other);
    sum.turns += other.turns;
    sum.longest_turn = sum.longest_turn.max(other.longest_turn);
}

fn add_turns(sum: &mut Turns, other: Turns) {
    let Turns { count, slept, busy, longest, histogram, steps } = other;
    sum.count += count;
    sum.slept += slept;
    sum.busy += busy;
    sum.longest = sum.longest.max(longest);
    sum.histogram.iter_mut().zip(histogram).for_each(|(sum, count)| *sum += count);
    sum.steps = match (sum.steps, steps) {
        (Some(mut sum), Some(other)) => {
            let Steps { accept, read, handlers, timers, messages, flush } = other;
            let add = |sum: &mut Duration, other| *sum += other;
            add(&mut sum.accept, accept);
            add(&mut sum.read, read);
            add(&mut sum.handlers, handlers);
            add(&mut sum.timers, timers);
            add(&mut sum.messages, messages);
            add(&mut sum.flush, flush);
            Some(sum)
        }
        (sum, other) => sum.or(other),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::{Callbacks, Reactor};

    #[test]
    fn services_of_several_cores_go_by_their_names_in_whatever_order() {
        let with = |names: &[&str]| {
            let mut reactor = Reactor::new().unwrap();
            for name in names {
                let service = reactor.add(Callbacks::new(), Limits::default()).unwrap();
                reactor.set_name(&service, *name);
            }
            let mut status = reactor.status();
            status.services.iter_mut().for_each(|service| service.connections = 1);
            status
        };
        let mut sum = with(&["own", "a", "b", "a"]);
        add_status(&mut sum, with(&["b", "gone", "a", "a"]));
        add_status(&mut sum, with(&["a", "gone"]));
        let found: Vec<_> = sum.services.iter().map(|it| (&*it.name, it.connections)).collect();
        assert_eq!(found, [("own", 1), ("a", 3), ("b", 2), ("a", 2), ("gone", 2)]);
    }
}
