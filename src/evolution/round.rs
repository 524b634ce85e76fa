//! [`Round`]: one pass over the adapters of a project.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::ParentAdapter;
use crate::adapter::Scope;
use crate::digest::sha256;
use crate::error_class::with_causes;
use crate::evaluation;
use crate::evaluation::AdapterWeights;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvaluationError;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::SuiteMemory;
use crate::evaluation::TaskSuite;
use crate::event::DecisionKind;
use crate::event::PassRate;
use crate::failpoint;
use crate::failpoint::Failpoint;
use crate::merge::MergeRecipe;
use crate::peft::AdapterDelta;
use crate::provider::BaseModel;
use crate::registry::ACCEPT;
use crate::registry::AdapterFilter;
use crate::registry::AdapterStore;
use crate::registry::DecisionEffect;
use crate::registry::Evaluation;
use crate::registry::LedgerFilter;
use crate::registry::LedgerRow;
use crate::registry::RACE;
use crate::registry::Registry;
use crate::registry::RegistryError;

use super::breed;
use super::breed::Child;
use super::breed::ParentSet;
use super::error::EvolutionError;
use super::examiner::Examiner;
use super::examiner::compare;
use super::merge::MergeRequest;
use super::merge::merge;
use super::merge::recipe_digest;
use super::race::Race;
use super::race::Runner;
use super::race::race;
use super::race::rungs;
use super::request::EvolveReport;
use super::request::EvolveRequest;
use super::request::Population;
use super::request::RacedAdapter;
use super::trial::TrialTasks;
use super::trial::trial;

/// Number of answers from which an adapter may be archived.
const MIN_ARCHIVED: usize = 32;
/// How much worse than the base an adapter must be to be archived, as a share of the tasks.
const ARCHIVE_MARGIN: f64 = 0.02;
/// Relative squared distance of two deltas up to which one is a duplicate: that of equally long
/// ones with a cosine of 0.995.
const DUPLICATE: f64 = 0.01;

/// One pass over the adapters of a project.
pub(super) struct Round<'a> {
    pub(super) examiner: Examiner<'a>,
    pub(super) store: AdapterStore,
    pub(super) request: &'a EvolveRequest,
    pub(super) base: BaseModel,
    /// Tasks of the race, in the order of [`TaskSuite::by_family`].
    pub(super) dev: &'a TaskSuite,
    pub(super) tasks: TrialTasks<'a>,
    pub(super) report: &'a mut EvolveReport,
}

impl Round<'_> {
    /// Repeats rounds until one decides nothing.
    pub(super) async fn repeat(&mut self) -> Result<(), EvolutionError> {
        loop {
            let n_decided = self.report.decisions.len();
            self.run().await?;
            if self.request.is_once || self.report.decisions.len() == n_decided {
                return Ok(());
            }
        }
    }

    async fn run(&mut self) -> Result<(), EvolutionError> {
        self.complete_merges().await?;
        let field = self.field().await?;
        let used = self.registry().incumbent(&self.request.project, &self.base.base_digest)?;
        let raced = race(&self.examiner, self.dev, field, used.as_ref()).await?;
        self.record(&raced)?;
        self.archive(&raced).await?;
        match used {
            Some(id) if raced.finisher(&id).is_none() && self.is_active(&id)? => {
                let message = format!(
                    "nothing is promoted: {id}, which the project uses, cannot be compared on \
                     these tasks"
                );
                self.examiner.services.notice(message);
            }
            used => self.promote(&raced, used.filter(|id| raced.finisher(id).is_some())).await?,
        }
        self.merge(&raced).await?;
        // The next round loads what it needs.
        for runner in raced.finished.iter().chain(&raced.dropped) {
            self.examiner.evaluator.unload(&runner.weights).await;
        }
        Ok(())
    }

    fn registry(&self) -> &Registry {
        &self.examiner.services.registry
    }

    fn is_active(&self, id: &AdapterId) -> Result<bool, EvolutionError> {
        Ok(self.registry().adapter(id)?.archived_at.is_none())
    }

    /// Loads the adapters that race, without duplicates, which are archived, and without those that
    /// cannot be read.
    async fn field(&mut self) -> Result<Vec<AdapterWeights>, EvolutionError> {
        let services = self.examiner.services;
        let Population { adapters, left_out } =
            self.request.population(&services.registry, &self.base)?;
        for (id, reason) in left_out {
            services.notice(format!("{id} is left out: {reason}"));
        }
        let kept = self.kept()?;
        let mut field: Vec<AdapterWeights> = Vec::new();
        for adapter in &adapters {
            match self.entrant(adapter, (&field, &kept)).await {
                Ok(entrant) => field.extend(entrant),
                Err(
                    error @ (EvolutionError::Peft(_)
                    | EvolutionError::Evaluation(EvaluationError::Provider(_))),
                ) => {
                    let reason = with_causes(&error);
                    services.notice(format!("{} is left out: {reason}", adapter.id));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(field)
    }

    /// Returns what is never archived: promoted adapters of any project, and the parents of others.
    fn kept(&self) -> Result<BTreeSet<AdapterId>, EvolutionError> {
        let active = self.registry().adapters(&AdapterFilter::default())?;
        let parents = active.into_iter().flat_map(|adapter| adapter.parents);
        let mut kept = self.registry().promoted_anywhere()?;
        kept.extend(parents.map(|parent| parent.id));
        Ok(kept)
    }

    /// Loads an adapter, unless it is a new duplicate of an older one.
    async fn entrant(
        &mut self,
        adapter: &Adapter,
        (older, kept): (&[AdapterWeights], &BTreeSet<AdapterId>),
    ) -> Result<Option<AdapterWeights>, EvolutionError> {
        let id = &adapter.id;
        let is_new = self.registry().fitness(Some(id), &self.base.base_digest)?.is_empty();
        if is_new
            && !kept.contains(id)
            && let Some((original, distance)) = self.original(id, older)?
        {
            let key = self.key(&json!(["duplicate", id, original]));
            let evidence = json!({ "relative_distance": distance });
            let pair = (id.as_str(), Some(&original));
            let row = self.row(DecisionKind::Archive, key, pair, ("duplicate", evidence))?;
            let reason = format!("a duplicate of {original}");
            if self.decide(row, DecisionEffect::Archive(id, &reason))? {
                return Ok(None);
            }
        }
        Ok(Some(self.examiner.evaluator.load_stored(id).await?))
    }

    /// Finds an older adapter that `id` repeats, with the distance of their deltas.
    fn original(
        &self,
        id: &AdapterId,
        older: &[AdapterWeights],
    ) -> Result<Option<(AdapterId, f64)>, EvolutionError> {
        let delta = AdapterDelta::read(&self.store.path(id))?;
        for weights in older {
            let other = AdapterDelta::read(&self.store.path(&weights.id))?;
            let distance = delta.relative_distance(&other);
            if distance <= DUPLICATE {
                return Ok(Some((weights.id.clone(), distance)));
            }
        }
        Ok(None)
    }

    /// Reports the scores of a race, and stores those that are new.
    fn record(&mut self, raced: &Race) -> Result<(), EvolutionError> {
        self.report.raced.clear();
        let tools = self.examiner.evaluator.tools(SuiteMemory::default());
        let finished = raced.finished.iter().map(|runner| (runner, true));
        let dropped = raced.dropped.iter().map(|runner| (runner, false));
        for (runner, has_finished) in finished.chain(dropped) {
            let outcomes: Vec<&EvalOutcome> = runner.outcomes.iter().collect();
            if outcomes.is_empty() {
                continue;
            }
            self.report.raced.push(RacedAdapter {
                adapter_id: runner.weights.id.clone(),
                score: evaluation::score(&outcomes),
                against_base: compare(&raced.base, &runner.outcomes),
                has_finished,
            });
            let split = match outcomes.len() {
                n if n == self.dev.n_tasks() => RACE.to_owned(),
                n => format!("{RACE}, first {n}"),
            };
            let conditions = evaluation::conditions(&tools, &outcomes);
            let known =
                self.registry().fitness(Some(&runner.weights.id), &self.base.base_digest)?;
            let is_stored = |one: &Evaluation| {
                one.split == split && one.conditions.as_ref() == Some(&conditions)
            };
            if known.iter().any(is_stored) {
                continue;
            }
            // Scores are compared answer by answer, so both have the same tasks.
            let (base, own) = in_both(&raced.base, &runner.outcomes);
            let adapters = vec![(runner.weights.id.clone(), own)];
            let measured = MeasuredOutcomes { base, adapters, ..MeasuredOutcomes::default() };
            let subjects = std::slice::from_ref(&runner.weights);
            evaluation::store_scores(&tools, &self.request.suite, &split, (&measured, subjects))?;
        }
        Ok(())
    }

    /// Archives adapters that are worse than the base beyond doubt, except what is in use.
    async fn archive(&mut self, raced: &Race) -> Result<(), EvolutionError> {
        let kept = self.kept()?;
        let conditions = self.examiner.conditions(self.dev);
        for runner in raced.finished.iter().chain(&raced.dropped) {
            let id = &runner.weights.id;
            let looks_worse = compare(&raced.base, &runner.outcomes).difference < 0.0;
            if kept.contains(id) || !looks_worse {
                continue;
            }
            let (score, base) = self.compared_with_base(runner).await?;
            let is_worse = score.interval.1 < base.share - ARCHIVE_MARGIN;
            if (score.n_tasks as usize) < MIN_ARCHIVED || !is_worse {
                continue;
            }
            let key = self.key(&json!(["archive", id, conditions]));
            let evidence = json!({ "score": score, "base": base });
            let pair = (id.as_str(), None);
            let row = self.row(DecisionKind::Archive, key, pair, ("worse", evidence))?;
            let reason = format!(
                "worse than the base: {:.1} % (at most {:.1}) against {:.1} % on {} tasks of `{}`",
                100.0 * score.share,
                100.0 * score.interval.1,
                100.0 * base.share,
                score.n_tasks,
                self.request.suite.name,
            );
            self.decide(row, DecisionEffect::Archive(id, &reason))?;
        }
        Ok(())
    }

    /// Scores an adapter and the base on all tasks of the race, of which it may have answered few
    /// when it dropped out: below a weak base, few show nothing.
    async fn compared_with_base(
        &self,
        runner: &Runner,
    ) -> Result<(PassRate, PassRate), EvolutionError> {
        let n_tasks = rungs(self.dev.n_tasks()).last().copied().unwrap_or_default();
        let part = self.dev.clone().first(n_tasks);
        let own = self.examiner.ask(&part, Some(&runner.weights)).await?;
        let base = self.examiner.ask(&part, None).await?;
        let score = |outcomes: &[EvalOutcome]| {
            evaluation::score(&outcomes.iter().collect::<Vec<&EvalOutcome>>())
        };
        Ok((score(&own), score(&base)))
    }

    /// Lets the adapters that are ahead of the incumbent through the gate, best first.
    async fn promote(
        &mut self,
        raced: &Race,
        mut incumbent: Option<AdapterId>,
    ) -> Result<(), EvolutionError> {
        for runner in &raced.finished {
            let id = &runner.weights.id;
            let current = incumbent.as_ref().and_then(|id| raced.finisher(id));
            let before = current.map_or(&raced.base, |current| &current.outcomes);
            let place = (self.request.project.as_str(), self.base.base_digest.as_str());
            if incumbent.as_ref() == Some(id)
                || compare(before, &runner.outcomes).interval_90.0 <= 0.0
                || self.registry().is_rolled_back(place, id)?
            {
                continue;
            }
            let current = current.map(|current| &current.weights);
            let gate = self.gate((&runner.weights, id.as_str()), current).await?;
            if !gate.is_accepted() {
                continue;
            }
            let key = self.key(&json!(["promote", gate.key]));
            let pair = (id.as_str(), incumbent.as_ref());
            let row = self.row(DecisionKind::Promote, key, pair, ("project", gate.evidence))?;
            if self.decide(row, DecisionEffect::Widen(id, Scope::Project))? {
                incumbent = Some(id.clone());
            }
        }
        Ok(())
    }

    /// Returns the decision of the gate about a candidate, which is made unless it was before.
    async fn gate(
        &mut self,
        (candidate, subject): (&AdapterWeights, &str),
        incumbent: Option<&AdapterWeights>,
    ) -> Result<LedgerRow, EvolutionError> {
        let other = incumbent.map(|weights| &weights.sha256);
        let conditions = self.examiner.conditions(self.tasks.gate);
        let key = self.key(&json!(["gate", candidate.sha256, other, conditions]));
        if let Some(known) = self.registry().decision(&key)? {
            return Ok(known);
        }
        let (project, base_digest) = (&self.request.project, &self.base.base_digest);
        let number = self.registry().n_gate_tests(project, base_digest)? + 1;
        let trial = trial(&self.examiner, &self.tasks, (candidate, incumbent), number).await?;
        let decision = (trial.decision.as_str(), json!(trial));
        let pair = (subject, incumbent.map(|weights| &weights.id));
        let row = self.row(DecisionKind::Gate, key, pair, decision)?;
        self.decide(row.clone(), DecisionEffect::Nothing)?;
        Ok(row)
    }

    /// Tries merges of adapters that are good at different tasks, and stores one that is better
    /// than its best parent. It races with the others in the next round.
    async fn merge(&mut self, raced: &Race) -> Result<(), EvolutionError> {
        let conditions = [self.dev, self.tasks.gate].map(|part| self.examiner.conditions(part));
        for set in breed::parent_sets(&self.store, raced)? {
            let key = self.key(&json!(["merge", set.ingredients(), conditions]));
            if self.registry().decision(&key)?.is_none() {
                self.try_merges(&set, key).await?;
            }
        }
        self.complete_merges().await
    }

    async fn try_merges(&mut self, set: &ParentSet<'_>, key: String) -> Result<(), EvolutionError> {
        let litter = set.try_merges(&self.examiner, (&self.store, self.dev)).await?;
        let best_parent = &set.parents[0].weights;
        let (mut subject, mut decision) = (key.clone(), "rejected");
        let mut evidence = json!({ "n_parents": set.parents.len(), "tried": litter.tried });
        if let Some(Child { weights, recipe, parents }) = &litter.best {
            subject = recipe_digest(&self.base.base_digest, parents, recipe);
            evidence["parents"] = json!(parents);
            evidence["recipe"] = json!(recipe);
            let gate = self.gate((weights, &subject), Some(best_parent)).await?;
            if gate.is_accepted() {
                decision = ACCEPT;
            }
            self.examiner.evaluator.unload(weights).await;
        }
        let pair = (subject.as_str(), Some(&best_parent.id));
        let row = self.row(DecisionKind::Merge, key, pair, (decision, evidence))?;
        self.decide(row, DecisionEffect::Nothing).map(drop)
    }

    /// Stores the merges that were accepted, unless they are stored.
    async fn complete_merges(&mut self) -> Result<(), EvolutionError> {
        let project = Some(self.request.project.clone());
        let filter = LedgerFilter { project, ..LedgerFilter::default() };
        for row in self.registry().ledger(&filter, u32::MAX)? {
            if row.kind != DecisionKind::Merge
                || !row.is_accepted()
                || row.base_digest != self.base.base_digest
                || self.registry().adapter_of_recipe(&row.subject)?.is_some()
            {
                continue;
            }
            let request = MergeRequest {
                parents: stored::<Vec<ParentAdapter>>(&row, "parents")?,
                recipe: stored::<MergeRecipe>(&row, "recipe")?,
                name: None,
                is_dry_run: false,
            };
            merge(self.examiner.services, &request).await?;
        }
        Ok(())
    }

    /// Returns the digest of what a decision of this project is about.
    fn key(&self, about: &Value) -> String {
        let place = (&self.request.project, &self.base.base_digest);
        sha256(json!([place, about]).to_string().as_bytes())
    }

    fn row(
        &self,
        kind: DecisionKind,
        key: String,
        pair: (&str, Option<&AdapterId>),
        decision: (&str, Value),
    ) -> Result<LedgerRow, EvolutionError> {
        let place = (self.request.project.as_str(), self.base.base_digest.as_str());
        let row = LedgerRow::new(kind, key, place, pair, decision)?;
        Ok(LedgerRow { suite: Some(self.request.suite.name.clone()), ..row })
    }

    /// Stores a decision, and reports it if it is new. Returns whether it is.
    fn decide(
        &mut self,
        row: LedgerRow,
        effect: DecisionEffect<'_>,
    ) -> Result<bool, EvolutionError> {
        let is_new = self.registry().decide(&row, effect)?;
        if is_new {
            failpoint::pass(Failpoint::EvolutionDecided);
            self.examiner.services.report(&row.subject, &row.event());
            self.report.decisions.push(row);
        }
        Ok(is_new)
    }
}

/// Keeps the answers to tasks that both have answered.
fn in_both(one: &[EvalOutcome], other: &[EvalOutcome]) -> (Vec<EvalOutcome>, Vec<EvalOutcome>) {
    let kept = |from: &[EvalOutcome], by: &[EvalOutcome]| {
        let ids: BTreeSet<&str> = by.iter().map(|outcome| outcome.id.as_str()).collect();
        from.iter().filter(|outcome| ids.contains(outcome.id.as_str())).cloned().collect()
    };
    (kept(one, other), kept(other, one))
}

/// Decodes a part of the evidence of a decision.
fn stored<T: serde::de::DeserializeOwned>(
    row: &LedgerRow,
    field: &str,
) -> Result<T, EvolutionError> {
    serde_json::from_value(row.evidence[field].clone()).map_err(|error| {
        let text = format!("{field}: {error}");
        RegistryError::Unreadable { column: "ledger.evidence_json", text }.into()
    })
}
