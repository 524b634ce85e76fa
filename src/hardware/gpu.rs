//! GPUs, read from NVIDIA's driver (NVML). Without the driver there are none.

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use serde::Serialize;

/// A GPU with its memory and the processes on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Name of the model.
    pub name: String,
    /// Version of the driver.
    pub driver: String,
    /// Total memory in bytes.
    pub memory_bytes: u64,
    /// Free memory in bytes.
    pub free_bytes: u64,
    /// Processes that compute on it: id, and memory in bytes.
    pub processes: Vec<(u32, u64)>,
}

/// Memory of all GPUs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuMemory {
    /// Free memory in bytes.
    pub free: u64,
    /// Memory in use, in bytes.
    pub used: u64,
    /// Processes that hold memory: id, and bytes.
    pub processes: Vec<(u32, u64)>,
}

impl GpuMemory {
    /// Names the processes that hold memory, for messages.
    pub fn holders(&self) -> String {
        let one = |(pid, bytes): &(u32, u64)| format!("process {pid} ({} MiB)", bytes >> 20);
        match self.processes.as_slice() {
            [] => "a process that the driver does not name".to_owned(),
            all => all.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Returns the GPUs of this machine; none without a driver.
///
/// # Errors
/// What the driver reports, if there is one.
pub fn gpus() -> Result<Vec<Gpu>, NvmlError> {
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded,
        ) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let driver = nvml.sys_driver_version()?;
    let read = |index| {
        let device = nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        // Not every driver tells, in containers for example.
        let processes = device.running_compute_processes().unwrap_or_default().into_iter();
        let used = |used| match used {
            UsedGpuMemory::Used(bytes) => bytes,
            UsedGpuMemory::Unavailable => 0,
        };
        Ok(Gpu {
            name: device.name()?,
            driver: driver.clone(),
            memory_bytes: memory.total,
            free_bytes: memory.free,
            processes: processes.map(|one| (one.pid, used(one.used_gpu_memory))).collect(),
        })
    };
    (0..nvml.device_count()?).map(read).collect()
}

/// Returns the memory of all GPUs together; `None` if there are none.
///
/// # Errors
/// What the driver reports, if there is one.
pub fn gpu_memory() -> Result<Option<GpuMemory>, NvmlError> {
    let gpus = gpus()?;
    let memory = GpuMemory {
        free: gpus.iter().map(|gpu| gpu.free_bytes).sum(),
        used: gpus.iter().map(|gpu| gpu.memory_bytes.saturating_sub(gpu.free_bytes)).sum(),
        processes: gpus.iter().flat_map(|gpu| gpu.processes.iter().copied()).collect(),
    };
    Ok((!gpus.is_empty()).then_some(memory))
}
