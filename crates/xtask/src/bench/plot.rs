//! `bench.svg`: a bar for each contender in each row, as ratio to the bare loop or pipe.

use std::error::Error;
use std::path::Path;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::Result;
use super::contender::Contender;
use super::results::{Kind, Results};
use super::stats::float;

/// Width and height in pixels.
const SIZE: (u32, u32) = (1280, 600);

/// Bars take so much of a row's width; the rest is between the rows.
const BARS: f64 = 0.86;

/// The legend's room, as wide as so many rows.
const LEGEND: f64 = 1.0;

const FONT: &str = "sans-serif";

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The figures of one row.
struct Row<'a> {
    name: &'a str,
    bars: Vec<(Contender, f64)>,
}

/// Writes the plot of all rows in which more is better.
pub(crate) fn write(path: &Path, results: &Results) -> Result<()> {
    let rows: Vec<_> = [Kind::Rate, Kind::Bytes].into_iter().flat_map(|kind| rows(results, kind)).collect();
    // The plotting crate's errors borrow what is drawn.
    draw(path, &rows).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Rows that have something to be compared with.
fn rows(results: &Results, kind: Kind) -> Vec<Row<'_>> {
    let Some(base) = kind.base() else { return Vec::new() };
    let bars = |name| {
        let ratio = |contender| Some((contender, results.ratio(kind, name, contender, base)?));
        results.contenders(kind).into_iter().filter_map(ratio).collect()
    };
    results.rows(kind).into_iter().map(|name| Row { name, bars: bars(name) }).collect()
}

fn draw(path: &Path, rows: &[Row<'_>]) -> std::result::Result<(), Box<dyn Error>> {
    let highest = rows.iter().flat_map(|row| &row.bars).map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    let width = float(rows.len().max(1) as u64);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("programs a second, of a bare loop; bytes a second, of a bare pipe of 1 MiB", (FONT, 20))
        .margin(16)
        .x_label_area_size(32)
        .y_label_area_size(40)
        .build_cartesian_2d(0.0..width + LEGEND, 0.0..highest * 1.15)?;
    let ratio = |y: &f64| format!("{y:.1}");
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .max_light_lines(0)
        .y_labels(8)
        .label_style((FONT, 14))
        .y_label_formatter(&ratio)
        .draw()?;
    chart.draw_series([PathElement::new([(0.0, 1.0), (width, 1.0)], BLACK)])?;
    for contender in contenders(rows) {
        draw_contender(&mut chart, rows, contender)?;
    }
    for (row, left) in rows.iter().zip(0_u32..) {
        let below = EmptyElement::at((f64::from(left) + 0.5, 0.0));
        chart.draw_series([below + Text::new(row.name.to_owned(), (-24, 10), (FONT, 14))])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK)
        .label_font((FONT, 14))
        .draw()?;
    root.present()?;
    Ok(())
}

fn contenders(rows: &[Row<'_>]) -> Vec<Contender> {
    let mut all: Vec<_> = rows.iter().flat_map(|row| &row.bars).map(|(contender, _)| *contender).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn draw_contender(
    chart: &mut Chart<'_>,
    rows: &[Row<'_>],
    contender: Contender,
) -> std::result::Result<(), Box<dyn Error>> {
    let colour = colour(contender);
    let mut bars = Vec::new();
    for (row, left) in rows.iter().zip(0_u32..) {
        let width = BARS / float(row.bars.len() as u64);
        for ((who, ratio), place) in row.bars.iter().zip(0_u32..) {
            if *who == contender {
                let start = f64::from(left) + (1.0 - BARS) / 2.0 + width * f64::from(place);
                bars.push((start, start + width * 0.92, *ratio));
            }
        }
    }
    chart
        .draw_series(
            bars.iter().map(|&(start, end, ratio)| Rectangle::new([(start, 0.0), (end, ratio)], colour.filled())),
        )?
        .label(contender.name())
        .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    chart.draw_series(bars.iter().map(|&(start, _, ratio)| {
        EmptyElement::at((start, ratio)) + Text::new(format!("{ratio:.2}"), (-1, -14), (FONT, 11))
    }))?;
    Ok(())
}

/// Told apart by people who do not see all colours too (Okabe and Ito's palette); ours stand out.
const fn colour(contender: Contender) -> RGBColor {
    match contender {
        Contender::Bare | Contender::Pipe64K => RGBColor(190, 190, 190),
        Contender::Bare2 | Contender::Pipe1M => RGBColor(120, 120, 120),
        Contender::Fast => RGBColor(213, 94, 0),
        Contender::Portable => RGBColor(230, 159, 0),
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
