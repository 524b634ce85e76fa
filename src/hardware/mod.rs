//! Facts about this machine: processor, memory, disk and kernel. Reads `/proc` and changes nothing.

mod disk;
mod machine;
mod process;

pub use disk::disk_free;
pub use disk::fsync_latency;
pub use machine::CpuFeatures;
pub use machine::Machine;
pub use machine::memory;
pub use process::peak_rss;
pub use process::rss;
