//! The verdict, and what a colleague would say.

use crate::client::report::ClientReport;
use crate::clock::utc_time;
use crate::leak::conclusion::growing;
use crate::leak::stability::Crash;
use crate::report::build::state;
use crate::report::client_text::milliseconds;
use crate::report::handshake::HandshakeReport;
use crate::report::model::{
    CaptureReport, Finding, Kind, ServerReport, Threshold, Verdict, VerdictState,
};
use crate::report::text::measured;

/// Of what is reported: from here on it needs more than a note.
const INVESTIGATE_PERCENT: f64 = 10.0;

pub(crate) fn of(
    captures: &[CaptureReport],
    clients: Option<&ClientReport>,
    thresholds: &[Threshold],
) -> Verdict {
    let state = state(thresholds);
    let servers: Vec<&ServerReport> =
        captures.iter().flat_map(|capture| &capture.servers).collect();
    let crashes = captures.iter().filter_map(|capture| capture.leaks.as_ref());
    let crashes: Vec<&Crash> = crashes.flat_map(|leaks| &leaks.stability.crashes).collect();
    let mut sentences = Vec::from_iter(crash_sentence(&crashes, clients));
    sentences.extend(servers.iter().map(|server| {
        let prefix = if servers.len() > 1 { format!("{}: ", server.url) } else { String::new() };
        format!("{prefix}{}", server_sentences(server))
    }));
    if servers.is_empty() {
        sentences.push(
            "The capture holds no health samples, so there is nothing to hold the kernel's counts \
             against. Record with --health URL."
                .to_owned(),
        );
    }
    let handshakes = || captures.iter().filter_map(|capture| capture.handshakes.as_ref());
    sentences.extend(handshakes().filter(|found| found.failed > 0).map(handshake_sentence));
    sentences.extend(clients.and_then(client_sentence));
    let remarks = clients.into_iter().flat_map(|clients| &clients.remarks);
    sentences.extend(remarks.map(|remark| format!("{}.", capitalised(remark))));
    let leak = crossed(thresholds).any(|one| one.name.starts_with("leaks.")).then(|| {
        captures.iter().filter_map(|capture| growing(&capture.leaks.as_ref()?.followed)).next()
    });
    let leak = leak.flatten();
    sentences.extend(leak.as_ref().map(|leak| format!("There is a leak: {leak}.")));
    if captures.iter().any(|capture| capture.quality.backend != "ebpf") {
        sentences.push(
            "The kernel's side was polled, not followed: what came and went between two polls is not \
             in it."
                .to_owned(),
        );
    }
    let failed = handshakes().map(|found| found.failed).sum();
    let attempts = handshakes().map(|found| found.attempts).sum();
    let died =
        crashes.first().map(|first| format!("the server stopped listening: {}", first.service));
    let headline = died.or_else(|| finding_headline(&servers, failed, attempts)).or(leak);
    let headline = headline.unwrap_or_else(|| threshold_headline(state, thresholds));
    Verdict { state, headline, sentences }
}

fn crossed(thresholds: &[Threshold]) -> impl Iterator<Item = &Threshold> {
    thresholds.iter().filter(|threshold| threshold.state == VerdictState::Crossed)
}

/// A server that dies explains most of what else was found.
fn crash_sentence(crashes: &[&Crash], clients: Option<&ClientReport>) -> Option<String> {
    let mut text = crashes.iter().take(3).map(|crash| crash.text()).collect::<Vec<_>>().join(" ");
    let more = crashes.len().checked_sub(1)?.saturating_sub(2);
    if more > 0 {
        text.push_str(&format!(" And {more} times more."));
    }
    let broken = clients.map_or(0, |clients| clients.broken);
    if broken > 0 {
        text.push_str(&format!(
            " {} ended by the server or the network.",
            plural(broken as i64, "connection")
        ));
    }
    Some(text)
}

/// Where nothing was found that has a name of its own.
fn threshold_headline(state: VerdictState, thresholds: &[Threshold]) -> String {
    let mut crossed = crossed(thresholds);
    match (state, crossed.next()) {
        (_, Some(first)) => {
            let more = match crossed.count() {
                0 => String::new(),
                more => format!(", and {more} more crossed"),
            };
            format!("{}: {}, limit {}{more}", first.name, measured(first), first.limit)
        }
        (VerdictState::Inconclusive, None) => "inconclusive".to_owned(),
        _ => "no phantoms".to_owned(),
    }
}

/// The finding with the most connections, or the failed handshakes if they are more.
fn finding_headline(servers: &[&ServerReport], failed: usize, attempts: usize) -> Option<String> {
    let findings = || servers.iter().flat_map(|server| &server.findings);
    let worst = findings().max_by_key(|finding| finding.count);
    if failed > 0 && worst.is_none_or(|worst| worst.count < failed as i64) {
        let (failed, attempts) = (thousands(failed as i64), thousands(attempts as i64));
        return Some(format!("{failed} of {attempts} handshakes failed"));
    }
    let worst = worst?;
    let count: i64 =
        findings().filter(|finding| finding.kind == worst.kind).map(|finding| finding.count).sum();
    let s = if count == 1 { "" } else { "s" };
    Some(match worst.kind {
        Kind::ApplicationLeak => format!("{count} phantom{s}: application leak"),
        Kind::DescriptorLeak => format!("{count} socket{s} never closed: descriptor leak"),
        Kind::HalfOpen => format!("{count} half-open connection{s}"),
        Kind::ReversePhantom => format!("{count} reverse phantom{s}"),
        Kind::DoubleDecrement => format!("{count} too few reported: double decrement"),
    })
}

/// `57 of 100 handshakes failed (57.0 %): 45 by rate limit, …`
fn handshake_sentence(report: &HandshakeReport) -> String {
    let mut text = format!(
        "{} of {} failed ({:.1} %).",
        thousands(report.failed as i64),
        plural(report.attempts as i64, "handshake"),
        report.failed_percent.unwrap_or(0.0)
    );
    for ranked in report.causes.iter().take(2) {
        text.push_str(&format!(
            " {} of them: {} ({}).",
            thousands(ranked.cause.count as i64),
            ranked.cause.summary,
            ranked.cause.certainty.words()
        ));
    }
    text
}

/// `80 of 100 attempts of the clients succeeded (80.0 %), with a mean round trip of 0.64 ms.`
fn client_sentence(clients: &ClientReport) -> Option<String> {
    let (attempted, successful) = (clients.attempted?, clients.successful?);
    let percent = clients.success_percent.map(|percent| format!(" ({percent:.1} %)"));
    let trip = clients.round_trip.as_ref().and_then(|trip| trip.mean_ms);
    let trip = trip.map(|mean| format!(", with a mean round trip of {} ms", milliseconds(mean)));
    Some(format!(
        "{} of {} of the clients succeeded{}{}.",
        thousands(successful as i64),
        plural(attempted as i64, "attempt"),
        percent.unwrap_or_default(),
        trip.unwrap_or_default()
    ))
}

fn server_sentences(server: &ServerReport) -> String {
    let Some(last) = server.last else {
        let why = server.unavailable.first().or(server.inconclusive.first());
        let why = why.map_or("no health sample".to_owned(), |tally| tally.why.clone());
        return format!(
            "Nothing could be judged: none of {} samples had a usable answer ({why}).",
            server.samples
        );
    };
    if server.findings.is_empty() {
        return format!(
            "In {} of {} samples what the server reported lay within what the kernel counted; it \
             reported up to {} connections.",
            server.judged,
            server.samples,
            thousands(server.reported_peak.unwrap_or(0))
        );
    }
    let kernel = if last.kernel_low == last.kernel_high {
        thousands(last.kernel_high)
    } else {
        format!("{} to {}", thousands(last.kernel_low), thousands(last.kernel_high))
    };
    let mut text = format!(
        "At the end the server said it held {} connections, the kernel held {kernel}.",
        thousands(last.reported)
    );
    for finding in &server.findings {
        text.push(' ');
        text.push_str(&finding_sentence(finding));
    }
    text
}

/// `45 are reported without any socket behind them (4.5 %), all since …`.
pub(crate) fn finding_sentence(finding: &Finding) -> String {
    let count = thousands(finding.count);
    let (one, gone) = (finding.count == 1, finding.at_end == 0);
    let is = match (one, gone) {
        (true, false) => "is",
        (false, false) => "are",
        (true, true) => "was",
        (false, true) => "were",
    };
    let percent = finding.percent.map_or(String::new(), |percent| format!(" ({percent:.1} %)"));
    let mut text = match finding.kind {
        Kind::ApplicationLeak => {
            let them = if one { "it" } else { "them" };
            format!("{count} {is} reported without any socket behind {them}{percent}")
        }
        Kind::DescriptorLeak => {
            let were = if one { "was" } else { "were" };
            format!(
                "{} {is} over but {were} never closed by the process",
                plural(finding.count, "socket")
            )
        }
        Kind::HalfOpen => {
            format!("{} went silent while still established", plural(finding.count, "connection"))
        }
        Kind::ReversePhantom => format!("{count} {is} established but not reported{percent}"),
        Kind::DoubleDecrement => {
            format!("Up to {count} too few were reported, since closes were counted twice")
        }
    };
    let births: Vec<_> = finding.births.iter().filter(|birth| !birth.before_first_sample).collect();
    if let [birth] = births.as_slice() {
        let from = utc_time(birth.from_unix_ns);
        let to = utc_time(birth.to_unix_ns);
        if from == to {
            text.push_str(&format!(", all since {from}"));
        } else {
            text.push_str(&format!(", all since {from}–{to}"));
        }
    } else if let (Some(first), Some(last)) = (births.first(), births.last()) {
        text.push_str(&format!(
            ", growing from {} to {}",
            utc_time(first.from_unix_ns),
            utc_time(last.to_unix_ns)
        ));
    }
    text.push('.');
    if let Some(cause) = &finding.cause {
        text.push_str(&format!(" {} ({}).", capitalised(cause), finding.cause_certainty.words()));
    } else {
        text.push_str(" Nothing recorded explains them.");
    }
    if finding.percent.is_some_and(|percent| percent >= INVESTIGATE_PERCENT) {
        text.push_str(" Investigate.");
    }
    text
}

pub(crate) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// `1 socket`, `12,000 sockets`
pub(crate) fn plural(number: i64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `12,000`
pub(crate) fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_grouped() {
        let cases = [(0, "0"), (997, "997"), (12_000, "12,000"), (-1_000_000, "-1,000,000")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
    }
}
