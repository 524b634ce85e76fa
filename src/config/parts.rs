//! The sections of the configuration. `configs/default.toml` describes every key in detail.

use serde::Deserialize;
use serde::Serialize;

/// The inference backend of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// A model in this process.
    InProcess,
    /// A server of llama.cpp.
    LlamaCpp,
    /// A server of vLLM.
    Vllm,
    /// A server of Ollama.
    Ollama,
    /// Any server with an OpenAI-compatible API.
    #[serde(rename = "openai")]
    OpenAi,
    /// Canned answers from a file.
    Scripted,
}

impl ProviderKind {
    /// Whether the model runs on the server of the settings.
    pub fn uses_server(self) -> bool {
        !matches!(self, Self::InProcess | Self::Scripted)
    }

    /// Returns the word used in the configuration and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::LlamaCpp => "llama-cpp",
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Scripted => "scripted",
        }
    }
}

/// `[run]`: the model, adapter and budgets of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSettings {
    /// Name of a model in the catalog.
    pub model: String,
    /// Inference backend of the session.
    pub provider: ProviderKind,
    /// File of canned answers for the scripted backend; empty for none.
    pub scripted: String,
    /// Key of the project; empty to derive it from the git repository.
    pub project: String,
    /// Adapter selection: `auto`, `none` or an adapter id.
    pub adapter: String,
    /// Folder of Python packages that solutions may import; empty for none.
    pub lib: String,
    /// Random seed of all sampling.
    pub seed: u64,
    /// Budget of generated tokens per session.
    pub max_tokens: u64,
    /// Budget of wall time per session, in seconds.
    pub max_seconds: u64,
    /// Maximum attempts per phase.
    pub attempts: u32,
    /// Number of samples for a subtask whose first answer fails.
    pub candidates: u32,
    /// Maximum repairs of the best candidate.
    pub repairs: u32,
    /// Whether tests that also pass on a stub of the solution are rejected.
    pub strict_tests: bool,
}

/// What a session remembers of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryKind {
    /// Records where any are near, and the selected adapter.
    Auto,
    /// Neither records nor an adapter.
    None,
    /// Records of solved sessions alone.
    Records,
    /// The selected adapter alone.
    Adapter,
    /// Records and the selected adapter.
    Both,
}

impl MemoryKind {
    /// Whether prompts show records of earlier sessions.
    pub fn shows_records(self) -> bool {
        matches!(self, Self::Auto | Self::Records | Self::Both)
    }

    /// Whether an adapter may be used.
    pub fn uses_adapter(self) -> bool {
        matches!(self, Self::Auto | Self::Adapter | Self::Both)
    }
}

/// `[memory]`: what a session remembers of earlier ones, and what it reads of documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// What a session remembers of earlier ones.
    pub kind: MemoryKind,
    /// Maximum tokens of records and passages in a prompt.
    pub max_tokens: usize,
    /// Maximum number of records in a prompt.
    pub max_records: usize,
    /// Maximum number of passages in a prompt.
    pub max_passages: usize,
    /// Minimum similarity of a record, `0.0..=1.0`.
    pub min_similarity: f64,
}

/// `[sampling]`: how tokens are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Temperature of the first answer to a prompt.
    pub temperature: f32,
    /// Temperature of all further answers to the same prompt.
    pub retry_temperature: f32,
    /// Nucleus sampling threshold, `0.0 < top_p <= 1.0`.
    pub top_p: f32,
    /// Number of most likely tokens to sample from; `0` disables the limit.
    pub top_k: u32,
    /// Penalty for tokens that have occurred; `1.0` disables it.
    pub repetition_penalty: f32,
}

/// `[engine]`: resources of the in-process engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Number of threads; `0` for one per physical core.
    pub threads: usize,
    /// Context window in tokens.
    pub context: usize,
    /// Memory of the KV cache, in MiB.
    pub kv_mib: usize,
}

/// `[server]`: the model server of the providers that use one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// URL of the server, without `/v1`.
    pub url: String,
    /// Name of the model on the server; empty for the only one that it has.
    pub model: String,
    /// Model that the server has, as a catalog name or the path of a GGUF file, if Rune cannot read
    /// the server's own file; empty for an unknown one.
    pub base_model: String,
    /// Name of the environment variable with the server's key; empty for none.
    pub key_variable: String,
    /// Tokens that an answer may spend on reasoning, in addition to those of its phase.
    pub reasoning_tokens: u32,
    /// Time without a byte after which the server counts as gone, in seconds.
    pub timeout_seconds: u64,
}

/// `[park]`: how a model server frees its GPU for training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParkConfig {
    /// Level of sleep: 1 keeps the weights in the memory of the machine, 2 drops them.
    pub level: u8,
    /// Whether a server is parked also while it answers others.
    pub exclusive: bool,
    /// Time that requests have to end before they are aborted, in seconds.
    pub drain_seconds: u64,
    /// Time that each attempt to wake a server may take, in seconds.
    pub wake_seconds: u64,
    /// Shell command that stops the server; empty for none.
    pub stop_command: String,
    /// Shell command that starts the server; empty for none.
    pub start_command: String,
}

/// `[tokens]`: maximum tokens per answer of each phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensConfig {
    /// Maximum tokens per decomposition.
    pub decompose: u32,
    /// Maximum tokens per plan.
    pub plan: u32,
    /// Maximum tokens per code answer.
    pub code: u32,
    /// Maximum tokens per integration.
    pub integrate: u32,
    /// Maximum tokens per diagnosis.
    pub diagnose: u32,
    /// Maximum tokens per repair.
    pub repair: u32,
}

/// Kind of program to run. It determines resources that have no configuration key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramProfile {
    /// Python code without large native libraries.
    Python,
    /// Code with numpy, torch and similar, which reserves far more address space than it uses.
    Numeric,
    /// Shell commands of a repository, such as its build and its tests.
    Shell,
}

/// `[sandbox]`: limits of one run of generated code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// Python interpreter; empty for the first `python3` on `PATH`.
    pub python: String,
    /// Kind of program to run.
    pub profile: ProgramProfile,
    /// Maximum CPU time, in seconds.
    pub cpu_seconds: u64,
    /// Maximum wall time, in seconds.
    pub wall_seconds: u64,
    /// Maximum memory, in MiB.
    pub memory_mb: u64,
    /// Maximum captured output, in KiB.
    pub output_kb: u64,
    /// Maximum disk space, in MiB.
    pub disk_mb: u64,
    /// Maximum number of processes and threads.
    pub processes: u64,
}
