//! Places where tests end this process as `kill -9` does: what is on disk there has to be enough to
//! go on.

use std::sync::OnceLock;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Every place, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// An adapter's files are written and not yet in their place.
    AdapterStaged,
    /// An adapter's folder is in its place and has no row yet.
    AdapterPlaced,
    /// An adapter's row is there.
    AdapterStored,
    /// A worker has written its adapter, which is not in the registry yet.
    TrainingTrained,
}

impl Failpoint {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::AdapterStaged, Self::AdapterPlaced, Self::AdapterStored, Self::TrainingTrained];

    /// The name that arms it, as `RUNE_FAILPOINT` gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdapterStaged => "adapter.staged",
            Self::AdapterPlaced => "adapter.placed",
            Self::AdapterStored => "adapter.stored",
            Self::TrainingTrained => "training.trained",
        }
    }
}

static ARMED: OnceLock<Failpoint> = OnceLock::new();

/// Arms the failpoint of this name, once a process; tells whether there is one.
pub fn arm(name: &str) -> bool {
    let found = Failpoint::ALL.into_iter().find(|point| point.name() == name);
    found.is_some_and(|point| ARMED.set(point).is_ok())
}

/// Passes `point`, or ends here.
pub fn pass(point: Failpoint) {
    if ARMED.get() == Some(&point) {
        let _it_does_not_return = kill(Pid::this(), Signal::SIGKILL);
    }
}
