//! What a client is asked, and what it tells.

use std::fmt;
use std::time::Duration;

use super::Reply;

/// A command and its arguments.
pub type Command = Vec<Vec<u8>>;

/// What is done with the replies to the commands of an [`Ask`]: one for each, in their order. It is
/// called in the loop of the client, so it must not block; most often it [posts](crate::Handle::post)
/// them to who has asked.
pub type Answer = Box<dyn FnOnce(Result<Vec<Reply>, Unanswered>) + Send>;

/// Is told each state of a client; see [`Order::Watch`].
pub type Watcher = Box<dyn FnMut(&State) + Send>;

/// What a [`Redis`](super::Redis) is told to do, as its messages.
pub enum Order {
    /// Send commands.
    Ask(Ask),
    /// Call this with the state now, and at each change. One that was given before is called no more.
    Watch(Watcher),
    /// Dial now, unless there is a connection, or an attempt under way: the wait for the next attempt
    /// ends, and a [stop](Order::Stop) too.
    Dial,
    /// Drop the connection of this [number](State::number), or give up the attempt, and dial again
    /// after the usual wait; nothing if it is gone already.
    Drop(u64),
    /// Drop the connection, and dial no more.
    Stop,
}

impl Order {
    /// [`Order::Watch`] with a closure.
    pub fn watch(watcher: impl FnMut(&State) + Send + 'static) -> Order {
        Order::Watch(Box::new(watcher))
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Ask(ask) => f.debug_tuple("Ask").field(ask).finish(),
            Order::Watch(_) => f.write_str("Watch"),
            Order::Dial => f.write_str("Dial"),
            Order::Drop(number) => f.debug_tuple("Drop").field(number).finish(),
            Order::Stop => f.write_str("Stop"),
        }
    }
}

/// Commands to be sent together, and what is done with their replies.
///
/// The answer is called exactly once, unless the reactor ends before: when the last of the replies is
/// there, or when none can come any more. Answers come in the order of what was asked. A reply may be
/// an error, [`Reply::Error`], and the others are there all the same.
pub struct Ask {
    /// The [number](State::number) of the connection that it is for, where it would be wrong on
    /// another one, as after a `WATCH`; none for whichever there is.
    pub connection: Option<u64>,
    /// The commands, in their order.
    pub commands: Vec<Command>,
    /// What is done with the replies.
    pub answer: Answer,
}

impl Ask {
    /// To be sent on whichever connection there is. Commands of different lengths are slices, as in
    /// `[&["SET", "key", "1"][..], &["INCR", "key"]]`.
    pub fn new<W: AsRef<[u8]>>(
        commands: impl IntoIterator<Item = impl IntoIterator<Item = W>>,
        answer: impl FnOnce(Result<Vec<Reply>, Unanswered>) + Send + 'static,
    ) -> Ask {
        let command = |words: Vec<W>| words.iter().map(|word| word.as_ref().to_vec()).collect();
        let commands = commands.into_iter().map(|words| command(words.into_iter().collect()));
        Ask { connection: None, commands: commands.collect(), answer: Box::new(answer) }
    }

    /// The same, on the connection of this number only.
    pub fn on(self, connection: u64) -> Ask {
        Ask { connection: Some(connection), ..self }
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ask = f.debug_struct("Ask");
        ask.field("connection", &self.connection).field("commands", &self.commands.len());
        ask.finish_non_exhaustive()
    }
}

/// Why there are no replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There is no connection, or not the one it was for. Nothing was sent; ask again once the
    /// [state](State) is [`Up`](State::Up).
    #[error("there is no connection to Redis")]
    NotConnected,
    /// Redis does not take what it is sent, and as much as the client keeps waits already. Nothing was
    /// sent; ask again when an earlier answer has come.
    #[error("Redis does not take what it is sent")]
    Full,
    /// The connection was lost before all replies came. What was asked may have been done, or not, or
    /// a part of it.
    #[error("the connection to Redis was lost before it answered")]
    Lost,
}

/// How it stands with the connection of a [`Redis`](super::Redis).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not begun, or [stopped](Order::Stop).
    Off,
    /// It is being dialled, or logs in.
    Dialling {
        /// Which attempt it is.
        number: u64,
    },
    /// Redis has taken the login, and answers.
    Up {
        /// Which attempt it was.
        number: u64,
    },
    /// The connection was lost, or could not be made.
    Down {
        /// Which attempt it was.
        number: u64,
        /// What kind of reason that has.
        failure: Failure,
        /// The reason, for people.
        why: String,
        /// When it is dialled again; never, if the reactor shuts down.
        again: Option<Duration>,
    },
}

impl State {
    /// The number of the connection, or of the attempt; 0 if there was none. Each attempt has a number
    /// of its own, 1 and so on.
    pub fn number(&self) -> u64 {
        match self {
            State::Off => 0,
            State::Dialling { number } | State::Up { number } | State::Down { number, .. } => {
                *number
            }
        }
    }
}

/// What kind of reason a loss has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Redis has refused the password, the user or the database. It is tried again every 30 seconds,
    /// since only a person can mend that.
    Login,
    /// Anything else.
    Other,
}

/// The commands as they go over the wire: each an array of strings.
pub(super) fn encode(commands: &[Command]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for word in command {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
}
