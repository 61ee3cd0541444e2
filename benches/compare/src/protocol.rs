//! What the peers have in common: the words of the protocols, not how they reach the wire.

pub const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

pub const WELCOME: &str = "\
Welcome to the Presence Server
  Tell me who you are with 'HELLO name'
  Say something to other users with 'SAY message'
  Ask me who is connected with 'WHO'
  Leave with 'BYE'
  Shutdown server with 'KILL'
";

pub const ARRIVED: &str = "Someone has arrived...\n";
pub const ANONYMOUS: &str = "An anonymous user";
pub const HINT: &str = "What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n";

/// A line without its CR.
#[inline]
pub fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

pub fn is_bye(line: &[u8]) -> bool {
    line.eq_ignore_ascii_case(b"bye")
}

/// Adds what echo replies to a line.
#[inline]
pub fn reply(line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"> ");
    match str::from_utf8(line) {
        Ok(text) if !line.is_ascii() => out.extend_from_slice(text.to_uppercase().as_bytes()),
        _ => {
            let start = out.len();
            out.extend_from_slice(line);
            out[start..].make_ascii_uppercase();
        }
    }
    out.push(b'\n');
}

/// A command of presence and what follows the blank after it.
pub fn command(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t'));
    let (word, rest) = match end {
        Some(end) => (&line[..end], &line[end + 1..]),
        None => (line, &b""[..]),
    };
    (word.to_ascii_uppercase(), rest)
}

/// One client's text, safe for another's terminal.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The name after HELLO.
pub fn name(rest: &[u8]) -> String {
    let text = String::from_utf8_lossy(rest);
    let word = text.split_whitespace().next();
    let word = word.map(|word| printable(word.as_bytes()).chars().take(64).collect());
    word.unwrap_or_else(|| ANONYMOUS.to_owned())
}

/// What is said after SAY.
pub fn saying(rest: &[u8]) -> String {
    if rest.is_empty() { "nothing...".to_owned() } else { printable(rest) }
}

/// The line of the clock at a second since 1970, in UTC.
pub fn clock_line(second: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (second / 86_400, second % 86_400);
    // The civil calendar, in years that begin in March so that the leap day is the last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let calendar = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(calendar <= 2);
    let (week, name) = (DAYS[days as usize % 7], MONTHS[calendar as usize - 1]);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{{'time' : '{week} {name} {of_month:02} {hour:02}:{minute:02}:{second:02} UTC {year}'}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_knows_the_calendar() {
        assert_eq!(clock_line(0), "{'time' : 'Thu Jan 01 00:00:00 UTC 1970'}\n");
        assert_eq!(clock_line(951_782_400), "{'time' : 'Tue Feb 29 00:00:00 UTC 2000'}\n");
        assert_eq!(clock_line(1_795_288_200), "{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}\n");
    }
}
