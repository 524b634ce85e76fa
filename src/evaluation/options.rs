//! [`MeasureOptions`]: how tasks are asked.

use std::path::Path;
use std::path::PathBuf;

use crate::trajectory::Sampling;

use super::error::EvaluationError;
use super::modules::PackageModules;

/// How answers to tasks are obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyKind {
    /// One completion of the model.
    Completions,
    /// Completions until one passes the visible tests.
    BestOfN,
    /// The whole pipeline of `rune run`.
    Pipeline,
}

/// Options of a measurement.
#[derive(Debug, Clone)]
pub struct MeasureOptions {
    /// How answers to tasks are obtained.
    pub strategy: StrategyKind,
    /// Label of the measured part of the suite in the registry.
    pub split: String,
    /// Folder of packages that the visible tests may import.
    pub lib: Option<PathBuf>,
    /// Sampling of single completions.
    pub sampling: Sampling,
    /// Number of answers per task, at least 1.
    pub n_samples: u32,
    /// Whether to ignore cached answers.
    pub is_fresh: bool,
    /// Whether the scores are recorded, for [`crate::selection`] to choose adapters by. Benchmarks
    /// measure their own adapters on tasks of their own, which say nothing about a user's tasks.
    pub is_recorded: bool,
    /// Whether prompts show the nearest records of earlier sessions, and passages about the
    /// packages that a task names.
    pub shows_records: bool,
}

impl Default for MeasureOptions {
    /// One greedy completion of at most 160 tokens per task.
    fn default() -> Self {
        Self {
            strategy: StrategyKind::Completions,
            split: "all".to_owned(),
            lib: None,
            sampling: Sampling { max_tokens: 160, ..Sampling::default() },
            n_samples: 1,
            is_fresh: false,
            is_recorded: true,
            shows_records: false,
        }
    }
}

impl MeasureOptions {
    /// Names the measured part of the suite in the registry. With records, scores say something
    /// else, so they are kept apart from those without.
    pub(super) fn label(&self) -> String {
        let with = if self.shows_records { ", with records" } else { "" };
        format!("{}{with}", self.split)
    }
}

/// Reads the packages of the folder `lib`, if there is one.
///
/// # Errors
/// [`EvaluationError::Files`].
pub fn modules_of(lib: Option<&Path>) -> Result<PackageModules, EvaluationError> {
    let read = |folder: &Path| {
        PackageModules::read(folder)
            .map_err(|source| EvaluationError::Files { path: folder.to_owned(), source })
    };
    lib.map_or_else(|| Ok(PackageModules::default()), read)
}
