//! Who the program is: user and group ids inside and outside of the jail.
//!
//! A plain user is themselves outside. Root is not, where there are other ids: what root starts is
//! nobody outside, for what is owned by root in `/proc` or on disk obeys user id 0 even when it has
//! no capability left.

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
/// User and group id outside of what root runs.
const NOBODY: u32 = 65534;
/// Where ids start that no system gives to anybody, one for every process id.
const STRANGERS: u32 = 0x5000_0000;

/// The user outside of the jail that programs of root run as; `None` where it is the one who we
/// are.
pub(super) fn user_of_jails() -> Option<u32> {
    let is_root = nix::unistd::geteuid().is_root();
    (is_root && is_mapped("uid_map", NOBODY) && is_mapped("gid_map", NOBODY)).then_some(NOBODY)
}

/// Gives the user namespace of `pid` its ids; called from outside.
pub(super) fn map(pid: Pid) -> Result<(), JailFault> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text).step(format!("write {file}"))
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if let Some(nobody) = user_of_jails() {
        let map = format!("0 0 1\n{USER} {nobody} 1\n");
        write("uid_map", &map)?;
        write("gid_map", &map)
    } else {
        write("setgroups", "deny")?;
        write("uid_map", &format!("{USER} {uid} 1\n"))?;
        write("gid_map", &format!("{USER} {gid} 1\n"))
    }
}

/// Whether there is this id here: in a user namespace of one single id, root is a plain user in
/// disguise.
fn is_mapped(file: &str, id: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    text.lines().any(|line| holds(line, id))
}

/// Whether a line of an id map, `first outside count`, has `id` among its first ones.
fn holds(line: &str, id: u32) -> bool {
    let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
    match (numbers.next(), numbers.nth(1)) {
        (Some(first), Some(count)) => id.checked_sub(first).is_some_and(|at| at < count),
        _ => false,
    }
}

/// Becomes the user of the program for ever, without a capability; called inside.
pub(super) fn assume() -> Result<(), JailFault> {
    become_user(USER)
}

/// Becomes `user`, and the group of the same number, for ever, without a capability.
pub(super) fn become_user(user: u32) -> Result<(), JailFault> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    sys::drop_bounding_set().step("drop the bounding set")?;
    if nix::unistd::geteuid().is_root() {
        setgroups(&[]).step("drop the groups")?;
    }
    setresgid(gid, gid, gid).step("change the group")?;
    setresuid(uid, uid, uid).step("change the user")?;
    give_up_privileges()
}

/// Gives up every capability, and that a program can ever bring one back.
pub(super) fn give_up_privileges() -> Result<(), JailFault> {
    sys::drop_capabilities().step("drop the capabilities")?;
    nix::sys::prctl::set_no_new_privs().step("refuse new privileges")
}

/// The user of one run where there are no namespaces: root's programs run as a user that nobody
/// else is, whose processes can be counted and whom no file is open to that is not open to all;
/// nobody else can choose.
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
    fn an_id_map_tells_which_ids_there_are() {
        assert!(holds("         0          0 4294967295", NOBODY));
        assert!(holds("0 100000 65536", NOBODY) && !holds("0 100000 65534", NOBODY));
        assert!(!holds("0 1000 1", NOBODY) && !holds("65535 0 10", NOBODY) && !holds("", NOBODY));
    }
}
