//! User and group ids of the program, inside and outside of the jail.
//!
//! For a plain user, the program has the user's own id outside. For root it is `nobody` outside, if
//! other ids are mapped: files in `/proc` or on disk that belong to root obey user id 0 even
//! without any capability.

use std::fs;

use nix::unistd::Gid;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::setgroups;
use nix::unistd::setresgid;
use nix::unistd::setresuid;

use super::fault::JailFault;
use super::fault::NamedStep;
use super::sys;

/// User and group id of the program inside the jail.
pub(super) const USER: u32 = 1000;
/// User and group id, outside of the jail, of programs that root runs.
const NOBODY: u32 = 65534;
/// Start of a range of ids that no system assigns to anybody: one for every process id.
const STRANGERS: u32 = 0x5000_0000;

/// Returns the user, outside of the jail, that root's programs run as; `None` if it is our own
/// user.
pub(super) fn user_of_jails() -> Option<u32> {
    let is_root = nix::unistd::geteuid().is_root();
    (is_root && is_mapped("uid_map", NOBODY) && is_mapped("gid_map", NOBODY)).then_some(NOBODY)
}

/// Writes the id maps of the user namespace of `pid`; called from outside.
pub(super) fn map(pid: Pid) -> Result<(), JailFault> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text).step(format!("write {file}"))
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if let Some(nobody) = user_of_jails() {
        // Pid 1 is root inside while it builds the jail; the program never is.
        let map = format!("0 0 1\n{USER} {nobody} 1\n");
        write("uid_map", &map)?;
        write("gid_map", &map)
    } else {
        // The kernel lets a plain user map its group only after giving up `setgroups`
        // (user_namespaces(7)).
        write("setgroups", "deny")?;
        write("uid_map", &format!("{USER} {uid} 1\n"))?;
        write("gid_map", &format!("{USER} {gid} 1\n"))
    }
}

/// Whether `id` is mapped in our own namespace. In a user namespace with a single id, root is in
/// fact a plain user.
fn is_mapped(file: &str, id: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    text.lines().any(|line| holds(line, id))
}

/// Whether a line of an id map, `inside outside count`, maps the inside id `id`.
fn holds(line: &str, id: u32) -> bool {
    let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
    match (numbers.next(), numbers.nth(1)) {
        (Some(first), Some(count)) => id.checked_sub(first).is_some_and(|at| at < count),
        _ => false,
    }
}

/// Irrevocably becomes the user of the program, without capabilities; called inside.
pub(super) fn assume() -> Result<(), JailFault> {
    become_user(USER)
}

/// Irrevocably becomes `user`, and the group of the same number, without capabilities.
pub(super) fn become_user(user: u32) -> Result<(), JailFault> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    // The order matters: each step needs a privilege that a later one gives up.
    sys::drop_bounding_set().step("drop the bounding set")?;
    if nix::unistd::geteuid().is_root() {
        setgroups(&[]).step("drop the groups")?;
    }
    setresgid(gid, gid, gid).step("change the group")?;
    setresuid(uid, uid, uid).step("change the user")?;
    give_up_privileges()
}

/// Gives up every capability, and the possibility to regain one by executing a set-uid program.
pub(super) fn give_up_privileges() -> Result<(), JailFault> {
    sys::drop_capabilities().step("drop the capabilities")?;
    nix::sys::prctl::set_no_new_privs().step("refuse new privileges")
}

/// Returns the dedicated user of one run without namespaces, if we are root: a user that nobody
/// else is. Its processes can be counted, and it can only access files that are open to all. A
/// plain user cannot change ids: `None`.
pub(super) fn stranger(run: Pid) -> Option<u32> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let own = STRANGERS + run.as_raw().cast_unsigned();
    [own, NOBODY].into_iter().find(|id| is_mapped("uid_map", *id) && is_mapped("gid_map", *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_ids_are_read_from_the_id_map() {
        assert!(holds("         0          0 4294967295", NOBODY));
        assert!(holds("0 100000 65536", NOBODY) && !holds("0 100000 65534", NOBODY));
        assert!(!holds("0 1000 1", NOBODY) && !holds("65535 0 10", NOBODY) && !holds("", NOBODY));
    }
}
