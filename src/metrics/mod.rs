//! Metric families and their text form. The one place that names the `prometheus` crate: values
//! are read when somebody asks, so there is no registry to keep up to date.

use std::collections::HashMap;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use self::spans::Spans;

pub mod spans;

/// The HTTP content type of [`Families::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What kind of value a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Spans of time in the buckets of [`spans`].
    Histogram,
}

/// A family as documented: the name ends in a unit or `_total`, the labels come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `lbd_<component>_<noun>_<unit|total>`.
    pub name: &'static str,
    /// What kind of value it holds.
    pub kind: Kind,
    /// Label names; values come from the configuration or the code, never from clients.
    pub labels: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

/// Families being filled.
#[derive(Debug, Default)]
pub struct Families {
    families: Vec<MetricFamily>,
    /// Where each one stands, by its name.
    places: HashMap<&'static str, usize>,
}

impl Families {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample; `labels` are the values of `family.labels`, in order.
    pub fn add(&mut self, family: &Family, labels: &[&str], value: f64) {
        let mut metric = labelled(family, labels);
        match family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.push(family, metric);
    }

    /// Adds a histogram to a family of that kind.
    pub fn add_spans(&mut self, family: &Family, labels: &[&str], spans: &Spans) {
        let mut histogram = Histogram::default();
        let mut below = 0;
        let buckets = spans::bounds().zip(spans.counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(spans.total());
        let sum = std::time::Duration::from_micros(spans.micros);
        histogram.set_sample_sum(sum.as_secs_f64());
        let mut metric = labelled(family, labels);
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    fn push(&mut self, family: &Family, metric: Metric) {
        let families = &mut self.families;
        let place = *self.places.entry(family.name).or_insert_with(|| {
            families.push(described(family));
            families.len() - 1
        });
        if let Some(present) = families.get_mut(place) {
            present.mut_metric().push(metric);
        }
    }

    /// Prometheus' text format 0.0.4.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&self.families, &mut text) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

fn labelled(family: &Family, labels: &[&str]) -> Metric {
    let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn described(family: &Family) -> MetricFamily {
    let mut fresh = MetricFamily::default();
    fresh.set_name(family.name.to_owned());
    fresh.set_help(family.help.to_owned());
    fresh.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    fresh
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Family = Family {
        name: "lbd_server_up",
        kind: Kind::Gauge,
        labels: &["proxy", "server"],
        help: "Whether it is up.",
    };
    const BYTES: Family = Family {
        name: "lbd_proxy_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Bytes.",
    };

    #[test]
    fn samples_of_one_family_stand_together_and_labels_are_escaped() {
        let mut families = Families::new();
        families.add(&UP, &["a", "s\"1\""], 1.0);
        families.add(&BYTES, &[], 7.0);
        families.add(&UP, &["a", "s2"], 0.0);
        assert_eq!(
            families.encode(),
            "# HELP lbd_server_up Whether it is up.\n# TYPE lbd_server_up gauge\n\
             lbd_server_up{proxy=\"a\",server=\"s\\\"1\\\"\"} 1\n\
             lbd_server_up{proxy=\"a\",server=\"s2\"} 0\n\
             # HELP lbd_proxy_bytes_total Bytes.\n# TYPE lbd_proxy_bytes_total counter\n\
             lbd_proxy_bytes_total 7\n"
        );
    }

    #[test]
    fn a_histogram_has_a_line_for_each_bound_and_adds_up() {
        const TIME: Family = Family {
            name: "lbd_server_connect_seconds",
            kind: Kind::Histogram,
            labels: &["server"],
            help: "Time.",
        };
        let mut spans = Spans::default();
        for micros in [100, 200, 60_000_000] {
            spans.add(std::time::Duration::from_micros(micros));
        }
        let mut families = Families::new();
        families.add_spans(&TIME, &["s1"], &spans);
        let text = families.encode();
        for line in [
            "# TYPE lbd_server_connect_seconds histogram",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"0.000128\"} 1",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"0.000256\"} 2",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"16.777216\"} 2",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"+Inf\"} 3",
            "lbd_server_connect_seconds_sum{server=\"s1\"} 60.0003",
            "lbd_server_connect_seconds_count{server=\"s1\"} 3",
        ] {
            assert!(
                text.lines().any(|present| present == line),
                "{line}\n{text}"
            );
        }
        assert_eq!(text.lines().count(), 2 + 19 + 2);
    }
}
