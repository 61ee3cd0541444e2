//! The client of Redis, byte for byte, on a clock that stands still; and with real servers, over each of
//! the ways to reach one.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use reactor::client::Redial;
use reactor::services::redis::{Ask, Failure, Login, Order, Redis, Reply, State, Unanswered};
use reactor::testing::{Client, Harness};
use reactor::{CloseReason, Limits};

type Outcome = Result<Vec<Reply>, Unanswered>;

/// A client in a loop, and a server that the test plays.
struct Rig {
    client: Harness<Redis>,
    server: Option<Client>,
    states: Receiver<State>,
    tell: Sender<(u32, Outcome)>,
    told: Receiver<(u32, Outcome)>,
}

impl Rig {
    fn new(redis: Redis, limits: Limits) -> Rig {
        let mut client = Harness::without_listener(redis, limits);
        let (tell_state, states) = channel();
        client.post(Order::watch(move |state| tell_state.send(state.clone()).unwrap()));
        let (tell, told) = channel();
        let mut rig = Rig { client, server: None, states, tell, told };
        rig.dialled();
        rig
    }

    fn plain() -> Rig {
        Rig::new(Redis::new("127.0.0.1:6379", Login::default()).unwrap(), Limits::default())
    }

    /// One whose server has taken the login.
    fn up() -> Rig {
        let mut rig = Rig::plain();
        rig.answer();
        rig.log_in();
        rig
    }

    fn dialled(&mut self) {
        self.server = self.client.dialled().pop().map(|(_, server)| server);
    }

    fn server(&self) -> Client {
        self.server.expect("it has dialled")
    }

    /// The server takes the connection.
    fn answer(&mut self) {
        let server = self.server();
        self.client.answer(server);
    }

    fn log_in(&mut self) {
        assert_eq!(self.sent(), "*1 $4 PING ");
        self.says("+PONG\r\n");
    }

    /// What the client has sent, its line ends shown as blanks.
    fn sent(&mut self) -> String {
        let server = self.server();
        String::from_utf8(self.client.sent(server)).unwrap().replace("\r\n", " ")
    }

    fn says(&mut self, bytes: impl AsRef<[u8]>) {
        let server = self.server();
        self.client.feed(server, bytes);
    }

    fn ask(&mut self, number: u32, command: &str) {
        self.client.post(Order::Ask(self.question(number, command)));
    }

    fn question(&self, number: u32, command: &str) -> Ask {
        let tell = self.tell.clone();
        Ask::new([command.split(' ')], move |outcome| tell.send((number, outcome)).unwrap())
    }

    fn answers(&mut self) -> Vec<(u32, Outcome)> {
        self.told.try_iter().collect()
    }

    fn states(&mut self) -> Vec<State> {
        self.states.try_iter().collect()
    }

    /// The last state, which is a loss: what was the reason, and after which time it dials again.
    fn loss(&mut self) -> (Failure, String, Duration) {
        match self.states().pop() {
            Some(State::Down { failure, why, again, .. }) => (failure, why, again.unwrap()),
            other => panic!("no loss, but {other:?}"),
        }
    }

    /// Lets the time pass until it dials.
    fn wait(&mut self, time: Duration) {
        assert!(self.client.dialled().is_empty());
        self.client.advance(time);
        self.dialled();
    }
}

fn text(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

#[test]
fn it_is_up_when_the_login_is_answered_and_then_answers_come_in_order() {
    let mut rig = Rig::plain();
    rig.ask(1, "GET early");
    assert_eq!(rig.answers(), [(1, Err(Unanswered::NotConnected))]);
    rig.answer();
    rig.ask(2, "GET early");
    assert_eq!(rig.answers(), [(2, Err(Unanswered::NotConnected))]);
    rig.log_in();
    let number = 1;
    assert_eq!(rig.states(), [State::Dialling { number }, State::Up { number }]);

    rig.ask(3, "GET a");
    rig.ask(4, "SET b \u{e9}");
    assert_eq!(rig.sent(), "*2 $3 GET $1 a *3 $3 SET $1 b $2 \u{e9} ");
    rig.says("$5\r\nx\r\ny\n\r\n-ERR no\r\n");
    let no = Reply::Error("ERR no".to_owned());
    assert_eq!(rig.answers(), [(3, Ok(vec![text("x\r\ny\n")])), (4, Ok(vec![no]))]);
}

#[test]
fn commands_that_are_asked_together_are_answered_together() {
    let mut rig = Rig::up();
    let tell = rig.tell.clone();
    let commands = [vec!["MULTI"], vec!["INCR", "a"], vec!["EXEC"]];
    let ask = Ask::new(commands, move |outcome| tell.send((1, outcome)).unwrap());
    rig.client.post(Order::Ask(ask));
    assert_eq!(rig.sent(), "*1 $5 MULTI *2 $4 INCR $1 a *1 $4 EXEC ");
    rig.says("+OK\r\n+QUEUED\r\n");
    assert_eq!(rig.answers(), []);
    rig.says("*1\r\n:-7\r\n");
    let status = |text: &str| Reply::Status(text.to_owned());
    let exec = Reply::Array(vec![Reply::Integer(-7)]);
    assert_eq!(rig.answers(), [(1, Ok(vec![status("OK"), status("QUEUED"), exec]))]);
}

#[test]
fn a_login_says_who_it_is_and_which_database_it_wants() {
    for (user, password, database, sent) in [
        (None, Some("p w"), 0, "*2 $4 AUTH $3 p w *1 $4 PING "),
        (Some("me"), Some("pw"), 2, "*3 $4 AUTH $2 me $2 pw *2 $6 SELECT $1 2 *1 $4 PING "),
        (Some("me"), None, 0, "*3 $4 AUTH $2 me $0  *1 $4 PING "),
    ] {
        let [user, password] = [user, password].map(|it| it.map(str::to_owned));
        let login = Login { user, password, database };
        let mut rig = Rig::new(Redis::new("127.0.0.1:1", login).unwrap(), Limits::default());
        rig.answer();
        assert_eq!(rig.sent(), sent);
    }
}

#[test]
fn a_refused_login_is_tried_again_every_30_seconds() {
    for said in [
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n-NOAUTH \r\n-NOAUTH \r\n",
        "-ERR AUTH <password> called without any password configured\r\n+OK\r\n+PONG\r\n",
        "+OK\r\n-ERR DB index is out of range\r\n+PONG\r\n",
        "+OK\r\n+OK\r\n-NOAUTH Authentication required.\r\n",
    ] {
        let login = Login { password: Some("pw".to_owned()), database: 99, ..Login::default() };
        let mut rig = Rig::new(Redis::new("127.0.0.1:1", login).unwrap(), Limits::default());
        rig.answer();
        rig.says(said);
        let (failure, why, again) = rig.loss();
        let error = said.split("\r\n").find_map(|line| line.strip_prefix('-')).unwrap();
        assert_eq!((failure, why), (Failure::Login, format!("it says: {error}")));
        assert_eq!(again, Duration::from_secs(30));
        rig.wait(Duration::from_secs(30));
        rig.answer();
        rig.says("+OK\r\n+OK\r\n+PONG\r\n");
        assert_eq!(rig.states().pop(), Some(State::Up { number: 2 }));
    }
}

#[test]
fn a_server_that_is_not_ready_is_tried_again_soon() {
    for said in ["-LOADING Redis is loading the dataset in memory\r\n", "-MASTERDOWN Link\r\n"] {
        let mut rig = Rig::plain();
        rig.answer();
        rig.says(said);
        let (failure, _, again) = rig.loss();
        assert_eq!(failure, Failure::Other);
        assert!(again <= Redial::FIRST, "{again:?}");
    }
    // Who may not ping is there all the same.
    let mut rig = Rig::plain();
    rig.answer();
    rig.says("-NOPERM User default has no permissions to run the 'ping' command\r\n");
    assert_eq!(rig.states().pop(), Some(State::Up { number: 1 }));
}

#[test]
fn a_loss_answers_everything_and_nothing_is_asked_again() {
    let mut rig = Rig::up();
    rig.ask(1, "INCR a");
    rig.ask(2, "INCR b");
    rig.says(":1\r\n:");
    let server = rig.server();
    rig.client.reset(server);
    let lost = Err(Unanswered::Lost);
    assert_eq!(rig.answers(), [(1, Ok(vec![Reply::Integer(1)])), (2, lost)]);
    let (failure, _, again) = rig.loss();
    assert!(failure == Failure::Other && again <= Redial::FIRST);
    rig.ask(3, "INCR c");
    assert_eq!(rig.answers(), [(3, Err(Unanswered::NotConnected))]);
    rig.wait(Redial::FIRST);
    rig.answer();
    rig.log_in();
    assert_eq!(rig.sent(), "");
    let number = 2;
    assert_eq!(rig.states(), [State::Dialling { number }, State::Up { number }]);
}

#[test]
fn the_end_of_a_line_that_is_cut_off_is_no_reply() {
    let mut rig = Rig::up();
    rig.ask(1, "GET a");
    rig.says(":12");
    let server = rig.server();
    rig.client.end(server);
    assert_eq!(rig.answers(), [(1, Err(Unanswered::Lost))]);
}

#[test]
fn waits_grow_up_to_five_seconds() {
    let mut rig = Rig::plain();
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        let server = rig.server();
        rig.client.refuse(server, ErrorKind::ConnectionRefused);
        let (_, why, again) = rig.loss();
        assert!(why.to_lowercase().contains("refused"), "{why}");
        longest = longest.max(again);
        rig.wait(again);
    }
    assert!(longest > Duration::from_secs(2) && longest <= Duration::from_secs(5), "{longest:?}");
}

#[test]
fn a_login_that_is_taken_makes_no_wait_shorter() {
    let mut rig = Rig::plain();
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        rig.answer();
        rig.log_in();
        let server = rig.server();
        rig.client.reset(server);
        let (_, _, again) = rig.loss();
        longest = longest.max(again);
        rig.wait(again);
    }
    assert!(longest > Duration::from_secs(2), "{longest:?}");
    // One that lasts does.
    rig.answer();
    rig.log_in();
    rig.client.advance(Duration::from_secs(5));
    let server = rig.server();
    rig.client.reset(server);
    assert!(rig.loss().2 <= Redial::FIRST);
}

#[test]
fn a_wait_ends_when_somebody_says_so() {
    let mut rig = Rig::plain();
    for _ in 0..20 {
        let server = rig.server();
        rig.client.refuse(server, ErrorKind::ConnectionRefused);
        rig.loss();
        rig.client.post(Order::Dial);
        rig.dialled();
        // Once: nothing is dialled twice.
        rig.client.post(Order::Dial);
        rig.client.advance(Duration::from_secs(6));
        assert!(rig.client.dialled().is_empty());
        assert!(matches!(rig.states()[..], [State::Dialling { .. }]));
    }
}

#[test]
fn orders_for_another_connection_are_for_none() {
    let mut rig = Rig::up();
    rig.client.post(Order::Ask(rig.question(1, "EXEC").on(7)));
    assert_eq!(rig.answers(), [(1, Err(Unanswered::NotConnected))]);
    rig.client.post(Order::Drop(7));
    rig.client.post(Order::Ask(rig.question(2, "GET a").on(1)));
    assert_eq!(rig.sent(), "*2 $3 GET $1 a ");
    rig.client.post(Order::Drop(1));
    assert_eq!(rig.answers(), [(2, Err(Unanswered::Lost))]);
    let (failure, why, again) = rig.loss();
    assert_eq!((failure, why.as_str()), (Failure::Other, "given up by who uses it"));
    rig.wait(again);
    // What was meant for the one before does not reach this one.
    rig.client.post(Order::Drop(1));
    rig.answer();
    rig.log_in();
}

#[test]
fn a_stop_ends_it_until_it_is_to_dial() {
    let mut rig = Rig::up();
    rig.ask(1, "GET a");
    rig.client.post(Order::Stop);
    assert_eq!(rig.answers(), [(1, Err(Unanswered::Lost))]);
    assert_eq!(rig.states().pop(), Some(State::Off));
    rig.client.advance(Duration::from_secs(60));
    assert!(rig.client.dialled().is_empty());
    rig.client.post(Order::Dial);
    rig.dialled();
    rig.answer();
    rig.log_in();
    assert_eq!(rig.states().pop(), Some(State::Up { number: 2 }));
}

#[test]
fn who_owes_a_reply_for_too_long_is_given_up() {
    let redis = Redis::new("127.0.0.1:1", Login::default()).unwrap();
    let patience = Duration::from_secs(2);
    let mut rig = Rig::new(redis.with_reply_timeout(patience), Limits::default());
    rig.answer();
    rig.client.advance(patience); // of the login
    assert_eq!(rig.loss().1, "no reply within 2s");
    rig.wait(Redial::FIRST);
    rig.answer();
    rig.log_in();

    // It owes nothing.
    rig.client.advance(10 * patience);
    rig.ask(1, "GET a");
    rig.client.advance(patience * 3 / 4);
    rig.says("$3\r\n");
    rig.client.advance(patience * 3 / 4);
    rig.says("abc\r\n");
    assert_eq!(rig.answers(), [(1, Ok(vec![text("abc")]))]);
    // The time counts from when something was owed, not from when it was looked at last.
    rig.client.advance(10 * patience);
    rig.ask(2, "GET a");
    rig.client.advance(patience / 10);
    rig.says(":2\r\n");
    rig.client.advance(patience * 8 / 10);
    rig.ask(3, "GET a");
    rig.client.advance(patience * 9 / 10);
    assert_eq!(rig.answers(), [(2, Ok(vec![Reply::Integer(2)]))]);
    rig.says("$3\r\n");
    rig.client.advance(patience * 9 / 10);
    assert_eq!(rig.answers(), []);
    rig.client.advance(patience / 10);
    assert_eq!(rig.answers(), [(3, Err(Unanswered::Lost))]);
}

#[test]
fn what_redis_does_not_take_waits_and_more_is_refused() {
    let limits = Limits {
        max_output: 2000,
        soft_output: 1000,
        high_water: 1000,
        low_water: 500,
        ..Limits::default()
    };
    let mut rig = Rig::new(Redis::new("127.0.0.1:1", Login::default()).unwrap(), limits);
    rig.answer();
    rig.log_in();
    let server = rig.server();
    rig.client.take_only(server, Some(0));
    let word = "x".repeat(480);
    for number in 0..100 {
        rig.ask(number, &format!("ECHO {word}"));
    }
    let refused = rig.answers();
    assert!(refused.iter().all(|(_, outcome)| *outcome == Err(Unanswered::Full)));
    let taken = 100 - refused.len();
    assert!((7..=9).contains(&taken), "{taken} were taken");
    assert_eq!(refused[0].0 as usize, taken, "the last ones are refused");
    rig.client.take_only(server, None);
    assert_eq!(rig.sent().matches("ECHO").count(), taken);
    rig.says(":1\r\n".repeat(taken));
    assert!(rig.answers().iter().map(|(number, _)| *number as usize).eq(0..taken));
}

#[test]
fn what_is_no_reply_ends_the_connection() {
    let deep = "*1\r\n".repeat(9);
    for (said, why) in [
        ("HTTP/1.1 400 Bad Request\r\n", "no reply of Redis: \"HTTP/1.1 400 Bad Request\""),
        ("\r\n", "no reply of Redis"),
        (":x\r\n", "no reply of Redis"),
        ("$-2\r\n", "no reply of Redis"),
        ("$+5\r\n", "no reply of Redis"),
        ("*\r\n", "no reply of Redis"),
        ("%1\r\n", "no reply of Redis"),
        ("$3\r\nabcd\r\n", "longer than announced"),
        (deep.as_str(), "more than 8 deep"),
        ("$67108865\r\n", "more than 67108864 bytes"),
        ("$18446744073709551615\r\n", "more than 67108864 bytes"),
        ("*3000000\r\n", "more than 67108864 bytes"),
        ("*18446744073709551615\r\n", "more than 67108864 bytes"),
    ] {
        let mut rig = Rig::up();
        rig.ask(1, "GET a");
        rig.says(said);
        assert_eq!(rig.answers(), [(1, Err(Unanswered::Lost))], "{said:?}");
        let (failure, lost, _) = rig.loss();
        assert!(failure == Failure::Other && lost.contains(why), "{said:?}: {lost}");
    }
    let mut rig = Rig::up();
    rig.says("-ERR max number of clients reached\r\n");
    assert_eq!(rig.loss().1, "it says: ERR max number of clients reached");
    let mut rig = Rig::up();
    rig.says("+MESSAGE\r\n");
    assert_eq!(rig.loss().1, "it replies to what nobody has asked");
}

#[test]
fn a_reply_of_many_parts_is_bounded_as_a_whole() {
    let redis = Redis::new("127.0.0.1:1", Login::default()).unwrap().with_max_reply(10_000);
    let mut rig = Rig::new(redis, Limits::default());
    rig.answer();
    rig.log_in();
    rig.ask(1, "GET a");
    rig.says("*4\r\n");
    for _ in 0..3 {
        rig.says("$3000\r\n");
        rig.says([b'x'; 3000]);
        rig.says("\r\n");
    }
    assert_eq!(rig.answers(), []);
    rig.says("$900\r\n");
    assert_eq!(rig.answers(), [(1, Err(Unanswered::Lost))]);
    // And the next one has all of it again.
    rig.wait(Redial::FIRST);
    rig.answer();
    rig.log_in();
    for number in 2..10 {
        rig.ask(number, "GET a");
        rig.says("$9000\r\n");
        rig.says([b'x'; 9000]);
        rig.says("\r\n");
        assert!(rig.answers()[0].1.is_ok());
    }
}

#[test]
fn a_shutdown_closes_it_or_waits_for_who_has_last_words() {
    let mut rig = Rig::up();
    rig.client.stop();
    let server = rig.server();
    assert_eq!(rig.client.closed(server), Some(CloseReason::Shutdown));

    let time = Duration::from_secs(1);
    let redis = Redis::new("127.0.0.1:1", Login::default()).unwrap().with_shutdown_time(time);
    let mut rig = Rig::new(redis, Limits::default());
    rig.answer();
    rig.log_in();
    rig.client.stop();
    rig.ask(1, "SET a gone");
    assert_eq!(rig.sent(), "*3 $3 SET $1 a $4 gone ");
    rig.says("+OK\r\n");
    assert!(matches!(rig.answers()[..], [(1, Ok(_))]));
    let server = rig.server();
    assert_eq!(rig.client.closed(server), None);
    rig.client.post(Order::Stop);
    assert!(rig.client.is_shut(server));
}

/// Any reply, and how Redis writes it.
fn any_reply(random: &mut fastrand::Rng, depth: u32, bytes: &mut Vec<u8>) -> Reply {
    let word: String = (0..random.usize(..20)).map(|_| random.alphanumeric()).collect();
    let number = random.i64(..);
    let any: Vec<u8> =
        (0..random.usize(..100)).map(|_| *random.choice(b"\r\n$*:a\xff").unwrap()).collect();
    let (reply, line) = match random.u8(..if depth < 8 { 8 } else { 5 }) {
        0 => (Reply::Nil, if random.bool() { "$-1" } else { "*-1" }.to_owned()),
        1 => (Reply::Status(word.clone()), format!("+{word}")),
        2 => (Reply::Error(word.clone()), format!("-{word}")),
        3 => (Reply::Integer(number), format!(":{number}")),
        4 => (Reply::Bulk(any.clone()), format!("${}", any.len())),
        _ => {
            let count = random.usize(..5);
            bytes.extend(format!("*{count}\r\n").into_bytes());
            let parts = (0..count).map(|_| any_reply(random, depth + 1, bytes)).collect();
            return Reply::Array(parts);
        }
    };
    bytes.extend(line.into_bytes());
    bytes.extend(b"\r\n");
    if let Reply::Bulk(text) = &reply {
        bytes.extend([text, &b"\r\n"[..]].concat());
    }
    reply
}

#[test]
fn replies_are_the_same_however_they_are_cut() {
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = Vec::new();
        let wanted: Vec<_> = (0..12).map(|_| any_reply(&mut random, 0, &mut bytes)).collect();
        let longest = [1, 2, 7, 100, 5000][random.usize(..5)];
        let mut rig = Rig::up();
        (0..12).for_each(|number| rig.ask(number, "GET a"));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(random.usize(1..=longest).min(rest.len()));
            rig.says(piece);
            rest = more;
        }
        let told: Vec<_> = rig.answers().into_iter().map(|(_, told)| told.unwrap()).collect();
        assert_eq!(told, wanted.into_iter().map(|reply| vec![reply]).collect::<Vec<_>>(), "{seed}");
    }
}

#[test]
fn nobody_else_answers_in_the_name_of_redis() {
    let mut rig = Rig::up();
    rig.ask(1, "GET a");
    let stranger = rig.client.connect();
    rig.client.feed(stranger, "$4\r\nevil\r\n");
    assert_eq!(rig.client.closed(stranger), Some(CloseReason::Aborted));
    assert_eq!(rig.answers(), []);
    rig.says("$4\r\ngood\r\n");
    assert_eq!(rig.answers(), [(1, Ok(vec![text("good")]))]);
}
