//! The drawing: four figures that repeat from run to run, each with a group of bars for every number of clients and a bar for
//! every model, on logarithmic scales.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Row;
use super::table::{COST, FEW_COST, MEMORY, Metric, SERVED};
use crate::Result;
use crate::chart::{Area, INK, write};
use crate::peers::MODELS;
use crate::table::thousands;

const PANELS: [(&str, Metric); 4] = [
    ("clients served, more is better", SERVED),
    ("memory of each client, KiB, less is better", MEMORY),
    ("CPU time of a line when all talk, ns, less is better", COST),
    ("CPU time of a line when ten talk, ns, less is better", FEW_COST),
];

const COLORS: [RGBColor; 7] = [
    RGBColor(150, 150, 150),
    RGBColor(140, 86, 75),
    RGBColor(214, 39, 40),
    RGBColor(255, 150, 60),
    RGBColor(120, 180, 60),
    RGBColor(120, 190, 230),
    RGBColor(31, 119, 180),
];

const COLUMNS: i32 = 2;
const WIDE: i32 = 560;
const HIGH: i32 = 190;
/// Left of a panel for the numbers, above it for its title, below it for the clients.
const LEFT: i32 = 70;
const ABOVE: i32 = 40;
const BELOW: i32 = 24;
const HEAD: i32 = 60;
const FAINT: RGBColor = RGBColor(225, 225, 225);

pub fn draw(path: &Path, rows: &[Row]) -> Result<()> {
    let across = COLUMNS * (LEFT + WIDE) + 20;
    let down = HEAD + PANELS.len() as i32 / COLUMNS * (ABOVE + HIGH + BELOW) + 10;
    let area = SVGBackend::new(path, (across.cast_unsigned(), down.cast_unsigned()));
    let area = area.into_drawing_area();
    area.fill(&WHITE)?;
    write(
        &area,
        "One echo server in seven models of concurrency; logarithmic scales",
        (10, 16),
        17,
        HPos::Left,
    )?;
    let step = across / MODELS.len() as i32;
    for (place, (model, color)) in MODELS.iter().zip(COLORS).enumerate() {
        let left = 10 + place as i32 * step;
        area.draw(&Rectangle::new([(left, 38), (left + 12, 50)], color.filled()))?;
        write(&area, model.name, (left + 18, 44), 13, HPos::Left)?;
    }
    for (place, (title, metric)) in (0..).zip(PANELS) {
        let left = LEFT + place % COLUMNS * (LEFT + WIDE);
        let top = HEAD + place / COLUMNS * (ABOVE + HIGH + BELOW) + ABOVE;
        write(&area, title, (left, top - 20), 14, HPos::Left)?;
        panel(&area, (left, top), rows, metric)?;
    }
    area.present()?;
    Ok(())
}

fn panel(area: &Area<'_>, (left, top): (i32, i32), rows: &[Row], metric: Metric) -> Result<()> {
    let value = |row: &Row| row.result.as_ref().ok().map(metric);
    let Some((low, high)) = powers(rows.iter().filter_map(value)) else { return Ok(()) };
    let bottom = top + HIGH;
    let height = |value: f64| {
        let share = (value.log10() - f64::from(low)) / f64::from(high - low);
        bottom - (share * f64::from(HIGH)) as i32
    };
    for power in low..=high {
        let y = height(10f64.powi(power));
        area.draw(&PathElement::new([(left, y), (left + WIDE, y)], FAINT))?;
        let number =
            if power < 0 { format!("{}", 10f64.powi(power)) } else { thousands(10f64.powi(power)) };
        write(area, &number, (left - 8, y), 12, HPos::Right)?;
    }
    let mut counts: Vec<usize> = rows.iter().map(|row| row.clients).collect();
    counts.dedup();
    let group = WIDE / counts.len().max(1) as i32;
    let bar = (group - 16) / MODELS.len() as i32;
    for (place, count) in (0..).zip(counts) {
        let begin = left + place * group + 8;
        write(
            area,
            &format!("{} clients", thousands(count as f64)),
            (begin, bottom + 12),
            12,
            HPos::Left,
        )?;
        for (number, (model, color)) in (0..).zip(MODELS.iter().zip(COLORS)) {
            let row = rows.iter().find(|row| row.clients == count && row.model == model.name);
            if let Some(value) = row.and_then(value) {
                let begin = begin + number * bar;
                if value > 0.0 {
                    let corners = [(begin, height(value)), (begin + bar - 2, bottom)];
                    area.draw(&Rectangle::new(corners, color.filled()))?;
                } else {
                    // A logarithm has no place for it.
                    write(area, "0", (begin + bar / 2 - 1, bottom - 7), 12, HPos::Center)?;
                }
            }
        }
    }
    area.draw(&PathElement::new([(left, bottom), (left + WIDE, bottom)], INK))?;
    Ok(())
}

/// The whole powers of ten between which the scale lies. The least value must have a bar that can be
/// seen, even where it is a power of ten or little more; 0 has none.
fn powers(values: impl Iterator<Item = f64>) -> Option<(i32, i32)> {
    const SEEN: f64 = 0.3;
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .map(f64::log10)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), it| {
            (least.min(it), most.max(it))
        });
    (least <= most).then(|| ((least - SEEN).floor() as i32, most.ceil() as i32))
}

#[cfg(test)]
mod tests {
    use super::powers;

    /// The bar of 0.12 was two pixels high.
    #[test]
    fn the_least_bar_can_be_seen() {
        for (least, low) in [(0.12, -2), (0.1, -2), (1.0, -1), (1.9, -1), (2.0, 0), (9.9, 0)] {
            assert_eq!(powers([0.0, 100.0, least].into_iter()), Some((low, 2)), "{least}");
        }
        assert_eq!(powers([0.0].into_iter()), None);
    }
}
