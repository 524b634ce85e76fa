//! Simulates gates: how often an adapter is promoted that is no better, and how often one that is.

use serde::Serialize;
use serde_json::json;

use super::BenchError;
use super::progress::StepCounter;
use super::progress::report_start;
use crate::evaluation::PairedAnswer;
use crate::event::PairedScores;
use crate::event::Reporter;
use crate::evolution::GateDecision;
use crate::evolution::GateRule;
use crate::hardware::Machine;
use crate::rng::SplitMix64;

/// Share of the tasks on which the two answers differ.
const DISCORDANCE: f64 = 0.15;
/// Tasks between two looks of the test that ignores how often it is looked at.
const NAIVE_PERIOD: usize = 20;

/// Options of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSimulation {
    /// Number of simulated comparisons, at least 1.
    pub n_runs: u32,
    /// Maximum number of tasks of a comparison.
    pub n_tasks: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// How an adapter compares with what it would replace.
#[derive(Debug, Clone, Copy)]
struct Contest {
    name: &'static str,
    /// Probability that the adapter gains where answers differ.
    gain: f64,
    /// Number of tasks of a family.
    family: usize,
    /// Probability that a task has the outcome of its family and not its own.
    agreement: f64,
}

const CONTESTS: [Contest; 4] = [
    Contest { name: "equal", gain: 0.5, family: 1, agreement: 0.0 },
    Contest { name: "equal, families of 4", gain: 0.5, family: 4, agreement: 0.9 },
    Contest { name: "2 gained for 1 lost", gain: 2.0 / 3.0, family: 1, agreement: 0.0 },
    Contest { name: "4 gained for 1 lost", gain: 0.8, family: 1, agreement: 0.0 },
];

/// Outcome of all runs of a contest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GateFrequencies {
    /// Name of the contest.
    pub contest: &'static str,
    /// Share of the runs in which the gate accepted the adapter.
    pub accepted: f64,
    /// Share in which it stopped because nothing was to be gained.
    pub futile: f64,
    /// Mean number of tasks until it accepted; `None` if it never did.
    pub tasks: Option<f64>,
    /// Share in which a one-sided 5 % test, taken every 20 tasks, would have accepted it.
    pub naive: f64,
}

/// Simulates the gate with its default rule.
///
/// # Errors
/// [`BenchError::Examine`] when this machine cannot be described.
pub fn evolve(
    options: GateSimulation,
    reporter: &dyn Reporter,
) -> Result<Vec<GateFrequencies>, BenchError> {
    let machine = Machine::read().map_err(BenchError::examine("this machine"))?;
    let GateSimulation { n_runs, n_tasks, seed } = options;
    let conditions = json!({ "runs": n_runs, "tasks": n_tasks, "seed": seed });
    report_start(reporter, "evolve", &machine, conditions);
    let steps = StepCounter::new(CONTESTS.len(), reporter);
    let measure = |contest: &Contest| {
        steps.next(contest.name);
        contest.frequencies(options)
    };
    Ok(CONTESTS.iter().map(measure).collect())
}

impl Contest {
    fn frequencies(&self, options: GateSimulation) -> GateFrequencies {
        let mut random = SplitMix64::new(options.seed);
        let (mut n_accepted, mut n_futile, mut n_naive, mut n_tasks) = (0, 0, 0, 0);
        for _ in 0..options.n_runs {
            let changes = self.changes(options.n_tasks, &mut random);
            let families: Vec<String> =
                (0..changes.len()).map(|task| (task / self.family).to_string()).collect();
            let pairs: Vec<PairedAnswer<'_>> = changes
                .iter()
                .zip(&families)
                .map(|(change, family)| PairedAnswer {
                    family,
                    before: *change < 0,
                    after: *change > 0,
                })
                .collect();
            match self.gated(&pairs) {
                (GateDecision::Accept, n) => (n_accepted, n_tasks) = (n_accepted + 1, n_tasks + n),
                (GateDecision::Futile, _) => n_futile += 1,
                (GateDecision::Undecided, _) => {}
            }
            n_naive += u32::from(is_accepted_naively(&pairs));
        }
        let share = |n: u32| f64::from(n) / f64::from(options.n_runs);
        #[expect(clippy::cast_precision_loss, reason = "counts of tasks")]
        let tasks = (n_accepted > 0).then(|| n_tasks as f64 / f64::from(n_accepted));
        GateFrequencies {
            contest: self.name,
            accepted: share(n_accepted),
            futile: share(n_futile),
            tasks,
            naive: share(n_naive),
        }
    }

    /// Draws the outcome of each task: 1 for gained, -1 for lost, 0 for no change.
    fn changes(&self, n_tasks: usize, random: &mut SplitMix64) -> Vec<i8> {
        let mut draw = |shared: Option<i8>| {
            if let Some(change) = shared.filter(|_| f64::from(random.uniform()) < self.agreement) {
                return change;
            }
            let differs = f64::from(random.uniform()) < DISCORDANCE;
            let gains = f64::from(random.uniform()) < self.gain;
            i8::from(differs) * if gains { 1 } else { -1 }
        };
        let families = n_tasks / self.family;
        (0..families)
            .flat_map(|_| {
                let shared = draw(None);
                (0..self.family).map(|_| draw(Some(shared))).collect::<Vec<i8>>()
            })
            .collect()
    }

    /// Lets the gate look after every family; also returns how many tasks it needed.
    fn gated(&self, pairs: &[PairedAnswer<'_>]) -> (GateDecision, usize) {
        let rule = GateRule::default();
        for n in (self.family..=pairs.len()).step_by(self.family) {
            let decision = rule.decide(&pairs[..n]);
            if decision != GateDecision::Undecided {
                return (decision, n);
            }
        }
        (GateDecision::Undecided, pairs.len())
    }
}

/// Whether a one-sided exact 5 % test accepts at any of its looks.
fn is_accepted_naively(pairs: &[PairedAnswer<'_>]) -> bool {
    (NAIVE_PERIOD..=pairs.len()).step_by(NAIVE_PERIOD).any(|n| {
        let scores = PairedScores::new(&pairs[..n]);
        scores.difference > 0.0 && scores.p_value < 0.1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_accept_what_is_better_and_little_else() {
        let options = GateSimulation { n_runs: 60, n_tasks: 200, seed: 5 };
        let [equal, families, _, better] = CONTESTS.map(|contest| contest.frequencies(options));
        assert!(equal.accepted <= 0.1 && families.accepted <= 0.1, "{equal:?} {families:?}");
        assert!(better.accepted >= 0.7, "{better:?}");
        assert!(better.tasks.is_some_and(|tasks| (20.0..200.0).contains(&tasks)), "{better:?}");
        assert_eq!(CONTESTS[0].frequencies(options), equal, "a seed gives the same figures");
    }
}
