//! Numbers as people read them.

/// A count, in groups of three digits.
pub fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// Three figures that count, and groups of three digits.
pub fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let decimals = match value {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        size => (2 - size.log10().floor() as i32).clamp(0, 9) as usize,
    };
    let text = format!("{value:.decimals$}");
    match text.split_once('.') {
        Some((whole, rest)) => format!("{}.{rest}", grouped(whole)),
        None => grouped(&text),
    }
}

fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::{count, plain};

    #[test]
    fn three_figures_count() {
        let shown = [1_234_567.8, 123.4, 12.34, 1.0, 0.012_34, 0.0, f64::NAN].map(plain);
        assert_eq!(shown, ["1,234,568", "123", "12.3", "1.00", "0.0123", "0.00", "–"]);
        assert_eq!([7, 1000, 999_999].map(count), ["7", "1,000", "999,999"]);
    }
}
