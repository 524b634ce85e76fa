//! What this machine has: processors, memory, disk, kernel. Reads `/proc`, changes nothing.

mod disk;
mod machine;
mod process;

pub use disk::disk_free;
pub use disk::fsync_latency;
pub use machine::CpuFeatures;
pub use machine::Machine;
pub use process::peak_rss;
