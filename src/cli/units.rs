//! Numbers as people write them: counts, bytes, durations. A parser's error is the remedy.

use std::time::Duration;

use jiff::SignedDuration;
use reactor::{Rate, Rates};

/// A year. Far beyond it, moments cannot be computed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A shorter duration would only keep the loop busy.
const SHORTEST: Duration = Duration::from_millis(1);

/// A whole number above 0.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// A number of threads; `auto` for as many as there are cores that the process may use.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    if text.eq_ignore_ascii_case("auto") {
        let cores = std::thread::available_parallelism();
        return cores
            .map(usize::from)
            .map_err(|error| format!("the system does not tell: {error}"));
    }
    match text.parse() {
        Ok(number @ 1..=1024) => Ok(number),
        _ => Err("write a whole number from 1 to 1024, or auto".to_owned()),
    }
}

/// `4096`, `64K`, `1M`, `1G`; 1K is 1024 bytes.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 10),
        Some((end, 'm' | 'M')) => (&text[..end], 20),
        Some((end, 'g' | 'G')) => (&text[..end], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || digits.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Err("write a number of bytes, as 4096, 64K, 1M or 1G".to_owned());
    }
    let number = digits.parse::<usize>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "that is more bytes than there are".to_owned())
}

/// As [`bytes`], but enough for an ordinary reply.
pub(crate) fn output(text: &str) -> Result<usize, String> {
    match bytes(text)? {
        0..1024 => Err("it must not be below 1K".to_owned()),
        number => Ok(number),
    }
}

/// `500ms`, `30s`, `5m`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("add a unit, as in {text}s or {text}m"));
    }
    let signed: SignedDuration = text
        .parse()
        .map_err(|_| "write a number and its unit, as 500ms, 30s, 5m or 1h30m".to_owned())?;
    let duration = Duration::try_from(signed).unwrap_or_default();
    if duration < SHORTEST {
        return Err("it must not be below 1ms".to_owned());
    }
    if duration > LONGEST {
        return Err("it must not be above a year (8760h)".to_owned());
    }
    Ok(duration)
}

/// Permissions of a file: `0660` or `660`, or `0o660` as a number of a file has it.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let text = text.strip_prefix("0o").unwrap_or(text);
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err("write permissions in octal, from 0 to 0777, as 0660".to_owned()),
    }
}

/// A duration or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience(pub(crate) Option<Duration>);

/// As [`duration`], or `never`.
pub(crate) fn patience(text: &str) -> Result<Patience, String> {
    match text {
        "never" => Ok(Patience(None)),
        _ => duration(text).map(Some).map(Patience),
    }
}

/// `500/s` or `500`, as a whole number.
pub(crate) fn rate(text: &str) -> Result<u32, String> {
    let number = count(text.strip_suffix("/s").unwrap_or(text)).ok();
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| "write a whole number above 0, as 500/s".to_owned())
}

/// `10/s`, or `10/s,64K/s`: lines, and after a comma bytes. What may come at once is that of a second.
pub(crate) fn rates(text: &str) -> Result<Rates, String> {
    const REMEDY: &str = "write lines a second, and after a comma bytes: 10/s or 10/s,64K/s";
    let (lines, bytes) =
        text.split_once(',').map_or((text, None), |(lines, bytes)| (lines, Some(bytes)));
    let lines = rate(lines).map_err(|_| REMEDY.to_owned())?;
    let bytes = bytes.map(|text| match self::bytes(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(0) | Err(_) => Err(REMEDY.to_owned()),
        Ok(number) => u32::try_from(number).map_err(|_| "the bytes must be below 4G/s".to_owned()),
    });
    Ok(Rates { lines: Some(of_a_second(lines)), bytes: bytes.transpose()?.map(of_a_second) })
}

/// `5/s`; what may come at once is that of a second.
pub(crate) fn whole_rate(text: &str) -> Result<Rate, String> {
    rate(text).map(of_a_second)
}

fn of_a_second(per_second: u32) -> Rate {
    Rate { per_second, burst: per_second }
}

/// `500/s` or `500`.
pub(crate) fn per_second(text: &str) -> Result<f64, String> {
    rate(text).map(f64::from)
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count("10000"), Ok(10_000));
        for text in ["", "0", "-1", "ten", "1.5", "99999999999999999999999"] {
            assert!(count(text).unwrap_err().contains("whole number"), "{text}");
        }
    }

    #[test]
    fn bytes_with_and_without_suffix() {
        for (text, number) in
            [("0", 0), ("4096", 4096), ("64K", 65_536), ("64k", 65_536), ("2m", 2 << 20)]
        {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        assert_eq!(bytes("1G"), Ok(1 << 30));
        for text in ["", "K", "-1", "+1", "1.5K", "64KB", "1T", "é", "K64"] {
            assert!(bytes(text).unwrap_err().contains("64K"), "{text}");
        }
        for text in ["99999999999999999999", "18446744073709551615K"] {
            assert!(bytes(text).unwrap_err().contains("more bytes"), "{text}");
        }
        assert_eq!(output("1K"), Ok(1024));
        assert!(output("1023").unwrap_err().contains("below 1K"));
    }

    #[test]
    fn modes_are_octal() {
        for (text, number) in
            [("0660", 0o660), ("660", 0o660), ("0o660", 0o660), ("0", 0), ("0777", 0o777)]
        {
            assert_eq!(mode(text), Ok(number), "{text}");
        }
        for text in ["", "888", "1777", "0o", "rw", "-1", "+660", "77777777777777"] {
            assert!(mode(text).unwrap_err().contains("octal"), "{text}");
        }
    }

    #[test]
    fn rates_with_and_without_unit() {
        assert_eq!((per_second("500/s"), per_second("7")), (Ok(500.0), Ok(7.0)));
        for text in ["", "/s", "0", "0/s", "-1/s", "1/m", "1.5/s"] {
            assert!(per_second(text).unwrap_err().contains("500/s"), "{text}");
        }
    }

    #[test]
    fn rates_of_lines_and_of_bytes() {
        let of = |lines, bytes: Option<u32>| {
            Ok(Rates { lines: Some(of_a_second(lines)), bytes: bytes.map(of_a_second) })
        };
        for (text, expected) in [
            ("10/s", of(10, None)),
            ("10", of(10, None)),
            ("10/s,64K/s", of(10, Some(65_536))),
            ("10,64k", of(10, Some(65_536))),
            ("1/s,1/s", of(1, Some(1))),
        ] {
            assert_eq!(rates(text), expected, "{text}");
        }
        for text in [
            "",
            ",",
            ",64K/s",
            "64K/s",
            "10/s,",
            "10/s,0/s",
            "0/s,64K/s",
            "10/s, 64K/s",
            "1/s,2/s,3/s",
        ] {
            assert!(rates(text).unwrap_err().contains("10/s,64K/s"), "{text}");
        }
        assert!(rates("1/s,4G/s").unwrap_err().contains("below 4G"));
        assert_eq!(whole_rate("5/s"), Ok(of_a_second(5)));
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("1.5s", 1500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("30").unwrap_err(), "add a unit, as in 30s or 30m");
        for (text, word) in [
            ("", "number and its unit"),
            ("soon", "number and its unit"),
            ("5 parsecs", "number and its unit"),
            ("0s", "below 1ms"),
            ("-5s", "below 1ms"),
            ("1us", "below 1ms"),
            ("8761h", "above a year"),
            ("9223372036854775807s", "above a year"),
        ] {
            assert!(duration(text).unwrap_err().contains(word), "{text}");
        }
    }
}
