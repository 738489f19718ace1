//! The keys of `proxy-protocol` in `[proxy.NAME]`.

use super::{Fallback, Key, Kind, MINUTE, Section, Word, ms};

pub(super) const PROXY_PROTOCOL: Section = Section {
    path: "proxy.NAME.proxy-protocol",
    doc: "Who the client is, as senders before lbd tell it and as servers behind it are told; at least one of `accept` and `send`.",
    keys: &[
        Key::new(
            "accept",
            Kind::Form("network or address, or a list of up to 64"),
            Fallback::Words("none"),
            "Connections from these senders must begin with a header of version 1 or 2, and the client is who it says. From others a header is never interpreted: their bytes go to the server as they are.",
        )
        .called(&["accept-proxy", "expect-proxy", "trusted", "from", "trustedIPs", "set_real_ip_from"]),
        Key::new(
            "send",
            Kind::Choice(&[
                Word::new("v1").called(&["1", "send-proxy", "text"]),
                Word::new("v2").called(&["2", "send-proxy-v2", "binary"]),
            ]),
            Fallback::Words("none"),
            "Connections to servers begin with such a header, and checks with one that names no client. Every server must expect it: one that doesn't takes it for the client's first bytes.",
        )
        .called(&["send-proxy", "send-proxy-v2", "version"]),
        Key::new(
            "timeout",
            ms(100, MINUTE),
            Fallback::Value("\"3s\""),
            "For the header to arrive whole; the first-byte timeout begins behind it.",
        )
        .called(&["proxy_protocol_timeout", "timeout_client-hs"]),
    ],
};
