//! Sizes in human-readable units.

/// Bytes in decimal units, as etcdctl shows sizes.
pub(super) fn shown(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut exponent = 0;
    while exponent < 6 && bytes / 1000u64.pow(exponent) >= 1000 {
        exponent += 1;
    }
    let unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][exponent as usize];
    let value = (bytes as f64 / 1000f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        for (bytes, text) in [(9, "9 B"), (2_147_483_648, "2.1 GB"), (32_768, "33 kB")] {
            assert_eq!(shown(bytes), text);
        }
    }
}
