//! Loads a model's dimensions and weights from its GGUF file.

use super::ModelError;
use super::gguf::GgufFile;
use super::gguf::MetadataValue;
use super::gguf::TensorInfo;
use super::kernels::Arena;
use super::kernels::DenseMatrix;
use super::kernels::PackSource;
use super::kernels::PackedMatrix;
use super::kernels::SharedMut;
use super::kernels::ThreadPool;
use super::kernels::WeightMatrix;

/// Dimensions and constants of a model, from the GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelShape {
    pub(super) n_layers: usize,
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) context: usize,
    pub(super) rope_base: f32,
    pub(super) eps: f32,
    /// Whether the rows of q and k are interleaved in the file (llama) and must be reordered.
    interleaved: bool,
}

impl ModelShape {
    pub(super) fn read(gguf: &GgufFile) -> Result<Self, ModelError> {
        let arch = gguf.text("general.architecture")?;
        let unsupported = |what| ModelError::Unsupported { path: gguf.path().to_owned(), what };
        if !matches!(arch, "llama" | "qwen2") {
            return Err(unsupported(format!("architecture `{arch}`")));
        }
        let key = |name: &str| format!("{arch}.{name}");
        // Silently ignoring any of these would load a model that answers nonsense.
        let scaling = gguf.get(&key("rope.scaling.type"));
        if scaling.is_some_and(|kind| *kind != MetadataValue::Text("none".to_owned()))
            || gguf.has_tensor("rope_freqs.weight")
        {
            return Err(unsupported("RoPE scaling".to_owned()));
        }
        if gguf.get(&key("expert_count")).is_some_and(|n| *n != MetadataValue::Int(0)) {
            return Err(unsupported("mixture of experts".to_owned()));
        }
        let hidden = gguf.count(&key("embedding_length"))?;
        let n_heads = gguf.count(&key("attention.head_count"))?;
        let n_kv_heads = gguf.count(&key("attention.head_count_kv"))?;
        let head_dim = hidden / n_heads;
        let shape = Self {
            n_layers: gguf.count(&key("block_count"))?,
            hidden,
            ffn: gguf.count(&key("feed_forward_length"))?,
            n_heads,
            n_kv_heads,
            head_dim,
            context: gguf.count(&key("context_length"))?,
            rope_base: match gguf.get(&key("rope.freq_base")) {
                Some(_) => gguf.float(&key("rope.freq_base"))?,
                None => 10_000.0,
            },
            eps: gguf.float(&key("attention.layer_norm_rms_epsilon"))?,
            interleaved: arch == "llama",
        };
        // Models whose heads are not `hidden / n_heads` wide, or rotate only a part, are not
        // supported.
        let is_head_dim = |name: &str| {
            let width = gguf.get(&key(name));
            width.is_none_or(|width| {
                i64::try_from(head_dim).is_ok_and(|n| *width == MetadataValue::Int(n))
            })
        };
        let fits = hidden.is_multiple_of(n_heads)
            && n_heads.is_multiple_of(n_kv_heads)
            && head_dim.is_multiple_of(2)
            && is_head_dim("rope.dimension_count")
            && is_head_dim("attention.key_length")
            && is_head_dim("attention.value_length")
            && shape.n_layers <= 1024;
        if fits {
            Ok(shape)
        } else {
            let n_layers = shape.n_layers;
            Err(unsupported(format!(
                "inconsistent dimensions: hidden size {hidden}, {n_heads} heads of {head_dim}, \
                 {n_kv_heads} KV heads, {n_layers} layers"
            )))
        }
    }

    /// RoPE frequencies `base^(-2i / head_dim)` for `i` in `0..head_dim / 2`, in radians per
    /// position (Su et al. 2021, arXiv:2104.09864).
    pub(super) fn frequencies(&self) -> Vec<f32> {
        let half = self.head_dim / 2;
        #[expect(clippy::cast_precision_loss, reason = "a head is small")]
        let speed = |i: usize| self.rope_base.powf(-(i as f32) / half as f32);
        (0..half).map(speed).collect()
    }

    /// Width of a token's keys (or values) in one layer.
    pub(super) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// In-memory format of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Packed integer codes, multiplied by quantized activations.
    Packed,
    /// `f32`: four to eight times the memory; the reference for tests.
    Exact,
}

/// A linear layer of a decoder block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinearKind {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl LinearKind {
    /// All kinds, in the order in which [`DecoderLayer`] stores them.
    pub(super) const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Module name within its block, as in Hugging Face checkpoints and PEFT.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The module's name in the whole model, such as `model.layers.0.self_attn.q_proj`.
    pub(super) fn path(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.module())
    }

    /// The module's own name, such as `q_proj`.
    pub(super) fn name(self) -> &'static str {
        self.module().rsplit('.').next().expect("a module has a name")
    }

    /// The tensor's name within its block in a GGUF file.
    pub(super) fn tensor(self) -> &'static str {
        match self {
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::Output => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    /// The row of a GGUF file that corresponds to row `row` of the matrix, or of an adapter's B.
    pub(super) fn row_in_file(self, shape: &ModelShape, row: usize) -> usize {
        let is_rotated = matches!(self, Self::Query | Self::Key);
        source_row((shape.interleaved && is_rotated).then_some(shape.head_dim), row)
    }

    /// `(output features, input features)`.
    pub(super) fn size(self, shape: &ModelShape) -> (usize, usize) {
        let ModelShape { hidden, ffn, .. } = *shape;
        match self {
            Self::Query | Self::Output => (hidden, hidden),
            Self::Key | Self::Value => (shape.kv_width(), hidden),
            Self::Gate | Self::Up => (ffn, hidden),
            Self::Down => (hidden, ffn),
        }
    }
}

/// One decoder block: attention and feed-forward with their norms.
pub(super) struct DecoderLayer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) ffn_norm: Vec<f32>,
    linears: [LinearLayer; 7],
}

impl DecoderLayer {
    /// Returns the linear layer of the given kind.
    pub(super) fn linear(&self, which: LinearKind) -> &LinearLayer {
        &self.linears[which as usize]
    }
}

/// A linear layer `y = W x + b`.
pub(super) struct LinearLayer {
    pub(super) matrix: WeightMatrix,
    pub(super) bias: Option<Vec<f32>>,
}

/// All weights of a model.
pub(super) struct ModelWeights {
    pub(super) embedding: WeightMatrix,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) final_norm: Vec<f32>,
    /// `None` when the head is tied to the embedding.
    head: Option<WeightMatrix>,
}

impl ModelWeights {
    /// Loads all tensors and checks their shapes.
    pub(super) fn load(
        gguf: &GgufFile,
        shape: &ModelShape,
        precision: Precision,
        pool: &mut ThreadPool,
    ) -> Result<Self, ModelError> {
        let mut loader = WeightLoader { gguf, precision, pool, arena: Arena::default() };
        let hidden = shape.hidden;
        let vocabulary = gguf.tensor("token_embd.weight")?.rows;
        let embedding = loader.matrix("token_embd.weight", (vocabulary, hidden), None)?;
        let head = if gguf.has_tensor("output.weight") {
            Some(loader.matrix("output.weight", (vocabulary, hidden), None)?)
        } else {
            None
        };
        let final_norm = loader.vector("output_norm.weight", hidden)?;
        let layers = (0..shape.n_layers).map(|index| loader.layer(index, shape));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Self { embedding, layers, final_norm, head })
    }

    /// Output head: maps hidden rows to logits.
    pub(super) fn head(&self) -> &WeightMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Size in memory, in bytes; norms and biases are not counted.
    pub(super) fn n_bytes(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| &layer.linears);
        self.embedding.n_bytes()
            + self.head.as_ref().map_or(0, WeightMatrix::n_bytes)
            + linears.map(|linear| linear.matrix.n_bytes()).sum::<usize>()
    }
}

/// Loads tensors, checking each against its expected shape.
struct WeightLoader<'a> {
    gguf: &'a GgufFile,
    precision: Precision,
    pool: &'a mut ThreadPool,
    arena: Arena,
}

impl WeightLoader<'_> {
    fn layer(&mut self, index: usize, shape: &ModelShape) -> Result<DecoderLayer, ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let mut linears = Vec::with_capacity(LinearKind::ALL.len());
        for which in LinearKind::ALL {
            let rotated = matches!(which, LinearKind::Query | LinearKind::Key);
            let interleaved = (shape.interleaved && rotated).then_some(shape.head_dim);
            let size = which.size(shape);
            linears.push(self.linear(&name(which.tensor()), size, interleaved)?);
        }
        Ok(DecoderLayer {
            attention_norm: self.vector(&name("attn_norm.weight"), shape.hidden)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), shape.hidden)?,
            linears: linears.try_into().unwrap_or_else(|_| unreachable!("one per entry of `ALL`")),
        })
    }

    fn checked(&self, name: &str, rows: usize, columns: usize) -> Result<TensorInfo, ModelError> {
        let info = self.gguf.tensor(name)?;
        if (info.rows, info.columns) == (rows, columns) {
            return Ok(info.clone());
        }
        Err(ModelError::Malformed {
            path: self.gguf.path().to_owned(),
            reason: format!(
                "tensor `{name}` has shape {} x {}, expected {rows} x {columns}",
                info.rows, info.columns
            ),
        })
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        let info = self.checked(name, 1, n)?;
        let mut values = vec![0.0; n];
        info.kind.dequantize(&self.gguf.read(&info)?, &mut values);
        Ok(values)
    }

    fn linear(
        &mut self,
        name: &str,
        shape: (usize, usize),
        interleaved: Option<usize>,
    ) -> Result<LinearLayer, ModelError> {
        let matrix = self.matrix(&format!("{name}.weight"), shape, interleaved)?;
        let bias_name = format!("{name}.bias");
        let bias = if self.gguf.has_tensor(&bias_name) {
            let plain = self.vector(&bias_name, shape.0)?;
            Some((0..shape.0).map(|row| plain[source_row(interleaved, row)]).collect())
        } else {
            None
        };
        Ok(LinearLayer { matrix, bias })
    }

    fn matrix(
        &mut self,
        name: &str,
        (rows, columns): (usize, usize),
        interleaved: Option<usize>,
    ) -> Result<WeightMatrix, ModelError> {
        let info = self.checked(name, rows, columns)?;
        let order = move |row| source_row(interleaved, row);
        if self.precision == Precision::Packed && info.kind.is_quantized() {
            let read = |at: usize, bytes: &mut [u8]| self.gguf.read_part(&info, at, bytes);
            let source = PackSource { kind: info.kind, read: &read, order: &order };
            let packed = PackedMatrix::new(self.pool, &mut self.arena, &source, (rows, columns));
            return packed.map(WeightMatrix::Packed).map_err(|source| self.gguf.unread(source));
        }
        let bytes = self.gguf.read(&info)?;
        let mut values = vec![0.0; rows * columns];
        let row_bytes = info.kind.row_bytes(columns).expect("checked when the file was opened");
        let out = SharedMut::new(&mut values);
        self.pool.run(rows, &|row| {
            let bytes = &bytes[order(row) * row_bytes..][..row_bytes];
            info.kind.dequantize(bytes, out.slice(row * columns, columns));
        });
        Ok(WeightMatrix::Dense(DenseMatrix::new(columns, values)))
    }
}

/// The row of the file that becomes row `row`. Llama GGUF files interleave the two halves of each
/// head (llama.cpp's `permute`); undoing that here lets every model, and every PEFT adapter, use
/// the half-split form of RoPE. `interleaved` is the head size.
fn source_row(interleaved: Option<usize>, row: usize) -> usize {
    let Some(head_dim) = interleaved else { return row };
    let (head, at) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + at % half * 2 + at / half
}
