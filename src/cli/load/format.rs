//! Numbers as people read them.

use std::time::Duration;

pub(crate) use crate::cli::units::grouped;

/// `1,234/s`.
pub(crate) fn rate(each_second: f64) -> String {
    format!("{}/s", grouped(each_second.round() as u64))
}

/// Three digits and the unit that suits: `812 ns`, `12.3 µs`, `1.50 ms`, `10.0 s`.
pub(crate) fn time(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let (number, unit) = match nanos {
        ..999.5 => return format!("{nanos} ns"),
        ..999.5e3 => (nanos / 1e3, "µs"),
        ..999.5e6 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    format!("{} {unit}", three(number))
}

/// `812 B`, `12.3 KiB`, `1.50 MiB`.
pub(crate) fn bytes(number: f64) -> String {
    let (number, unit) = match number.abs() {
        ..1024.0 => return format!("{number:.0} B"),
        ..1_048_576.0 => (number / 1024.0, "KiB"),
        ..1_073_741_824.0 => (number / 1_048_576.0, "MiB"),
        _ => (number / 1_073_741_824.0, "GiB"),
    };
    format!("{} {unit}", three(number))
}

fn three(number: f64) -> String {
    match number.abs() {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups_and_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.4, 4.99, 1234.5].map(rate), ["0/s", "5/s", "1,235/s"]);
        let times = [0, 812, 12_345, 999_900, 1_500_000, 10_000_000_000];
        assert_eq!(
            times.map(|nanos| time(Duration::from_nanos(nanos))),
            ["0 ns", "812 ns", "12.3 µs", "1.00 ms", "1.50 ms", "10.0 s"]
        );
        assert_eq!(
            [0.0, 812.0, 12_600.0, -2048.0, 1.5e6, 2e9].map(bytes),
            ["0 B", "812 B", "12.3 KiB", "-2.00 KiB", "1.43 MiB", "1.86 GiB"]
        );
    }
}
