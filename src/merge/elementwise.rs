//! [`ElementwiseMerge`]: the merged matrix of an elementwise method, a tile at a time. It may be
//! read as often as wanted, and is the same each time.

use std::ops::Range;

use crate::digest::sha256;
use crate::rng::SplitMix64;

use super::rule::ElementwiseRule;
use super::rule::Rescale;
use super::rule::Sparsify;
use super::select::RankWindow;
use super::select::UpperCounts;
use super::select::WindowSearch;
use super::spectrum::single;
use super::tiles::TileSource;

/// Share of the largest entries that [`Sparsify::Outliers`] drops: mergekit's default.
const OUTLIERS: f64 = 0.01;
/// Half the range of the probabilities in a row of [`Sparsify::RowRanked`]: mergekit's default.
const ROW_RANGE: f64 = 0.15;

/// A merge of matrices by a rule.
#[derive(Debug)]
pub(super) struct ElementwiseMerge<'a> {
    source: &'a TileSource,
    /// Rows and columns of the matrices.
    pub(super) size: (usize, usize),
    rule: ElementwiseRule,
    weights: Vec<f32>,
    /// Keys of random pruning.
    keys: Vec<u64>,
    windows: Vec<RankWindow>,
    /// Number of parents that do not adapt the module: their entries are 0.
    n_absent: usize,
    /// Factors that make up for dropped entries.
    factors: Vec<f32>,
    /// Share of the entries that are kept by several parents and whose signs differ.
    pub(super) conflict: f64,
}

/// Returns the key of random pruning for a module of a parent, so that the same entries are dropped
/// in every merge with the same seed, whatever the order, the tiles and the threads.
pub(super) fn pruning_key(seed: u64, parent: &str, module: &str) -> u64 {
    let digest = sha256(format!("{seed} {parent} {module}").as_bytes());
    u64::from_str_radix(&digest[..16], 16).unwrap_or_default()
}

impl<'a> ElementwiseMerge<'a> {
    /// Prepares the merge: passes over the source find what each parent keeps, and by what it is
    /// multiplied.
    pub(super) fn new(
        source: &'a TileSource,
        size: (usize, usize),
        rule: ElementwiseRule,
        (parents, n_absent): (&[(f64, u64)], usize),
    ) -> Self {
        let weights = parents.iter().map(|(weight, _)| single(*weight)).collect();
        let keys = parents.iter().map(|(_, key)| *key).collect();
        let factors = vec![1.0; parents.len()];
        let windows = Vec::new();
        let mut merge =
            Self { source, size, rule, weights, keys, windows, n_absent, factors, conflict: 0.0 };
        merge.windows = merge.found_windows();
        merge.survey();
        merge
    }

    /// Finds the windows of ranks that are kept: one a parent, or one for the variances.
    fn found_windows(&self) -> Vec<RankWindow> {
        let density = self.rule.density;
        if self.rule.sparsify == Sparsify::Variance && self.source.n_parents() + self.n_absent == 1
        {
            return Vec::new();
        }
        let ranks: fn(u64, f64) -> Range<u64> = match self.rule.sparsify {
            Sparsify::Nothing | Sparsify::Random | Sparsify::RowRanked => return Vec::new(),
            Sparsify::Magnitude | Sparsify::Variance => largest,
            Sparsify::Outliers => without_outliers,
        };
        let n = if self.rule.sparsify == Sparsify::Variance { 1 } else { self.source.n_parents() };
        let mut counts = vec![UpperCounts::new(); n];
        self.for_each_ranked(|index, value| counts[index].add(value));
        let search = |counts| WindowSearch::new(counts, |total| ranks(total, density));
        let mut searches: Vec<WindowSearch> = counts.iter().map(search).collect();
        self.for_each_ranked(|index, value| searches[index].add(value));
        searches.into_iter().map(WindowSearch::found).collect()
    }

    /// Calls `each` for all entries that are ranked: of each parent, or the variances among them.
    fn for_each_ranked(&self, mut each: impl FnMut(usize, f32)) {
        self.source.for_each(self.size, |_, tiles| {
            if self.rule.sparsify == Sparsify::Variance {
                let n = tiles.first().map_or(0, Vec::len);
                (0..n).for_each(|place| each(0, variance(tiles, self.n_absent, place)));
            } else {
                for (index, tile) in tiles.iter().enumerate() {
                    for value in tile {
                        each(index, *value);
                    }
                }
            }
        });
    }

    /// Measures what is kept: the factor of each parent, and how often signs differ.
    fn survey(&mut self) {
        let n = self.source.n_parents();
        let (mut all, mut kept, mut squares) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (mut n_shared, mut n_conflicts) = (0_u64, 0_u64);
        self.for_each_pruned(|_, before, pruned| {
            for index in 0..n {
                all[index] += before[index].iter().map(|entry| f64::from(entry.abs())).sum::<f64>();
                kept[index] +=
                    pruned[index].iter().map(|entry| f64::from(entry.abs())).sum::<f64>();
                let square = |entry: &f32| f64::from(*entry) * f64::from(*entry);
                squares[index] += pruned[index].iter().map(square).sum::<f64>();
            }
            for place in 0..pruned.first().map_or(0, Vec::len) {
                let n_above = pruned.iter().filter(|tile| tile[place] > 0.0).count();
                let n_below = pruned.iter().filter(|tile| tile[place] < 0.0).count();
                n_shared += u64::from(n_above + n_below > 1);
                n_conflicts += u64::from(n_above > 0 && n_below > 0);
            }
        });
        self.conflict = ratio(n_conflicts, n_shared);
        if self.rule.rescale == Rescale::Magnitude {
            let factor = |(all, kept): (&f64, &f64)| if *kept > 0.0 { all / kept } else { 1.0 };
            self.factors = all.iter().zip(&kept).map(factor).map(single).collect();
        }
        let total: f64 = squares.iter().sum();
        if self.rule.weighs_by_square && total > 0.0 {
            for (weight, square) in self.weights.iter_mut().zip(&squares) {
                *weight *= single(square / total);
            }
        }
    }

    /// Calls `each` for all tiles in order: with the first row, and the parents' entries before and
    /// after pruning.
    fn for_each_pruned(&self, mut each: impl FnMut(usize, &[Vec<f32>], &[Vec<f32>])) {
        let mut windows = self.windows.clone();
        let mut pruned = vec![Vec::new(); self.source.n_parents()];
        self.source.for_each(self.size, |first, tiles| {
            for (kept, tile) in pruned.iter_mut().zip(tiles) {
                kept.clone_from(tile);
            }
            match self.rule.sparsify {
                Sparsify::Nothing => {}
                Sparsify::Magnitude | Sparsify::Outliers => {
                    for (tile, window) in pruned.iter_mut().zip(&mut windows) {
                        for entry in tile {
                            clear_unless(window.keeps(*entry), entry);
                        }
                    }
                }
                // A single parent does not vary.
                Sparsify::Variance if windows.is_empty() => {}
                Sparsify::Variance => {
                    for place in 0..tiles.first().map_or(0, Vec::len) {
                        let is_kept = windows[0].keeps(variance(tiles, self.n_absent, place));
                        for tile in &mut pruned {
                            clear_unless(is_kept, &mut tile[place]);
                        }
                    }
                }
                Sparsify::Random | Sparsify::RowRanked => {
                    for (tile, key) in pruned.iter_mut().zip(&self.keys) {
                        self.prune_at_random(first, tile, *key);
                    }
                }
            }
            each(first, tiles, &pruned);
        });
    }

    fn prune_at_random(&self, first: usize, tile: &mut [f32], key: u64) {
        let (n_columns, density) = (self.size.1, self.rule.density);
        let mut probabilities = vec![density; n_columns];
        for (row, entries) in tile.chunks_exact_mut(n_columns).enumerate() {
            if self.rule.sparsify == Sparsify::RowRanked {
                set_row_probabilities(&mut probabilities, entries, density);
            }
            let start = ((first + row) * n_columns) as u64;
            for ((position, entry), probability) in (start..).zip(entries).zip(&probabilities) {
                clear_unless(uniform(key, position) < *probability, entry);
                if self.rule.rescale == Rescale::Probability {
                    *entry /= single(*probability);
                }
            }
        }
    }

    /// Calls `each` for all tiles of the merged matrix in order: with the first row, and the
    /// entries, row-major.
    pub(super) fn for_each_tile(&self, mut each: impl FnMut(usize, &[f32])) {
        let (mut merged, mut entries) = (Vec::new(), vec![0.0; self.source.n_parents()]);
        self.for_each_pruned(|first, _, pruned| {
            merged.clear();
            for place in 0..pruned.first().map_or(0, Vec::len) {
                for ((entry, tile), factor) in entries.iter_mut().zip(pruned).zip(&self.factors) {
                    *entry = tile[place] * factor;
                }
                merged.push(self.rule.merged(&entries, &self.weights));
            }
            each(first, &merged);
        });
    }
}

/// Ranks of the `floor(density * n)` largest of `n` entries, at least one.
fn largest(n: u64, density: f64) -> Range<u64> {
    n - share(n, density).clamp(1, n)..n
}

/// Ranks without the share [`OUTLIERS`] of the largest and so many of the smallest that the density
/// is reached; fewer of the largest where the density leaves no room.
fn without_outliers(n: u64, density: f64) -> Range<u64> {
    let n_kept = share(n, density).clamp(1, n);
    let n_top = share(n, OUTLIERS).min(n - n_kept);
    n - n_top - n_kept..n - n_top
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of entries are below 2^53, and shares are not negative"
)]
fn share(n: u64, density: f64) -> u64 {
    (n as f64 * density).floor() as u64
}

#[expect(clippy::cast_precision_loss, reason = "counts of entries are below 2^53")]
fn ratio(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// Variance of the parents' entries at a place, with a 0 for each absent parent.
#[expect(clippy::cast_precision_loss, reason = "parents are few")]
fn variance(tiles: &[Vec<f32>], n_absent: usize, place: usize) -> f32 {
    let n = (tiles.len() + n_absent) as f32;
    let mean = tiles.iter().map(|tile| tile[place]).sum::<f32>() / n;
    let squares = tiles.iter().map(|tile| (tile[place] - mean).powi(2)).sum::<f32>();
    (squares + n_absent as f32 * mean * mean) / n
}

/// Sets probabilities that rise linearly with the rank of an entry's magnitude in its row, around
/// the density. The range is narrowed near 0 and 1, so that no probability is 0; a row of one entry
/// has the density itself.
#[expect(clippy::cast_precision_loss, reason = "ranks within a row")]
fn set_row_probabilities(probabilities: &mut [f64], row: &[f32], density: f64) {
    let range = ROW_RANGE.min(density / 2.0).min((1.0 - density) / 2.0);
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|one, other| row[*one].abs().total_cmp(&row[*other].abs()));
    let n_steps = row.len().saturating_sub(1).max(1) as f64;
    for (rank, column) in order.into_iter().enumerate() {
        let height = if row.len() == 1 { 0.5 } else { rank as f64 / n_steps };
        probabilities[column] = density - range + 2.0 * range * height;
    }
}

/// Returns a number in `0.0..1.0` for a position, without any state: the `position`-th output of
/// `SplitMix64` with the seed `key`.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn uniform(key: u64, position: u64) -> f64 {
    (SplitMix64::nth(key, position) >> 11) as f64 / (1_u64 << 53) as f64
}

fn clear_unless(is_kept: bool, entry: &mut f32) {
    if !is_kept {
        *entry = 0.0;
    }
}
