//! LoRA training: a frozen base model with a trainable adapter, forward and backward.
//!
//! The base stays packed as in inference and is multiplied by quantized activations; gradients flow
//! back through the same weights, transposed, by the same integer kernels. The adapter, attention,
//! norms and the loss are `f32`. With [`Precision::Exact`] everything is `f32`. QLoRA: Dettmers et
//! al. 2023, arXiv:2305.14314.
//!
//! [`Precision::Exact`]: super::Precision::Exact

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
