//! `rune evolve`.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use crate::adapter::AdapterId;
use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::error_class::ErrorClass;
use crate::evolution;
use crate::evolution::ReplayOutcome;

/// Rebuild adapters from their records
#[derive(Debug, clap::Subcommand)]
pub(super) enum EvolveArgs {
    /// Rebuild a merged adapter from its parents, and compare it byte for byte; exit code 1 if it
    /// differs
    Replay {
        /// Adapter id
        id: String,
    },
}

pub(super) fn run(context: &Context, args: &EvolveArgs) -> anyhow::Result<ExitCode> {
    match args {
        EvolveArgs::Replay { id } => replay(context, &AdapterId::parse(id)?),
    }
}

fn replay(context: &Context, id: &AdapterId) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let screen = Arc::new(Screen::of_document(context));
    let outcome = workflow::run(context, &registry, screen.clone(), |services| async move {
        Ok(evolution::replay(&services, id).await?)
    });
    screen.close();
    let ReplayOutcome { stored, rebuilt, is_identical } = outcome?;
    if context.json {
        let line = json!({ "adapter": id, "identical": is_identical, "stored": stored, "rebuilt": rebuilt });
        output::print(&format!("{line}\n"))?;
    } else if is_identical {
        output::print(&format!("{id} is identical to its rebuilt file, {stored}\n"))?;
    } else {
        output::print(&format!("{id} differs: {stored} is stored, {rebuilt} was rebuilt\n"))?;
    }
    let code = if is_identical { 0 } else { ErrorClass::Unsolved.exit_code() };
    Ok(ExitCode::from(code))
}
