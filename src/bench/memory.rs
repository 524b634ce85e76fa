//! [`memory`]: what training on a library's records is worth, beside the same records in the
//! prompt, and what it harms. The libraries exist nowhere else.

use std::sync::Arc;

use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvalTask;
use crate::evaluation::MeasureOptions;
use crate::evaluation::MeasuredAdapters;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::PackageModules;
use crate::evaluation::TaskSuite;
use crate::evaluation::measure;
use crate::registry::DatasetKind;
use crate::registry::RegistryError;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::synthetic::LibraryRecord;
use crate::synthetic::LibraryTask;
use crate::synthetic::RecordOptions;
use crate::synthetic::SyntheticLibrary;
use crate::synthetic::standard_tasks;
use crate::training;
use crate::training::CollectedRecords;
use crate::training::Preset;
use crate::training::TrainingError;
use crate::training::TrainingOptions;
use crate::training::TrainingRecord;
use crate::training::TrainingRequest;
use crate::trajectory::Sampling;

use super::BenchError;
use super::conditions::ConditionOutcomes;
use super::conditions::ControlOutcomes;
use super::conditions::LibraryOutcomes;
use super::conditions::MemoryCondition;
use super::conditions::PromptAid;
use super::conditions::Subject;
use super::rounds::RoundScores;

/// Variables that a task is asked with, of four. More would be near-copies, which count as one.
const N_VARIABLES: usize = 1;
/// Variables that a control is asked with.
const N_VARIABLES_OF_CONTROLS: usize = 2;
/// Seconds between two checkpoints of a training.
const CHECKPOINT_SECONDS: u64 = 60;

/// Libraries to teach, and how.
#[derive(Debug, Clone)]
pub struct MemoryRequest {
    /// Seed of the first library; the others follow.
    pub seed: u64,
    /// Invented libraries, at least 2: the adapter of one is tried on the next.
    pub n_libraries: usize,
    /// Number of functions in each library.
    pub n_functions: usize,
    /// Maximum steps of each training, 0 for no limit; `None` for that of the preset.
    pub max_steps: Option<u32>,
    /// Tasks of HumanEval for the control N2, if it is wanted.
    pub controls: Option<TaskSuite>,
    /// Adapter that was trained to read documents, if one is to be measured as well.
    pub reader: Option<AdapterId>,
}

impl MemoryRequest {
    fn libraries(&self) -> Vec<SyntheticLibrary> {
        let seeds = (self.seed..).take(self.n_libraries);
        seeds.map(|seed| SyntheticLibrary::invent(seed, self.n_functions)).collect()
    }
}

/// Trains an adapter for every library, asks base and adapters under all [`CONDITIONS`], and looks
/// for damage on tasks that need no library. An interrupted call is resumed by the same call.
///
/// # Errors
/// [`BenchError`].
///
/// [`CONDITIONS`]: super::CONDITIONS
pub async fn memory(
    services: &Services,
    sandbox: &Arc<Sandbox>,
    request: &MemoryRequest,
) -> Result<ConditionOutcomes, BenchError> {
    let bench = MemoryBench { services, sandbox, request };
    // Before the trainings, which take long.
    if let Some(reader) = &request.reader {
        services.registry.adapter(reader)?;
    }
    let libraries = request.libraries();
    let mut adapters = Vec::new();
    for library in &libraries {
        let records = library.training(RecordOptions::default());
        adapters.push(bench.teach(library, records, None).await?);
    }
    let mut found = ConditionOutcomes::default();
    for (index, library) in libraries.iter().enumerate() {
        found.libraries.push(bench.compare(library, (&adapters, index)).await?);
    }
    bench.look_for_damage((&libraries, &adapters), &mut found).await?;
    for event in found.events() {
        services.report("", &event);
    }
    Ok(found)
}

/// Teaches half of every library's functions; then, from that adapter on, the other half, once
/// with the records of the first round given again and once without.
///
/// # Errors
/// [`BenchError`].
pub async fn memory_in_rounds(
    services: &Services,
    sandbox: &Arc<Sandbox>,
    request: &MemoryRequest,
) -> Result<[RoundScores; 2], BenchError> {
    let bench = MemoryBench { services, sandbox, request };
    let mut rounds = RoundScores::both();
    for library in &request.libraries() {
        let is_first = |family: &str| is_of_first_half(library, family);
        let adapters = bench.teach_in_rounds(library, &is_first).await?;
        let measured = bench.examine(library, library.tasks(N_VARIABLES), &adapters).await?;
        let others = measured.adapters.into_iter().map(|(_, outcomes)| outcomes);
        for (who, outcomes) in std::iter::once(measured.base).chain(others).enumerate() {
            for outcome in outcomes {
                let round = usize::from(!is_first(&outcome.family));
                rounds[round].add(who, outcome);
            }
        }
    }
    for event in rounds.iter().flat_map(RoundScores::events) {
        services.report("", &event);
    }
    Ok(rounds)
}

struct MemoryBench<'a> {
    services: &'a Services,
    sandbox: &'a Arc<Sandbox>,
    request: &'a MemoryRequest,
}

impl MemoryBench<'_> {
    /// Measures all conditions on the tasks of one library: its own adapter and that of the library
    /// before it.
    async fn compare(
        &self,
        library: &SyntheticLibrary,
        (adapters, index): (&[AdapterId], usize),
    ) -> Result<LibraryOutcomes, BenchError> {
        let before = index.checked_sub(1).unwrap_or(adapters.len() - 1);
        let tasks = library_tasks(library);
        let records = library.training(RecordOptions::default());
        let mut found = LibraryOutcomes::new(library.seed(), library.name());
        for aid in MemoryCondition::aids() {
            let adapter = |who| match who {
                Subject::Base => None,
                Subject::Own => Some(adapters[index].clone()),
                Subject::Other => Some(adapters[before].clone()),
                Subject::Reader => self.request.reader.clone(),
            };
            let (subjects, asked): (Vec<Subject>, Vec<AdapterId>) =
                MemoryCondition::subjects(aid).filter_map(|who| Some((who, adapter(who)?))).unzip();
            let tasks = match aid {
                PromptAid::Nothing => tasks.clone(),
                PromptAid::Readme => library.with_document(&tasks),
                PromptAid::Passage => library.with_passage(&tasks),
                PromptAid::WorkedCalls => library.with_worked_calls(&tasks),
                PromptAid::Records(n) => SyntheticLibrary::with_records(&tasks, &records, n),
            };
            let measured = self.examine(library, tasks, &asked).await?;
            found.set(Subject::Base, aid, measured.base);
            for (who, (_, outcomes)) in subjects.into_iter().zip(measured.adapters) {
                found.set(who, aid, outcomes);
            }
        }
        found.keep_common();
        Ok(found)
    }

    /// Measures base and adapters on tasks that need no library.
    async fn look_for_damage(
        &self,
        (libraries, adapters): (&[SyntheticLibrary], &[AdapterId]),
        found: &mut ConditionOutcomes,
    ) -> Result<(), BenchError> {
        let tasks = |tasks: Vec<LibraryTask>| {
            TaskSuite::new("controls", tasks.into_iter().map(EvalTask::from).collect())
        };
        let short = MeasureOptions::default();
        let whole = Sampling { max_tokens: 512, ..Sampling::default() };
        let long = MeasureOptions { sampling: whole, ..MeasureOptions::default() };
        let mut suites = vec![
            ("N1", tasks(builtin_tasks(&libraries[0])), short.clone()),
            ("N3", tasks(standard_tasks(N_VARIABLES_OF_CONTROLS)), short),
        ];
        suites.extend(self.request.controls.clone().map(|suite| ("N2", suite, long)));
        let asked: Vec<AdapterId> = adapters.iter().chain(&self.request.reader).cloned().collect();
        for (name, suite, how) in suites {
            let modules = &PackageModules::default();
            let measured = self.measure((&suite, modules), &asked, how).await?;
            let after = measured.adapters.into_iter().map(|(_, outcomes)| outcomes);
            let mut adapters: Vec<Vec<EvalOutcome>> = after.collect();
            let reader = adapters.split_off(libraries.len()).pop();
            let controls = ControlOutcomes { name, base: measured.base, adapters, reader };
            found.add_controls(controls, |index, answer| libraries[index].is_named_in(answer));
        }
        Ok(())
    }

    /// Trains adapters of the first half of the functions; of the second, from the first on; and of
    /// both, from the first on.
    async fn teach_in_rounds(
        &self,
        library: &SyntheticLibrary,
        is_first: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<AdapterId>, BenchError> {
        let all = library.training(RecordOptions::default());
        let (first, second): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|record| is_first(&record.family));
        let mut adapters: Vec<AdapterId> = Vec::new();
        for records in [first, second, all] {
            let from = adapters.first().map(|id| self.services.registry.adapter(id)).transpose()?;
            adapters.push(self.teach(library, records, from).await?);
        }
        Ok(adapters)
    }

    /// Trains an adapter on `records` of `library`.
    async fn teach(
        &self,
        library: &SyntheticLibrary,
        records: Vec<LibraryRecord>,
        from: Option<Adapter>,
    ) -> Result<AdapterId, BenchError> {
        let (name, seed) = (library.name(), library.seed());
        self.services.notice(format!("library {name} of seed {seed}"));
        // What `rune train` does by default.
        let mut options = TrainingOptions { seed, ..TrainingOptions::preset(Preset::Quick) };
        options.max_steps = self.request.max_steps.unwrap_or(options.max_steps);
        let n_functions = self.request.n_functions;
        let source = json!({ "library": name, "seed": seed, "functions": n_functions });
        let records = records.into_iter().map(TrainingRecord::from).collect();
        let request = TrainingRequest {
            data: CollectedRecords { records, kind: DatasetKind::File, source, task_type: None },
            options,
            name: Some(name.to_owned()),
            scope: Scope::Project,
            session_id: None,
            from,
            checkpoint_seconds: CHECKPOINT_SECONDS,
            job_id: None,
        };
        match training::train(self.services, &request).await {
            // An earlier, interrupted call has trained it.
            Err(TrainingError::Registry(RegistryError::AdapterExists(id))) => Ok(id),
            trained => Ok(trained?),
        }
    }

    /// Measures the base and `adapters` on tasks about `library`.
    async fn examine(
        &self,
        library: &SyntheticLibrary,
        tasks: Vec<LibraryTask>,
        adapters: &[AdapterId],
    ) -> Result<MeasuredOutcomes, BenchError> {
        let tasks = tasks.into_iter().map(EvalTask::from).collect();
        let suite = TaskSuite::new(library.name(), tasks);
        let modules = PackageModules::single(library.name(), &library.module_source());
        self.measure((&suite, &modules), adapters, MeasureOptions::default()).await
    }

    async fn measure(
        &self,
        what: (&TaskSuite, &PackageModules),
        adapters: &[AdapterId],
        how: MeasureOptions,
    ) -> Result<MeasuredOutcomes, BenchError> {
        let who = MeasuredAdapters::These(adapters.to_vec());
        let how = MeasureOptions { is_recorded: false, ..how };
        Ok(Box::pin(measure((self.services, self.sandbox), what, &who, &how)).await?)
    }
}

/// Returns the tasks of a library that need it.
fn library_tasks(library: &SyntheticLibrary) -> Vec<LibraryTask> {
    let mut tasks = library.tasks(N_VARIABLES);
    tasks.retain(|task| !task.is_control);
    tasks
}

/// Returns the controls of a library, which are the same for every library.
fn builtin_tasks(library: &SyntheticLibrary) -> Vec<LibraryTask> {
    let mut tasks = library.tasks(N_VARIABLES_OF_CONTROLS);
    tasks.retain(|task| task.is_control);
    tasks
}

/// Whether a family is about one of the first half of a library's functions.
fn is_of_first_half(library: &SyntheticLibrary, family: &str) -> bool {
    let functions = library.functions();
    functions[..functions.len() / 2].iter().any(|function| {
        family.strip_prefix(library.name()).and_then(|rest| rest.split('/').nth(1))
            == Some(function.operation.id)
    })
}
