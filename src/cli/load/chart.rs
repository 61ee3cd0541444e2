//! The distribution of the latencies as a drawing: how many were above what.

use std::time::Duration;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::units::time;

const SIZE: (u32, u32) = (900, 500);
/// Points along the line.
const POINTS: u32 = 400;

/// `title` stands above it. None if there is nothing to draw.
pub(crate) fn svg(latencies: &Histogram<u64>, title: &str) -> Option<String> {
    if latencies.is_empty() {
        return None;
    }
    let mut svg = String::new();
    draw(latencies, title, &mut svg).ok()?;
    Some(svg)
}

/// The horizontal axis has the same room for 0 to 90 %, 90 to 99 %, 99 to 99.9 % and so on, as
/// far as there are latencies to tell them apart: the rare, long ones are what matters.
fn draw(
    latencies: &Histogram<u64>,
    title: &str,
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let nines = (latencies.len() as f64).log10().ceil().clamp(1.0, 7.0);
    let points: Vec<_> = (0..=POINTS)
        .map(|step| nines * f64::from(step) / f64::from(POINTS))
        .map(|x| (x, micros(latencies.value_at_quantile(quantile(x)))))
        .collect();
    let (lowest, highest) = (micros(latencies.min()), micros(latencies.max()));
    let vertical = (lowest * 0.8..highest * 1.25).log_scale();

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(16)
        .margin_right(40)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..nines, vertical)?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .x_labels(nines as usize + 1)
        .x_label_formatter(&|x| percentile(*x))
        .y_desc("latency")
        .y_label_formatter(&|micros| time(Duration::from_nanos((micros * 1e3) as u64)))
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    root.present()?;
    Ok(())
}

/// 0 at 0, 90 % at 1, 99 % at 2.
fn quantile(x: f64) -> f64 {
    1.0 - 10f64.powf(-x)
}

fn percentile(x: f64) -> String {
    let text = format!("{:.*}", (x.round() as usize).saturating_sub(2), 100.0 * quantile(x));
    format!("{text} %")
}

/// A logarithm has no place for 0.
fn micros(nanos: u64) -> f64 {
    nanos.max(1) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_there_is() {
        let mut latencies = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        assert_eq!(svg(&latencies, "nothing"), None);
        latencies.record(0).unwrap();
        assert!(svg(&latencies, "one").unwrap().starts_with("<svg"));
        (1..10_000).for_each(|n| latencies.record(n * 1000).unwrap());
        let many = svg(&latencies, "a <b> & c").unwrap();
        assert!(many.contains("99.9 %") && many.contains("<polyline"), "{many}");
        assert!(!many.contains("<b>"), "{many}");
    }

    #[test]
    fn percentiles() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 5.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]
        );
    }
}
