//! The keys and values that a sequence has seen.

use super::transformer::Shape;

/// Tokens by which a cache grows.
const STEP: usize = 256;

/// Keys and values of one sequence, `(tokens, kv_width)` in `f32` a layer, and the tokens they stand for.
pub(super) struct KvCache {
    width: usize,
    tokens: Vec<u32>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl KvCache {
    /// An empty cache for a model of `shape`.
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            width: shape.kv_width(),
            tokens: Vec::new(),
            keys: vec![Vec::new(); shape.n_layers],
            values: vec![Vec::new(); shape.n_layers],
        }
    }

    /// Tokens held.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// How many of the first tokens are those of `tokens`.
    pub(super) fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }

    /// Forgets all but the first `n` tokens.
    pub(super) fn truncate(&mut self, n: usize) {
        self.tokens.truncate(n);
        for rows in self.keys.iter_mut().chain(&mut self.values) {
            rows.truncate(n * self.width);
        }
    }

    /// Becomes the first `n` tokens of `other`.
    pub(super) fn copy_prefix(&mut self, other: &Self, n: usize) {
        self.truncate(0);
        self.tokens.extend_from_slice(&other.tokens[..n]);
        let pairs = self.keys.iter_mut().zip(&other.keys);
        for (ours, theirs) in pairs.chain(self.values.iter_mut().zip(&other.values)) {
            extend(ours, &theirs[..n * self.width], self.width);
        }
    }

    /// Adds the keys and values of new tokens to a layer.
    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        extend(&mut self.keys[layer], keys, self.width);
        extend(&mut self.values[layer], values, self.width);
    }

    /// Counts new tokens as held, when every layer has them.
    pub(super) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Keys and values of a layer.
    pub(super) fn layer(&self, layer: usize) -> (&[f32], &[f32]) {
        (&self.keys[layer], &self.values[layer])
    }
}

/// Appends rows; grows by whole steps and not by doubling.
fn extend(rows: &mut Vec<f32>, new: &[f32], width: usize) {
    let needed = rows.len() + new.len();
    if needed > rows.capacity() {
        rows.reserve_exact(needed.next_multiple_of(STEP * width) - rows.len());
    }
    rows.extend_from_slice(new);
}
