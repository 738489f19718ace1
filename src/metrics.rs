//! Metric families and their text form. The one place that names the `prometheus` crate: values
//! are read when somebody asks, so there is no registry to keep up to date.

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// The HTTP content type of [`Families::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What kind of value a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes both ways.
    Gauge,
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
}

impl Families {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample; `labels` are the values of `family.labels`, in order.
    pub fn add(&mut self, family: &Family, labels: &[&str], value: f64) {
        let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        match family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        let known = self.families.iter().position(|f| f.name() == family.name);
        let at = known.unwrap_or_else(|| {
            self.families.push(described(family));
            self.families.len() - 1
        });
        if let Some(present) = self.families.get_mut(at) {
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

fn described(family: &Family) -> MetricFamily {
    let mut fresh = MetricFamily::default();
    fresh.set_name(family.name.to_owned());
    fresh.set_help(family.help.to_owned());
    fresh.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
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
}
