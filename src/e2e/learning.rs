//! Steps about adapters: train, evaluate, merge, evolve.

use serde_json::Value;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::event::DecisionKind;
use crate::peft::PeftFiles;
use crate::peft::write_factors;
use crate::registry::AdapterFilter;
use crate::registry::LedgerFilter;

use super::binary::RuneBinary;
use super::binary::argument;
use super::course::Course;
use super::course::PROJECT;
use super::report::StepFailure;
use super::report::StepResult;
use super::report::ensure;
use super::tasks::Lesson;

/// Steps of a training whose result is compared byte for byte.
pub(super) const SHORT_STEPS: &str = "3";
/// Steps of a training in the profile `smoke`.
const SMOKE_STEPS: &str = "36";
/// Group of the tasks that tell whether a library was learned.
const LEARNED: &str = "T1";
/// Generated tokens for each task, of which right answers need few.
const MAX_TOKENS: &str = "96";
/// Name of the broken adapter.
const BROKEN: &str = "broken";
/// Factor of a broken adapter's deltas: nothing sensible comes out of the model.
const BREAK: f32 = -40.0;

impl Course<'_> {
    pub(super) async fn train(&mut self, has_fault: bool) -> StepResult {
        let first = self.short_training("6").await?;
        let again = self.short_training(if has_fault { "7" } else { "6" }).await?;
        ensure(first.sha256 == again.sha256, || "two trainings gave two files".to_owned())?;
        let mut figures = vec![format!("twice the same file, {}", &first.sha256[..12])];
        let mut adapters = Vec::new();
        for lesson in &self.lessons {
            let (name, dataset) = (lesson.library.name(), argument(&lesson.dataset));
            let mut args = vec!["train", "--dataset", &dataset, "--name", name];
            if self.is_smoke() {
                args.extend(["--rehearsal", "0", "--max-steps", SMOKE_STEPS]);
            }
            self.rune.succeed(&args).await?;
            let adapter = Self::adapter_named(&self.rune, name)?;
            figures.push(format!("{} learned {name}", adapter.id));
            adapters.push(adapter.id);
        }
        (self.short_sha256, self.adapters) = (first.sha256, adapters);
        Ok(figures)
    }

    /// Trains for a few steps in a new home.
    async fn short_training(&self, seed: &str) -> Result<Adapter, StepFailure> {
        let rune = self.elsewhere("short")?;
        rune.succeed(&self.short_args(seed)).await?;
        Self::adapter_named(&rune, "short")
    }

    /// Returns the arguments of a training of a few steps, whose file the seed decides.
    pub(super) fn short_args(&self, seed: &str) -> Vec<String> {
        let dataset = argument(&self.lessons[1].dataset);
        let args = ["train", "--dataset", &dataset, "--name", "short", "--rehearsal", "0"];
        let more =
            ["--max-steps", SHORT_STEPS, "--seed", seed, "--checkpoint-seconds", "1", "--json"];
        args.into_iter().chain(more).map(str::to_owned).collect()
    }

    pub(super) async fn evaluate(&mut self, has_fault: bool) -> StepResult {
        let mut figures = Vec::new();
        for (index, lesson) in self.lessons.iter().enumerate() {
            let other = &self.lessons[1 - index];
            let measured = &self.adapters[if has_fault { 1 - index } else { index }];
            let own = self.gain(measured, lesson).await?;
            let name = lesson.library.name();
            ensure(own.least > 0.0, || format!("{measured} does not know {name}: {own}"))?;
            let foreign = self.gain(measured, other).await?;
            ensure(foreign.least <= 0.0, || format!("{measured} knows both: {foreign}"))?;
            figures.push(format!("{name}: {own}; on {}: {foreign}", other.library.name()));
        }
        Ok(figures)
    }

    /// Measures what an adapter gains over the base on the tasks of a library.
    async fn gain(&self, adapter: &AdapterId, lesson: &Lesson) -> Result<Gain, StepFailure> {
        let (suite, lib) = (argument(&lesson.suite), argument(&lesson.lib));
        let id = adapter.as_str();
        let asked = ["eval", "--suite", &suite, "--lib", &lib, "--adapter", id];
        let args = [&asked[..], &["--max-tokens", MAX_TOKENS, "--json"]].concat();
        let scores = self.rune.succeed(&args).await?.events("evaluation.score");
        let of = |who: &str| {
            let is_wanted = |score: &&Value| score["who"] == who && score["group"] == LEARNED;
            let found = scores.iter().find(is_wanted);
            found.ok_or_else(|| StepFailure(format!("no score of {who}")))
        };
        let (base, own) = (of("base")?, of(id)?);
        let share = |score: &Value| score["score"]["share"].as_f64().unwrap_or(f64::NAN);
        let paired = &own["against"]["paired"];
        let least = paired["interval"][0].as_f64();
        Ok(Gain {
            shares: [share(base), share(own)],
            n_tasks: own["score"]["n_tasks"].as_u64().unwrap_or_default(),
            least: least.ok_or_else(|| StepFailure("no comparison with the base".to_owned()))?,
        })
    }

    pub(super) async fn merge(&mut self, has_fault: bool) -> StepResult {
        let [one, other] = self.adapters.as_slice() else {
            return Err(StepFailure("two adapters are needed".to_owned()));
        };
        if self.merged.is_none() {
            let args = ["merge", one.as_str(), other.as_str(), "--name", "merged"];
            self.rune.succeed(&args).await?;
        }
        let merged = Self::adapter_named(&self.rune, "merged")?;
        let mut parents: Vec<&AdapterId> = merged.parents.iter().map(|parent| &parent.id).collect();
        parents.sort();
        let mut expected = vec![one, other];
        expected.sort();
        ensure(parents == expected, || format!("parents of the merge: {parents:?}"))?;
        self.merged = Some(merged.id.clone());
        let repeated = if has_fault { one } else { &merged.id };
        self.rune.succeed(&["evolve", "replay", repeated.as_str()]).await?;
        Ok(vec![format!("{} has both parents, and is repeated byte for byte", merged.id)])
    }

    pub(super) async fn evolve(&mut self, has_fault: bool) -> StepResult {
        let project = if has_fault { "another" } else { PROJECT };
        if !has_fault {
            self.import_broken().await?;
        }
        let first = self.evolve_once(project).await?;
        let used = first["incumbent"].as_str().map(AdapterId::parse).transpose()?;
        let used = used.ok_or_else(|| StepFailure("nothing was promoted".to_owned()))?;
        let won = [Some(&self.adapters[0]), self.merged.as_ref()].contains(&Some(&used));
        ensure(won, || format!("{used} does not know the library, and was promoted"))?;
        let registry = self.rune.registry()?;
        let filter = LedgerFilter { project: Some(PROJECT.to_owned()), subject: None };
        let ledger = registry.ledger(&filter, 100)?;
        let is_gate = |kind: DecisionKind| kind == DecisionKind::Gate;
        let gate = ledger.iter().find(|row| is_gate(row.kind) && row.subject == used.as_str());
        let gate = gate.ok_or_else(|| StepFailure(format!("{used} passed no gate")))?;
        let archived = Self::archived(&self.rune)?;
        let broken = archived.iter().find(|line| line.starts_with(BROKEN));
        let broken = broken.ok_or_else(|| StepFailure("the broken one is not archived".into()))?;
        let second = self.evolve_once(project).await?;
        let decided = second["decisions"].as_array().map_or(usize::MAX, Vec::len);
        ensure(decided == 0, || format!("a second call decided {decided} things"))?;
        let figures = vec![
            format!(
                "{used} promoted: {} gained and {} lost in the gate, e = {:.1}",
                gate.evidence["base"]["paired"]["gained"],
                gate.evidence["base"]["paired"]["lost"],
                gate.evidence["base"]["e_value"].as_f64().unwrap_or(f64::NAN),
            ),
            broken.clone(),
            format!("{} decisions, none by a second call", ledger.len()),
        ];
        self.promoted = Some(used);
        Ok(figures)
    }

    async fn evolve_once(&self, project: &str) -> Result<Value, StepFailure> {
        let (suite, lib) = (argument(&self.lessons[0].suite), argument(&self.lessons[0].lib));
        let args = ["evolve", "--project", project, "--suite", &suite, "--lib", &lib, "--json"];
        let ended = self.rune.succeed(&args).await?;
        let last = ended.stdout.lines().next_back().unwrap_or_default();
        Ok(serde_json::from_str(last)?)
    }

    /// Returns why each archived adapter was.
    fn archived(rune: &RuneBinary) -> Result<Vec<String>, StepFailure> {
        let filter = AdapterFilter { archived: true, ..Default::default() };
        let all = rune.registry()?.adapters(&filter)?;
        let archived = all.into_iter().filter(|adapter| adapter.archived_at.is_some());
        let named = |adapter: Adapter| {
            let name = adapter.name.unwrap_or_default();
            format!("{name} archived: {}", adapter.archive_reason.unwrap_or_default())
        };
        Ok(archived.map(named).collect())
    }

    /// Imports the first adapter with deltas of a size that nothing withstands.
    async fn import_broken(&self) -> Result<(), StepFailure> {
        let (whole, broken) = (self.new_folder("whole"), self.new_folder("broken"));
        let id = self.adapters[0].as_str();
        self.rune.succeed(&["adapters", "export", id, &argument(&whole)]).await?;
        let files = PeftFiles::read(&whole)?;
        let mut broken_factors = Vec::new();
        for (module, size) in files.modules() {
            let factors = files.factors(module, size).map_err(StepFailure)?;
            let Some(mut factors) = factors else { continue };
            factors.b.iter_mut().for_each(|value| *value *= BREAK);
            broken_factors.push((module.to_owned(), factors));
        }
        write_factors(&broken, files.settings(), &broken_factors)?;
        self.rune.succeed(&["adapters", "import", &argument(&broken), "--name", BROKEN]).await?;
        Ok(())
    }
}

/// What an adapter gains over the base.
#[derive(Debug)]
struct Gain {
    /// Shares of the tasks that base and adapter pass.
    shares: [f64; 2],
    n_tasks: u64,
    /// Lower end of the 95 % interval of the difference.
    least: f64,
}

impl std::fmt::Display for Gain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [base, own] = self.shares.map(|share| 100.0 * share);
        let (least, n_tasks) = (100.0 * self.least, self.n_tasks);
        write!(f, "{own:.0} % against {base:.0} % of {n_tasks} tasks (at least {least:+.0})")
    }
}
