//! Dropout on the inputs of LoRA branches, reproducible for the backward pass (Srivastava et al.
//! 2014).

use super::super::kernels::AlignedBuffer;
use super::super::kernels::SharedMut;
use super::super::kernels::ThreadPool;
use crate::rng::SplitMix64;

/// Elements per unit of work.
const AT_ONCE: usize = 1 << 13;

/// The dropout mask of one LoRA branch in one pass: a function of the seed and the element's
/// position alone, so the backward pass can regenerate it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DropoutMask {
    /// Dropout probability in `0.0..1.0`.
    pub(super) rate: f32,
    pub(super) seed: u64,
}

impl DropoutMask {
    /// Multiplies each element by 0 with probability `rate`, otherwise by `1 / (1 - rate)`.
    pub(super) fn apply(self, pool: &mut ThreadPool, numbers: &mut [f32]) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate below 1 in steps of 1 / 65536"
        )]
        let bound = (self.rate * 65536.0) as u16;
        let keep_scale = 1.0 / (1.0 - self.rate);
        let n = numbers.len();
        let shared = SharedMut::new(numbers);
        pool.run(n.div_ceil(AT_ONCE), &|unit| {
            let first = unit * AT_ONCE;
            let part = shared.slice(first, AT_ONCE.min(n - first));
            // A generator per unit makes the mask independent of the number of threads.
            let mut random =
                SplitMix64::new(self.seed ^ (unit as u64).wrapping_mul(0xD1B5_4A32_D192_ED03));
            // 16 random bits per element: one draw decides four of them.
            for four in part.chunks_mut(4) {
                let mut bits = random.next();
                for number in four {
                    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits")]
                    let is_kept = bits as u16 >= bound;
                    bits >>= 16;
                    *number = if is_kept { *number * keep_scale } else { 0.0 };
                }
            }
        });
    }

    /// Returns `numbers` with the mask applied, in `scratch`; without dropout `numbers` itself.
    pub(super) fn applied<'a>(
        self,
        pool: &mut ThreadPool,
        numbers: &'a [f32],
        scratch: &'a mut AlignedBuffer,
    ) -> &'a [f32] {
        if self.rate == 0.0 {
            return numbers;
        }
        scratch.resize(numbers.len());
        scratch.copy_from_slice(numbers);
        self.apply(pool, scratch);
        scratch
    }
}

#[cfg(test)]
mod tests {
    use super::DropoutMask;
    use crate::model::kernels::ThreadPool;

    #[test]
    fn dropped_share_matches_the_rate_and_the_rest_is_rescaled() {
        let mut pool = ThreadPool::new(2);
        let draw = |pool: &mut ThreadPool, seed| {
            let mut numbers = vec![1.0; 100_000];
            DropoutMask { rate: 0.25, seed }.apply(pool, &mut numbers);
            numbers
        };
        let numbers = draw(&mut pool, 7);
        let n_kept = numbers.iter().filter(|number| **number != 0.0).count();
        assert!((74_000..76_000).contains(&n_kept), "{n_kept}");
        assert!(numbers.iter().all(|x| *x == 0.0 || (x - 1.0 / 0.75).abs() < 1e-6));
        assert!(numbers == draw(&mut pool, 7) && numbers != draw(&mut pool, 8));
    }
}
