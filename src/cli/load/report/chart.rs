//! The distribution of the latencies as a drawing: how many were above what.

use std::time::Duration;

use hdrhistogram::Histogram;
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

use crate::cli::load::format::time;

const SIZE: (u32, u32) = (900, 500);
/// Powers of ten on the vertical axis: more nanoseconds than an hour, the longest latency, has.
const DECADES: u32 = 13;
/// Points along the line.
const POINTS: u32 = 400;

/// `title` stands above the drawing, and `what` beside it. None if there is nothing to draw.
pub(crate) fn svg(latencies: &Histogram<u64>, title: &str, what: &str) -> Option<String> {
    if latencies.is_empty() {
        return None;
    }
    let mut svg = String::new();
    draw(latencies, title, what, &mut svg).ok()?;
    Some(svg)
}

/// On the horizontal axis, 0 to 90 %, 90 to 99 %, 99 to 99.9 % and so on have the same width, since
/// the rare long latencies are what matters. It ends where there are too few to go on.
fn draw(
    latencies: &Histogram<u64>,
    title: &str,
    what: &str,
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let nines = (latencies.len() as f64).log10().ceil().clamp(1.0, 7.0);
    let points: Vec<_> = (0..=POINTS)
        .map(|step| nines * f64::from(step) / f64::from(POINTS))
        .map(|x| (x, nanos(latencies.value_at_quantile(quantile(x)))))
        .collect();
    let marks: Vec<f64> = marks(latencies.min(), latencies.max()).into_iter().map(nanos).collect();
    let vertical = (marks[0]..marks[marks.len() - 1]).log_scale().with_key_points(marks);

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
        .y_desc(what)
        .y_label_formatter(&|nanos| time(Duration::from_nanos(nanos.round() as u64)))
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

/// At least 1, since 0 has no logarithm.
fn nanos(latency: u64) -> f64 {
    latency.max(1) as f64
}

/// The marks of the vertical axis: 1, 2 and 5 in each decade, or 1 alone if that would be too many.
/// The first is not above any latency, and the last is above all.
fn marks(lowest: u64, highest: u64) -> Vec<u64> {
    let lowest = lowest.max(1);
    let steps = if highest / lowest < 10_000 { &[1, 2, 5][..] } else { &[1] };
    let decades = (0..=DECADES).map(|power| 10_u64.pow(power));
    let all: Vec<u64> = decades.flat_map(|ten| steps.iter().map(move |step| step * ten)).collect();
    let first = all.partition_point(|mark| *mark <= lowest) - 1;
    let last = all.partition_point(|mark| *mark <= highest).min(all.len() - 1);
    all[first..=last].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_there_is() {
        let mut latencies = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        assert_eq!(svg(&latencies, "nothing", "latency"), None);
        latencies.record(0).unwrap();
        assert!(svg(&latencies, "one", "latency").unwrap().starts_with("<svg"));
        (1..10_000).for_each(|n| latencies.record(n * 1000).unwrap());
        let many = svg(&latencies, "a <b> & c", "latency").unwrap();
        assert!(many.contains("99.9 %") && many.contains("<polyline"), "{many}");
        assert!(!many.contains("<b>"), "{many}");
    }

    /// Where all were within one decade, its rounded number stood there twice.
    #[test]
    fn no_two_marks_are_the_same() {
        assert_eq!(marks(100_200, 100_400), [100_000, 200_000]);
        assert_eq!(marks(100_000, 900_000), [100_000, 200_000, 500_000, 1_000_000]);
        assert_eq!(marks(1, 1), [1, 2]);
        assert_eq!(marks(7, 500_000), [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]);
        assert_eq!(marks(3_500_000_000_000, 3_602_000_000_000)[1], 5_000_000_000_000);
        let mut latencies = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        (100_200..100_400).for_each(|nanos| latencies.record(nanos).unwrap());
        let svg = svg(&latencies, "narrow", "jitter").unwrap();
        assert!(["100 µs", "200 µs", "jitter"].map(|label| svg.matches(label).count()) == [1; 3]);
    }

    #[test]
    fn percentiles() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 5.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]
        );
    }
}
