//! `~SEQ(NAME, from, step, to)` and `~LST(NAME, …)` of keepalived.conf: which values the rest of a
//! line is repeated with. Pure.

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

/// Reads the first `~SEQ(…)`, `~SEQx(…)` or `~LST(…)` of a line; nothing when keepalived refuses it.
pub(super) fn repeat(text: &str) -> Option<Repeat> {
    let (kind, behind) = text.split_once('(')?;
    let (inside, rest) = behind.split_once(')')?;
    let turns = match kind.trim() {
        "~SEQ" => numbers(inside, false)?,
        "~SEQx" => numbers(inside, true)?,
        "~LST" => values(inside)?,
        _ => return None,
    };
    Some(Repeat {
        turns,
        rest: rest.trim().to_owned(),
    })
}

fn is_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
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

fn numbers(inside: &str, hex: bool) -> Option<Vec<Vec<(String, String)>>> {
    let mut parts = inside.split(',').map(str::trim);
    let name = parts.next().filter(|name| is_name(name))?;
    let given: Vec<i64> = parts.map(number).collect::<Option<_>>()?;
    let sign = |end: i64| if end > 0 { 1 } else { -1 };
    let (from, step, to) = match given.as_slice() {
        // Without a start it counts from 1 to what is above 0, and to 0.
        [to] if *to >= 0 => (1, if *to > 0 { 1 } else { -1 }, *to),
        [to] => (-1, -1, *to),
        [from, to] => (*from, sign(to - from + i64::from(to == from)), *to),
        [from, step, to] => (*from, *step, *to),
        _ => return None,
    };
    let reaches = match step {
        0 => false,
        1.. => from <= to,
        _ => from >= to,
    };
    if !reaches || from.abs_diff(to) / step.unsigned_abs() >= TURNS_MAX as u64 {
        return None;
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
    Some(found)
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

fn values(inside: &str) -> Option<Vec<Vec<(String, String)>>> {
    let mut items = items(inside)?.into_iter();
    let names = items.next()?;
    if !names.iter().all(|name| is_name(name)) || items.len() == 0 || items.len() > TURNS_MAX {
        return None;
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
    items.map(turn).collect()
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
        Some(repeat(text)?.turns.iter().map(shown).collect())
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
            "~SEQ(A, 1, 99999999) x",
        ] {
            assert_eq!(turns(refused), None, "{refused}");
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
