//! Nested jails: the plan by which a trusted program in a jail builds jails for the processes that
//! it forks.

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

/// Source of the Python module that builds a nested jail: its class `Jail` takes the plan of
/// [`NestedJail::plan`].
pub(crate) const NESTED_JAIL: &str = include_str!("jail.py");

/// Options of nested jails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NestedJail {
    /// Whether all memory of the outer jail is counted. If not, every kind of memory that no limit
    /// of a single process covers is denied.
    pub(crate) memory_is_counted: bool,
    /// Whether a process may use TCP on the loopback interface of the outer jail.
    pub(crate) has_loopback: bool,
    /// Maximum open files of a process.
    pub(crate) files: u32,
}

impl NestedJail {
    /// Builds the plan for `jail.py`. `mounts` are the mounts of the outer jail.
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
        // `None` means everything in the outer jail. Without namespaces the outer jail shows the
        // whole host, so the readable paths are listed.
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

/// Encodes the instructions of a filter, 8 bytes each, as hexadecimal digits.
fn hex(filter: &BpfProgram) -> String {
    let mut text = String::with_capacity(filter.len() * 16);
    for sock_filter { code, jt, jf, k } in filter {
        // The digits spell the bytes as they lie in memory: the kernel reads native-endian structs.
        let (code, k) =
            (u16::from_be_bytes(code.to_ne_bytes()), u32::from_be_bytes(k.to_ne_bytes()));
        let _infallible = write!(text, "{code:04x}{jt:02x}{jf:02x}{k:08x}");
    }
    text
}
