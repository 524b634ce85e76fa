//! `rune providers`.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::model_args::ModelArgs;
use crate::cli::models;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::cli::runtime;
use crate::cli::screen::Screen;
use crate::config::Config;
use crate::config::ProviderKind;
use crate::error_class::ErrorClass;
use crate::provider::ServerReport;

/// What a provider needs, and what it can do with it.
struct ProviderFacts {
    kind: ProviderKind,
    place: &'static str,
    adapters: &'static str,
    grammars: &'static str,
}

const PROVIDERS: [ProviderFacts; 6] = [
    ProviderFacts {
        kind: ProviderKind::InProcess,
        place: "in this process",
        adapters: "loaded while it runs",
        grammars: "all",
    },
    ProviderFacts {
        kind: ProviderKind::LlamaCpp,
        place: "llama-server",
        adapters: "given when it starts",
        grammars: "all",
    },
    ProviderFacts {
        kind: ProviderKind::Vllm,
        place: "vLLM",
        adapters: "loaded while it runs",
        grammars: "all",
    },
    ProviderFacts {
        kind: ProviderKind::Ollama,
        place: "Ollama",
        adapters: "`rune adapters push`",
        grammars: "JSON schemas",
    },
    ProviderFacts {
        kind: ProviderKind::OpenAi,
        place: "other servers with an OpenAI-compatible API",
        adapters: "none",
        grammars: "JSON schemas",
    },
    ProviderFacts {
        kind: ProviderKind::Scripted,
        place: "canned answers from a file",
        adapters: "none",
        grammars: "none",
    },
];

/// List inference backends, and check model servers
#[derive(Debug, clap::Subcommand)]
pub(super) enum ProvidersArgs {
    /// List the inference backends
    List,
    /// Connect to the configured model server and test the features that Rune needs
    ///
    /// Asks for short answers: a plain one, one that has to keep to a grammar, and one with log
    /// probabilities. The exit code is 4 if the server does not answer or ignores the grammar.
    Check {
        #[command(flatten)]
        model: ModelArgs,
    },
}

impl ProvidersArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        match self {
            Self::List => Vec::new(),
            Self::Check { model } => model.settings().collect(),
        }
    }
}

pub(super) fn run(context: &Context, args: &ProvidersArgs) -> anyhow::Result<ExitCode> {
    match args {
        ProvidersArgs::List => list(context),
        ProvidersArgs::Check { .. } => check(context),
    }
}

fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let configured = context.config.run.provider;
    let text = if context.json {
        let line = |facts: &ProviderFacts| {
            let ProviderFacts { kind, place, adapters, grammars } = facts;
            let (name, is_configured) = (kind.as_str(), *kind == configured);
            format!(
                "{}\n",
                json!({ "provider": name, "place": place, "adapters": adapters,
                        "grammars": grammars, "configured": is_configured })
            )
        };
        PROVIDERS.iter().map(line).collect::<Vec<_>>().concat()
    } else {
        let head = ["PROVIDER", "MODEL RUNS IN", "ADAPTERS", "GRAMMARS", ""];
        let row = |facts: &ProviderFacts| {
            let mark = if facts.kind == configured { "configured" } else { "" };
            let ProviderFacts { kind, place, adapters, grammars } = facts;
            [kind.as_str(), place, adapters, grammars, mark].map(str::to_owned).to_vec()
        };
        let rows = std::iter::once(head.map(str::to_owned).to_vec());
        output::table(&rows.chain(PROVIDERS.iter().map(row)).collect::<Vec<_>>())
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn check(context: &Context) -> anyhow::Result<ExitCode> {
    server_of(&context.config)?;
    let screen = Screen::of_document(context);
    let report = runtime::block_on(|shutdown| async move {
        let models = models::source(context);
        let work = async {
            let server = models.connect(&context.config, &screen).await?;
            server.report().await
        };
        Ok(shutdown.or_stop(work).await??)
    })?;
    let text =
        if context.json { serde_json::to_string(&report)? + "\n" } else { described(&report) };
    output::print(&text)?;
    let is_able = report.keeps_grammar != Some(false);
    Ok(if is_able { ExitCode::SUCCESS } else { ExitCode::from(ErrorClass::Provider.exit_code()) })
}

/// Refuses settings whose provider uses no server.
pub(super) fn server_of(config: &Config) -> Result<(), HintedError> {
    if config.run.provider.uses_server() {
        return Ok(());
    }
    let message = format!("the provider `{}` uses no server", config.run.provider.as_str());
    Err(HintedError::of_usage(message, "give --provider and --url, or set `run.provider`"))
}

fn described(report: &ServerReport) -> String {
    let known_by =
        if report.reads_weights { "digest of its file" } else { "digest of a greedy answer" };
    let tried = |found: Option<bool>| match found {
        Some(true) => "yes",
        Some(false) => "NO: refused or ignored",
        None => "not with this provider",
    };
    let sleeps = match report.is_sleeping {
        Some(true) => "asleep",
        Some(false) => "can sleep",
        None => "cannot sleep",
    };
    let adapters = match report.adapters.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    let lines = [
        ("server", format!("{} on {}", report.provider, report.url)),
        ("model", report.model.clone()),
        ("base", report.base_model.clone()),
        ("known by", format!("{known_by}, {:.16}", report.base_digest)),
        ("context", format!("{} tokens", report.context_length)),
        ("parallel", format!("{} requests", report.parallel)),
        ("adapters", adapters),
        ("grammars", tried(report.keeps_grammar).to_owned()),
        ("logprobs", tried(report.gives_logprobs).to_owned()),
        ("sleep", sleeps.to_owned()),
        ("first token", format!("{} ms", report.first_token_ms)),
    ];
    let line = |(name, value): (&str, String)| format!("{name:<12} {}\n", escape_line(&value));
    lines.map(line).concat()
}
