//! What all conditions came to, as a table, a verdict and JSON lines.

use std::fmt::Write as _;

use crate::cli::eval;
use crate::cli::output;
use crate::evaluation::EvalOutcome;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::compare;
use crate::evaluation::score;
use crate::event::Event;
use crate::event::MemoryVerdict;
use crate::event::PairedScores;

/// The conditions, as they are printed.
const NAMES: [&str; 5] = ["BASE", "DOCUMENT", "PASSAGE", "ADAPTER", "ANOTHER'S"];
const ADAPTER: usize = 3;
const ANOTHERS: usize = 4;

const SKILL: [&str; 5] = ["T1", "T2", "T3", "T4", "T5"];
const RECALL: [&str; 3] = ["T6", "T7", "T8"];

/// Outcomes by condition, libraries one behind the other; those of the second to fifth lack some
/// tasks.
#[derive(Default)]
pub(super) struct ConditionOutcomes {
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
        let (own, anothers) = (adapters.next(), adapters.next());
        let all = [
            measured.base,
            document,
            passage,
            own.unwrap_or_default(),
            anothers.unwrap_or_default(),
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

    /// The outcomes of a condition on tasks of these groups.
    fn of(&self, condition: usize, groups: &[&str]) -> Vec<&EvalOutcome> {
        only(&self.outcomes[condition], groups)
    }

    /// The adapters against the base.
    fn verdict(&self) -> MemoryVerdict {
        let all = [&SKILL[..], &RECALL[..]].concat();
        let [before, after] = if self.outcomes[ANOTHERS].is_empty() {
            self.untaught.each_ref().map(|outcomes| only(outcomes, &all))
        } else {
            [self.of(0, &all), self.of(ANOTHERS, &all)]
        };
        let control = |name: &str| (name.to_owned(), self.against_base(ADAPTER, &[name]));
        let has = |name: &&str| !self.of(0, &[*name]).is_empty();
        MemoryVerdict {
            tasks: self.against_base(ADAPTER, &all),
            controls: ["N1", "N2"].into_iter().filter(has).map(control).collect(),
            foreign: compare(&before, &after),
        }
    }

    fn against_base(&self, condition: usize, groups: &[&str]) -> PairedScores {
        compare(&self.of(0, groups), &self.of(condition, groups))
    }

    /// A table of pass@1 in percent, the two tracks with intervals and with what was gained, and
    /// the verdict.
    pub(super) fn text(&self) -> String {
        let head = ["TASKS", "N"].into_iter().chain(NAMES).map(str::to_owned).collect();
        let mut rows = vec![head];
        let mut groups: Vec<&str> = SKILL.iter().chain(&RECALL).copied().collect();
        groups.extend(["N1", "N2"]);
        rows.extend(groups.iter().filter_map(|group| self.row(group, &[group])));
        let mut text = output::table(&rows) + "\n";
        let head = ["TRACK", "N", "WHO", "PASS@1 (95 %)", "GAINED", "LOST", "DIFFERENCE", "P"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (name, track) in [("skill", &SKILL[..]), ("recall", &RECALL[..])] {
            rows.extend(self.track(name, track));
        }
        text += &output::table(&rows);
        let verdict = self.verdict();
        let foreign = eval::compared(&verdict.foreign);
        let _infallible =
            writeln!(text, "\nN3, a library that was not taught: {} points", foreign[2]);
        let faults = verdict.faults().join("; ");
        let words = if faults.is_empty() { "memory works" } else { "memory does not work: " };
        text + words + &faults + "\n"
    }

    /// `None` where there are no such tasks.
    fn row(&self, name: &str, groups: &[&str]) -> Option<Vec<String>> {
        let share = |condition| match self.of(condition, groups).as_slice() {
            [] => "-".to_owned(),
            outcomes => format!("{:.1}", 100.0 * score(outcomes).share),
        };
        let n = self.of(0, groups).len();
        let cells = [name.to_owned(), n.to_string()].into_iter().chain((0..5).map(share));
        (n > 0).then(|| cells.collect())
    }

    fn track(&self, name: &str, groups: &[&str]) -> Vec<Vec<String>> {
        let row = |condition| {
            let outcomes = self.of(condition, groups);
            let mut row = vec![
                name.to_owned(),
                outcomes.len().to_string(),
                NAMES[condition].to_lowercase(),
                score(&outcomes).to_string(),
            ];
            if condition > 0 {
                row.extend(eval::compared(&self.against_base(condition, groups)));
            }
            (!outcomes.is_empty()).then_some(row)
        };
        (0..5).filter_map(row).collect()
    }

    /// The scores of all conditions, and the verdict.
    pub(super) fn events(&self) -> Vec<Event> {
        let all: Vec<(&str, &[EvalOutcome])> =
            NAMES.into_iter().zip(self.outcomes.iter().map(Vec::as_slice)).collect();
        let mut events = eval::score_events(&all, None);
        let against_base = self.verdict();
        let faults = against_base.faults();
        events.push(Event::BenchMemory { works: faults.is_empty(), faults, against_base });
        events
    }
}

fn only<'a>(outcomes: &'a [EvalOutcome], groups: &[&str]) -> Vec<&'a EvalOutcome> {
    outcomes.iter().filter(|outcome| groups.contains(&outcome.group.as_str())).collect()
}
