//! `rune run`.

mod session;
mod task;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::cli::context::Context;
use crate::cli::context::GlobalArgs;
use crate::cli::exit::HintedError;
use crate::cli::model_args::ModelArgs;
use crate::cli::screen;
use crate::cli::screen::Screen;

use session::SessionScreen;

/// Solve a coding task
///
/// Rune splits the task into parts, plans and writes each one, then assembles and tests the result
/// in a sandbox. Without tests, Rune writes its own and says so. The paths of the written files go
/// to stdout. A solution that is not verified stays in Rune's home.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune run \"Write primes.py with is_prime(n) and primes_below(n)\" --tests test_primes.py
  rune run --task tasks.jsonl:kv_store --out build --json
  rune run --resume 01k9x3")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct RunArgs {
    /// The task in plain words; `-` reads it from stdin
    #[arg(required_unless_present_any = ["task_file", "resume"], conflicts_with_all = ["task_file", "resume"])]
    pub(super) task: Option<String>,
    /// Read the task from a JSON Lines file with the fields `id`, `task`, `tests` (text, files or a
    /// path), `task_type` and `family`
    #[arg(long = "task", value_name = "FILE.jsonl[:ID]")]
    pub(super) task_file: Option<String>,
    /// Tests that decide whether the task is solved: a file or folder of unittest, pytest or
    /// plain-assert files
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub(super) tests: Option<PathBuf>,
    /// Output folder [default: the current folder, or that of the resumed session]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long)]
    pub(super) force: bool,
    /// Resume a session that was stopped
    #[arg(long, value_name = "ID", conflicts_with_all = ["task_file"])]
    pub(super) resume: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Adapter: an id from `rune adapters list`, `auto` for one that was measured to help, or
    /// `none`
    #[arg(long, value_name = "ID|auto|none")]
    adapter: Option<String>,
    /// What to remember: records of the nearest solved tasks and passages about the packages that
    /// the task names, the adapter, both, or nothing [default: what is near, and the adapter]
    #[arg(long, value_name = "KIND", value_parser = ["auto", "none", "records", "adapter", "both"])]
    memory: Option<String>,
    /// Folder of Python packages that the solution may import
    #[arg(long, value_name = "DIR")]
    lib: Option<String>,
    /// Document about what the task needs, such as a README or a Python module: the passages
    /// nearest to the task are shown; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(super) doc: Vec<PathBuf>,
    /// Random seed for sampling
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Maximum generated tokens per session
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_tokens: Option<i64>,
    /// Maximum seconds per session
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_seconds: Option<i64>,
    /// Maximum attempts to get an answer that can be parsed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    attempts: Option<i64>,
    /// Number of code samples when the first one fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    candidates: Option<i64>,
    /// Do not count a task as solved if its tests also pass on a stub of the solution; the default
    /// is a warning
    #[arg(long)]
    strict_tests: bool,
    /// Print the plan without running it
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Run model-written code without a sandbox; use only on a disposable machine
    #[arg(long)]
    pub(super) unsafe_no_sandbox: bool,
}

impl RunArgs {
    /// Fails if `--adapter` and `--memory` contradict each other.
    pub(super) fn check(&self) -> Result<(), HintedError> {
        match self.memory.as_deref() {
            Some(kind @ ("none" | "records")) if self.names_adapter() => {
                Err(HintedError::of_usage(
                    format!("--memory {kind} uses no adapter, but --adapter names one"),
                    "use --memory adapter, or --memory both for records as well",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether `--adapter` names an adapter.
    fn names_adapter(&self) -> bool {
        self.adapter.as_ref().is_some_and(|id| !["auto", "none"].contains(&id.as_str()))
    }

    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let text = |value: &Option<String>| value.clone().map(toml::Value::String);
        let number = |value: Option<i64>| value.map(toml::Value::Integer);
        // An adapter that is named is used alone, so that its effect can be seen.
        let memory = self.memory.clone().or(self.names_adapter().then(|| "adapter".to_owned()));
        let all = [
            ("run.adapter", text(&self.adapter)),
            ("run.lib", text(&self.lib)),
            ("memory.kind", text(&memory)),
            ("run.seed", number(self.seed)),
            ("run.max_tokens", number(self.max_tokens)),
            ("run.max_seconds", number(self.max_seconds)),
            ("run.attempts", number(self.attempts)),
            ("run.candidates", number(self.candidates)),
            ("run.strict_tests", self.strict_tests.then_some(toml::Value::Boolean(true))),
        ];
        let all = all.into_iter().filter_map(|(key, value)| Some((key, value?)));
        self.model.settings().chain(all).collect()
    }
}

/// Reports a failure to load the settings as the only JSON line of a run.
pub(super) fn refuse(globals: &GlobalArgs, error: &anyhow::Error) {
    if globals.json() {
        screen::print_only_line(&screen::failure(error));
    }
}

pub(super) fn run(context: &Context, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let shown = Arc::new(SessionScreen { screen: Screen::new(context), session: OnceLock::new() });
    let result = session::run(context, args, &shown);
    if let Err(error) = &result {
        shown.screen.fail(shown.session.get().map_or("", String::as_str), error);
    }
    shown.screen.close();
    result
}
