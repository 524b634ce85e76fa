//! What a run leaves: files, the session's end, the result on stdout.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::run::screen::Screen;
use crate::event::Event;
use crate::judge::TestSuite;
use crate::pipeline::Solution;
use crate::registry::Ending;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::task::SourceFile;
use crate::task::Task;
use crate::trajectory::Session;
use crate::trajectory::Status;

/// Files that are in the way of the solution.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is there already: choose another folder with --out, or overwrite it with --force", .0.display())]
pub(in crate::cli) struct InTheWay(PathBuf);

/// Where a solution goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The folder.
    pub(super) out: &'a Path,
    /// Whether files that are there give way.
    pub(super) force: bool,
}

/// Refuses early what would be refused after minutes of work.
pub(super) fn refuse_to_overwrite(
    target: &Target<'_>,
    mut paths: impl Iterator<Item = impl AsRef<Path>>,
) -> Result<(), InTheWay> {
    let taken = paths.find(|path| target.out.join(path).exists());
    match taken {
        Some(path) if !target.force => Err(InTheWay(target.out.join(path))),
        _ => Ok(()),
    }
}

/// Prints what a run would do.
pub(super) fn print_plan(
    context: &Context,
    sandbox: &Sandbox,
    task: &Task,
    paths: &[String],
) -> anyhow::Result<ExitCode> {
    let config = &context.config;
    let facilities = sandbox.facilities();
    let suite = TestSuite::of_task(task).unwrap_or_default();
    let tests = suite.test_paths();
    let plan = json!({
        "task": task.text,
        "files": paths,
        "tests": tests,
        "provider": config.run.provider.as_str(),
        "model": config.run.model,
        "phases": ["decompose", "plan", "code", "integrate", "diagnose", "repair"],
        "max_tokens": config.run.max_tokens,
        "max_seconds": config.run.max_seconds,
        "candidates": config.run.candidates,
        "repairs": config.run.repairs,
        "sandbox": { "tier": facilities.tier, "memory_cap": facilities.memory_cap.to_string(), "limits": config.sandbox },
    });
    let text = if context.json { format!("{plan}\n") } else { format!("{plan:#}\n") };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the files, ends the session, prints the result.
pub(super) fn finish(
    context: &Context,
    target: &Target<'_>,
    screen: &Screen,
    registry: &Registry,
    session: &Session,
    solution: &Solution,
) -> anyhow::Result<ExitCode> {
    let kept = context.home.join("sessions").join(&session.id);
    write(&kept, &solution.files)?;
    write(&kept, &solution.generated_tests)?;
    // Somebody may have made such files since the run began.
    let in_the_way =
        refuse_to_overwrite(target, solution.files.iter().map(|file| &file.path)).err();
    let is_written = solution.is_solved() && in_the_way.is_none();
    let folder = if is_written { target.out } else { kept.as_path() };
    if is_written {
        write(folder, &solution.files)?;
    }
    let paths: Vec<String> =
        solution.files.iter().map(|file| folder.join(&file.path).display().to_string()).collect();
    let (status, code) = match (solution.is_solved(), &solution.budget) {
        (true, _) if is_written => (Status::Solved, exit::SOLVED),
        (true, _) => (Status::Solved, exit::CONFLICT),
        (false, Some(_)) => (Status::Unsolved, exit::BUDGET),
        (false, None) => (Status::Unsolved, exit::UNSOLVED),
    };
    let exit_code = i32::from(code);
    let event = Event::SessionCompleted {
        status,
        verified_by: solution.verified_by,
        assurance: solution.assurance(),
        reason: solution.reason().to_owned(),
        exit_code,
        files: paths.clone(),
        tokens_in: solution.tokens_in,
        tokens_out: solution.tokens_out,
        seconds: solution.elapsed.as_secs_f64(),
        summary: solution.summary(),
    };
    let Solution { verified_by, .. } = *solution;
    let ending = Ending { status, verified_by, assurance: solution.assurance(), exit_code };
    registry.end_session(&session.id, &ending, &event)?;
    screen.event(&event);
    if !context.json && is_written {
        output::print(&(paths.join("\n") + "\n"))?;
    }
    if !is_written && !paths.is_empty() {
        let what = if solution.is_solved() { "solution" } else { "best candidate" };
        screen.say(&format!("the {what} is kept: {}", paths.join(", ")));
    }
    match in_the_way {
        Some(in_the_way) if solution.is_solved() => Err(in_the_way.into()),
        _ => Ok(ExitCode::from(code)),
    }
}

/// Writes each file whole or not at all.
fn write(folder: &Path, files: &[SourceFile]) -> anyhow::Result<()> {
    for file in files {
        let path = folder.join(&file.path);
        output::write_whole(&path, file.bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
