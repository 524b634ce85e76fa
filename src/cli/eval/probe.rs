//! `rune eval probe`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::train;
use crate::evaluation;
use crate::evaluation::SuiteStore;
use crate::evaluation::TextOverlap;
use crate::event::Event;
use crate::event::Reporter;
use crate::training;

#[derive(Debug, clap::Args)]
pub(super) struct ProbeArgs {
    /// Task suite: a name, or a JSON Lines file
    #[arg(long, value_name = "NAME|FILE.jsonl")]
    suite: PathBuf,
    #[command(flatten)]
    data: train::DataArgs,
    /// Minimum length of a shared run of tokens
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    run: u16,
}

/// Prints tasks that share text with the records; exit code 1 if there are any.
pub(super) fn run(context: &Context, args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let suite =
        SuiteStore::open(&context.home)?.find((&registry, &context.project()), &args.suite)?;
    let screen = Screen::new(context);
    let records = training::collect(&registry, &args.data.request()?, None, &screen)?.records;
    let found = evaluation::overlaps(&records, suite.tasks(), args.run.into());
    if context.json {
        for overlap in found.iter().cloned() {
            let TextOverlap { task_id: task, family, is_of_answer: of_answer, run } = overlap;
            screen.report("", &Event::EvaluationOverlap { task, family, of_answer, run });
        }
    } else {
        let mut rows = vec![["TASK", "IN", "RECORD OF", "RUN"].map(str::to_owned).to_vec()];
        for one in &found {
            let place = if one.is_of_answer { "answer" } else { "question" };
            let run: String = one.run.chars().take(60).collect();
            let cells = [one.task_id.as_str(), place, one.family.as_str(), run.as_str()];
            rows.push(cells.map(|cell| output::escape_line(cell).into_owned()).to_vec());
        }
        if !found.is_empty() {
            output::print(&output::table(&rows))?;
        }
        let (n, n_tasks) = (found.len(), suite.n_tasks());
        output::print(&format!(
            "{n} of {n_tasks} tasks share {} tokens in a row with {} records\n",
            args.run,
            records.len()
        ))?;
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
