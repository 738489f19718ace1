//! Further programs under test, given on the command line: `NAME=COMMAND` is started with the
//! address to listen on and those of the servers as its last arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::cells::Cell;
use crate::stats::spread;

static PROGRAMS: OnceLock<Vec<Extra>> = OnceLock::new();

/// A value of a cell.
type Metric = fn(&Cell) -> f64;

/// One of them.
#[derive(Clone)]
pub(crate) struct Extra {
    name: String,
    command: Vec<PathBuf>,
}

impl FromStr for Extra {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, command) = text.split_once('=').ok_or("NAME=COMMAND")?;
        let command: Vec<PathBuf> = command.split_whitespace().map(PathBuf::from).collect();
        match (name, command.first()) {
            ("", _) | (_, None) => Err("NAME=COMMAND"),
            (name, Some(_)) => Ok(Self {
                name: name.to_owned(),
                command,
            }),
        }
    }
}

/// Makes them known, once; answers their places.
pub(crate) fn register(programs: Vec<Extra>) -> std::ops::Range<usize> {
    0..PROGRAMS.get_or_init(|| programs).len()
}

fn program(place: usize) -> Option<&'static Extra> {
    PROGRAMS.get()?.get(place)
}

pub(crate) fn name(place: usize) -> &'static str {
    program(place).map_or("?", |extra| &extra.name)
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let programs = PROGRAMS.get().into_iter().flatten();
    programs.map(|extra| extra.name.as_str())
}

/// Each of them against lbd: the median of the ratios within a round, for every workload.
pub(crate) fn against_lbd(cells: &[Cell]) -> String {
    let mut text = String::new();
    let metrics: [(&str, Metric); 4] = [
        ("rate", Cell::rate),
        ("CPU per unit", Cell::cpu_each),
        ("machine's CPU per unit", Cell::machine_each),
        ("memory per connection", |cell| cell.pss_each),
    ];
    let mut workloads: Vec<&str> = cells.iter().map(|cell| cell.workload).collect();
    workloads.sort_unstable();
    workloads.dedup();
    for (name, workload) in names().flat_map(|n| workloads.iter().map(move |w| (n, *w))) {
        let of = |target| move |c: &&Cell| c.workload == workload && c.target == target;
        for (metric, value) in metrics {
            let idle = metric.starts_with("memory");
            let ratios: Vec<f64> = cells
                .iter()
                .filter(|cell| idle == (cell.pss_each != 0.0))
                .filter(of(name))
                .filter_map(|cell| {
                    let mut lbds = cells.iter().filter(of("lbd"));
                    let lbd = lbds.find(|lbd| lbd.round == cell.round)?;
                    Some(value(cell) / value(lbd))
                })
                .collect();
            if let Some(s) = spread(&ratios) {
                let (median, low, high) = (s.median, s.min, s.max);
                text.push_str(&format!(
                    "{workload:<11}{name:<12}{metric:<24}{median:.2} ({low:.2}–{high:.2}) × lbd\n"
                ));
            }
        }
    }
    text
}

pub(crate) fn command_line(
    place: usize,
    listen: SocketAddr,
    servers: &[SocketAddr],
) -> Vec<PathBuf> {
    let command = program(place).map_or_else(Vec::new, |extra| extra.command.clone());
    let addresses = std::iter::once(&listen).chain(servers);
    let addresses = addresses.map(|addr| PathBuf::from(addr.to_string()));
    command.into_iter().chain(addresses).collect()
}
