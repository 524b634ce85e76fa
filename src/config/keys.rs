//! The rules for each key: its range, and what a project file may do with it.

/// What a value has to be, beside its type.
#[derive(Debug, Clone, Copy)]
pub(super) enum ValueRule {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// Text that is not empty.
    Filled,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A number from the first to the second, both included.
    Range(f64, f64),
}

/// What a project's `rune.toml` may do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProjectRule {
    /// Set it freely.
    Free,
    /// Set it to no more than it would be without the project file.
    Lower,
    /// Leave it alone.
    Never,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyRule {
    /// The dotted name.
    pub(super) name: &'static str,
    /// What its value has to be.
    pub(super) check: ValueRule,
    /// What a project file may do with it.
    pub(super) project: ProjectRule,
}

const fn key(name: &'static str, check: ValueRule, project: ProjectRule) -> KeyRule {
    KeyRule { name, check, project }
}

/// Every key, in the order of `configs/default.toml`.
pub(super) const KEYS: &[KeyRule] = &[
    key("run.model", ValueRule::Filled, ProjectRule::Free),
    key("run.provider", ValueRule::OneOf(&["in-process", "scripted"]), ProjectRule::Free),
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
    key("sampling.temperature", ValueRule::Range(0.0, 2.0), ProjectRule::Free),
    key("sampling.retry_temperature", ValueRule::Range(0.0, 2.0), ProjectRule::Free),
    key("sampling.top_p", ValueRule::Range(1e-6, 1.0), ProjectRule::Free),
    key("sampling.top_k", ValueRule::Range(0.0, 1e6), ProjectRule::Free),
    key("sampling.repetition_penalty", ValueRule::Range(0.1, 10.0), ProjectRule::Free),
    key("engine.threads", ValueRule::Range(0.0, 1024.0), ProjectRule::Never),
    key("engine.context", ValueRule::Range(256.0, 1_048_576.0), ProjectRule::Lower),
    key("engine.kv_mib", ValueRule::Range(16.0, 1_048_576.0), ProjectRule::Lower),
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

/// The rules for `name`; `None` when there is no such key.
pub(super) fn find(name: &str) -> Option<&'static KeyRule> {
    KEYS.iter().find(|key| key.name == name)
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}
