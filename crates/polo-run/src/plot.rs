//! Plots as SVG text: line plots with bands, bar charts with error bars.
//!
//! [`crate::report`] puts them into `report.html`. They are written by hand instead of with `plotters`, because
//! colours and text must follow the reader's light or dark page, which only CSS classes inside the SVG can do.

use std::fmt::Write;

use crate::{
    human,
    stats::{Estimate, t_interval},
};

/// Number of distinguishable series; further ones repeat the colours.
pub const PALETTE: usize = 7;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 52.0;
/// Longer series are drawn as the mean of this many buckets, with the range of each as a band.
const BUCKETS: usize = 300;
/// Slanted labels of bars are cut beyond this many letters, or where the figure ends on the left.
const SLANTED: usize = 30;
/// Bands reach no further beyond all lines than this many times their range.
const MOST_BAND: f64 = 1.0;
/// Up to this many points each gets a dot.
const DOTS: usize = 60;

/// A plot of one or more series over a common horizontal axis.
#[derive(Clone, Debug, Default)]
pub struct LinePlot {
    /// Heading of the figure.
    pub title: String,
    /// Name of the horizontal axis with its unit.
    pub x_label: String,
    /// Name of the vertical axis with its unit.
    pub y_label: String,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// One line of a [`LinePlot`].
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Horizontal and vertical coordinates in drawing order; values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
    /// Lower and upper end of an interval for each point, e.g. over seeds.
    pub band: Option<Vec<(f64, f64)>>,
    /// Index of the colour, modulo [`PALETTE`].
    pub colour: usize,
    /// Dashed lines tell held-out data from training data of the same colour.
    pub dashed: bool,
}

impl Series {
    /// A line through the means of `estimates`, with their intervals as band. Dashed beyond the [`PALETTE`], so that a
    /// colour that comes back can be told apart.
    pub fn of_estimates(
        name: impl Into<String>,
        estimates: impl IntoIterator<Item = (f64, Estimate)>,
        colour: usize,
    ) -> Self {
        let (mut points, mut band) = (Vec::new(), Vec::new());
        for (at, estimate) in estimates {
            points.push((at, estimate.mean));
            band.push(estimate.interval.unwrap_or((f64::NAN, f64::NAN)));
        }
        let band = band.iter().any(finite).then_some(band);
        Self { name: name.into(), points, band, colour, dashed: colour >= PALETTE }
    }

    /// The mean over seeds of `curves[seed][i]` at `at[i]`, with its 95 % interval as band. A seed whose curve is too
    /// short is left out where it has no value.
    pub fn over_seeds<C: AsRef<[f64]>>(
        name: impl Into<String>,
        at: &[f64],
        curves: &[C],
        colour: usize,
    ) -> Self {
        let estimate = |place: usize| {
            let values: Vec<f64> =
                curves.iter().filter_map(|curve| curve.as_ref().get(place).copied()).collect();
            t_interval(&values, "seeds")
        };
        Self::of_estimates(name, at.iter().enumerate().map(|(place, at)| (*at, estimate(place))), colour)
    }

    /// A dashed grey line of this slope through the last point of another, to compare that one with.
    pub fn slope(slope: f64, along: &Series) -> Self {
        let (x, y) = along.points.last().copied().unwrap_or_default();
        let points = along.points.iter().map(|point| (point.0, y + slope * (point.0 - x))).collect();
        Self { name: format!("slope {slope}"), points, colour: PALETTE - 1, dashed: true, ..Self::default() }
    }
}

/// Groups of bars with error bars, one bar per series in each group.
#[derive(Clone, Debug, Default)]
pub struct BarChart {
    /// Heading of the figure.
    pub title: String,
    /// Name of the vertical axis with its unit.
    pub y_label: String,
    /// Names of the series, for the legend.
    pub series: Vec<String>,
    /// A label and one estimate per series.
    pub groups: Vec<(String, Vec<Estimate>)>,
}

/// Escapes text for HTML and SVG, including attribute values.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in HTML, and would be invisible.
            control if control.is_control() && !"\n\t\r".contains(control) => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

impl LinePlot {
    /// Cuts intervals that are so wide that the lines would lie flat: those over two seeds have no bounds.
    fn cut(&self, drawn: &mut [Series], notes: &mut Vec<String>) {
        let ys =
            drawn.iter().flat_map(|series| &series.points).filter(|point| finite(point)).map(|point| point.1);
        let (low, high) =
            ys.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let room = MOST_BAND * (high - low);
        if !(room > 0.0 && room.is_finite()) {
            return;
        }
        let mut any = false;
        let given = drawn.iter_mut().zip(&self.series).filter(|(_, series)| series.band.is_some());
        for end in given.flat_map(|(series, _)| series.band.iter_mut().flatten()).flat_map(|(l, h)| [l, h]) {
            if end.is_finite() {
                let inside = end.clamp(low - room, high + room);
                any |= *end != inside;
                *end = inside;
            }
        }
        if any {
            notes.push("bands: cut where they would hide the lines".into());
        }
    }

    /// The figure as HTML: heading, legend, SVG and notes on what could not be drawn.
    pub(crate) fn to_html(&self) -> String {
        let mut notes = Vec::new();
        let mut drawn: Vec<Series> = self.series.iter().map(|series| thin(series, &mut notes)).collect();
        self.cut(&mut drawn, &mut notes);
        let lost: usize = self.series.iter().flat_map(|s| &s.points).filter(|p| !finite(p)).count();
        if lost > 0 {
            notes.push(format!("values that are not finite and so not drawn: {lost}"));
        }
        let points = || drawn.iter().flat_map(|series| series.points.iter().filter(|point| finite(point)));
        let bands = || drawn.iter().flat_map(|series| series.band.iter().flatten());
        let ys = points().map(|point| point.1).chain(bands().flat_map(|(low, high)| [*low, *high]));
        // Thinning moves the ends of a series inwards; the axis shows where it really began and ended.
        let xs = self.series.iter().flat_map(|series| &series.points).filter(|point| finite(point));
        let (Some(x), Some(y)) = (Axis::around(xs.map(|point| point.0), 0.0), Axis::around(ys, 0.05)) else {
            return figure(&self.title, "", "<p class=\"note\">no finite value to draw</p>", &notes);
        };

        let legend = self.series.iter().map(|series| {
            let last = series.points.iter().rev().find(|point| finite(point));
            let last = last.map(|point| format!(" <b>{}</b>", human::number(point.1))).unwrap_or_default();
            let dash = if series.dashed { " dashed" } else { "" };
            format!(
                "<span><svg class=\"key\" viewBox=\"0 0 28 10\"><path class=\"line c{}{dash}\" d=\"M0 5H28\"/></svg>\
                 {}{last}</span>",
                series.colour % PALETTE,
                escape(&series.name)
            )
        });
        let legend = format!("<div class=\"legend\">{}</div>", legend.collect::<String>());

        let mut svg = frame(&self.title, &self.y_label, &y, 0.0);
        for tick in x.ticks() {
            let at = x.place(tick, LEFT, WIDTH - RIGHT);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{:.1}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" \
                 y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 19.0,
                x.label(tick)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 10.0,
            escape(&self.x_label)
        );
        for series in &drawn {
            draw_series(&mut svg, series, &x, &y);
        }
        svg.push_str("</svg>");
        figure(&self.title, &legend, &svg, &notes)
    }
}

fn draw_series(svg: &mut String, series: &Series, x: &Axis, y: &Axis) {
    let colour = series.colour % PALETTE;
    let at = |px: f64, py: f64| (x.place(px, LEFT, WIDTH - RIGHT), y.place(py, HEIGHT - BOTTOM, TOP));
    if let Some(band) = &series.band {
        let usable =
            || series.points.iter().zip(band).filter(|((px, _), ends)| px.is_finite() && finite(ends));
        let there = usable().map(|((px, _), (_, high))| at(*px, *high));
        let back = usable().rev().map(|((px, _), (low, _))| at(*px, *low));
        let outline: Vec<String> = there.chain(back).map(|(px, py)| format!("{px:.1} {py:.1}")).collect();
        if !outline.is_empty() {
            let _ = write!(svg, "<path class=\"band c{colour}\" d=\"M{}Z\"/>", outline.join("L"));
        }
    }
    let mut path = String::new();
    let mut pen = 'M';
    for point in &series.points {
        if finite(point) {
            let (px, py) = at(point.0, point.1);
            let _ = write!(path, "{pen}{px:.1} {py:.1}");
            pen = 'L';
        } else {
            pen = 'M';
        }
    }
    let dash = if series.dashed { " dashed" } else { "" };
    let _ = write!(svg, "<path class=\"line c{colour}{dash}\" d=\"{path}\"/>");
    if series.points.len() <= DOTS {
        for point in series.points.iter().filter(|point| finite(point)) {
            let (px, py) = at(point.0, point.1);
            let _ = write!(
                svg,
                "<circle class=\"dot c{colour}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\"><title>{}: {} at {}</title></circle>",
                escape(&series.name),
                human::number(point.1),
                x.label(point.0)
            );
        }
    }
}

/// A long series as bucket means with the range of each bucket as band; others as they are.
fn thin(series: &Series, notes: &mut Vec<String>) -> Series {
    if series.points.len() <= 2 * BUCKETS || series.band.is_some() {
        return series.clone();
    }
    let size = series.points.len().div_ceil(BUCKETS);
    let mut points = Vec::new();
    let mut band = Vec::new();
    for bucket in series.points.chunks(size) {
        let values: Vec<f64> = bucket.iter().filter(|point| finite(point)).map(|point| point.1).collect();
        let middle = bucket.iter().map(|point| point.0).sum::<f64>() / bucket.len() as f64;
        // A bucket without a finite value is a gap: 0 / 0 is not finite.
        points.push((middle, values.iter().sum::<f64>() / values.len() as f64));
        band.push((
            values.iter().copied().fold(f64::INFINITY, f64::min),
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ));
    }
    let note = format!("lines: mean of {size} neighbouring points; bands: their range");
    if !notes.contains(&note) {
        notes.push(note);
    }
    Series { points, band: Some(band), ..series.clone() }
}

impl BarChart {
    /// The figure as HTML: heading, legend, SVG.
    pub(crate) fn to_html(&self) -> String {
        let ends = self.groups.iter().flat_map(|(_, bars)| bars).flat_map(|bar| {
            let (low, high) = bar.interval.unwrap_or((bar.mean, bar.mean));
            [bar.mean, low, high]
        });
        // Bars stand on zero: a cut axis would exaggerate.
        let Some(y) = Axis::around(ends.filter(|end| end.is_finite()).chain([0.0]), 0.08) else {
            return figure(&self.title, "", "<p class=\"note\">nothing to draw</p>", &[]);
        };
        let legend = self.series.iter().enumerate().map(|(index, name)| {
            let colour = index % PALETTE;
            format!(
                "<span><svg class=\"key\" viewBox=\"0 0 28 10\"><rect class=\"bar c{colour}\" width=\"28\" height=\"10\"/>\
                 </svg>{}</span>",
                escape(name)
            )
        });
        let legend = match self.series.len() {
            0 => String::new(),
            _ => format!("<div class=\"legend\">{}</div>", legend.collect::<String>()),
        };

        let slot = (WIDTH - RIGHT - LEFT) / self.groups.len().max(1) as f64;
        let room = (slot / 7.5) as usize;
        let longest = self.groups.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        // Many bars leave no room for level labels.
        let slanted = longest > room && self.groups.len() > 4;
        let below = if slanted { 5.0 * longest.min(SLANTED) as f64 - BOTTOM / 2.0 } else { 0.0 };
        let mut svg = frame(&self.title, &self.y_label, &y, below.max(0.0));
        let mut intervals = false;
        for (index, (label, bars)) in self.groups.iter().enumerate() {
            let centre = LEFT + slot * (index as f64 + 0.5);
            let width = (slot * 0.8 / bars.len().max(1) as f64).min(70.0);
            for (place, bar) in bars.iter().enumerate() {
                intervals |= bar.interval.is_some();
                let left = centre + width * (place as f64 - bars.len() as f64 / 2.0);
                draw_bar(&mut svg, bar, place, left, width, &y);
            }
            let (place, room) = match slanted {
                true => {
                    let at = format!("translate({centre:.1} {:.1}) rotate(-45)", HEIGHT - BOTTOM + 14.0);
                    (format!("text-anchor=\"end\" transform=\"{at}\""), SLANTED.min((centre / 4.7) as usize))
                }
                false => {
                    let at = format!("x=\"{centre:.1}\" y=\"{:.1}\"", HEIGHT - BOTTOM + 19.0);
                    (format!("text-anchor=\"middle\" {at}"), room)
                }
            };
            let _ = write!(
                svg,
                "<text class=\"tick\" {place}>{}<title>{}</title></text>",
                escape(&shortened(label, room)),
                escape(label)
            );
        }
        let zero = y.place(0.0, HEIGHT - BOTTOM, TOP);
        let _ = write!(svg, "<path class=\"frame\" d=\"M{LEFT} {zero:.1}H{:.1}\"/></svg>", WIDTH - RIGHT);
        let mut notes = Vec::new();
        if intervals {
            let first = self.groups.iter().flat_map(|(_, bars)| bars).find(|bar| bar.interval.is_some());
            let over = first.map(|bar| format!(" (n={} {})", bar.n, bar.of)).unwrap_or_default();
            notes.push(format!("error bars: 95 % intervals{over}"));
        }
        figure(&self.title, &legend, &svg, &notes)
    }
}

fn draw_bar(svg: &mut String, bar: &Estimate, colour: usize, left: f64, width: f64, y: &Axis) {
    let at = |value: f64| y.place(value, HEIGHT - BOTTOM, TOP);
    let middle = left + width / 2.0;
    if !bar.mean.is_finite() {
        let _ = write!(
            svg,
            "<text class=\"value\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">none</text>",
            at(0.0) - 5.0
        );
        return;
    }
    let (top, bottom) = (at(bar.mean.max(0.0)), at(bar.mean.min(0.0)));
    let _ = write!(
        svg,
        "<rect class=\"bar c{}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{bar}</title></rect>",
        colour % PALETTE,
        left + 2.0,
        width - 4.0,
        bottom - top
    );
    let mut edge = if bar.mean >= 0.0 { top } else { bottom };
    if let Some((low, high)) = bar.interval {
        let (low, high) = (at(low), at(high));
        let _ = write!(
            svg,
            "<path class=\"error\" d=\"M{middle:.1} {low:.1}V{high:.1}M{:.1} {low:.1}H{:.1}M{:.1} {high:.1}H{:.1}\"/>",
            middle - 5.0,
            middle + 5.0,
            middle - 5.0,
            middle + 5.0
        );
        edge = if bar.mean >= 0.0 { edge.min(high) } else { edge.max(low) };
    }
    let text_at = if bar.mean >= 0.0 { edge - 5.0 } else { edge + 14.0 };
    let _ = write!(
        svg,
        "<text class=\"value\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{text_at:.1}\">{}</text>",
        y.label_to(bar.mean, 1)
    );
}

/// The opening of the SVG with the vertical axis, and more height `below` for long labels.
fn frame(title: &str, y_label: &str, y: &Axis, below: f64) -> String {
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\"><title>{}</title>",
        HEIGHT + below,
        escape(title)
    );
    for tick in y.ticks() {
        let at = y.place(tick, HEIGHT - BOTTOM, TOP);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">\
             {}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.5,
            y.label(tick)
        );
    }
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = write!(
        svg,
        "<path class=\"frame\" d=\"M{LEFT} {TOP}V{:.1}H{:.1}\"/>\
         <text class=\"axis\" text-anchor=\"middle\" transform=\"translate(11 {middle:.1}) rotate(-90)\">{}</text>",
        HEIGHT - BOTTOM,
        WIDTH - RIGHT,
        escape(y_label)
    );
    svg
}

fn figure(title: &str, legend: &str, body: &str, notes: &[String]) -> String {
    let note = match notes {
        [] => String::new(),
        notes => format!("<p class=\"note\">{}</p>", escape(&notes.join("; "))),
    };
    format!("<figure><figcaption>{}</figcaption>{legend}{body}{note}</figure>\n", escape(title))
}

fn finite(pair: &(f64, f64)) -> bool {
    pair.0.is_finite() && pair.1.is_finite()
}

fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room.max(3) {
        return text.to_string();
    }
    text.chars().take(room.max(3) - 1).chain(['…']).collect()
}

/// A linear axis with ticks at round numbers.
struct Axis {
    low: f64,
    high: f64,
    spacing: f64,
}

impl Axis {
    /// An axis that holds all finite values with a margin on both sides, as a share of their range; `None` without
    /// such values.
    fn around(values: impl Iterator<Item = f64>, margin: f64) -> Option<Self> {
        // Beyond these sizes the range of the axis would overflow.
        let (low, high) = values
            .filter(|value| value.abs() < 1e300)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        // A flat line, or one that only rounding moves, gets room around it.
        let flat = high - low <= 1e-9 * low.abs().max(high.abs());
        let room = match flat {
            true if low == 0.0 => 1.0,
            true => low.abs() * 0.1,
            false => (high - low) * margin,
        };
        let (low, high) = (low - room, high + room);
        let raw = (high - low) / 5.0;
        let power = 10_f64.powf(raw.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|step| step * power >= raw * 0.999).unwrap_or(10.0);
        Some(Self { low, high, spacing: step * power })
    }

    /// Where `value` lies between the coordinates `from` (lower end) and `to` (upper end).
    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.high - self.low) * (to - from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.spacing - 1e-9).ceil();
        let count = ((self.high / self.spacing + 1e-9).floor() - first).clamp(0.0, 20.0) as u32;
        (0..=count).map(move |index| (first + f64::from(index)) * self.spacing)
    }

    /// A number with just the digits that tell ticks apart.
    fn label(&self, value: f64) -> String {
        self.label_to(value, 0)
    }

    /// A number with `more` digits than the ticks have.
    fn label_to(&self, value: f64, more: usize) -> String {
        let size = self.low.abs().max(self.high.abs());
        if !(1e-3..1e6).contains(&size) {
            if value.abs() < self.spacing * 1e-6 {
                return "0".into();
            }
            let digits = (value.abs().log10().floor() - self.spacing.log10().floor()).clamp(0.0, 6.0)
                as usize
                + 1
                + more;
            let text = format!("{value:.digits$e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            return format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'));
        }
        // A spacing of 2.5 needs a digit more than its order of magnitude.
        let order = -self.spacing.log10().floor();
        let decimals =
            order.max(0.0) + f64::from((self.spacing * 10_f64.powf(order)).fract() > 1e-6 && order >= 0.0);
        let text = format!("{value:.*}", decimals as usize + more);
        if text.trim_matches(['-', '0', '.']).is_empty() { "0".into() } else { text.replace('-', "−") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let axis = Axis::around([low, high].into_iter(), 0.0).unwrap();
        axis.ticks().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        fn check(low: f64, high: f64, expected: &[&str]) {
            assert_eq!(labels(low, high), expected);
        }
        check(0.0, 1.0, &["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(-1.0, 1.0, &["−1.0", "−0.5", "0", "0.5", "1.0"]);
        check(0.0, 1_000.0, &["0", "200", "400", "600", "800", "1000"]);
        check(1.0, 12.0, &["2.5", "5.0", "7.5", "10.0"]);
        check(0.0, 1e-5, &["0", "2e-6", "4e-6", "6e-6", "8e-6", "1e-5"]);
        check(0.0, 5e6, &["0", "1e6", "2e6", "3e6", "4e6", "5e6"]);
        check(0.5, 0.5, &["0.46", "0.48", "0.50", "0.52", "0.54"]);
        check(0.0, 0.0, &["−1.0", "−0.5", "0", "0.5", "1.0"]);
        assert!(labels(-1e299, 1e299).len() > 2);
        assert!(Axis::around(std::iter::empty(), 0.1).is_none());
    }

    #[test]
    fn bands_that_would_hide_the_lines_are_cut() {
        let plot = |half: f64| {
            let points = vec![(0.0, 1.0), (1.0, 2.0)];
            let band = Some(points.iter().map(|(_, y)| (y - half, y + half)).collect());
            LinePlot { series: vec![Series { points, band, ..Series::default() }], ..LinePlot::default() }
                .to_html()
        };
        assert!(!plot(0.9).contains("bands: cut"));
        let wide = plot(1000.0);
        assert!(wide.contains("bands: cut") && wide.contains(">3<") && !wide.contains(">500<"), "{wide}");
    }

    #[test]
    fn values_that_are_not_finite_leave_gaps() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.0)];
        let series = Series { name: "<b>".into(), points, ..Series::default() };
        let html = LinePlot { series: vec![series], ..LinePlot::default() }.to_html();
        let path = html.split("d=\"M").filter(|part| part.contains('L')).count();
        assert_eq!(path, 1, "{html}");
        assert!(
            html.contains("not finite and so not drawn: 1")
                && html.contains("&lt;b&gt;")
                && !html.contains("<b></b>")
        );
        assert!(!html.contains("NaN"));
        let nothing = Series { points: vec![(0.0, f64::NAN)], ..Series::default() };
        assert!(
            LinePlot { series: vec![nothing], ..LinePlot::default() }.to_html().contains("no finite value")
        );
        assert!(LinePlot::default().to_html().contains("no finite value"));
    }

    #[test]
    fn long_series_are_thinned_with_their_range() {
        let points: Vec<_> = (0..3_000).map(|i| (f64::from(i), f64::from(i % 10))).collect();
        let mut notes = Vec::new();
        let thinned = thin(&Series { points, ..Series::default() }, &mut notes);
        assert_eq!(thinned.points.len(), BUCKETS);
        assert_eq!(thinned.points[0], (4.5, 4.5));
        assert_eq!(thinned.band.unwrap()[0], (0.0, 9.0));
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn series_over_seeds_have_means_and_intervals() {
        let curves = [vec![1.0, 2.0, 5.0], vec![3.0, 2.0], vec![5.0, 2.0]];
        let series = Series::over_seeds("a", &[10.0, 20.0, 30.0], &curves, PALETTE);
        assert_eq!(series.points, [(10.0, 3.0), (20.0, 2.0), (30.0, 5.0)]);
        let band = series.band.clone().unwrap();
        // t(2) at 97.5 % is 4.3027, the standard error 2 / sqrt 3.
        assert!((band[0].1 - 7.9683).abs() < 1e-3 && (band[0].0 + 1.9683).abs() < 1e-3, "{band:?}");
        assert_eq!(band[1], (2.0, 2.0));
        assert!(band[2].0.is_nan() && series.dashed);
        assert!(!LinePlot { series: vec![series], ..LinePlot::default() }.to_html().contains("NaN"));
        let one = Series::over_seeds("a", &[1.0, 2.0], &[[1.0, 2.0]], 0);
        assert_eq!(Series::slope(0.5, &one).points, [(1.0, 1.5), (2.0, 2.0)]);
        assert_eq!((one.points, one.band, one.dashed), (vec![(1.0, 1.0), (2.0, 2.0)], None, false));
    }

    #[test]
    fn bars_stand_on_zero_and_say_their_values() {
        let bar = |mean: f64| Estimate { mean, interval: Some((mean - 0.1, mean + 0.1)), n: 5, of: "seeds" };
        let chart = BarChart {
            series: vec!["dpo".into(), "srpo".into()],
            groups: vec![("in".into(), vec![bar(0.5), bar(-0.25)]), ("out".into(), vec![bar(f64::NAN)])],
            ..BarChart::default()
        };
        let html = chart.to_html();
        for expected in [">0.50<", ">−0.25<", ">none<", "95 % intervals (n=5 seeds)", "class=\"bar c1\""] {
            assert!(html.contains(expected), "{expected} is missing in {html}");
        }
        assert!(!html.contains("NaN\"") && !html.contains("height=\"-"));
        assert!(html.contains("viewBox=\"0 0 600 320\"") && !html.contains("rotate(-45)"));
        let many = (0..9).map(|at| (format!("a long name, λ {at}"), vec![bar(0.5)])).collect();
        let html = BarChart { groups: many, ..BarChart::default() }.to_html();
        assert!(html.contains(">a long name, λ 3<") && html.matches("rotate(-45)").count() == 9, "{html}");
        assert!(!BarChart::default().to_html().is_empty());
    }
}
