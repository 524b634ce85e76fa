//! `rune lease` and `rune wake`.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::error_class::ErrorClass;
use crate::error_class::with_causes;
use crate::lease::LeaseState;
use crate::parking;
use crate::registry::LeaseRow;

/// Show the model servers that sleep while an adapter is trained
#[derive(Debug, clap::Subcommand)]
pub(super) enum LeaseArgs {
    /// List the servers that `rune train --park` has used, with their state
    Show,
}

/// Wake model servers left asleep by a training run that has died
///
/// The next command that runs a model or trains does this by itself. Use this one for servers that
/// did not wake up at first, or that another program has left asleep.
#[derive(Debug, clap::Args)]
pub(super) struct WakeArgs {
    /// URL of the server [default: all that do not serve, or the setting server.url]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) fn run(context: &Context, args: &LeaseArgs) -> anyhow::Result<ExitCode> {
    let LeaseArgs::Show = args;
    let leases = context.registry()?.leases()?;
    let text = if context.json {
        leases.iter().map(|row| json!(row).to_string() + "\n").collect()
    } else if leases.is_empty() {
        "no server has been parked yet: `rune train --park` parks one\n".to_owned()
    } else {
        table(&leases)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(leases: &[LeaseRow]) -> String {
    let head = ["SERVER", "STATE", "SINCE", "HELD", "DETAIL"].map(str::to_owned).to_vec();
    let row = |row: &LeaseRow| {
        vec![
            row.server.clone(),
            row.state.as_str().to_owned(),
            row.since.chars().take(19).collect(),
            if row.is_held { "yes" } else { "no" }.to_owned(),
            escape_line(&row.detail).into_owned(),
        ]
    };
    output::table(&std::iter::once(head).chain(leases.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn wake(context: &Context, args: &WakeArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let asleep = registry.leases()?.into_iter().filter(|row| row.state != LeaseState::Serving);
    let mut urls: Vec<String> = match &args.url {
        Some(url) => vec![url.clone()],
        None => asleep.map(|row| row.server).collect(),
    };
    if urls.is_empty() && !context.config.server.url.is_empty() {
        urls.push(context.config.server.url.clone());
    }
    if urls.is_empty() {
        output::note("no server sleeps that Rune knows of: give --url for another one");
    }
    let screen = Arc::new(Screen::of_document(context));
    let (mut text, mut class) = (String::new(), None::<ErrorClass>);
    workflow::run_at_once(context, &registry, screen, |services| async move {
        for url in urls {
            let woken = parking::wake(&services, &url).await;
            let word = match &woken {
                Ok(true) => "awake".to_owned(),
                Ok(false) => "was awake".to_owned(),
                Err(error) => with_causes(error),
            };
            let line = if context.json {
                json!({ "server": url, "awake": woken.is_ok(), "result": word }).to_string()
            } else {
                format!("{url}: {}", escape_line(&word))
            };
            text.extend([&line, "\n"]);
            class = woken.err().map(|error| error.class()).or(class);
        }
        output::print(&text)?;
        Ok(class.map_or(ExitCode::SUCCESS, |class| ExitCode::from(class.exit_code())))
    })
}
