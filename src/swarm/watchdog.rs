//! [`Watchdog`]: keeps a swarm from using up the memory or the disk of the machine.

use std::io;
use std::path::Path;

use crate::hardware;

/// Free bytes of the disk below which nothing is begun, and below which work is taken back.
const DISK: Marks = Marks { low: 1 << 30, high: 1 << 29, limit: 1 << 27 };
/// Shares of all memory, in percent, that these marks are at.
const MEMORY_PERCENT: Marks = Marks { low: 12, high: 8, limit: 4 };

/// Amounts of a resource that is left, in descending order.
#[derive(Debug, Clone, Copy)]
struct Marks {
    /// Work is begun again above this.
    low: u64,
    /// No work is begun below this.
    high: u64,
    /// Work is taken back below this.
    limit: u64,
}

/// What is left of the machine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResourcesLeft {
    /// All memory of the machine.
    pub(super) memory_total: u64,
    /// Available memory, limited by the cgroup.
    pub(super) memory: u64,
    /// Free space on the disk of Rune's home.
    pub(super) disk: u64,
}

/// What a swarm may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pressure {
    /// It may begin work.
    #[default]
    None,
    /// It goes on with what was begun.
    High,
    /// It takes back the work that was begun last.
    OverLimit,
}

/// Watches what is left of the machine. Once work is no longer begun, it begins again only at a
/// lower mark, so that a swarm does not flicker between the two.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    pressure: Pressure,
    /// Name of the resource that is short.
    pub(super) cause: Option<&'static str>,
}

impl ResourcesLeft {
    /// Reads what is left, with Rune's home at `home`.
    ///
    /// # Errors
    /// Those of reading `/proc` and the file system.
    pub(super) fn read(home: &Path) -> io::Result<Self> {
        let (memory, memory_total) = hardware::memory()?;
        Ok(Self { memory_total, memory, disk: hardware::disk_free(home)? })
    }
}

impl Watchdog {
    /// Judges what is left.
    pub(super) fn check(&mut self, left: ResourcesLeft) -> Pressure {
        let percent = |percent: u64| left.memory_total / 100 * percent;
        let memory = Marks {
            low: percent(MEMORY_PERCENT.low),
            high: percent(MEMORY_PERCENT.high),
            limit: percent(MEMORY_PERCENT.limit),
        };
        let found = [("memory", left.memory, memory), ("disk space", left.disk, DISK)];
        let is_below = |mark: fn(&Marks) -> u64| {
            found.iter().find(|(_, left, marks)| *left < mark(marks)).map(|(name, ..)| *name)
        };
        let was_short = self.pressure != Pressure::None;
        (self.pressure, self.cause) = if let Some(name) = is_below(|marks| marks.limit) {
            (Pressure::OverLimit, Some(name))
        } else if let Some(name) = is_below(|marks| marks.high) {
            (Pressure::High, Some(name))
        } else {
            match is_below(|marks| marks.low).filter(|_| was_short) {
                Some(name) => (Pressure::High, Some(name)),
                None => (Pressure::None, None),
            }
        };
        self.pressure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_begins_again_at_a_lower_mark_than_it_stops_at() {
        let mut watchdog = Watchdog::default();
        let mut check = |memory: u64, disk: u64| {
            let pressure = watchdog.check(ResourcesLeft { memory_total: 100_000, memory, disk });
            (pressure, watchdog.cause)
        };
        let disk = 2 << 30;
        assert_eq!(check(10_000, disk), (Pressure::None, None));
        assert_eq!(check(7_900, disk), (Pressure::High, Some("memory")));
        assert_eq!(check(10_000, disk), (Pressure::High, Some("memory")));
        assert_eq!(check(3_900, disk), (Pressure::OverLimit, Some("memory")));
        assert_eq!(check(10_000, disk), (Pressure::High, Some("memory")));
        assert_eq!(check(12_000, disk), (Pressure::None, None));
        assert_eq!(check(50_000, 1 << 28), (Pressure::High, Some("disk space")));
        assert_eq!(check(50_000, 1 << 26), (Pressure::OverLimit, Some("disk space")));
        assert_eq!(check(50_000, disk), (Pressure::None, None));
    }
}
