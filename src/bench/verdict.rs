//! Pass criteria of `rune bench memory`.

use crate::event::MemoryVerdict;

/// Minimum fraction of tasks gained.
const LEAST_GAIN: f64 = 0.20;
/// Upper bound of McNemar's p value, exclusive.
const P_VALUE: f64 = 0.01;
/// Upper bound of the fraction of controls lost, exclusive.
const LOSS: f64 = 0.02;
/// Upper bound of the fraction of another library's tasks gained, exclusive. A larger gain would
/// mean that the adapter learned the form of the tasks rather than the library.
const LIFT: f64 = 0.05;

impl MemoryVerdict {
    /// Returns the criteria that are not met; empty if the memory works.
    pub fn faults(&self) -> Vec<String> {
        let points = |share: f64| format!("{:.1} points", share * 100.0);
        let mut faults = Vec::new();
        if self.tasks.difference < LEAST_GAIN {
            let (gain, least) = (points(self.tasks.difference), points(LEAST_GAIN));
            faults.push(format!("the gain is {gain}, less than {least}"));
        }
        if self.tasks.p_value >= P_VALUE {
            faults.push(format!("p is {:.3}, not below {P_VALUE}", self.tasks.p_value));
        }
        for (name, control) in &self.controls {
            if -control.difference >= LOSS {
                faults.push(format!("{name} loses {}", points(-control.difference)));
            }
        }
        if self.foreign.difference >= LIFT {
            let gain = points(self.foreign.difference);
            faults.push(format!("it gains {gain} on a library that it was not taught"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use crate::evaluation::PairedAnswer;
    use crate::event::PairedScores;

    use super::*;

    /// `n` tasks of which the first `before` and the first `after` pass.
    fn paired(n: usize, before: usize, after: usize) -> PairedScores {
        let names: Vec<String> = (0..n).map(|task| task.to_string()).collect();
        let pairs = names.iter().enumerate().map(|(i, family)| PairedAnswer {
            family,
            before: i < before,
            after: i < after,
        });
        PairedScores::new(&pairs.collect::<Vec<_>>())
    }

    #[test]
    fn memory_works_when_tasks_are_gained_and_nothing_else_changes() {
        let verdict = MemoryVerdict {
            tasks: paired(100, 0, 30),
            controls: vec![("N1".to_owned(), paired(100, 50, 49))],
            foreign: paired(100, 0, 4),
        };
        assert_eq!(verdict.faults(), Vec::<String>::new());
        let few = MemoryVerdict { tasks: paired(4, 0, 4), ..verdict.clone() };
        assert_eq!(few.faults(), ["p is 0.125, not below 0.01"]);
        let bad = MemoryVerdict {
            tasks: paired(100, 0, 19),
            controls: vec![("N2".to_owned(), paired(100, 50, 48))],
            foreign: paired(100, 0, 5),
        };
        let said = bad.faults().join("; ");
        let wanted = "the gain is 19.0 points, less than 20.0 points; N2 loses 2.0 points; it gains 5.0 points on a \
                      library that it was not taught";
        assert_eq!(said, wanted);
    }
}
