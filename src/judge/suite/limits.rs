//! Limits on the files of a suite or a solution.

/// Limits on the number and the total size of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Maximum number of files.
    pub n_files: usize,
    /// Maximum bytes of all files together.
    pub n_bytes: u64,
}
