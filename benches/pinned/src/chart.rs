//! The courses as a drawing.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::course::Course;

const SIZE: (u32, u32) = (900, 420);
const COLOURS: [RGBColor; 3] = [RGBColor(20, 90, 160), RGBColor(190, 70, 40), RGBColor(60, 130, 60)];

/// Draws the claims' p99 over time, on a logarithmic scale.
pub(crate) fn draw(path: &Path, rate: usize, courses: &[&Course]) -> Result<(), Box<dyn Error>> {
    assert!(courses.len() <= COLOURS.len(), "a colour for each");
    let points = || courses.iter().flat_map(|course| &course.points).filter(|point| point.claims > 0);
    let end = points().map(|point| point.seconds).max().unwrap_or(1);
    let low = points().map(|point| point.p99).fold(f64::INFINITY, f64::min) / 2.0;
    let high = points().map(|point| point.p99).fold(0.0, f64::max) * 2.0;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("p99 of a claim of 100 under an open snapshot, {rate} jobs a second");
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0..end, (low..high).log_scale())?;
    chart.configure_mesh().x_desc("seconds").y_desc("milliseconds").light_line_style(WHITE).draw()?;
    for (course, colour) in courses.iter().zip(COLOURS) {
        let line =
            course.points.iter().filter(|point| point.claims > 0).map(|point| (point.seconds, point.p99));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(course.system.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}
