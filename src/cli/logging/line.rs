//! The format of a line of the log.

use std::fmt;

use jiff::Timestamp;
use log::Level;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) format: Format,
    /// In text alone.
    pub(super) colors: bool,
}

impl Style {
    /// One line with its end.
    pub(super) fn line(self, level: Level, target: &str, message: fmt::Arguments<'_>) -> String {
        let now = Timestamp::now();
        match self.format {
            Format::Text => {
                let (color, end) = if self.colors { (color(level), "\x1b[0m") } else { ("", "") };
                format!("{now:.3} {color}{level:<5}{end} [{target}] {message}\n")
            }
            // By hand, so that the keys are in the order in which people read.
            Format::Json => format!(
                "{{\"time\":\"{now:.3}\",\"level\":\"{level}\",\"target\":{},\"message\":{}}}\n",
                Value::from(target),
                Value::from(message.to_string())
            ),
        }
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[36m",
        Level::Debug => "\x1b[35m",
        Level::Trace => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_line_whatever_is_said() {
        let style = Style { format: Format::Json, colors: true };
        let bytes: Vec<u8> = (0..=255).collect();
        for message in [
            "plain".to_owned(),
            "\"quoted\" \\ \r\n\t\0\x1b[31m \u{7f} \u{2028} \u{fffd} é 𝄞".to_owned(),
            String::from_utf8_lossy(&bytes).into_owned(),
        ] {
            let line = style.line(Level::Warn, "a::\"b\"", format_args!("{message}"));
            let (object, rest) = line.split_once('\n').unwrap();
            assert_eq!(rest, "");
            assert!(!object.contains(|c: char| c < ' '), "{object:?}");
            let read: Value = serde_json::from_str(object).unwrap();
            assert_eq!(read["message"], message.as_str());
            assert_eq!((&read["level"], &read["target"]), (&"WARN".into(), &"a::\"b\"".into()));
            assert!(read["time"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{object}");
            assert!(object.starts_with("{\"time\":\"") && object.contains(",\"message\":"));
        }
    }
}
