//! `lbd manifest`: lbd as a static pod, and the recipe of its container image.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::reach::FAILURE;
use super::{Exit, out};

const EXAMPLES: &str = "\
The pod runs in the host's network, with NET_ADMIN and NET_RAW and no other right. Where a systemd of
the host is at hand, a unit is simpler, and comes up before any container does.

Examples:
  lbd manifest > /etc/kubernetes/manifests/lbd.yaml
  lbd manifest --image registry.example/lbd:0.1.0 -o json
  lbd manifest --containerfile > Containerfile";

/// What goes into it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ManifestArgs {
    /// The image
    #[arg(long, value_name = "IMAGE", default_value = concat!("localhost/lbd:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The directory of lb.toml on the host
    #[arg(long, value_name = "DIR", default_value = "/etc/lbd")]
    config_dir: String,
    /// The port of `[metrics] listen`, which the probes ask
    #[arg(long, value_name = "PORT", default_value_t = 9633)]
    metrics_port: u16,
    /// The pod's namespace
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    namespace: String,
    /// Print the recipe of the image instead
    #[arg(long, conflicts_with_all = ["image", "config_dir", "metrics_port", "namespace", "output"])]
    containerfile: bool,
    /// YAML or JSON; the kubelet reads both
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

/// For a binary that is linked statically: nothing else has to be in the image.
const CONTAINERFILE: &str = "\
# The binary, built for musl: cargo build --release --target x86_64-unknown-linux-musl
FROM scratch
COPY target/x86_64-unknown-linux-musl/release/lbd /usr/bin/lbd
ENTRYPOINT [\"/usr/bin/lbd\"]
CMD [\"--config\", \"/etc/lbd/lb.toml\", \"--runtime-dir\", \"/run/lbd\"]
";

/// Prints it.
pub(super) fn run(args: &ManifestArgs) -> u8 {
    let text = if args.containerfile {
        CONTAINERFILE.to_owned()
    } else {
        let pod = pod(args);
        match args.output {
            Output::Json => serde_json::to_string_pretty(&pod).unwrap_or_default() + "\n",
            Output::Yaml => yaml(&pod),
        }
    };
    match out(&text) {
        Ok(()) => Exit::Success.code(),
        Err(_closed) => FAILURE,
    }
}

fn pod(args: &ManifestArgs) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "lbd",
            "namespace": args.namespace,
            "labels": { "app.kubernetes.io/name": "lbd" },
        },
        "spec": {
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            // A planned leave waits for the successor and for programs of `notify`.
            "terminationGracePeriodSeconds": 80,
            "containers": [container(args)],
            "volumes": [
                { "name": "config", "hostPath": { "path": args.config_dir, "type": "Directory" } },
                { "name": "run", "hostPath": { "path": "/run/lbd", "type": "DirectoryOrCreate" } },
                { "name": "state", "hostPath": { "path": "/var/lib/lbd", "type": "DirectoryOrCreate" } },
            ],
        },
    })
}

fn container(args: &ManifestArgs) -> Value {
    let probe = |path: &str, failures: u8| {
        json!({
            "httpGet": { "host": "127.0.0.1", "port": args.metrics_port, "path": path },
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": "lbd",
        "image": args.image,
        "args": ["--config", "/etc/lbd/lb.toml", "--runtime-dir", "/run/lbd"],
        "env": [{ "name": "STATE_DIRECTORY", "value": "/var/lib/lbd" }],
        "securityContext": {
            "runAsUser": 0,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"] },
        },
        "resources": { "requests": { "cpu": "100m", "memory": "32Mi" } },
        "livenessProbe": probe("/livez", 3),
        "readinessProbe": probe("/readyz", 1),
        "volumeMounts": [
            { "name": "config", "mountPath": "/etc/lbd", "readOnly": true },
            { "name": "run", "mountPath": "/run/lbd" },
            { "name": "state", "mountPath": "/var/lib/lbd" },
        ],
    })
}

/// A value in YAML's block style; each string is quoted as JSON quotes it, which YAML reads alike.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes `value` in lines of its own, indented by `depth` steps.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                text.push_str(&format!("{indent}{name}:"));
                below(value, depth + 1, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                // The item's first line stands behind the dash.
                text.push_str(&format!("{indent}- {}", inner.trim_start_matches(' ')));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&format!("{indent}{value}\n"));
        }
    }
}

/// What stands behind `name:`.
fn below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => text.push_str(&format!(" {value}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_written_in_blocks_with_quoted_strings() {
        let value = json!({ "a": { "b": [1, "x: y"], "c": true }, "d": [{ "e": "f", "g": [] }] });
        let expected = "\
a:
  b:
    - 1
    - \"x: y\"
  c: true
d:
  - e: \"f\"
    g: []
";
        assert_eq!(yaml(&value), expected);
    }
}
