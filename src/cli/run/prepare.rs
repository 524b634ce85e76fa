//! What a run needs before its first question: model, provider, project.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::cli::context::Context;
use crate::cli::models;
use crate::cli::run::screen::Screen;
use crate::config::ProviderKind;
use crate::hub;
use crate::hub::Catalogue;
use crate::hub::PullOptions;
use crate::hub::Source;
use crate::model::EngineOptions;
use crate::provider::InProcess;
use crate::provider::Provider;
use crate::provider::Scripted;

/// The provider that the settings name, ready to answer. Pulls the model when it is not here.
pub(super) async fn provider(context: &Context, screen: &Screen) -> anyhow::Result<Provider> {
    let config = &context.config;
    if config.run.provider == ProviderKind::Scripted {
        let script = Path::new(&config.run.scripted);
        return Ok(Provider::Scripted(Scripted::load(script, config.engine.context)?));
    }
    let model = model(context).await?;
    screen.say(&format!("loading {}", model.0.display()));
    let engine = engine(context, model).await?;
    let facts = engine.facts();
    screen.say(&format!(
        "{} on {} threads ({}), {} MB, context {}",
        config.run.model,
        facts.n_threads,
        facts.isa.name(),
        facts.weight_bytes / 1_000_000,
        facts.context
    ));
    Ok(Provider::InProcess(engine))
}

/// Rune's own engine with this model: its file, and its name on the hub.
pub(in crate::cli) async fn engine(
    context: &Context,
    (path, hub_id): (PathBuf, String),
) -> anyhow::Result<InProcess> {
    let options = engine_options(context);
    let load = move || InProcess::load(&path, hub_id, &options);
    Ok(tokio::task::spawn_blocking(load).await??)
}

/// The engine as the settings want it.
pub(in crate::cli) fn engine_options(context: &Context) -> EngineOptions {
    let engine = &context.config.engine;
    let (context, kv_bytes) = (engine.context, engine.kv_mib << 20);
    let mut options = EngineOptions { context, kv_bytes, ..EngineOptions::default() };
    if engine.threads > 0 {
        options.n_threads = engine.threads;
    }
    options
}

/// The model's file and its name on the hub.
pub(in crate::cli) async fn model(context: &Context) -> anyhow::Result<(PathBuf, String)> {
    let name = &context.config.run.model;
    let as_path = Path::new(name);
    if as_path.extension().is_some_and(|extension| extension == "gguf") || as_path.is_file() {
        let stem = as_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok((as_path.to_owned(), stem));
    }
    let catalogue = Catalogue::embedded();
    let model = catalogue.get(name)?;
    let path = if let Some(path) = hub::path(&context.home, model) {
        path
    } else {
        let options = PullOptions {
            source: Source::Auto,
            endpoint: models::endpoint(),
            python: context.python().unwrap_or_else(|| PathBuf::from("python3")),
        };
        let report = models::quiet_reporter(context, name);
        hub::pull(&context.home, model, &options, &report).await?
    };
    Ok((path, model.base_model.clone()))
}

/// The key of the project: the setting, else the digest of the git root commit, else `none`.
pub(in crate::cli) fn project(context: &Context) -> String {
    if !context.config.run.project.is_empty() {
        return context.config.run.project.clone();
    }
    // Nothing of the repository's own configuration is run: hooks and helpers have no part in rev-list.
    let output = Command::new("git")
        .args(["-c", "core.fsmonitor=", "rev-list", "--max-parents=0", "--max-count=1", "HEAD"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if digest.is_empty() { "none".to_owned() } else { digest }
        }
        _ => "none".to_owned(),
    }
}
