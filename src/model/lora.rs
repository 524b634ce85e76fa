//! PEFT adapters for inference: each module's factors are packed and attached to the linear layer
//! that they change.
//!
//! An adapter with a tensor for a module that the model lacks is rejected.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::ModelError;
use super::kernels::Arena;
use super::kernels::LowRank;
use super::weights::LinearKind;
use super::weights::ModelShape;
use crate::peft::LoraFactors;
use crate::peft::LoraMatrix;
use crate::peft::PeftFiles;
use crate::peft::tensor_name;
use crate::rng::SplitMix64;

/// A loaded LoRA adapter: low-rank branches for some of the model's linear layers.
pub struct LoraAdapter {
    /// Unique among loaded adapters; the prefix cache uses 0 for the base model.
    number: u64,
    folder: PathBuf,
    /// One array per layer, in the order of [`LinearKind::ALL`].
    branches: Vec<[Option<LowRank>; 7]>,
    head: Option<LowRank>,
}

impl std::fmt::Debug for LoraAdapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraAdapter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl LoraAdapter {
    /// Loads the PEFT adapter in `folder` for a model of `shape` with `vocabulary` tokens. With
    /// `exact` the factors stay `f32`; otherwise they are packed as 8-bit codes.
    pub(super) fn load(
        folder: &Path,
        shape: &ModelShape,
        vocabulary: usize,
        exact: bool,
    ) -> Result<Self, ModelError> {
        let files = PeftFiles::read(folder)?;
        let unplaced = files.modules().map(|(module, _)| module).collect();
        let mut placing = FactorPlacing { files: &files, unplaced, arena: Arena::default() };
        let refuse = |reason: String| ModelError::Adapter { path: folder.to_owned(), reason };
        let branches = placing.layers(shape, exact).map_err(refuse)?;
        let head = placing.branch("lm_head", (vocabulary, shape.hidden), exact).map_err(refuse)?;
        // PEFT would have trained it, so ignoring it would run a different adapter.
        if let Some(module) = placing.unplaced.first() {
            let name = tensor_name(module, LoraMatrix::A);
            return Err(refuse(format!("the model has no module for the tensor `{name}`")));
        }
        Ok(Self { number: next_number(), folder: folder.to_owned(), branches, head })
    }

    /// Creates an adapter with random factors on every linear layer of a model of `shape`.
    pub(super) fn random(shape: &ModelShape, rank: usize, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let mut numbers =
            |n: usize| -> Vec<f32> { (0..n).map(|_| (random.uniform() - 0.5) / 64.0).collect() };
        let mut arena = Arena::default();
        let mut branch = |which: LinearKind| {
            let (rows, columns) = which.size(shape);
            let (a, b) = (numbers(rank * columns), numbers(rows * rank));
            Some(LowRank::new(&mut arena, rank, &a, &b, 1.0, false))
        };
        let branches = (0..shape.n_layers).map(|_| LinearKind::ALL.map(&mut branch)).collect();
        Self { number: next_number(), folder: PathBuf::new(), branches, head: None }
    }

    /// Folder it was loaded from; empty for a random adapter.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Size of the factors in memory, in bytes.
    pub fn n_bytes(&self) -> usize {
        self.branches.iter().flatten().chain([&self.head]).flatten().map(LowRank::n_bytes).sum()
    }

    /// Unique number of this loaded adapter, never 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The branch of a linear layer, if the adapter has one.
    pub(super) fn branch(&self, layer: usize, which: LinearKind) -> Option<&LowRank> {
        self.branches[layer][which as usize].as_ref()
    }

    /// The branch of the output head, if the adapter has one.
    pub(super) fn head(&self) -> Option<&LowRank> {
        self.head.as_ref()
    }
}

/// Returns the next unused adapter number.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Relaxed)
}

/// Assigns the factors of an adapter to the modules of a model.
struct FactorPlacing<'a> {
    files: &'a PeftFiles,
    /// Modules of the adapter that no module of the model has claimed yet.
    unplaced: BTreeSet<&'a str>,
    arena: Arena,
}

impl FactorPlacing<'_> {
    fn layers(
        &mut self,
        shape: &ModelShape,
        exact: bool,
    ) -> Result<Vec<[Option<LowRank>; 7]>, String> {
        let mut branches = Vec::with_capacity(shape.n_layers);
        for layer in 0..shape.n_layers {
            let mut block = [const { None }; 7];
            for (which, branch) in LinearKind::ALL.into_iter().zip(&mut block) {
                *branch = self.branch(&which.path(layer), which.size(shape), exact)?;
            }
            branches.push(block);
        }
        Ok(branches)
    }

    /// The LoRA branch of a module of `size`, `(outputs, inputs)`.
    fn branch(
        &mut self,
        module: &str,
        size: (usize, usize),
        exact: bool,
    ) -> Result<Option<LowRank>, String> {
        let Some(factors) = self.files.factors(module, size)? else { return Ok(None) };
        self.unplaced.remove(module);
        let LoraFactors { rank, scaling, a, b } = factors;
        Ok(Some(LowRank::new(&mut self.arena, rank, &a, &b, scaling, exact)))
    }
}
