//! `~SEQ(NAME, from, step, to)` and `~LST(NAME, …)` of keepalived.conf: which values the rest of a
//! line is repeated with. Pure.

use super::text;

/// No line is repeated more often.
const TURNS_MAX: usize = 4_096;

/// A line that is repeated.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// Names with their values, for each time.
    pub(super) turns: Vec<Vec<(String, String)>>,
    /// What is repeated.
    pub(super) rest: String,
}

/// Why a line isn't repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// It says nothing that can be repeated.
    #[error("keepalived refuses it, too")]
    Wrong,
    /// keepalived would do it.
    #[error("lbd repeats no line more than 4096 times")]
    Often,
}

type Turns = Vec<Vec<(String, String)>>;

/// Reads the first `~SEQ(…)`, `~SEQx(…)` or `~LST(…)` of a line.
pub(super) fn repeat(text: &str) -> Result<Repeat, Refused> {
    let (kind, inside, rest) = text
        .split_once('(')
        .and_then(|(kind, behind)| {
            let (inside, rest) = behind.split_once(')')?;
            Some((kind, inside, rest))
        })
        .ok_or(Refused::Wrong)?;
    let turns = match kind.trim() {
        "~SEQ" => numbers(inside, false)?,
        "~SEQx" => numbers(inside, true)?,
        "~LST" => values(inside)?,
        _ => return Err(Refused::Wrong),
    };
    Ok(Repeat {
        turns,
        rest: rest.trim().to_owned(),
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(text::is_name)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A number as C writes it: `12`, `0x0c`, `014`, with a sign or without.
fn number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let plain = |digits: &str, base| {
        let fine = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
        fine.then(|| i64::from_str_radix(digits, base).ok())?
    };
    let value = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => plain(hex, 16),
        None if digits.starts_with('0') && digits.len() > 1 => plain(digits, 8),
        None => plain(digits, 10),
    }?;
    (value <= i64::from(u32::MAX)).then_some(sign * value)
}

fn numbers(inside: &str, hex: bool) -> Result<Turns, Refused> {
    let mut parts = inside.split(',').map(str::trim);
    let name = parts.next().filter(|name| is_name(name));
    let name = name.ok_or(Refused::Wrong)?;
    let given: Option<Vec<i64>> = parts.map(number).collect();
    let given = given.ok_or(Refused::Wrong)?;
    let sign = |end: i64| if end > 0 { 1 } else { -1 };
    let (from, step, to) = match given.as_slice() {
        // Without a start it counts from 1 to what is above 0, and to 0.
        [to] if *to >= 0 => (1, if *to > 0 { 1 } else { -1 }, *to),
        [to] => (-1, -1, *to),
        [from, to] => (*from, sign(to - from + i64::from(to == from)), *to),
        [from, step, to] => (*from, *step, *to),
        _ => return Err(Refused::Wrong),
    };
    let reaches = match step {
        0 => false,
        1.. => from <= to,
        _ => from >= to,
    };
    if !reaches {
        return Err(Refused::Wrong);
    }
    if from.abs_diff(to) / step.unsigned_abs() >= TURNS_MAX as u64 {
        return Err(Refused::Often);
    }
    let mut found = Vec::new();
    let mut at = from;
    while (step > 0 && at <= to) || (step < 0 && at >= to) {
        let value = if hex {
            format!("{at:x}")
        } else {
            at.to_string()
        };
        found.push(vec![(name.to_owned(), value)]);
        at += step;
    }
    Ok(found)
}

/// What stands between commas, or between `{` and `}`.
fn items(inside: &str) -> Option<Vec<Vec<&str>>> {
    let mut found = Vec::new();
    let mut rest = inside.trim();
    loop {
        let behind = match rest.strip_prefix('{') {
            Some(open) => {
                let (group, behind) = open.split_once('}')?;
                found.push(group.split(',').map(str::trim).collect());
                behind.trim()
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (item, behind) = rest.split_at(end);
                found.push(vec![item.trim()]);
                behind
            }
        };
        if behind.is_empty() {
            return Some(found);
        }
        rest = behind.strip_prefix(',')?.trim_start();
    }
}

fn values(inside: &str) -> Result<Turns, Refused> {
    let mut items = items(inside).ok_or(Refused::Wrong)?.into_iter();
    let names = items.next().ok_or(Refused::Wrong)?;
    if !names.iter().all(|name| is_name(name)) || items.len() == 0 {
        return Err(Refused::Wrong);
    }
    // Each turn gives each name a value.
    if items.len().saturating_mul(names.len()) > TURNS_MAX {
        return Err(Refused::Often);
    }
    let turn = |values: Vec<&str>| {
        let plain = |value: &&str| !value.contains(['{', '}', '"', '\'', ' ', '\t']);
        if values.len() > names.len() || !values.iter().all(plain) {
            return None;
        }
        let value = |(index, name): (usize, &&str)| {
            let value = values.get(index).copied().unwrap_or("");
            ((*name).to_owned(), value.to_owned())
        };
        Some(names.iter().enumerate().map(value).collect())
    };
    let turns: Option<Turns> = items.map(turn).collect();
    turns.ok_or(Refused::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keepalived 2.2.7 repeats such a line with, as `A=1 B=2`.
    fn turns(text: &str) -> Option<Vec<String>> {
        let shown = |turn: &Vec<(String, String)>| {
            let pairs: Vec<String> = turn.iter().map(|(n, v)| format!("{n}={v}")).collect();
            pairs.join(" ")
        };
        Some(repeat(text).ok()?.turns.iter().map(shown).collect())
    }

    #[test]
    fn sequences_count_as_keepalived_s() {
        assert_eq!(turns("~SEQ(A, 3) x").unwrap(), ["A=1", "A=2", "A=3"]);
        assert_eq!(turns("~SEQ(A, 3, 1) x").unwrap(), ["A=3", "A=2", "A=1"]);
        assert_eq!(turns("~SEQ(A, 0) x").unwrap(), ["A=1", "A=0"]);
        assert_eq!(turns("~SEQ(A, -2) x").unwrap(), ["A=-1", "A=-2"]);
        assert_eq!(
            turns("~SEQ (A,10,5,22)x").unwrap(),
            ["A=10", "A=15", "A=20"]
        );
        assert_eq!(turns("~SEQ(A, 7, 7) x").unwrap(), ["A=7"]);
        assert_eq!(turns("~SEQ(A, 2, -1, 0) x").unwrap(), ["A=2", "A=1", "A=0"]);
        assert_eq!(turns("~SEQ(A, 0x0a, 0x0b) x").unwrap(), ["A=10", "A=11"]);
        assert_eq!(turns("~SEQ(A, 010, 011) x").unwrap(), ["A=8", "A=9"]);
        assert_eq!(
            turns("~SEQx(A, 144, 16, 192) x").unwrap(),
            ["A=90", "A=a0", "A=b0", "A=c0"]
        );
        for refused in [
            "~SEQ(A, 5, 1, 2) x",
            "~SEQ(A, 1, 0, 3) x",
            "~SEQ(A, 08) x",
            "~SEQ(A, 1, 2",
            "~SEQ(A)",
            "~SEQ(A,1,1,1,1) x",
        ] {
            assert_eq!(repeat(refused), Err(Refused::Wrong), "{refused}");
        }
        for often in ["~SEQ(A, 1, 99999999) x", "~SEQ(A, 1, 4097) x"] {
            assert_eq!(repeat(often), Err(Refused::Often), "{often}");
        }
    }

    #[test]
    fn lists_give_one_name_or_several_their_values() {
        assert_eq!(turns("~LST(F, 1,2 ,7) x").unwrap(), ["F=1", "F=2", "F=7"]);
        assert_eq!(turns("~LST(F, , 2) x").unwrap(), ["F=", "F=2"]);
        let pairs = turns("~LST({G,  H},  {1,2},{ 3 , 4 }) 10.7.${G}.${H}").unwrap();
        assert_eq!(pairs, ["G=1 H=2", "G=3 H=4"]);
        assert_eq!(
            turns("~LST({G,H}, {1}, {1,2}) x").unwrap(),
            ["G=1 H=", "G=1 H=2"]
        );
        for refused in [
            "~LST(F) x",
            "~LST(F, a, b b) x",
            "~LST({G,H}, {1,2,3}) x",
            "~LST(F, ${V}) x",
            "~LST(F, \"a\") x",
        ] {
            assert_eq!(turns(refused), None, "{refused}");
        }
    }
}
