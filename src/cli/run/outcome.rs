//! What a run leaves: files, the session's end, the result on stdout.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::run::Args;
use crate::cli::run::screen::Screen;
use crate::event::Event;
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

/// Refuses early what would be refused after minutes of work.
pub(super) fn refuse_to_overwrite(args: &Args, paths: &[String]) -> Result<(), InTheWay> {
    let taken = paths.iter().map(|path| args.out.join(path)).find(|path| path.exists());
    match taken {
        Some(path) if !args.force => Err(InTheWay(path)),
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
    let tests: Vec<&str> = task.tests.iter().map(|test| test.path.as_str()).collect();
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
    let text = match context.json {
        true => format!("{plan}\n"),
        false => format!("{plan:#}\n"),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the files, ends the session, prints the result.
pub(super) fn finish(
    context: &Context,
    args: &Args,
    screen: &Screen,
    registry: &Registry,
    session: &Session,
    solution: &Solution,
) -> anyhow::Result<ExitCode> {
    let kept = context.home.join("sessions").join(&session.id);
    write(&kept, &solution.files)?;
    write(&kept, &solution.generated_tests)?;
    let folder = if solution.is_solved() { args.out.as_path() } else { kept.as_path() };
    if solution.is_solved() {
        write(folder, &solution.files)?;
    }
    let paths: Vec<String> =
        solution.files.iter().map(|file| folder.join(&file.path).display().to_string()).collect();
    let (status, code) = match (solution.is_solved(), &solution.budget) {
        (true, _) => (Status::Solved, exit::SOLVED),
        (false, Some(_)) => (Status::Unsolved, exit::BUDGET),
        (false, None) => (Status::Unsolved, exit::UNSOLVED),
    };
    let exit_code = i32::from(code);
    let event = Event::SessionCompleted {
        status,
        verified_by: solution.verified_by,
        exit_code,
        files: paths.clone(),
        tokens_in: solution.tokens_in,
        tokens_out: solution.tokens_out,
        seconds: solution.elapsed.as_secs_f64(),
        summary: solution.summary(),
    };
    let ending = Ending { status, verified_by: solution.verified_by, exit_code };
    registry.end_session(&session.id, &ending, &event)?;
    screen.event(&event);
    if !context.json && solution.is_solved() {
        output::print(&paths.iter().map(|path| format!("{path}\n")).collect::<String>())?;
    }
    if !solution.is_solved() && !paths.is_empty() {
        screen.say(&format!("the best candidate is kept: {}", paths.join(", ")));
    }
    Ok(ExitCode::from(code))
}

/// Writes each file whole or not at all.
fn write(folder: &Path, files: &[SourceFile]) -> anyhow::Result<()> {
    for file in files {
        let path = folder.join(&file.path);
        let parent = path.parent().unwrap_or(folder);
        let write = || {
            fs::create_dir_all(parent)?;
            let mut staged = tempfile::NamedTempFile::new_in(parent)?;
            std::io::Write::write_all(&mut staged, file.text.as_bytes())?;
            staged.as_file().sync_all()?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            staged.as_file().set_permissions(mode)?;
            staged.persist(&path).map_err(|error| error.error).map(drop)
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
