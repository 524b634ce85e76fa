//! The request to evolve a project's adapters, and the report of the outcome.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::evaluation;
use crate::evaluation::PackageModules;
use crate::evaluation::TaskSuite;
use crate::event::PairedScores;
use crate::event::PassRate;
use crate::families::FamilySplit;
use crate::provider::BaseModel;
use crate::registry::AdapterFilter;
use crate::registry::LedgerRow;
use crate::registry::Registry;

use super::error::EvolutionError;

/// Number of tasks of the gate without which nothing is decided.
pub const MIN_GATE_TASKS: usize = 20;

/// What to evolve, and how far.
#[derive(Debug, Clone)]
pub struct EvolveRequest {
    /// Key of the project whose adapters evolve.
    pub project: String,
    /// Tasks that decide what is better.
    pub suite: TaskSuite,
    /// Packages that answers may import.
    pub modules: PackageModules,
    /// Folder of those packages.
    pub lib: Option<PathBuf>,
    /// Whether to stop after one round instead of when a round decides nothing.
    pub is_once: bool,
    /// When no further task is asked; `None` for no limit.
    pub deadline: Option<Instant>,
}

impl EvolveRequest {
    /// Returns the tasks of a split, in the order of [`TaskSuite::by_family`].
    pub(super) fn part(&self, split: FamilySplit) -> TaskSuite {
        self.suite.clone().part(split).by_family()
    }

    /// Returns the number of tasks that the gate lacks; above 0, nothing is decided.
    pub fn n_missing(&self) -> usize {
        let is_of_gate = |family: &&str| FamilySplit::of(family) == FamilySplit::Gate;
        MIN_GATE_TASKS.saturating_sub(self.suite.families().filter(is_of_gate).count())
    }

    /// Returns the adapters that race, oldest first, and why others do not.
    pub(super) fn population(
        &self,
        registry: &Registry,
        base: &BaseModel,
    ) -> Result<Population, EvolutionError> {
        let decisive = [FamilySplit::Dev, FamilySplit::Gate].map(|split| self.part(split));
        let mut found = Population::default();
        let mut adapters = registry.adapters(&AdapterFilter::default())?;
        adapters.reverse();
        for adapter in adapters {
            let is_ours = adapter.project == self.project || adapter.scope == Scope::Global;
            let fits =
                adapter.base_model == base.base_model && adapter.base_digest == base.base_digest;
            if !fits || !is_ours {
                continue;
            }
            let refuse = |part| evaluation::refuse_seen(part, &adapter.train_families);
            match decisive.iter().try_for_each(refuse) {
                Ok(()) => found.adapters.push(adapter),
                Err(error) => found.left_out.push((adapter.id, error.to_string())),
            }
        }
        Ok(found)
    }
}

/// What a call of [`super::evolve()`] has found and decided.
#[derive(Debug, Clone, Serialize)]
pub struct EvolveReport {
    /// Key of the project.
    pub project: String,
    /// Name of the suite.
    pub suite: String,
    /// Number of its tasks for the race.
    pub n_dev: usize,
    /// Number of its tasks for the gate.
    pub n_gate: usize,
    /// Number of tasks of the gate that are missing; above 0, nothing is decided.
    pub n_missing: usize,
    /// Scores of the adapters in the last race, best first.
    pub raced: Vec<RacedAdapter>,
    /// New decisions, in order.
    pub decisions: Vec<LedgerRow>,
    /// Adapter that the project uses now; `None` for the base.
    pub incumbent: Option<AdapterId>,
    /// Whether the work was done within the budget.
    pub is_complete: bool,
}

/// Score of an adapter in a race.
#[derive(Debug, Clone, Serialize)]
pub struct RacedAdapter {
    /// Id of the adapter.
    pub adapter_id: AdapterId,
    /// Its score on the tasks that it was asked.
    pub score: PassRate,
    /// Comparison with the base on the same tasks.
    pub against_base: PairedScores,
    /// Whether it was asked all tasks of the race.
    pub has_finished: bool,
}

/// Adapters that would race.
#[derive(Debug, Clone, Default)]
pub struct Population {
    /// The adapters, oldest first.
    pub adapters: Vec<Adapter>,
    /// Adapters that cannot be measured on the tasks, with the reason.
    pub left_out: Vec<(AdapterId, String)>,
}
