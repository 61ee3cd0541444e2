//! The client of Redis with real servers, over each of the ways to reach one.

use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use reactor::services::redis::{Ask, Failure, Login, Order, Redis, Reply, State, Unanswered};
use reactor::{Connect, Exit, Handle, Limits, Reactor, ToConnect};

use crate::util::PATIENCE;
use crate::util::redis::{self, installed};

type Outcome = Result<Vec<Reply>, Unanswered>;

/// A client in a loop of its own.
struct Running {
    client: Handle<Order>,
    states: Receiver<State>,
    thread: JoinHandle<Exit>,
}

impl Running {
    fn start(target: impl ToConnect, login: Login) -> Running {
        Running::with(Redis::new(target, login).unwrap())
    }

    fn with(client: Redis) -> Running {
        let (tell_handle, handle) = channel();
        let (tell, states) = channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let client = reactor.add(client, Limits::default()).unwrap().handle();
            tell_handle.send(client).unwrap();
            reactor.run().unwrap()
        });
        let client = handle.recv().unwrap();
        client.post(Order::watch(move |state| _ = tell.send(state.clone()))).unwrap();
        Running { client, states, thread }
    }

    /// Waits for a state.
    #[track_caller]
    fn wait(&self, wanted: impl Fn(&State) -> bool) -> State {
        loop {
            let state = self.states.recv_timeout(PATIENCE).expect("the state does not come");
            if wanted(&state) {
                return state;
            }
        }
    }

    #[track_caller]
    fn up(&self) -> u64 {
        self.wait(|state| matches!(state, State::Up { .. })).number()
    }

    fn begin<W: AsRef<[u8]>>(&self, commands: Vec<Vec<W>>) -> Receiver<Outcome> {
        let (tell, told) = channel();
        let ask = Ask::new(commands, move |outcome| _ = tell.send(outcome));
        self.client.post(Order::Ask(ask)).unwrap();
        told
    }

    #[track_caller]
    fn ask(&self, command: &str) -> Outcome {
        let told = self.begin(vec![command.split(' ').collect()]);
        told.recv_timeout(PATIENCE).expect("no answer")
    }

    fn end(self) {
        self.client.stop();
        assert_eq!(self.thread.join().unwrap(), Exit::Clean);
    }
}

/// Text and bytes, small and large, one and many.
fn use_it(running: &Running) {
    running.up();
    assert_eq!(running.ask("SET a 5"), Ok(vec![Reply::Status("OK".to_owned())]));
    assert_eq!(running.ask("INCR a"), Ok(vec![Reply::Integer(6)]));
    assert_eq!(running.ask("GET nothing"), Ok(vec![Reply::Nil]));
    let error = running.ask("INCR").unwrap();
    assert!(error[0].error().unwrap().starts_with("ERR wrong number of arguments"));

    let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let set = running.begin(vec![vec![b"SET", &b"b"[..], &large], vec![b"GET", b"b"]]);
    let replies = set.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(replies[1] == Reply::Bulk(large), "what comes back is something else");

    let many: Vec<_> =
        (0..3000).map(|n| running.begin(vec![vec!["ECHO".to_owned(), n.to_string()]])).collect();
    for (n, told) in many.into_iter().enumerate() {
        let text = Reply::Bulk(n.to_string().into_bytes());
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Ok(vec![text]));
    }
    running.ask("DEL l").unwrap();
    let push: Vec<_> = ["RPUSH", "l"]
        .iter()
        .map(ToString::to_string)
        .chain((0..50_000).map(|n| n.to_string()))
        .collect();
    let told = running.begin(vec![push, ["LRANGE", "l", "0", "-1"].map(str::to_owned).to_vec()]);
    let replies = told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((&replies[0], replies[1].parts().len()), (&Reply::Integer(50_000), 50_000));
}

#[test]
fn over_tcp_by_address_and_by_name() {
    if !installed() {
        return;
    }
    let server = redis::Redis::start();
    let running = Running::start(server.addr, Login::default());
    use_it(&running);
    running.end();

    let server = redis::Redis::start_with(&["--bind", "127.0.0.7", "127.0.0.1"]);
    let running = Running::start(format!("localhost:{}", server.addr.port()), Login::default());
    running.up();
    assert_eq!(running.ask("INCR a"), Ok(vec![Reply::Integer(1)]));
    running.end();
}

#[test]
fn over_a_unix_socket() {
    if !installed() {
        return;
    }
    let folder = crate::util::folder::Folder::new("redis-unix");
    let path = folder.file("redis.sock");
    let _server = redis::Redis::start_with(&["--unixsocket", path.to_str().unwrap()]);
    let running = Running::start(path.as_path(), Login::default());
    use_it(&running);
    running.end();
}

#[cfg(feature = "tls")]
#[test]
fn over_tls() {
    use reactor::TlsConnector;

    use crate::util::tls::Pem;

    if !installed() {
        return;
    }
    let pem = Pem::new("redis-tls");
    let (server, address) = redis::Redis::start_with_tls(&pem);
    assert_eq!(server.ask("PING"), "PONG");
    let connect = |tls: TlsConnector| Connect::to(address).unwrap().tls(&tls, "localhost").unwrap();
    let running =
        Running::start(connect(TlsConnector::with_roots(pem.cert()).unwrap()), Login::default());
    use_it(&running);
    running.end();

    // Somebody whom nobody has told us to trust.
    let other = Pem::new("redis-tls-other");
    let running =
        Running::start(connect(TlsConnector::with_roots(other.cert()).unwrap()), Login::default());
    match running.wait(|state| matches!(state, State::Down { .. })) {
        State::Down { failure, why, .. } => {
            assert!(failure == Failure::Other && why.contains("certificate"), "{why}");
        }
        _ => unreachable!(),
    }
    running.end();
}

#[test]
fn a_user_with_a_password_and_a_database_of_its_own() {
    if !installed() {
        return;
    }
    let server = redis::Redis::start();
    server.ask("ACL SETUSER me on >secret ~* +@all");
    let login = |user: Option<&str>, password: Option<&str>, database| {
        let [user, password] = [user, password].map(|it| it.map(str::to_owned));
        Login { user, password, database }
    };
    let running = Running::start(server.addr, login(Some("me"), Some("secret"), 3));
    running.up();
    assert_eq!(running.ask("ACL WHOAMI"), Ok(vec![Reply::Bulk(b"me".to_vec())]));
    running.ask("SET a 3").unwrap();
    running.end();
    assert_eq!(server.ask("DBSIZE"), "0");

    server.ask("CONFIG SET requirepass other");
    for (login, words) in [
        (login(Some("me"), Some("wrong"), 0), "WRONGPASS"),
        (login(Some("nobody"), Some("secret"), 0), "WRONGPASS"),
        (login(Some("me"), None, 0), "WRONGPASS"),
        (login(None, Some("wrong"), 0), "WRONGPASS"),
        (login(None, None, 0), "NOAUTH"),
        (login(None, None, 3), "NOAUTH"),
        (login(None, Some("other"), 99), "ERR DB index is out of range"),
    ] {
        let running = Running::start(server.addr, login);
        match running.wait(|state| matches!(state, State::Down { .. })) {
            State::Down { failure, why, again, .. } => {
                assert!(failure == Failure::Login && why.contains(words), "{words}: {why}");
                assert_eq!(again, Some(Duration::from_secs(30)));
            }
            _ => unreachable!(),
        }
        running.end();
    }
}

#[test]
fn client_kill_loses_what_was_asked_and_nothing_more() {
    if !installed() {
        return;
    }
    let server = redis::Redis::start();
    let running = Running::start(server.addr, Login::default());
    for number in 1..=20 {
        assert_eq!(running.up(), number);
        assert_eq!(running.ask("INCR a"), Ok(vec![Reply::Integer(number as i64)]));
        // It waits for something that never comes.
        let blocked = running.begin(vec![vec!["BLPOP", "nothing", "0"]]);
        crate::util::until("it blocks", || {
            server.ask("INFO clients").contains("blocked_clients:1")
        });
        assert_eq!(server.ask("CLIENT KILL TYPE normal SKIPME yes"), "1");
        assert_eq!(blocked.recv_timeout(PATIENCE).unwrap(), Err(Unanswered::Lost));
    }
    running.up();
    running.end();
}

#[test]
fn a_server_that_is_silent_is_given_up_and_found_again() {
    if !installed() {
        return;
    }
    let mut server = redis::Redis::start();
    let client = Redis::new(server.addr, Login::default()).unwrap();
    let running = Running::with(client.with_reply_timeout(Duration::from_millis(300)));
    running.up();
    server.signal("STOP");
    assert_eq!(running.ask("INCR a"), Err(Unanswered::Lost));
    match running.wait(|state| matches!(state, State::Down { .. })) {
        State::Down { why, .. } => assert_eq!(why, "no reply within 300ms"),
        _ => unreachable!(),
    }
    // Nor does the login get an answer.
    running.wait(|state| matches!(state, State::Down { .. }));
    server.signal("CONT");
    running.up();
    // What was not answered has been done all the same.
    assert_eq!(running.ask("INCR a"), Ok(vec![Reply::Integer(2)]));
    server.kill();
    running.wait(|state| matches!(state, State::Down { .. }));
    server.resume();
    running.up();
    assert_eq!(running.ask("INCR a"), Ok(vec![Reply::Integer(1)]));
    running.end();
}
