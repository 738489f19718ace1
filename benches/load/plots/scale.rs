//! From values to pixels, and where an axis has its ticks. Pure.

/// An axis: values `from … to` on pixels `begin … end`.
pub(crate) struct Scale {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
    is_log: bool,
}

impl Scale {
    /// Equal steps; from zero, and to a tick at or beyond `most`.
    pub(crate) fn linear(most: f64, begin: f64, end: f64) -> Self {
        let step = step(most);
        let to = (most / step).ceil().max(1.0) * step;
        Self {
            from: 0.0,
            to,
            begin,
            end,
            is_log: false,
        }
    }

    /// Equal factors, over whole decades around `least … most`.
    pub(crate) fn log(least: f64, most: f64, begin: f64, end: f64) -> Self {
        let from = 10_f64.powf(least.max(1e-9).log10().floor());
        let to = 10_f64.powf(most.max(1e-9).log10().ceil());
        let to = if to > from { to } else { from * 10.0 };
        Self {
            from,
            to,
            begin,
            end,
            is_log: true,
        }
    }

    /// What lies outside is put at the end it lies beyond.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let part = match self.is_log {
            true => (value / self.from).log10() / (self.to / self.from).log10(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.begin + part * (self.end - self.begin)
    }

    pub(crate) fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.is_log {
            let mut tick = self.from;
            while tick <= self.to * 1.001 {
                ticks.push(tick);
                tick *= 10.0;
            }
        } else {
            let step = step(self.to);
            let mut tick = 0.0;
            while tick <= self.to + step / 2.0 {
                ticks.push(tick);
                tick += step;
            }
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, four to ten of them up to `most`.
fn step(most: f64) -> f64 {
    let most = if most > 0.0 { most } else { 1.0 };
    let decade = 10_f64.powf(most.log10().floor());
    match most / decade {
        times if times < 2.0 => decade / 5.0,
        times if times < 5.0 => decade / 2.0,
        _ => decade,
    }
}

/// As short as it can be said: `0.5`, `20`, `1k`, `2M`.
pub(crate) fn label(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 999_500.0 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    format!("{text}{unit}")
}
