//! What the processes of a cluster have used so far, as the kernel counts it.

use std::fs;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::figure::Figure;
use crate::processes::Processes;

/// Processor time and bytes written, of one process or several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Processor time, in microseconds.
    pub(super) cpu_us: f64,
    /// Bytes sent on their way to the disk.
    pub(super) disk: f64,
}

impl Usage {
    /// Of all nodes that run.
    pub(super) fn of_all(processes: &Processes) -> Self {
        let nodes = (0..processes.len()).filter_map(|place| processes.pid(place)).map(Self::of);
        nodes.fold(Self::default(), |sum, node| Self { cpu_us: sum.cpu_us + node.cpu_us, disk: sum.disk + node.disk })
    }

    /// Of one process; nothing if it has ended.
    pub(super) fn of(pid: u32) -> Self {
        let id = Pid::from_raw(i32::try_from(pid).expect("process numbers are small"));
        let time = clock_getcpuclockid(id).and_then(nix::time::ClockId::now);
        let cpu_us = time.map_or(0.0, |time| time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3);
        Self { cpu_us, disk: row(pid, "io", "write_bytes:").unwrap_or_default() }
    }

    /// What was used since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self { cpu_us: self.cpu_us - earlier.cpu_us, disk: self.disk - earlier.disk }
    }

    /// As figures, for each of `count` operations.
    pub(super) fn figures(self, name: &str, count: u64) -> [Figure; 2] {
        let each = |total: f64| if count == 0 { f64::NAN } else { total / count as f64 };
        [
            Figure::new(format!("{name}.cpu"), each(self.cpu_us), "us/op"),
            Figure::new(format!("{name}.disk"), each(self.disk), "B/op"),
        ]
    }
}

/// The memory of a process that is in RAM now, in MiB; `None` if it has ended.
pub(super) fn resident_mib(pid: u32) -> Option<f64> {
    row(pid, "status", "VmRSS:").map(|kib| kib / 1024.0)
}

/// The number behind a name in one of the kernel's files about a process.
fn row(pid: u32, file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        let before = Usage::of(own);
        while Usage::of(own).since(before).cpu_us <= 0.0 {}
        assert!(resident_mib(own).is_some_and(|mib| mib > 0.1));
    }
}
