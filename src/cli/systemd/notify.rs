//! Notifies systemd of the program's state; sd_notify(3).

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use reactor::{
    Ask, CloseReason, ConnId, Context, Cores, Error, Farewell, Handle, Handler, Limits, Report,
    Saved, ServiceContext, ServiceStatus, Status,
};
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::cli::admin;

/// The name of the service.
pub(crate) const NAME: &str = "systemd";
/// How often the status is sent, and how long to wait before connecting again.
const PACE: Duration = Duration::from_secs(10);
/// How many services the status names; the others are one sum.
const NAMED: usize = 8;

/// Posts to the service that notifies systemd. Does nothing if systemd does not ask for notifications.
#[derive(Clone, Default)]
pub(crate) struct Notices(Option<Handle<Notice>>);

/// What the service cannot see itself.
pub(crate) enum Notice {
    Reloading,
    Reloaded,
    /// From now on it may notify.
    Begin,
}

impl Notices {
    /// Begins to notify systemd, if it asks for that: of readiness once all cores have answered, then every few
    /// seconds of the status and that all cores still answer. Where it `waits`, not before [`begin`](Self::begin).
    pub(crate) fn start(cores: &mut Cores<'_>, waits: bool) -> Result<Notices, Error> {
        let Some(to) = env::var_os("NOTIFY_SOCKET") else { return Ok(Notices::default()) };
        // Zero means that systemd has switched the watchdog off.
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        start(cores, Notify { waits, ..Notify::new(to, watchdog) })
    }

    /// systemd hears this process from now on.
    pub(crate) fn begin(&self) {
        self.post(Notice::Begin);
    }

    /// Tells systemd at once which process it is about from now on. It does not hear this one any more.
    pub(crate) fn main_pid(&self, pid: u32) {
        let (Some(_), Some(to)) = (&self.0, env::var_os("NOTIFY_SOCKET")) else { return };
        let told = connected(&to).and_then(|socket| {
            socket.set_nonblocking(false)?;
            socket.set_write_timeout(Some(Duration::from_secs(1)))?;
            socket.send(lines(&[NotifyState::MainPid(pid)]).as_bytes())
        });
        if let Err(error) = told {
            log::warn!("systemd cannot be told that process {pid} goes on: {error}");
        }
    }

    /// A reload has begun.
    pub(crate) fn reloading(&self) {
        self.post(Notice::Reloading);
    }

    /// A reload has ended, successfully or not.
    pub(crate) fn reloaded(&self) {
        self.post(Notice::Reloaded);
    }

    fn post(&self, notice: Notice) {
        if let Some(handle) = &self.0 {
            // After the end of the loop nobody takes the message.
            let _ = handle.post(notice);
        }
    }
}

fn start(cores: &mut Cores<'_>, notify: Notify) -> Result<Notices, Error> {
    let limits = Limits {
        flush_timeout: Duration::from_secs(1),
        linger: Duration::ZERO,
        ..Limits::default()
    };
    let service = cores.first().add(notify, limits)?;
    cores.first().set_name(&service, NAME);
    Ok(Notices(Some(service.handle())))
}

/// A service with one connection: the socket of datagrams to systemd. What is sent in a turn is one write,
/// so one datagram, and what systemd has no room for waits, as with any client that does not read.
struct Notify {
    /// `NOTIFY_SOCKET`.
    to: OsString,
    /// How often the cores are asked.
    pace: Duration,
    /// Whether systemd has a watchdog, which ends the program unless it is pinged.
    watched: bool,
    connection: Option<ConnId>,
    /// The process before has not told systemd of this one yet.
    waits: bool,
    ready: bool,
    /// Whether it has been logged that systemd cannot be reached.
    lost: bool,
    /// systemd hears the process that has taken over.
    is_over: bool,
}

impl Notify {
    /// `watchdog` is the time after which systemd ends the program if it hears nothing.
    fn new(to: OsString, watchdog: Option<Duration>) -> Notify {
        let pace = watchdog.map_or(PACE, |time| (time / 2).clamp(Duration::from_millis(1), PACE));
        let watched = watchdog.is_some();
        let (ready, waits) = (false, false);
        Notify { to, pace, watched, connection: None, waits, ready, lost: false, is_over: false }
    }

    fn connect(&mut self, cx: &mut ServiceContext<'_, ()>) {
        if self.is_over {
            return;
        }
        let adopted = connected(&self.to).map(|socket| cx.adopt(&socket, &socket, ()));
        match adopted {
            Ok(adopted) => self.connection = adopted.ok(),
            Err(error) => self.is_lost(cx, &error.to_string()),
        }
    }

    /// Logs this once, and tries again later.
    fn is_lost(&mut self, cx: &mut ServiceContext<'_, ()>, why: &str) {
        self.connection = None;
        if !std::mem::replace(&mut self.lost, true) {
            let to = self.to.display();
            log::warn!("systemd cannot be told how the program is (NOTIFY_SOCKET={to}): {why}");
        }
        cx.set_service_timer(PACE);
    }

    fn tell(&self, cx: &mut ServiceContext<'_, ()>, states: &[NotifyState<'_>]) {
        if let Some(mut connection) = self.connection.and_then(|id| cx.connection(id)) {
            connection.send(lines(states));
        }
    }
}

impl Handler for Notify {
    type Session = ();
    type Message = Notice;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        if !self.waits {
            self.connect(cx);
        }
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, _: reactor::TimerId) {
        self.connect(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.request_report(Ask::Overview { watch: false });
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: reactor::TimerId) {
        cx.request_report(Ask::Overview { watch: false });
    }

    /// All cores have answered; one that hangs keeps this from being called.
    fn on_report(&mut self, cx: &mut Context<'_, ()>, report: &Report) {
        cx.set_timer(self.pace);
        let Report::Overview(status) = report else { return };
        // systemd has not read the last message yet, which says as much.
        if cx.unsent() > 0 {
            return;
        }
        let status = summary(status);
        let ready = (!std::mem::replace(&mut self.ready, true)).then_some(NotifyState::Ready);
        let watchdog = self.watched.then_some(NotifyState::Watchdog);
        let states = ready.into_iter().chain([NotifyState::Status(&status)]).chain(watchdog);
        cx.send(lines(&states.collect::<Vec<_>>()));
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, notice: Notice) {
        let states = match notice {
            Notice::Reloading => {
                // By this time systemd knows that the reload has begun after it asked for one.
                let now = NotifyState::monotonic_usec_now().ok();
                [NotifyState::Reloading].into_iter().chain(now).collect()
            }
            Notice::Reloaded => vec![NotifyState::Ready],
            Notice::Begin => return self.connect(cx),
        };
        self.tell(cx, &states);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.tell(cx, &[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// systemd is no client that would read it.
    fn farewell(&self, _: Farewell, _: &Limits) -> Cow<'static, [u8]> {
        Cow::Borrowed(b"")
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        let error = cx.error().map_or_else(|| reason.to_string(), |error| error.to_string());
        if !self.is_over && reason != CloseReason::Shutdown {
            self.is_lost(cx, &error);
        }
    }

    /// The other process has a connection of its own.
    fn save(&self, _: &ServiceContext<'_, ()>) -> Option<Saved> {
        Some(Saved::stay())
    }

    fn on_handed_on(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.is_over = true;
        if let Some(mut connection) = self.connection.and_then(|id| cx.connection(id)) {
            connection.close();
        }
    }
}

/// Connects to systemd. sd-notify would open a socket for each message, and block until systemd has room.
fn connected(to: &OsStr) -> io::Result<Socket> {
    let mut name = to.to_owned().into_vec();
    if let Some(first @ b'@') = name.first_mut() {
        // An abstract name.
        *first = 0;
    }
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.connect(&SockAddr::unix(OsString::from_vec(name))?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn lines(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

/// How many connections there are, for `systemctl status`.
fn summary(status: &Status) -> String {
    let services = status.services.iter().filter(|service| service.name != admin::NAME);
    // Services of datagrams and those that only dial are left out.
    let serves = |it: &&ServiceStatus| it.limits.is_some() && !it.listeners.is_empty();
    let services: Vec<_> = services.filter(serves).collect();
    let all: usize = services.iter().map(|service| service.connections).sum();
    if services.len() > NAMED {
        return format!("{all} connections of {} services", services.len());
    }
    let each = services.iter().map(|service| format!("{} {}", service.name, service.connections));
    format!("{all} connections: {}", each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A hook that takes as long as the test likes.
    struct Slow(Arc<Mutex<Receiver<()>>>, Sender<()>);

    impl Handler for Slow {
        type Session = ();
        type Message = ();

        fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, (): ()) {
            self.1.send(()).unwrap();
            self.0.lock().unwrap().recv().unwrap();
        }
    }

    /// A second core that hangs is not seen by the first one, whose clients are served as ever.
    #[test]
    fn a_hook_that_hangs_on_any_core_ends_the_pings() {
        let path = std::env::temp_dir().join(format!("reactor-{}-notify", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (hangs, told) = channel();
        let (release, wait) = channel();
        let wait = Arc::new(Mutex::new(wait));
        let (tell, handles) = channel();
        let to = path.clone().into_os_string();
        let running = std::thread::spawn(move || {
            let mut cores = Cores::new(2).unwrap();
            start(&mut cores, Notify::new(to, Some(Duration::from_millis(100)))).unwrap();
            let slow = move |_: reactor::Core<()>| Slow(Arc::clone(&wait), hangs.clone());
            let spread = cores.add(slow, Limits::default()).unwrap();
            tell.send(spread.handles().to_vec()).unwrap();
            cores.run().unwrap()
        });
        let handles = handles.recv().unwrap();
        let ping = || {
            let mut said = [0; 500];
            let count = systemd.recv(&mut said)?;
            Ok::<_, io::Error>(std::str::from_utf8(&said[..count]).unwrap().to_owned())
        };
        let first = ping().unwrap();
        assert_eq!(first, "READY=1\nSTATUS=0 connections: \nWATCHDOG=1\n");
        for core in [1, 0] {
            assert!(ping().unwrap().contains("WATCHDOG=1"));
            handles[core].post(()).unwrap();
            told.recv().unwrap();
            systemd.set_nonblocking(true).unwrap();
            while ping().is_ok() {}
            systemd.set_nonblocking(false).unwrap();
            systemd.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            // One ping may have been sent before it began to hang.
            let late = (0..3).take_while(|_| ping().is_ok()).count();
            assert!(late <= 1, "core {core} hangs, and systemd is told that it does not");
            systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            release.send(()).unwrap();
        }
        assert!(ping().unwrap().contains("WATCHDOG=1"), "it goes on");
        handles[0].stop();
        running.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
