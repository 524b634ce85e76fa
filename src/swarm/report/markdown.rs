//! Renders a report as Markdown.

use std::fmt::Write as _;

use crate::adapter::AdapterId;
use crate::evaluation::points;
use crate::event::PairedScores;
use crate::registry::LedgerRow;

use super::GenerationReport;
use super::SwarmReport;

/// Maximum causes of failures that are listed.
const MAX_CAUSES: usize = 10;

impl SwarmReport {
    /// Renders the report as Markdown, with tables and a link to the plot.
    pub fn to_markdown(&self) -> String {
        let swarm = &self.swarm;
        let mut text = format!("# Swarm {}\n\n", swarm.id);
        let reason = swarm.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let mut line = |words: String| {
            let _infallible = writeln!(text, "{words}");
        };
        line(format!("- **Tasks**: `{}`, project `{}`", self.suite, swarm.project));
        line(format!("- **Status**: {}{reason}", swarm.status.as_str()));
        line(format!("- **Time**: {}", self.times()));
        line(format!("- **Tokens**: {} read, {} generated", self.tokens_in, self.tokens_out));
        let n_tasks = self.generations.first().map_or(0, |first| first.n_tasks);
        line(format!("- **Solved**: {} of {n_tasks} tasks", self.n_solved));
        line(String::new());
        line("| Generation | Tasks | Solved | Verified by | Not solved | Errors | Left | With adapter |".to_owned());
        line("|---|---|---|---|---|---|---|---|".to_owned());
        for generation in &self.generations {
            line(row(generation));
        }
        text += &self.held_out();
        text += &self.adapters();
        text += &self.failures();
        text
    }

    /// Names the wall time and the share of each kind of work.
    fn times(&self) -> String {
        let seconds = &self.swarm.seconds;
        let total = seconds.training + seconds.evaluation + seconds.solving + seconds.idle;
        let share = |part: f64| 100.0 * part / total.max(f64::MIN_POSITIVE);
        format!(
            "{:.0} minutes: {:.0} % solving, {:.0} % training, {:.0} % evaluation, {:.1} % idle",
            total / 60.0,
            share(seconds.solving),
            share(seconds.training),
            share(seconds.evaluation),
            share(seconds.idle),
        )
    }

    fn held_out(&self) -> String {
        if self.generations.iter().all(|generation| generation.held_out.is_empty()) {
            return String::new();
        }
        let mut text = "\n## Held-out tasks\n\nNo family of these was trained on.\n\n".to_owned();
        text += "| Suite | Generation | Adapter | Tasks | Pass rate (95 %) | Against the base \
                 (95 %) | Gained, lost | p | Against the generation before |\n";
        text += "|---|---|---|---|---|---|---|---|---|\n";
        for (at, generation) in self.generations.iter().enumerate() {
            for score in &generation.held_out {
                let suite = score.label();
                if at == 0 {
                    let n_tasks = score.base.n_tasks;
                    let _infallible = writeln!(
                        text,
                        "| {suite} | base | none | {n_tasks} | {} | | | | |",
                        score.base
                    );
                }
                let (against, gained, p_value) = match score.incumbent {
                    None => Default::default(),
                    Some(_) => cells(&score.against_base),
                };
                let previous = generation.against_previous.iter().find(|(name, _)| *name == suite);
                let previous = previous.map(|(_, paired)| cells(paired).0).unwrap_or_default();
                let _infallible = writeln!(
                    text,
                    "| {suite} | {} | {} | {} | {} | {against} | {gained} | {p_value} | {previous} |",
                    generation.generation,
                    score.incumbent.as_ref().map_or("none", AdapterId::as_str),
                    score.score.n_tasks,
                    score.score,
                );
            }
        }
        text + "\n![Pass rate on held-out tasks over generations](report.svg)\n"
    }

    fn adapters(&self) -> String {
        let mut text = "\n## Adapters\n\n".to_owned();
        for generation in &self.generations {
            for adapter in &generation.adapters {
                let _infallible =
                    writeln!(text, "- generation {}: trained {adapter}", generation.generation);
            }
            for row in &generation.decisions {
                let _infallible =
                    writeln!(text, "- generation {}: {}", generation.generation, words(row));
            }
        }
        if self.generations.iter().all(|generation| generation.adapters.is_empty()) {
            text += "None was trained.\n";
        } else if !self.generations.iter().any(GenerationReport::has_promoted) {
            text += "\nNone was promoted: `rune evolve ledger` shows the evidence.\n";
        }
        text
    }

    fn failures(&self) -> String {
        if self.failures.is_empty() {
            return String::new();
        }
        let mut text = "\n## Not solved\n\nLook first at what stands first.\n\n".to_owned();
        text += "| Cause | Tasks | For example |\n|---|---|---|\n";
        for failure in self.failures.iter().take(MAX_CAUSES) {
            let show = match &failure.session_id {
                Some(id) => format!("`rune sessions show {id}`"),
                None => format!("`rune jobs show {}`", failure.job_id),
            };
            let cause = failure.cause.replace(['|', '\n'], " ");
            let _infallible = writeln!(text, "| {cause} | {} | {show} |", failure.n);
        }
        text
    }
}

fn row(generation: &GenerationReport) -> String {
    let verified: Vec<String> = generation
        .verified
        .iter()
        .map(|(word, n)| format!("{n} by {}", word.replace('_', " ")))
        .collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        generation.generation,
        generation.n_tasks,
        generation.n_solved,
        verified.join(", "),
        generation.n_unsolved,
        generation.n_errors,
        generation.n_open,
        generation.n_with_adapter,
    )
}

/// Returns difference with interval, answers gained and lost, and p-value.
fn cells(paired: &PairedScores) -> (String, String, String) {
    (
        points(paired.difference, paired.interval),
        format!("{}, {}", paired.gained, paired.lost),
        format!("{:.3}", paired.p_value),
    )
}

/// Describes a decision in one line.
fn words(row: &LedgerRow) -> String {
    let other = row.other.as_ref().map(|other| format!(" against {other}")).unwrap_or_default();
    let e_value = row.evidence["base"]["e_value"].as_f64();
    let evidence = e_value.map(|e| format!(" (e = {e:.1})")).unwrap_or_default();
    format!("{} of {}{other}: {}{evidence}", row.kind.as_str(), row.subject, row.decision)
}
