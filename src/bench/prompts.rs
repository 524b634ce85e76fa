//! Prompts of real text, each with another beginning.

use crate::model::ModelError;
use crate::model::Tokenizer;

/// English prose that does not change, so that figures stay comparable.
const TEXT: &str = include_str!("../../LICENSE");

/// Tokens between the beginnings of two prompts.
const STRIDE: usize = 61;

/// Cuts prompts out of a text that begins again at its end.
pub(super) struct PromptSource {
    tokens: Vec<u32>,
    at: usize,
}

impl PromptSource {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        Ok(Self { tokens: tokenizer.encode(TEXT)?, at: 0 })
    }

    /// The next `n` tokens that begin with another token than the prompt before.
    pub(super) fn fresh(&mut self, n: usize) -> Vec<u32> {
        let first = self.tokens[self.at % self.tokens.len()];
        self.at += STRIDE;
        while self.tokens[self.at % self.tokens.len()] == first {
            self.at += 1;
        }
        self.tokens.iter().cycle().skip(self.at % self.tokens.len()).take(n).copied().collect()
    }

    /// `prompt` with its last `n` tokens replaced by others.
    pub(super) fn with_another_end(&mut self, prompt: &[u32], n: usize) -> Vec<u32> {
        let (kept, old) = prompt.split_at(prompt.len() - n);
        let mut end = self.fresh(n);
        while end.first() == old.first() {
            end = self.fresh(n);
        }
        [kept, &end].concat()
    }
}
