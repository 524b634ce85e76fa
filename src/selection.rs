//! Selects the adapter, if any, for a task.
//!
//! ```text
//! all adapters -> in scope, on these weights, by BM25 -> candidates -> near the task -> bandit
//! ```
//!
//! Candidates of a project are the adapters that `rune evolve` has promoted there. A project
//! without any chooses among those that were measured: on exactly these weights, with a gain over
//! the base on a suite of enough families and no loss on any. Scores of the races of `rune evolve`
//! qualify none: they are of the tasks that it chooses by. A candidate must be near the task by
//! what it was trained on. Of the nearest ones and the base alone, Thompson sampling takes one, by
//! what they did in evaluations and in the sessions of the project.

mod bandit;

use std::collections::BTreeMap;

use serde_json::json;

use crate::adapter::AdapterId;
use crate::digest::sha256;
use crate::provider::BaseModel;
use crate::registry::AdapterQuery;
use crate::registry::Evaluation;
use crate::registry::MeasuredGain;
use crate::registry::RACE;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::SessionCounts;
use crate::similarity::NEAR;
use crate::similarity::ProfileCard;
use crate::task::Task;

use bandit::Arm;
use bandit::BanditChoice;
use bandit::TaskCounts;

/// Number of families from which the gain on a suite counts.
pub const MIN_FAMILIES: u32 = 30;
/// Number of adapters, nearest by their terms first, among which candidates are looked for.
const MAX_LOOKED_AT: u32 = 32;
/// Maximum candidates, nearest by their terms first, that are compared with the task. Those that
/// are near are the arms.
const MAX_COMPARED: usize = 5;

/// Adapter that the user requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterChoice {
    /// An adapter that was measured to help, or none.
    Auto,
    /// Use the base model alone.
    Nothing,
    /// The adapter with this id.
    Adapter(AdapterId),
}

impl AdapterChoice {
    /// Parses `auto`, `none` or an adapter id.
    ///
    /// # Errors
    /// [`crate::adapter::InvalidAdapterId`] if it is neither.
    pub fn parse(text: &str) -> Result<Self, crate::adapter::InvalidAdapterId> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::Nothing,
            id => Self::Adapter(AdapterId::parse(id)?),
        })
    }
}

/// Selected adapter with the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Id of the adapter; `None` is the base model.
    pub adapter_id: Option<AdapterId>,
    /// Reason in words, which the session records.
    pub reason: String,
    /// Probability of this selection over all seeds, `0.0..=1.0`; `None` if there was nothing to
    /// choose from.
    pub propensity: Option<f64>,
}

impl Selection {
    /// Creates the selection of the base model alone.
    pub fn none(reason: impl Into<String>) -> Self {
        Self { adapter_id: None, reason: reason.into(), propensity: None }
    }
}

/// Selects an adapter for a task of `project`; `auto` decides by `seed`, the same way every time.
///
/// # Errors
/// [`RegistryError::NotFound`] if the requested adapter does not exist;
/// [`RegistryError::DoesNotFit`] if it was trained for another base model.
pub fn select(
    registry: &Registry,
    base: &BaseModel,
    (project, task, seed): (&str, &Task, u64),
    wish: &AdapterChoice,
) -> Result<Selection, RegistryError> {
    match wish {
        AdapterChoice::Nothing => Ok(Selection::none("none: as requested")),
        AdapterChoice::Adapter(id) => {
            let adapter = registry.adapter(id)?;
            if adapter.base_model != base.base_model {
                let base_model = base.base_model.clone();
                return Err(RegistryError::DoesNotFit { id: id.clone(), base_model });
            }
            let reason = "as requested".to_owned();
            Ok(Selection { adapter_id: Some(id.clone()), reason, propensity: None })
        }
        AdapterChoice::Auto => automatic(registry, base, (project, task, seed)),
    }
}

fn automatic(
    registry: &Registry,
    base: &BaseModel,
    (project, task, seed): (&str, &Task, u64),
) -> Result<Selection, RegistryError> {
    registry.index_cards()?;
    let promoted = match registry.in_use(project, &base.base_digest)? {
        Some(None) => {
            return Ok(Selection::none("none: this project was rolled back to the base"));
        }
        Some(Some(id)) if !is_known(registry, &id)? => return unknown(registry, base, id),
        Some(Some(_)) => Some(registry.promoted(project, &base.base_digest)?),
        None => None,
    };
    let found = NearAdapters::find(registry, base, (project, task), promoted.as_deref())?;
    if found.candidates.is_empty() {
        return Ok(Selection::none(found.reason(promoted.is_some())));
    }
    let counts = registry.session_counts(project, task.task_type, &base.base_digest)?;
    let arm = |candidate: &Candidate| candidate.arm(registry, (&counts, promoted.is_some()));
    let arms = found.candidates.iter().map(arm).collect::<Result<Vec<Arm>, RegistryError>>()?;
    // With every session that was counted the draw is another one.
    let n_counted: u32 = counts.values().map(|count| count.solved + count.unsolved).sum();
    let digest = sha256(json!([seed, project, task.text, n_counted]).to_string().as_bytes());
    let seed = u64::from_str_radix(&digest[..16], 16).unwrap_or(seed);
    Ok(decided(found.candidates, bandit::choose(&arms, seed)))
}

/// Selects the adapter that a project uses, of which it is not known what it was trained on.
fn unknown(
    registry: &Registry,
    base: &BaseModel,
    id: AdapterId,
) -> Result<Selection, RegistryError> {
    let adapter = registry.adapter(&id)?;
    if adapter.archived_at.is_some() || adapter.base_model != base.base_model {
        let reason = format!("none: `{id}`, which this project uses, is archived or does not fit");
        return Ok(Selection::none(reason));
    }
    let reason = "promoted for this project; what it was trained on is not known".to_owned();
    Ok(Selection { adapter_id: Some(id), reason, propensity: None })
}

/// Adapters that may be selected for a task.
#[derive(Default)]
struct NearAdapters {
    candidates: Vec<Candidate>,
    /// The nearest one that is not near enough, with its similarity.
    refused: Option<(AdapterId, f64)>,
}

impl NearAdapters {
    /// Finds candidates: those of `promoted`, or without promotions those that were measured.
    fn find(
        registry: &Registry,
        base: &BaseModel,
        (project, task): (&str, &Task),
        promoted: Option<&[AdapterId]>,
    ) -> Result<Self, RegistryError> {
        let query = AdapterQuery {
            text: &task.text,
            base_model: &base.base_model,
            base_digest: &base.base_digest,
            project,
            task_type: task.task_type,
            promoted,
            limit: MAX_LOOKED_AT,
        };
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for id in registry.nearest_adapters(&query)? {
            let is_own = registry.adapter(&id)?.project == project;
            // A project that has promoted some has chosen among them itself.
            let group = if is_own || promoted.is_some() { &mut own } else { &mut others };
            group.push(id);
        }
        // What was made for the project comes before what is for all projects.
        let mut found = Self::default();
        for group in [own, others] {
            if found.candidates.is_empty() {
                found.add_near(registry, base, (task, promoted.is_some()), group)?;
            }
        }
        Ok(found)
    }

    /// Adds those of `ids` that qualify and are near the task. Comparing takes most of the time of
    /// a selection, so only the first ones are compared.
    fn add_near(
        &mut self,
        registry: &Registry,
        base: &BaseModel,
        (task, is_promoted): (&Task, bool),
        ids: Vec<AdapterId>,
    ) -> Result<(), RegistryError> {
        let mut n_compared = 0;
        for id in ids {
            if n_compared == MAX_COMPARED {
                break;
            }
            let evaluations = registry.fitness(Some(&id), &base.base_digest)?;
            if !is_promoted && !is_measured(&evaluations) {
                continue;
            }
            n_compared += 1;
            match similarity(registry, &id, &task.text)? {
                Some(similarity) if similarity >= NEAR => {
                    self.candidates.push(Candidate { id, similarity, evaluations });
                }
                Some(far) if self.refused.as_ref().is_none_or(|(_, best)| far > *best) => {
                    self.refused = Some((id, far));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Says why there is no candidate.
    fn reason(self, has_promoted: bool) -> String {
        match self.refused {
            Some((id, similarity)) => format!(
                "none: the task is not near those that `{id}` was trained on (similarity \
                 {similarity:.2}, below {NEAR})"
            ),
            None if has_promoted => {
                "none: the task is not near those that the promoted adapters were trained on"
                    .to_owned()
            }
            None => "none: no adapter near the task was measured to gain over the base on these \
                     weights, without a loss elsewhere"
                .to_owned(),
        }
    }
}

/// Adapter that may be selected for a task.
struct Candidate {
    id: AdapterId,
    similarity: f64,
    evaluations: Vec<Evaluation>,
}

impl Candidate {
    /// Counts what the adapter and the base have done: on the suite where the gain is surest, and
    /// in sessions of the project.
    fn arm(
        &self,
        registry: &Registry,
        (counts, is_promoted): (&BTreeMap<Option<AdapterId>, SessionCounts>, bool),
    ) -> Result<Arm, RegistryError> {
        let sessions = |id: Option<AdapterId>| counts.get(&id).copied().unwrap_or_default();
        let mut arm = Arm {
            adapter: sessions(Some(self.id.clone())).into(),
            base: sessions(None).into(),
            is_promoted,
        };
        if let Some((measured, gain)) = self.evidence()
            && let Some(base) = registry.evaluation(&gain.base_id)?
        {
            // A family is one observation, however many tasks and answers it has.
            arm.adapter.add(measured.pass_at_1, gain.n_families);
            arm.base.add(base.pass_at_1, gain.n_families);
        }
        Ok(arm)
    }

    /// Returns the evaluation with the surest gain over the base; for an adapter without any, the
    /// newest one of a race.
    fn evidence(&self) -> Option<(&Evaluation, &MeasuredGain)> {
        let of = |evaluation: &&Evaluation| is_gain(evaluation);
        let gains = self.evaluations.iter().filter(of);
        let surest = gains.max_by(|one, other| low(one).total_cmp(&low(other)));
        let raced = || self.evaluations.iter().find(|found| found.split.starts_with(RACE));
        let evaluation = surest.or_else(raced)?;
        Some((evaluation, evaluation.gain.as_ref()?))
    }
}

/// Returns the lower end of a gain.
fn low(evaluation: &Evaluation) -> f64 {
    evaluation.gain.as_ref().map_or(f64::NEG_INFINITY, |gain| gain.interval.0)
}

impl From<SessionCounts> for TaskCounts {
    fn from(counts: SessionCounts) -> Self {
        Self { passed: counts.solved.into(), failed: counts.unsolved.into() }
    }
}

impl TaskCounts {
    fn add(&mut self, share: f64, n: u32) {
        self.passed += share * f64::from(n);
        self.failed += (1.0 - share) * f64::from(n);
    }
}

fn decided(mut candidates: Vec<Candidate>, choice: BanditChoice) -> Selection {
    let BanditChoice { arm, propensity } = choice;
    let n = candidates.len();
    let Some(index) = arm else {
        let reason = format!(
            "none: the base alone may do as well (probability {propensity:.2}, among {n} adapters \
             near the task)"
        );
        return Selection { propensity: Some(propensity), ..Selection::none(reason) };
    };
    let chosen = candidates.swap_remove(index);
    let points = |share: f64| format!("{:+.1}", share * 100.0);
    let gain = chosen.evidence().map(|(one, gain)| {
        format!(
            "{} points over the base on {} tasks of `{}`; ",
            points(gain.difference),
            one.n_tasks,
            one.suite
        )
    });
    let reason = format!(
        "{}similarity {:.2}; probability {propensity:.2}, among {n} adapters near the task and none",
        gain.unwrap_or_default(),
        chosen.similarity,
    );
    Selection { adapter_id: Some(chosen.id), reason, propensity: Some(propensity) }
}

/// Returns what keeps an adapter with these evaluations, its newest ones, from being selected for
/// any task; empty if nothing does. The tasks that it was trained on must be known, too.
///
/// # Errors
/// [`RegistryError::NotFound`] if there is no such adapter.
pub fn obstacles(
    registry: &Registry,
    id: &AdapterId,
    evaluations: &[Evaluation],
) -> Result<Vec<String>, RegistryError> {
    let mut obstacles = Vec::new();
    registry.index_cards()?;
    if !is_known(registry, id)? {
        obstacles.push("the tasks that it was trained on are not known".to_owned());
    }
    if !evaluations.iter().any(is_gain) {
        obstacles.push(format!(
            "no suite of {MIN_FAMILIES} families or more on which its gain over the base is above \
             0 at the lower end"
        ));
    }
    for one in evaluations {
        if is_loss(one) {
            obstacles.push(format!("it is worse than the base on `{}` ({})", one.suite, one.split));
        }
    }
    Ok(obstacles)
}

/// Whether these evaluations qualify an adapter: a sure gain on a suite, and no sure loss on any.
fn is_measured(evaluations: &[Evaluation]) -> bool {
    evaluations.iter().any(is_gain) && !evaluations.iter().any(is_loss)
}

fn is_gain(one: &Evaluation) -> bool {
    let is_sure = |gain: &MeasuredGain| gain.n_families >= MIN_FAMILIES && gain.interval.0 > 0.0;
    !one.split.ends_with("-control")
        && !one.split.starts_with(RACE)
        && one.gain.as_ref().is_some_and(is_sure)
}

fn is_loss(one: &Evaluation) -> bool {
    !one.split.starts_with(RACE) && one.gain.as_ref().is_some_and(|gain| gain.interval.1 < 0.0)
}

/// Whether it is known what an adapter was trained on, which it is not of an imported one.
fn is_known(registry: &Registry, id: &AdapterId) -> Result<bool, RegistryError> {
    if registry.card(id)?.is_some_and(|card| card.has_tasks()) {
        return Ok(true);
    }
    let parents = registry.adapter(id)?.parents;
    for parent in &parents {
        if !is_known(registry, &parent.id)? {
            return Ok(false);
        }
    }
    Ok(!parents.is_empty())
}

/// Returns how near a task is to those that an adapter was trained on; `None` if they are not
/// known, as of an imported adapter or one that an earlier version trained.
fn similarity(
    registry: &Registry,
    id: &AdapterId,
    task: &str,
) -> Result<Option<f64>, RegistryError> {
    if let Some(card) = registry.card(id)?.filter(ProfileCard::has_tasks) {
        return Ok(Some(card.similarity(task)));
    }
    // A merged adapter was trained on what its parents were trained on, all of which must be known.
    let mut nearest = None;
    for parent in &registry.adapter(id)?.parents {
        let Some(found) = similarity(registry, &parent.id, task)? else { return Ok(None) };
        nearest = Some(nearest.map_or(found, |nearest: f64| nearest.max(found)));
    }
    Ok(nearest)
}
