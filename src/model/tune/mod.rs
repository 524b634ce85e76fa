//! A frozen base with a trainable adapter beside it: the forward pass, and the gradients of the
//! adapter.
//!
//! The base stays as the file has it, packed, and is multiplied by quantized activations, as when
//! it answers; gradients are carried back through the same weights, transposed, by the same
//! kernels. The adapter, attention, norms and the loss are `f32`. With [`Precision::Exact`] all is
//! `f32`. QLoRA: Dettmers et al. 2023, arXiv:2305.14314.

mod attention;
mod block;
#[cfg(feature = "torch")]
mod dense;
mod dropout;
mod factors;
mod head;
mod linear;
mod sizes;
mod tuner;

#[cfg(feature = "torch")]
pub use dense::DenseLayer;
#[cfg(feature = "torch")]
pub use dense::DenseModel;
pub use factors::TensorPlace;
pub use factors::TunedModules;
pub use sizes::TunerSizes;
pub use tuner::LoraModel;
pub use tuner::NextToken;
pub use tuner::ParameterPart;
pub use tuner::TrainBatch;
pub use tuner::TunerOptions;
