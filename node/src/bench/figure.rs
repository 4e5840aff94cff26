//! A measured number and what it should be.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::target::Target;

/// One measured number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    target: Option<Target>,
}

impl Figure {
    /// A number, and the target that belongs to its name.
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let name = name.into();
        let target = Target::of(&name);
        Self { name, value, unit, target }
    }

    /// Whether the target was met, if there is one.
    pub(super) fn pass(&self) -> Option<bool> {
        self.target.map(|target| target.is_met_by(self.value))
    }

    pub(super) fn shown(&self) -> String {
        number(self.value)
    }

    pub(super) fn shown_target(&self) -> String {
        self.target.map_or("-".to_owned(), |target| format!("{} {}", target.sign(), number(target.limit())))
    }

    pub(super) fn to_json(&self) -> Value {
        let (target, sign) = (self.target.map(Target::limit), self.target.map(Target::sign));
        let (name, value, unit) = (&self.name, self.value, self.unit);
        json!({ "name": name, "value": value, "unit": unit, "is": sign, "target": target, "pass": self.pass() })
    }
}

/// Median and maximum of some spans, in milliseconds.
pub(super) fn median_and_max(name: &str, spans: &[Duration]) -> [Figure; 2] {
    let mut ms: Vec<f64> = spans.iter().map(|span| span.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let median = match ms.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => ms[len / 2],
        len => f64::midpoint(ms[len / 2 - 1], ms[len / 2]),
    };
    let max = ms.last().copied().unwrap_or(f64::NAN);
    [Figure::new(format!("{name}.median"), median, "ms"), Figure::new(format!("{name}.max"), max, "ms")]
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
        let [median, max] = median_and_max("x", &spans);
        assert_eq!((median.value, max.value), (2.5, 4.0));
    }

    #[test]
    fn a_figure_has_the_verdict_of_its_target_and_without_one_none() {
        assert_eq!(Figure::new("tasks.1.p50", 1.5, "ms").pass(), Some(false));
        let figure = Figure::new("tasks.1.p99", 12.0, "ms");
        assert_eq!(figure.pass(), None);
        assert_eq!(figure.to_json()["pass"], Value::Null);
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        let figures = median_and_max("failover.graceful", &[]);
        assert!(figures.iter().all(|figure| figure.pass() == Some(false)));
    }
}
