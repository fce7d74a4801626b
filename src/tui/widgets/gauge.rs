//! Amounts that read at a glance: a countdown and a row of bars.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `part` of `whole` in `room` columns.
#[must_use]
pub fn gauge(part: u64, whole: u64, room: usize) -> String {
    let full = if whole == 0 { 0 } else { (u128::from(part.min(whole)) * room as u128).div_ceil(u128::from(whole)) as usize };
    "█".repeat(full) + &"░".repeat(room - full)
}

/// A column per value, the highest full.
#[must_use]
pub fn bars(values: &[u64]) -> String {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    values.iter().map(|value| BARS[(u128::from(*value) * 7).div_ceil(u128::from(most)).min(7) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_fill_their_room_from_the_left() {
        for (part, whole, want) in
            [(0, 60, "░░░░░"), (1, 60, "█░░░░"), (41, 60, "████░"), (60, 60, "█████"), (99, 60, "█████"), (1, 0, "░░░░░")]
        {
            assert_eq!(gauge(part, whole, 5), want, "{part}/{whole}");
        }
        assert_eq!(bars(&[0, 1, 4, 8]), "▁▂▅█");
        assert_eq!(bars(&[0, 0]), "▁▁");
        assert_eq!(bars(&[u64::MAX, 0]), "█▁");
    }
}
