//! Every kernel against dequantise-then-multiply in `f64`.

use super::Activations;
use super::Arena;
use super::Dense;
use super::Isa;
use super::Matrix;
use super::Packed;
use super::Pool;
use super::Product;
use super::Write;
use super::matmul;
use crate::model::quant::GgmlType;

const QUANTISED: [GgmlType; 8] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q4K,
    GgmlType::Q5K,
    GgmlType::Q6K,
];

/// All instruction sets that this processor has.
fn available() -> impl Iterator<Item = Isa> {
    [Isa::Avx512Vnni, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available())
}

/// Repeatable random bytes (Steele et al. 2014, `SplitMix64`).
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

/// Random blocks whose scales are ordinary numbers.
fn weights(kind: GgmlType, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = random_bytes(rows as u64, kind.row_bytes(columns).unwrap() * rows);
    let (block, places): (usize, &[usize]) = match kind {
        GgmlType::Q4_0 => (18, &[0]),
        GgmlType::Q4_1 => (20, &[0, 2]),
        GgmlType::Q5_0 => (22, &[0]),
        GgmlType::Q5_1 => (24, &[0, 2]),
        GgmlType::Q8_0 => (34, &[0]),
        GgmlType::Q4K => (144, &[0, 2]),
        GgmlType::Q5K => (176, &[0, 2]),
        GgmlType::Q6K => (210, &[208]),
        _ => unreachable!(),
    };
    for block in bytes.chunks_mut(block) {
        for &place in places {
            let scale = half::f16::from_f32(f32::from(block[place]) / 16384.0 + 0.001);
            block[place..place + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

fn inputs(n_rows: usize, columns: usize) -> Vec<f32> {
    let bytes = random_bytes(7, n_rows * columns);
    bytes
        .iter()
        .enumerate()
        .map(|(i, b)| (f32::from(*b) - 127.0) * [1.0, 2.0, 3.0, 4.0, 5.0][i % 5] / 64.0)
        .collect()
}

fn product(isa: Isa, n_threads: usize, matrix: &Matrix, x: &[f32], n_rows: usize) -> Vec<f32> {
    let mut pool = Pool::new(n_threads);
    let mut input = Activations::default();
    let columns = matrix.columns();
    input.fill(&mut pool, isa, (n_rows, columns), &|row, values| {
        values.copy_from_slice(&x[row * columns..][..columns]);
    });
    let mut out = vec![f32::NAN; n_rows * matrix.rows()];
    let (bias, sides, write) = (None, Vec::new(), Write::Over);
    matmul(&mut pool, isa, &input, [Product { matrix, bias, sides, out: &mut out, write }]);
    out
}

fn dequantised(kind: GgmlType, bytes: &[u8], rows: usize, columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; rows * columns];
    let row_bytes = kind.row_bytes(columns).unwrap();
    for (row, values) in values.chunks_mut(columns).enumerate() {
        kind.dequantise(&bytes[row * row_bytes..][..row_bytes], values);
    }
    values
}

#[test]
fn packed_products_are_those_of_the_dequantised_weights() {
    for kind in QUANTISED {
        for (rows, columns, n_rows) in [(16, 256, 1), (5, 512, 3), (35, 768, 9), (160, 1024, 20)] {
            let bytes = weights(kind, rows, columns);
            let plain = dequantised(kind, &bytes, rows, columns);
            let x = inputs(n_rows, columns);
            let packed = Packed::new(
                &mut Pool::new(2),
                &mut Arena::default(),
                kind,
                &bytes,
                (rows, columns),
                &|i| i,
            )
            .unwrap();
            let matrix = Matrix::Packed(packed);
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
fn results_depend_neither_on_threads_nor_on_the_number_of_rows() {
    let (rows, columns) = (160, 1024);
    for kind in QUANTISED {
        let bytes = weights(kind, rows, columns);
        let x = inputs(11, columns);
        let packed = Packed::new(
            &mut Pool::new(1),
            &mut Arena::default(),
            kind,
            &bytes,
            (rows, columns),
            &|i| i,
        )
        .unwrap();
        let matrix = Matrix::Packed(packed);
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
fn a_row_of_a_packed_matrix_is_the_row_of_the_file() {
    for kind in QUANTISED {
        let (rows, columns) = (21, 512);
        let bytes = weights(kind, rows, columns);
        let plain = dequantised(kind, &bytes, rows, columns);
        let packed = Packed::new(
            &mut Pool::new(1),
            &mut Arena::default(),
            kind,
            &bytes,
            (rows, columns),
            &|i| rows - 1 - i,
        )
        .unwrap();
        let mut row = vec![0.0; columns];
        for index in 0..rows {
            packed.row(index, &mut row);
            for (ours, theirs) in row.iter().zip(&plain[(rows - 1 - index) * columns..]) {
                // A scale is rounded to half precision: 2^-11 of up to 63 scales.
                assert!(
                    (ours - theirs).abs() <= 2e-3 + 1e-3 * theirs.abs(),
                    "{kind:?} {index} {ours} {theirs}"
                );
            }
        }
    }
}

#[test]
fn activations_beyond_numbers_are_not_lost_and_tiny_ones_count_as_zero() {
    let kind = GgmlType::Q4_1;
    let (rows, columns) = (16, 64);
    let bytes = weights(kind, rows, columns);
    let packed = Packed::new(
        &mut Pool::new(1),
        &mut Arena::default(),
        kind,
        &bytes,
        (rows, columns),
        &|i| i,
    )
    .unwrap();
    let matrix = Matrix::Packed(packed);
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
    let matrix = Matrix::Dense(Dense::new(columns, weights.clone()));
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
