//! File descriptors: each connection takes one.

use std::io;

use super::failure::Failure;

/// Descriptors that the program needs beside clients and listeners: the three standard streams, the
/// selector and its copy, the waker, the two ends of the signals' pipe, the loop's reserve, the file of
/// the log and its reserve, the control socket with its lock, and some for its clients, for the locks of
/// Unix paths and for inherited ones.
const OWN: u64 = 16;

/// Those of each further loop: the selector and its copy, the waker, the reserve.
const LOOP: u64 = 4;

/// The soft limit before and after it was raised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raised {
    before: u64,
    pub(crate) limit: u64,
}

/// Raises the soft limit to the hard one.
pub(crate) fn raise() -> io::Result<Raised> {
    let (before, _) = rlimit::Resource::NOFILE.get()?;
    // On macOS other bounds than the hard limit count too, which the crate knows.
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    Ok(Raised { before, limit })
}

/// What a command may have open at once.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) threads: usize,
    pub(crate) listeners: usize,
    /// Clients of each service: `--max-connections`.
    pub(crate) clients: Vec<usize>,
    /// Descriptors of each client.
    pub(crate) each: u64,
}

impl Demand {
    fn needed(&self) -> u64 {
        let clients = self.all_clients().saturating_mul(self.each);
        clients.saturating_add(self.own())
    }

    fn all_clients(&self) -> u64 {
        self.clients.iter().fold(0, |sum, clients| sum.saturating_add(*clients as u64))
    }

    /// How many clients of all services together a limit suffices for.
    fn room(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.own()) / self.each
    }

    fn own(&self) -> u64 {
        let loops = LOOP.saturating_mul(self.threads as u64 - 1);
        OWN.saturating_add(loops).saturating_add(self.listeners as u64)
    }

    /// Fails if the limit does not suffice. For when the number of clients was asked for.
    pub(crate) fn check(&self, limit: u64) -> Result<(), Failure> {
        let needed = self.needed();
        let Some(first) = self.clients.first().filter(|_| needed > limit) else { return Ok(()) };
        let services = self.clients.len();
        let what = match services {
            1 => format!("{first} needs"),
            _ if self.clients.iter().all(|clients| clients == first) => {
                format!("{first} for each of {services} services needs")
            }
            _ => format!("of {services} services, {} together, needs", self.all_clients()),
        };
        let lower = match self.room(limit) / services as u64 {
            0 => String::new(),
            most if services == 1 => format!(", or give --max-connections {most} or less"),
            most => format!(", or give --max-connections {most} or less to each"),
        };
        Err(Failure::Runtime(format!(
            "--max-connections {what} {needed} file descriptors, but the limit is {limit}: raise it \
             first (ulimit -n {needed}){lower}"
        )))
    }
}

/// Logs the limit, and how many clients it suffices for if that is fewer than the demand. With the
/// default number of clients that is no failure: when descriptors run out, newcomers wait.
pub(crate) fn report(raised: &io::Result<Raised>, demand: &Demand) {
    let Raised { before, limit } = match raised {
        Ok(raised) => *raised,
        Err(error) => {
            return log::warn!("file descriptors: the limit cannot be raised: {error}");
        }
    };
    let limits = match before {
        _ if limit > before => format!("limit raised from {before} to {limit}, the hard one"),
        _ => format!("limit {limit}, already the hard one"),
    };
    let needed = demand.needed();
    if needed <= limit {
        return log::info!("file descriptors: {limits}");
    }
    let (room, all) = (demand.room(limit), demand.all_clients());
    log::warn!(
        "file descriptors: {limits}: room for {room} of {all} clients; raise it (ulimit -n \
         {needed}), or lower --max-connections"
    );
}

/// Fails if the limit does not suffice for so many outbound connections, and some to spare.
pub(crate) fn check_clients(limit: u64, clients: u32, spare: u32) -> Result<(), Failure> {
    let own = u64::from(spare) + OWN;
    let needed = u64::from(clients) + own;
    if needed <= limit {
        return Ok(());
    }
    let lower = match limit.saturating_sub(own) {
        0 => String::new(),
        most => format!(", or give --clients {most} or less"),
    };
    Err(Failure::Runtime(format!(
        "--clients {clients} needs {needed} file descriptors, but the limit is {limit}: raise it \
         first (ulimit -n {needed}){lower}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: u64, services: usize, listeners: usize, clients: usize) -> Result<(), Failure> {
        Demand { threads: 1, listeners, clients: vec![clients; services], each: 1 }.check(limit)
    }

    #[test]
    fn what_suffices_is_let_through() {
        assert!(check(1024, 1, 1, 1024 - 17).is_ok());
        assert!(check(1024, 1, 2, 1024 - 17).is_err());
        assert!(check(1024, 3, 3, 335).is_ok());
    }

    #[test]
    fn clients_take_one_each() {
        assert!(check_clients(1024, 1008, 0).is_ok());
        let said = check_clients(1024, 1009, 0).unwrap_err().to_string();
        assert!(said.contains("needs 1025") && said.contains("--clients 1008 or less"), "{said}");
        let said = check_clients(1024, 1000, 256).unwrap_err().to_string();
        assert!(said.contains("needs 1272") && said.contains("--clients 752 or less"), "{said}");
        let said = check_clients(8, 50, 0).unwrap_err().to_string();
        assert!(said.ends_with("raise it first (ulimit -n 66)"), "{said}");
    }

    #[test]
    fn forwarded_clients_take_two_each() {
        let check = |clients| {
            Demand { threads: 1, listeners: 1, clients: vec![clients], each: 2 }.check(1023)
        };
        assert!(check(503).is_ok());
        let said = check(504).unwrap_err().to_string();
        assert!(said.contains("504 needs 1025") && said.contains("503 or less"), "{said}");
    }

    #[test]
    fn what_does_not_names_both_numbers_and_the_remedy() {
        let said =
            |limit, services, each| check(limit, services, services, each).unwrap_err().to_string();
        assert_eq!(
            said(1024, 1, 5000),
            "--max-connections 5000 needs 5017 file descriptors, but the limit is 1024: raise it \
             first (ulimit -n 5017), or give --max-connections 1007 or less"
        );
        let three = said(1024, 3, 336);
        assert!(three.contains("for each of 3 services needs 1027"), "{three}");
        assert!(three.contains("--max-connections 335 or less"), "{three}");
        assert!(said(10, 1, 5000).ends_with("(ulimit -n 5017)"));
        let several = Demand { threads: 1, listeners: 2, clients: vec![900, 200], each: 1 };
        let several = several.check(1024).unwrap_err().to_string();
        assert_eq!(
            several,
            "--max-connections of 2 services, 1100 together, needs 1118 file descriptors, but the limit is \
             1024: raise it first (ulimit -n 1118), or give --max-connections 503 or less to each"
        );
        let most = Demand { threads: 1, listeners: 0, clients: vec![usize::MAX; 2], each: 2 };
        assert!(most.check(1024).unwrap_err().to_string().contains("1024"));
    }
}
