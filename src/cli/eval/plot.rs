//! Plots scores as SVG: a bar with its confidence interval per group and subject.

use std::fmt::Write as _;

use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::groups;
use crate::evaluation::score;

use super::tables;

/// Sizes in pixels: total width, label column, bar height, and gap between groups.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 260.0;
const BAR: f64 = 16.0;
const GAP: f64 = 14.0;
/// Colors of bars, that of the base first.
const COLORS: [&str; 5] = ["#888", "#36c", "#c63", "#393", "#939"];

/// Renders the plot as SVG.
pub(super) fn svg(measured: &MeasuredOutcomes) -> String {
    let names: Vec<String> = measured.adapters.iter().map(|(id, _)| id.to_string()).collect();
    let all = tables::everyone(measured, &names);
    let (mut bars, mut down) = (String::new(), GAP);
    let across = |share: f64| LEFT + share * (WIDTH - LEFT - 2.0 * GAP);
    for group in groups(&measured.base).into_keys() {
        for (index, (name, outcomes)) in all.iter().enumerate() {
            let outcomes = groups(outcomes).remove(&group).unwrap_or_default();
            let score = score(&outcomes);
            let (low, high) = score.interval;
            let (color, middle) = (COLORS[index % COLORS.len()], down + BAR / 2.0);
            let label = escape(&format!("{group}  {name}"));
            let _infallible = write!(
                bars,
                "<text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{label}</text>\n\
                 <rect x=\"{LEFT}\" y=\"{down}\" width=\"{2:.1}\" height=\"{3}\" fill=\"{color}\"/>\n\
                 <path d=\"M{4:.1},{middle}H{5:.1}\" stroke=\"black\"/>\n\
                 <text x=\"{6:.1}\" y=\"{1}\">{7:.1} %</text>\n",
                LEFT - 8.0,
                middle + 4.0,
                across(score.share) - LEFT,
                BAR - 2.0,
                across(low),
                across(high),
                across(high) + 6.0,
                score.share * 100.0,
            );
            down += BAR;
        }
        down += GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{down}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n",
        WIDTH + 60.0
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
