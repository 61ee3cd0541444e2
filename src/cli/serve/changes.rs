//! What a reload has changed, for the log, and the differences of two configurations.

use reactor::Address;

use crate::cli::unused_options::{GivenOption, GivenOptions};

/// What was changed, a line each.
#[derive(Default)]
pub(super) struct Changes {
    said: Vec<String>,
    warnings: Vec<String>,
    /// Listeners that are open to everybody.
    open: Vec<String>,
}

impl Changes {
    /// Adds a line once, even if it is true of several services.
    pub(super) fn say(&mut self, line: String) {
        if !self.said.contains(&line) {
            self.said.push(line);
        }
    }

    pub(super) fn warn(&mut self, line: String) {
        self.warnings.push(line);
    }

    pub(super) fn opened(&mut self, warning: Option<String>) {
        self.open.extend(warning);
    }

    /// Logs what an operator should know of a server that starts.
    pub(super) fn log_open(&self) {
        self.open.iter().for_each(|line| log::warn!("{line}"));
    }

    /// Logs all of it.
    pub(super) fn log(&self) {
        let Changes { said, warnings, .. } = self;
        said.iter().for_each(|line| log::info!("reload: {line}"));
        warnings.iter().for_each(|line| log::warn!("reload: {line}"));
        self.log_open();
        if said.is_empty() && warnings.is_empty() {
            log::info!("reload: nothing has changed");
        }
    }
}

/// The options whose values differ from before, with their new values.
pub(super) fn changed(old: &GivenOptions, new: &GivenOptions) -> Vec<(String, String)> {
    let same = |one: &GivenOption, all: &GivenOptions| {
        all.0.iter().any(|other| other.id == one.id && other.values == one.values)
    };
    let now = new.0.iter().filter(|option| !same(option, old)).map(|option| {
        let values = option.values.iter().map(|value| value.to_string_lossy());
        let values = values.collect::<Vec<_>>().join(",");
        (option.id.clone(), format!("{} = {values}", option.name()))
    });
    let is_new = |option: &&GivenOption| new.0.iter().all(|it| it.id != option.id);
    let gone = old.0.iter().filter(is_new);
    let gone = gone.map(|option| (option.id.clone(), format!("{} = its default", option.name())));
    now.chain(gone).collect()
}

/// Whether the two addresses exclude each other, so that only one can be listened on.
pub(super) fn overlap(one: &Address, other: &Address) -> bool {
    if let (Address::Unix(one), Address::Unix(other)) = (one, other) {
        return one == other;
    }
    let mut pairs = one.as_sockets().iter().flat_map(|one| {
        let others = other.as_sockets().iter();
        others.map(move |other| (one, other))
    });
    pairs.any(|(one, other)| {
        let [ip, other_ip] = [one, other].map(|addr| addr.ip().to_canonical());
        one.port() == other.port()
            && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_way() {
        for (one, other, is) in [
            ("127.0.0.1:7", "127.0.0.1:7", true),
            ("127.0.0.1:7", "127.0.0.1:8", false),
            ("127.0.0.1:7", "127.0.0.2:7", false),
            ("127.0.0.1:7", "0.0.0.0:7", true),
            ("[::]:7", "127.0.0.1:7", true),
            ("[::ffff:127.0.0.1]:7", "127.0.0.1:7", true),
            ("[::1]:7", "127.0.0.1:7", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:7", false),
        ] {
            let [one, other] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(overlap(&one, &other), is, "{one} {other}");
            assert_eq!(overlap(&other, &one), is, "{other} {one}");
        }
    }
}
