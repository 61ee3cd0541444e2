use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Login;
use crate::{Address, Connect, Error};

/// Where a Redis is, and who we are there: `redis://[USER@]HOST[:PORT][/DB][?room=NAME]`, `rediss://` for
/// TLS, or `redis+unix:PATH[?db=DB&room=NAME]`.
///
/// There is no password in it, since command lines are for everybody to read. `%40` and the like stand for
/// what would mean something else.
///
/// ```
/// use reactor::services::redis::RedisUrl;
///
/// let url: RedisUrl = "rediss://chat@redis.example/2?room=lobby".parse()?;
/// assert_eq!(url.to_string(), "rediss://chat@redis.example:6379/2?room=lobby");
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisUrl {
    /// Where it is. A name is looked up each time that it is dialled.
    pub address: Address,
    /// It speaks TLS.
    pub tls: bool,
    /// The user; none for the default one.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u32,
    /// The name of a room in it, for who shares one over Redis.
    pub room: Option<String>,
}

/// What the program takes the password from.
const PASSWORD: &str = "REACTOR_REDIS_PASSWORD";
/// How it is written.
const FORMS: &str =
    "write redis://[USER@]HOST[:PORT][/DB][?room=NAME], or rediss:// for TLS, or redis+unix:PATH";
/// The port of a Redis.
const PORT: u16 = 6379;
/// How long the name of a room may be.
const LONGEST_NAME: usize = 100;

impl RedisUrl {
    /// How to connect there. With TLS the server needs a certificate for its host that somebody has
    /// issued whom the system trusts; for others see [`Connect::tls`](crate::Connect::tls).
    ///
    /// # Errors
    /// [`Error::Certificate`] where the system trusts nobody, and [`Error::Address`] where this program was
    /// built without TLS.
    pub fn connect(&self) -> Result<Connect, Error> {
        let connect = Connect::to(&self.address)?;
        if !self.tls {
            return Ok(connect);
        }
        #[cfg(feature = "tls")]
        return connect.tls(&crate::TlsConnector::new()?, &self.server_name());
        #[cfg(not(feature = "tls"))]
        Err(wrong(&self.to_string(), "this program was built without TLS"))
    }

    /// The name that the certificate of the server has to be for.
    pub fn server_name(&self) -> String {
        match &self.address {
            Address::Host(host) => host.name().to_owned(),
            Address::Tcp(addr) => addr.ip().to_canonical().to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Who we are there, with the password that stands elsewhere.
    pub fn login(&self, password: Option<String>) -> Login {
        Login { user: self.user.clone(), password, database: self.database }
    }
}

impl FromStr for RedisUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<RedisUrl, Error> {
        read(text).map_err(|why| wrong(text, &why))
    }
}

/// The error, which does not show what may be a password.
fn wrong(text: &str, why: &str) -> Error {
    let mut shown = text.to_owned();
    if let Some((before, place)) = text.rsplit_once('@')
        && let Some((scheme, user)) = before.split_once("://")
        && let Some((user, _)) = user.split_once(':')
    {
        shown = format!("{scheme}://{user}:...@{place}");
    }
    if let Some((before, _)) = text.split_once("password=") {
        shown = format!("{before}password=...");
    }
    Error::Address { text: shown, why: why.to_owned() }
}

fn read(text: &str) -> Result<RedisUrl, String> {
    let (text, query) = match text.split_once('?') {
        Some((text, query)) => (text, Some(query)),
        None => (text, None),
    };
    let mut url = match text.strip_prefix("redis+unix:") {
        Some("") => return Err("the path after `redis+unix:` is missing".to_owned()),
        Some(path) => RedisUrl {
            address: Address::Unix(PathBuf::from(decode(path)?)),
            tls: false,
            user: None,
            database: 0,
            room: None,
        },
        None => read_place(text)?,
    };
    let mut seen = Vec::new();
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&key) {
            return Err(format!("{key} is given twice"));
        }
        seen.push(key);
        match key {
            "room" => url.room = Some(room(decode(value)?)?),
            "db" if matches!(url.address, Address::Unix(_)) => url.database = database(value)?,
            "db" => return Err(format!("the database goes into the path: write /{value}")),
            "password" => return Err(no_password()),
            _ => return Err(format!("there is no {key:?} here; only room=NAME")),
        }
    }
    Ok(url)
}

/// Reads what stands before the question mark, with a host.
fn read_place(text: &str) -> Result<RedisUrl, String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Err(FORMS.to_owned()) };
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        "unix" | "redis+unix" => return Err(format!("write redis+unix:{rest}")),
        _ => return Err(FORMS.to_owned()),
    };
    // A password may have a slash in it; whoever writes one is told so.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => return Err(no_password()),
        Some(("", _)) => return Err("the user before `@` is missing".to_owned()),
        Some((user, rest)) => (Some(decode(user)?), rest),
        None => (None, rest),
    };
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let place = if has_port { place.to_owned() } else { format!("{place}:{PORT}") };
    let address = match place.parse() {
        Ok(Address::Unix(path)) => return Err(format!("write redis+unix:{}", path.display())),
        Ok(address) => address,
        Err(Error::Address { .. }) if place.rsplit_once(':').is_some_and(|it| it.0.is_empty()) => {
            return Err("the host is missing: write redis://HOST".to_owned());
        }
        Err(Error::Address { why, .. }) => return Err(why),
        Err(error) => return Err(error.to_string()),
    };
    let database = if path.is_empty() { 0 } else { database(path)? };
    Ok(RedisUrl { address, tls, user, database, room: None })
}

fn no_password() -> String {
    format!("a password is not for the command line, which everybody can read: set {PASSWORD}")
}

fn database(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("the database must be a number, and not {text:?}"))
}

/// The name of a room becomes a part of the names of keys.
fn room(name: String) -> Result<String, String> {
    let wrong = |c: char| c.is_whitespace() || c.is_control() || c == ':';
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(wrong) {
        let why = "1 to 100 bytes without blanks and colons";
        return Err(format!("no room is called {name:?}: a name has {why}"));
    }
    Ok(name)
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte = byte.ok_or_else(|| format!("a % and two digits, or %25: {text:?}"))?;
        decoded.push(byte);
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).map_err(|_| format!("it is no UTF-8: {text:?}"))
}

/// Does percent-encoding, for what would mean something else.
fn encode(text: &str) -> String {
    let special = |c: char| c.is_whitespace() || c.is_control() || "%/?#@:&".contains(c);
    let mut buffer = [0; 4];
    let mut encoded = String::new();
    for c in text.chars() {
        if special(c) {
            let bytes = c.encode_utf8(&mut buffer).bytes();
            encoded.extend(bytes.map(|byte| format!("%{byte:02X}")));
        } else {
            encoded.push(c);
        }
    }
    encoded
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query = Vec::new();
        if let Address::Unix(path) = &self.address {
            let path = path.to_string_lossy();
            let path: Vec<_> = path.split('/').map(encode).collect();
            write!(f, "redis+unix:{}", path.join("/"))?;
            if self.database != 0 {
                query.push(format!("db={}", self.database));
            }
        } else {
            f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
            if let Some(user) = &self.user {
                write!(f, "{}@", encode(user))?;
            }
            write!(f, "{}", self.address)?;
            if self.database != 0 {
                write!(f, "/{}", self.database)?;
            }
        }
        query.extend(self.room.as_ref().map(|room| format!("room={}", encode(room))));
        if !query.is_empty() {
            write!(f, "?{}", query.join("&"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_every_form() {
        for (text, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379"),
            ("redis://127.0.0.1/", "redis://127.0.0.1:6379"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://[::1]:7/3", "redis://[::1]:7/3"),
            ("redis://redis.example:7", "redis://redis.example:7"),
            ("redis://localhost/15?room=a-b", "redis://localhost:6379/15?room=a-b"),
            ("rediss://me@redis.example", "rediss://me@redis.example:6379"),
            ("redis://a%40b%2Fc@h?room=%C3%A9t%C3%A9", "redis://a%40b%2Fc@h:6379?room=été"),
            ("redis+unix:/run/redis.sock", "redis+unix:/run/redis.sock"),
            ("redis+unix:/run/a b%3F?room=x&db=2", "redis+unix:/run/a%20b%3F?db=2&room=x"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<RedisUrl>().unwrap(), url);
        }
        let url: RedisUrl = "rediss://a%40b@redis.example:1/2".parse().unwrap();
        let login = url.login(Some("secret".to_owned()));
        assert_eq!((login.user.as_deref(), login.database), (Some("a@b"), 2));
        assert!(url.tls && !format!("{login:?}").contains("secret"));
    }

    #[test]
    fn every_wrong_form_is_told_in_one_line_what_is_wrong() {
        for (text, why) in [
            ("127.0.0.1:6379", "write redis://"),
            ("localhost", "write redis://"),
            ("http://localhost", "write redis://"),
            ("redis:/x", "write redis://"),
            ("unix:///run/redis.sock", "write redis+unix:/run/redis.sock"),
            ("redis://", "the host is missing"),
            ("redis:///2", "the host is missing"),
            ("redis://:6379", "the host is missing"),
            ("redis://@localhost", "the user before `@` is missing"),
            ("redis://localhost:x", "the port must be a number"),
            ("redis://localhost:70000", "the port must be a number"),
            ("redis://::1", "brackets"),
            ("redis://unix:5", "write redis+unix:5"),
            ("redis://localhost/x", "the database must be a number"),
            ("redis://localhost/1/2", "the database must be a number"),
            ("redis://localhost/-1", "the database must be a number"),
            ("redis://localhost?db=1", "write /1"),
            ("redis://localhost?room=", "no room is called"),
            ("redis://localhost?room=a%20b", "no room is called"),
            ("redis://localhost?room=a:b", "no room is called"),
            ("redis://localhost?room=a&room=b", "room is given twice"),
            ("redis://localhost?romm=a", "there is no \"romm\" here"),
            ("redis://a%4@localhost", "a % and two digits"),
            ("redis://a%+4@localhost", "a % and two digits"),
            ("redis://%ff@localhost", "no UTF-8"),
            ("redis+unix:", "the path after"),
            ("redis+unix:/run/redis.sock?password=secret", "REACTOR_REDIS_PASSWORD"),
            ("redis://me:secret@localhost", "REACTOR_REDIS_PASSWORD"),
            ("redis://:secret@localhost", "REACTOR_REDIS_PASSWORD"),
            ("redis://me:sec/ret@localhost", "REACTOR_REDIS_PASSWORD"),
            ("redis://me:sec?ret@localhost", "the port must be a number"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains('\n') && !error.contains("sec"), "{error}");
        }
    }
}
