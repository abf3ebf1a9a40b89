//! The bar chart of the throughput per workload, relative to the limit server.

/// One workload.
pub struct Bar {
    pub label: String,
    /// The smaller of the shares by requests and by CPU time.
    pub share: f64,
    pub goal: Option<f64>,
}

const WIDTH: usize = 760;
const LEFT: usize = 250;
const RIGHT: usize = 60;
const TOP: usize = 64;
const STEP: usize = 34;
const THICKNESS: usize = 18;

/// Returns an SVG with colours for light and dark pages.
pub fn svg(bars: &[Bar]) -> String {
    let scale = (WIDTH - LEFT - RIGHT) as f64;
    let bottom = TOP + bars.len() * STEP;
    let height = bottom + 34;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Throughput per workload, relative to bare hyper\">\n\
         <style>\n\
         text {{ font: 13px system-ui, sans-serif; fill: #24292f; }}\n\
         .title {{ font-size: 16px; font-weight: 600; }}\n\
         .quiet {{ fill: #6e7781; }}\n\
         .line {{ stroke: #d0d7de; }}\n\
         .bar {{ fill: #0969da; }}\n\
         .goal {{ stroke: #cf222e; stroke-width: 2.5; }}\n\
         @media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #e6edf3; }}\n\
         .quiet {{ fill: #8b949e; }}\n\
         .line {{ stroke: #30363d; }}\n\
         .bar {{ fill: #4493f8; }}\n\
         .goal {{ stroke: #ff7b72; }}\n\
         }}\n\
         </style>\n\
         <text class=\"title\" x=\"16\" y=\"26\">Throughput of one core, relative to bare hyper</text>\n\
         <text class=\"quiet\" x=\"16\" y=\"46\">1.0 is bare hyper with a response of the same size; the lower ratio of \
         requests/s and CPU time; red lines are goals</text>\n"
    );
    for tenths in [0, 2, 4, 6, 8, 10] {
        let share = f64::from(tenths) / 10.0;
        let x = LEFT as f64 + scale * share;
        svg += &format!(
            "<line class=\"line\" x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\n\
             <text class=\"quiet\" x=\"{x:.0}\" y=\"{}\" text-anchor=\"middle\">{share:.1}</text>\n",
            bottom + 20
        );
    }
    for (number, bar) in bars.iter().enumerate() {
        let y = TOP + number * STEP + (STEP - THICKNESS) / 2;
        let (middle, end) = (y + THICKNESS - 4, y + THICKNESS);
        let width = scale * bar.share.min(1.0);
        svg += &format!(
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n\
             <rect class=\"bar\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{THICKNESS}\" rx=\"3\"/>\n",
            LEFT - 12,
            bar.label
        );
        let mut text = LEFT as f64 + width;
        if let Some(goal) = bar.goal {
            let x = LEFT as f64 + scale * goal;
            svg += &format!(
                "<line class=\"goal\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>\n",
                y - 4,
                end + 4
            );
            // Keeps the figure clear of the goal line.
            if (text..text + 40.0).contains(&x) {
                text = x;
            }
        }
        svg += &format!("<text x=\"{:.1}\" y=\"{middle}\">{:.2}</text>\n", text + 8.0, bar.share);
    }
    svg + "</svg>\n"
}
