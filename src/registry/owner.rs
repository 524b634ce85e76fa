//! Processes as owners of rows and folders: `boot_id:pid:starttime`, so that a dead owner can be
//! told from a living one even when its pid was given away again.

use std::fs;
use std::io;

/// This process.
///
/// # Errors
/// When `/proc` can't be read.
pub(super) fn current() -> io::Result<String> {
    let unnamed = || io::Error::new(io::ErrorKind::NotFound, "/proc/self/stat tells no start time");
    of(std::process::id()).ok_or_else(unnamed)
}

/// Whether `owner` still lives. An owner of another boot does not; nor does one that is a zombie.
pub(super) fn is_alive(owner: &str) -> bool {
    pid(owner).and_then(of).is_some_and(|now| now == owner)
}

/// The owner's process id.
pub(super) fn pid(owner: &str) -> Option<u32> {
    owner.split(':').nth(1)?.parse().ok()
}

fn of(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (state != "Z").then(|| format!("{}:{pid}:{start}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_birth_of_a_pid_is_alive() {
        let me = current().unwrap();
        assert!(is_alive(&me));
        assert_eq!(pid(&me), Some(std::process::id()));
        assert!(!is_alive(&format!("{me}0")));
        assert!(!is_alive(&me.replacen(|c: char| c.is_ascii_hexdigit(), "g", 1)));
        assert!(!is_alive("nonsense"));
    }
}
