//! The same job on libtorch, for NVIDIA GPUs.
//!
//! Only the passes are computed there: the base in bf16 (or f32), the adapter in f32. The trainable
//! numbers stay in memory, so that optimizer, checkpoints and what comes out are those of the other
//! way.

use tch::Device;
use tch::Kind;
use tch::TchError;
use tch::Tensor;

use crate::model::DenseLayer;
use crate::model::DenseModel;
use crate::model::ParameterPart;
use crate::model::Precision;
use crate::model::TensorPlace;
use crate::model::TrainBatch;
use crate::model::TunerOptions;

use super::TrainingError;
use super::backend::TrainBackend;

impl From<TchError> for TrainingError {
    fn from(error: TchError) -> Self {
        Self::Device(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// A linear layer of the base on the device: weights `(outputs, inputs)`, bias.
struct TorchLinear {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// A block of the base on the device.
struct TorchBlock {
    attention_norm: Tensor,
    ffn_norm: Tensor,
    linears: Vec<TorchLinear>,
}

/// The base on a device and an adapter in memory.
pub(super) struct TorchTuner {
    model: DenseModel,
    options: TunerOptions,
    device: Device,
    kind: Kind,
    embedding: Tensor,
    head: Tensor,
    final_norm: Tensor,
    blocks: Vec<TorchBlock>,
    places: Vec<TensorPlace>,
    values: Vec<f32>,
    gradients: Vec<f32>,
}

/// The adapter on the device: A `(inputs, rank)` and B `(outputs, rank)` of every linear layer that
/// has them.
struct TorchAdapter {
    leaves: Vec<Tensor>,
    /// Which two leaves belong to a layer's linear layer, seven a block.
    pairs: Vec<Option<(usize, usize)>>,
}

/// What is the same for all blocks of a pass.
struct TorchPass {
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    dropout: f64,
}

impl TorchTuner {
    /// Puts the base on the CUDA device, or on libtorch's CPU.
    pub(super) fn load(
        path: &std::path::Path,
        options: TunerOptions,
        is_cuda: bool,
    ) -> Result<Self, TrainingError> {
        if is_cuda && !tch::Cuda::is_available() {
            return Err(TrainingError::Device("libtorch finds no CUDA device".to_owned()));
        }
        if options.checkpointing {
            let reason = "libtorch keeps all activations: leave --checkpointing out";
            return Err(TrainingError::BadOption(reason.to_owned()));
        }
        let device = if is_cuda { Device::Cuda(0) } else { Device::Cpu };
        let kind = if options.precision == Precision::Exact { Kind::Float } else { Kind::BFloat16 };
        let mut model = DenseModel::load(path, &options)?;
        let put = |values: &[f32], columns: usize| -> Result<Tensor, TchError> {
            let rows = size(values.len() / columns.max(1));
            let tensor = Tensor::f_from_slice(values)?.f_view([rows, size(columns)])?;
            tensor.f_to_device(device)?.f_to_kind(kind)
        };
        let row = |values: &[f32]| -> Result<Tensor, TchError> {
            Tensor::f_from_slice(values)?.f_to_device(device)
        };
        let embedding = put(&model.embedding, model.hidden)?;
        let head = match &model.head {
            Some(head) => put(head, model.hidden)?,
            None => embedding.shallow_clone(),
        };
        let final_norm = row(&model.final_norm)?;
        let mut blocks = Vec::new();
        for DenseLayer { attention_norm, ffn_norm, linears } in &model.layers {
            let linears = linears.iter().map(|linear| {
                let weight = put(&linear.weights, linear.columns)?;
                let bias = linear.bias.as_deref().map(&row).transpose()?;
                Ok(TorchLinear { weight, bias: bias.map(|bias| bias.to_kind(kind)) })
            });
            let linears = linears.collect::<Result<_, TchError>>()?;
            let (attention_norm, ffn_norm) = (row(attention_norm)?, row(ffn_norm)?);
            blocks.push(TorchBlock { attention_norm, ffn_norm, linears });
        }
        // The base is on the device now.
        (model.layers, model.embedding, model.head) = (Vec::new(), Vec::new(), None);
        let (values, places) = (std::mem::take(&mut model.adapter), model.places.clone());
        let gradients = vec![0.0; values.len()];
        Ok(Self {
            model,
            options,
            device,
            kind,
            embedding,
            head,
            final_norm,
            blocks,
            places,
            values,
            gradients,
        })
    }

    /// The adapter as leaves of the graph.
    fn adapter(&self) -> Result<TorchAdapter, TchError> {
        let mut adapter =
            TorchAdapter { leaves: Vec::new(), pairs: vec![None; self.blocks.len() * 7] };
        for (pair, at) in self.places.chunks_exact(2).zip(&self.model.adapted) {
            let first = adapter.leaves.len();
            for place in pair {
                let rank = size(self.options.rank);
                let leaf = Tensor::f_from_slice(&self.values[place.range.clone()])?
                    .f_view([-1, rank])?
                    .f_to_device(self.device)?;
                adapter.leaves.push(leaf.f_set_requires_grad(true)?);
            }
            adapter.pairs[*at] = Some((first, first + 1));
        }
        Ok(adapter)
    }

    fn linear(
        &self,
        x: &Tensor,
        (block, which): (usize, usize),
        adapter: &TorchAdapter,
        pass: &TorchPass,
    ) -> Result<Tensor, TchError> {
        let TorchLinear { weight, bias } = &self.blocks[block].linears[which];
        let mut y = x.f_matmul(&weight.f_tr()?)?;
        if let Some(bias) = bias {
            y = y.f_add(bias)?;
        }
        let Some((a, b)) = adapter.pairs[block * 7 + which] else { return Ok(y) };
        let dropped =
            if pass.dropout > 0.0 { x.f_dropout(pass.dropout, true)? } else { x.shallow_clone() };
        let a = adapter.leaves[a].f_to_kind(self.kind)?;
        let b = adapter.leaves[b].f_to_kind(self.kind)?;
        let side = dropped.f_matmul(&a)?.f_matmul(&b.f_tr()?)?;
        y.f_add(&side.f_mul_scalar(f64::from(self.options.scaling))?)
    }

    /// `x / sqrt(mean(x^2) + eps) * weight`, in f32.
    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_to_kind(Kind::Float)?;
        let mean = x.f_square()?.f_mean_dim(&[-1i64][..], true, Kind::Float)?;
        let scale = mean.f_add_scalar(f64::from(self.model.eps))?.f_rsqrt()?;
        x.f_mul(&scale)?.f_mul(weight)?.f_to_kind(self.kind)
    }

    /// Turns the halves of each head `(tokens, heads, width)` against each other.
    fn rotate(x: &Tensor, pass: &TorchPass) -> Result<Tensor, TchError> {
        let halves = x.f_chunk(2, -1)?;
        let turned = Tensor::f_cat(&[halves[1].f_neg()?, halves[0].shallow_clone()], -1)?;
        x.f_mul(&pass.cos)?.f_add(&turned.f_mul(&pass.sin)?)
    }

    fn block(
        &self,
        index: usize,
        hidden: &Tensor,
        adapter: &TorchAdapter,
        pass: &TorchPass,
    ) -> Result<Tensor, TchError> {
        let (block, model) = (&self.blocks[index], &self.model);
        let n = hidden.size()[0];
        let heads = |x: Tensor, count: usize| x.f_view([n, size(count), size(model.head_dim)]);
        let linear = |x: &Tensor, which| self.linear(x, (index, which), adapter, pass);
        let x = self.norm(hidden, &block.attention_norm)?;
        let query = Self::rotate(&heads(linear(&x, 0)?, model.n_heads)?, pass)?;
        let key = Self::rotate(&heads(linear(&x, 1)?, model.n_kv_heads)?, pass)?;
        let value = heads(linear(&x, 2)?, model.n_kv_heads)?;
        let [query, key, value] =
            [query, key, value].map(|x| x.f_transpose(0, 1).and_then(|x| x.f_unsqueeze(0)));
        let attended = Tensor::f_scaled_dot_product_attention(
            &query?,
            &key?,
            &value?,
            Some(&pass.mask),
            0.0,
            false,
            None,
            true,
        )?;
        let attended = attended.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_reshape([n, -1])?;
        let middle = hidden.f_add(&linear(&attended, 3)?)?;
        let x = self.norm(&middle, &block.ffn_norm)?;
        let inner = linear(&x, 4)?.f_silu()?.f_mul(&linear(&x, 5)?)?;
        middle.f_add(&linear(&inner, 6)?)
    }

    /// The weighted sum of the losses.
    fn forward(
        &self,
        batch: &TrainBatch,
        adapter: &TorchAdapter,
        is_training: bool,
    ) -> Result<Tensor, TchError> {
        let tokens: Vec<i64> = batch.tokens.iter().map(|token| i64::from(*token)).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_to_device(self.device)?;
        let pass = self.pass(batch, is_training)?;
        let mut hidden = self.embedding.f_index_select(0, &tokens)?;
        if is_training && self.options.neftune_alpha > 0.0 {
            hidden = hidden.f_add(&self.noise(batch, &hidden)?)?;
        }
        for index in 0..self.blocks.len() {
            hidden = self.block(index, &hidden, adapter, &pass)?;
        }
        let on_device =
            |numbers: Vec<i64>| Tensor::f_from_slice(&numbers)?.f_to_device(self.device);
        let rows = on_device(batch.targets.iter().map(|target| size(target.row)).collect())?;
        let wanted = on_device(batch.targets.iter().map(|t| i64::from(t.token)).collect())?;
        let weights: Vec<f32> = batch.targets.iter().map(|target| target.weight).collect();
        let weights = Tensor::f_from_slice(&weights)?.f_to_device(self.device)?;
        let rows = self.norm(&hidden.f_index_select(0, &rows)?, &self.final_norm)?;
        let logits = rows.f_matmul(&self.head.f_tr()?)?.f_to_kind(Kind::Float)?;
        let chosen = logits.f_log_softmax(-1, Kind::Float)?;
        let chosen = chosen.f_gather(1, &wanted.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
        chosen.f_mul(&weights)?.f_sum(Kind::Float)?.f_neg()
    }

    /// Angles of every token, and which tokens see which: those before them in their own sequence.
    fn pass(&self, batch: &TrainBatch, is_training: bool) -> Result<TorchPass, TchError> {
        let positions: Vec<usize> = batch.lengths.iter().flat_map(|n| 0..*n).collect();
        let of_sequence: Vec<i64> = batch
            .lengths
            .iter()
            .enumerate()
            .flat_map(|(index, n)| std::iter::repeat_n(size(index), *n))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "positions stay below 2^24")]
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|at| {
                let speeds = self.model.frequencies.iter().chain(&self.model.frequencies);
                speeds.map(move |speed| *at as f32 * speed)
            })
            .collect();
        let shape = [size(positions.len()), 1, size(self.model.head_dim)];
        let angles = Tensor::f_from_slice(&angles)?.f_view(shape)?.f_to_device(self.device)?;
        let (cos, sin) =
            (angles.f_cos()?.f_to_kind(self.kind)?, angles.f_sin()?.f_to_kind(self.kind)?);
        let sequences = Tensor::f_from_slice(&of_sequence)?.f_to_device(self.device)?;
        let same = sequences.f_unsqueeze(0)?.f_eq_tensor(&sequences.f_unsqueeze(1)?)?;
        let mask = same.f_tril(0)?;
        let dropout = if is_training { f64::from(self.options.dropout) } else { 0.0 };
        Ok(TorchPass { cos, sin, mask, dropout })
    }

    /// Uniform noise of `±alpha / sqrt(tokens * width)` for every sequence.
    fn noise(&self, batch: &TrainBatch, hidden: &Tensor) -> Result<Tensor, TchError> {
        #[expect(clippy::cast_precision_loss, reason = "a size")]
        let size_of =
            |n: usize| self.options.neftune_alpha / ((n * self.model.hidden) as f32).sqrt();
        let sizes: Vec<f32> =
            batch.lengths.iter().flat_map(|n| std::iter::repeat_n(size_of(*n), *n)).collect();
        let sizes = Tensor::f_from_slice(&sizes)?.f_to_device(self.device)?.f_unsqueeze(1)?;
        let uniform = hidden.f_rand_like()?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
        uniform.f_mul(&sizes.f_to_kind(self.kind)?)
    }
}

impl TrainBackend for TorchTuner {
    fn parameters(&self) -> &[f32] {
        &self.values
    }

    fn parameters_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        (&mut self.values, &mut self.gradients)
    }

    fn tensors(&self) -> Vec<TensorPlace> {
        self.places.clone()
    }

    fn vocabulary(&self) -> usize {
        self.model.vocabulary
    }

    fn gradient_norm(&mut self) -> f64 {
        self.gradients.iter().map(|gradient| f64::from(*gradient).powi(2)).sum::<f64>().sqrt()
    }

    fn in_parts(&mut self, state: [&mut [f32]; 2], work: &(dyn Fn(ParameterPart<'_>) + Sync)) {
        work(ParameterPart { values: &mut self.values, gradients: &mut self.gradients, state });
    }

    fn loss(&mut self, batch: &TrainBatch) -> Result<f64, TrainingError> {
        let adapter = self.adapter()?;
        let loss = tch::no_grad(|| self.forward(batch, &adapter, false))?;
        Ok(f64::try_from(loss)?)
    }

    fn accumulate(
        &mut self,
        batch: &TrainBatch,
        scale: f32,
        seed: u64,
    ) -> Result<f64, TrainingError> {
        tch::manual_seed(seed.cast_signed());
        let adapter = self.adapter()?;
        let loss = self.forward(batch, &adapter, true)?;
        let scaled = loss.f_mul_scalar(f64::from(scale))?;
        let gradients = Tensor::f_run_backward(&[scaled], &adapter.leaves, false, false)?;
        for (gradient, place) in gradients.iter().zip(&self.places) {
            let mut numbers = vec![0.0_f32; place.range.len()];
            let gradient = gradient.f_to_device(Device::Cpu)?.f_contiguous()?;
            gradient.f_copy_data(&mut numbers, place.range.len())?;
            for (sum, number) in self.gradients[place.range.clone()].iter_mut().zip(&numbers) {
                *sum += number;
            }
        }
        Ok(f64::try_from(loss)?)
    }
}

/// A size as libtorch counts.
fn size(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
