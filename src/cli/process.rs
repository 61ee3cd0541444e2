//! CPU time and memory of a process, from /proc.

use std::fs;
use std::time::Duration;

/// A clock tick as /proc counts them. It is 1/100 s on every Linux, whatever the kernel's own tick
/// is.
const TICK_MILLIS: u64 = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time of all its threads, to a hundredth of a second.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) memory: u64,
}

impl Usage {
    /// None if the process is gone, or there is no /proc.
    pub(crate) fn of(pid: u32) -> Option<Usage> {
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Usage::parse(&file("stat")?, &file("status")?)
    }

    pub(crate) fn own() -> Option<Usage> {
        Usage::of(std::process::id())
    }

    fn parse(stat: &str, status: &str) -> Option<Usage> {
        // The name stands in parentheses and may hold any of them; see proc_pid_stat(5).
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()?.saturating_add(ticks()?);
        let cpu = Duration::from_millis(ticks.saturating_mul(TICK_MILLIS));
        // A process that has ended and was not waited for has no such line.
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes = resident.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        Some(Usage { cpu, memory: kilobytes.saturating_mul(1024) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        let status = "Name:\ta\nVmHWM:\t  900 kB\nVmRSS:\t     812 kB\n";
        // 64 cores reach this in eight days.
        let old = stat.replace("250", "4294967295");
        let cpu = Duration::from_millis((u64::from(u32::MAX) + 50) * 10);
        assert_eq!(Usage::parse(&old, status).map(|usage| usage.cpu), Some(cpu));
        let usage = Usage { cpu: Duration::from_secs(3), memory: 812 * 1024 };
        assert_eq!(Usage::parse(stat, status), Some(usage));
        assert_eq!(Usage::parse(stat, "Name:\ta\nState:\tZ (zombie)\n"), None);
        assert_eq!(Usage::parse("", status), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn of_this_process_and_of_none() {
        assert!(Usage::own().is_some_and(|usage| usage.memory > 0));
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
