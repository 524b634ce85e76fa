//! Token sampling: repetition penalty, grammar mask, temperature, top-k, top-p.

use std::collections::HashSet;

use super::grammar::TokenSet;
use super::kernels::Isa;
use super::kernels::largest_if_sound;
use crate::rng::SplitMix64;
use crate::trajectory::Sampling;

/// Samples the tokens of one sequence. Deterministic: equal settings, seed and logits give equal
/// tokens on any machine.
pub(super) struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    seen: HashSet<u32>,
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// Creates a sampler; the tokens of `prompt` count as seen for the repetition penalty.
    pub(super) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let random = SplitMix64::new(sampling.seed);
        Self { sampling, random, seen: prompt.iter().copied().collect(), candidates: Vec::new() }
    }

    /// Samples one of the `allowed` tokens, or of all. With `want_logprob` also returns the token's
    /// log probability in nats under the unmodified logits.
    pub(super) fn draw(
        &mut self,
        logits: &mut [f32],
        allowed: Option<&TokenSet>,
        want_logprob: bool,
    ) -> (u32, Option<f32>) {
        let plain = want_logprob.then(|| log_sum_exp(logits));
        let unmodified = want_logprob.then(|| logits.to_vec());
        self.penalize(logits);
        if let Some(allowed) = allowed {
            allowed.mask(logits);
        }
        let token = if self.sampling.temperature > 0.0 {
            self.draw_at_temperature(logits)
        } else {
            argmax(logits)
        };
        self.seen.insert(token);
        let logprob = unmodified.zip(plain).map(|(logits, sum)| logits[token as usize] - sum);
        (token, logprob)
    }

    /// Applies the repetition penalty to seen tokens (Keskar et al. 2019, CTRL, arXiv:1909.05858,
    /// section 4.1).
    fn penalize(&self, logits: &mut [f32]) {
        let penalty = self.sampling.repetition_penalty;
        #[expect(clippy::float_cmp, reason = "exactly 1.0 means off")]
        if penalty == 1.0 {
            return;
        }
        for token in &self.seen {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Applies temperature, top-k and top-p, in the order of transformers' logits processors, and
    /// samples.
    fn draw_at_temperature(&mut self, logits: &[f32]) -> u32 {
        let temperature = self.sampling.temperature;
        let largest = largest_if_sound(Isa::detect(), logits);
        let weight = |logit: f32| ((logit - largest) / temperature).exp();
        // Tokens below e^-16 of the best carry a negligible share of the mass; dropping them before
        // the sort leaves few candidates.
        let cut = largest - 16.0 * temperature;
        self.candidates.clear();
        let mut total = 0.0;
        for (token, &logit) in (0_u32..).zip(logits) {
            if logit >= cut {
                let weight = weight(logit);
                total += weight;
                self.candidates.push((token, weight));
            }
        }
        let best_first = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        self.candidates.sort_unstable_by(best_first);
        if self.sampling.top_k > 0 && self.candidates.len() > self.sampling.top_k as usize {
            self.candidates.truncate(self.sampling.top_k as usize);
            total = self.candidates.iter().map(|(_, weight)| weight).sum();
        }
        let mut cumulative = 0.0;
        let enough = self.sampling.top_p * total;
        let n = self.candidates.iter().position(|(_, weight)| {
            cumulative += weight;
            cumulative >= enough
        });
        self.candidates.truncate(n.map_or(self.candidates.len(), |n| n + 1));
        // Inverse transform sampling over the remaining mass.
        let mut left = self.random.uniform() * cumulative.min(total);
        for (token, weight) in &self.candidates {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        self.candidates.last().map_or_else(|| argmax(logits), |(token, _)| *token)
    }
}

/// Index of the largest logit, the first one on ties.
fn argmax(logits: &[f32]) -> u32 {
    const CHUNK: usize = 1024;
    let largest = largest_if_sound(Isa::detect(), logits);
    // `count` instead of `any`: without an early exit the compiler vectorizes the comparison.
    let has_it = |part: &[f32]| part.iter().filter(|logit| **logit >= largest).count() > 0;
    let part = logits.chunks(CHUNK).position(has_it).unwrap_or(0) * CHUNK;
    let place = logits[part..].iter().position(|logit| *logit >= largest).unwrap_or(0);
    u32::try_from(part + place).expect("a vocabulary is small")
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = largest_if_sound(Isa::detect(), logits);
    largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::Sampler;
    use crate::trajectory::Sampling;

    fn counts(sampling: Sampling) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, &[]);
        let mut counts = vec![0; 4];
        for _ in 0..10_000 {
            // Probabilities 0.6, 0.3, 0.08, 0.02.
            let mut logits = [0.6_f32, 0.3, 0.08, 0.02].map(f32::ln);
            counts[sampler.draw(&mut logits, None, false).0 as usize] += 1;
        }
        counts
    }

    fn near(count: usize, share: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let off = count as f64 / 10_000.0 - share;
        off.abs() < 0.02
    }

    #[test]
    fn temperature_one_draws_by_probability() {
        let counts = counts(Sampling { temperature: 1.0, ..Sampling::default() });
        assert!(near(counts[0], 0.6) && near(counts[1], 0.3) && near(counts[2], 0.08));
    }

    #[test]
    fn top_p_and_top_k_cut_the_tail() {
        let top_p = counts(Sampling { temperature: 1.0, top_p: 0.85, ..Sampling::default() });
        assert!(near(top_p[0], 2.0 / 3.0) && top_p[2] == 0 && top_p[3] == 0, "{top_p:?}");
        let top_k = counts(Sampling { temperature: 1.0, top_k: 3, ..Sampling::default() });
        assert!(top_k[2] > 0 && top_k[3] == 0, "{top_k:?}");
    }

    #[test]
    fn greedy_takes_the_best_token_not_yet_penalized() {
        assert_eq!(counts(Sampling::default())[0], 10_000);
        let sampling = Sampling { repetition_penalty: 4.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, &[]);
        let mut draw = || sampler.draw(&mut [2.0, 1.9, -1.0], None, true);
        let (first, logprob) = draw();
        assert_eq!((first, draw().0), (0, 1));
        assert!((logprob.unwrap() - -0.67).abs() < 0.01, "{logprob:?}");
    }

    #[test]
    fn equal_seeds_give_equal_tokens() {
        let draw = |seed| {
            let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
            let mut sampler = Sampler::new(sampling, &[]);
            (0..50).map(|_| sampler.draw(&mut [0.1; 50], None, false).0).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
