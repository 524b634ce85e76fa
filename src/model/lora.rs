//! Adapters as PEFT saves them, read for a loaded model (Hu et al. 2021, arXiv:2106.09685).
//!
//! A module's output becomes `W x + scaling * B (A x)`, with `scaling = alpha / rank`, or `alpha / sqrt(rank)` for
//! rank-stabilised LoRA (Kalajdzievski 2023, arXiv:2312.03732). What would be left out in silence is refused: other
//! kinds of adapters, tensors that belong nowhere, missing halves.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use half::bf16;
use half::f16;
use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use super::ModelError;
use super::kernels::Arena;
use super::kernels::LowRank;
use super::weights::Linears;
use super::weights::Shape;
use crate::rng::SplitMix64;

/// Adapters larger than this are refused before they are read.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// A loaded adapter: side paths for some linear layers.
pub struct Adapter {
    /// Tells loaded adapters apart; 0 is no adapter.
    number: u64,
    folder: PathBuf,
    /// Layer by layer, in the order of [`Linears::ALL`].
    sides: Vec<[Option<LowRank>; 7]>,
    head: Option<LowRank>,
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What is read of `adapter_config.json`. Fields that change what is computed and that Rune does not know how to
/// compute have to be absent or off.
#[derive(Deserialize)]
pub(super) struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f32>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

/// Options of PEFT that would change the sums, and the value at which each is off.
const UNSUPPORTED: [(&str, &str); 12] = [
    ("use_dora", "false"),
    ("use_qalora", "false"),
    ("use_bdlora", "null"),
    ("lora_bias", "false"),
    ("fan_in_fan_out", "false"),
    ("bias", "\"none\""),
    ("modules_to_save", "null"),
    ("layer_replication", "null"),
    ("trainable_token_indices", "null"),
    ("target_parameters", "null"),
    ("alora_invocation_tokens", "null"),
    ("arrow_config", "null"),
];

impl PeftConfig {
    /// Reads the settings of the PEFT folder at `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Adapter { path: folder.to_owned(), reason };
        let config = read(&folder.join("adapter_config.json"))?;
        let config: Self = serde_json::from_slice(&config)
            .map_err(|error| refuse(format!("adapter_config.json: {error}")))?;
        match config.unsupported() {
            Some(what) => Err(refuse(format!("it has {what}"))),
            None => Ok(config),
        }
    }

    /// Rank and scaling of all modules.
    pub(super) fn uniform(&self) -> Result<(usize, f32), String> {
        if self.rank_pattern.is_empty() && self.alpha_pattern.is_empty() {
            return self.of("");
        }
        Err("its modules differ in rank or alpha".to_owned())
    }

    /// The first option that is on and not supported.
    fn unsupported(&self) -> Option<String> {
        if self.peft_type != "LORA" {
            return Some(format!("the kind `{}`; Rune runs LORA", self.peft_type));
        }
        let off = |value: &serde_json::Value, off: &str| {
            let empty = value.as_array().is_some_and(Vec::is_empty);
            value.is_null()
                || empty
                || serde_json::from_str(off).is_ok_and(|off: serde_json::Value| *value == off)
        };
        let on =
            |(name, value): &(&str, &str)| self.others.get(*name).is_some_and(|v| !off(v, value));
        UNSUPPORTED
            .iter()
            .find(|option| on(option))
            .map(|(name, _)| format!("`{name}` switched on"))
    }

    /// Rank and scaling of a module.
    pub(super) fn of(&self, module: &str) -> Result<(usize, f32), String> {
        let rank = matching(&self.rank_pattern, module)?.unwrap_or(self.r);
        let alpha = matching(&self.alpha_pattern, module)?.unwrap_or(self.lora_alpha);
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let width = rank as f32;
        Ok((rank, alpha / if self.use_rslora { width.sqrt() } else { width }))
    }
}

/// The value of the first pattern that fits a module: the whole of its name, or the end of it from a dot on, as PEFT's
/// `get_pattern_key` has it.
fn matching<T: Copy>(patterns: &BTreeMap<String, T>, module: &str) -> Result<Option<T>, String> {
    for (pattern, value) in patterns {
        let whole = match pattern.strip_prefix('^') {
            Some(rest) => format!("^(?:{rest})$"),
            None => format!(r"^(?:.*\.)?(?:{pattern})$"),
        };
        let regex = regex::Regex::new(&whole);
        let regex = regex.map_err(|_| format!("`{pattern}` is no pattern of module names"))?;
        if regex.is_match(module) {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

impl Adapter {
    /// Reads the PEFT folder at `folder` for a model of `shape` with `vocabulary` tokens. `exact` keeps the numbers in
    /// `f32`; else they are rounded to half precision.
    pub(super) fn load(
        folder: &Path,
        shape: &Shape,
        vocabulary: usize,
        exact: bool,
    ) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Adapter { path: folder.to_owned(), reason };
        let config = PeftConfig::read(folder)?;
        let bytes = read(&folder.join("adapter_model.safetensors"))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| refuse(format!("adapter_model.safetensors: {error}")))?;
        let tensors = tensors.tensors().into_iter().collect();
        let mut reader = Reader { config: &config, tensors, arena: Arena::default() };
        let sides = reader.all(shape, exact).map_err(refuse)?;
        let head = reader.side("lm_head", (vocabulary, shape.hidden), exact).map_err(refuse)?;
        if let Some(name) = reader.tensors.keys().next() {
            return Err(refuse(format!("this model has no place for the tensor `{name}`")));
        }
        if head.is_none() && sides.iter().flatten().all(Option::is_none) {
            return Err(refuse("it has no tensors".to_owned()));
        }
        Ok(Self { number: next_number(), folder: folder.to_owned(), sides, head })
    }

    /// An adapter of noise on every linear layer of a model of `shape`: for measuring.
    pub(super) fn noise(shape: &Shape, rank: usize, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let mut numbers =
            |n: usize| -> Vec<f32> { (0..n).map(|_| (random.uniform() - 0.5) / 64.0).collect() };
        let mut arena = Arena::default();
        let mut side = |which: Linears| {
            let (rows, columns) = which.size(shape);
            let (a, b) = (numbers(rank * columns), numbers(rows * rank));
            Some(LowRank::new(&mut arena, rank, &a, &b, 1.0, false))
        };
        let sides = (0..shape.n_layers).map(|_| Linears::ALL.map(&mut side)).collect();
        Self { number: next_number(), folder: PathBuf::new(), sides, head: None }
    }

    /// The folder it was read from; empty for noise.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes in memory.
    pub fn n_bytes(&self) -> usize {
        self.sides.iter().flatten().chain([&self.head]).flatten().map(LowRank::n_bytes).sum()
    }

    /// A number of its own among all that were loaded, never 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What it adds to a linear layer.
    pub(super) fn side(&self, layer: usize, which: Linears) -> Option<&LowRank> {
        self.sides[layer][which as usize].as_ref()
    }

    /// What it adds to the head.
    pub(super) fn head(&self) -> Option<&LowRank> {
        self.head.as_ref()
    }
}

/// A number that no adapter had before.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Relaxed)
}

/// A file of an adapter, unless it is far too large for one.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let n_bytes = std::fs::metadata(path).map_err(io)?.len();
    if n_bytes > MAX_FILE_BYTES {
        return Err(io(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is too large")));
    }
    std::fs::read(path).map_err(io)
}

/// Takes tensors out of a file.
struct Reader<'a> {
    config: &'a PeftConfig,
    /// Tensors that have not found a place yet.
    tensors: BTreeMap<String, TensorView<'a>>,
    arena: Arena,
}

impl Reader<'_> {
    fn all(&mut self, shape: &Shape, exact: bool) -> Result<Vec<[Option<LowRank>; 7]>, String> {
        let mut sides = Vec::with_capacity(shape.n_layers);
        for layer in 0..shape.n_layers {
            let mut block = [const { None }; 7];
            for (which, side) in Linears::ALL.into_iter().zip(&mut block) {
                let module = format!("model.layers.{layer}.{}", which.module());
                *side = self.side(&module, which.size(shape), exact)?;
            }
            sides.push(block);
        }
        Ok(sides)
    }

    /// The side path of a module of `rows` outputs and `columns` inputs.
    fn side(
        &mut self,
        module: &str,
        (rows, columns): (usize, usize),
        exact: bool,
    ) -> Result<Option<LowRank>, String> {
        let name = |half: &str| format!("base_model.model.{module}.lora_{half}.weight");
        let halves = [name("A"), name("B")].map(|name| self.tensors.remove(&name));
        let (a, b) = match halves {
            [None, None] => return Ok(None),
            [Some(a), Some(b)] => (a, b),
            [None, _] => return Err(format!("`{}` is missing", name("A"))),
            [_, None] => return Err(format!("`{}` is missing", name("B"))),
        };
        let (rank, scaling) = self.config.of(module)?;
        let sizes = [("A", &a, [rank, columns]), ("B", &b, [rows, rank])];
        for (half, tensor, size) in sizes {
            if rank == 0 || tensor.shape() != size {
                let found = tensor.shape();
                return Err(format!("`{}` has the size {found:?}, expected {size:?}", name(half)));
            }
        }
        let [a, b] = [("A", a), ("B", b)].map(|(half, tensor)| {
            tensor_numbers(&tensor).map_err(|reason| format!("`{}` {reason}", name(half)))
        });
        Ok(Some(LowRank::new(&mut self.arena, rank, &a?, &b?, scaling, exact)))
    }
}

/// A tensor's numbers, all finite.
pub(crate) fn tensor_numbers(tensor: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = tensor.data();
    let numbers: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => {
            data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
        Dtype::BF16 => {
            data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
        }
        other => return Err(format!("is of type {other:?}; Rune reads F32, F16 and BF16")),
    };
    if numbers.iter().all(|number| number.is_finite()) {
        Ok(numbers)
    } else {
        Err("has numbers that are not finite".to_owned())
    }
}
