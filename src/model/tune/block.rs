//! Forward and backward pass of one decoder block.
//!
//! What the forward pass saves ([`SavedActivations`], in brackets) and where the backward pass uses
//! it. Normalized inputs and `silu(gate) * up` are recomputed: they are cheap. With checkpointing
//! only `[input]` of each block is kept, and the block's forward pass runs again before its
//! backward pass.
//!
//! ```text
//! [input] --norm--> x --q,k,v--> RoPE --> [qkv] --attention--> [attended] --o--+
//!    |              |                                                          |
//!    +--------------|-------------------- residual ----------------------------+--> [middle]
//!                   +-- [inner] = scaling A x, one per linear layer
//!
//! [middle] --norm--> x --gate,up--> [gate], [up] --silu(gate) * up--> down --+
//!    |                                                                       |
//!    +----------------------------- residual --------------------------------+--> output
//!
//! backward, from d = d(output):
//!   d(gate), d(up)     from d, [gate], [up]; overwrites both
//!   d += d(middle)     through the norm of [middle]
//!   d(qkv)             from d, [attended], [qkv]; scores are recomputed
//!   d += d(input)      through the norm of [input]; skipped in the first block
//!   dA, dB             at every linear layer, from its input x, [inner] and d(output of the layer)
//! ```

use super::super::kernels::Activations;
use super::super::kernels::AlignedBuffer;
use super::super::kernels::OutputMode;
use super::super::kernels::SharedMut;
use super::super::kernels::WeightMatrix;
use super::super::kernels::rms_norm;
use super::super::kernels::rms_norm_backward;
use super::super::kernels::silu_mul;
use super::super::kernels::silu_mul_backward;
use super::super::weights::DecoderLayer;
use super::super::weights::LinearKind;
use super::super::weights::ModelShape;
use super::attention;
use super::attention::BatchLayout;
use super::attention::QkvRows;
use super::dropout::DropoutMask;
use super::factors::TrainableFactors;
use super::linear;
use super::linear::Compute;
use super::linear::LoraLinear;

/// Parameters shared by all blocks of a pass.
pub(super) struct TrainingPass<'a> {
    pub(super) shape: &'a ModelShape,
    pub(super) layout: &'a BatchLayout,
    pub(super) scaling: f32,
    pub(super) dropout: DropoutMask,
}

/// A decoder block of the frozen base.
pub(super) struct FrozenBlock<'a> {
    pub(super) index: usize,
    pub(super) layer: &'a DecoderLayer,
    /// Transposed weights of its packed linear layers.
    pub(super) transposed: &'a [Option<WeightMatrix>; 7],
}

/// Activations saved by the forward pass for the backward pass; see the module's diagram.
#[derive(Default)]
pub(super) struct SavedActivations {
    /// Hidden rows at the block's input, `(rows, hidden)`.
    pub(super) input: AlignedBuffer,
    /// Hidden rows between attention and feed-forward, `(rows, hidden)`.
    middle: AlignedBuffer,
    /// Queries, keys and values after RoPE.
    qkv: QkvRows,
    /// Attention results before the output projection, `(rows, hidden)`.
    attended: AlignedBuffer,
    /// Gate activations before `silu`, `(rows, ffn)`; become their gradients.
    gate: AlignedBuffer,
    /// Up activations, `(rows, ffn)`; become their gradients.
    up: AlignedBuffer,
    /// `scaling A x` of every linear layer, `(rows, rank)` each.
    inner: [AlignedBuffer; 7],
}

/// Scratch buffers of one block.
#[derive(Default)]
pub(super) struct BlockScratch {
    input: Activations,
    /// Recomputed input of a linear layer.
    x: AlignedBuffer,
    d_x: AlignedBuffer,
    d_wide: AlignedBuffer,
    d_qkv: QkvRows,
    attention: attention::HeadScratch,
    linear: linear::LinearScratch,
}

impl FrozenBlock<'_> {
    fn lora_linear(
        &self,
        pass: &TrainingPass<'_>,
        factors: &TrainableFactors,
        which: LinearKind,
    ) -> LoraLinear<'_> {
        // Layers that read the same input drop the same elements of it; seeds differ between inputs
        // and between blocks.
        let group = match which {
            LinearKind::Query | LinearKind::Key | LinearKind::Value => 0,
            LinearKind::Output => 1,
            LinearKind::Gate | LinearKind::Up => 2,
            LinearKind::Down => 3,
        };
        // An odd multiplier (2^64 / golden ratio) spreads consecutive numbers over all bits of the
        // seed.
        let number = self.index as u64 * 4 + group;
        let seed = pass.dropout.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        LoraLinear {
            linear: self.layer.linear(which),
            transposed: self.transposed[which as usize].as_ref(),
            place: factors.place(self.index, which),
            scaling: pass.scaling,
            dropout: DropoutMask { seed, ..pass.dropout },
        }
    }

    /// Runs the block forward, replacing its input `hidden` by its output.
    pub(super) fn forward(
        &self,
        compute: &mut Compute,
        pass: &TrainingPass<'_>,
        factors: &TrainableFactors,
        hidden: &mut AlignedBuffer,
        (saved, scratch): (&mut SavedActivations, &mut BlockScratch),
    ) {
        let (shape, ffn) = (pass.shape, pass.shape.ffn);
        let n_rows = hidden.len() / shape.hidden;
        copy(hidden, &mut saved.input);
        normalize(compute, shape, &self.layer.attention_norm, hidden, &mut scratch.input);
        let QkvRows { query, key, value } = &mut saved.qkv;
        for (which, out) in
            [(LinearKind::Query, query), (LinearKind::Key, key), (LinearKind::Value, value)]
        {
            out.resize(n_rows * which.size(shape).0);
            let lora = self.lora_linear(pass, factors, which);
            let inner = (&mut saved.inner[which as usize], &mut scratch.linear);
            lora.forward(compute, factors, &scratch.input, inner, (out, OutputMode::Over));
        }
        // Saved after RoPE: attention's backward pass needs the rotated queries and keys.
        attention::rotate_rows(compute, shape, &mut saved.qkv, &pass.layout.rotations);
        let qkv = (&saved.qkv, &mut scratch.attention);
        attention::forward(compute, shape, pass.layout, qkv, &mut saved.attended);
        let attended = &saved.attended;
        fill(compute, &mut scratch.input, (n_rows, shape.hidden), &|row, out| {
            out.copy_from_slice(&attended[row * out.len()..][..out.len()]);
        });
        self.add_to(compute, pass, factors, LinearKind::Output, hidden, (saved, scratch));

        copy(hidden, &mut saved.middle);
        normalize(compute, shape, &self.layer.ffn_norm, hidden, &mut scratch.input);
        for (which, out) in [(LinearKind::Gate, &mut saved.gate), (LinearKind::Up, &mut saved.up)] {
            out.resize(n_rows * ffn);
            let lora = self.lora_linear(pass, factors, which);
            let inner = (&mut saved.inner[which as usize], &mut scratch.linear);
            lora.forward(compute, factors, &scratch.input, inner, (out, OutputMode::Over));
        }
        // The product replaces the normalized rows in `scratch.input`; the backward pass recomputes
        // both.
        let (gate, up, isa) = (&saved.gate, &saved.up, compute.isa);
        fill(compute, &mut scratch.input, (n_rows, ffn), &|row, out| {
            let part = row * ffn..(row + 1) * ffn;
            silu_mul(isa, &gate[part.clone()], &up[part], out);
        });
        self.add_to(compute, pass, factors, LinearKind::Down, hidden, (saved, scratch));
    }

    /// Adds a linear layer's output to the hidden rows: a residual connection.
    fn add_to(
        &self,
        compute: &mut Compute,
        pass: &TrainingPass<'_>,
        factors: &TrainableFactors,
        which: LinearKind,
        hidden: &mut AlignedBuffer,
        (saved, scratch): (&mut SavedActivations, &mut BlockScratch),
    ) {
        let lora = self.lora_linear(pass, factors, which);
        let inner = (&mut saved.inner[which as usize], &mut scratch.linear);
        lora.forward(compute, factors, &scratch.input, inner, (hidden, OutputMode::Add));
    }

    /// Replaces the gradient `d` of the block's output by that of its input, and accumulates the
    /// gradients of the factors. Consumes the saved activations. The first block's `d` is left
    /// incomplete: nothing below it is trained.
    pub(super) fn backward(
        &self,
        compute: &mut Compute,
        pass: &TrainingPass<'_>,
        factors: &mut TrainableFactors,
        d: &mut AlignedBuffer,
        (saved, scratch): (&mut SavedActivations, &mut BlockScratch),
    ) {
        self.feed_forward_backward(compute, pass, factors, d, (saved, scratch));
        let shape = pass.shape;
        let BlockScratch { x, d_x, d_wide, d_qkv, attention, linear, .. } = scratch;
        let inner = |which: LinearKind| &*saved.inner[which as usize];
        d_wide.resize(d.len());
        // The residual connection passes `d` on unchanged; the branch through attention is added to
        // it at the end.
        let back = (&*saved.attended, inner(LinearKind::Output), &**d);
        let lora = self.lora_linear(pass, factors, LinearKind::Output);
        lora.backward(compute, factors, back, linear, Some((d_wide, OutputMode::Over)));
        let heads = (&saved.qkv, &**d_wide);
        attention::backward(compute, shape, pass.layout, heads, (attention, d_qkv));

        rows(compute, (&saved.input, x), shape.hidden, &|row, out| {
            rms_norm(row.isa, row.from, &self.layer.attention_norm, shape.eps, out);
        });
        // Three layers read `x`: the first one overwrites its gradient, the others add to it.
        d_x.resize(d.len());
        let mut write = OutputMode::Over;
        let QkvRows { query, key, value } = d_qkv;
        for (which, d_out) in
            [(LinearKind::Query, query), (LinearKind::Key, key), (LinearKind::Value, value)]
        {
            let d_input = (self.index > 0).then_some((&mut **d_x, write));
            let lora = self.lora_linear(pass, factors, which);
            lora.backward(compute, factors, (x, inner(which), d_out), linear, d_input);
            write = OutputMode::Add;
        }
        if self.index > 0 {
            let norm = (&*self.layer.attention_norm, shape.eps);
            norm_backward(compute, norm, (&saved.input, d_x), d);
        }
    }

    fn feed_forward_backward(
        &self,
        compute: &mut Compute,
        pass: &TrainingPass<'_>,
        factors: &mut TrainableFactors,
        d: &mut AlignedBuffer,
        (saved, scratch): (&mut SavedActivations, &mut BlockScratch),
    ) {
        let (shape, ffn, isa) = (pass.shape, pass.shape.ffn, compute.isa);
        let SavedActivations { middle, gate, up, inner, .. } = saved;
        let BlockScratch { x, d_x, d_wide, linear, .. } = scratch;
        let n_rows = d.len() / shape.hidden;
        // Recompute the input of the down projection.
        x.resize(n_rows * ffn);
        let out = SharedMut::new(x);
        compute.pool.run(n_rows, &|row| {
            let part = row * ffn..(row + 1) * ffn;
            let out = out.slice(part.start, ffn);
            silu_mul(isa, &gate[part.clone()], &up[part], out);
        });
        d_wide.resize(n_rows * ffn);
        let lora = self.lora_linear(pass, factors, LinearKind::Down);
        let back = (&**x, &*inner[LinearKind::Down as usize], &**d);
        lora.backward(compute, factors, back, linear, Some((d_wide, OutputMode::Over)));
        // In place: the activations are not needed after this.
        let (d_gate, d_up) = (SharedMut::new(gate), SharedMut::new(up));
        compute.pool.run(n_rows, &|row| {
            let (gate, up) = (d_gate.slice(row * ffn, ffn), d_up.slice(row * ffn, ffn));
            silu_mul_backward(isa, gate, up, &d_wide[row * ffn..][..ffn]);
        });
        rows(compute, (middle, x), shape.hidden, &|row, out| {
            rms_norm(row.isa, row.from, &self.layer.ffn_norm, shape.eps, out);
        });
        d_x.resize(d.len());
        for (which, d_out, write) in
            [(LinearKind::Gate, &*gate, OutputMode::Over), (LinearKind::Up, &*up, OutputMode::Add)]
        {
            let lora = self.lora_linear(pass, factors, which);
            let back = (&**x, &*inner[which as usize], &**d_out);
            lora.backward(compute, factors, back, linear, Some((&mut **d_x, write)));
        }
        norm_backward(compute, (&self.layer.ffn_norm, shape.eps), (middle, d_x), d);
    }
}

fn copy(from: &[f32], to: &mut AlignedBuffer) {
    to.resize(from.len());
    to.copy_from_slice(from);
}

fn fill(
    compute: &mut Compute,
    input: &mut Activations,
    size: (usize, usize),
    fill: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    input.fill(&mut compute.pool, compute.isa, size, fill);
}

/// RMS-normalizes hidden rows into the input of the next layer.
pub(super) fn normalize(
    compute: &mut Compute,
    shape: &ModelShape,
    weight: &[f32],
    hidden: &[f32],
    input: &mut Activations,
) {
    let (width, isa) = (shape.hidden, compute.isa);
    fill(compute, input, (hidden.len() / width, width), &|row, out| {
        rms_norm(isa, &hidden[row * width..][..width], weight, shape.eps, out);
    });
}

/// A source row and the instruction set to process it with.
struct BlockRow<'a> {
    isa: super::super::kernels::Isa,
    from: &'a [f32],
}

/// Computes every row of `to` from the same row of `from`, in parallel.
fn rows(
    compute: &mut Compute,
    (from, to): (&[f32], &mut AlignedBuffer),
    width: usize,
    work: &(dyn Fn(&BlockRow<'_>, &mut [f32]) + Sync),
) {
    to.resize(from.len());
    let (isa, out) = (compute.isa, SharedMut::new(to));
    compute.pool.run(from.len() / width, &|row| {
        let from = &from[row * width..][..width];
        work(&BlockRow { isa, from }, out.slice(row * width, width));
    });
}

/// Adds the gradient of `hidden` through an RMS norm with output gradient `d_x` to `d`.
pub(super) fn norm_backward(
    compute: &mut Compute,
    (weight, eps): (&[f32], f32),
    (hidden, d_x): (&[f32], &[f32]),
    d: &mut [f32],
) {
    let (isa, width) = (compute.isa, weight.len());
    let n_rows = d.len() / width;
    let d = SharedMut::new(d);
    compute.pool.run(n_rows, &|row| {
        let part = row * width..(row + 1) * width;
        let out = d.slice(part.start, width);
        rms_norm_backward(isa, &hidden[part.clone()], weight, eps, &d_x[part], out);
    });
}
