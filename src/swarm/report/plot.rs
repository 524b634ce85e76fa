//! Plots held-out pass rates over generations as SVG.

use std::fmt::Write as _;

use super::SwarmReport;

/// Size of the plot, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Space for labels at the left and below, in pixels.
const MARGIN: f64 = 48.0;
/// Colors of the suites.
const COLORS: [&str; 4] = ["#0b6", "#06c", "#c60", "#939"];

/// Score of a suite after a generation.
struct PlotPoint {
    generation: u32,
    share: f64,
    interval: (f64, f64),
}

impl SwarmReport {
    /// Plots the pass rate of each held-out suite with its 95 % interval; generation 0 is the base.
    pub fn to_svg(&self) -> String {
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let last = self.generations.last().map_or(1, |last| last.generation).max(1);
        let x = |generation: u32| {
            MARGIN + (WIDTH - 2.0 * MARGIN) * f64::from(generation) / f64::from(last)
        };
        let y = |share: f64| MARGIN / 2.0 + (HEIGHT - 1.5 * MARGIN) * (1.0 - share);
        for percent in [0_u32, 25, 50, 75, 100] {
            let at = y(f64::from(percent) / 100.0);
            let right = WIDTH - MARGIN;
            let _infallible = writeln!(
                text,
                "<line x1=\"{MARGIN}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"4\" y=\"{at:.1}\">{percent} %</text>"
            );
        }
        for generation in 0..=last {
            let name = if generation == 0 { "base".to_owned() } else { format!("{generation}") };
            let (at, below) = (x(generation), HEIGHT - 16.0);
            let _infallible = writeln!(
                text,
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{name}</text>"
            );
        }
        for (index, (name, points)) in self.lines().into_iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            for point in &points {
                let (at, low, high) =
                    (x(point.generation), y(point.interval.0), y(point.interval.1));
                let middle = y(point.share);
                let _infallible = writeln!(
                    text,
                    "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\" stroke=\"{color}\"/>\
                     <circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"3\" fill=\"{color}\"/>"
                );
            }
            let path: Vec<String> = points
                .iter()
                .map(|point| format!("{:.1},{:.1}", x(point.generation), y(point.share)))
                .collect();
            let path = path.join(" ");
            let row = 16.0 + 16.0 * f64::from(u32::try_from(index).unwrap_or(0));
            let _infallible = writeln!(
                text,
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\"/>\
                 <text x=\"{MARGIN}\" y=\"{row}\" fill=\"{color}\">{}</text>",
                name.replace('&', "&amp;").replace('<', "&lt;")
            );
        }
        text + "</svg>\n"
    }

    /// Returns the points of each suite, the base first.
    fn lines(&self) -> Vec<(String, Vec<PlotPoint>)> {
        let mut lines: Vec<(String, Vec<PlotPoint>)> = Vec::new();
        for generation in &self.generations {
            for score in &generation.held_out {
                let name = score.label();
                let at = lines.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                    let (share, interval) = (score.base.share, score.base.interval);
                    lines.push((name, vec![PlotPoint { generation: 0, share, interval }]));
                    lines.len() - 1
                });
                let (share, interval) = (score.score.share, score.score.interval);
                let generation = generation.generation;
                lines[at].1.push(PlotPoint { generation, share, interval });
            }
        }
        lines
    }
}
