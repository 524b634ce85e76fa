//! [`FileLimits`].

/// Maximum files, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Maximum files.
    pub n_files: usize,
    /// Maximum bytes of all of them.
    pub n_bytes: u64,
}
