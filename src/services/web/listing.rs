//! The state of the loop and its connections, streamed: however many there are, no more than a page of
//! them is in memory.

use super::Session;
use super::answer::Manner;
use crate::http::Request;
use crate::services::views::{Process, json};
use crate::{Ask, Context, Order, Page, Selection, Status};

/// How many connections are shown unless all are asked for.
const SHOWN: usize = 100;

/// An answer to `/status.json` under way.
#[derive(Debug)]
pub(super) struct Listing {
    /// What comes next; as many as that, unless it is all.
    selection: Selection,
    all: bool,
    rows: json::Rows,
}

impl Listing {
    /// What the query asks for.
    pub(super) fn asked_for(request: &Request<'_>) -> Result<Listing, &'static str> {
        let all = request.query("all").is_some();
        let order = match request.query("sort").as_deref() {
            None => Order::Table,
            Some(_) if all => return Err("all of them come in no order; leave sort out"),
            Some("unsent") => Order::Unsent,
            Some("idle") => Order::Idle,
            Some("oldest") => Order::Oldest,
            Some("bytes_in") => Order::BytesIn,
            Some("bytes_out") => Order::BytesOut,
            Some("lines") => Order::Lines,
            Some(_) => {
                return Err("sort is one of unsent, idle, oldest, bytes_in, bytes_out, lines");
            }
        };
        let service = request.query("service").map(|name| name.into_owned());
        let most = if all { Selection::default().most } else { SHOWN };
        let selection = Selection { service, order, most, after: None };
        Ok(Listing { selection, all, rows: json::Rows::default() })
    }

    /// Sends what comes in front of the connections. False if there is no such service.
    pub(super) fn begin(
        &self,
        cx: &mut Context<'_, Session>,
        manner: Manner,
        status: &Status,
        process: &Process,
        admin: bool,
    ) -> bool {
        let named = self.selection.service.as_deref();
        let wanted = status.services.iter().filter(|it| named.is_none_or(|name| it.name == name));
        let counts: Vec<_> = wanted.map(|service| service.connections).collect();
        if named.is_some() && counts.is_empty() {
            return false;
        }
        let mut piece = Vec::new();
        json::begin(&mut piece, status, process, admin, counts.iter().sum());
        manner.begin_pieces(cx);
        manner.send_piece(cx, &piece);
        true
    }

    /// For the next connections.
    pub(super) fn ask(&self) -> Ask {
        Ask::Connections(self.selection.clone())
    }

    /// Sends them; false if they were the last.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_, Session>,
        manner: Manner,
        page: &Page,
    ) -> bool {
        let mut piece = Vec::new();
        self.rows.push(&mut piece, &page.connections);
        if !self.all {
            self.selection.most -= page.connections.len().min(self.selection.most);
        }
        self.selection.after = page.next;
        let more = page.next.is_some() && self.selection.most > 0;
        if !more {
            json::end(&mut piece);
        }
        manner.send_piece(cx, &piece);
        if !more {
            manner.end_pieces(cx);
        }
        more
    }
}
