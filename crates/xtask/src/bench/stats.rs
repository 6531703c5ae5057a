//! Statistics of samples.

use std::time::Duration;

/// The median of `samples`, between the two middle ones if their number is even. `None` without samples.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        0 => Some(f64::midpoint(*sorted.get(sorted.len() / 2 - 1)?, upper)),
        _ => Some(upper),
    }
}

/// The median of the rounds' ratios of `samples` to `base`. Each ratio compares what was measured side by side, so a
/// machine that slows down affects both alike. If the rounds do not pair up: the ratio of both medians.
pub(crate) fn ratio(samples: &[f64], base: &[f64]) -> Option<f64> {
    let quotient = if samples.len() == base.len() {
        median(&samples.iter().zip(base).map(|(sample, base)| sample / base).collect::<Vec<_>>())
    } else {
        Some(median(samples)? / median(base)?)
    };
    quotient.filter(|quotient| quotient.is_finite())
}

/// The smallest of `times` that at least `percent` of them do not exceed.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Option<Duration> {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied()
}

/// A count as a floating-point number.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was half as fast in the second round, and the ratio is still 1.5.
        assert_eq!(ratio(&[150.0, 75.0, 150.0], &[100.0, 50.0, 100.0]), Some(1.5));
        assert_eq!(ratio(&[150.0], &[100.0, 50.0, 100.0]), Some(1.5));
        assert_eq!(ratio(&[], &[]), None);
        assert_eq!(ratio(&[1.0], &[0.0]), None);
    }

    #[test]
    fn percentiles_are_among_the_times() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&mut times, 50), Some(Duration::from_micros(100)));
        assert_eq!(percentile(&mut times, 99), Some(Duration::from_micros(198)));
        assert_eq!(percentile(&mut times, 100), Some(Duration::from_micros(200)));
        assert_eq!(percentile(&mut [Duration::from_secs(7)], 1), Some(Duration::from_secs(7)));
        assert_eq!(percentile(&mut [], 50), None);
    }
}
