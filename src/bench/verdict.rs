//! Pass criteria of `rune bench memory`.

use crate::event::MemoryVerdict;
use crate::event::PairedScores;

/// Margin of the non-inferiority tests: a loss of so large a share of the tasks must be ruled out.
/// 164 tasks of HumanEval of which one in eight changes rule out 4.6 points.
pub const MARGIN: f64 = 0.05;

impl MemoryVerdict {
    /// Returns the criteria that are not met; empty if the memory works.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        // Two comparisons are looked at, so the interval of each is the wider one, of 95 %.
        if self.adapter.interval.0 <= 0.0 && self.both.interval.0 <= 0.0 {
            let points = |paired: &PairedScores| format!("{:+.1}", paired.interval.0 * 100.0);
            faults.push(format!(
                "the adapter is not shown to be better than its records in the prompt: at least {} \
                 points alone, {} with the records",
                points(&self.adapter),
                points(&self.both)
            ));
        }
        for (name, paired) in self.controls.iter().chain(&self.damage) {
            if !paired.is_not_worse_by(MARGIN) {
                faults.push(format!("{name} may lose {:.1} points", -paired.interval_90.0 * 100.0));
            }
        }
        if self.n_invented > 0 {
            let n = self.n_invented;
            faults.push(format!("{n} answers that need no library use names of one"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::PairedAnswer;

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
    fn memory_works_when_it_beats_the_records_and_harms_nothing() {
        let verdict = MemoryVerdict {
            adapter: paired(200, 80, 120),
            both: paired(200, 80, 70),
            controls: vec![("N2".to_owned(), paired(164, 80, 78))],
            damage: vec![("other's adapter + README".to_owned(), paired(200, 30, 30))],
            n_invented: 0,
            reader: Vec::new(),
        };
        assert_eq!(verdict.faults(), Vec::<String>::new());
        let bad = MemoryVerdict {
            adapter: paired(200, 80, 82),
            // Nothing is lost, but so few tasks do not rule out a loss.
            controls: vec![("N1".to_owned(), paired(20, 10, 10))],
            damage: vec![("other's adapter + README".to_owned(), paired(200, 30, 2))],
            n_invented: 3,
            ..verdict
        };
        insta::assert_snapshot!(bad.faults().join("\n"), @"
        the adapter is not shown to be better than its records in the prompt: at least -0.7 points alone, -8.2 with the records
        N1 may lose 7.7 points
        other's adapter + README may lose 18.6 points
        3 answers that need no library use names of one
        ");
    }
}
