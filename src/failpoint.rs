//! Failpoints: places where tests kill this process with SIGKILL. The files on disk must suffice to
//! resume from there.

use std::sync::OnceLock;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// All failpoints, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// The files of an adapter are staged, but not yet published.
    AdapterStaged,
    /// The folder of an adapter is published, but has no row yet.
    AdapterPlaced,
    /// The row of an adapter is stored.
    AdapterStored,
    /// A training worker has written its adapter, which is not in the registry yet.
    TrainingTrained,
    /// A decision is in the ledger.
    EvolutionDecided,
    /// A job of a swarm is claimed.
    JobClaimed,
    /// The work of a job has ended, which the queue does not know yet.
    JobWorked,
    /// A job has left the queue, or is back in it.
    JobEnded,
}

impl Failpoint {
    /// Every failpoint, for tests that try them all.
    pub const ALL: [Self; 8] = [
        Self::AdapterStaged,
        Self::AdapterPlaced,
        Self::AdapterStored,
        Self::TrainingTrained,
        Self::EvolutionDecided,
        Self::JobClaimed,
        Self::JobWorked,
        Self::JobEnded,
    ];

    /// Returns the value of `RUNE_FAILPOINT` that arms this failpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdapterStaged => "adapter.staged",
            Self::AdapterPlaced => "adapter.placed",
            Self::AdapterStored => "adapter.stored",
            Self::TrainingTrained => "training.trained",
            Self::EvolutionDecided => "evolution.decided",
            Self::JobClaimed => "job.claimed",
            Self::JobWorked => "job.worked",
            Self::JobEnded => "job.ended",
        }
    }
}

static ARMED: OnceLock<Failpoint> = OnceLock::new();

/// Arms the failpoint with this name, at most one per process. Returns whether it was armed.
pub fn arm(name: &str) -> bool {
    let found = Failpoint::ALL.into_iter().find(|point| point.name() == name);
    found.is_some_and(|point| ARMED.set(point).is_ok())
}

/// Kills this process if `point` is armed.
pub fn pass(point: Failpoint) {
    if ARMED.get() == Some(&point) {
        let _it_does_not_return = kill(Pid::this(), Signal::SIGKILL);
    }
}
