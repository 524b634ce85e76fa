//! [`ModuleFactors`]: the parents' factors of one module.

use faer::Mat;
use faer::MatRef;

use crate::peft::LoraFactors;

use super::MergeParent;
use super::error::MergeError;
use super::spectrum::single;
use super::tiles::DeltaFactors;

/// Factors of a parent, in double precision.
#[derive(Debug, Clone)]
pub(super) struct ParentFactors {
    /// Matrix A, `(rank, inputs)`.
    pub(super) a: Mat<f64>,
    /// Matrix B, `(outputs, rank)`, with the scaling.
    pub(super) b: Mat<f64>,
    pub(super) weight: f64,
}

/// The parents of one module.
#[derive(Debug)]
pub(super) struct ModuleFactors {
    /// Size of the module, `(outputs, inputs)`.
    pub(super) size: (usize, usize),
    pub(super) parents: Vec<ParentFactors>,
    /// Digest of each parent in `parents`.
    pub(super) digests: Vec<String>,
    /// Names of the parents that do not adapt the module.
    pub(super) absent: Vec<String>,
}

impl ModuleFactors {
    /// Reads the factors of `module` of all parents, which are given with their digests.
    pub(super) fn read(
        parents: &[(String, &MergeParent)],
        module: &str,
    ) -> Result<Self, MergeError> {
        let mut read =
            Self { size: (0, 0), parents: Vec::new(), digests: Vec::new(), absent: Vec::new() };
        for (digest, parent) in parents {
            let found = parent.files.modules().find(|(name, _)| *name == module);
            let Some((_, size)) = found else {
                read.absent.push(parent.name.clone());
                continue;
            };
            let unusable = |reason| MergeError::Parent { parent: parent.name.clone(), reason };
            let factors = parent.files.factors(module, size).map_err(unusable)?;
            read.size = size;
            read.parents
                .extend(factors.map(|factors| ParentFactors::new(&factors, size, parent.weight)));
            read.digests.push(digest.clone());
        }
        Ok(read)
    }

    /// Sum of the parents' ranks.
    pub(super) fn total_rank(&self) -> usize {
        self.parents.iter().map(|parent| parent.a.nrows()).sum()
    }
}

impl ParentFactors {
    fn new(factors: &LoraFactors, (n_out, n_in): (usize, usize), weight: f64) -> Self {
        let a = MatRef::from_row_major_slice(&factors.a, factors.rank, n_in);
        let b = MatRef::from_row_major_slice(&factors.b, n_out, factors.rank);
        let scaling = f64::from(factors.scaling);
        Self {
            a: Mat::from_fn(factors.rank, n_in, |row, column| f64::from(a[(row, column)])),
            b: Mat::from_fn(n_out, factors.rank, |row, column| {
                scaling * f64::from(b[(row, column)])
            }),
            weight,
        }
    }

    /// Returns the factors in single precision, row-major.
    pub(super) fn to_single(&self) -> DeltaFactors {
        let (rank, n_in, n_out) = (self.a.nrows(), self.a.ncols(), self.b.nrows());
        let in_a = (0..rank).flat_map(|row| (0..n_in).map(move |column| (row, column)));
        let in_b = (0..n_out).flat_map(|row| (0..rank).map(move |column| (row, column)));
        DeltaFactors {
            a: in_a.map(|place| single(self.a[place])).collect(),
            b: in_b.map(|place| single(self.b[place])).collect(),
            rank,
        }
    }
}
