//! Renders a training run with its loss, for the terminal and as SVG.

use std::fmt::Write as _;

use crate::cli::output::escape_line;
use crate::registry::MetricRow;
use crate::registry::TrainingRun;

/// Columns and rows of the terminal plot.
const WIDTH: usize = 64;
const HEIGHT: usize = 14;
/// Size of the SVG and its margin in pixels.
const SIZE: (f64, f64) = (720.0, 360.0);
const MARGIN: f64 = 48.0;

/// Metrics in the plot, each with its sign in the terminal and its color in SVG.
const LOSSES: [(&str, char, &str); 3] =
    [("loss", '·', "#888"), ("rehearsal_loss", 'x', "#36c"), ("val_loss", 'o', "#c33")];

/// Returns the points `(step, value)` of a metric.
fn series(metrics: &[MetricRow], name: &str) -> Vec<(f64, f64)> {
    let of_name = metrics.iter().filter(|metric| metric.name == name);
    of_name.map(|metric| (f64::from(metric.step), metric.value)).collect()
}

/// Returns minimum and maximum of both axes.
fn range(points: &[(f64, f64)]) -> [(f64, f64); 2] {
    let axis = |values: &dyn Fn(&(f64, f64)) -> f64| {
        let least = points.iter().map(values).fold(f64::INFINITY, f64::min);
        let most = points.iter().map(values).fold(f64::NEG_INFINITY, f64::max);
        (least, if most > least { most } else { least + 1.0 })
    };
    [axis(&|point| point.0), axis(&|point| point.1)]
}

/// Renders the run with its plot for the terminal.
pub(super) fn show(run: &TrainingRun, metrics: &[MetricRow]) -> String {
    let last = |name: &str| series(metrics, name).last().map(|(_, value)| *value);
    let speed = last("tokens_per_s").map(|speed| format!("{speed:.0} tokens/s"));
    let memory = last("rss").map(|bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20)));
    let fields = [
        ("run", run.id.clone()),
        ("status", run.status.as_str().to_owned()),
        ("steps", format!("{} of {}", run.step, run.total_steps)),
        ("model", run.base_model.clone()),
        ("dataset", run.dataset_digest.clone()),
        ("adapter", run.adapter_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        (
            "best",
            run.best_val_loss
                .map(|loss| format!("{loss:.4} on held-out families"))
                .unwrap_or_default(),
        ),
        ("lost", rehearsal_words(&series(metrics, "rehearsal_loss"))),
        ("speed", speed.unwrap_or_default()),
        ("memory", memory.unwrap_or_default()),
        ("error", run.error.clone().unwrap_or_default()),
        ("started", run.started_at.clone()),
        ("ended", run.ended_at.clone().unwrap_or_default()),
    ];
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let _infallible = writeln!(text, "{name:<8} {}", escape_line(value));
    }
    text + &chart(&LOSSES.map(|(name, sign, _)| (sign, series(metrics, name))))
}

/// Describes how the loss on held-out rehearsal has changed.
fn rehearsal_words(points: &[(f64, f64)]) -> String {
    match points {
        [(_, first), .., (_, last)] => {
            format!("rehearsal loss {first:.4} before, {last:.4} at the last validation")
        }
        _ => String::new(),
    }
}

/// Plots each loss with its sign.
fn chart(losses: &[(char, Vec<(f64, f64)>)]) -> String {
    let all: Vec<(f64, f64)> = losses.iter().flat_map(|(_, points)| points).copied().collect();
    if all.is_empty() {
        return String::new();
    }
    let [(left, right), (bottom, top)] = range(&all);
    let mut rows = vec![vec![' '; WIDTH]; HEIGHT];
    for (sign, points) in losses {
        for (x, y) in points {
            let column = place((x - left) / (right - left), WIDTH);
            rows[HEIGHT - 1 - place((y - bottom) / (top - bottom), HEIGHT)][column] = *sign;
        }
    }
    let mut text = "\n".to_owned();
    for (index, row) in rows.iter().enumerate() {
        let label = match index {
            0 => format!("{top:>8.3}"),
            _ if index == HEIGHT - 1 => format!("{bottom:>8.3}"),
            _ => " ".repeat(8),
        };
        let line: String = row.iter().collect();
        let _infallible = writeln!(text, "{label} │{}", line.trim_end());
    }
    let _infallible = writeln!(text, "{} └{}", " ".repeat(8), "─".repeat(WIDTH));
    let _infallible = writeln!(text, "{:>10}{:<30}{:>33}", "", format!("step {left}"), right);
    text + &format!(
        "{:>10}· loss of a step   o loss on held-out families   x loss on held-out rehearsal\n",
        ""
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place on a small grid"
)]
fn place(share: f64, n: usize) -> usize {
    ((share * (n - 1) as f64).round() as usize).min(n - 1)
}

/// Renders the plot as SVG.
pub(super) fn svg(run: &TrainingRun, metrics: &[MetricRow]) -> String {
    let losses = LOSSES.map(|(name, _, color)| (series(metrics, name), color));
    let all: Vec<(f64, f64)> = losses.iter().flat_map(|(points, _)| points).copied().collect();
    let (width, height) = SIZE;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    if !all.is_empty() {
        let [(left, right), (bottom, top)] = range(&all);
        let point = |(x, y): &(f64, f64)| {
            let across = MARGIN + (x - left) / (right - left) * (width - 2.0 * MARGIN);
            let down = height - MARGIN - (y - bottom) / (top - bottom) * (height - 2.0 * MARGIN);
            format!("{across:.1},{down:.1}")
        };
        for (points, color) in &losses {
            let line: Vec<String> = points.iter().map(point).collect();
            let _infallible = writeln!(
                text,
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" points=\"{}\"/>",
                line.join(" ")
            );
        }
        let label =
            |x: f64, y: f64, words: String| format!("<text x=\"{x}\" y=\"{y}\">{words}</text>\n");
        text += &label(4.0, MARGIN, format!("{top:.3}"));
        text += &label(4.0, height - MARGIN, format!("{bottom:.3}"));
        text += &label(MARGIN, height - MARGIN + 16.0, format!("step {left}"));
        text += &label(width - 2.0 * MARGIN, height - MARGIN + 16.0, format!("step {right}"));
        let legend = format!(
            "run {}: loss of a step (gray), on held-out families (red), on held-out rehearsal (blue)",
            run.id
        );
        text += &label(MARGIN, MARGIN / 2.0, legend);
    }
    text + "</svg>\n"
}
