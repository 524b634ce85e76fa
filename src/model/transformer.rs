//! The decoder of the Llama and Qwen2 families, from GGUF.
//!
//! Many rows are computed in one pass: whole prompts, or one token of each of several sequences. What a row
//! gives depends on its own sequence alone, bit for bit. Architecture: Touvron et al. 2023,
//! arXiv:2302.13971; Qwen2.5 report, arXiv:2412.15115. Grouped-query attention: arXiv:2305.13245.

use super::ModelError;
use super::gguf::Gguf;
use super::gguf::TensorInfo;
use super::gguf::Value;
use super::kernels::Activations;
use super::kernels::AttentionShape;
use super::kernels::Dense;
use super::kernels::Isa;
use super::kernels::Matrix;
use super::kernels::Packed;
use super::kernels::Pool;
use super::kernels::Product;
use super::kernels::SharedMut;
use super::kernels::attend;
use super::kernels::matmul;
use super::kernels::rms_norm;
use super::kernels::silu_mul;
use super::kv::KvCache;

/// Sizes of a model, read from its file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub(super) n_layers: usize,
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) context: usize,
    pub(super) rope_base: f32,
    pub(super) eps: f32,
    /// Whether rows of q and k stand interleaved in the file (llama) and have to be put apart.
    interleaved: bool,
}

impl Shape {
    fn read(gguf: &Gguf) -> Result<Self, ModelError> {
        let arch = gguf.text("general.architecture")?;
        let unsupported = |what| ModelError::Unsupported { path: gguf.path().to_owned(), what };
        if !matches!(arch, "llama" | "qwen2") {
            return Err(unsupported(format!(
                "the architecture `{arch}`; Rune runs llama and qwen2"
            )));
        }
        let key = |name: &str| format!("{arch}.{name}");
        let scaling = gguf.get(&key("rope.scaling.type"));
        if scaling.is_some_and(|kind| *kind != Value::Text("none".to_owned()))
            || gguf.has_tensor("rope_freqs.weight")
        {
            return Err(unsupported("scaled RoPE".to_owned()));
        }
        if gguf.get(&key("expert_count")).is_some_and(|n| *n != Value::Int(0)) {
            return Err(unsupported("a mixture of experts".to_owned()));
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
        let is_head_dim = |name: &str| {
            let width = gguf.get(&key(name));
            width.is_none_or(|width| i64::try_from(head_dim).is_ok_and(|n| *width == Value::Int(n)))
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
            Err(unsupported(format!("sizes that do not fit together: {shape:?}")))
        }
    }

    /// Numbers of a token's keys (or values) in one layer.
    pub(super) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// How weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As packed integer codes, multiplied by quantised activations.
    Packed,
    /// As `f32`: four to eight times the memory, the reference for tests.
    Exact,
}

struct Layer {
    attention_norm: Vec<f32>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    ffn_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

/// The weights, and the buffers of a pass.
pub(super) struct Transformer {
    pub(super) shape: Shape,
    isa: Isa,
    pool: Pool,
    embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    /// `None` where the embedding is the head as well.
    head: Option<Matrix>,
    /// Angular speeds of RoPE, `head_dim / 2` of them.
    frequencies: Vec<f32>,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    hidden: Vec<f32>,
    input: Activations,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    delta: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

/// New tokens of one sequence.
pub(super) struct Chunk<'a> {
    /// What the sequence has seen so far; the chunk is appended.
    pub(super) cache: &'a mut KvCache,
    /// The tokens, each below the vocabulary's size; at least one.
    pub(super) tokens: &'a [u32],
    /// Whether logits are wanted for every token and not for the last one alone.
    pub(super) all_logits: bool,
}

impl Transformer {
    /// Loads the weights.
    pub(super) fn load(
        gguf: &Gguf,
        precision: Precision,
        isa: Isa,
        n_threads: usize,
    ) -> Result<Self, ModelError> {
        let shape = Shape::read(gguf)?;
        // Instructions that the processor lacks must never be reached, whatever the caller says.
        let isa = if isa.is_available() { isa } else { Isa::Portable };
        let mut pool = Pool::new(n_threads);
        let mut loader = Loader { gguf, precision, pool: &mut pool };
        let (hidden, kv_width) = (shape.hidden, shape.kv_width());
        let embedding_info = gguf.tensor("token_embd.weight")?.clone();
        let vocabulary = embedding_info.rows;
        let embedding = loader.matrix("token_embd.weight", (vocabulary, hidden), None)?;
        let head = if gguf.has_tensor("output.weight") {
            Some(loader.matrix("output.weight", (vocabulary, hidden), None)?)
        } else {
            None
        };
        let final_norm = loader.vector("output_norm.weight", hidden)?;
        let mut layers = Vec::with_capacity(shape.n_layers);
        for index in 0..shape.n_layers {
            let name = |part: &str| format!("blk.{index}.{part}");
            let heads = shape.interleaved.then_some(shape.head_dim);
            layers.push(Layer {
                attention_norm: loader.vector(&name("attn_norm.weight"), hidden)?,
                query: loader.linear(&name("attn_q"), (hidden, hidden), heads)?,
                key: loader.linear(&name("attn_k"), (kv_width, hidden), heads)?,
                value: loader.linear(&name("attn_v"), (kv_width, hidden), None)?,
                output: loader.linear(&name("attn_output"), (hidden, hidden), None)?,
                ffn_norm: loader.vector(&name("ffn_norm.weight"), hidden)?,
                gate: loader.linear(&name("ffn_gate"), (shape.ffn, hidden), None)?,
                up: loader.linear(&name("ffn_up"), (shape.ffn, hidden), None)?,
                down: loader.linear(&name("ffn_down"), (hidden, shape.ffn), None)?,
            });
        }
        let half = shape.head_dim / 2;
        #[expect(clippy::cast_precision_loss, reason = "a head is small")]
        let frequencies =
            (0..half).map(|i| shape.rope_base.powf(-(i as f32) / half as f32)).collect();
        let scratch = Scratch::default();
        Ok(Self { shape, isa, pool, embedding, layers, final_norm, head, frequencies, scratch })
    }

    /// Tokens that have an embedding.
    pub(super) fn vocabulary(&self) -> usize {
        self.embedding.rows()
    }

    /// Bytes of all weights in memory.
    pub(super) fn n_bytes(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| {
            [
                &layer.query,
                &layer.key,
                &layer.value,
                &layer.output,
                &layer.gate,
                &layer.up,
                &layer.down,
            ]
        });
        self.embedding.n_bytes()
            + self.head.as_ref().map_or(0, Matrix::n_bytes)
            + linears.map(|linear| linear.matrix.n_bytes()).sum::<usize>()
    }

    /// The kernels in use.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that share the work.
    pub(super) fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// Appends every chunk to its sequence. Returns logits, `(wanted tokens, vocabulary)` row by row in the order
    /// of the chunks.
    pub(super) fn forward(&mut self, chunks: &mut [Chunk<'_>], logits: &mut Vec<f32>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let hidden = self.shape.hidden;
        let tokens: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.tokens).copied().collect();
        let n_rows = tokens.len();
        scratch.hidden.resize(n_rows * hidden, 0.0);
        for (token, row) in tokens.iter().zip(scratch.hidden.chunks_exact_mut(hidden)) {
            self.embedding.row(*token as usize, row);
        }
        let rotations = self.rotations(chunks);
        for index in 0..self.layers.len() {
            self.attention(index, chunks, &rotations, &mut scratch);
            self.feed_forward(index, n_rows, &mut scratch);
        }
        for chunk in chunks.iter_mut() {
            chunk.cache.advance(chunk.tokens);
        }
        self.logits(chunks, &mut scratch, logits);
        self.scratch = scratch;
    }

    /// Sine and cosine of every row's RoPE angles: `(n_rows, head_dim / 2)` pairs. Su et al. 2021,
    /// arXiv:2104.09864.
    fn rotations(&self, chunks: &[Chunk<'_>]) -> Vec<(f32, f32)> {
        let positions =
            chunks.iter().flat_map(|chunk| (0..chunk.tokens.len()).map(|i| chunk.cache.len() + i));
        #[expect(clippy::cast_precision_loss, reason = "positions stay below 2^24")]
        positions
            .flat_map(|at| self.frequencies.iter().map(move |f| (at as f32 * f).sin_cos()))
            .collect()
    }

    fn attention(
        &mut self,
        index: usize,
        chunks: &mut [Chunk<'_>],
        rotations: &[(f32, f32)],
        scratch: &mut Scratch,
    ) {
        let Self { shape, isa, pool, layers, .. } = self;
        let layer = &layers[index];
        let (hidden, kv_width, head_dim) = (shape.hidden, shape.kv_width(), shape.head_dim);
        let n_rows = scratch.hidden.len() / hidden;
        normalise(pool, *isa, shape, &layer.attention_norm, scratch);
        scratch.query.resize(n_rows * hidden, 0.0);
        scratch.key.resize(n_rows * kv_width, 0.0);
        scratch.value.resize(n_rows * kv_width, 0.0);
        let products = &mut [
            Product { matrix: &layer.query.matrix, out: &mut scratch.query },
            Product { matrix: &layer.key.matrix, out: &mut scratch.key },
            Product { matrix: &layer.value.matrix, out: &mut scratch.value },
        ];
        matmul(pool, *isa, &scratch.input, products);
        add_bias(&layer.query, &mut scratch.query);
        add_bias(&layer.key, &mut scratch.key);
        add_bias(&layer.value, &mut scratch.value);
        rotate(&mut scratch.query, hidden, head_dim, rotations);
        rotate(&mut scratch.key, kv_width, head_dim, rotations);

        let mut keys = scratch.key.as_slice();
        let mut values = scratch.value.as_slice();
        for chunk in chunks.iter_mut() {
            let n = chunk.tokens.len() * kv_width;
            chunk.cache.append(index, &keys[..n], &values[..n]);
            (keys, values) = (&keys[n..], &values[n..]);
        }

        // A row's sequence and the number of keys that it sees, its own included.
        let rows: Vec<(&KvCache, usize)> = chunks
            .iter()
            .flat_map(|chunk| {
                let cache = &*chunk.cache;
                (0..chunk.tokens.len()).map(move |i| (cache, cache.len() + i + 1))
            })
            .collect();
        let attended = SharedMut::new(scratch.input.reset(n_rows, hidden));
        let group = shape.n_heads / shape.n_kv_heads * head_dim;
        let query = &scratch.query;
        pool.run(n_rows * shape.n_kv_heads, &|unit| {
            // Late rows of a prompt see most: they go first, so that no thread is left with them at the end.
            let (row, head) = (n_rows - 1 - unit / shape.n_kv_heads, unit % shape.n_kv_heads);
            let (cache, n_keys) = rows[row];
            let (keys, values) = cache.layer(index);
            let shape = AttentionShape { head_dim, stride: kv_width, n_keys };
            let at = row * hidden + head * group;
            let from = head * head_dim;
            let out = attended.slice(at, group);
            attend(*isa, &query[at..][..group], &keys[from..], &values[from..], shape, out);
        });
        project_back(pool, *isa, &layer.output, scratch);
    }

    fn feed_forward(&mut self, index: usize, n_rows: usize, scratch: &mut Scratch) {
        let Self { shape, isa, pool, layers, .. } = self;
        let layer = &layers[index];
        normalise(pool, *isa, shape, &layer.ffn_norm, scratch);
        scratch.gate.resize(n_rows * shape.ffn, 0.0);
        scratch.up.resize(n_rows * shape.ffn, 0.0);
        let products = &mut [
            Product { matrix: &layer.gate.matrix, out: &mut scratch.gate },
            Product { matrix: &layer.up.matrix, out: &mut scratch.up },
        ];
        matmul(pool, *isa, &scratch.input, products);
        let (gate, up, ffn) = (&scratch.gate, &scratch.up, shape.ffn);
        let product = SharedMut::new(scratch.input.reset(n_rows, ffn));
        pool.run(n_rows, &|row| {
            let part = row * ffn..(row + 1) * ffn;
            silu_mul(*isa, &gate[part.clone()], &up[part.clone()], product.slice(part.start, ffn));
        });
        project_back(pool, *isa, &layer.down, scratch);
    }

    fn logits(&mut self, chunks: &[Chunk<'_>], scratch: &mut Scratch, logits: &mut Vec<f32>) {
        let hidden = self.shape.hidden;
        let mut wanted = Vec::new();
        let mut first = 0;
        for chunk in chunks {
            let end = first + chunk.tokens.len();
            wanted.extend(if chunk.all_logits { first..end } else { end - 1..end });
            first = end;
        }
        let rows = scratch.input.reset(wanted.len(), hidden);
        for (row, out) in wanted.iter().zip(rows.chunks_exact_mut(hidden)) {
            let x = &scratch.hidden[row * hidden..][..hidden];
            rms_norm(self.isa, x, &self.final_norm, self.shape.eps, out);
        }
        scratch.input.quantise(&mut self.pool, self.isa);
        let matrix = self.head.as_ref().unwrap_or(&self.embedding);
        logits.resize(wanted.len() * matrix.rows(), 0.0);
        let product = Product { matrix, out: logits };
        matmul(&mut self.pool, self.isa, &scratch.input, &mut [product]);
    }
}

/// Normalises the hidden rows into the input of the next product.
fn normalise(pool: &mut Pool, isa: Isa, shape: &Shape, weight: &[f32], scratch: &mut Scratch) {
    let hidden = shape.hidden;
    let n_rows = scratch.hidden.len() / hidden;
    let x = &scratch.hidden;
    let out = SharedMut::new(scratch.input.reset(n_rows, hidden));
    pool.run(n_rows, &|row| {
        let x = &x[row * hidden..][..hidden];
        rms_norm(isa, x, weight, shape.eps, out.slice(row * hidden, hidden));
    });
    scratch.input.quantise(pool, isa);
}

/// Quantises the input, multiplies it and adds the result to the hidden rows.
fn project_back(pool: &mut Pool, isa: Isa, linear: &Linear, scratch: &mut Scratch) {
    scratch.input.quantise(pool, isa);
    scratch.delta.resize(scratch.hidden.len(), 0.0);
    let product = Product { matrix: &linear.matrix, out: &mut scratch.delta };
    matmul(pool, isa, &scratch.input, &mut [product]);
    add_bias(linear, &mut scratch.delta);
    for (hidden, delta) in scratch.hidden.iter_mut().zip(&scratch.delta) {
        *hidden += delta;
    }
}

fn add_bias(linear: &Linear, out: &mut [f32]) {
    if let Some(bias) = &linear.bias {
        for row in out.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
}

/// Turns each head's halves against each other (the half-split form of RoPE).
fn rotate(rows: &mut [f32], width: usize, head_dim: usize, rotations: &[(f32, f32)]) {
    let half = head_dim / 2;
    for (row, rotations) in rows.chunks_exact_mut(width).zip(rotations.chunks_exact(half)) {
        for head in row.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(half);
            for ((x, y), (sin, cos)) in first.iter_mut().zip(second).zip(rotations) {
                (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
            }
        }
    }
}

/// Reads tensors and checks their shapes.
struct Loader<'a> {
    gguf: &'a Gguf,
    precision: Precision,
    pool: &'a mut Pool,
}

impl Loader<'_> {
    fn checked(&self, name: &str, rows: usize, columns: usize) -> Result<TensorInfo, ModelError> {
        let info = self.gguf.tensor(name)?;
        if (info.rows, info.columns) == (rows, columns) {
            return Ok(info.clone());
        }
        Err(ModelError::Malformed {
            path: self.gguf.path().to_owned(),
            reason: format!(
                "tensor `{name}` is {} x {}, expected {rows} x {columns}",
                info.rows, info.columns
            ),
        })
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        let info = self.checked(name, 1, n)?;
        let mut values = vec![0.0; n];
        info.kind.dequantise(&self.gguf.read(&info)?, &mut values);
        Ok(values)
    }

    fn linear(
        &mut self,
        name: &str,
        shape: (usize, usize),
        interleaved: Option<usize>,
    ) -> Result<Linear, ModelError> {
        let matrix = self.matrix(&format!("{name}.weight"), shape, interleaved)?;
        let bias_name = format!("{name}.bias");
        let bias = if self.gguf.has_tensor(&bias_name) {
            let plain = self.vector(&bias_name, shape.0)?;
            Some((0..shape.0).map(|row| plain[source_row(interleaved, row)]).collect())
        } else {
            None
        };
        Ok(Linear { matrix, bias })
    }

    fn matrix(
        &mut self,
        name: &str,
        (rows, columns): (usize, usize),
        interleaved: Option<usize>,
    ) -> Result<Matrix, ModelError> {
        let info = self.checked(name, rows, columns)?;
        let bytes = self.gguf.read(&info)?;
        let order = move |row| source_row(interleaved, row);
        if self.precision == Precision::Packed && info.kind.is_quantised() {
            let packed = Packed::new(self.pool, info.kind, &bytes, (rows, columns), &order);
            return Ok(Matrix::Packed(packed.expect("the type is quantised")));
        }
        let mut values = vec![0.0; rows * columns];
        let row_bytes = info.kind.row_bytes(columns).expect("checked when the file was opened");
        let out = SharedMut::new(&mut values);
        self.pool.run(rows, &|row| {
            let bytes = &bytes[order(row) * row_bytes..][..row_bytes];
            info.kind.dequantise(bytes, out.slice(row * columns, columns));
        });
        Ok(Matrix::Dense(Dense::new(columns, values)))
    }
}

/// The row of the file that becomes row `row`. Llama files hold the two halves of each head interleaved: undoing
/// that lets every model, and every PEFT adapter, use the half-split RoPE. `interleaved` is the width of a head.
fn source_row(interleaved: Option<usize>, row: usize) -> usize {
    let Some(head_dim) = interleaved else { return row };
    let (head, at) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + at % half * 2 + at / half
}
