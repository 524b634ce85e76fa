//! How far a benchmark is.

use std::cell::Cell;

use serde_json::Value;
use serde_json::json;

use crate::event::Event;
use crate::event::Reporter;
use crate::event::SCHEMA_VERSION;
use crate::hardware::Machine;

use super::metric::Metric;

/// Counts what is done.
pub(super) struct StepCounter<'a> {
    done: Cell<usize>,
    total: usize,
    reporter: &'a dyn Reporter,
}

impl<'a> StepCounter<'a> {
    pub(super) fn new(total: usize, reporter: &'a dyn Reporter) -> Self {
        Self { done: Cell::new(0), total, reporter }
    }

    /// Reports that the step `next` begins.
    pub(super) fn next(&self, next: &str) {
        let done = self.done.replace(self.done.get() + 1);
        let event = Event::BenchProgress { done, total: self.total, next: next.to_owned() };
        self.reporter.report("", &event);
    }
}

/// Reports on what `bench` measures, and under which conditions.
pub(super) fn report_start(
    reporter: &dyn Reporter,
    bench: &str,
    machine: &Machine,
    conditions: Value,
) {
    let event = Event::BenchStarted {
        schema: SCHEMA_VERSION,
        bench: bench.to_owned(),
        conditions,
        machine: json!(machine),
    };
    reporter.report("", &event);
}

/// Reports an event for every figure.
pub(super) fn report_metrics(reporter: &dyn Reporter, metrics: &[Metric]) {
    for metric in metrics {
        reporter.report("", &metric.event());
    }
}
