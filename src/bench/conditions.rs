//! The conditions of the memory benchmark: who answers, and with what in front of the question.

use std::collections::BTreeSet;

use crate::evaluation::AnswerCost;
use crate::evaluation::EvalOutcome;
use crate::evaluation::compare;
use crate::evaluation::score_events;
use crate::event::ConditionCost;
use crate::event::Event;
use crate::event::MemoryVerdict;
use crate::event::PairedScores;
use crate::synthetic::is_new_to_reader;

/// Who answers the tasks of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The base model alone.
    Base,
    /// The adapter that was trained on the library.
    Own,
    /// The adapter that was trained on another library.
    Other,
    /// An adapter that was trained to read documents of any library, if one is given.
    Reader,
}

/// What stands in front of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptAid {
    /// Nothing but the question itself.
    Nothing,
    /// The library's README.
    Readme,
    /// The README's section that is nearest to the question.
    Passage,
    /// Every call of the library as code, below a comment that says what it gives.
    WorkedCalls,
    /// So many of the records that teach the library, the nearest ones, as turns of the chat.
    Records(usize),
}

/// Number of records that stand for what retrieval gives without any training.
pub const N_RECORDS: usize = 8;

/// One way of answering the tasks of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryCondition {
    /// Name in tables and events.
    pub name: &'static str,
    /// Who answers under this condition.
    pub subject: Subject,
    /// What stands in front of the question.
    pub aid: PromptAid,
}

const fn condition(name: &'static str, subject: Subject, aid: PromptAid) -> MemoryCondition {
    MemoryCondition { name, subject, aid }
}

/// All conditions in the order of the tables.
pub const CONDITIONS: [MemoryCondition; 16] = [
    condition("base", Subject::Base, PromptAid::Nothing),
    condition("README", Subject::Base, PromptAid::Readme),
    condition("passage", Subject::Base, PromptAid::Passage),
    condition("worked calls", Subject::Base, PromptAid::WorkedCalls),
    condition("1 record", Subject::Base, PromptAid::Records(1)),
    condition("4 records", Subject::Base, PromptAid::Records(4)),
    condition("8 records", Subject::Base, PromptAid::Records(N_RECORDS)),
    condition("adapter", Subject::Own, PromptAid::Nothing),
    condition("adapter + README", Subject::Own, PromptAid::Readme),
    condition("adapter + 8 records", Subject::Own, PromptAid::Records(N_RECORDS)),
    condition("other's adapter + README", Subject::Other, PromptAid::Readme),
    condition("other's adapter + 8 records", Subject::Other, PromptAid::Records(N_RECORDS)),
    condition("reader", Subject::Reader, PromptAid::Nothing),
    condition("reader + README", Subject::Reader, PromptAid::Readme),
    condition("reader + passage", Subject::Reader, PromptAid::Passage),
    condition("reader + 8 records", Subject::Reader, PromptAid::Records(N_RECORDS)),
];

impl MemoryCondition {
    /// Returns the index of a condition in [`CONDITIONS`], or of the first if there is none such.
    pub fn index(subject: Subject, aid: PromptAid) -> usize {
        let is_wanted = |one: &Self| (one.subject, one.aid) == (subject, aid);
        CONDITIONS.iter().position(is_wanted).unwrap_or_default()
    }

    /// Returns all aids, each once, in the order of the conditions.
    pub(super) fn aids() -> Vec<PromptAid> {
        let mut aids: Vec<PromptAid> = Vec::new();
        for condition in CONDITIONS {
            if !aids.contains(&condition.aid) {
                aids.push(condition.aid);
            }
        }
        aids
    }

    /// Returns the subjects that answer with `aid` in front.
    pub(super) fn subjects(aid: PromptAid) -> impl Iterator<Item = Subject> {
        CONDITIONS.into_iter().filter(move |one| one.aid == aid).map(|one| one.subject)
    }
}

/// Templates of tasks that use a library.
pub const SKILL: [&str; 5] = ["T1", "T2", "T3", "T4", "T5"];
/// Templates of tasks that ask for what is in a library.
pub const RECALL: [&str; 3] = ["T6", "T7", "T8"];

/// What was measured on the tasks of one library.
#[derive(Debug)]
pub struct LibraryOutcomes {
    /// Seed of the library, and of the training on it.
    pub seed: u64,
    /// Name of the library.
    pub name: String,
    /// Outcomes of each of [`CONDITIONS`], on the same tasks; none where there is no such adapter.
    outcomes: [Vec<EvalOutcome>; CONDITIONS.len()],
}

impl LibraryOutcomes {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        Self { seed, name: name.to_owned(), outcomes: Default::default() }
    }

    pub(super) fn set(&mut self, subject: Subject, aid: PromptAid, outcomes: Vec<EvalOutcome>) {
        self.outcomes[MemoryCondition::index(subject, aid)] = outcomes;
    }

    /// Drops tasks that could not be judged under some condition, so that all have the same tasks.
    pub(super) fn keep_common(&mut self) {
        let ids = |outcomes: &Vec<EvalOutcome>| -> BTreeSet<String> {
            outcomes.iter().map(|outcome| outcome.id.clone()).collect()
        };
        let asked = self.outcomes.iter().filter(|outcomes| !outcomes.is_empty());
        let common = asked.map(ids).reduce(|one, other| &one & &other);
        let common = common.unwrap_or_default();
        for outcomes in &mut self.outcomes {
            outcomes.retain(|outcome| common.contains(&outcome.id));
        }
    }

    /// Returns the gain of one condition over another, as a difference of shares.
    pub fn difference(&self, [before, after]: [usize; 2]) -> f64 {
        let outcomes = |index: usize| self.outcomes[index].iter().collect::<Vec<_>>();
        compare(&outcomes(before), &outcomes(after)).difference
    }
}

/// Tasks that an adapter must not change: the answers of the base, and beside them those of each
/// library's adapter and of the reader.
#[derive(Debug)]
pub(super) struct ControlOutcomes {
    pub(super) name: &'static str,
    pub(super) base: Vec<EvalOutcome>,
    pub(super) adapters: Vec<Vec<EvalOutcome>>,
    pub(super) reader: Option<Vec<EvalOutcome>>,
}

/// All outcomes of the memory benchmark.
#[derive(Debug, Default)]
pub struct ConditionOutcomes {
    /// What was measured on each library.
    pub libraries: Vec<LibraryOutcomes>,
    controls: Vec<ControlOutcomes>,
    n_invented: u32,
}

impl ConditionOutcomes {
    /// Adds answers to tasks that need no library. `is_invented` tells of an answer and the index
    /// of the adapter that gave it whether it has a name of the library that the adapter was
    /// trained on.
    pub(super) fn add_controls(
        &mut self,
        controls: ControlOutcomes,
        is_invented: impl Fn(usize, &str) -> bool,
    ) {
        for (index, outcomes) in controls.adapters.iter().enumerate() {
            let found = outcomes.iter().filter(|one| is_invented(index, &one.answer)).count();
            self.n_invented += u32::try_from(found).unwrap_or(u32::MAX);
        }
        self.controls.push(controls);
    }

    /// Returns the conditions that were asked, with their indices in [`CONDITIONS`].
    pub fn asked(&self) -> impl Iterator<Item = (usize, &'static MemoryCondition)> {
        let is_asked =
            |index: usize| self.libraries.iter().any(|library| !library.outcomes[index].is_empty());
        CONDITIONS.iter().enumerate().filter(move |(index, _)| is_asked(*index))
    }

    /// Returns the outcomes of a condition, by its index in [`CONDITIONS`], on tasks of these
    /// groups.
    pub fn of(&self, condition: usize, groups: &[&str]) -> Vec<&EvalOutcome> {
        let all = self.libraries.iter().flat_map(|library| &library.outcomes[condition]);
        all.filter(|outcome| groups.contains(&outcome.group.as_str())).collect()
    }

    /// Returns the number of answers of adapters to the controls of this name.
    pub fn n_controls(&self, name: &str) -> usize {
        let named = self.controls.iter().filter(|controls| controls.name == name);
        named.flat_map(|controls| &controls.adapters).map(Vec::len).sum()
    }

    /// Compares two conditions, by their indices, on all tasks.
    pub fn compared(&self, [before, after]: [usize; 2]) -> PairedScores {
        let all = [&SKILL[..], &RECALL[..]].concat();
        compare(&self.of(before, &all), &self.of(after, &all))
    }

    /// Returns what an answer costs in a condition, on average.
    pub fn cost(&self, condition: usize) -> ConditionCost {
        let all: Vec<AnswerCost> = self
            .libraries
            .iter()
            .flat_map(|library| &library.outcomes[condition])
            .filter_map(|outcome| outcome.cost)
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "tokens and milliseconds are few")]
        let mean = |cost: fn(&AnswerCost) -> u64| {
            all.iter().map(cost).sum::<u64>() as f64 / all.len().max(1) as f64
        };
        ConditionCost {
            condition: CONDITIONS[condition].name.to_owned(),
            tokens_in: mean(|cost| cost.tokens_in),
            tokens_out: mean(|cost| cost.tokens_out),
            seconds: mean(|cost| cost.ms) / 1000.0,
        }
    }

    /// Compares the adapters with what the same records do in the prompt, and looks for damage.
    pub fn verdict(&self) -> MemoryVerdict {
        let index = MemoryCondition::index;
        let records = PromptAid::Records(N_RECORDS);
        let damage = [PromptAid::Readme, records].map(|aid| {
            let other = index(Subject::Other, aid);
            (CONDITIONS[other].name.to_owned(), self.compared([index(Subject::Base, aid), other]))
        });
        MemoryVerdict {
            adapter: self
                .compared([index(Subject::Base, records), index(Subject::Own, PromptAid::Nothing)]),
            both: self.compared([index(Subject::Base, records), index(Subject::Own, records)]),
            controls: self.controls.iter().map(ControlOutcomes::compared).collect(),
            damage: damage.into_iter().collect(),
            n_invented: self.n_invented,
            reader: self.reader(),
        }
    }

    /// Compares the reader with the base, with the same text in front; then on tasks that need no
    /// library. Tasks about operations that no document teaches are compared by themselves as well.
    fn reader(&self) -> Vec<(String, PairedScores)> {
        let mut compared = Vec::new();
        for (index, condition) in self.asked().filter(|(_, one)| one.subject == Subject::Reader) {
            let base = MemoryCondition::index(Subject::Base, condition.aid);
            compared.push((condition.name.to_owned(), self.compared([base, index])));
            if condition.aid == PromptAid::Readme {
                let of_new = |index: usize| {
                    let all = self.of(index, &SKILL).into_iter();
                    all.filter(|one| is_new_to_reader(&one.family)).collect::<Vec<_>>()
                };
                let name = format!("{}, new operations", condition.name);
                compared.push((name, compare(&of_new(base), &of_new(index))));
            }
        }
        for controls in &self.controls {
            if let Some(reader) = &controls.reader {
                let [before, after] =
                    [&controls.base, reader].map(|all| all.iter().collect::<Vec<_>>());
                compared.push((format!("reader on {}", controls.name), compare(&before, &after)));
            }
        }
        compared
    }

    /// Returns the scores of all conditions, and the verdict.
    pub(super) fn events(&self) -> Vec<Event> {
        let of = |(index, condition): (usize, &MemoryCondition)| {
            let outcomes = self.libraries.iter().flat_map(|library| &library.outcomes[index]);
            (condition.name, outcomes.cloned().collect::<Vec<EvalOutcome>>())
        };
        let all: Vec<(&str, Vec<EvalOutcome>)> = self.asked().map(of).collect();
        let slices: Vec<(&str, &[EvalOutcome])> =
            all.iter().map(|(name, outcomes)| (*name, outcomes.as_slice())).collect();
        let mut events = score_events(&slices, None);
        let verdict = self.verdict();
        let faults = verdict.faults();
        let costs = self.asked().map(|(condition, _)| self.cost(condition)).collect();
        let (works, verdict) = (faults.is_empty(), Box::new(verdict));
        events.push(Event::BenchMemory { works, faults, verdict, costs });
        events
    }
}

impl ControlOutcomes {
    /// Compares all adapters with the base, whose answers stand beside those of each. Its families
    /// are counted once.
    fn compared(&self) -> (String, PairedScores) {
        let before: Vec<&EvalOutcome> = self.adapters.iter().flat_map(|_| &self.base).collect();
        let after: Vec<&EvalOutcome> = self.adapters.iter().flatten().collect();
        (self.name.to_owned(), compare(&before, &after))
    }
}
