//! The outcome of all conditions as a table and a verdict.

use std::fmt::Write as _;

use crate::bench::CONDITIONS;
use crate::bench::ConditionOutcomes;
use crate::bench::RECALL;
use crate::bench::SKILL;
use crate::cli::eval;
use crate::cli::output;
use crate::evaluation::score;

/// A table of pass@1 in percent, the two tracks with intervals and with what was gained, and
/// the verdict.
pub(super) fn text(found: &ConditionOutcomes) -> String {
    let head = ["TASKS", "N"].into_iter().chain(CONDITIONS).map(str::to_owned).collect();
    let mut rows = vec![head];
    let mut groups: Vec<&str> = SKILL.iter().chain(&RECALL).copied().collect();
    groups.extend(["N1", "N2"]);
    rows.extend(groups.iter().filter_map(|group| row(found, group, &[group])));
    let mut text = output::table(&rows) + "\n";
    let head = ["TRACK", "N", "WHO", "PASS@1 (95 %)", "GAINED", "LOST", "DIFFERENCE", "P"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, track) in [("skill", &SKILL[..]), ("recall", &RECALL[..])] {
        rows.extend(track_rows(found, name, track));
    }
    text += &output::table(&rows);
    let verdict = found.verdict();
    let foreign = eval::compared(&verdict.foreign);
    let _infallible = writeln!(text, "\nN3, a library that was not taught: {} points", foreign[2]);
    let faults = verdict.faults().join("; ");
    let words = if faults.is_empty() { "memory works" } else { "memory does not work: " };
    text + words + &faults + "\n"
}

/// `None` where there are no such tasks.
fn row(found: &ConditionOutcomes, name: &str, groups: &[&str]) -> Option<Vec<String>> {
    let share = |condition| match found.of(condition, groups).as_slice() {
        [] => "-".to_owned(),
        outcomes => format!("{:.1}", 100.0 * score(outcomes).share),
    };
    let n = found.of(0, groups).len();
    let cells = [name.to_owned(), n.to_string()].into_iter().chain((0..5).map(share));
    (n > 0).then(|| cells.collect())
}

fn track_rows(found: &ConditionOutcomes, name: &str, groups: &[&str]) -> Vec<Vec<String>> {
    let row = |condition| {
        let outcomes = found.of(condition, groups);
        let mut row = vec![
            name.to_owned(),
            outcomes.len().to_string(),
            CONDITIONS[condition].to_lowercase(),
            score(&outcomes).to_string(),
        ];
        if condition > 0 {
            row.extend(eval::compared(&found.against_base(condition, groups)));
        }
        (!outcomes.is_empty()).then_some(row)
    };
    (0..5).filter_map(row).collect()
}
