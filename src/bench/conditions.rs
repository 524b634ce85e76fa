//! The outcomes of the memory benchmark, by who answered and with what beside the question.

use crate::evaluation::EvalOutcome;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::compare;
use crate::evaluation::score_events;
use crate::event::Event;
use crate::event::MemoryVerdict;
use crate::event::PairedScores;

/// The conditions, as they are printed.
pub const CONDITIONS: [&str; 5] = ["BASE", "DOCUMENT", "PASSAGE", "ADAPTER", "ANOTHER'S"];
const ADAPTER: usize = 3;
const FOREIGN: usize = 4;

/// Templates of tasks that use a library.
pub const SKILL: [&str; 5] = ["T1", "T2", "T3", "T4", "T5"];
/// Templates of tasks that ask for what is in a library.
pub const RECALL: [&str; 3] = ["T6", "T7", "T8"];

/// Outcomes by condition, libraries one behind the other; those of the second to fifth lack some
/// tasks.
#[derive(Debug, Default)]
pub struct ConditionOutcomes {
    outcomes: [Vec<EvalOutcome>; 5],
    /// Base and adapter on a library that no adapter was taught, where there is but one adapter.
    untaught: [Vec<EvalOutcome>; 2],
}

impl ConditionOutcomes {
    /// Adds what was measured on the tasks of one library: `measured` has its adapter and, behind
    /// it, another's.
    pub(super) fn add(
        &mut self,
        measured: MeasuredOutcomes,
        document: Vec<EvalOutcome>,
        passage: Vec<EvalOutcome>,
    ) {
        let mut adapters = measured.adapters.into_iter().map(|(_, outcomes)| outcomes);
        let (own, foreign) = (adapters.next(), adapters.next());
        let all = [
            measured.base,
            document,
            passage,
            own.unwrap_or_default(),
            foreign.unwrap_or_default(),
        ];
        for (outcomes, more) in self.outcomes.iter_mut().zip(all) {
            outcomes.extend(more);
        }
    }

    pub(super) fn add_untaught(&mut self, measured: MeasuredOutcomes) {
        let after = measured.adapters.into_iter().flat_map(|(_, outcomes)| outcomes);
        self.untaught = [measured.base, after.collect()];
    }

    /// Adds controls as `group`: the base's outcomes stand beside those of each adapter.
    pub(super) fn add_controls(&mut self, group: &str, measured: &MeasuredOutcomes) {
        let named =
            |outcome: &EvalOutcome| EvalOutcome { group: group.to_owned(), ..outcome.clone() };
        for (_, outcomes) in &measured.adapters {
            self.outcomes[0].extend(measured.base.iter().map(named));
            self.outcomes[ADAPTER].extend(outcomes.iter().map(named));
        }
    }

    /// The outcomes of a condition, by its place in [`CONDITIONS`], on tasks of these groups.
    pub fn of(&self, condition: usize, groups: &[&str]) -> Vec<&EvalOutcome> {
        only(&self.outcomes[condition], groups)
    }

    /// A condition against the base on tasks of these groups.
    pub fn against_base(&self, condition: usize, groups: &[&str]) -> PairedScores {
        compare(&self.of(0, groups), &self.of(condition, groups))
    }

    /// The adapters against the base.
    pub fn verdict(&self) -> MemoryVerdict {
        let all = [&SKILL[..], &RECALL[..]].concat();
        let [before, after] = if self.outcomes[FOREIGN].is_empty() {
            self.untaught.each_ref().map(|outcomes| only(outcomes, &all))
        } else {
            [self.of(0, &all), self.of(FOREIGN, &all)]
        };
        let control = |name: &str| (name.to_owned(), self.against_base(ADAPTER, &[name]));
        let has = |name: &&str| !self.of(0, &[*name]).is_empty();
        MemoryVerdict {
            tasks: self.against_base(ADAPTER, &all),
            controls: ["N1", "N2"].into_iter().filter(has).map(control).collect(),
            foreign: compare(&before, &after),
        }
    }

    /// The scores of all conditions, and the verdict.
    pub(super) fn events(&self) -> Vec<Event> {
        let all: Vec<(&str, &[EvalOutcome])> =
            CONDITIONS.into_iter().zip(self.outcomes.iter().map(Vec::as_slice)).collect();
        let mut events = score_events(&all, None);
        let against_base = self.verdict();
        let faults = against_base.faults();
        events.push(Event::BenchMemory { works: faults.is_empty(), faults, against_base });
        events
    }
}

fn only<'a>(outcomes: &'a [EvalOutcome], groups: &[&str]) -> Vec<&'a EvalOutcome> {
    outcomes.iter().filter(|outcome| groups.contains(&outcome.group.as_str())).collect()
}

/// The outcomes on the functions of one of two rounds.
#[derive(Debug)]
pub struct RoundScores {
    /// What is compared, for people.
    pub title: &'static str,
    /// The first that is shown: what the others are compared with.
    first: usize,
    outcomes: [Vec<EvalOutcome>; 4],
}

impl RoundScores {
    /// Whose outcomes there are.
    const WHO: [&str; 4] = ["base", "round 1", "round 2, new records", "round 2, all records"];

    /// No outcomes of either round.
    pub(super) fn both() -> [Self; 2] {
        let old = "functions of round 1, against the adapter of round 1";
        let new = "functions of round 2, and controls, against the base";
        [(old, 1), (new, 0)].map(|(title, first)| Self {
            title,
            first,
            outcomes: Default::default(),
        })
    }

    pub(super) fn add(&mut self, who: usize, outcome: EvalOutcome) {
        self.outcomes[who].push(outcome);
    }

    /// Outcomes by name; the first are what the others are compared with.
    pub fn outcomes(&self) -> Vec<(&str, &[EvalOutcome])> {
        let all = Self::WHO.into_iter().zip(self.outcomes.iter().map(Vec::as_slice));
        all.skip(self.first).collect()
    }

    /// The scores of all conditions as events, in the order of the table.
    pub(super) fn events(&self) -> Vec<Event> {
        score_events(&self.outcomes(), Some(self.title))
    }
}
