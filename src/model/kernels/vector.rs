//! Element-wise and reduction loops over `f32` rows. Each body is plain Rust, compiled three times:
//! portable, with AVX2, and with AVX-512 enabled, where the compiler vectorizes it.

#![expect(unsafe_code, reason = "calls functions compiled for a detected instruction set")]
#![expect(
    clippy::inline_always,
    reason = "a body has to become part of the function that switches the instruction set on"
)]

use super::BLOCK;
use super::BlockCodes;
use super::BlockNumbers;
use super::Isa;
use super::StridedMut;
#[cfg(target_arch = "x86_64")]
use super::avx512;

/// Defines `$name(isa, ...)`, which dispatches to `$body` compiled for `isa`.
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

/// Magnitudes up to this quantize to zero: the inverse of the scale could overflow.
pub(super) const NOTHING: f32 = 1e-30;
/// Independent partial sums: float addition is not associative, so the compiler vectorizes only
/// sums that are written this way.
const LANES: usize = 16;

dispatched! {
    /// Computes the dot product of two rows of equal length.
    pub(in crate::model) fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

/// Quantizes a row in blocks of 32: `scale = max |values| / 127`, `codes = round(values / scale)`.
pub(super) fn quantize(
    isa: Isa,
    values: &[f32],
    codes: &StridedMut<'_, BlockCodes>,
    numbers: &StridedMut<'_, BlockNumbers>,
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => avx512::quantize(values, codes, numbers),
        _ => quantize_with(isa, values, codes, numbers),
    }
}

dispatched! {
    /// [`quantize`] without intrinsics, vectorized by the compiler.
    fn quantize_with(
        values: &[f32],
        codes: &StridedMut<'_, BlockCodes>,
        numbers: &StridedMut<'_, BlockNumbers>,
    ) = quantize_body
}

dispatched! {
    /// Computes the RMS norm `out = x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019,
    /// arXiv:1910.07467).
    pub(in crate::model) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32])
        = rms_norm_body
}

dispatched! {
    /// Computes the gated activation `out = silu(gate) * up` with `silu(x) = x / (1 + exp(-x))`
    /// (Shazeer 2020, arXiv:2002.05202).
    pub(in crate::model) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body
}

dispatched! {
    /// Adds the input gradient of [`rms_norm`] for the output gradient `dy` to `dx`: with `s = 1 /
    /// sqrt(mean(x^2) + eps)` it is `s * (w dy - x * s^2 * mean(x w dy))`.
    pub(in crate::model) fn rms_norm_backward(
        x: &[f32],
        weight: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
    ) = rms_norm_backward_body
}

dispatched! {
    /// Replaces `gate` and `up` by their gradients in [`silu_mul`] for the output gradient `d`.
    /// With `s = 1 / (1 + exp(-gate))` they are `d * up * s * (1 + gate * (1 - s))` and `d * gate *
    /// s`.
    pub(in crate::model) fn silu_mul_backward(gate: &mut [f32], up: &mut [f32], d: &[f32])
        = silu_mul_backward_body
}

dispatched! {
    /// Adds element-wise: `to += from`.
    pub(in crate::model) fn add(from: &[f32], to: &mut [f32]) = add_body
}

dispatched! {
    /// Normalizes `weights`, which sum to `total`, to probabilities `p`, and replaces their
    /// gradient `d` by that of the scores: `p * (d - sum(p d))`.
    pub(super) fn softmax_backward(weights: &mut [f32], total: f32, d: &mut [f32])
        = softmax_backward_body
}

dispatched! {
    /// Replaces logits by their gradient `factor * (softmax - onehot(target))` and returns the
    /// cross-entropy in nats.
    pub(in crate::model) fn cross_entropy(logits: &mut [f32], target: usize, factor: f32) -> f32
        = cross_entropy_body
}

dispatched! {
    /// Replaces scores by `exp(score - max)` and returns their sum.
    pub(super) fn softmax_weights(scores: &mut [f32]) -> f32 = softmax_weights_body
}

dispatched! {
    /// Returns the maximum, or NaN if any value is NaN or positive infinity.
    pub(in crate::model) fn largest_if_sound(numbers: &[f32]) -> f32 = largest_if_sound_body
}

dispatched! {
    /// Applies RoPE to every head of a row, in the half-split form that pairs element `i` with `i +
    /// head_dim / 2` (Su et al. 2021, arXiv:2104.09864), and multiplies by `factor`.
    pub(in crate::model) fn rotate(row: &mut [f32], rotation: &RotaryAngles, factor: f32) = rotate_body
}

/// Sines and cosines of the RoPE angles of one position, `head_dim / 2` each.
pub(in crate::model) struct RotaryAngles {
    /// Sines of the angles.
    pub(in crate::model) sin: Vec<f32>,
    /// Cosines of the angles.
    pub(in crate::model) cos: Vec<f32>,
}

/// `a * b + c`, with a single rounding if `FMA`. Without FMA hardware `mul_add` would be a slow
/// library call.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    // Four vectors of partial sums hide the latency of FMA.
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
    // Halving the width maps to shuffles, and fixes the order of additions for every instruction
    // set.
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
fn quantize_body<const FMA: bool>(
    values: &[f32],
    codes: &StridedMut<'_, BlockCodes>,
    numbers: &StridedMut<'_, BlockNumbers>,
) {
    for (block, values) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
        // Without the sign, the bits of floats order like their values, with NaN above infinity. An
        // integer maximum therefore propagates NaN, which `f32::max` would drop.
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
        let inverse = if largest > NOTHING { 127.0 / largest } else { 0.0 };
        let mut rounded = [0_i32; BLOCK];
        for (rounded, value) in rounded.iter_mut().zip(values) {
            *rounded = (value * inverse).round_ties_even() as i32;
        }
        codes.set(block, rounded.map(|rounded| rounded as i8));
        let halves = [rounded[..16].iter().sum::<i32>(), rounded[16..].iter().sum()];
        numbers.set(block, BlockNumbers::new(largest / 127.0, halves));
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

#[inline(always)]
fn rms_norm_backward_body<const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
) {
    #[expect(clippy::cast_precision_loss, reason = "a row is short")]
    let n = x.len() as f32;
    let scale = 1.0 / (dot_body::<FMA>(x, x) / n + eps).sqrt();
    let mut lanes = [0_f32; LANES];
    let wide = x.as_chunks::<LANES>().0.len() * LANES;
    for first in (0..wide).step_by(LANES) {
        let part = first..first + LANES;
        let (x, weight, dy) = (&x[part.clone()], &weight[part.clone()], &dy[part]);
        for i in 0..LANES {
            lanes[i] = fma::<FMA>(x[i] * weight[i], dy[i], lanes[i]);
        }
    }
    let mut along = lanes.iter().sum::<f32>();
    for i in wide..x.len() {
        along += x[i] * weight[i] * dy[i];
    }
    // The derivative through the mean: the projection of `w dy` on `x`.
    let back = along * scale * scale / n;
    for (((dx, x), weight), dy) in dx.iter_mut().zip(x).zip(weight).zip(dy) {
        *dx += scale * (weight * dy - x * back);
    }
}

#[inline(always)]
fn silu_mul_backward_body<const FMA: bool>(gate: &mut [f32], up: &mut [f32], d: &[f32]) {
    for ((gate, up), d) in gate.iter_mut().zip(up).zip(d) {
        // silu'(g) = s (1 + g (1 - s)) with the sigmoid s.
        let s = 1.0 / (1.0 + exp::<FMA>(-*gate));
        let d_gate = d * *up * s * (1.0 + *gate * (1.0 - s));
        *up = d * *gate * s;
        *gate = d_gate;
    }
}

#[inline(always)]
fn add_body<const FMA: bool>(from: &[f32], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

#[inline(always)]
fn softmax_backward_body<const FMA: bool>(weights: &mut [f32], total: f32, d: &mut [f32]) {
    let inverse = 1.0 / total;
    let mean = dot_body::<FMA>(weights, d) * inverse;
    for (weight, d) in weights.iter_mut().zip(d) {
        *weight *= inverse;
        *d = *weight * (*d - mean);
    }
}

#[inline(always)]
fn cross_entropy_body<const FMA: bool>(logits: &mut [f32], target: usize, factor: f32) -> f32 {
    let largest = largest_if_sound_body::<FMA>(logits);
    // -ln softmax(target) = ln(sum exp(l - max)) - (l_target - max); the exponentials are then
    // reused for the gradient.
    let chosen = logits[target] - largest;
    let total = softmax_weights_body::<FMA>(logits);
    let scale = factor / total;
    for logit in logits.iter_mut() {
        *logit *= scale;
    }
    logits[target] -= factor;
    total.ln() - chosen
}

/// `e^x` with a relative error below 1e-5 for `|x| <= 87`. With `x log2(e) = n + f`, `|f| <= 1/2`:
/// `2^n` by setting exponent bits, `2^f = e^(f ln 2)` by a Taylor polynomial of degree 6.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// `1.5 * 2^23`: adding it rounds to an integer, which ends up in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    // Clamped to normal exponents, so that `127 + n` below stays in range.
    let power = (x * std::f32::consts::LOG2_E).clamp(-126.0, 126.0);
    let shifted = power + ROUND;
    let f = (power - (shifted - ROUND)) * std::f32::consts::LN_2;
    // Horner's scheme over the coefficients 1/6! to 1/0!.
    let mut sum = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = fma::<FMA>(sum, f, factor);
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    sum * f32::from_bits(exponent)
}

#[inline(always)]
fn rotate_body<const FMA: bool>(row: &mut [f32], rotation: &RotaryAngles, factor: f32) {
    let half = rotation.sin.len();
    for head in row.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        let angles = rotation.sin.iter().zip(&rotation.cos);
        for ((x, y), (sin, cos)) in first.iter_mut().zip(second).zip(angles) {
            (*x, *y) = ((*x * cos - *y * sin) * factor, (*y * cos + *x * sin) * factor);
        }
    }
}

#[inline(always)]
fn largest_if_sound_body<const FMA: bool>(numbers: &[f32]) -> f32 {
    let (wide, rest) = numbers.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut damaged = [0_u32; LANES];
    for chunk in wide {
        for i in 0..LANES {
            // A comparison instead of `f32::max`, whose NaN rules prevent `maxps`. It skips NaN,
            // which is recorded separately.
            largest[i] = if chunk[i] > largest[i] { chunk[i] } else { largest[i] };
            damaged[i] |= u32::from(chunk[i].is_nan());
        }
    }
    for (i, number) in rest.iter().enumerate() {
        largest[i] = largest[i].max(*number);
        damaged[i] |= u32::from(number.is_nan());
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let is_damaged = damaged.iter().any(|damaged| *damaged != 0) || largest == f32::INFINITY;
    if is_damaged { f32::NAN } else { largest }
}

#[inline(always)]
fn softmax_weights_body<const FMA: bool>(scores: &mut [f32]) -> f32 {
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
    fn exp_matches_std_within_1e_5() {
        for step in -2000..2000_i16 {
            let x = f32::from(step) * 0.04;
            let (ours, theirs) = (exp::<false>(x), x.exp());
            assert!((ours - theirs).abs() <= 1e-5 * theirs, "{x}: {ours} {theirs}");
        }
    }
}
