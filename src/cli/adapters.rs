//! `rune adapters`.

mod push;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use anyhow::bail;
use clap::ValueEnum;
use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::adapter::ParentAdapter;
use crate::adapter::Scope;
use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::ledger;
use crate::cli::model_args::ModelArgs;
use crate::cli::models;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::cli::screen::Screen;
use crate::digest::sha256;
use crate::error_class::ErrorClass;
use crate::event::timestamp;
use crate::model;
use crate::model::Engine;
use crate::peft::AdapterDelta;
use crate::peft::PeftFiles;
use crate::provider::ModelFile;
use crate::provider::engine_options;
use crate::registry::AdapterAncestor;
use crate::registry::AdapterFilter;
use crate::registry::AdapterStore;
use crate::registry::Evaluation;
use crate::registry::LedgerFilter;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::new_id;
use crate::selection;
use crate::task::TaskType;

/// List, import, export and compare adapters
#[derive(Debug, clap::Subcommand)]
pub(super) enum AdaptersArgs {
    /// List adapters, newest first
    List {
        /// List only adapters of this project
        #[arg(long)]
        project: Option<String>,
        /// Include archived adapters
        #[arg(long)]
        all: bool,
    },
    /// Print the metadata of an adapter
    Show {
        /// Adapter id
        id: String,
    },
    /// Import a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`)
    ///
    /// The folder is copied. The base model is loaded to check that the adapter fits it. Pickled
    /// weights are refused.
    Import(ImportArgs),
    /// Export an adapter as a PEFT folder, or as a GGUF file
    Export {
        /// Adapter id
        id: String,
        /// Output folder, or with `--gguf` the output file; must not exist
        folder: PathBuf,
        /// Write a GGUF file for llama.cpp and Ollama
        #[arg(long)]
        gguf: bool,
        /// Base model of the adapter; its GGUF file determines the order of rows
        #[arg(long, requires = "gguf")]
        model: Option<String>,
    },
    /// Give an adapter to the configured model server
    ///
    /// vLLM loads it while it runs, and Ollama makes a model of it. For llama-server, its file is
    /// written to Rune's home: start the server with `--lora` and the printed path.
    /// Sessions load adapters into vLLM by themselves.
    Push {
        /// Adapter id
        id: String,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Verify the stored digest of every adapter
    Verify,
    /// Print the ancestors of an adapter
    Lineage {
        /// Adapter id
        id: String,
        /// Print a graph for Graphviz
        #[arg(long)]
        dot: bool,
    },
    /// Print whether an adapter is used and why: decisions of `rune evolve`, and its evaluations
    /// beside those of its base on the same tasks
    Why {
        /// Adapter id
        id: String,
    },
    /// Print the cosine similarity of the weight deltas of adapters: 1 for identical, 0 for
    /// unrelated
    Similarity {
        /// Adapter ids, two or more
        #[arg(value_name = "ID", required = true, num_args = 2..)]
        ids: Vec<String>,
    },
    /// Archive an adapter: its files stay, but it is no longer selected
    Archive {
        /// Adapter id
        id: String,
        /// Reason to record
        #[arg(long, default_value = "manually archived")]
        reason: String,
    },
    /// Restore an archived adapter
    Restore {
        /// Adapter id
        id: String,
    },
}

/// Arguments of `rune adapters import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// PEFT folder
    folder: PathBuf,
    /// Base model of the adapter: a name from `rune models list`, or the path of a GGUF file
    #[arg(long)]
    model: Option<String>,
    /// Name of the adapter
    #[arg(long)]
    name: Option<String>,
    /// Id of the adapter [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// Tasks that the adapter may be selected for
    #[arg(long, default_value = "project")]
    scope: ScopeName,
    /// Project that the adapter belongs to
    #[arg(long)]
    project: Option<String>,
}

/// Adapter scope, as spelled on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ScopeName {
    Task,
    Project,
    Global,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Task => Self::Task,
            ScopeName::Project => Self::Project,
            ScopeName::Global => Self::Global,
        }
    }
}

impl AdaptersArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let (model, project) = match self {
            Self::Import(ImportArgs { model, project, .. }) => (model, project),
            Self::Export { model, .. } => (model, &None),
            Self::Push { model, .. } => return model.settings().collect(),
            _ => return Vec::new(),
        };
        let set = |name, value: &Option<String>| Some((name, toml::Value::from(value.clone()?)));
        [set("run.model", model), set("run.project", project)].into_iter().flatten().collect()
    }
}

pub(super) fn run(context: &Context, args: &AdaptersArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let store = AdapterStore::open(&registry, &context.home)?;
    let text = match args {
        AdaptersArgs::List { project, all } => {
            let filter =
                AdapterFilter { project: project.clone(), base_model: None, archived: *all };
            list(context, &registry.adapters(&filter)?)?
        }
        AdaptersArgs::Show { id } => show(context, &store, &registry.adapter(&parse(id)?)?)?,
        AdaptersArgs::Import(args) => format!("{}\n", import(context, &store, args)?),
        AdaptersArgs::Export { id, folder, gguf: false, .. } => {
            store.export(&parse(id)?, folder)?;
            format!("{}\n", folder.display())
        }
        AdaptersArgs::Export { id, folder: file, gguf: true, .. } => {
            export_gguf(context, &store, &registry.adapter(&parse(id)?)?, file)?;
            format!("{}\n", file.display())
        }
        AdaptersArgs::Push { id, .. } => {
            push::push(context, &store, &registry.adapter(&parse(id)?)?)?
        }
        AdaptersArgs::Verify => return verify(context, &store),
        AdaptersArgs::Lineage { id, dot } => {
            let line = registry.lineage(&parse(id)?)?;
            if *dot { dot_graph(&line) } else { lineage(context, &line) }
        }
        AdaptersArgs::Why { id } => why(context, &registry, &registry.adapter(&parse(id)?)?)?,
        AdaptersArgs::Similarity { ids } => similarity(context, &registry, &store, ids)?,
        AdaptersArgs::Archive { id, reason } => {
            registry.archive_adapter(&parse(id)?, reason)?;
            format!("{id} archived\n")
        }
        AdaptersArgs::Restore { id } => {
            registry.restore_adapter(&parse(id)?)?;
            format!("{id} restored\n")
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn parse(id: &str) -> anyhow::Result<AdapterId> {
    Ok(AdapterId::parse(id)?)
}

fn list(context: &Context, adapters: &[Adapter]) -> anyhow::Result<String> {
    if context.json {
        return json_lines(adapters.iter());
    }
    if adapters.is_empty() {
        let hint = "`rune train` trains one, `rune adapters import` imports one";
        return Ok(format!("no adapters yet: {hint}\n"));
    }
    let rows = adapters.iter().map(|adapter| {
        vec![
            adapter.id.to_string(),
            escape_line(adapter.name.as_deref().unwrap_or("-")).into_owned(),
            adapter.source.as_str().to_owned(),
            format!("r{}", adapter.rank),
            adapter.scope.as_str().to_owned(),
            escape_line(&adapter.project).into_owned(),
            adapter.base_model.split('@').next().unwrap_or_default().to_owned(),
            if adapter.archived_at.is_some() { "archived" } else { "" }.to_owned(),
        ]
    });
    let head = ["ID", "NAME", "SOURCE", "RANK", "SCOPE", "PROJECT", "MODEL", ""];
    let head = head.map(str::to_owned).to_vec();
    Ok(output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

fn show(context: &Context, store: &AdapterStore, adapter: &Adapter) -> anyhow::Result<String> {
    if context.json {
        return json_lines(std::iter::once(adapter));
    }
    let parents = adapter.parents.iter().map(|parent| format!("{} x {}", parent.weight, parent.id));
    let archived = adapter.archived_at.as_ref().zip(adapter.archive_reason.as_ref());
    let fields = [
        ("id", adapter.id.to_string()),
        ("name", adapter.name.clone().unwrap_or_default()),
        ("source", adapter.source.as_str().to_owned()),
        ("model", adapter.base_model.clone()),
        ("base digest", adapter.base_digest.clone()),
        ("rank, alpha", format!("{}, {}", adapter.rank, adapter.alpha)),
        ("targets", adapter.target_modules.join(", ")),
        ("scope", format!("{} of project {}", adapter.scope.as_str(), adapter.project)),
        ("size", format!("{} KiB", adapter.size_bytes >> 10)),
        ("sha256", adapter.sha256.clone()),
        ("parents", parents.collect::<Vec<_>>().join(" + ")),
        ("recipe", adapter.recipe.to_string()),
        ("created", adapter.created_at.clone()),
        ("archived", archived.map(|(at, why)| format!("{at}: {why}")).unwrap_or_default()),
        ("folder", store.path(&adapter.id).display().to_string()),
    ];
    let shown = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let line = |(name, value): (&str, String)| format!("{name:<12} {}\n", escape_line(&value));
    Ok(shown.map(line).collect::<Vec<_>>().concat())
}

/// Imports a PEFT folder and returns the new adapter's id.
fn import(context: &Context, store: &AdapterStore, args: &ImportArgs) -> anyhow::Result<AdapterId> {
    let ImportArgs { folder, name, id, scope, .. } = args;
    let files = PeftFiles::read(folder)?;
    let id = match id {
        Some(id) => parse(id)?,
        None => parse(&new_id()?)?,
    };
    let ModelFile { path, hub_id } = models::file(context, &Screen::of_document(context))?;
    let engine = Engine::start(&path, &engine_options(&context.config))?;
    engine.load_adapter(folder)?;
    let facts = engine.facts();
    let config = sha256(&files.config);
    let recipe = json!({ "imported": folder.file_name().map(|name| name.to_string_lossy()), "config": config });
    let adapter = Adapter {
        id: id.clone(),
        name: name.clone(),
        project: context.project(),
        task_type: TaskType::default(),
        scope: Scope::from(*scope),
        base_model: format!("{hub_id}@{}", facts.tokenizer_digest),
        base_digest: facts.base_digest.clone(),
        recipe_digest: sha256(
            format!("import {} {config} {}", facts.base_digest, files.sha256()).as_bytes(),
        ),
        rank: files.rank(),
        alpha: files.alpha(),
        target_modules: files.target_modules.clone(),
        sha256: files.sha256(),
        size_bytes: files.tensors.len() as u64,
        source: AdapterSource::Import,
        session_id: None,
        dataset_digest: None,
        train_families: Vec::new(),
        generation: 0,
        parents: Vec::new(),
        recipe,
        created_at: timestamp(SystemTime::now()),
        archived_at: None,
        archive_reason: None,
    };
    store.publish(&adapter, &files)?;
    Ok(id)
}

/// Exports an adapter as a GGUF file. The base's own GGUF file determines the order of rows.
fn export_gguf(
    context: &Context,
    store: &AdapterStore,
    adapter: &Adapter,
    file: &Path,
) -> anyhow::Result<()> {
    let model = models::file(context, &Screen::of_document(context))?.path;
    let digest = model::identify(&model)?.tokenizer_digest;
    if adapter.base_model.split('@').nth(1) != Some(digest.as_str()) {
        let message = format!(
            "adapter `{}` was made for {}, not for this model",
            adapter.id, adapter.base_model
        );
        return Err(HintedError::new(message, "pass its base model with --model").into());
    }
    let bytes = model::lora_to_gguf(&store.path(&adapter.id), &model)?;
    let mut out =
        fs::File::create_new(file).with_context(|| format!("cannot write `{}`", file.display()))?;
    out.write_all(&bytes).with_context(|| format!("cannot write `{}`", file.display()))
}

/// Renders the evaluations of an adapter beside those of its base.
fn why(context: &Context, registry: &Registry, adapter: &Adapter) -> anyhow::Result<String> {
    let measured = registry.fitness(Some(&adapter.id), &adapter.base_digest)?;
    let beside = |one: &Evaluation| -> Result<Option<Evaluation>, RegistryError> {
        let base = one.gain.as_ref().map(|gain| registry.evaluation(&gain.base_id));
        Ok(base.transpose()?.flatten())
    };
    let base = measured.iter().map(beside).collect::<Result<Vec<_>, _>>()?;
    let rows = measured.iter().zip(&base);
    // Before a merge is stored, decisions name it by its recipe.
    let mut decisions = Vec::new();
    for subject in [adapter.id.as_str(), &adapter.recipe_digest] {
        let about = LedgerFilter { project: None, subject: Some(subject.to_owned()) };
        decisions.extend(registry.ledger(&about, u32::MAX)?);
    }
    if context.json {
        let rows = rows.map(|(one, base)| json!({ "evaluation": one, "base": base }));
        return json_lines(rows.chain(decisions.iter().map(|row| json!({ "decision": row }))));
    }
    let mut text = standing(registry, adapter, &measured)?;
    text.extend(decisions.iter().map(|row| ledger::words(row) + "\n"));
    if !measured.is_empty() {
        let rows = rows.map(|(one, base)| evidence(one, base.as_ref()));
        let head = ["SUITE", "SPLIT", "N", "FAMILIES", "ADAPTER (95 %)", "BASE (95 %)"];
        let head = head.into_iter().chain(["GAIN (90 %)", "AT"]).map(str::to_owned).collect();
        text += &output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    }
    Ok(text)
}

/// Says whether `rune run --adapter auto` may select an adapter, and otherwise why not.
fn standing(
    registry: &Registry,
    adapter: &Adapter,
    measured: &[Evaluation],
) -> Result<String, RegistryError> {
    if let Some(at) = &adapter.archived_at {
        return Ok(format!("archived {at}: it is not selected\n"));
    }
    if let Some(used) = registry.in_use(&adapter.project, &adapter.base_digest)? {
        let project = escape_line(&adapter.project);
        let named = used.as_ref().map_or("the base model alone".to_owned(), ToString::to_string);
        let promoted = registry.promoted(&adapter.project, &adapter.base_digest)?;
        return Ok(if used.as_ref() == Some(&adapter.id) {
            format!(
                "promoted: project {project} uses it, for tasks near those that it was trained on\n"
            )
        } else if promoted.contains(&adapter.id) {
            format!("promoted before {named}, beside which project {project} may still use it\n")
        } else {
            format!("not selected: project {project} uses {named}\n")
        });
    }
    if measured.is_empty() {
        let text = "not evaluated on the weights that it was trained on: `rune run --adapter auto` \
                    does not select it; measure it with `rune eval`\n";
        return Ok(text.to_owned());
    }
    let obstacles = selection::obstacles(registry, &adapter.id, measured)?;
    if obstacles.is_empty() {
        let (scope, project) = (adapter.scope.as_str(), &adapter.project);
        return Ok(format!(
            "a candidate for scope {scope} of project {project}, for tasks near those that it was \
             trained on\n"
        ));
    }
    Ok(format!("not selected: {}\n", obstacles.join("; ")))
}

/// Returns the row of an evaluation in the table of [`why`].
fn evidence(one: &Evaluation, base: Option<&Evaluation>) -> Vec<String> {
    let range = |share: f64, (low, high): (f64, f64)| {
        format!("{:.1} ({:.1} to {:.1})", share * 100.0, low * 100.0, high * 100.0)
    };
    let score = |one: &Evaluation| range(one.pass_at_1, (one.ci_low, one.ci_high));
    let gain = one.gain.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        escape_line(&one.suite).into_owned(),
        escape_line(&one.split).into_owned(),
        one.n_tasks.to_string(),
        or_dash(gain.map(|gain| gain.n_families.to_string())),
        score(one),
        or_dash(base.map(score)),
        or_dash(gain.map(|gain| range(gain.difference, gain.interval))),
        one.at.chars().take(19).collect(),
    ]
}

fn verify(context: &Context, store: &AdapterStore) -> anyhow::Result<ExitCode> {
    let mut n_adapters = 0;
    let damages = store.verify(&mut |_| n_adapters += 1)?;
    let text = if context.json {
        json_lines(
            damages.iter().map(|damage| json!({ "path": damage.path, "reason": damage.reason })),
        )?
    } else if damages.is_empty() {
        format!("{n_adapters} adapters match their stored digests\n")
    } else {
        let line = |path: &Path, reason: &str| {
            format!("{}: {}\n", escape_line(&path.display().to_string()), escape_line(reason))
        };
        damages.iter().map(|damage| line(&damage.path, &damage.reason)).collect()
    };
    output::print(&text)?;
    Ok(if damages.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(ErrorClass::Environment.exit_code())
    })
}

fn lineage(context: &Context, line: &[AdapterAncestor]) -> String {
    if context.json {
        let row = |one: &AdapterAncestor| json!({ "depth": one.depth, "adapter": one.adapter });
        return line.iter().map(|one| row(one).to_string() + "\n").collect();
    }
    let text = |one: &AdapterAncestor| {
        let indent = "  ".repeat(one.depth as usize);
        format!(
            "{indent}{} {} r{}\n",
            one.adapter.id,
            one.adapter.source.as_str(),
            one.adapter.rank
        )
    };
    line.iter().map(text).collect()
}

/// Renders ancestors as a graph for Graphviz: an arrow from each parent to its child, with the
/// weight in a merge.
fn dot_graph(line: &[AdapterAncestor]) -> String {
    let node = |one: &AdapterAncestor| {
        let adapter = &one.adapter;
        let name = adapter.name.as_deref().unwrap_or_default();
        let label =
            format!("{name}\n{}\n{} r{}", adapter.id, adapter.source.as_str(), adapter.rank);
        format!("  {} [label={}];\n", json!(adapter.id), json!(label))
    };
    let arrows = |one: &AdapterAncestor| -> String {
        let child = json!(one.adapter.id);
        let arrow = |parent: &ParentAdapter| {
            format!("  {} -> {child} [label=\"{}\"];\n", json!(parent.id), parent.weight)
        };
        one.adapter.parents.iter().map(arrow).collect()
    };
    let nodes: String = line.iter().map(node).collect();
    let arrows: String = line.iter().map(arrows).collect();
    format!("digraph lineage {{\n  node [shape=box];\n{nodes}{arrows}}}\n")
}

/// Renders a matrix of cosines, or a JSON line per pair.
fn similarity(
    context: &Context,
    registry: &Registry,
    store: &AdapterStore,
    ids: &[String],
) -> anyhow::Result<String> {
    let mut adapters = Vec::new();
    for id in ids {
        let adapter = registry.adapter(&parse(id)?)?;
        let delta = AdapterDelta::read(&store.path(&adapter.id))?;
        adapters.push((adapter, delta));
    }
    let (first, _) = &adapters[0];
    if let Some((other, _)) = adapters.iter().find(|(one, _)| one.base_model != first.base_model) {
        bail!("adapters `{}` and `{}` have different base models", first.id, other.id);
    }
    if context.json {
        let pairs = adapters
            .iter()
            .enumerate()
            .flat_map(|(index, one)| adapters[index + 1..].iter().map(move |other| (one, other)));
        return json_lines(pairs.map(|((a, delta), (b, other))| {
            json!({ "a": a.id, "b": b.id, "cosine": delta.cosine(other) })
        }));
    }
    let head = ["", "ID", "NAME"].map(str::to_owned).into_iter();
    let mut rows = vec![head.chain((1..=adapters.len()).map(|n| n.to_string())).collect()];
    for (index, (adapter, delta)) in adapters.iter().enumerate() {
        let name = adapter.name.as_deref().unwrap_or("-");
        let mut row =
            vec![(index + 1).to_string(), adapter.id.to_string(), escape_line(name).into_owned()];
        row.extend(adapters.iter().map(|(_, other)| format!("{:.3}", delta.cosine(other))));
        rows.push(row);
    }
    Ok(output::table(&rows))
}

fn json_lines<T: serde::Serialize>(items: impl Iterator<Item = T>) -> anyhow::Result<String> {
    let lines = items.map(|item| Ok(serde_json::to_string(&item)? + "\n"));
    lines.collect::<Result<String, serde_json::Error>>().context("cannot write JSON")
}
