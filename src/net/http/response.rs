use std::time::{SystemTime, UNIX_EPOCH};

/// The bytes of an answer: the status, these headers, `Date`, `Content-Length` and the body. An
/// answer to `HEAD` is the same without the body (RFC 9110, section 9.3.2).
///
/// `Connection: close`, where the connection ends behind it, is the caller's to say (RFC 9112, section 9.6).
pub fn response(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len().to_string();
    let mut answer = head(status, &[headers, &[("Content-Length", &length)]].concat());
    answer.extend_from_slice(body);
    answer
}

/// The head of an answer up to its empty line: the status, `Date` and these headers. They have to
/// say how long the body is, if there is one (RFC 9112, section 6.3).
///
/// A control byte in a header goes out as a space: what somebody else has written cannot end it.
pub fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let date = date(SystemTime::now());
    let mut head = format!("HTTP/1.1 {status} {}\r\nDate: {date}\r\n", reason(status));
    for (name, value) in headers {
        head.extend([name, ": "]);
        head.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The phrase of a status (RFC 9110, section 15); empty of those that nothing here answers with.
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// As `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn date(now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86_400;
    // Years that begin with March have the leap day at their end. An era is 400 of them, and the
    // first began 719,468 days before 1970.
    let of_era = (days + 719_468) % 146_097;
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = (days + 719_468) / 146_097 * 400 + years + month / 10;
    let (weekday, month) = (DAYS[days as usize % 7], MONTHS[month as usize]);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ];
        for (seconds, text) in table {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn an_answer_has_its_length_and_no_header_has_two_lines() {
        let answer = response(404, &[("X-Asked", "a\r\nSet-Cookie: b")], "gone\n");
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let lines: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
        let wanted = ["HTTP/1.1 404 Not Found", "X-Asked: a  Set-Cookie: b", "Content-Length: 5"];
        assert_eq!((lines, body), (wanted.to_vec(), "gone\n"));
    }
}
