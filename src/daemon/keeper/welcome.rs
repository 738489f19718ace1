//! The first words to a proxy process. Pure.

use crate::ipc::message::{CodecError, ToProxy, Welcome};

/// The message. A snapshot that it has no room for is left out: what one proxy said must not keep
/// the next one from starting.
///
/// # Errors
/// [`CodecError`] if it is too long without one.
pub(super) fn encode(welcome: Welcome) -> Result<Vec<u8>, CodecError> {
    let message = ToProxy::Welcome(welcome);
    match (message.encode(), message) {
        (Err(CodecError::TooLong(bytes)), ToProxy::Welcome(welcome)) => {
            tracing::warn!(bytes, "the next proxy gets no verdicts of the last one");
            let snapshot = Vec::new();
            ToProxy::Welcome(Welcome {
                snapshot,
                ..welcome
            })
            .encode()
        }
        (encoded, _) => encoded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::message::{ServerSnapshot, ToKeeper};

    #[test]
    fn a_snapshot_that_outgrew_a_message_is_left_out() {
        let server = |age| ServerSnapshot {
            proxy: String::new(),
            server: String::new(),
            up: true,
            verdict_age_ms: age,
            ramp_ms: None,
        };
        let said = ToKeeper::Snapshot(vec![server(0); 32_000]);
        said.encode().unwrap();
        let welcome = |snapshot| Welcome {
            node: None,
            config_path: "/etc/lbd/lb.toml".into(),
            generation: 2,
            snapshot,
            notes: None,
        };
        // The same a day later: its ages take more bytes.
        let bytes = encode(welcome(vec![server(86_400_000); 32_000])).unwrap();
        let decoded = ToProxy::decode(&bytes).unwrap();
        assert_eq!(decoded, ToProxy::Welcome(welcome(Vec::new())));
        let small = welcome(vec![server(1)]);
        let decoded = ToProxy::decode(&encode(small.clone()).unwrap()).unwrap();
        assert_eq!(decoded, ToProxy::Welcome(small));
    }
}
