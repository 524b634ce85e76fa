//! [`Machine`]: facts from `/proc`, cgroups and CPUID.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::thread;

use serde::Serialize;

/// Processor, memory and kernel of this machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Model name of the processor; empty if the kernel does not report it.
    pub cpu: String,
    /// Number of threads that can run concurrently, limited by affinity and cgroup quota.
    pub n_threads: usize,
    /// Number of physical cores, at most `n_threads`.
    pub n_cores: usize,
    /// Instruction sets that the kernels can use.
    pub features: CpuFeatures,
    /// Total memory in bytes.
    pub memory_bytes: u64,
    /// Available memory in bytes without swapping, limited by the cgroup.
    pub available_bytes: u64,
    /// One-minute load average.
    pub load: f32,
    /// Kernel release, such as `6.8.0`.
    pub kernel: String,
}

/// Instruction sets beyond the architecture's baseline; all false off x86-64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct CpuFeatures {
    /// Whether the CPU has AVX2 and FMA.
    pub avx2: bool,
    /// Whether the CPU converts half-precision numbers (F16C).
    pub f16c: bool,
    /// Whether the CPU has the foundation of AVX-512.
    pub avx512f: bool,
    /// AVX-512 byte and word instructions.
    pub avx512bw: bool,
    /// AVX-512 VNNI dot products of bytes.
    pub avx512vnni: bool,
}

impl Machine {
    /// Reads the facts of this machine.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn read() -> io::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let (available_bytes, memory_bytes) = memory()?;
        let loadavg = fs::read_to_string("/proc/loadavg")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let n_threads = thread::available_parallelism()?.get();
        Ok(Self {
            cpu: field(&cpuinfo, "model name").next().unwrap_or_default().to_owned(),
            n_threads,
            n_cores: n_cores(&cpuinfo).map_or(n_threads, |n_cores| n_cores.min(n_threads)),
            features: CpuFeatures::detect(),
            memory_bytes,
            available_bytes,
            load: loadavg.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
            kernel: kernel.trim().to_owned(),
        })
    }
}

/// Returns the available memory without swapping, limited by the cgroup, and the total memory, in
/// bytes.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn memory() -> io::Result<(u64, u64)> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let available = kibibytes(&meminfo, "MemAvailable").min(left_in_group().unwrap_or(u64::MAX));
    Ok((available, kibibytes(&meminfo, "MemTotal")))
}

impl CpuFeatures {
    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        Self {
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            f16c: is_x86_feature_detected!("f16c"),
            avx512f: is_x86_feature_detected!("avx512f"),
            avx512bw: is_x86_feature_detected!("avx512bw"),
            avx512vnni: is_x86_feature_detected!("avx512vnni"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Self {
        Self::default()
    }
}

/// Returns the values of `name : value` lines.
fn field<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kibibytes(meminfo: &str, name: &str) -> u64 {
    let number = field(meminfo, name).next().and_then(|value| value.split(' ').next());
    number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Returns the bytes left in the cgroup of this process; `None` without a limit. In a container,
/// the cgroup's files are at the root. Inactive file pages count as free, because the kernel
/// reclaims them when memory is short.
fn left_in_group() -> Option<u64> {
    let left = |folder: &str, limit: &str, used: &str, cache: &str| {
        let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let stat = read("memory.stat").unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok());
        let used = number(used)?.saturating_sub(cached.unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    };
    left("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ").or_else(|| {
        let (limit, used) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
        left("/sys/fs/cgroup/memory", limit, used, "total_inactive_file ")
    })
}

/// Counts distinct pairs of socket and core; `None` if the kernel does not report them.
fn n_cores(cpuinfo: &str) -> Option<usize> {
    let cores: BTreeSet<_> = field(cpuinfo, "physical id").zip(field(cpuinfo, "core id")).collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_count_as_one_core() {
        let cpu = |core| format!("processor : 0\nphysical id\t: 0\ncore id\t\t: {core}\n\n");
        assert_eq!(n_cores(&[cpu(0), cpu(1), cpu(0), cpu(1)].concat()), Some(2));
        assert_eq!(n_cores("processor : 0\n"), None);
        assert_eq!(kibibytes("MemTotal:       4 kB\n", "MemTotal"), 4096);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.n_cores >= 1 && machine.n_cores <= machine.n_threads);
        assert!(machine.memory_bytes > machine.available_bytes);
    }
}
