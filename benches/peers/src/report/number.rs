//! Numbers as people read them.

/// Three figures that count, and groups of three digits.
pub fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        size => (2 - size.log10().floor() as i32).clamp(0, 9) as usize,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn three_figures_count() {
        let shown = [1_234_567.8, 123.4, 12.34, 1.0, 0.012_34, 0.0, f64::NAN].map(plain);
        assert_eq!(shown, ["1,234,568", "123", "12.3", "1.00", "0.0123", "0.00", "–"]);
    }
}
