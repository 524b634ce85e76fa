//! The rules of each key: its valid values, and whether a project file may set it.

/// Constraint on a value, in addition to its type.
#[derive(Debug, Clone, Copy)]
pub(super) enum ValueRule {
    /// Any text, also an empty one.
    Text,
    /// A boolean: `true` or `false`.
    Flag,
    /// Text that is not empty.
    Filled,
    /// One of the given words.
    OneOf(&'static [&'static str]),
    /// A number in the inclusive range.
    Range(f64, f64),
}

/// Permission of a project's `rune.toml` to set a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProjectRule {
    /// The project may set it freely.
    Free,
    /// The project may lower it, but not raise it above its value without the project file.
    Lower,
    /// The project must not set it.
    Never,
}

/// A key with its rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyRule {
    /// Dotted name of the key.
    pub(super) name: &'static str,
    /// Constraint on its value.
    pub(super) check: ValueRule,
    /// Permission of project files.
    pub(super) project: ProjectRule,
}

const fn key(name: &'static str, check: ValueRule, project: ProjectRule) -> KeyRule {
    KeyRule { name, check, project }
}

/// Words for the inference backends.
const PROVIDERS: &[&str] = &["in-process", "llama-cpp", "vllm", "ollama", "openai", "scripted"];

/// Every key, in the order of `configs/default.toml`.
pub(super) const KEYS: &[KeyRule] = &[
    key("run.model", ValueRule::Filled, ProjectRule::Free),
    key("run.provider", ValueRule::OneOf(PROVIDERS), ProjectRule::Free),
    key("run.scripted", ValueRule::Text, ProjectRule::Never),
    key("run.project", ValueRule::Text, ProjectRule::Free),
    key("run.adapter", ValueRule::Filled, ProjectRule::Free),
    key("run.lib", ValueRule::Text, ProjectRule::Never),
    key("run.seed", ValueRule::Range(0.0, 9e18), ProjectRule::Free),
    key("run.max_tokens", ValueRule::Range(1.0, 1e9), ProjectRule::Lower),
    key("run.max_seconds", ValueRule::Range(1.0, 1e7), ProjectRule::Lower),
    key("run.attempts", ValueRule::Range(1.0, 100.0), ProjectRule::Lower),
    key("run.candidates", ValueRule::Range(0.0, 1000.0), ProjectRule::Lower),
    key("run.repairs", ValueRule::Range(0.0, 100.0), ProjectRule::Lower),
    key("run.strict_tests", ValueRule::Flag, ProjectRule::Free),
    key(
        "memory.kind",
        ValueRule::OneOf(&["auto", "none", "records", "adapter", "both"]),
        ProjectRule::Free,
    ),
    key("memory.max_tokens", ValueRule::Range(0.0, 1e6), ProjectRule::Lower),
    key("memory.max_records", ValueRule::Range(0.0, 1000.0), ProjectRule::Lower),
    key("memory.max_passages", ValueRule::Range(0.0, 1000.0), ProjectRule::Lower),
    key("memory.min_similarity", ValueRule::Range(0.0, 1.0), ProjectRule::Free),
    key("sampling.temperature", ValueRule::Range(0.0, 2.0), ProjectRule::Free),
    key("sampling.retry_temperature", ValueRule::Range(0.0, 2.0), ProjectRule::Free),
    key("sampling.top_p", ValueRule::Range(1e-6, 1.0), ProjectRule::Free),
    key("sampling.top_k", ValueRule::Range(0.0, 1e6), ProjectRule::Free),
    key("sampling.repetition_penalty", ValueRule::Range(0.1, 10.0), ProjectRule::Free),
    key("engine.threads", ValueRule::Range(0.0, 1024.0), ProjectRule::Never),
    key("engine.context", ValueRule::Range(256.0, 1_048_576.0), ProjectRule::Lower),
    key("engine.kv_mib", ValueRule::Range(16.0, 1_048_576.0), ProjectRule::Lower),
    key("server.url", ValueRule::Text, ProjectRule::Never),
    key("server.model", ValueRule::Text, ProjectRule::Free),
    key("server.base_model", ValueRule::Text, ProjectRule::Free),
    key("server.key_variable", ValueRule::Text, ProjectRule::Never),
    key("server.reasoning_tokens", ValueRule::Range(0.0, 1e6), ProjectRule::Lower),
    key("server.timeout_seconds", ValueRule::Range(1.0, 86400.0), ProjectRule::Lower),
    key("park.level", ValueRule::Range(1.0, 2.0), ProjectRule::Never),
    key("park.exclusive", ValueRule::Flag, ProjectRule::Never),
    key("park.drain_seconds", ValueRule::Range(1.0, 86400.0), ProjectRule::Never),
    key("park.wake_seconds", ValueRule::Range(1.0, 86400.0), ProjectRule::Never),
    key("park.stop_command", ValueRule::Text, ProjectRule::Never),
    key("park.start_command", ValueRule::Text, ProjectRule::Never),
    key("tokens.decompose", ValueRule::Range(1.0, 1e6), ProjectRule::Lower),
    key("tokens.plan", ValueRule::Range(1.0, 1e6), ProjectRule::Lower),
    key("tokens.code", ValueRule::Range(1.0, 1e6), ProjectRule::Lower),
    key("tokens.integrate", ValueRule::Range(1.0, 1e6), ProjectRule::Lower),
    key("tokens.diagnose", ValueRule::Range(1.0, 1e6), ProjectRule::Lower),
    key("tokens.repair", ValueRule::Range(1.0, 1e6), ProjectRule::Lower),
    key("sandbox.python", ValueRule::Text, ProjectRule::Never),
    key("sandbox.profile", ValueRule::OneOf(&["python", "numeric", "shell"]), ProjectRule::Never),
    key("sandbox.cpu_seconds", ValueRule::Range(1.0, 86400.0), ProjectRule::Lower),
    key("sandbox.wall_seconds", ValueRule::Range(1.0, 86400.0), ProjectRule::Lower),
    key("sandbox.memory_mb", ValueRule::Range(32.0, 1_048_576.0), ProjectRule::Lower),
    key("sandbox.output_kb", ValueRule::Range(1.0, 1_048_576.0), ProjectRule::Lower),
    key("sandbox.disk_mb", ValueRule::Range(1.0, 1_048_576.0), ProjectRule::Lower),
    key("sandbox.processes", ValueRule::Range(1.0, 4096.0), ProjectRule::Lower),
];

/// Returns the rules of the key `name`; `None` if there is no such key.
pub(super) fn find(name: &str) -> Option<&'static KeyRule> {
    KEYS.iter().find(|key| key.name == name)
}

/// Returns the names of all keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}
