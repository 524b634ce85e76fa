//! The parts of a configuration. What each key means stands in `configs/default.toml`.

use serde::Deserialize;
use serde::Serialize;

/// Who generates text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// The model in this process.
    InProcess,
    /// Canned answers from a file.
    Scripted,
}

impl ProviderKind {
    /// The word used in configuration and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Scripted => "scripted",
        }
    }
}

/// `[run]`: what a session uses, and its budgets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSettings {
    /// Name of a catalogued model.
    pub model: String,
    /// Who generates.
    pub provider: ProviderKind,
    /// File of canned answers; empty when there is none.
    pub scripted: String,
    /// Key of the project; empty when it is to be found out.
    pub project: String,
    /// The adapter: `auto`, `none` or an id.
    pub adapter: String,
    /// Folder of packages that solutions may import; empty for none.
    pub lib: String,
    /// Seed of all sampling.
    pub seed: u64,
    /// Budget of generated tokens.
    pub max_tokens: u64,
    /// Budget of wall time, in seconds.
    pub max_seconds: u64,
    /// Attempts at a phase.
    pub attempts: u32,
    /// Samples drawn when the first answer fails.
    pub candidates: u32,
    /// Repairs of the best candidate.
    pub repairs: u32,
    /// Whether tests that also pass on a stub of the solution decide nothing.
    pub strict_tests: bool,
}

/// `[sampling]`: how tokens are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Temperature of the first answer.
    pub temperature: f32,
    /// Temperature of further answers to the same prompt.
    pub retry_temperature: f32,
    /// Nucleus, `0.0 < top_p <= 1.0`.
    pub top_p: f32,
    /// Tokens kept; `0` keeps all.
    pub top_k: u32,
    /// `1.0` is off.
    pub repetition_penalty: f32,
}

/// `[engine]`: the in-process engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Threads; `0` is one for each physical core.
    pub threads: usize,
    /// Tokens of context to keep.
    pub context: usize,
    /// Memory for keys and values, in MiB.
    pub kv_mib: usize,
}

/// `[tokens]`: the most tokens to generate for one answer of each phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensConfig {
    /// Decompose.
    pub decompose: u32,
    /// Plan.
    pub plan: u32,
    /// Code.
    pub code: u32,
    /// Integrate.
    pub integrate: u32,
    /// Diagnose.
    pub diagnose: u32,
    /// Repair.
    pub repair: u32,
}

/// What kind of program is run: what it needs beside the limits that have keys of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramProfile {
    /// Plain Python.
    Python,
    /// numpy, torch and their like, which reserve far more memory than they use.
    Numeric,
    /// The commands of a repository, such as its build and its tests.
    Shell,
}

/// `[sandbox]`: the limits of one run of generated code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// The Python interpreter; empty for the first `python3` of PATH.
    pub python: String,
    /// What kind of program is run.
    pub profile: ProgramProfile,
    /// Processor time in seconds.
    pub cpu_seconds: u64,
    /// Wall time in seconds.
    pub wall_seconds: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Output kept, in KiB.
    pub output_kb: u64,
    /// Disk space in MiB.
    pub disk_mb: u64,
    /// Processes and threads.
    pub processes: u64,
}
