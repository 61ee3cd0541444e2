//! What is sent first on each connection, and what the replies say.

use std::fmt;

use super::messages::{Command, Failure};
use super::reply::Reply;
use crate::text::printable;

/// What Redis says of itself while it starts, or has lost what it copies, or runs a script.
const PASSING: [&str; 4] =
    ["LOADING ", "MASTERDOWN ", "BUSY ", "ERR max number of clients reached"];

/// Who we are to Redis, and which of its databases we use.
#[derive(Clone, Default)]
pub struct Login {
    /// The user; none for the default one.
    pub user: Option<String>,
    /// The password; none to send none. A user without one sends an empty one.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u32,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Login { user, password, database } = self;
        let password = password.as_ref().map(|_| "...");
        let mut login = f.debug_struct("Login");
        login.field("user", user).field("password", &password).field("database", database);
        login.finish()
    }
}

impl Login {
    /// What is sent on each new connection. The last of them changes nothing: its reply says whether
    /// Redis needs a password and has loaded its data.
    pub(super) fn commands(&self) -> Vec<Command> {
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let mut commands = Vec::new();
        let password = self.password.as_deref();
        match &self.user {
            Some(user) => commands.push(words(&["AUTH", user, password.unwrap_or_default()])),
            None => commands.extend(password.map(|password| words(&["AUTH", password]))),
        }
        if self.database != 0 {
            commands.push(words(&["SELECT", &self.database.to_string()]));
        }
        commands.push(words(&["PING"]));
        commands
    }
}

/// What the replies to the login say.
pub(super) fn judge(replies: &[Reply]) -> Result<(), (Failure, String)> {
    let (ping, before) = replies.split_last().expect("a login has commands");
    let refused = before.iter().find_map(Reply::error);
    // Who may not ping may do other things.
    let not_now = |error: &&str| error.starts_with("NOAUTH ") || is_passing(error);
    let Some(error) = refused.or(ping.error().filter(not_now)) else { return Ok(()) };
    let failure = if is_passing(error) { Failure::Other } else { Failure::Login };
    Err((failure, said(error)))
}

fn is_passing(error: &str) -> bool {
    PASSING.iter().any(|passing| error.starts_with(passing))
}

/// What Redis has said, as a part of a line. Some of its errors are a page.
pub(super) fn said(error: &str) -> String {
    let error: String = printable(error.as_bytes()).chars().take(200).collect();
    format!("it says: {error}")
}
