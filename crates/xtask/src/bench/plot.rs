//! `bench.svg`: a bar for each contender in each row, as a multiple of the bare loop or pipe.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Result;
use super::contender::Contender;
use super::results::{Kind, Results};
use super::stats::float;

/// Width and height in pixels.
const SIZE: (u32, u32) = (1500, 860);

/// Height of the upper chart, which has most rows, in pixels.
const UPPER: u32 = 440;

/// The part of a row's width that bars take. The rest is between the rows.
const BARS: f64 = 0.92;

/// Width of the legend beside the rows, in pixels.
const LEGEND: u32 = 130;

const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = std::result::Result<(), Box<dyn Error>>;

/// The figures of one row.
struct Row<'a> {
    name: &'a str,
    bars: Vec<(Contender, f64)>,
}

/// Writes the plot of all rows in which more is better: programs above, bytes below, each with its own scale.
pub(crate) fn write(path: &Path, results: &Results) -> Result<()> {
    let draw = || -> Drawn {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (upper, lower) = root.split_vertically(UPPER);
        let programs = "programs a second, as a multiple of a bare loop of posix_spawn (so many at a time)";
        draw_chart(&upper, programs, &rows(results, Kind::Rate))?;
        draw_chart(&lower, "bytes a second, as a multiple of a bare pipe of 1 MiB", &rows(results, Kind::Bytes))?;
        root.present()?;
        Ok(())
    };
    // The plotting crate's errors borrow what is drawn.
    draw().map_err(|error| format!("{}: {error}", path.display()).into())
}

/// The rows of a kind, compared with its base.
fn rows(results: &Results, kind: Kind) -> Vec<Row<'_>> {
    let Some(base) = kind.base() else { return Vec::new() };
    let bars = |name| {
        let ratio = |contender| Some((contender, results.ratio(kind, name, contender, base)?));
        results.contenders(kind).into_iter().filter_map(ratio).collect()
    };
    results.rows(kind).into_iter().map(|name| Row { name, bars: bars(name) }).collect()
}

fn draw_chart(area: &Area<'_>, caption: &str, rows: &[Row<'_>]) -> Drawn {
    let highest = rows.iter().flat_map(|row| &row.bars).map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    let width = float(rows.len().max(1) as u64);
    let pixels = SIZE.0 - LEGEND;
    let (left, right) = area.split_horizontally(pixels);
    let mut chart = ChartBuilder::on(&left)
        .caption(caption, (FONT, 18))
        .margin(14)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..width, 0.0..highest * 1.12)?;
    let ratio = |y: &f64| format!("{y:.1}");
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .max_light_lines(0)
        .y_labels(6)
        .label_style((FONT, 14))
        .y_label_formatter(&ratio)
        .draw()?;
    chart.draw_series([PathElement::new([(0.0, 1.0), (width, 1.0)], BLACK)])?;
    let contenders = contenders(rows);
    for &contender in &contenders {
        draw_contender(&mut chart, rows, contender)?;
    }
    let centred = (FONT, 15).into_font().into_text_style(area).pos(Pos::new(HPos::Center, VPos::Top));
    for (row, left) in rows.iter().zip(0_u32..) {
        let below = EmptyElement::at((f64::from(left) + 0.5, 0.0));
        chart.draw_series([below + Text::new(row.name.to_owned(), (0, 8), centred.clone())])?;
    }
    for (contender, y) in contenders.into_iter().zip((50..).step_by(24)) {
        right.draw(&Rectangle::new([(4, y), (18, y + 12)], colour(contender).filled()))?;
        right.draw(&Text::new(contender.name(), (26, y), (FONT, 15)))?;
    }
    Ok(())
}

fn contenders(rows: &[Row<'_>]) -> Vec<Contender> {
    let mut all: Vec<_> = rows.iter().flat_map(|row| &row.bars).map(|(contender, _)| *contender).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn draw_contender(chart: &mut Chart<'_>, rows: &[Row<'_>], contender: Contender) -> Drawn {
    let colour = colour(contender);
    let mut bars = Vec::new();
    for (row, left) in rows.iter().zip(0_u32..) {
        let width = BARS / float(row.bars.len() as u64);
        for ((who, ratio), place) in row.bars.iter().zip(0_u32..) {
            if *who == contender {
                let start = f64::from(left) + (1.0 - BARS) / 2.0 + width * f64::from(place);
                bars.push((start, start + width * 0.94, *ratio));
            }
        }
    }
    let above = (FONT, 10).into_font().into_text_style(chart.plotting_area()).pos(Pos::new(HPos::Center, VPos::Bottom));
    chart.draw_series(
        bars.iter().map(|&(start, end, ratio)| Rectangle::new([(start, 0.0), (end, ratio)], colour.filled())),
    )?;
    chart.draw_series(bars.iter().map(|&(start, end, ratio)| {
        EmptyElement::at((f64::midpoint(start, end), ratio)) + Text::new(format!("{ratio:.2}"), (0, -2), above.clone())
    }))?;
    Ok(())
}

/// Colours that colour-blind people can distinguish (Okabe and Ito's palette). Ours stand out.
const fn colour(contender: Contender) -> RGBColor {
    match contender {
        Contender::Bare | Contender::Pipe64K => RGBColor(190, 190, 190),
        Contender::Bare2 | Contender::Pipe1M => RGBColor(120, 120, 120),
        Contender::Fast => RGBColor(213, 94, 0),
        Contender::Fast2 => RGBColor(240, 228, 66),
        Contender::Clone => RGBColor(230, 159, 0),
        Contender::Fork => RGBColor(153, 153, 153),
        Contender::Other => RGBColor(0, 0, 0),
        Contender::Other2 => RGBColor(80, 80, 80),
        Contender::Original => RGBColor(0, 114, 178),
        Contender::Socat => RGBColor(0, 158, 115),
        Contender::S6 => RGBColor(204, 121, 167),
        Contender::Ssh => RGBColor(86, 180, 233),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_and_contender_is_in_the_plot() {
        let mut results = Results::default();
        for contender in [Contender::Bare, Contender::Fast] {
            results.record(Kind::Rate, "small-16", contender, 1000.0);
            results.record(Kind::Latency, "small-16 p50", contender, 3.0);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), &results).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        assert!(svg.contains("small-16") && svg.contains("fast") && svg.contains("1.00"));
        assert!(!svg.contains("p50"));
        write(file.path(), &Results::default()).unwrap();
    }
}
