//! Merging of adapters: several adapters of one base become one, without any training.
//!
//! An adapter changes the weights of a module by its delta, `scaling * B A`. Factors are unique
//! only up to an invertible matrix between them, so a merge of the factors depends on chance; here
//! it is always the deltas that are merged, and never as dense matrices:
//!
//! ```text
//! parents --> ModuleFactors, one module at a time
//!               |
//!               +-- linear, iso:  CoreSpace (exact, R x R for ranks that sum to R) --+
//!               +-- ties, dare, ...:  ElementwiseMerge over tiles of rows            |
//!               |     in core space: one tile, the R x R coordinates ----------------+--> Spectrum
//!               |     in delta space: a sketch, streamed ----------------------------+      |
//!               +-- cat: the factors side by side, exact             truncated to a rank,
//!                                                                    in balanced factors
//! ```
//!
//! Everything is single-threaded within a module and modules are independent, so the same parents
//! and the same recipe give the same bytes on any number of threads.

mod core_space;
mod elementwise;
mod error;
mod factors;
mod module;
mod recipe;
mod rule;
mod select;
mod sketch;
mod spectrum;
mod tiles;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use crate::peft;
use crate::peft::LoraMatrix;
use crate::peft::NamedTensor;
use crate::peft::PeftConfig;
use crate::peft::PeftFiles;

pub use error::MergeError;
pub use module::ModuleReport;
pub use recipe::DEFAULT_DENSITY;
pub use recipe::DEFAULT_ENERGY;
pub use recipe::MergeMethod;
pub use recipe::MergeRecipe;
pub use recipe::MergeSemantics;
pub use recipe::MergeSpace;
pub use recipe::OutputSize;
pub use recipe::SignElection;

use factors::ModuleFactors;
use module::MergedModule;

/// An adapter to merge.
#[derive(Debug, Clone)]
pub struct MergeParent {
    /// Name for errors and reports.
    pub name: String,
    /// Files of the adapter.
    pub files: PeftFiles,
    /// Factor of its delta.
    pub weight: f64,
    /// SHA-256 of the weights, which orders the parents and seeds random pruning.
    sha256: String,
}

impl MergeParent {
    /// Creates a parent; its weights are digested once, here.
    pub fn new(name: impl Into<String>, files: PeftFiles, weight: f64) -> Self {
        Self { name: name.into(), sha256: files.sha256(), files, weight }
    }

    /// Returns the SHA-256 of the weights, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// Result of a merge. The factors of a module have equal norms, but for `cat` and for lambda, which
/// is a factor of B.
#[derive(Debug)]
pub struct MergedAdapter {
    modules: Vec<(String, MergedModule)>,
}

/// Called with the number of merged modules and of all modules; `Break` stops the merge.
pub type MergeProgress<'a> = dyn Fn(usize, usize) -> ControlFlow<()> + Sync + 'a;

/// Merges adapters on up to `n_threads` threads. The order of `parents` does not matter.
///
/// # Errors
/// [`MergeError::Stopped`] when `progress` says so; [`MergeError::NoParents`];
/// [`MergeError::Weight`]; [`MergeError::Overflow`]; [`MergeError::Sizes`] when parents disagree on
/// the size of a module; [`MergeError::Parent`] for factors that are not finite or do not fit their
/// configuration; [`MergeError::Recipe`] for a combination of options that is not defined;
/// [`MergeError::Decomposition`] when a decomposition does not converge.
pub fn merge(
    parents: &[MergeParent],
    recipe: &MergeRecipe,
    (n_threads, progress): (usize, &MergeProgress<'_>),
) -> Result<MergedAdapter, MergeError> {
    if parents.is_empty() {
        return Err(MergeError::NoParents);
    }
    recipe.check()?;
    if let Some(parent) = parents.iter().find(|parent| !parent.weight.is_finite()) {
        return Err(MergeError::Weight(parent.weight));
    }
    let mut sorted: Vec<&MergeParent> = parents.iter().collect();
    // Sums of floating-point numbers depend on the order.
    sorted.sort_by(|one, other| {
        one.sha256.cmp(&other.sha256).then(one.weight.total_cmp(&other.weight))
    });
    let modules = module_sizes(parents)?;
    let merged = in_parallel(&modules, n_threads, progress, |(name, size)| {
        let factors = ModuleFactors::read(&sorted, name, *size)?;
        MergedModule::new(name, &factors, recipe)
    })?;
    Ok(MergedAdapter { modules: modules.into_iter().map(|(name, _)| name).zip(merged).collect() })
}

/// Names of modules, sorted, with the `(outputs, inputs)` of each.
type ModuleSizes = Vec<(String, (usize, usize))>;

/// Returns all modules that any parent adapts.
fn module_sizes(parents: &[MergeParent]) -> Result<ModuleSizes, MergeError> {
    let mut sizes: BTreeMap<&str, (&MergeParent, (usize, usize))> = BTreeMap::new();
    for parent in parents {
        for (module, size) in parent.files.modules() {
            let (first, known) = *sizes.entry(module).or_insert((parent, size));
            if known != size {
                return Err(MergeError::Sizes {
                    module: module.to_owned(),
                    one: (first.name.clone(), known),
                    other: (parent.name.clone(), size),
                });
            }
        }
    }
    Ok(sizes.into_iter().map(|(module, (_, size))| (module.to_owned(), size)).collect())
}

/// Applies `work` to all items on up to `n_threads` threads; the results are in their order.
fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    n_threads: usize,
    progress: &MergeProgress<'_>,
    work: impl Fn(&I) -> Result<T, MergeError> + Sync,
) -> Result<Vec<T>, MergeError> {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<BTreeMap<usize, Result<T, MergeError>>> = Mutex::default();
    let run = || {
        while !is_over.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            let has_failed = result.is_err();
            results.insert(index, result);
            if has_failed || progress(results.len(), items.len()).is_break() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..n_threads.clamp(1, items.len().max(1)) {
            scope.spawn(run);
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let n_results = results.len();
    // The error of the first module that failed.
    let merged = results.into_values().collect::<Result<Vec<T>, MergeError>>()?;
    if n_results < items.len() { Err(MergeError::Stopped) } else { Ok(merged) }
}

impl MergedAdapter {
    /// Returns the report of each module, by name.
    pub fn reports(&self) -> impl ExactSizeIterator<Item = (&str, &ModuleReport)> {
        self.modules.iter().map(|(name, module)| (name.as_str(), &module.report))
    }

    /// Returns the configuration of the result. The scaling of every module is 1.
    fn config(&self) -> PeftConfig {
        let ranks = self.modules.iter().map(|(name, module)| (name.clone(), module.rank()));
        let ranks: BTreeMap<String, u32> = ranks.collect();
        let last = |name: &String| name.rsplit('.').next().unwrap_or(name).to_owned();
        let targets: BTreeSet<String> = ranks.keys().map(last).collect();
        PeftConfig::with_ranks(ranks, targets.into_iter().collect())
    }

    /// Returns the files of the result.
    ///
    /// # Errors
    /// [`MergeError::Encoding`].
    pub fn files(&self) -> Result<PeftFiles, MergeError> {
        let name = |module: &str, matrix| peft::tensor_name(module, matrix);
        let names: Vec<(String, String)> = self
            .modules
            .iter()
            .map(|(module, _)| (name(module, LoraMatrix::A), name(module, LoraMatrix::B)))
            .collect();
        let mut tensors = Vec::with_capacity(2 * names.len());
        for ((name_a, name_b), (_, module)) in names.iter().zip(&self.modules) {
            let (n_out, n_in) = module.size;
            let rank = module.report.rank;
            let values = (&module.a).into();
            tensors.push(NamedTensor { name: name_a, shape: vec![rank, n_in], values });
            let values = (&module.b).into();
            tensors.push(NamedTensor { name: name_b, shape: vec![n_out, rank], values });
        }
        PeftFiles::new(&self.config(), &tensors).map_err(MergeError::Encoding)
    }
}

#[cfg(test)]
mod tests;
