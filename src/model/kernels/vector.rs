//! Loops over `f32` rows. Each body is plain Rust, compiled once for any machine and once each with AVX2 and
//! AVX-512 switched on, where the compiler vectorises it.

#![expect(unsafe_code, reason = "calls functions compiled for a detected instruction set")]
#![expect(
    clippy::inline_always,
    reason = "a body has to become part of the function that switches the instruction set on"
)]

use std::cell::RefCell;

use super::BLOCK;
use super::BlockNumbers;
use super::Isa;

/// Defines `$name(isa, ...)`, which calls `$body` compiled for `isa`.
macro_rules! dispatched {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name(isa: Isa, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
            fn with_avx512($($arg: $type),*) $(-> $out)? {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn with_avx2($($arg: $type),*) $(-> $out)? {
                $body::<true>($($arg),*)
            }
            match isa {
                // SAFETY: `Isa::detect` saw these features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => unsafe { with_avx512($($arg),*) },
                // SAFETY: likewise.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { with_avx2($($arg),*) },
                _ => $body::<false>($($arg),*),
            }
        }
    };
}

/// What counts as zero when quantised: the inverse of a smaller number would be infinite.
const NOTHING: f32 = 1e-30;
/// Lanes that are summed apart, so that the compiler may use vectors.
const LANES: usize = 16;

dispatched! {
    /// The scalar product of two rows of one length.
    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

dispatched! {
    /// Quantises a row in blocks of 32: `codes = round(values / scale)`, `scale = max |values| / 127`.
    pub(super) fn quantise(
        values: &[f32],
        codes: &mut [i8],
        numbers: &mut [BlockNumbers],
    ) = quantise_body
}

dispatched! {
    /// `out = x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019, arXiv:1910.07467).
    pub(in crate::model) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32])
        = rms_norm_body
}

dispatched! {
    /// `out = silu(gate) * up` with `silu(x) = x / (1 + exp(-x))` (Shazeer 2020, arXiv:2002.05202).
    pub(in crate::model) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body
}

/// Softmax attention of the query heads that share one key head, for one position.
/// `query` and `out`: `(n_heads, head_dim)`; key and value `t` start at `t * stride` and have
/// `head_dim` numbers; `n_keys >= 1` of them are visible.
pub(in crate::model) fn attend(
    isa: Isa,
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: AttentionShape,
    out: &mut [f32],
) {
    thread_local! {
        static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCORES.with_borrow_mut(|scores| {
        scores.resize(shape.n_keys, 0.0);
        let heads = query.chunks_exact(shape.head_dim).zip(out.chunks_exact_mut(shape.head_dim));
        for (query, out) in heads {
            attend_head(isa, query, keys, values, shape, scores, out);
        }
    });
}

dispatched! {
    /// [`attend`] for one head; `scores` has room for the keys. (A closure would not be compiled for the
    /// instruction set of the function around it.)
    fn attend_head(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        shape: AttentionShape,
        scores: &mut [f32],
        out: &mut [f32],
    ) = attend_body
}

/// Sizes of one call of [`attend`].
#[derive(Clone, Copy)]
pub(in crate::model) struct AttentionShape {
    /// Numbers a head.
    pub(in crate::model) head_dim: usize,
    /// Distance between neighbouring keys.
    pub(in crate::model) stride: usize,
    /// Visible keys.
    pub(in crate::model) n_keys: usize,
}

/// `a * b + c`, in one rounding where the instruction set has it.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [[0_f32; LANES]; 4];
    let (a_wide, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_wide, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    for (a, b) in a_wide.iter().zip(b_wide) {
        for (j, sum) in sums.iter_mut().enumerate() {
            for i in 0..LANES {
                sum[i] = fma::<FMA>(a[j * LANES + i], b[j * LANES + i], sum[i]);
            }
        }
    }
    let mut total = 0.0;
    let mut folded = [0_f32; LANES];
    for i in 0..LANES {
        folded[i] = (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            folded[i] += folded[i + width];
        }
        width /= 2;
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        total = fma::<FMA>(*a, *b, total);
    }
    folded[0] + total
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "codes lie in -127..=127")]
fn quantise_body<const FMA: bool>(values: &[f32], codes: &mut [i8], numbers: &mut [BlockNumbers]) {
    let blocks = values.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
    for ((values, codes), numbers) in blocks.zip(numbers) {
        // As integers, magnitudes are in the order of the numbers, and NaN is above all: it must not get lost.
        let magnitude = |value: f32| value.abs().to_bits();
        let mut lanes = [0_u32; LANES];
        for i in 0..LANES {
            lanes[i] = magnitude(values[i]).max(magnitude(values[i + LANES]));
        }
        let mut largest = 0;
        for lane in lanes {
            largest = largest.max(lane);
        }
        let largest = f32::from_bits(largest);
        let scale = largest / 127.0;
        let inverse = if largest > NOTHING { 127.0 / largest } else { 0.0 };
        let mut rounded = [0_i32; BLOCK];
        for (rounded, value) in rounded.iter_mut().zip(values) {
            *rounded = (value * inverse).round_ties_even() as i32;
        }
        for (code, rounded) in codes.iter_mut().zip(&rounded) {
            *code = *rounded as i8;
        }
        let sums = [rounded[..16].iter().sum::<i32>(), rounded[16..].iter().sum()];
        #[expect(clippy::cast_precision_loss, reason = "sums stay below 2^12")]
        let times = |sum: i32| scale * sum as f32;
        *numbers = BlockNumbers { scale, halves: sums.map(times), sum: times(sums[0] + sums[1]) };
    }
}

#[inline(always)]
fn rms_norm_body<const FMA: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    #[expect(clippy::cast_precision_loss, reason = "a row is short")]
    let mean = dot_body::<FMA>(x, x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
fn silu_mul_body<const FMA: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp::<FMA>(-gate)) * up;
    }
}

/// `e^x` to 1e-5, for `|x| <= 87`: `2^n` by the exponent's bits, `2^f` for `|f| <= 1/2` by Taylor's polynomial.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding it leaves a number's nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let power = (x * std::f32::consts::LOG2_E).clamp(-126.0, 126.0);
    let shifted = power + ROUND;
    let f = (power - (shifted - ROUND)) * std::f32::consts::LN_2;
    let mut sum = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = fma::<FMA>(sum, f, factor);
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    sum * f32::from_bits(exponent)
}

#[inline(always)]
fn attend_body<const FMA: bool>(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: AttentionShape,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let AttentionShape { head_dim, stride, .. } = shape;
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let scale = 1.0 / (head_dim as f32).sqrt();
    for (score, key) in scores.iter_mut().zip(keys.chunks(stride)) {
        *score = dot_body::<FMA>(query, &key[..head_dim]) * scale;
    }
    let total = softmax_weights::<FMA>(scores);
    out.fill(0.0);
    for (weight, value) in scores.iter().zip(values.chunks(stride)) {
        for (out, value) in out.iter_mut().zip(&value[..head_dim]) {
            *out = fma::<FMA>(*weight, *value, *out);
        }
    }
    for out in out {
        *out /= total;
    }
}

/// Turns scores into `exp(score - max)` and returns their sum.
#[inline(always)]
fn softmax_weights<const FMA: bool>(scores: &mut [f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (wide, rest) = scores.as_chunks::<LANES>();
    for chunk in wide {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    let mut largest = f32::NEG_INFINITY;
    for score in rest.iter().chain(&lanes) {
        largest = largest.max(*score);
    }
    let mut lanes = [0_f32; LANES];
    let (wide, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in wide {
        for i in 0..LANES {
            chunk[i] = exp::<FMA>(chunk[i] - largest);
            lanes[i] += chunk[i];
        }
    }
    let mut total = 0.0;
    for score in rest {
        *score = exp::<FMA>(*score - largest);
        total += *score;
    }
    for lane in lanes {
        total += lane;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_close_to_the_library_s() {
        for step in -2000..2000_i16 {
            let x = f32::from(step) * 0.04;
            let (ours, theirs) = (exp::<false>(x), x.exp());
            assert!((ours - theirs).abs() <= 1e-5 * theirs, "{x}: {ours} {theirs}");
        }
    }
}
