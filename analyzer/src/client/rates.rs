//! A client's clock against the host's where no client has an address: by when attempts began. Both
//! sides' attempts are counted in steps of time, and one side is shifted until they fit best.

use crate::clock::{ClockOffset, ToldBy};

/// Widths of the steps, from coarse to fine. Fine steps only help where the load has an edge that is as
/// sharp; whichever tells most closely is taken.
const WIDTHS_MS: [i64; 8] = [10_000, 2_000, 1_000, 500, 200, 100, 50, 10];

/// Fewer attempts have no shape.
const FEWEST: usize = 10;

/// One side's share of the other's: with fewer they are not about the same clients, and two ramps of
/// different clients look alike.
const ALIKE: f64 = 0.9;

/// A long run has no more steps than this.
const MOST_STEPS: i64 = 200_000;

/// How far two clocks may be apart. Machines that are an hour off have nobody's time.
const FARTHEST_NS: i64 = 3_600_000_000_000;

/// Starts of both sides in Unix nanoseconds, in any order. `None` where they do not fit, or fit in many
/// ways.
pub(crate) fn offset(mut client: Vec<i64>, mut host: Vec<i64>) -> Option<ClockOffset> {
    let (fewer, more) = (client.len().min(host.len()), client.len().max(host.len()));
    if fewer < FEWEST || (fewer as f64) < more as f64 * ALIKE {
        return None;
    }
    client.sort_unstable();
    host.sort_unstable();
    let at_unix_ns = host[0];
    let longest = (client[client.len() - 1] - client[0]).max(host[host.len() - 1] - host[0]);
    // The client's first attempt lies within the host's, and the other way round.
    let (mut low, mut high) =
        (client[0] - host[host.len() - 1], client[client.len() - 1] - host[0]);
    if low > FARTHEST_NS || high < -FARTHEST_NS {
        return None;
    }
    (low, high) = (low.max(-FARTHEST_NS - longest), high.min(FARTHEST_NS + longest));
    let mut best: Option<(i64, i64)> = None;
    for width in WIDTHS_MS.map(|ms| ms * 1_000_000) {
        if longest / width > MOST_STEPS {
            break;
        }
        let Some(found) = fits(&client, &host, width, (low, high)) else { break };
        (low, high) = (found.0 - width, found.1 + width);
        let narrower =
            best.is_none_or(|(low_so_far, high_so_far)| high - low < high_so_far - low_so_far);
        if narrower {
            best = Some((low, high));
        }
    }
    let (low, high) = best?;
    let offset_ns = low + (high - low) / 2;
    Some(ClockOffset {
        offset_ns,
        at_unix_ns,
        drift_ppm: 0.0,
        uncertainty_ns: high - offset_ns,
        matched: client.len(),
        steady: true,
        told_by: ToldBy::Starts,
    })
}

/// The least and the greatest shift, in whole steps, that fit about as well as the best one does. `None`
/// if even that leaves more unexplained than it explains.
fn fits(client: &[i64], host: &[i64], width: i64, (low, high): (i64, i64)) -> Option<(i64, i64)> {
    let steps = |times: &[i64]| -> (i64, Vec<f64>) {
        let first = times[0].div_euclid(width);
        let last = times[times.len() - 1].div_euclid(width);
        let mut counts = vec![0.0; (last - first + 1) as usize];
        for at in times {
            counts[(at.div_euclid(width) - first) as usize] += 1.0;
        }
        (first, counts)
    };
    let ((client_first, client), (host_first, host)) = (steps(client), steps(host));
    let alone: f64 = client.iter().chain(&host).map(|count| count * count).sum();
    // What is left when the host's counts, so many steps later, are taken from the client's.
    let left = |shift: i64| {
        let both: f64 = client
            .iter()
            .enumerate()
            .filter_map(|(index, count)| {
                let at = client_first + index as i64 - shift - host_first;
                Some(count * host.get(usize::try_from(at).ok()?)?)
            })
            .sum();
        alone - 2.0 * both
    };
    let shifts = low.div_euclid(width)..=high.div_euclid(width) + 1;
    let scores: Vec<(i64, f64)> = shifts.map(|shift| (shift, left(shift))).collect();
    let best = scores.iter().map(|score| score.1).min_by(f64::total_cmp)?;
    if best > alone / 2.0 {
        return None;
    }
    // Chance moves attempts from one step to the next: what is left varies by about its root.
    let enough = best + 3.0 * (2.0 * best).sqrt() + 1.0;
    let good = || scores.iter().filter(|score| score.1 <= enough).map(|score| score.0 * width);
    good().min().zip(good().max())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const S: i64 = 1000 * MS;
    const START: i64 = 1_700_000_000 * S;

    /// A ramp of 50 a second for 10 s, a pause of 20 s, and 100 within a second.
    fn starts() -> Vec<i64> {
        let ramp = (0..500).map(|n| n * 20 * MS);
        let burst = (0..100).map(|n| 30 * S + n * 10 * MS);
        ramp.chain(burst).map(|at| START + at).collect()
    }

    /// The kernel sees the SYN a little later, and not always as soon.
    fn seen() -> Vec<i64> {
        (0..).zip(starts()).map(|(n, at)| at + (n * 7 % 13) * MS / 4).collect()
    }

    #[test]
    fn a_clock_that_is_off_is_found_without_addresses() {
        for ahead in [0, -3 * S, 250 * MS, 1800 * S + 70 * MS] {
            let client: Vec<i64> = starts().into_iter().rev().map(|at| at + ahead).collect();
            let found = offset(client, seen()).unwrap();
            assert!((found.offset_ns - ahead).abs() <= found.uncertainty_ns, "{ahead} {found:?}");
            assert!(found.uncertainty_ns <= 150 * MS, "{ahead} {found:?}");
            assert_eq!((found.matched, found.told_by), (600, ToldBy::Starts));
        }
    }

    #[test]
    fn others_and_losses_do_not_mislead_it() {
        let ahead = 250 * MS;
        // One in ten never reached the host, and somebody else connects every second.
        let client: Vec<i64> = starts().into_iter().map(|at| at + ahead).collect();
        let reached = (0..).zip(seen()).filter(|(n, _)| n % 10 != 3).map(|(_, at)| at);
        let others = (0..60).map(|n| START - 10 * S + n * S);
        let found = offset(client, reached.chain(others).collect()).unwrap();
        assert!((found.offset_ns - ahead).abs() <= found.uncertainty_ns, "{found:?}");
        assert!(found.uncertainty_ns <= 500 * MS, "{found:?}");
    }

    #[test]
    fn what_does_not_fit_is_not_told() {
        let day = 86_400 * S;
        assert_eq!(offset(starts(), seen().into_iter().map(|at| at + day).collect()), None);
        assert_eq!(offset(starts()[..9].to_vec(), seen()[..9].to_vec()), None);
        // Six seconds of ten a second, and eight of five on another port.
        let ramp =
            |count: i64, each_ms: i64| (0..count).map(|n| START + n * each_ms * MS).collect();
        assert_eq!(offset(ramp(60, 100), ramp(40, 200)), None);
        // All at once, against one every second.
        let burst = (0..100).map(|n| START + n * MS).collect();
        let even = (0..100).map(|n| START - 50 * S + n * S).collect();
        assert_eq!(offset(burst, even), None);
    }
}
