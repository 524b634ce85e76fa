//! Jails within a jail: what a program of ours needs to build them for the processes that it forks.

use std::fmt::Write as _;
use std::path::Path;

use seccompiler::BpfProgram;
use seccompiler::sock_filter;
use serde_json::Value;
use serde_json::json;

use super::error::SandboxError;
use super::facilities::JailCapabilities;
use super::filesystem::DEVICES;
use super::filesystem::SETTINGS;
use super::filesystem::SYSTEM;
use super::filesystem::WRITABLE;
use super::job::JailTier;
use super::job::Mount;
use super::restrict;
use super::syscalls::BareProgram;
use super::syscalls::FilterOptions;

/// The Python module that builds such a jail: its `Jail` takes [`NestedJail::plan`].
pub(crate) const NESTED_JAIL: &str = include_str!("jail.py");

/// What the jails of forked processes are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NestedJail {
    /// Whether all memory of the outer jail is counted; if not, what no limit of a process counts
    /// is denied.
    pub(crate) memory_is_counted: bool,
    /// Whether a process may use TCP on a loopback interface of its own.
    pub(crate) has_loopback: bool,
    /// Open files of a process.
    pub(crate) files: u32,
}

impl NestedJail {
    /// The plan for `jail.py`. `mounts` are those of the outer jail.
    ///
    /// # Errors
    /// [`SandboxError::Setup`] when a filter cannot be compiled.
    pub(crate) fn plan(
        self,
        facilities: &JailCapabilities,
        mounts: &[Mount],
    ) -> Result<Value, SandboxError> {
        let bare = match facilities.tier {
            JailTier::Namespaces => None,
            JailTier::Landlock | JailTier::None => {
                Some(BareProgram::with(facilities.landlock_version, false))
            }
        };
        let filters =
            FilterOptions { memory_is_counted: self.memory_is_counted, bare }.compile_parts()?;
        let hex = |filters: &[BpfProgram]| filters.iter().map(hex).collect::<Vec<_>>();
        // `None` stands for the whole of the jail that the process is in.
        let readable = bare.map(|_| {
            let mounts = mounts.iter().map(|mount| mount.host.as_path());
            let system = SYSTEM.iter().chain(SETTINGS).chain(&["/proc/self"]).map(Path::new);
            system.chain(mounts).collect::<Vec<_>>()
        });
        Ok(json!({
            "own_filters": hex(&filters.for_all),
            "filters": hex(&filters.for_held),
            "landlock": restrict::landlock_numbers(),
            "devices": DEVICES,
            "readable": readable,
            "writable": if bare.is_none() { WRITABLE } else { &[] },
            "has_namespaces": bare.is_none(),
            "has_loopback": self.has_loopback && bare.is_none(),
            "files": self.files,
            "numbers": {
                "capset": libc::SYS_capset,
                "create_ruleset": libc::SYS_landlock_create_ruleset,
                "add_rule": libc::SYS_landlock_add_rule,
                "restrict_self": libc::SYS_landlock_restrict_self,
                "close_range": libc::SYS_close_range,
            },
        }))
    }
}

/// The instructions of a filter, 8 bytes each, in hexadecimal digits.
fn hex(filter: &BpfProgram) -> String {
    let mut text = String::with_capacity(filter.len() * 16);
    for sock_filter { code, jt, jf, k } in filter {
        let (code, k) =
            (u16::from_be_bytes(code.to_ne_bytes()), u32::from_be_bytes(k.to_ne_bytes()));
        let _infallible = write!(text, "{code:04x}{jt:02x}{jf:02x}{k:08x}");
    }
    text
}
