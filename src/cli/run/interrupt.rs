//! Signals that end a run.

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// A signal that asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Interrupt {
    /// Ctrl-C.
    Int,
    /// An order to end.
    Term,
}

impl Interrupt {
    /// The exit code that tells of it.
    pub(in crate::cli) fn exit_code(self) -> u8 {
        match self {
            Self::Int => 130,
            Self::Term => 143,
        }
    }
}

/// Both signals; from now on they do not end the process by themselves.
pub(in crate::cli) struct Interrupts {
    int: Signal,
    term: Signal,
}

impl Interrupts {
    pub(in crate::cli) fn new() -> std::io::Result<Self> {
        Ok(Self { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub(in crate::cli) async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.int.recv() => Interrupt::Int,
            _ = self.term.recv() => Interrupt::Term,
        }
    }
}
