//! The distribution of the latencies as a drawing: how many were above what.

use std::time::Duration;

use hdrhistogram::Histogram;
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

use crate::cli::load::format::time;

const SIZE: (u32, u32) = (900, 500);
/// Powers of ten on the vertical axis: more nanoseconds than an hour, the longest latency, has.
const DECADES: u32 = 13;
/// Points of a curve from one mark of the horizontal axis to the next.
const POINTS: u32 = 20;
/// Quantiles that are marked on each curve.
pub(crate) const MARKED: [(f64, &str); 2] = [(0.5, "p50"), (0.99, "p99")];
const COLORS: [RGBColor; 2] = [BLUE, RED];

/// The distribution of the latencies of one run.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// As [`curve`] makes it.
    pub(crate) nanos: Vec<f64>,
    /// At the [`MARKED`] quantiles.
    pub(crate) marked: [f64; MARKED.len()],
    /// Which run it is.
    pub(crate) label: String,
}

/// The latencies at 0, 1/20, 2/20 and so on of the horizontal axis, which ends where there are too few to
/// go on. Empty if there are none.
pub(crate) fn curve(latencies: &Histogram<u64>) -> Vec<f64> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let nines = (latencies.len() as f64).log10().ceil().clamp(1.0, 7.0) as u32;
    let quantile = |point| quantile(f64::from(point) / f64::from(POINTS));
    (0..=nines * POINTS).map(|point| latencies.value_at_quantile(quantile(point)) as f64).collect()
}

/// `title` stands above the drawing, and `what` beside it. None if there is nothing to draw.
pub(crate) fn svg(curves: &[Curve], title: &str, what: &str) -> Option<String> {
    if curves.is_empty() {
        return None;
    }
    let mut svg = String::new();
    draw(curves, title, what, &mut svg).ok()?;
    Some(svg)
}

/// On the horizontal axis, 0 to 90 %, 90 to 99 %, 99 to 99.9 % and so on have the same width, since
/// the rare long latencies are what matters.
fn draw(
    curves: &[Curve],
    title: &str,
    what: &str,
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let at = |index: usize| index as f64 / f64::from(POINTS);
    let nines = curves.iter().map(|curve| at(curve.nanos.len() - 1)).fold(1.0, f64::max).ceil();
    let all = || curves.iter().flat_map(|curve| &curve.nanos).map(|nanos| *nanos as u64);
    let marks = marks(all().min().unwrap_or(1), all().max().unwrap_or(1));
    let marks: Vec<f64> = marks.into_iter().map(nanos).collect();
    let vertical = (marks[0]..marks[marks.len() - 1]).log_scale().with_key_points(marks.clone());

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
        .y_label_formatter(&|nanos| readable(*nanos))
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    let whole = (marks[0], marks[marks.len() - 1]);
    for (quantile, name) in MARKED {
        let x = -(1.0 - quantile).log10();
        if x <= nines {
            let line = PathElement::new([(x, whole.0), (x, whole.1)], BLACK.mix(0.3));
            chart.draw_series([line])?;
            chart.draw_series([Text::new(name, (x + 0.02, whole.1), ("sans-serif", 13))])?;
        }
    }
    for (row, (curve, color)) in curves.iter().zip(COLORS).enumerate() {
        let points = curve.nanos.iter().enumerate();
        let points = points.map(|(index, latency)| (at(index), latency.max(1.0)));
        chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
        let style = ("sans-serif", 13).into_font().color(&color);
        let above = 18 * (curves.len() - row) as i32;
        let mut label = curve.label.clone();
        for ((quantile, name), latency) in MARKED.into_iter().zip(curve.marked) {
            let x = -(1.0 - quantile).log10();
            if x <= at(curve.nanos.len() - 1) {
                chart.draw_series([Circle::new((x, latency.max(1.0)), 4, color.filled())])?;
            }
            label += &format!(", {name} {}", readable(latency));
        }
        let place = (SIZE.0 as i32 / 2, SIZE.1 as i32 - 64 - above);
        root.draw(&Text::new(label, place, style))?;
    }
    root.present()?;
    Ok(())
}

fn readable(nanos: f64) -> String {
    time(Duration::from_nanos(nanos.round() as u64))
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

    fn drawn(latencies: &Histogram<u64>, what: &str) -> Option<String> {
        let nanos = curve(latencies);
        let marked = MARKED.map(|(quantile, _)| latencies.value_at_quantile(quantile) as f64);
        let curves = [Curve { nanos, marked, label: "now: 7 lines/s".to_owned() }];
        let curves = if latencies.is_empty() { &[][..] } else { &curves };
        svg(curves, "a <b> & c", what)
    }

    #[test]
    fn draws_what_there_is() {
        let mut latencies = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        assert_eq!(drawn(&latencies, "latency"), None);
        latencies.record(0).unwrap();
        assert!(drawn(&latencies, "latency").unwrap().starts_with("<svg"));
        (1..10_000).for_each(|n| latencies.record(n * 1000).unwrap());
        let many = drawn(&latencies, "latency").unwrap();
        assert!(many.contains("99.9 %") && many.contains("<polyline"), "{many}");
        assert!(!many.contains("<b>"), "{many}");
        assert!(many.contains("now: 7 lines/s, p50 5.00 ms, p99 9.90 ms"), "{many}");
    }

    #[test]
    fn two_runs_lie_over_each_other() {
        let run = |nanos: Vec<f64>, label: &str| Curve {
            marked: [nanos[6], nanos[40]],
            nanos,
            label: label.to_owned(),
        };
        let curves = [run(vec![1e3; 61], "now"), run(vec![5e6; 41], "before")];
        let svg = svg(&curves, "both", "latency").unwrap();
        for words in ["now, p50 1.00 µs, p99 1.00 µs", "before, p50 5.00 ms", "1.00 µs", "5.00 ms"]
        {
            assert!(svg.contains(words), "{words} is not in {svg}");
        }
        // p50 and p99 of both.
        assert_eq!(svg.matches("<circle").count(), 4, "{svg}");
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
        let svg = drawn(&latencies, "jitter").unwrap();
        let axis = |label: &str| svg.matches(&format!("\n{label}\n")).count();
        assert_eq!(["100 µs", "200 µs", "jitter"].map(axis), [1; 3], "{svg}");
    }

    #[test]
    fn percentiles() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 5.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]
        );
    }
}
