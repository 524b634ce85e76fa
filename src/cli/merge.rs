//! `rune merge`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::adapter::ParentAdapter;
use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::evolution;
use crate::evolution::MergeOutcome;
use crate::evolution::MergeRequest;
use crate::merge::DEFAULT_DENSITY;
use crate::merge::DEFAULT_ENERGY;
use crate::merge::MergeMethod;
use crate::merge::MergeRecipe;
use crate::merge::MergeSemantics;
use crate::merge::MergeSpace;
use crate::merge::ModuleReport;
use crate::merge::OutputSize;
use crate::merge::SignElection;

/// Merge adapters of one base model into a new adapter
///
/// The deltas `scaling * B A` are merged, never the factors, so ranks, alphas and the way in which
/// an adapter is factored may differ. The result is an adapter like any other: measure it with
/// `rune eval` before you trust it. Its id goes to stdout. The order of the adapters does not
/// matter, and the same recipe gives the same file, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune merge 01k9zz 01k9zy
  rune merge 01k9zz:0.7 01k9zy:0.3 --rank 16 --name both
  rune merge 01k9zz 01k9zy --method ties --density 0.2 --dry-run
  rune merge 01k9zz:1 --rank 4")]
pub(super) struct MergeArgs {
    /// Adapter, with its weight after a colon [default: 1 divided by the number of adapters]
    #[arg(value_name = "ID[:WEIGHT]", required = true)]
    adapters: Vec<String>,
    /// Merge method
    #[arg(long, default_value = MergeMethod::default().as_str(), value_parser = method_parser())]
    method: MergeMethod,
    /// What elementwise methods take as entries: the delta itself, or its coordinates in bases that
    /// all deltas share, which is much faster
    #[arg(long, default_value = "delta")]
    space: SpaceName,
    /// Fraction of the entries that elementwise methods keep
    #[arg(long, value_name = "FRACTION", default_value_t = DEFAULT_DENSITY)]
    density: f64,
    /// Factor of the whole result
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, allow_negative_numbers = true)]
    lambda: f64,
    /// Rank of the result, at most 256
    #[arg(long, value_name = "R", conflicts_with = "energy")]
    rank: Option<usize>,
    /// Fraction of the squared norm of each module's delta that its rank keeps; the rank is at most
    /// the sum of the adapters' ranks, which elementwise methods may need more than
    #[arg(long, value_name = "FRACTION", default_value_t = DEFAULT_ENERGY)]
    energy: f64,
    /// Random seed of `dare_linear`, `dare_ties` and `della`
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Whose definition of an elementwise method to follow
    #[arg(long, default_value = "rune")]
    semantics: SemanticsName,
    /// How the sign of an entry is elected: by the sum of the entries, or by the number of adapters
    #[arg(long, default_value = "total")]
    election: ElectionName,
    /// Name of the new adapter
    #[arg(long)]
    name: Option<String>,
    /// Project that the new adapter belongs to, if its parents belong to several
    #[arg(long)]
    project: Option<String>,
    /// Report what the merge would give, and store nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn method_parser() -> impl clap::builder::TypedValueParser<Value = MergeMethod> {
    let words = MergeMethod::ALL.map(MergeMethod::as_str);
    PossibleValuesParser::new(words).map(|word| {
        let mut methods = MergeMethod::ALL.into_iter();
        methods.find(|method| method.as_str() == word).expect("one of the possible values")
    })
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SpaceName {
    Delta,
    Core,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SemanticsName {
    Rune,
    Peft,
    Mergekit,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ElectionName {
    Total,
    Frequency,
}

impl MergeArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let project = self.project.clone().map(toml::Value::String);
        project.into_iter().map(|project| ("run.project", project)).collect()
    }

    fn request(&self) -> anyhow::Result<MergeRequest> {
        let parents = self.adapters.iter().map(|text| parent(text, self.adapters.len()));
        Ok(MergeRequest {
            parents: parents.collect::<anyhow::Result<_>>()?,
            recipe: self.recipe(),
            name: self.name.clone(),
            is_dry_run: self.dry_run,
        })
    }

    fn recipe(&self) -> MergeRecipe {
        MergeRecipe {
            method: self.method,
            space: match self.space {
                SpaceName::Delta => MergeSpace::Delta,
                SpaceName::Core => MergeSpace::Core,
            },
            density: self.density,
            lambda: self.lambda,
            size: self.rank.map_or(OutputSize::Energy(self.energy), OutputSize::Rank),
            seed: self.seed,
            semantics: match self.semantics {
                SemanticsName::Rune => MergeSemantics::Rune,
                SemanticsName::Peft => MergeSemantics::Peft,
                SemanticsName::Mergekit => MergeSemantics::Mergekit,
            },
            election: match self.election {
                ElectionName::Total => SignElection::Total,
                ElectionName::Frequency => SignElection::Frequency,
            },
        }
    }
}

/// Parses `ID` or `ID:WEIGHT`; ids have no colon.
fn parent(text: &str, n_parents: usize) -> anyhow::Result<ParentAdapter> {
    let (id, weight) = match text.split_once(':') {
        None => {
            #[expect(clippy::cast_precision_loss, reason = "adapters are few")]
            let weight = 1.0 / n_parents as f64;
            (text, weight)
        }
        Some((id, weight)) => match weight.parse::<f64>() {
            Ok(weight) if weight.is_finite() => (id, weight),
            _ => {
                let message = format!("`{weight}` in `{text}` is not a weight");
                return Err(HintedError::of_usage(message, "write `ID:0.5`").into());
            }
        },
    };
    Ok(ParentAdapter { id: AdapterId::parse(id)?, weight })
}

pub(super) fn run(context: &Context, args: &MergeArgs) -> anyhow::Result<ExitCode> {
    let request = args.request()?;
    let registry = context.registry()?;
    let screen = Arc::new(Screen::of_document(context));
    let outcome = workflow::run(context, &registry, screen.clone(), |services| async move {
        Ok(evolution::merge(&services, &request).await?)
    });
    screen.close();
    let outcome = outcome?;
    if context.json {
        output::print(&(json_of(&outcome).to_string() + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let table = output::table(&rows(&outcome.modules));
    match &outcome.id {
        None => output::print(&table)?,
        Some(id) => {
            table.lines().for_each(output::note);
            if outcome.is_known {
                output::note("this merge is in the registry already");
            }
            output::print(&format!("{id}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn json_of(outcome: &MergeOutcome) -> serde_json::Value {
    let modules: serde_json::Map<_, _> =
        outcome.modules.iter().map(|(name, report)| (name.clone(), json!(report))).collect();
    json!({ "adapter": outcome.id, "known": outcome.is_known, "modules": modules })
}

/// One row for all modules of a kind, such as `q_proj`.
fn rows(modules: &[(String, ModuleReport)]) -> Vec<Vec<String>> {
    let mut kinds: BTreeMap<&str, Vec<&ModuleReport>> = BTreeMap::new();
    for (name, report) in modules {
        kinds.entry(name.rsplit('.').next().unwrap_or(name)).or_default().push(report);
    }
    let head = ["MODULES", "N", "RANK", "CAPTURED", "ERROR", "OVERLAP OUT", "IN", "SIGNS DIFFER"];
    let head = head.map(str::to_owned).to_vec();
    std::iter::once(head).chain(kinds.iter().map(|(kind, reports)| row(kind, reports))).collect()
}

fn row(kind: &str, reports: &[&ModuleReport]) -> Vec<String> {
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let mean = |value: &dyn Fn(&ModuleReport) -> Option<f64>| {
        let values: Vec<f64> = reports.iter().filter_map(|report| value(report)).collect();
        #[expect(clippy::cast_precision_loss, reason = "modules are few")]
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if values.is_empty() { "-".to_owned() } else { percent(mean) }
    };
    let ranks = reports.iter().map(|report| report.rank);
    let (least, most) = (ranks.clone().min().unwrap_or(0), ranks.max().unwrap_or(0));
    vec![
        kind.to_owned(),
        reports.len().to_string(),
        if least == most { least.to_string() } else { format!("{least} to {most}") },
        mean(&|report| Some(report.captured)),
        mean(&|report| Some(report.error)),
        mean(&|report| Some(report.overlap?[0])),
        mean(&|report| Some(report.overlap?[1])),
        mean(&|report| report.conflict),
    ]
}
