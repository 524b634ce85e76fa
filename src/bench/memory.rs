//! [`memory`]: what an adapter knows that the base can't, by libraries that exist nowhere else.

use std::slice;
use std::sync::Arc;

use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::Scope;
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
use super::conditions::RoundScores;

/// Variables that a task is asked with, of four.
const N_VARIABLES: usize = 2;
/// Seconds between two checkpoints of a training.
const CHECKPOINT_SECONDS: u64 = 60;

/// Libraries to teach, and how.
#[derive(Debug, Clone)]
pub struct MemoryRequest {
    /// Seed of the first library; the others follow.
    pub seed: u64,
    /// Invented libraries, at least 1.
    pub n_libraries: usize,
    /// Number of functions in each library.
    pub n_functions: usize,
    /// Maximum steps of each training; 0 for one pass over all records.
    pub max_steps: u32,
    /// Tasks of HumanEval for the control N2, if it is wanted.
    pub controls: Option<TaskSuite>,
}

impl MemoryRequest {
    fn libraries(&self) -> Vec<SyntheticLibrary> {
        let seeds = (self.seed..).take(self.n_libraries);
        seeds.map(|seed| SyntheticLibrary::invent(seed, self.n_functions)).collect()
    }
}

/// Teaches all of every library and compares with the base, with and without documents, and with
/// what another library's adapter does. An interrupted call is resumed by the same call.
///
/// # Errors
/// [`BenchError`].
pub async fn memory(
    services: &Services,
    sandbox: &Arc<Sandbox>,
    request: &MemoryRequest,
) -> Result<ConditionOutcomes, BenchError> {
    let bench = MemoryBench { services, sandbox, request };
    let libraries = request.libraries();
    let mut adapters = Vec::new();
    for library in &libraries {
        let records = library.training(RecordOptions::default());
        adapters.push(bench.teach(library, records, None).await?);
    }
    let mut found = ConditionOutcomes::default();
    for (index, library) in libraries.iter().enumerate() {
        bench.compare(library, (&adapters, index), &mut found).await?;
    }
    if let ([library], [adapter]) = (libraries.as_slice(), adapters.as_slice()) {
        let other = SyntheticLibrary::invent(library.seed() + 1, request.n_functions);
        let adapter = slice::from_ref(adapter);
        found.add_untaught(bench.examine(&other, ("", only(&other, false)), adapter).await?);
    }
    // They need no library and are asked once.
    let controls = ("+builtins", only(&libraries[0], true));
    found.add_controls("N1", &bench.examine(&libraries[0], controls, &adapters).await?);
    if let Some(suite) = &request.controls {
        found.add_controls("N2", &bench.controls(suite, &adapters).await?);
    }
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
        let measured = bench.examine(library, ("", library.tasks(N_VARIABLES)), &adapters).await?;
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
    /// Adds what is measured on the tasks of one library: with its own adapter and with that of the
    /// library before it.
    async fn compare(
        &self,
        library: &SyntheticLibrary,
        (adapters, index): (&[AdapterId], usize),
        found: &mut ConditionOutcomes,
    ) -> Result<(), BenchError> {
        let before = index.checked_sub(1).unwrap_or(adapters.len() - 1);
        let two = [adapters[index].clone(), adapters[before].clone()];
        let asked = if adapters.len() > 1 { &two[..] } else { &two[..1] };
        let tasks = only(library, false);
        let (passage, document) = (library.with_passage(&tasks), library.with_document(&tasks));
        let measured = self.examine(library, ("", tasks), asked).await?;
        let with_document = self.examine(library, ("+document", document), &[]).await?;
        let with_passage = self.examine(library, ("+passage", passage), &[]).await?;
        found.add(measured, with_document.base, with_passage.base);
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
        let options = TrainingOptions {
            learning_rate: 6e-4,
            batch_sequences: 8,
            max_steps: self.request.max_steps,
            seed,
            ..TrainingOptions::preset(Preset::Quick)
        };
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
        };
        match training::train(self.services, &request).await {
            // An earlier, interrupted call has trained it.
            Err(TrainingError::Registry(RegistryError::AdapterExists(id))) => Ok(id),
            trained => Ok(trained?),
        }
    }

    /// Measures the base and `adapters` on `tasks` about `library`; `kind` tells them from others.
    async fn examine(
        &self,
        library: &SyntheticLibrary,
        (kind, tasks): (&str, Vec<LibraryTask>),
        adapters: &[AdapterId],
    ) -> Result<MeasuredOutcomes, BenchError> {
        let tasks = tasks.into_iter().map(EvalTask::from).collect();
        let suite = TaskSuite::new(format!("{}{kind}", library.name()), tasks);
        let modules = PackageModules::single(library.name(), &library.module_source());
        self.measure((&suite, &modules), adapters, MeasureOptions::default()).await
    }

    /// Measures the base and `adapters` on tasks that need no library.
    async fn controls(
        &self,
        suite: &TaskSuite,
        adapters: &[AdapterId],
    ) -> Result<MeasuredOutcomes, BenchError> {
        let sampling = Sampling { max_tokens: 512, ..Sampling::default() };
        let split = format!("all, first {}", suite.n_tasks());
        let how = MeasureOptions { split, sampling, ..MeasureOptions::default() };
        self.measure((suite, &PackageModules::default()), adapters, how).await
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

/// The tasks of a library that are controls, or the others.
fn only(library: &SyntheticLibrary, is_control: bool) -> Vec<LibraryTask> {
    let mut tasks = library.tasks(N_VARIABLES);
    tasks.retain(|task| task.is_control == is_control);
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
