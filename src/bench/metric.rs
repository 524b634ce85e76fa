//! [`Metric`]: what was measured, of Rune and of the peer.

use crate::event::Event;
use crate::event::MetricSummary;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricUnit {
    /// Tokens a second: more is better.
    TokensPerSecond,
    /// Seconds: less is better.
    Seconds,
    /// Thousandths of a second: less is better.
    Milliseconds,
    /// How often a second: more is better.
    PerSecond,
    /// Bytes: less is better.
    Bytes,
    /// One figure by another: more is better.
    Times,
}

impl MetricUnit {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokensPerSecond => "tokens/s",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::PerSecond => "/s",
            Self::Bytes => "bytes",
            Self::Times => "x",
        }
    }
}

impl MetricSummary {
    /// Sums up `values`; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median, min, max })
    }
}

/// One thing measured, in the order in which it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name in JSON.
    pub name: String,
    /// Its name for people.
    pub label: String,
    /// The unit of the figures.
    pub unit: MetricUnit,
    /// Rune's figures, one for each run.
    pub rune: Vec<f64>,
    /// The peer's, each taken just after Rune's; empty where it has none.
    pub peer: Vec<f64>,
}

impl Metric {
    pub(super) fn new(name: impl Into<String>, label: impl Into<String>, unit: MetricUnit) -> Self {
        Self { name: name.into(), label: label.into(), unit, rune: Vec::new(), peer: Vec::new() }
    }

    /// Returns the event that reports the metric.
    pub(super) fn event(&self) -> Event {
        Event::BenchMetric {
            name: self.name.clone(),
            unit: self.unit.as_str().to_owned(),
            rune: MetricSummary::of(&self.rune),
            peer: MetricSummary::of(&self.peer),
            ratio: self.ratio(),
            rune_values: self.rune.clone(),
            peer_values: self.peer.clone(),
        }
    }

    /// The median of how many times better Rune is than the peer, pair by pair: above 1 Rune is
    /// ahead.
    pub fn ratio(&self) -> Option<f64> {
        let better = |(rune, peer): (&f64, &f64)| match self.unit {
            MetricUnit::TokensPerSecond | MetricUnit::PerSecond | MetricUnit::Times => rune / peer,
            MetricUnit::Seconds | MetricUnit::Milliseconds | MetricUnit::Bytes => peer / rune,
        };
        let ratios: Vec<f64> = self.rune.iter().zip(&self.peer).map(better).collect();
        MetricSummary::of(&ratios).map(|summary| summary.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_pair_by_pair_and_says_who_is_ahead() {
        let metric = |unit, rune: &[f64], peer: &[f64]| Metric {
            rune: rune.to_vec(),
            peer: peer.to_vec(),
            ..Metric::new("x", "x", unit)
        };
        let ratio = |unit| metric(unit, &[2.0, 8.0, 3.0], &[1.0, 2.0, 1.0]).ratio();
        assert_eq!(ratio(MetricUnit::TokensPerSecond), Some(3.0));
        assert_eq!(ratio(MetricUnit::Seconds), Some(1.0 / 3.0));
        assert_eq!(metric(MetricUnit::Times, &[1.0], &[]).ratio(), None);
        let summary = MetricSummary { median: 2.5, min: 1.0, max: 4.0 };
        assert_eq!(MetricSummary::of(&[4.0, 1.0, 3.0, 2.0]), Some(summary));
    }
}
