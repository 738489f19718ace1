//! The keys of `check`.

use super::{Fallback, HOUR, Key, Kind, MINUTE, Section, Word, ms};

pub(super) const CHECK: Section = Section {
    path: "proxy.NAME.check",
    doc: "How servers are checked; `check = \"tcp\"` is short for `check = { type = \"tcp\" }`.",
    keys: &[
        Key::new(
            "type",
            Kind::Choice(&[
                Word::new("tcp").called(&["tcp-check"]),
                Word::new("tls").called(&["ssl", "ssl-hello-chk"]),
                Word::new("http").called(&["httpchk"]),
                Word::new("https"),
                Word::new("kube-apiserver").called(&[
                    "kubernetes",
                    "apiserver",
                    "k8s",
                    "kube_apiserver",
                ]),
            ]),
            Fallback::Value("\"tcp\""),
            "`kube-apiserver` is https with GET /readyz, 1s, 250ms in transition, timeout 500ms.",
        ),
        Key::new(
            "interval",
            ms(50, HOUR),
            Fallback::Value("\"2s\""),
            "Between checks of a steady server.",
        )
        .called(&["inter"]),
        Key::new(
            "fast-interval",
            ms(20, HOUR),
            Fallback::Words("a quarter of the interval"),
            "While the verdict is changing.",
        )
        .called(&["fastinter"]),
        Key::new(
            "down-interval",
            ms(50, HOUR),
            Fallback::Value("\"1s\""),
            "While the server is down.",
        )
        .called(&["downinter"]),
        Key::new(
            "timeout",
            ms(10, MINUTE),
            Fallback::Value("\"2s\""),
            "For one check.",
        )
        .called(&["timeout_check"]),
        Key::new(
            "rise",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Value("2"),
            "Successes in a row that bring a server up.",
        ),
        Key::new(
            "fall",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Value("2"),
            "Failures in a row that take a server down.",
        ),
        Key::new(
            "path",
            Kind::Form("path"),
            Fallback::Words("`\"/\"`; `\"/readyz\"` for kube-apiserver"),
            "What GET asks for.",
        )
        .called(&["uri", "url"]),
        Key::new(
            "host",
            Kind::Form("host name"),
            Fallback::Words("the server's address"),
            "The Host header.",
        ),
        Key::new(
            "expect-status",
            Kind::Form("status 100 to 599, or a list"),
            Fallback::Value("200"),
            "Answers that mean ready.",
        )
        .called(&["expect", "status"]),
        Key::new(
            "ca-file",
            Kind::Form("absolute path"),
            Fallback::Words(
                "none; /etc/kubernetes/pki/ca.crt for kube-apiserver where that file exists",
            ),
            "Certificates that the server's is verified against.",
        )
        .called(&["ca"]),
        Key::new(
            "server-name",
            Kind::Form("host name or IP address"),
            Fallback::Words("the server's IP address"),
            "The name asked for and verified in TLS.",
        )
        .called(&["sni", "check-sni", "verifyhost"]),
        Key::new(
            "verify",
            Kind::Bool,
            Fallback::Words("true; for kube-apiserver where a CA is known"),
            "Whether the server's certificate is verified.",
        ),
        Key::new(
            "client-cert",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "Client certificate in PEM, its own chain behind it, for servers that want one; shown only to a server whose certificate is verified. Read again when it changes.",
        )
        .called(&["crt", "client-certificate", "proxy_ssl_certificate", "certificate_chain"]),
        Key::new(
            "client-key",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "The private key of `client-cert` in PEM, without a passphrase. It may stand in the same file.",
        )
        .called(&["key", "proxy_ssl_certificate_key", "private_key"]),
        Key::new(
            "token-file",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "A bearer token for the `Authorization` header; sent only over TLS, to a server whose certificate is verified. Read again when it changes.",
        )
        .called(&["token", "bearer-token", "bearer_token_file"]),
    ],
};
