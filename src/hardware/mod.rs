//! Facts about this machine: processor, memory, disk and kernel. Reads `/proc` and changes nothing.

mod disk;
mod gpu;
mod machine;
mod process;

pub use disk::disk_free;
pub use disk::fsync_latency;
pub use gpu::Gpu;
pub use gpu::GpuMemory;
pub use gpu::gpu_memory;
pub use gpu::gpus;
pub use machine::CpuFeatures;
pub use machine::Machine;
pub use machine::memory;
pub use process::peak_rss;
pub use process::rss;
