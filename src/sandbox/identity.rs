//! Who the program is: user and group ids inside and outside of the jail.
//!
//! A plain user is themselves outside. Root is not: what root starts is nobody outside, for what is
//! owned by root in `/proc` or on disk obeys user id 0 even when it has no capability left.

use std::fs;

use nix::unistd::Gid;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::setgroups;
use nix::unistd::setresgid;
use nix::unistd::setresuid;

use super::fault::Fault;
use super::fault::Step;
use super::sys;

/// User and group id of the program inside the jail.
pub(super) const USER: u32 = 1000;
/// User and group id outside of what root runs.
const NOBODY: u32 = 65534;

/// Gives the user namespace of `pid` its ids; called from outside.
pub(super) fn map(pid: Pid) -> Result<(), Fault> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text).step(format!("write {file}"))
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        let map = format!("0 0 1\n{USER} {NOBODY} 1\n");
        write("uid_map", &map)?;
        write("gid_map", &map)
    } else {
        write("setgroups", "deny")?;
        write("uid_map", &format!("{USER} {uid} 1\n"))?;
        write("gid_map", &format!("{USER} {gid} 1\n"))
    }
}

/// Becomes the user of the program for ever, without a capability; called inside.
pub(super) fn assume() -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    sys::drop_bounding_set().step("drop the bounding set")?;
    if nix::unistd::geteuid().is_root() {
        setgroups(&[]).step("drop the groups")?;
    }
    setresgid(gid, gid, gid).step("change the group")?;
    setresuid(uid, uid, uid).step("change the user")?;
    sys::drop_capabilities().step("drop the capabilities")?;
    nix::sys::prctl::set_no_new_privs().step("refuse new privileges")
}
