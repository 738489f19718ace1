//! What a tracked file says: its content as a number. Pure.

/// Longer content is no number.
pub const BYTES_MAX: usize = 64;

/// Numbers beyond this make no difference: the smallest weight is 1, the largest sum ±253.
const NUMBER_MAX: i32 = 1_000;

/// The number in a file: a file that is not there (`None`) holds 0, a whole number is itself
/// (kept within ±1000), anything else, an empty file too, is 1: the file is there, and that says
/// something.
#[must_use]
pub fn number(content: Option<&[u8]>) -> i32 {
    let Some(content) = content else { return 0 };
    let text = content.trim_ascii();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number || content.len() > BYTES_MAX {
        return 1;
    }
    let size = digits.iter().fold(0_i32, |sum, digit| {
        let sum = sum
            .saturating_mul(10)
            .saturating_add(i32::from(digit - b'0'));
        sum.min(NUMBER_MAX)
    });
    if negative { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_and_holds_no_zero_says_something() {
        let table: [(Option<&[u8]>, i32); 17] = [
            (None, 0),
            (Some(b""), 1),
            (Some(b"\n"), 1),
            (Some(b"0"), 0),
            (Some(b"0\n"), 0),
            (Some(b"-0"), 0),
            (Some(b"000"), 0),
            (Some(b"1\n"), 1),
            (Some(b" 7 "), 7),
            (Some(b"+7"), 7),
            (Some(b"-12\n"), -12),
            (Some(b"kernel update"), 1),
            (Some(b"0 0"), 1),
            (Some(b"-"), 1),
            (Some(b"99999999999999999999"), 1_000),
            (Some(b"-99999999999999999999"), -1_000),
            (Some(&[b'0'; 65]), 1),
        ];
        for (content, expected) in table {
            assert_eq!(number(content), expected, "{content:?}");
        }
    }
}
