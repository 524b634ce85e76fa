//! Merges of adapters that are good at different tasks, tried before any of them is stored.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::adapter::AdapterId;
use crate::adapter::ParentAdapter;
use crate::evaluation::AdapterWeights;
use crate::evaluation::EvalOutcome;
use crate::evaluation::TaskSuite;
use crate::merge::MergeMethod;
use crate::merge::MergeRecipe;
use crate::merge::MergeSpace;
use crate::peft::AdapterDelta;
use crate::peft::CONFIG_FILE;
use crate::peft::WEIGHTS_FILE;
use crate::registry::AdapterStore;
use crate::registry::new_id;

use super::error::EvolutionError;
use super::examiner::Examiner;
use super::examiner::compare;
use super::examiner::n_passed;
use super::merge::compute;
use super::race::Race;
use super::race::Runner;
use super::race::race;

/// Number of sets of parents that are tried.
const MAX_SETS: usize = 3;
/// Maximum parents of a merge.
const MAX_PARENTS: usize = 4;
/// Cosine of two deltas between which a merge can gain: opposed ones cancel each other, and equal
/// ones have nothing to give.
const COSINES: std::ops::RangeInclusive<f64> = -0.1..=0.9;

/// Parents that may be worth merging, best first.
#[derive(Debug, Clone)]
pub(super) struct ParentSet<'a> {
    pub(super) parents: Vec<&'a Runner>,
    /// Number of tasks that at least one of them passes, and the best one does not.
    n_complementary: usize,
}

/// A merge that was tried, as the ledger stores it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TriedMerge {
    pub(super) recipe: MergeRecipe,
    /// Weight of each parent.
    pub(super) weight: f64,
    /// Number of tasks that were asked, and of answers that passed.
    pub(super) n_tasks: usize,
    pub(super) n_passed: usize,
}

/// Result of trying merges of one set of parents.
pub(super) struct Litter {
    /// Everything that was tried.
    pub(super) tried: Vec<TriedMerge>,
    /// The best one, if it may be better than the best parent.
    pub(super) best: Option<Child>,
    /// Holds the files of the children.
    _files: TempDir,
}

/// A merge that may be better than each of its parents.
pub(super) struct Child {
    pub(super) weights: AdapterWeights,
    pub(super) recipe: MergeRecipe,
    pub(super) parents: Vec<ParentAdapter>,
}

/// Chooses sets of parents among the adapters of a race that are better than the base there: pairs
/// that complement each other most, and all of them together.
///
/// # Errors
/// [`EvolutionError::Peft`] when an adapter cannot be read.
pub(super) fn parent_sets<'a>(
    store: &AdapterStore,
    raced: &'a Race,
) -> Result<Vec<ParentSet<'a>>, EvolutionError> {
    let is_good = |runner: &&Runner| compare(&raced.base, &runner.outcomes).interval_90.0 > 0.0;
    let good: Vec<&Runner> = raced.finished.iter().filter(is_good).take(MAX_PARENTS).collect();
    let mut sets = Vec::new();
    for (place, one) in good.iter().enumerate() {
        for other in &good[place + 1..] {
            let deltas =
                [one, other].map(|runner| AdapterDelta::read(&store.path(&runner.weights.id)));
            let [one_delta, other_delta] = deltas;
            if COSINES.contains(&one_delta?.cosine(&other_delta?)) {
                sets.push(ParentSet::new(vec![one, other]));
            }
        }
    }
    sets.retain(|set| set.n_complementary > 0);
    sets.sort_by_key(|set| std::cmp::Reverse(set.n_complementary));
    sets.truncate(MAX_SETS);
    if good.len() > 2 && sets.len() > 1 {
        sets.truncate(MAX_SETS - 1);
        sets.push(ParentSet::new(good));
    }
    Ok(sets)
}

impl<'a> ParentSet<'a> {
    fn new(mut parents: Vec<&'a Runner>) -> Self {
        parents.sort_by_key(|runner| std::cmp::Reverse(n_passed(&runner.outcomes)));
        let passed = |runner: &&'a Runner| -> BTreeSet<&'a str> {
            let passed = runner.outcomes.iter().filter(|outcome| outcome.passed);
            passed.map(|outcome| outcome.id.as_str()).collect()
        };
        let of_best = parents.first().map(passed).unwrap_or_default();
        let of_any: BTreeSet<&str> = parents.iter().flat_map(passed).collect();
        let n_complementary = of_any.difference(&of_best).count();
        Self { parents, n_complementary }
    }

    /// Returns what the merges of the set are determined by: weights and recipes.
    pub(super) fn ingredients(&self) -> Value {
        let mut weights: Vec<&str> =
            self.parents.iter().map(|runner| runner.weights.sha256.as_str()).collect();
        weights.sort_unstable();
        json!([weights, recipes(weights.len())])
    }

    /// Merges the parents by every recipe, and lets the results race against the best parent.
    ///
    /// # Errors
    /// Those of [`race`] and [`super::merge()`].
    pub(super) async fn try_merges(
        &self,
        examiner: &Examiner<'_>,
        (store, dev): (&AdapterStore, &TaskSuite),
    ) -> Result<Litter, EvolutionError> {
        let folder = tempfile::tempdir()?;
        let mut children = Vec::new();
        for (number, (weight, recipe)) in recipes(self.parents.len()).into_iter().enumerate() {
            let parent = |runner: &&Runner| ParentAdapter { id: runner.weights.id.clone(), weight };
            let parents: Vec<ParentAdapter> = self.parents.iter().map(parent).collect();
            let merged = match compute(examiner.services, store, (&parents, &recipe)).await {
                Ok(merged) => merged.files()?,
                // Another recipe may do.
                Err(EvolutionError::Merge(error)) => {
                    let method = recipe.method.as_str();
                    examiner.services.notice(format!("`{method}` is left out: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let place = folder.path().join(number.to_string());
            write(&place, (&merged.config, &merged.tensors))?;
            let id = AdapterId::parse(&new_id()?).map_err(std::io::Error::other)?;
            let weights = examiner.evaluator.load(&id, (&place, &merged.sha256())).await?;
            children.push(Child { weights, recipe, parents });
        }
        let field = children.iter().map(|child| child.weights.clone()).collect();
        let raced = race(examiner, dev, field, None).await?;
        let tried = children.iter().map(|child| child.tried(&raced)).collect();
        let best = raced.finished.first().filter(|best| self.is_surpassed_by(best));
        let best_id = best.map(|best| best.weights.id.clone());
        let mut kept = None;
        for child in children {
            if Some(&child.weights.id) == best_id.as_ref() {
                kept = Some(child);
            } else {
                examiner.evaluator.unload(&child.weights).await;
            }
        }
        Ok(Litter { tried, best: kept, _files: folder })
    }

    /// Whether a child passes more tasks than the best parent, at 90 %.
    fn is_surpassed_by(&self, child: &Runner) -> bool {
        let best = self.parents.first();
        best.is_some_and(|best| compare(&best.outcomes, &child.outcomes).interval_90.0 > 0.0)
    }
}

impl Child {
    fn tried(&self, raced: &Race) -> TriedMerge {
        let all = raced.finished.iter().chain(&raced.dropped);
        let outcomes: &[EvalOutcome] = all
            .into_iter()
            .find(|runner| runner.weights.id == self.weights.id)
            .map_or(&[], |runner| &runner.outcomes);
        TriedMerge {
            recipe: self.recipe.clone(),
            weight: self.parents.first().map_or(0.0, |parent| parent.weight),
            n_tasks: outcomes.len(),
            n_passed: n_passed(outcomes),
        }
    }
}

/// Returns the recipes that are tried for `n` parents, with the weight of each parent: sums, of
/// which task arithmetic is one, and one method each that resolves conflicts or evens out the
/// spectrum.
fn recipes(n: usize) -> Vec<(f64, MergeRecipe)> {
    #[expect(clippy::cast_precision_loss, reason = "few parents")]
    let mean = 1.0 / n.max(1) as f64;
    let of = |method: MergeMethod| MergeRecipe { method, ..MergeRecipe::default() };
    let ties = MergeRecipe { space: MergeSpace::Core, ..of(MergeMethod::Ties) };
    vec![
        (1.0, of(MergeMethod::Linear)),
        (f64::midpoint(1.0, mean), of(MergeMethod::Linear)),
        (1.0, ties),
        (1.0, of(MergeMethod::Iso)),
    ]
}

fn write(folder: &Path, (config, tensors): (&[u8], &[u8])) -> Result<(), EvolutionError> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(CONFIG_FILE), config)?;
    Ok(std::fs::write(folder.join(WEIGHTS_FILE), tensors)?)
}

#[cfg(test)]
mod tests {
    use super::super::race::tests::answers;
    use super::*;

    fn runner(id: &str, passed: &[u8]) -> Runner {
        let id = AdapterId::parse(id).unwrap();
        let weights = AdapterWeights { id, sha256: String::new(), is_stored: true };
        Runner { weights, outcomes: answers(passed.iter().map(|passed| *passed == 1)) }
    }

    #[test]
    fn parents_complement_the_best_of_them() {
        let (a, b) = (runner("a", &[1, 1, 1, 0, 0]), runner("b", &[1, 0, 0, 1, 0]));
        let set = ParentSet::new(vec![&b, &a]);
        assert_eq!(set.parents[0].weights.id.as_str(), "a", "the best one is first");
        assert_eq!(set.n_complementary, 1);
        let same = runner("c", &[1, 1, 0, 0, 0]);
        assert_eq!(ParentSet::new(vec![&a, &same]).n_complementary, 0);
    }

    #[test]
    fn a_child_must_surpass_the_best_parent() {
        let a = runner("a", &[&[1; 16][..], &[0; 16]].concat());
        let b = runner("b", &[&[0; 16][..], &[1; 15], &[0]].concat());
        let set = ParentSet::new(vec![&a, &b]);
        assert!(set.is_surpassed_by(&runner("all", &[1; 32])));
        assert!(!set.is_surpassed_by(&runner("none", &[0; 32])));
        assert!(!set.is_surpassed_by(&runner("equal", &[&[1; 16][..], &[0; 15], &[1]].concat())));
    }
}
