//! The rules for each key: its range, and what a project file may do with it.

/// What a value has to be, beside its type.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
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
pub(super) enum Project {
    /// Set it freely.
    Free,
    /// Set it to no more than it would be without the project file.
    Lower,
    /// Leave it alone.
    Never,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The dotted name.
    pub(super) name: &'static str,
    /// What its value has to be.
    pub(super) check: Check,
    /// What a project file may do with it.
    pub(super) project: Project,
}

const fn key(name: &'static str, check: Check, project: Project) -> Key {
    Key { name, check, project }
}

/// Every key, in the order of `configs/default.toml`.
pub(super) const KEYS: &[Key] = &[
    key("run.model", Check::Filled, Project::Free),
    key("run.provider", Check::OneOf(&["in-process", "scripted"]), Project::Free),
    key("run.scripted", Check::Text, Project::Never),
    key("run.project", Check::Text, Project::Free),
    key("run.adapter", Check::Filled, Project::Free),
    key("run.lib", Check::Text, Project::Never),
    key("run.seed", Check::Range(0.0, 9e18), Project::Free),
    key("run.max_tokens", Check::Range(1.0, 1e9), Project::Lower),
    key("run.max_seconds", Check::Range(1.0, 1e7), Project::Lower),
    key("run.attempts", Check::Range(1.0, 100.0), Project::Lower),
    key("run.candidates", Check::Range(0.0, 1000.0), Project::Lower),
    key("run.repairs", Check::Range(0.0, 100.0), Project::Lower),
    key("run.strict_tests", Check::Flag, Project::Free),
    key("sampling.temperature", Check::Range(0.0, 2.0), Project::Free),
    key("sampling.retry_temperature", Check::Range(0.0, 2.0), Project::Free),
    key("sampling.top_p", Check::Range(1e-6, 1.0), Project::Free),
    key("sampling.top_k", Check::Range(0.0, 1e6), Project::Free),
    key("sampling.repetition_penalty", Check::Range(0.1, 10.0), Project::Free),
    key("engine.threads", Check::Range(0.0, 1024.0), Project::Never),
    key("engine.context", Check::Range(256.0, 1_048_576.0), Project::Lower),
    key("engine.kv_mib", Check::Range(16.0, 1_048_576.0), Project::Lower),
    key("tokens.decompose", Check::Range(1.0, 1e6), Project::Lower),
    key("tokens.plan", Check::Range(1.0, 1e6), Project::Lower),
    key("tokens.code", Check::Range(1.0, 1e6), Project::Lower),
    key("tokens.integrate", Check::Range(1.0, 1e6), Project::Lower),
    key("tokens.diagnose", Check::Range(1.0, 1e6), Project::Lower),
    key("tokens.repair", Check::Range(1.0, 1e6), Project::Lower),
    key("sandbox.python", Check::Text, Project::Never),
    key("sandbox.profile", Check::OneOf(&["python", "numeric", "shell"]), Project::Never),
    key("sandbox.cpu_seconds", Check::Range(1.0, 86400.0), Project::Lower),
    key("sandbox.wall_seconds", Check::Range(1.0, 86400.0), Project::Lower),
    key("sandbox.memory_mb", Check::Range(32.0, 1_048_576.0), Project::Lower),
    key("sandbox.output_kb", Check::Range(1.0, 1_048_576.0), Project::Lower),
    key("sandbox.disk_mb", Check::Range(1.0, 1_048_576.0), Project::Lower),
    key("sandbox.processes", Check::Range(1.0, 4096.0), Project::Lower),
];

/// The rules for `name`; `None` when there is no such key.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}
