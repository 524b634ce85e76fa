//! Properties of merges, and PEFT's results.

use std::fs;
use std::path::Path;

use faer::Mat;
use faer::MatRef;
use half::bf16;
use half::f16;
use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use serde_json::json;

use super::elementwise::ElementwiseMerge;
use super::rule::ElementwiseRule;
use super::tiles::TileSource;
use super::*;
use crate::rng::SplitMix64;

const UP: &str = "model.layers.0.mlp.up_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";

/// A delta as its factors: A `(rank, inputs)`, B `(outputs, rank)`.
#[derive(Clone)]
struct Pair {
    module: &'static str,
    a: Mat<f32>,
    b: Mat<f32>,
}

impl Pair {
    fn random(module: &'static str, (n_out, n_in): (usize, usize), rank: usize, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let mut matrix = |rows, columns| {
            Mat::from_fn(rows, columns, |_, _| random.uniform() + random.uniform() - 1.0)
        };
        Self { module, a: matrix(rank, n_in), b: matrix(n_out, rank) }
    }

    /// The same delta in other factors.
    fn in_another_gauge(&self) -> Self {
        let rank = self.a.nrows();
        let gauge = Mat::from_fn(rank, rank, |row, column| match row.cmp(&column) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 2.0_f32,
            std::cmp::Ordering::Greater => 0.5,
        });
        let solved = faer::linalg::solvers::DenseSolveCore::inverse(&gauge.partial_piv_lu());
        Self { module: self.module, a: &gauge * &self.a, b: &self.b * solved }
    }
}

/// Bytes of a number.
type Encode = fn(f32) -> Vec<u8>;

fn bytes(matrix: &Mat<f32>, encode: Encode) -> Vec<u8> {
    let rows =
        (0..matrix.nrows()).flat_map(|row| (0..matrix.ncols()).map(move |column| (row, column)));
    rows.flat_map(|place| encode(matrix[place])).collect()
}

fn files_of(
    config: &Value,
    pairs: &[Pair],
    (dtype, encode): (Dtype, Encode),
) -> Result<PeftFiles, String> {
    let mut tensors = Vec::new();
    for Pair { module, a, b } in pairs {
        for (which, matrix) in [(LoraMatrix::A, a), (LoraMatrix::B, b)] {
            let shape = vec![matrix.nrows(), matrix.ncols()];
            tensors.push((peft::tensor_name(module, which), shape, bytes(matrix, encode)));
        }
    }
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    PeftFiles::parse(config.to_string().into_bytes(), safetensors::serialize(views, None).unwrap())
}

fn in_f32(value: f32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// An adapter with the scaling 1 unless `others` says otherwise.
fn parent(name: &str, weight: f64, pairs: &[Pair], others: &Value) -> MergeParent {
    let rank = pairs[0].a.nrows();
    let mut config = json!({ "peft_type": "LORA", "r": rank, "lora_alpha": rank });
    config.as_object_mut().unwrap().extend(others.as_object().cloned().unwrap_or_default());
    let files = files_of(&config, pairs, (Dtype::F32, in_f32)).unwrap();
    MergeParent::new(name, files, weight)
}

fn product(a: &Mat<f32>, b: &Mat<f32>, scaling: f64) -> Mat<f64> {
    let to_double = |matrix: &Mat<f32>| {
        Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, column| f64::from(matrix[(row, column)]))
    };
    faer::Scale(scaling) * (to_double(b) * to_double(a))
}

/// The delta of a module of the result.
fn delta(merged: &MergedAdapter, name: &str) -> Mat<f64> {
    let (_, module) = merged.modules.iter().find(|(module, _)| module == name).unwrap();
    let (n_out, n_in) = module.size;
    let a = MatRef::from_row_major_slice(&module.a, module.report.rank, n_in).to_owned();
    let b = MatRef::from_row_major_slice(&module.b, n_out, module.report.rank).to_owned();
    product(&a, &b, 1.0)
}

/// Relative distance of two matrices in the Frobenius norm.
fn distance(found: &Mat<f64>, wanted: &Mat<f64>) -> f64 {
    (found - wanted).norm_l2() / wanted.norm_l2().max(1e-12)
}

fn all(method: MergeMethod, space: MergeSpace) -> MergeRecipe {
    let is_whole = method == MergeMethod::Cat;
    let size = if is_whole { OutputSize::Energy(1.0) } else { OutputSize::Rank(64) };
    MergeRecipe { method, space, size, seed: 3, ..MergeRecipe::default() }
}

fn merge_all(parents: &[MergeParent], recipe: &MergeRecipe) -> Result<MergedAdapter, MergeError> {
    merge(parents, recipe, (1, &|_, _| ControlFlow::Continue(())))
}

const METHODS: [MergeMethod; 9] = [
    MergeMethod::Linear,
    MergeMethod::Iso,
    MergeMethod::Ties,
    MergeMethod::DareLinear,
    MergeMethod::DareTies,
    MergeMethod::Della,
    MergeMethod::Breadcrumbs,
    MergeMethod::Sce,
    MergeMethod::MagnitudePrune,
];

fn recipes() -> impl Iterator<Item = MergeRecipe> {
    METHODS
        .into_iter()
        .flat_map(|method| [all(method, MergeSpace::Delta), all(method, MergeSpace::Core)])
}

fn two_parents() -> [MergeParent; 2] {
    let one = [Pair::random(UP, (30, 20), 3, 1), Pair::random(DOWN, (20, 30), 3, 2)];
    let other = [Pair::random(UP, (30, 20), 5, 3)];
    [parent("one", 0.6, &one, &json!({})), parent("other", 0.5, &other, &json!({}))]
}

#[test]
fn sums_of_deltas_are_exact_for_all_ranks_and_scalings() {
    let one = Pair::random(UP, (30, 20), 3, 1);
    let other = Pair::random(UP, (30, 20), 5, 2);
    let parents = [
        parent(
            "one",
            0.5,
            std::slice::from_ref(&one),
            &json!({ "lora_alpha": 12, "use_rslora": true }),
        ),
        parent(
            "other",
            -0.25,
            std::slice::from_ref(&other),
            &json!({ "r": 8, "rank_pattern": { "up_proj": 5 }, "alpha_pattern": { "up_proj": 20 } }),
        ),
    ];
    let wanted = product(&one.a, &one.b, 0.5 * 12.0 / 3.0_f64.sqrt())
        + product(&other.a, &other.b, -0.25 * 20.0 / 5.0);
    for method in [MergeMethod::Linear, MergeMethod::Cat] {
        let merged = merge_all(&parents, &all(method, MergeSpace::Delta)).unwrap();
        let found = distance(&delta(&merged, UP), &wanted);
        assert!(found < 1e-6, "{method:?} {found}");
        let (_, report) = merged.reports().next().unwrap();
        assert!(report.error < 1e-6 && report.rank == 8, "{report:?}");
    }
}

#[test]
fn truncation_is_optimal_and_balanced() {
    let parents = two_parents();
    let recipe = MergeRecipe { size: OutputSize::Rank(4), ..MergeRecipe::default() };
    let exact =
        delta(&merge_all(&parents, &all(MergeMethod::Linear, MergeSpace::Delta)).unwrap(), UP);
    let values = exact.svd().unwrap();
    let values = values.S().column_vector();
    let best: f64 = (4..20).map(|index| values[index] * values[index]).sum::<f64>().sqrt();
    let merged = merge_all(&parents, &recipe).unwrap();
    let error = (delta(&merged, UP) - &exact).norm_l2();
    assert!(error <= best * (1.0 + 1e-6), "{error} {best}");
    let (_, report) = merged.reports().find(|(name, _)| *name == UP).unwrap();
    assert!((report.error - best / exact.norm_l2()).abs() < 1e-6);
    assert!(report.overlap.unwrap().iter().all(|overlap| (0.0..0.9).contains(overlap)));
    let (_, module) = &merged.modules[1];
    let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((norm(&module.a) / norm(&module.b) - 1.0).abs() < 1e-4);
    let share = MergeRecipe { size: OutputSize::Energy(0.9), ..MergeRecipe::default() };
    let merged = merge_all(&parents, &share).unwrap();
    let (_, report) = merged.reports().find(|(name, _)| *name == UP).unwrap();
    assert!(report.rank < 8 && report.captured >= 0.9, "{report:?}");
}

#[test]
fn factors_of_a_delta_do_not_matter() {
    let one = Pair::random(UP, (30, 20), 3, 1);
    let other = Pair::random(UP, (30, 20), 5, 2);
    let parents = |pairs: [&Pair; 2]| {
        pairs.map(|pair| parent("a", 0.5, std::slice::from_ref(pair), &json!({})))
    };
    for recipe in recipes() {
        // Random pruning depends on the digest of the file.
        if matches!(
            recipe.method,
            MergeMethod::DareLinear | MergeMethod::DareTies | MergeMethod::Della
        ) {
            continue;
        }
        let plain = merge_all(&parents([&one, &other]), &recipe).unwrap();
        let changed =
            merge_all(&parents([&one.in_another_gauge(), &other.in_another_gauge()]), &recipe)
                .unwrap();
        let found = distance(&delta(&changed, UP), &delta(&plain, UP));
        assert!(found < 1e-5, "{recipe:?} {found}");
    }
}

#[test]
fn one_adapter_stays_as_it_is_and_a_negative_weight_negates_it() {
    let one = Pair::random(UP, (30, 20), 3, 1);
    let exact = product(&one.a, &one.b, 1.0);
    for mut recipe in recipes() {
        if recipe.method == MergeMethod::Iso {
            continue;
        }
        recipe.density = 1.0;
        for weight in [1.0, -1.0] {
            let parents = [parent("one", weight, std::slice::from_ref(&one), &json!({}))];
            let merged = merge_all(&parents, &recipe).unwrap();
            let found = distance(&delta(&merged, UP), &(faer::Scale(weight) * &exact));
            // A mean over weights has no sign of its own, but keeps the direction.
            assert!(found < 1e-5, "{recipe:?} {weight} {found}");
        }
    }
    let twice =
        [1.0, -1.0].map(|weight| parent("one", weight, std::slice::from_ref(&one), &json!({})));
    let nothing = delta(&merge_all(&twice, &MergeRecipe::default()).unwrap(), UP);
    assert!(nothing.norm_l2() < 1e-6 * exact.norm_l2());
}

#[test]
fn results_are_equal_to_the_byte_for_any_order_and_number_of_threads() {
    let [one, other] = two_parents();
    let written = |parents: &[MergeParent], recipe: &MergeRecipe, n_threads| {
        let progress = |_, _| ControlFlow::Continue(());
        let files = merge(parents, recipe, (n_threads, &progress)).unwrap().files().unwrap();
        (files.config, files.tensors)
    };
    let cat = all(MergeMethod::Cat, MergeSpace::Delta);
    for recipe in recipes().chain([cat]) {
        let first = written(&[one.clone(), other.clone()], &recipe, 1);
        assert_eq!(written(&[other.clone(), one.clone()], &recipe, 3), first, "{recipe:?}");
        let reseeded = MergeRecipe { seed: 4, ..recipe.clone() };
        let is_random = matches!(
            recipe.method,
            MergeMethod::DareLinear | MergeMethod::DareTies | MergeMethod::Della
        );
        if is_random {
            assert_ne!(written(&[one.clone(), other.clone()], &reseeded, 1), first, "{recipe:?}");
        }
    }
}

#[test]
fn missing_modules_count_as_zero_and_ranks_may_differ() {
    let merged = merge_all(&two_parents(), &all(MergeMethod::Linear, MergeSpace::Delta)).unwrap();
    let reports: Vec<_> = merged.reports().collect();
    assert_eq!(
        (reports[0].0, reports[0].1.rank, &*reports[0].1.absent),
        (DOWN, 3, &["other".to_owned()][..])
    );
    assert_eq!((reports[1].0, reports[1].1.rank, reports[1].1.absent.len()), (UP, 8, 0));
    let read = merged.files().unwrap();
    assert_eq!(read.target_modules, ["down_proj", "up_proj"]);
    for (module, rank) in [(DOWN, 3), (UP, 8)] {
        let (_, size) = read.modules().find(|(name, _)| *name == module).unwrap();
        let factors = read.factors(module, size).unwrap().unwrap();
        assert!(factors.rank == rank && (factors.scaling - 1.0).abs() < 1e-6, "{module}");
    }
}

#[test]
fn degenerate_adapters_are_merged() {
    let zeros =
        |(n_out, n_in)| Pair { module: UP, a: Mat::zeros(2, n_in), b: Mat::zeros(n_out, 2) };
    for size in [(30, 20), (1, 20), (30, 1), (1, 1)] {
        let pairs = [zeros(size), Pair::random(UP, size, 2, 1)];
        for pair in &pairs {
            for recipe in recipes() {
                let parents = [0.5, 0.7]
                    .map(|weight| parent("a", weight, std::slice::from_ref(pair), &json!({})));
                let merged = merge_all(&parents, &recipe).unwrap();
                let found = delta(&merged, UP).norm_l2();
                assert!(found.is_finite(), "{recipe:?} {size:?}");
                assert!(pair.b.norm_l2() > 0.0 || found == 0.0, "{recipe:?} {size:?}");
                let (_, report) = merged.reports().next().unwrap();
                assert!(report.captured.is_finite() && report.error.is_finite(), "{report:?}");
            }
        }
    }
}

#[test]
fn half_precision_is_read_and_nan_is_refused() {
    let pair = Pair::random(UP, (30, 20), 3, 1);
    let config = json!({ "peft_type": "LORA", "r": 3, "lora_alpha": 3 });
    let exact = product(&pair.a, &pair.b, 1.0);
    let formats: [(Dtype, Encode); 2] = [
        (Dtype::F16, |value| f16::from_f32(value).to_le_bytes().to_vec()),
        (Dtype::BF16, |value| bf16::from_f32(value).to_le_bytes().to_vec()),
    ];
    for (format, tolerance) in formats.into_iter().zip([1e-3, 1e-2]) {
        let files = files_of(&config, std::slice::from_ref(&pair), format).unwrap();
        let parent = MergeParent::new("half", files, 1.0);
        let merged = merge_all(&[parent], &MergeRecipe::default()).unwrap();
        assert!(distance(&delta(&merged, UP), &exact) < tolerance, "{:?}", format.0);
    }
    let mut bad = pair;
    bad.a[(0, 0)] = f32::NAN;
    let error =
        merge_all(&[parent("bad", 1.0, &[bad], &json!({}))], &MergeRecipe::default()).unwrap_err();
    insta::assert_snapshot!(error, @"adapter `bad`: `base_model.model.model.layers.0.mlp.up_proj.lora_A.weight` contains values that are not finite");
}

#[test]
fn adapters_of_other_shapes_are_refused() {
    let parents = [(30, 20), (30, 21)].map(|size| {
        parent(
            if size.1 == 20 { "one" } else { "other" },
            1.0,
            &[Pair::random(UP, size, 2, 1)],
            &json!({}),
        )
    });
    let error = merge_all(&parents, &MergeRecipe::default()).unwrap_err();
    insta::assert_snapshot!(error, @"`model.layers.0.mlp.up_proj` has 30 outputs and 20 inputs in `one`, but 30 and 21 in `other`");
    assert!(matches!(merge_all(&[], &MergeRecipe::default()), Err(MergeError::NoParents)));
}

#[test]
fn random_pruning_is_unbiased() {
    let pair = Pair::random(UP, (12, 10), 2, 1);
    let exact = product(&pair.a, &pair.b, 1.0);
    let parents = [parent("one", 1.0, &[pair], &json!({}))];
    for method in [MergeMethod::DareLinear, MergeMethod::Della] {
        let mut mean = Mat::<f64>::zeros(12, 10);
        for seed in 0..1000 {
            let recipe = MergeRecipe { seed, density: 0.4, ..all(method, MergeSpace::Delta) };
            mean += faer::Scale(1e-3) * delta(&merge_all(&parents, &recipe).unwrap(), UP);
        }
        // The length of the mean in the direction of the delta.
        let inner: f64 = (0..12)
            .flat_map(|row| (0..10).map(move |column| (row, column)))
            .map(|place| mean[place] * exact[place])
            .sum();
        let length = inner / exact.norm_l2().powi(2);
        assert!((length - 1.0).abs() < 0.01, "{method:?} {length}");
    }
}

#[test]
fn as_many_entries_are_kept_as_the_density_says() {
    let mut random = SplitMix64::new(9);
    let entries: Vec<f32> = (0..1000).map(|_| random.uniform() - 0.5).collect();
    let source = TileSource::Matrices(vec![entries]);
    for (method, density, n_kept) in [
        (MergeMethod::MagnitudePrune, 0.3, 300),
        (MergeMethod::MagnitudePrune, 0.0005, 1),
        (MergeMethod::Breadcrumbs, 0.3, 300),
        (MergeMethod::Breadcrumbs, 0.995, 995),
    ] {
        let recipe = MergeRecipe { method, density, ..MergeRecipe::default() };
        let rule = ElementwiseRule::new(&recipe).unwrap();
        let merge = ElementwiseMerge::new(&source, (40, 25), rule, (&[(1.0, 0)], 0));
        let mut n = 0;
        merge.for_each_tile(|_, tile| n += tile.iter().filter(|entry| **entry != 0.0).count());
        assert_eq!(n, n_kept, "{method:?} {density}");
    }
}

#[test]
fn the_factor_of_the_whole_scales_b_alone() {
    let merged = |lambda| {
        let recipe = MergeRecipe { lambda, ..MergeRecipe::default() };
        merge_all(&two_parents(), &recipe).unwrap().modules.remove(1).1
    };
    let (one, half) = (merged(1.0), merged(0.5));
    assert_eq!(one.a, half.a);
    assert!(one.b.iter().zip(&half.b).all(|(one, half)| (one * 0.5 - half).abs() < 1e-7));
}

/// PEFT's results; see `make_cases.py`.
const PEFT_CASES: &str = "tests/fixtures/merge/peft.safetensors";
const PEFT_MODULES: [&str; 2] = ["layers.0.q_proj", "layers.0.down_proj"];
const PEFT_WEIGHTS: [f64; 3] = [0.5, 0.3, 0.7];
const PEFT_SCALINGS: [f64; 3] = [2.0, 2.0, 1.0];

fn matrix_of(tensors: &SafeTensors<'_>, name: &str) -> Mat<f32> {
    let view = tensors.tensor(name).unwrap();
    let values = peft::to_f32(&view)
        .unwrap_or_else(|| view.data().iter().map(|byte| f32::from(*byte)).collect());
    MatRef::from_row_major_slice(&values, view.shape()[0], view.shape()[1]).to_owned()
}

fn peft_parents(tensors: &SafeTensors<'_>) -> [MergeParent; 3] {
    [0, 1, 2].map(|index| {
        let pairs = PEFT_MODULES.map(|module| {
            let of = |factor: &str| matrix_of(tensors, &format!("in.{index}.{module}.{factor}"));
            Pair { module, a: of("lora_A"), b: of("lora_B") }
        });
        let alpha = PEFT_SCALINGS[index] * 4.0;
        let others = &json!({ "lora_alpha": alpha });
        parent(&index.to_string(), PEFT_WEIGHTS[index], &pairs, others)
    })
}

/// The recipe of a case such as `ties_svd_0.5_total`.
fn peft_recipe(case: &str) -> MergeRecipe {
    let words: Vec<&str> = case.split('_').collect();
    let density = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1.0);
    let method = match case.split("_svd").next().unwrap() {
        "ties" => MergeMethod::Ties,
        "dare_linear" => MergeMethod::DareLinear,
        "dare_ties" => MergeMethod::DareTies,
        "magnitude_prune" => MergeMethod::MagnitudePrune,
        _ => MergeMethod::Linear,
    };
    let election = match words.last() {
        Some(&"frequency") => SignElection::Frequency,
        _ => SignElection::Total,
    };
    let (semantics, size) = (MergeSemantics::Peft, OutputSize::Rank(4));
    MergeRecipe { method, density, size, semantics, election, ..MergeRecipe::default() }
}

#[test]
fn merges_of_peft_are_reproduced() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PEFT_CASES);
    let data = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&data).unwrap();
    let cases: BTreeSet<String> = tensors
        .names()
        .iter()
        .filter(|name| !name.starts_with("in.") && !name.contains(".mask."))
        .filter_map(|name| {
            PEFT_MODULES.iter().find_map(|module| name.strip_suffix(&format!(".{module}")))
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(cases.len(), 13);
    for case in &cases {
        let recipe = peft_recipe(case);
        for module in PEFT_MODULES {
            let found = if case.starts_with("dare") {
                with_masks(&tensors, case, module, &recipe)
            } else {
                delta(&merge_all(&peft_parents(&tensors), &recipe).unwrap(), module)
            };
            let wanted = matrix_of(&tensors, &format!("{case}.{module}"));
            let wanted = Mat::from_fn(wanted.nrows(), wanted.ncols(), |row, column| {
                f64::from(wanted[(row, column)])
            });
            let found = distance(&found, &wanted);
            assert!(found < 1e-5, "{case} {module} {found}");
        }
    }
}

/// Merges deltas that PEFT's own random masks have pruned, and truncates the result.
fn with_masks(
    tensors: &SafeTensors<'_>,
    case: &str,
    module: &str,
    recipe: &MergeRecipe,
) -> Mat<f64> {
    let mut size = (0, 0);
    let pruned = [0, 1, 2].map(|index| {
        let of = |factor: &str| matrix_of(tensors, &format!("in.{index}.{module}.{factor}"));
        let exact = product(&of("lora_A"), &of("lora_B"), PEFT_SCALINGS[index]);
        let mask = matrix_of(tensors, &format!("{case}.{module}.mask.{index}"));
        size = (exact.nrows(), exact.ncols());
        let entry = |row, column| {
            spectrum::single(exact[(row, column)] / recipe.density) * mask[(row, column)]
        };
        let places = (0..size.0).flat_map(|row| (0..size.1).map(move |column| (row, column)));
        places.map(|(row, column)| entry(row, column)).collect::<Vec<f32>>()
    });
    let source = TileSource::Matrices(pruned.to_vec());
    let rule = ElementwiseRule::new(&MergeRecipe { density: 1.0, ..recipe.clone() }).unwrap();
    let parents = PEFT_WEIGHTS.map(|weight| (weight, 0));
    let merge = ElementwiseMerge::new(&source, size, rule, (&parents, 0));
    let found = sketch::decompose(&merge, 4, 0).unwrap().truncated(4, 1.0);
    let a = MatRef::from_row_major_slice(&found.a, 4, size.1).to_owned();
    let b = MatRef::from_row_major_slice(&found.b, size.0, 4).to_owned();
    product(&a, &b, 1.0)
}

#[test]
fn a_merge_can_be_stopped() {
    let progress = |n_done, n_modules| {
        assert_eq!((n_done, n_modules), (1, 2));
        ControlFlow::Break(())
    };
    let stopped = merge(&two_parents(), &MergeRecipe::default(), (1, &progress));
    assert!(matches!(stopped, Err(MergeError::Stopped)), "{stopped:?}");
}

/// A module of several tiles and of more rows and columns than a sketch.
const LARGE: (usize, usize) = (600, 300);

#[test]
fn large_modules_are_merged_by_tiles_as_whole_matrices_are() {
    let pairs = [1, 2].map(|seed| Pair::random(UP, LARGE, 6, seed));
    let parents =
        pairs.each_ref().map(|pair| parent("a", 0.5, std::slice::from_ref(pair), &json!({})));
    let recipe = MergeRecipe {
        density: 0.3,
        size: OutputSize::Rank(8),
        ..all(MergeMethod::Ties, MergeSpace::Delta)
    };
    let found = delta(&merge_all(&parents, &recipe).unwrap(), UP);
    let exact = pairs.each_ref().map(|pair| product(&pair.a, &pair.b, 1.0));
    let largest = exact.each_ref().map(|delta| {
        let entries = (0..LARGE.0).flat_map(|row| (0..LARGE.1).map(move |column| (row, column)));
        let mut sizes: Vec<f64> = entries.map(|place| delta[place].abs()).collect();
        sizes.sort_by(|one, other| other.total_cmp(one));
        sizes[sizes.len() * 3 / 10 - 1]
    });
    let rule = ElementwiseRule::new(&recipe).unwrap();
    let whole = Mat::from_fn(LARGE.0, LARGE.1, |row, column| {
        let kept = [0, 1].map(|index| {
            let entry = exact[index][(row, column)];
            if entry.abs() >= largest[index] { spectrum::single(entry) } else { 0.0 }
        });
        f64::from(rule.merged(&kept, &[0.5, 0.5]))
    });
    let svd = whole.thin_svd().unwrap();
    let values = svd.S().column_vector();
    let rest: f64 = (8..300).map(|index| values[index] * values[index]).sum();
    let error = (&found - &whole).norm_l2();
    assert!(error < rest.sqrt() * 1.001, "{error} {}", rest.sqrt());
}

#[test]
fn random_pruning_divides_by_the_density_and_differs_between_tiles() {
    let pair = Pair::random(UP, LARGE, 2, 1);
    let delta = product(&pair.a, &pair.b, 1.0);
    let places = || (0..LARGE.0).flat_map(|row| (0..LARGE.1).map(move |column| (row, column)));
    let entries: Vec<f32> = places().map(|place| spectrum::single(delta[place])).collect();
    let recipe = MergeRecipe { density: 0.25, ..all(MergeMethod::DareLinear, MergeSpace::Delta) };
    let pruned = |source: &TileSource| {
        let rule = ElementwiseRule::new(&recipe).unwrap();
        let merge = ElementwiseMerge::new(source, LARGE, rule, (&[(1.0, 7)], 0));
        let mut all = Vec::new();
        merge.for_each_tile(|first, tile| {
            assert_eq!(first * LARGE.1, all.len());
            all.extend_from_slice(tile);
        });
        all
    };
    let whole = pruned(&TileSource::Matrices(vec![entries.clone()]));
    for (kept, entry) in whole.iter().zip(&entries) {
        assert!(*kept == 0.0 || (kept / entry - 4.0).abs() < 1e-5, "{kept} {entry}");
    }
    let n_kept = whole.iter().filter(|kept| **kept != 0.0).count();
    assert!((44_000..46_000).contains(&n_kept), "{n_kept}");
    let is_kept = |row: usize| whole[row * 300..][..300].iter().map(|kept| *kept != 0.0);
    assert!(!is_kept(0).eq(is_kept(256)), "another tile, other entries");
    let factors = tiles::DeltaFactors {
        a: bytes(&pair.a, in_f32)
            .as_chunks()
            .0
            .iter()
            .map(|chunk| f32::from_le_bytes(*chunk))
            .collect(),
        b: bytes(&pair.b, in_f32)
            .as_chunks()
            .0
            .iter()
            .map(|chunk| f32::from_le_bytes(*chunk))
            .collect(),
        rank: 2,
    };
    let by_tiles = pruned(&TileSource::Deltas(vec![factors]));
    assert!(whole.iter().zip(&by_tiles).all(|(one, other)| (one - other).abs() < 1e-4));
}

#[test]
fn rows_keep_a_chance_at_every_density() {
    let pair = Pair::random(UP, (30, 20), 2, 1);
    let parents = [parent("one", 1.0, &[pair], &json!({}))];
    for density in [0.01, 0.1, 0.9, 0.99] {
        let recipe = MergeRecipe { density, ..all(MergeMethod::Della, MergeSpace::Delta) };
        let merged = merge_all(&parents, &recipe).unwrap();
        assert!(delta(&merged, UP).norm_l2().is_finite(), "{density}");
    }
}

#[test]
fn parents_that_lack_a_module_vary_from_those_that_have_it() {
    let one = Pair::random(DOWN, (20, 30), 3, 2);
    let exact = product(&one.a, &one.b, 1.0);
    let recipe = all(MergeMethod::Sce, MergeSpace::Delta);
    let alone = [parent("one", 1.0, std::slice::from_ref(&one), &json!({}))];
    let merged = merge_all(&alone, &recipe).unwrap();
    assert!(distance(&delta(&merged, DOWN), &exact) < 1e-5, "one adapter stays as it is");
    // The variance beside a zero grows with the entry: the largest half is kept.
    let merged = merge_all(&two_parents(), &recipe).unwrap();
    let found = delta(&merged, DOWN);
    let places = || (0..20).flat_map(|row| (0..30).map(move |column| (row, column)));
    let mut sizes: Vec<f64> = places().map(|place| exact[place].abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let kept = Mat::from_fn(20, 30, |row, column| {
        let entry: f64 = exact[(row, column)];
        if entry.abs() >= sizes[300] { entry } else { 0.0 }
    });
    assert!(distance(&found, &kept) < 1e-5);
}

#[test]
fn results_beyond_single_precision_are_refused() {
    let refused = |weight, lambda| {
        let parents = [parent("one", weight, &[Pair::random(UP, (30, 20), 2, 1)], &json!({}))];
        let recipe = MergeRecipe { lambda, ..MergeRecipe::default() };
        merge_all(&parents, &recipe).unwrap_err().to_string()
    };
    insta::assert_snapshot!([
        refused(1e80, 1.0),
        refused(1.0, 1e39),
        refused(f64::INFINITY, 1.0),
    ].join("\n"), @"
    the merge of `model.layers.0.mlp.up_proj` is too large for single precision
    the merge of `model.layers.0.mlp.up_proj` is too large for single precision
    inf is not a weight
    ");
}
