//! What a program writes: read so that it is never held up, its end kept for the log.

use std::os::fd::OwnedFd;

use crate::ipc::runner::OUTPUT_BYTES_MAX;
use crate::net::program::read_output;

/// Reads in one turn; a program that writes more waits.
const READS_MAX: usize = 16;

/// The end of a pipe.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` once nobody writes any more.
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Output {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe: Some(pipe),
            kept: Vec::new(),
        }
    }

    /// Takes what is there.
    pub(super) fn read(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..READS_MAX {
            let Some(pipe) = &self.pipe else { return };
            match read_output(pipe, &mut buffer) {
                Ok(Some(length @ 1..)) => self.keep(buffer.get(..length).unwrap_or_default()),
                Ok(None) => return,
                // Closing it also ends the wait for it.
                Ok(Some(_)) | Err(_) => self.pipe = None,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.kept.drain(..surplus);
    }

    /// The end of it, at most [`OUTPUT_BYTES_MAX`] bytes.
    pub(super) fn text(&self) -> String {
        // What is no UTF-8 grows when it is replaced.
        let mut text = String::from_utf8_lossy(self.kept.trim_ascii()).into_owned();
        while text.len() > OUTPUT_BYTES_MAX {
            text.pop();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let (pipe, _) = nix::unistd::pipe().unwrap();
        let mut output = Output::new(pipe);
        for number in 0..1_000_u32 {
            output.keep(format!("{number}\n").as_bytes());
        }
        let text = output.text();
        assert!(text.ends_with("998\n999"), "{text}");
        assert!(text.len() <= 1024 && text.len() > 1000);
    }

    #[test]
    fn bytes_that_are_no_text_stay_bounded() {
        let (pipe, _) = nix::unistd::pipe().unwrap();
        let mut output = Output::new(pipe);
        output.keep(&[0xff; 2048]);
        assert!(output.text().len() <= 1024);
    }
}
