//! The figures of a run in words, for whoever sits in front of it.

use indicatif::HumanCount;
use std::fmt::Write;

use super::drive::{Driven, Pace, Plan};
use super::tally::UNANSWERED;
use crate::line::{Call, Load};
use crate::machine;

/// Growth of the median latency over the run, as a share of its length, above which arrivals
/// pile up: a server that lacks a share of its capacity falls behind by that share of the time.
const PILING_UP: f64 = 0.02;

/// Share of the arrivals below which a server that also fails calls does not keep up.
const KEEPING_UP: f64 = 0.95;

/// Writes to stderr.
pub fn tell(text: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

/// The run in words.
pub fn of(load: &Load, driven: &Driven, plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, load, driven, plan);
    text
}

fn write(text: &mut String, load: &Load, driven: &Driven, plan: &Plan) -> std::fmt::Result {
    let call = match load.call {
        Call::Search => "search".to_string(),
        Call::SearchBatch => format!("searchbatch of {}", load.batch),
    };
    let pace = match plan.pace {
        Pace::Closed => "closed loop".to_string(),
        Pace::Open { rate, arrivals, .. } => {
            format!("open loop, {} calls/s, {} arrivals", count(rate), arrivals.name())
        }
    };
    let Load { connections, in_flight, .. } = load;
    writeln!(text, "{call}, {pace}, connections {connections}, in flight {in_flight}")?;
    let recall = load.recall.map_or("unknown".into(), |recall| format!("{recall:.4}"));
    writeln!(text, "  answered   {} queries/s, recall {recall}", count(load.qps))?;
    let latency = load.latency_us;
    let (p50, p95, p99) = (time(latency.p50), time(latency.p95), time(latency.p99));
    writeln!(text, "  latency    p50 {p50}, p95 {p95}, p99 {p99}, max {}", time(load.max_us))?;
    let medians: Vec<String> = load.p50_over_time_us.iter().map(|us| time(*us)).collect();
    writeln!(text, "  over time  p50 {}", medians.join(", "))?;
    if matches!(plan.pace, Pace::Open { .. }) {
        let late = driven.tally.late();
        let (p50, p99) = (time(late.p50), time(late.p99));
        writeln!(text, "  of that    p50 {p50}, p99 {p99} before a call left this client")?;
    }
    if !load.failed.is_empty() {
        let failed: Vec<String> =
            load.failed.iter().map(|(code, n)| format!("{} {code}", count(*n as f64))).collect();
        writeln!(text, "  failed     {}", failed.join(", "))?;
    }
    if driven.backlog > 0 {
        let backlog = count(driven.backlog as f64);
        writeln!(text, "  backlog    {backlog} calls due and not sent when the time was over")?;
    }
    write!(text, "  client     {:.2} of {} cores", driven.busy_cores, machine::cores())?;
    if let Some(overload) = overload(load, driven.tally.answered_per_second()) {
        write!(text, "\n{overload}")?;
    }
    Ok(())
}

/// Says so if calls arrived faster than the server answered them.
fn overload(load: &Load, answered: f64) -> Option<String> {
    let intended = load.intended_calls_per_second?;
    let (first, last) = (*load.p50_over_time_us.first()?, *load.p50_over_time_us.last()?);
    let falls_behind = !load.failed.is_empty() && answered < KEEPING_UP * intended;
    let what = match load.failed.get(UNANSWERED) {
        // The last calls were given up soonest: their waits do not grow, and are no latencies.
        Some(given_up) if falls_behind => {
            let (waited, given_up) = (time(load.max_us), count(*given_up as f64));
            format!("calls waited up to {waited} and longer, {given_up} of them for no answer")
        }
        _ if last - first > PILING_UP * load.seconds * 1e6 => {
            format!("median latency grew from {} to {}", time(first), time(last))
        }
        _ if falls_behind => "the rest failed".into(),
        _ => return None,
    };
    let (arrived, answered) = (count(intended), count(answered));
    Some(format!("OVERLOADED: arrivals {arrived} calls/s, answered {answered}/s: {what}"))
}

/// A rounded number, thousands set apart.
fn count(number: f64) -> String {
    if number < 100.0 {
        return format!("{:.1}", number).trim_end_matches(".0").into();
    }
    HumanCount(number.round() as u64).to_string()
}

/// Microseconds in a unit that suits them.
fn time(micros: f64) -> String {
    match micros {
        0.0..1_000.0 => format!("{micros:.0} us"),
        1_000.0..10_000.0 => format!("{:.2} ms", micros / 1e3),
        10_000.0..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::line::Latency;

    fn load(rate: Option<f64>, medians: [f64; 2], failed: &[(&str, u64)]) -> Load {
        Load {
            k: 10,
            call: Call::Search,
            batch: 1,
            connections: 1,
            in_flight: 16,
            intended_calls_per_second: rate,
            seconds: 10.0,
            calls: 1,
            failed: failed.iter().map(|(code, n)| ((*code).into(), *n)).collect::<BTreeMap<_, _>>(),
            backlog: None,
            qps: 1.0,
            recall: None,
            latency_us: Latency { mean: 1.0, p50: 1.0, p95: 1.0, p99: 1.0 },
            max_us: 1.0,
            p50_over_time_us: medians.into(),
        }
    }

    #[test]
    fn overload_is_said_with_its_figures() {
        let piled = load(Some(50_000.0), [1_200.0, 5_400_000.0], &[]);
        assert_eq!(
            overload(&piled, 23_000.0).unwrap(),
            "OVERLOADED: arrivals 50,000 calls/s, answered 23,000/s: \
             median latency grew from 1.20 ms to 5.40 s"
        );
        let refused = load(Some(1_000.0), [900.0, 900.0], &[("RESOURCE_EXHAUSTED", 9)]);
        let said = overload(&refused, 700.0).unwrap();
        assert!(said.ends_with("answered 700/s: the rest failed"), "{said}");
        // The last tenths were given up soonest.
        let given_up = load(Some(1_000.0), [9e6, 5e6], &[(UNANSWERED, 4_000)]);
        let said = overload(&given_up, 700.0).unwrap();
        assert!(said.ends_with("up to 1 us and longer, 4,000 of them for no answer"), "{said}");
    }

    #[test]
    fn what_keeps_up_is_not_overloaded() {
        assert_eq!(overload(&load(Some(1_000.0), [900.0, 1_100.0], &[]), 998.0), None);
        assert_eq!(overload(&load(Some(1_000.0), [900.0, 900.0], &[("INTERNAL", 1)]), 998.0), None);
        // A closed loop cannot pile up.
        assert_eq!(overload(&load(None, [900.0, 9e6], &[("INTERNAL", 1)]), 1.0), None);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0", "12.5", "100", "1,000", "1,234,568"],
            [count(0.0), count(12.5), count(100.0), count(1_000.0), count(1_234_567.8)]
        );
        assert_eq!(
            ["7 us", "1.50 ms", "15 ms", "2.50 s"],
            [time(7.0), time(1_500.0), time(15_000.0), time(2.5e6)]
        );
    }
}
