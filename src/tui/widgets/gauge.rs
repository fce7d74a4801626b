//! Draws amounts: gauges, rows of bars and single bars.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A gauge of `part` of `total` in `max_width` columns.
#[must_use]
pub fn gauge(part: u64, total: u64, max_width: usize) -> String {
    let full = if total == 0 {
        0
    } else {
        (u128::from(part.min(total)) * max_width as u128).div_ceil(u128::from(total)) as usize
    };
    "█".repeat(full) + &"░".repeat(max_width - full)
}

/// One column per value; the highest value is a full bar.
#[must_use]
pub fn bars(values: &[u64]) -> String {
    let max = values.iter().copied().max().unwrap_or(0).max(1);
    values
        .iter()
        .map(|value| BARS[(u128::from(*value) * 7).div_ceil(u128::from(max)).min(7) as usize])
        .collect()
}

/// A bar with a length of `part` of `total` in at most `max_width` columns, in steps of 1/8. A
/// nonzero part is always visible.
#[must_use]
pub fn bar(part: u64, total: u64, max_width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (u128::from(part.min(total)) * max_width as u128 * 8)
        .div_ceil(u128::from(total.max(1))) as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A vertical bar of at most `lines` cells, from the bottom up.
#[must_use]
pub fn column(part: u64, total: u64, lines: usize) -> Vec<char> {
    let eighths = (u128::from(part.min(total)) * lines as u128 * 8)
        .div_ceil(u128::from(total.max(1))) as usize;
    let mut pieces = vec!['█'; eighths / 8];
    if !eighths.is_multiple_of(8) {
        pieces.push(BARS[eighths % 8 - 1]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauge_fills_from_the_left() {
        for (part, total, want) in [
            (0, 60, "░░░░░"),
            (1, 60, "█░░░░"),
            (41, 60, "████░"),
            (60, 60, "█████"),
            (99, 60, "█████"),
            (1, 0, "░░░░░"),
        ] {
            assert_eq!(gauge(part, total, 5), want, "{part}/{total}");
        }
        assert_eq!(bars(&[0, 1, 4, 8]), "▁▂▅█");
        assert_eq!(bars(&[0, 0]), "▁▁");
        assert_eq!(bars(&[u64::MAX, 0]), "█▁");
        assert_eq!(
            [bar(0, 10, 4), bar(1, 1_000, 4), bar(5, 10, 4), bar(10, 10, 4)],
            ["", "▏", "██", "████"]
        );
        assert_eq!(
            [column(0, 10, 3), column(5, 10, 3), column(u64::MAX, u64::MAX, 3)],
            [vec![], vec!['█', '▄'], vec!['█'; 3]]
        );
    }
}
