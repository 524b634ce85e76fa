//! [`RoundScores`]: what a second round of training gains, and what it forgets.

use crate::evaluation::EvalOutcome;
use crate::evaluation::score_events;
use crate::event::Event;

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
