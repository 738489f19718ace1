//! Medians, spreads and paired ratios. Pure.

/// The middle and the ends of a set of samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// `None` without samples.
pub(crate) fn spread(samples: &[f64]) -> Option<Spread> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(Spread {
        median: f64::midpoint(lower, upper),
        min,
        max,
    })
}

/// Sample by sample `ours / reference`, for the rounds in which both were measured. Pairs from one
/// round share the machine's mood, so their ratio is steadier than the ratio of the medians.
pub(crate) fn paired(ours: &[(usize, f64)], reference: &[(usize, f64)]) -> Vec<f64> {
    ours.iter()
        .filter_map(|(round, value)| {
            let (_, base) = reference.iter().find(|(other, _)| other == round)?;
            (*base > 0.0).then_some(value / base)
        })
        .collect()
}
