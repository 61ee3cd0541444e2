//! The drawing: for each scenario and peer, the ratios to the floor as bars on a logarithmic scale.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::peers::{FLOOR, OURS};
use crate::table::{COST, Group, Metric, P99, SPEED};

const COLUMNS: [(&str, Metric); 3] = [
    ("CPU time of the server (or memory) per unit, less is better", COST),
    ("throughput, more is better", SPEED),
    ("99th percentile of latency, less is better", P99),
];

const NAMES: i32 = 130;
const COLUMN: i32 = 430;
const GAP: i32 = 20;
const HEAD: i32 = 60;
const TITLE: i32 = 26;
const BAR: i32 = 17;
/// For the number at the end of a bar.
const NUMBER: i32 = 52;

pub const INK: RGBColor = RGBColor(40, 40, 40);

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub fn draw(path: &Path, groups: &[Group<'_>]) -> Result<()> {
    let rows: i32 = groups.iter().map(|group| TITLE + BAR * group.rows.len() as i32 + GAP).sum();
    let size = (NAMES + 3 * (COLUMN + GAP), HEAD + rows);
    let area = SVGBackend::new(path, (size.0.cast_unsigned(), size.1.cast_unsigned()));
    let area = area.into_drawing_area();
    area.fill(&WHITE)?;
    let title = "Ratios to the floor, a bare epoll loop: medians of the rounds, logarithmic scale";
    write(&area, title, (10, 16), 17, HPos::Left)?;
    for (place, (title, metric)) in COLUMNS.into_iter().enumerate() {
        let left = NAMES + place as i32 * (COLUMN + GAP);
        write(&area, title, (left, 42), 13, HPos::Left)?;
        Column::new(left, groups, metric).draw(&area, groups)?;
    }
    let mut top = HEAD;
    for group in groups {
        write(&area, group.scenario.title, (10, top + TITLE / 2), 14, HPos::Left)?;
        top += TITLE;
        for row in &group.rows {
            write(&area, row.peer, (NAMES - 12, top + BAR / 2), 12, HPos::Right)?;
            top += BAR;
        }
        top += GAP;
    }
    area.present()?;
    Ok(())
}

struct Column {
    metric: Metric,
    /// Where a ratio of 1 is, and how far from it twice as much.
    one: f64,
    twice: f64,
}

impl Column {
    fn new(left: i32, groups: &[Group<'_>], metric: Metric) -> Column {
        let ratios = groups.iter().flat_map(|group| {
            group.rows.iter().filter_map(move |row| group.ratio(row, FLOOR, metric))
        });
        let (mut least, mut most) = (-0.5_f64, 0.5_f64);
        for ratio in ratios {
            (least, most) = (least.min(ratio.log2()), most.max(ratio.log2()));
        }
        let twice = f64::from(COLUMN - 2 * NUMBER) / (most - least);
        Column { metric, one: f64::from(left + NUMBER) - least * twice, twice }
    }

    fn draw(&self, area: &Area<'_>, groups: &[Group<'_>]) -> Result<()> {
        let mut top = HEAD;
        let one = self.one as i32;
        for group in groups {
            top += TITLE;
            let begin = top;
            for row in &group.rows {
                if let Some(ratio) = group.ratio(row, FLOOR, self.metric) {
                    let end = (self.one + ratio.log2() * self.twice) as i32;
                    let bar = [(one.min(end), top + 2), (one.max(end), top + BAR - 2)];
                    area.draw(&Rectangle::new(bar, color(row.peer).filled()))?;
                    let text = format!("{ratio:.2}");
                    let (x, side) =
                        if end < one { (end - 4, HPos::Right) } else { (end + 4, HPos::Left) };
                    write(area, &text, (x, top + BAR / 2), 12, side)?;
                }
                top += BAR;
            }
            if group.rows.iter().any(|row| row.median(self.metric).is_some()) {
                area.draw(&PathElement::new([(one, begin), (one, top)], INK))?;
            }
            top += GAP;
        }
        Ok(())
    }
}

fn color(peer: &str) -> RGBColor {
    match peer {
        FLOOR => RGBColor(150, 150, 150),
        OURS => RGBColor(31, 119, 180),
        _ => RGBColor(240, 160, 90),
    }
}

pub fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<()> {
    let style = ("sans-serif", size).into_text_style(area).color(&INK);
    area.draw_text(text, &style.pos(Pos::new(side, VPos::Center)), at)?;
    Ok(())
}
