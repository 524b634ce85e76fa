//! How far a bench is.

use std::cell::Cell;

/// How far a bench is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps that are done.
    pub done: usize,
    /// All steps.
    pub total: usize,
    /// What is measured next.
    pub next: &'static str,
}

/// Counts what is done.
pub(super) struct Steps<'a> {
    done: Cell<usize>,
    total: usize,
    report: &'a dyn Fn(Progress),
}

impl<'a> Steps<'a> {
    pub(super) fn new(total: usize, report: &'a dyn Fn(Progress)) -> Self {
        Self { done: Cell::new(0), total, report }
    }

    pub(super) fn next(&self, next: &'static str) {
        let done = self.done.replace(self.done.get() + 1);
        (self.report)(Progress { done, total: self.total, next });
    }
}
