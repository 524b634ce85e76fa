//! What a swarm is asked to do.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::training::TrainingOptions;

/// What a swarm does, as stored in the registry: it is resumed with the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmConfig {
    /// Name of the suite whose tasks it solves.
    pub suite: String,
    /// Number of concurrent sessions; `None` for as many as the provider serves well.
    pub agents: Option<usize>,
    /// Maximum number of generations, at least 1.
    pub generations: u32,
    /// Number of newly solved tasks after which an adapter is trained; 0 for never.
    pub train_every: usize,
    /// Whether sessions run while an adapter is trained.
    pub train_share: TrainShare,
    /// Options of every training.
    pub training: TrainingOptions,
    /// Suites that base and incumbent are also measured on, whole: they show what is forgotten.
    pub anchors: Vec<String>,
    /// Folder of Python packages that solutions may import.
    pub lib: Option<PathBuf>,
    /// All settings of Rune, which sessions are started with.
    pub settings: Value,
}

/// Who computes while an adapter is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainShare {
    /// The training alone: sessions on the same cores would slow both.
    Exclusive,
    /// The training and the sessions, which have a machine or a server for both.
    Shared,
}

/// Limits of one call, after which the swarm can be resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwarmLimits {
    /// Wall time after which no session and no training is begun, in seconds.
    pub seconds: Option<u64>,
    /// Number of generated tokens after which no session is begun.
    pub max_tokens: Option<u64>,
}
