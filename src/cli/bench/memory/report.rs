//! The outcome of all conditions as tables and a verdict.

use crate::bench::ConditionOutcomes;
use crate::bench::LibraryOutcomes;
use crate::bench::MARGIN;
use crate::bench::MemoryCondition;
use crate::bench::N_RECORDS;
use crate::bench::PromptAid;
use crate::bench::RECALL;
use crate::bench::SKILL;
use crate::bench::Subject;
use crate::cli::eval;
use crate::cli::output;
use crate::evaluation::score;
use crate::event::MemoryVerdict;
use crate::event::PairedScores;

/// Renders the conditions with what they cost, the templates of tasks, the comparisons that decide,
/// each library by itself, and the verdict.
pub(super) fn text(found: &ConditionOutcomes) -> String {
    let verdict = found.verdict();
    let faults = verdict.faults().join("; ");
    let words = if faults.is_empty() { "memory works" } else { "memory does not work: " };
    format!(
        "{}\n{}\n{}\n{}\n{words}{faults}\n",
        output::table(&conditions(found)),
        output::table(&templates(found)),
        output::table(&comparisons(found, &verdict)),
        output::table(&libraries(&found.libraries)),
    )
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Builds the rows of the conditions: pass@1 with intervals, and the mean cost of an answer.
fn conditions(found: &ConditionOutcomes) -> Vec<Vec<String>> {
    let head = ["CONDITION", "SKILL (95 %)", "RECALL (95 %)", "TOKENS IN", "OUT", "SECONDS"];
    let mut rows = vec![row(head)];
    for (index, condition) in found.asked() {
        let share = |groups: &[&str]| score(&found.of(index, groups)).to_string();
        let cost = found.cost(index);
        rows.push(vec![
            condition.name.to_owned(),
            share(&SKILL),
            share(&RECALL),
            format!("{:.0}", cost.tokens_in),
            format!("{:.0}", cost.tokens_out),
            format!("{:.2}", cost.seconds),
        ]);
    }
    rows
}

/// Builds the rows of pass@1 by template, in percent, for the conditions with one library's own
/// knowledge.
fn templates(found: &ConditionOutcomes) -> Vec<Vec<String>> {
    let shown = found.asked().filter(|(_, one)| one.subject != Subject::Other);
    let shown: Vec<(usize, &MemoryCondition)> = shown.collect();
    let names = shown.iter().map(|(_, condition)| condition.name.to_uppercase());
    let mut rows = vec![row(["TASKS", "N"]).into_iter().chain(names).collect::<Vec<_>>()];
    for group in SKILL.iter().chain(&RECALL) {
        let n = found.of(0, &[group]).len();
        let share = |(index, _): &(usize, &MemoryCondition)| {
            format!("{:.1}", 100.0 * score(&found.of(*index, &[group])).share)
        };
        if n > 0 {
            rows.push(
                [(*group).to_owned(), n.to_string()]
                    .into_iter()
                    .chain(shown.iter().map(share))
                    .collect(),
            );
        }
    }
    rows
}

/// Builds the rows of the comparisons that decide the verdict.
fn comparisons(found: &ConditionOutcomes, verdict: &MemoryVerdict) -> Vec<Vec<String>> {
    let head =
        ["COMPARISON", "N", "FAMILIES", "GAINED", "LOST", "DIFFERENCE (95 %)", "P", "AT LEAST"];
    let compared = |name: &str, paired: &PairedScores, n: &str| {
        let [gained, lost, difference, p_value] = eval::compared(paired);
        let at_least = format!("{:+.1}", paired.interval_90.0 * 100.0);
        let families = paired.n_families.to_string();
        row([name, n, &families, &gained, &lost, &difference, &p_value, &at_least])
    };
    let n_tasks = &found.of(0, &[&SKILL[..], &RECALL[..]].concat()).len().to_string();
    let mut rows = vec![
        row(head),
        compared("adapter, against 8 records", &verdict.adapter, n_tasks),
        compared("adapter + 8 records, against 8 records", &verdict.both, n_tasks),
    ];
    for (name, paired) in &verdict.damage {
        rows.push(compared(&format!("{name}, against the base"), paired, n_tasks));
    }
    for (name, paired) in &verdict.controls {
        let n = found.n_controls(name).to_string();
        rows.push(compared(&format!("{name}: adapter, against the base"), paired, &n));
    }
    let margin = format!("{:.1}", -MARGIN * 100.0);
    rows.push(row(["margin of the last rows", "", "", "", "", "", "", &margin]));
    if !verdict.reader.is_empty() {
        rows.push(row([
            "the reader, against the base with the same text:",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
        ]));
    }
    rows.extend(verdict.reader.iter().map(|(name, paired)| compared(name, paired, "")));
    rows
}

/// Builds the rows of the libraries: how much the figures depend on the seed.
fn libraries(libraries: &[LibraryOutcomes]) -> Vec<Vec<String>> {
    let index = MemoryCondition::index;
    let records = PromptAid::Records(N_RECORDS);
    let base = index(Subject::Base, PromptAid::Nothing);
    let adapter = index(Subject::Own, PromptAid::Nothing);
    let in_prompt = index(Subject::Base, records);
    let both = index(Subject::Own, records);
    let head = ["SEED", "LIBRARY", "ADAPTER - BASE", "ADAPTER - 8 RECORDS", "BOTH - 8 RECORDS"];
    let mut rows = vec![row(head)];
    for library in libraries {
        let points = |pair: [usize; 2]| format!("{:+.1}", 100.0 * library.difference(pair));
        rows.push(vec![
            library.seed.to_string(),
            library.name.clone(),
            points([base, adapter]),
            points([in_prompt, adapter]),
            points([in_prompt, both]),
        ]);
    }
    rows
}
