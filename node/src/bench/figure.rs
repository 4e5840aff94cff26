//! A measured number and what it should be.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// One measured number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    target: Option<Target>,
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    AtMost(f64),
}

impl Figure {
    /// A number without a target.
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, target: None }
    }

    /// It should not be greater than this.
    pub(super) fn at_most(mut self, target: f64) -> Self {
        self.target = Some(Target::AtMost(target));
        self
    }

    /// Whether the target was met, if there is one.
    pub(super) fn pass(&self) -> Option<bool> {
        self.target.map(|Target::AtMost(target)| self.value <= target)
    }

    pub(super) fn shown(&self) -> String {
        number(self.value)
    }

    pub(super) fn shown_target(&self) -> String {
        self.target.map_or("-".to_owned(), |Target::AtMost(target)| format!("<= {}", number(target)))
    }

    pub(super) fn to_json(&self) -> Value {
        let target = self.target.map(|Target::AtMost(target)| target);
        json!({ "name": self.name, "value": self.value, "unit": self.unit, "target": target, "pass": self.pass() })
    }
}

/// Median and maximum of some spans, against their targets in milliseconds.
pub(super) fn median_and_max(name: &str, spans: &[Duration], targets: (f64, f64)) -> [Figure; 2] {
    let mut ms: Vec<f64> = spans.iter().map(|span| span.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let median = match ms.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => ms[len / 2],
        len => f64::midpoint(ms[len / 2 - 1], ms[len / 2]),
    };
    let max = ms.last().copied().unwrap_or(f64::NAN);
    [
        Figure::new(format!("{name}.median"), median, "ms").at_most(targets.0),
        Figure::new(format!("{name}.max"), max, "ms").at_most(targets.1),
    ]
}

/// Latencies of many calls.
#[derive(Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order"))
    }

    pub(super) fn add(&mut self, span: Duration) {
        self.0.saturating_record(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Median and 99th percentile, in milliseconds.
    pub(super) fn figures(&self, name: &str) -> [Figure; 2] {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        [Figure::new(format!("{name}.p50"), at(0.5), "ms"), Figure::new(format!("{name}.p99"), at(0.99), "ms")]
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spans = [4, 1, 3, 2].map(Duration::from_millis);
        let [median, max] = median_and_max("x", &spans, (2.5, 3.9));
        assert_eq!((median.value, median.pass()), (2.5, Some(true)));
        assert_eq!((max.value, max.pass()), (4.0, Some(false)));
    }

    #[test]
    fn a_figure_without_a_target_has_no_verdict() {
        let figure = Figure::new("kv.put", 12.0, "1/s");
        assert_eq!(figure.pass(), None);
        assert_eq!(figure.to_json()["pass"], Value::Null);
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        assert!(median_and_max("x", &[], (1.0, 1.0)).iter().all(|figure| figure.pass() == Some(false)));
    }
}
