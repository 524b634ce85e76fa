//! Compares every kernel with dequantization and multiplication in `f64`.

use half::f16;
use proptest::prelude::*;
use proptest::sample::select;

use super::Activations;
use super::Arena;
use super::AttentionBlock;
use super::DenseMatrix;
use super::HeadPage;
use super::Isa;
use super::KvElement;
use super::LoraBranch;
use super::LowRank;
use super::MatmulProduct;
use super::OutputMode;
use super::PAGE;
use super::PackSource;
use super::PackedMatrix;
use super::ThreadPool;
use super::WeightMatrix;
use super::attend;
use super::matmul;
use crate::model::quant::GgmlType;

const QUANTIZED: [GgmlType; 8] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q4K,
    GgmlType::Q5K,
    GgmlType::Q6K,
];

/// All instruction sets that this processor supports.
fn available() -> impl Iterator<Item = Isa> {
    [Isa::Avx512Vnni, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available())
}

/// Deterministic random bytes (`SplitMix64`, Steele et al. 2014).
fn random_bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 56) as u8
    })
    .take(n)
    .collect()
}

/// Block size in bytes, and the offsets of its `f16` fields.
fn scale_places(kind: GgmlType) -> (usize, &'static [usize]) {
    match kind {
        GgmlType::Q4_0 => (18, &[0]),
        GgmlType::Q4_1 => (20, &[0, 2]),
        GgmlType::Q5_0 => (22, &[0]),
        GgmlType::Q5_1 => (24, &[0, 2]),
        GgmlType::Q8_0 => (34, &[0]),
        GgmlType::Q4K => (144, &[0, 2]),
        GgmlType::Q5K => (176, &[0, 2]),
        GgmlType::Q6K => (210, &[208]),
        _ => unreachable!(),
    }
}

/// Random blocks with scales of ordinary magnitude.
fn weights(kind: GgmlType, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = random_bytes(rows as u64, kind.row_bytes(columns).unwrap() * rows);
    let (block, places) = scale_places(kind);
    for block in bytes.chunks_mut(block) {
        for &place in places {
            let scale = half::f16::from_f32(f32::from(block[place]) / 16384.0 + 0.001);
            block[place..place + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// Packs the blocks, with row `order(i)` of the bytes as row `i`.
fn packed_in_order(
    kind: GgmlType,
    bytes: &[u8],
    size: (usize, usize),
    order: &(dyn Fn(usize) -> usize + Sync),
) -> PackedMatrix {
    let read = |at: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[at..][..out.len()]);
        Ok(())
    };
    let source = PackSource { kind, read: &read, order };
    PackedMatrix::new(&mut ThreadPool::new(2), &mut Arena::default(), &source, size).unwrap()
}

/// Packs the blocks in file order.
fn packed(kind: GgmlType, bytes: &[u8], size: (usize, usize)) -> WeightMatrix {
    WeightMatrix::Packed(packed_in_order(kind, bytes, size, &|i| i))
}

fn inputs(n_rows: usize, columns: usize) -> Vec<f32> {
    let bytes = random_bytes(7, n_rows * columns);
    bytes
        .iter()
        .enumerate()
        .map(|(i, b)| (f32::from(*b) - 127.0) * [1.0, 2.0, 3.0, 4.0, 5.0][i % 5] / 64.0)
        .collect()
}

fn product(
    isa: Isa,
    n_threads: usize,
    matrix: &WeightMatrix,
    x: &[f32],
    n_rows: usize,
) -> Vec<f32> {
    let mut pool = ThreadPool::new(n_threads);
    let mut input = Activations::default();
    let columns = matrix.columns();
    input.fill(&mut pool, isa, (n_rows, columns), &|row, values| {
        values.copy_from_slice(&x[row * columns..][..columns]);
    });
    let mut out = vec![f32::NAN; n_rows * matrix.rows()];
    let (bias, branches, write) = (None, Vec::new(), OutputMode::Over);
    matmul(
        &mut pool,
        isa,
        &input,
        [MatmulProduct { matrix, bias, branches, out: &mut out, write }],
    );
    out
}

fn dequantized(kind: GgmlType, bytes: &[u8], rows: usize, columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; rows * columns];
    let row_bytes = kind.row_bytes(columns).unwrap();
    for (row, values) in values.chunks_mut(columns).enumerate() {
        kind.dequantize(&bytes[row * row_bytes..][..row_bytes], values);
    }
    values
}

#[test]
fn packed_products_match_dequantized_weights() {
    for kind in QUANTIZED {
        for (rows, columns, n_rows) in [(16, 256, 1), (5, 512, 3), (35, 768, 9), (160, 1024, 20)] {
            let bytes = weights(kind, rows, columns);
            let plain = dequantized(kind, &bytes, rows, columns);
            let x = inputs(n_rows, columns);
            let matrix = packed(kind, &bytes, (rows, columns));
            let portable = product(Isa::Portable, 1, &matrix, &x, n_rows);
            let others: Vec<_> =
                available().map(|isa| (isa, product(isa, 2, &matrix, &x, n_rows))).collect();
            for at in 0..n_rows * rows {
                let (m, row) = (at / rows, at % rows);
                let terms = plain[row * columns..][..columns].iter().zip(&x[m * columns..]);
                let exact: f64 = terms.clone().map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let size: f64 = terms.map(|(w, x)| (f64::from(*w) * f64::from(*x)).powi(2)).sum();
                let off = (f64::from(portable[at]) - exact).abs();
                assert!(off <= 0.1 * size.sqrt() + 1e-3, "{kind:?} at {at}: {off} of {exact}");
                for (isa, other) in &others {
                    let apart = f64::from((portable[at] - other[at]).abs());
                    assert!(apart <= 1e-4 * size.sqrt() + 1e-4, "{isa:?} {kind:?} {at}: {apart}");
                }
            }
        }
    }
}

#[test]
fn results_are_independent_of_threads_and_batch_size() {
    let (rows, columns) = (160, 1024);
    for kind in QUANTIZED {
        let bytes = weights(kind, rows, columns);
        let x = inputs(11, columns);
        let matrix = packed(kind, &bytes, (rows, columns));
        for isa in available() {
            let all = product(isa, 1, &matrix, &x, 11);
            assert_eq!(all, product(isa, 2, &matrix, &x, 11), "{isa:?} {kind:?}");
            for m in 0..11 {
                let alone = product(isa, 2, &matrix, &x[m * columns..][..columns], 1);
                assert_eq!(all[m * rows..][..rows], alone, "{isa:?} {kind:?} row {m}");
            }
        }
    }
}

#[test]
fn packed_rows_match_the_rows_of_the_file() {
    for kind in QUANTIZED {
        let (rows, columns) = (21, 512);
        let bytes = weights(kind, rows, columns);
        let plain = dequantized(kind, &bytes, rows, columns);
        let packed = packed_in_order(kind, &bytes, (rows, columns), &|i| rows - 1 - i);
        let mut row = vec![0.0; columns];
        for index in 0..rows {
            packed.row(index, &mut row);
            for (ours, theirs) in row.iter().zip(&plain[(rows - 1 - index) * columns..]) {
                // Sub-block scales are rounded to half precision: a relative error of 2^-11.
                assert!(
                    (ours - theirs).abs() <= 2e-3 + 1e-3 * theirs.abs(),
                    "{kind:?} {index} {ours} {theirs}"
                );
            }
        }
    }
}

#[test]
fn non_finite_activations_propagate_and_tiny_ones_are_zero() {
    let kind = GgmlType::Q4_1;
    let (rows, columns) = (16, 64);
    let bytes = weights(kind, rows, columns);
    let matrix = packed(kind, &bytes, (rows, columns));
    for isa in available() {
        for damage in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = inputs(1, columns);
            x[37] = damage;
            let out = product(isa, 1, &matrix, &x, 1);
            assert!(out.iter().all(|y| !y.is_finite()), "{damage}: {out:?}");
        }
        for tiny in [0.0, 1e-45, 1e-38, -1e-37, 1e-31] {
            let out = product(isa, 1, &matrix, &[tiny; 64], 1);
            assert!(out.iter().all(|y| y.abs() < 1e-25), "{tiny}: {out:?}");
        }
    }
}

#[test]
fn dense_products_are_exact() {
    let (rows, columns, n_rows) = (37, 131, 3);
    let weights = inputs(rows, columns);
    let x = inputs(n_rows, columns);
    let matrix = WeightMatrix::Dense(DenseMatrix::new(columns, weights.clone()));
    for isa in available() {
        let out = product(isa, 2, &matrix, &x, n_rows);
        for at in 0..n_rows * rows {
            let terms =
                weights[at % rows * columns..][..columns].iter().zip(&x[at / rows * columns..]);
            let exact: f64 = terms.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            assert!((f64::from(out[at]) - exact).abs() < 1e-3, "{at}");
        }
    }
}

/// Extreme codes of one sign in weights and activations: no intermediate sum may saturate.
#[test]
fn largest_codes_do_not_saturate() {
    let (rows, columns) = (16, 256);
    for kind in QUANTIZED {
        for byte in [0x00, 0x7F, 0x80, 0xFF] {
            let mut bytes = weights(kind, rows, columns);
            let scales = scale_places(kind);
            for block in bytes.chunks_mut(scales.0) {
                for (at, value) in block.iter_mut().enumerate() {
                    if !scales.1.iter().any(|place| (*place..place + 2).contains(&at)) {
                        *value = byte;
                    }
                }
            }
            let plain = dequantized(kind, &bytes, rows, columns);
            let matrix = packed(kind, &bytes, (rows, columns));
            for sign in [1.0, -1.0] {
                let x = vec![sign * 3.0; 9 * columns];
                for isa in available() {
                    let out = product(isa, 1, &matrix, &x, 9);
                    for (at, y) in out.iter().enumerate() {
                        let row = &plain[at % rows * columns..][..columns];
                        let exact: f64 =
                            row.iter().map(|w| f64::from(*w) * 3.0 * f64::from(sign)).sum();
                        let size: f64 = row.iter().map(|w| f64::from(w.abs()) * 3.0).sum();
                        let off = (f64::from(*y) - exact).abs();
                        assert!(
                            off <= 2e-3 * size + 1e-3,
                            "{isa:?} {kind:?} {byte:x}: {y} {exact}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn tiny_huge_and_zero_scales_give_correct_products() {
    let (rows, columns, n_rows) = (16, 256, 9);
    for kind in QUANTIZED {
        for scale in [0.0, 6e-8, 1e-4, 50.0, -50.0] {
            let mut bytes = weights(kind, rows, columns);
            let (size, places) = scale_places(kind);
            for block in bytes.chunks_mut(size) {
                for &place in places {
                    block[place..place + 2]
                        .copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
                }
            }
            let plain = dequantized(kind, &bytes, rows, columns);
            let matrix = packed(kind, &bytes, (rows, columns));
            for factor in [1e-20, 1.0, 1e20] {
                let x: Vec<f32> = inputs(n_rows, columns).iter().map(|x| x * factor).collect();
                for isa in available() {
                    let out = product(isa, 1, &matrix, &x, n_rows);
                    for (at, y) in out.iter().enumerate() {
                        let terms = plain[at % rows * columns..][..columns]
                            .iter()
                            .zip(&x[at / rows * columns..])
                            .map(|(w, x)| f64::from(*w) * f64::from(*x));
                        let size: f64 = terms.clone().map(|term| term.powi(2)).sum();
                        // Sub-block scales are rounded to half precision, which underflows below
                        // 6e-8.
                        let rounding = 2e-6 * f64::from(factor) * 640.0;
                        let off = (f64::from(*y) - terms.sum::<f64>()).abs();
                        assert!(
                            off <= 0.1 * size.sqrt() + rounding,
                            "{isa:?} {kind:?} {scale} {factor}: {off} of {}",
                            size.sqrt()
                        );
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// For arbitrary bytes no kernel panics, and all agree, including on whether a result is
    /// finite.
    #[test]
    fn random_blocks_give_equal_results_on_any_isa(
        kind in select(QUANTIZED.to_vec()),
        (rows, n_super, n_rows) in (1..40_usize, 1..3_usize, 1..20_usize),
        seed: u64,
    ) {
        let columns = n_super * 256;
        let bytes = random_bytes(seed, kind.row_bytes(columns).unwrap() * rows);
        let x = inputs(n_rows, columns);
        let matrix = packed(kind, &bytes, (rows, columns));
        let portable = product(Isa::Portable, 1, &matrix, &x, n_rows);
        let mut row = vec![0.0; columns];
        for isa in available() {
            let out = product(isa, 2, &matrix, &x, n_rows);
            for (at, (y, reference)) in out.iter().zip(&portable).enumerate() {
                matrix.row(at % rows, &mut row);
                let terms = row.iter().zip(&x[at / rows * columns..]);
                let size: f32 = terms.map(|(w, x)| (w * x).abs()).sum();
                prop_assert_eq!(y.is_finite(), reference.is_finite(), "{:?} {:?} {}", isa, kind, at);
                if reference.is_finite() {
                    let off = (y - reference).abs();
                    prop_assert!(off <= 1e-4 * size + 1e-4, "{isa:?} {kind:?} {at}: {off} of {size}");
                }
            }
        }
    }
}

#[test]
fn attention_matches_its_definition() {
    attention::<f32>();
    attention::<f16>();
}

fn attention<T: KvElement>() {
    let (head_dim, n_heads, n_positions, first_keys) = (20, 3, 5, 37);
    let n_keys = first_keys + n_positions - 1;
    let numbers = inputs(2 * n_keys, head_dim);
    let mut held = vec![T::default(); numbers.len()];
    T::round(&numbers, &mut held);
    let numbers: Vec<f32> = held.iter().map(|number| number.widened()).collect();
    let (keys, values) = numbers.split_at(n_keys * head_dim);
    let (held_keys, held_values) = held.split_at(n_keys * head_dim);
    let stride = n_heads * head_dim + 4;
    let queries: Vec<f32> = inputs(n_positions, stride).iter().map(|x| x / 8.0).collect();
    let pages: Vec<(Vec<T>, Vec<T>)> = (0..n_keys.div_ceil(PAGE))
        .map(|page| {
            let [mut k, mut v] = [(); 2].map(|()| vec![T::default(); head_dim * PAGE]);
            for token in page * PAGE..n_keys.min((page + 1) * PAGE) {
                for i in 0..head_dim {
                    k[i * PAGE + token % PAGE] = held_keys[token * head_dim + i];
                    v[token % PAGE * head_dim + i] = held_values[token * head_dim + i];
                }
            }
            (k, v)
        })
        .collect();
    for isa in available() {
        let block = AttentionBlock {
            head_dim,
            n_heads,
            n_keys: first_keys..first_keys + n_positions,
            queries: &queries,
            stride,
        };
        let pages = pages.iter().map(|(keys, values)| HeadPage { keys, values });
        let mut n_done = 0;
        attend(isa, &block, pages, |position, results| {
            n_done += 1;
            for (at, result) in results.iter().enumerate() {
                let (head, i) = (at / head_dim, at % head_dim);
                let query = &queries[position * stride + head * head_dim..][..head_dim];
                let score = |token: usize| -> f64 {
                    let key = &keys[token * head_dim..][..head_dim];
                    query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
                };
                let scores: Vec<f64> = (0..first_keys + position).map(score).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                let expected: f64 = (0..weights.len())
                    .map(|token| weights[token] / total * f64::from(values[token * head_dim + i]))
                    .sum();
                assert!((f64::from(*result) - expected).abs() < 1e-3, "{isa:?} {position} {at}");
            }
        });
        assert_eq!(n_done, n_positions);
    }
}

/// `0.5 * B A x` in `f64`, and the sum of the magnitudes of its terms.
fn branch_reference((a, b): (&[f32], &[f32]), rank: usize, x: &[f32], row: usize) -> (f64, f64) {
    let (mut sum, mut size) = (0.0, 0.0);
    for (a, b) in a.chunks_exact(x.len()).zip(&b[row * rank..][..rank]) {
        for (a, x) in a.iter().zip(x) {
            let product = 0.5 * f64::from(*a) * f64::from(*b) * f64::from(*x);
            sum += product;
            size += product.abs();
        }
    }
    (sum, size)
}

#[test]
fn lora_branches_add_b_a_x_to_their_rows_alone() {
    let (rows, n_rows) = (37, 80);
    // Inputs that don't fill whole blocks are never quantized.
    for (columns, exact, bound) in [(131, false, 1e-6), (128, true, 1e-6), (128, false, 5e-3)] {
        let matrix = WeightMatrix::Dense(DenseMatrix::new(columns, inputs(rows, columns)));
        let x = inputs(n_rows, columns);
        // Branches longer than a group of rows and than a down-projection unit, with ranks of
        // different numbers of blocks.
        let ranges = [(1..4, 1), (4..13, 40), (14..79, 16)];
        let factors = ranges.clone().map(|(_, rank)| (inputs(rank, columns), inputs(rows, rank)));
        let mut arena = Arena::default();
        let paths = ranges.clone().map(|(_, rank)| rank).into_iter().zip(&factors);
        let paths: Vec<_> =
            paths.map(|(rank, (a, b))| LowRank::new(&mut arena, rank, a, b, 0.5, exact)).collect();
        for isa in available() {
            let mut pool = ThreadPool::new(2);
            let mut input = Activations::default();
            input.fill(&mut pool, isa, (n_rows, columns), &|row, values| {
                values.copy_from_slice(&x[row * columns..][..columns]);
            });
            let base = product(isa, 1, &matrix, &x, n_rows);
            let mut out = vec![f32::NAN; n_rows * rows];
            let branches = ranges.iter().zip(&paths);
            let branches = branches
                .map(|((rows, _), low_rank)| LoraBranch { rows: rows.clone(), low_rank })
                .collect();
            let product = MatmulProduct {
                matrix: &matrix,
                bias: None,
                branches,
                out: &mut out,
                write: OutputMode::Over,
            };
            matmul(&mut pool, isa, &input, [product]);
            for (at, (with, without)) in out.iter().zip(&base).enumerate() {
                let (m, row) = (at / rows, at % rows);
                let Some(branch) = ranges.iter().position(|(rows, _)| rows.contains(&m)) else {
                    assert_eq!(with.to_bits(), without.to_bits(), "{isa:?} {m}");
                    continue;
                };
                let ((a, b), rank) = (&factors[branch], ranges[branch].1);
                let x = &x[m * columns..][..columns];
                let (added, size) = branch_reference((a, b), rank, x, row);
                let off = (f64::from(*with) - f64::from(*without) - added).abs();
                assert!(off <= bound * size + 1e-3, "{isa:?} {rank} {at}: {off} of {size}");
            }
        }
    }
}
