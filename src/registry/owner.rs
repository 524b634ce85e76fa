//! Processes as owners of rows and folders, identified by `boot_id:pid:starttime`. A dead owner is
//! recognized even when its pid has been reused, or the machine has been rebooted.

use std::fs;
use std::io;

/// Returns the identity of this process.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn current() -> io::Result<String> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "/proc/self/stat has no start time");
    of(std::process::id()).ok_or_else(missing)
}

/// Whether the process `owner` is alive. A zombie is not: it will never release its claims.
pub(super) fn is_alive(owner: &str) -> bool {
    pid(owner).and_then(of).is_some_and(|now| now == owner)
}

/// Returns the process id of `owner`; `None` for text of another form.
pub(super) fn pid(owner: &str) -> Option<u32> {
    owner.split(':').nth(1)?.parse().ok()
}

fn of(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): the second field is the command name in parentheses, which may contain
    // spaces and parentheses. What follows the last `)` starts at field 3, the state.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // Field 22: start time in clock ticks after boot.
    let start = fields.nth(18)?;
    (state != "Z").then(|| format!("{}:{pid}:{start}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_does_not_count_as_alive() {
        let me = current().unwrap();
        assert!(is_alive(&me));
        assert_eq!(pid(&me), Some(std::process::id()));
        assert!(!is_alive(&format!("{me}0")));
        assert!(!is_alive(&me.replacen(|c: char| c.is_ascii_hexdigit(), "g", 1)));
        assert!(!is_alive("nonsense"));
    }
}
