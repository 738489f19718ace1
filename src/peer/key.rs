//! The keys of the channel: what a key file may hold, signing, verifying. Pure; no key is ever
//! printed.

use ring::hmac;

/// The shortest key, characters.
pub const KEY_CHARS_MIN: usize = 32;
/// The longest key file, bytes.
pub const FILE_BYTES_MAX: usize = 4096;
/// Bytes of a signature (HMAC-SHA256).
pub const TAG_BYTES: usize = 32;

/// The keys in force: the first signs, all are accepted.
#[derive(Debug, Clone)]
pub struct Keys {
    signing: hmac::Key,
    other: Option<hmac::Key>,
}

/// What is wrong with a key file. Says nothing about what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No line with a key.
    #[error("no key in it; `openssl rand -hex 32` makes one")]
    Empty,
    /// A key that could be guessed.
    #[error("line {0} is shorter than 32 characters; `openssl rand -hex 32` makes a key")]
    Short(usize),
    /// A roll-over has two.
    #[error("more than two keys in it")]
    Many,
    /// Twice the same: a roll-over that would not roll.
    #[error("both keys are the same")]
    Same,
    /// Not a line of text.
    #[error("line {0} holds something else than printable ASCII characters")]
    Binary(usize),
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("longer than 4096 bytes")]
    Long,
}

impl Keys {
    /// Reads a key file: one key per line, one or two of them; empty lines and lines that begin
    /// with `#` don't count, nor do blanks around a key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        if file.len() > FILE_BYTES_MAX {
            return Err(KeyError::Long);
        }
        let mut found: [Option<&[u8]>; 2] = [None, None];
        for (line, number) in file.split(|byte| *byte == b'\n').zip(1..) {
            let key = line.trim_ascii();
            if key.is_empty() || key.starts_with(b"#") {
                continue;
            }
            if !key.iter().all(|byte| (b' '..=b'~').contains(byte)) {
                return Err(KeyError::Binary(number));
            }
            if key.len() < KEY_CHARS_MIN {
                return Err(KeyError::Short(number));
            }
            let free = found.iter_mut().find(|place| place.is_none());
            *free.ok_or(KeyError::Many)? = Some(key);
        }
        let [first, second] = found;
        if first.is_some() && first == second {
            return Err(KeyError::Same);
        }
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Ok(Self {
            signing: key(first.ok_or(KeyError::Empty)?),
            other: second.map(key),
        })
    }

    /// How many there are, 1 or 2.
    #[must_use]
    pub fn count(&self) -> u8 {
        1 + u8::from(self.other.is_some())
    }

    /// The signature of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        let made = hmac::sign(&self.signing, message);
        for (to, from) in tag.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        tag
    }

    /// Whether one of the keys made this signature; how long that takes tells nothing about it.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        let made_by = |key: &hmac::Key| hmac::verify(key, message, tag).is_ok();
        made_by(&self.signing) || self.other.as_ref().is_some_and(made_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn the_first_key_signs_and_both_are_accepted() {
        let old = Keys::parse(A.as_bytes()).unwrap();
        let rolling = Keys::parse(format!("# new\n{B}\n\n  {A} \r\n").as_bytes()).unwrap();
        let new = Keys::parse(B.as_bytes()).unwrap();
        let message = b"one";
        assert_eq!((old.count(), rolling.count()), (1, 2));
        assert!(rolling.verify(message, &old.sign(message)));
        assert!(rolling.verify(message, &new.sign(message)));
        assert!(new.verify(message, &rolling.sign(message)));
        assert!(!old.verify(message, &rolling.sign(message)));
    }

    #[test]
    fn the_signature_is_hmac_sha256() {
        // openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef <<< abc (without newline)
        let keys = Keys::parse(A.as_bytes()).unwrap();
        let hex: String = keys
            .sign(b"abc")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "a60c859a6827c5ea576a48d8d368672fbfe4667c6a927428284a0cb3859cc1d6"
        );
    }

    #[test]
    fn a_changed_message_or_signature_is_not_accepted() {
        let keys = Keys::parse(A.as_bytes()).unwrap();
        let tag = keys.sign(b"abc");
        assert!(keys.verify(b"abc", &tag));
        assert!(!keys.verify(b"abd", &tag));
        for at in 0..tag.len() {
            let mut other = tag;
            other[at] ^= 1;
            assert!(!keys.verify(b"abc", &other), "{at}");
            assert!(!keys.verify(b"abc", &tag[..at]), "{at}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_file_is_refused() {
        let refused = |text: String| Keys::parse(text.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(refused(String::new()), KeyError::Empty);
        assert_eq!(refused("\n# nothing\n".into()), KeyError::Empty);
        assert_eq!(refused(format!("{A}\nshort")), KeyError::Short(2));
        assert_eq!(refused(format!("{A}\n{A}")), KeyError::Same);
        assert_eq!(refused(format!("{A}\n{B}\n{A}x")), KeyError::Many);
        assert_eq!(refused(format!("{A}\u{e9}")), KeyError::Binary(1));
        assert_eq!(refused("a".repeat(4097)), KeyError::Long);
    }

    #[test]
    fn no_key_is_printed() {
        let keys = Keys::parse(A.as_bytes()).unwrap();
        assert!(!format!("{keys:?}").contains("0123"));
    }
}
