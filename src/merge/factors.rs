//! [`ModuleFactors`]: the parents' factors of one module.

use faer::Mat;
use faer::MatRef;

use crate::peft::LoraFactors;

use super::MergeParent;
use super::error::MergeError;
use super::spectrum::row_major;
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
    /// Reads the factors of `module`, of `size` `(outputs, inputs)`, of all parents.
    pub(super) fn read(
        parents: &[&MergeParent],
        module: &str,
        size: (usize, usize),
    ) -> Result<Self, MergeError> {
        let mut read = Self { size, parents: Vec::new(), digests: Vec::new(), absent: Vec::new() };
        for parent in parents {
            let unusable = |reason| MergeError::Parent { parent: parent.name.clone(), reason };
            match parent.files.factors(module, size).map_err(unusable)? {
                Some(factors) => {
                    read.parents.push(ParentFactors::new(&factors, size, parent.weight));
                    read.digests.push(parent.sha256().to_owned());
                }
                None => read.absent.push(parent.name.clone()),
            }
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
        DeltaFactors {
            a: row_major(self.a.as_ref()),
            b: row_major(self.b.as_ref()),
            rank: self.a.nrows(),
        }
    }
}
