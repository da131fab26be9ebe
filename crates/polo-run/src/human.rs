//! Numbers as a person reads them: bytes, durations, counts and measurements with their units.
//!
//! Progress lines, reports, claims and the plan of a run all print through these, so that the same quantity looks
//! the same everywhere.

/// A size in binary units: `512 B`, `1.50 KiB`, `2.31 GiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut value = size as f64 / 1024.0;
    let mut unit = 0;
    // 1023.995 and above would print as 1024.00 of the smaller unit.
    while value >= 1023.995 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// A duration given in seconds: `0.043 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`.
pub fn seconds(duration: f64) -> String {
    if !duration.is_finite() || duration < 0.0 {
        return "unknown".into();
    }
    if duration < 0.9995 {
        return format!("{duration:.3} s");
    }
    if duration < 59.95 {
        return format!("{duration:.1} s");
    }
    let whole = duration.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match (minutes, hours, days) {
        (_, 0, _) => format!("{minutes} min {:02} s", whole % 60),
        (_, _, 0) => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {:02} h", hours % 24),
    }
}

/// A count with thousands separators: `12,345,678`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A measurement to four significant digits: `0.6123`, `12.35`, `1.200e-5`; `NaN` and infinities in words.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "not a number".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "infinity".into() } else { "-infinity".into() };
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
    format!("{value:.decimals$}")
}

/// A table whose columns are lined up, two spaces between them.
pub fn table(headers: &[String], rows: &[Vec<String>]) -> String {
    let lines = || std::iter::once(headers).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| {
        lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let render = |line: &[String]| {
        let cells: String =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        format!("  {}\n", cells.trim_end())
    };
    lines().map(render).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_counts_and_measurements_carry_their_units() {
        fn check<T>(format: fn(T) -> String, input: T, expected: &str) {
            assert_eq!(format(input), expected);
        }
        check(bytes, 0, "0 B");
        check(bytes, 1023, "1023 B");
        check(bytes, 1536, "1.50 KiB");
        check(bytes, 1024 * 1024 - 1, "1.00 MiB");
        check(bytes, 2_684_354_560, "2.50 GiB");
        check(bytes, u64::MAX, "16384.00 PiB");
        check(seconds, 0.0434, "0.043 s");
        check(seconds, 12.34, "12.3 s");
        check(seconds, 59.97, "1 min 00 s");
        check(seconds, 185.4, "3 min 05 s");
        check(seconds, 7_620.0, "2 h 07 min");
        check(seconds, 273_600.0, "3 d 04 h");
        check(seconds, f64::INFINITY, "unknown");
        check(seconds, f64::NAN, "unknown");
        check(count, 0, "0");
        check(count, 999, "999");
        check(count, 12_345_678, "12,345,678");
        check(number, 0.0, "0");
        check(number, 0.612_34, "0.6123");
        check(number, -12.345_6, "-12.35");
        check(number, 123_456.0, "123456");
        check(number, 1.2e-5, "1.200e-5");
        check(number, f64::NAN, "not a number");
        check(number, f64::NEG_INFINITY, "-infinity");
    }
}
