//! A race: adapters answer more and more tasks, and those that fall behind drop out.

use crate::adapter::AdapterId;
use crate::evaluation::AdapterWeights;
use crate::evaluation::EvalOutcome;
use crate::evaluation::TaskSuite;

use super::error::EvolutionError;
use super::examiner::Examiner;
use super::examiner::compare;
use super::examiner::n_passed;

/// Numbers of tasks after which adapters may drop out.
const RUNGS: [usize; 5] = [8, 16, 32, 64, 128];

/// An adapter in a race, with its answers to the first tasks.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    pub(super) weights: AdapterWeights,
    pub(super) outcomes: Vec<EvalOutcome>,
}

/// Result of a race.
#[derive(Debug, Default)]
pub(super) struct Race {
    /// Answers of the base to all tasks of the last rung.
    pub(super) base: Vec<EvalOutcome>,
    /// Adapters that answered these as well, those that pass most first.
    pub(super) finished: Vec<Runner>,
    /// Adapters that dropped out, with their answers until then.
    pub(super) dropped: Vec<Runner>,
}

impl Race {
    /// Returns the answers of an adapter that has finished.
    pub(super) fn finisher(&self, id: &AdapterId) -> Option<&Runner> {
        self.finished.iter().find(|runner| runner.weights.id == *id)
    }
}

/// Returns the rungs for a suite of `n_tasks`; the last one has all tasks, up to 128.
pub(super) fn rungs(n_tasks: usize) -> Vec<usize> {
    let last = RUNGS[RUNGS.len() - 1].min(n_tasks);
    let below = RUNGS.into_iter().filter(|rung| *rung < last);
    below.chain((last > 0).then_some(last)).collect()
}

/// Lets adapters race on the first tasks of a suite. `stays` never drops out.
///
/// # Errors
/// Those of [`Examiner::ask`].
pub(super) async fn race(
    examiner: &Examiner<'_>,
    suite: &TaskSuite,
    field: Vec<AdapterWeights>,
    stays: Option<&AdapterId>,
) -> Result<Race, EvolutionError> {
    let start = |weights| Runner { weights, outcomes: Vec::new() };
    let mut race = Race { finished: field.into_iter().map(start).collect(), ..Race::default() };
    if race.finished.is_empty() {
        return Ok(race);
    }
    for rung in rungs(suite.n_tasks()) {
        let part = suite.clone().first(rung);
        race.base = examiner.ask(&part, None).await?;
        for runner in &mut race.finished {
            runner.outcomes = examiner.ask(&part, Some(&runner.weights)).await?;
        }
        race.finished.sort_by_key(|runner| std::cmp::Reverse(n_passed(&runner.outcomes)));
        let answers: Vec<&[EvalOutcome]> =
            race.finished.iter().map(|runner| runner.outcomes.as_slice()).collect();
        let mut is_ahead = are_ahead(&answers).into_iter();
        let (ahead, behind) = race.finished.drain(..).partition(|runner| {
            is_ahead.next().unwrap_or(true) || Some(&runner.weights.id) == stays
        });
        race.finished = ahead;
        race.dropped.extend::<Vec<Runner>>(behind);
    }
    Ok(race)
}

/// Says for each of the answers, those that pass most first, whether they stay in the race: the
/// first third does, and whatever may be as good as the first at 90 %.
fn are_ahead(answers: &[&[EvalOutcome]]) -> Vec<bool> {
    let n_best = answers.len().div_ceil(3);
    let is_ahead = |(place, outcomes): (usize, &&[EvalOutcome])| {
        place < n_best || compare(answers[0], outcomes).interval_90.1 >= 0.0
    };
    answers.iter().enumerate().map(is_ahead).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Answers to tasks of families of their own.
    pub(crate) fn answers(passed: impl IntoIterator<Item = bool>) -> Vec<EvalOutcome> {
        let answer = |(index, passed): (usize, bool)| EvalOutcome {
            id: index.to_string(),
            group: "group".to_owned(),
            is_control: false,
            family: index.to_string(),
            sample: 0,
            passed,
            assurance: None,
            answer: String::new(),
            cost: None,
            module: String::new(),
            summary: String::new(),
        };
        passed.into_iter().enumerate().map(answer).collect()
    }

    #[test]
    fn rungs_double_up_to_the_number_of_tasks() {
        assert_eq!(rungs(1000), [8, 16, 32, 64, 128]);
        assert_eq!(rungs(40), [8, 16, 32, 40]);
        assert_eq!(rungs(16), [8, 16]);
        assert_eq!(rungs(3), [3]);
        assert_eq!(rungs(0), [0; 0]);
    }

    #[test]
    fn whatever_may_be_as_good_as_the_first_stays() {
        let of = |n: usize| answers((0..32).map(|task| task < n));
        let field = [of(30), of(28), of(10), of(0)];
        let field: Vec<&[EvalOutcome]> = field.iter().map(Vec::as_slice).collect();
        assert_eq!(are_ahead(&field), [true, true, false, false]);
        let few = [answers([true, false]), answers([false, false]), answers([false, false])];
        let few: Vec<&[EvalOutcome]> = few.iter().map(Vec::as_slice).collect();
        assert_eq!(are_ahead(&few), [true; 3], "two tasks show nothing");
        assert_eq!(are_ahead(&[]), [true; 0]);
    }
}
