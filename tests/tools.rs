//! What lbd prints for other programs: the schema of lb.toml, completions, the manual, a first file, a
//! static pod. Each is read back by whom it is for, where that program is installed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

#[path = "lab/port.rs"]
mod port;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lbd::config::{View, examine, json_schema};
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn lbd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lbd"))
        .args(arguments)
        .current_dir(ROOT)
        .output()
        .expect("lbd starts")
}

fn printed(arguments: &[&str]) -> String {
    let output = lbd(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether `program` is installed; in CI it is.
fn installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "no {program} in CI"
    );
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Feeds `text` to a program and says what it complains about; `None`: nothing.
fn complaint(program: &str, arguments: &[&str], text: &str) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success() || !said.is_empty()).then_some(said)
}

/// A directory of its own for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lbd-tools-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            assert!(std::thread::panicking(), "{error}");
        }
    }
}

// --- the schema ---------------------------------------------------------------------------------

/// Why `value` does not fit `schema`. Every word of the schema must be known here, so that none is
/// passed over.
#[expect(clippy::too_many_lines, reason = "one arm per word of JSON Schema")]
fn misfit(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let rules = schema.as_object().unwrap();
    rules.iter().find_map(|(rule, given)| {
        let wrong = |text: &str| Some(format!("{value}: {text} {given}"));
        match rule.as_str() {
            "$schema" | "title" | "description" | "default" | "definitions" => None,
            "$ref" => {
                let path = given
                    .as_str()
                    .unwrap()
                    .strip_prefix("#/definitions/")
                    .unwrap();
                misfit(root, &root["definitions"][path], value)
            }
            "allOf" => {
                let mut all = given.as_array().unwrap().iter();
                all.find_map(|schema| misfit(root, schema, value))
            }
            "anyOf" => {
                let some = given.as_array().unwrap();
                let fits = some
                    .iter()
                    .any(|schema| misfit(root, schema, value).is_none());
                if fits { None } else { wrong("fits none of") }
            }
            "type" => {
                let fits = match given.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    other => panic!("{other}"),
                };
                if fits { None } else { wrong("is no") }
            }
            "const" => (value != given).then(|| format!("{value} is not {given}")),
            "enum" => {
                let fits = given.as_array().unwrap().contains(value);
                if fits { None } else { wrong("is none of") }
            }
            "minimum" => {
                (value.as_i64()? < given.as_i64().unwrap()).then(|| format!("{value} is too small"))
            }
            "maximum" => {
                (value.as_i64()? > given.as_i64().unwrap()).then(|| format!("{value} is too large"))
            }
            "pattern" => {
                let fits = matches_pattern(given.as_str().unwrap(), value.as_str()?);
                if fits { None } else { wrong("does not match") }
            }
            "required" => {
                let object = value.as_object()?;
                let mut names = given
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap());
                names
                    .find(|name| !object.contains_key(*name))
                    .map(|name| format!("{name} is missing"))
            }
            "properties" => {
                let object = value.as_object()?;
                object
                    .iter()
                    .find_map(|(name, value)| misfit(root, given.get(name)?, value))
            }
            "additionalProperties" => {
                let known = rules.get("properties");
                let mut others = value.as_object()?.iter().filter(|(name, _)| {
                    known.is_none_or(|known| known.get(name.as_str()).is_none())
                });
                if *given == Value::Bool(false) {
                    others.next().map(|(name, _)| format!("no key {name}"))
                } else {
                    others.find_map(|(_, value)| misfit(root, given, value))
                }
            }
            "propertyNames" => {
                let pattern = given["pattern"].as_str().unwrap();
                let mut names = value.as_object()?.keys();
                names
                    .find(|name| !matches_pattern(pattern, name))
                    .map(|name| format!("name {name}"))
            }
            "items" => {
                let mut items = value.as_array()?.iter();
                items.find_map(|item| misfit(root, given, item))
            }
            other => panic!("{other} is not known to this test"),
        }
    })
}

/// The few patterns that the schema has.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let duration = || {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < text.len() && ["ms", "s", "m", "h"].contains(&unit)
    };
    match pattern {
        "^/" => text.starts_with('/'),
        "^[0-9]+(ms|s|m|h)$" => duration(),
        "^([0-9]+(ms|s|m|h)|off)$" => text == "off" || duration(),
        "^[A-Za-z0-9_.-]{1,64}$" => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            (1..=64).contains(&text.len()) && text.bytes().all(fits)
        }
        other => panic!("{other} is not known to this test"),
    }
}

fn against_schema(schema: &Value, text: &str) -> Option<String> {
    let table: toml::Table = text.parse().unwrap();
    misfit(schema, schema, &serde_json::to_value(table).unwrap())
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn every_shipped_file_fits_the_schema() {
    let schema = json_schema::schema();
    for path in files("conf") {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(against_schema(&schema, &text), None, "{}", path.display());
    }
}

/// The schema knows keys, types, words and ranges: what `check` refuses for those alone it refuses
/// too, and it refuses nothing that `check` accepts.
#[test]
fn the_schema_and_the_check_agree_about_keys_types_and_words() {
    let schema = json_schema::schema();
    let of_schema = ["E0101", "E0102", "E0103", "E0106"];
    let (mut refused, mut accepted) = (0, 0);
    for path in files("tests/data/config/invalid") {
        let text = fs::read_to_string(&path).unwrap();
        if text.parse::<toml::Table>().is_err() {
            continue;
        }
        let found = examine(&text, View::Anywhere).problems;
        let codes: BTreeSet<&str> = found.iter().map(|problem| problem.code).collect();
        let misfit = against_schema(&schema, &text);
        let name = path.file_name().unwrap().to_string_lossy();
        if of_schema.iter().any(|code| codes.contains(code)) {
            refused += 1;
            assert!(misfit.is_some(), "{name} fits the schema");
        } else if !found.iter().any(lbd::config::Problem::is_error) {
            accepted += 1;
            assert_eq!(misfit, None, "{name}");
        }
    }
    assert!(
        refused >= 8 && accepted >= 20,
        "{refused} refused, {accepted} accepted"
    );
}

#[test]
fn the_schema_refuses_a_number_out_of_range_and_a_missing_key() {
    let schema = json_schema::schema();
    for (text, why) in [
        ("[limits]\nworkers = 257\n", "fits none of"),
        (
            "[vip.a]\naddress = \"10.0.0.1/24\"\nnodes = []\nvrid = 0\n",
            "0 is too small",
        ),
        ("[vip.a]\nnodes = []\n", "address is missing"),
        ("[vip.\"a b\"]\naddress = \"10.0.0.1/24\"\n", "name a b"),
        (
            "[proxy.a]\nlisten = \":1\"\nbackends = [1]\n",
            "fits none of",
        ),
        (
            "[proxy.a]\nlisten = \":1\"\nidle-timeout = \"5\"\n",
            "does not match",
        ),
        ("[admin]\nsocket = \"admin.sock\"\n", "does not match"),
    ] {
        let misfit = against_schema(&schema, text).unwrap();
        assert!(misfit.contains(why), "{text}: {misfit}");
    }
}

#[test]
fn the_command_prints_the_schema() {
    let schema: Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    assert_eq!(schema, json_schema::schema());
    assert_eq!(
        schema["properties"]["vip"]["additionalProperties"]["$ref"],
        "#/definitions/vip.NAME"
    );
}

// --- completions and manual ------------------------------------------------------------------------

/// The subcommands that `lbd --help` shows.
fn subcommands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let words = rest.lines().take_while(|line| line.starts_with("  "));
    let words = words.filter(|line| !line.starts_with("   "));
    let words = words.filter_map(|line| line.split_whitespace().next());
    let words: Vec<String> = words
        .filter(|word| *word != "help")
        .map(str::to_owned)
        .collect();
    assert!(words.len() > 10, "{words:?}");
    words
}

#[test]
fn completions_know_every_subcommand_and_no_hidden_one() {
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(&["completions", shell]);
        for word in subcommands() {
            assert!(text.contains(&word), "{shell}: {word}");
        }
        assert!(!text.contains("keeper-socket"), "{shell}");
    }
    let bash = printed(&["completions", "bash"]);
    assert_eq!(complaint("bash", &["-n"], &bash), None);
    assert_eq!(lbd(&["completions", "ksh"]).status.code(), Some(2));
}

#[test]
fn every_page_of_the_manual_is_sound_and_every_subcommand_has_one() {
    let scratch = Scratch::new("man");
    printed(&["man", scratch.0.to_str().unwrap()]);
    let list = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(scratch.0.join(folder)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(list("man5"), BTreeSet::from(["lb.toml.5".to_owned()]));
    let mut expected: BTreeSet<String> = subcommands()
        .iter()
        .map(|word| format!("lbd-{word}.8"))
        .collect();
    expected.insert("lbd.8".to_owned());
    assert_eq!(list("man8"), expected);
    if installed("groff") {
        for (folder, page) in [("man5", list("man5")), ("man8", list("man8"))]
            .iter()
            .flat_map(|(folder, pages)| pages.iter().map(move |page| (folder, page)))
        {
            let text = fs::read_to_string(scratch.0.join(folder).join(page)).unwrap();
            let said = complaint("groff", &["-man", "-Tutf8", "-ww", "-z"], &text);
            assert_eq!(said, None, "{page}");
        }
    }
}

#[test]
fn one_page_is_printed_by_name() {
    assert!(printed(&["man"]).contains(".TH LBD 8"));
    assert!(printed(&["man", "--page", "lb.toml"]).starts_with(".TH LB.TOML 5"));
    assert!(printed(&["man", "--page", "lbd-check"]).contains("lbd check lb.toml"));
    assert_eq!(lbd(&["man", "--page", "lbd-proxy"]).status.code(), Some(2));
}

// --- init and manifest ------------------------------------------------------------------------------

#[test]
fn a_first_file_passes_the_check_and_a_wrong_one_is_not_printed() {
    let text = printed(&[
        "init",
        "--vip",
        "172.16.0.10/24",
        "--nodes",
        "172.16.0.2,172.16.0.3",
        "--backends",
        "172.16.0.4,172.16.0.5:6443",
    ]);
    let parsed = examine(&text, View::Node("172.16.0.3"));
    assert_eq!(parsed.problems, []);
    let config = parsed.config.unwrap();
    assert_eq!(config.vips[0].nodes.len(), 2);
    assert_eq!(config.proxies[0].servers.len(), 2);

    let wrong = lbd(&[
        "init",
        "--vip",
        "172.16.0.10/24",
        "--nodes",
        "172.16.0.10,172.16.0.3",
    ]);
    assert_eq!(wrong.status.code(), Some(78));
    assert!(wrong.stdout.is_empty());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("E0206"));
    assert_eq!(lbd(&["init"]).status.code(), Some(2));
    let alone = printed(&[
        "init",
        "--backends",
        "10.0.0.4",
        "--listen",
        "127.0.0.1:6443",
    ]);
    assert!(!alone.contains("[vip"), "{alone}");
}

#[test]
fn the_static_pod_has_two_capabilities_and_yaml_and_json_say_the_same() {
    let json = printed(&[
        "manifest",
        "--image",
        "registry.example/lbd:1",
        "-o",
        "json",
    ]);
    let pod: Value = serde_json::from_str(&json).unwrap();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/lbd:1");
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(
        security["capabilities"]["add"],
        serde_json::json!(["NET_ADMIN", "NET_RAW"])
    );
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(pod["spec"]["hostNetwork"], true);
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let yaml = printed(&["manifest", "--image", "registry.example/lbd:1"]);
    assert!(
        yaml.starts_with("apiVersion: \"v1\"\nkind: \"Pod\"\n"),
        "{yaml}"
    );
    let module = Command::new("python3").args(["-c", "import yaml"]).output();
    let found = module.is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "no python3-yaml in CI"
    );
    if found {
        let script = "import json, sys, yaml; same = yaml.safe_load(sys.stdin) == json.loads(sys.argv[1]); sys.exit(0 if same else 'differs')";
        assert_eq!(complaint("python3", &["-c", script, &json], &yaml), None);
    }
}

// --- explain -------------------------------------------------------------------------------------

#[test]
fn a_code_is_explained_with_examples_and_an_unknown_word_is_2() {
    let text = printed(&["explain", "W0208"]);
    assert!(
        text.starts_with("W0208: a weight that can't decide an election\n"),
        "{text}"
    );
    assert!(text.contains("\nWrong:\n    [vip.kube]\n"), "{text}");
    let json: Value = serde_json::from_str(&printed(&["explain", "-o", "json", "E0103"])).unwrap();
    assert_eq!(json[0]["topic"], "E0103");
    assert_eq!(json[0]["right"], "[proxy.kube]\nconnect-timeout = \"5s\"");
    assert!(printed(&["explain", "--", "--"]).starts_with("--: both sides finished\n"));
    assert!(printed(&["explain"]).contains("  E0101  unknown key\n"));
    let unknown = lbd(&["explain", "W9999"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&unknown.stderr).starts_with("error: nothing is called `W9999`")
    );
}

#[test]
fn the_version_says_what_this_build_is() {
    let long = printed(&["--version"]);
    assert!(long.starts_with("lbd 0.1.0\ntarget:    "), "{long}");
    assert!(long.contains("\ncommit:    "), "{long}");
    assert_eq!(printed(&["-V"]), "lbd 0.1.0\n");
}

// --- doctor, and the exit code of a daemon that isn't there ----------------------------------------

#[test]
fn whoever_asks_a_daemon_that_is_not_there_ends_with_69() {
    let nobody = "/nonexistent/admin.sock";
    for arguments in [
        ["status", "--socket", nobody, "", ""],
        ["events", "--socket", nobody, "", ""],
        ["failover", "--socket", nobody, "", ""],
        ["drain", "--socket", nobody, "kube/a", ""],
        ["ready", "--socket", nobody, "kube/a", ""],
        ["maint", "--socket", nobody, "kube/a", ""],
        ["weight", "--socket", nobody, "kube/a", "5"],
    ] {
        let arguments: Vec<&str> = arguments
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        let output = lbd(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn doctor_works_without_a_daemon_and_its_exit_code_says_whether_something_failed() {
    let scratch = Scratch::new("doctor");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = held.local_addr().unwrap();
    let write = |name: &str, text: String| {
        let path = scratch.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let told = |path: &str| {
        let socket = scratch.0.join("admin.sock");
        let socket = socket.to_str().unwrap();
        let output = lbd(&["doctor", path, "--socket", socket, "-o", "json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document)
    };
    let has = |document: &Value, check: &str, state: &str, words: &str| {
        let mut checks = document["checks"].as_array().unwrap().iter();
        checks.any(|one| {
            let found = one["found"].as_str().unwrap();
            one["check"] == check && one["state"] == state && found.contains(words)
        })
    };
    let proxy = |listen: &str| {
        format!(
            "[metrics]\nlisten = \"off\"\n[proxy.a]\nlisten = \"{listen}\"\nbackends = [\"{server}\"]\n"
        )
    };
    // Port 0 can't be written.
    let free = port::held();
    let (exit, well) = told(&write("well.toml", proxy(&free.to_string())));
    assert_eq!(
        (exit, &well["ok"]),
        (Some(0), &Value::Bool(true)),
        "{well:#}"
    );
    assert!(has(&well, "server", "ok", "ready"), "{well:#}");
    assert!(has(&well, "port", "ok", "free"), "{well:#}");
    assert!(
        has(&well, "daemon", "not-checked", "no lbd answers"),
        "{well:#}"
    );

    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = other.local_addr().map(|addr| (other, addr)).unwrap();
    let (exit, taken) = told(&write("taken.toml", proxy(&other.1.to_string())));
    assert_eq!(exit, Some(1));
    let me = format!("(pid {})", std::process::id());
    assert!(has(&taken, "port", "failed", &me), "{taken:#}");

    let (exit, broken) = told(&write("broken.toml", "[proxy.a\n".to_owned()));
    assert_eq!(exit, Some(1));
    assert!(has(&broken, "config", "failed", "E0001"), "{broken:#}");
    let (exit, none) = told("/nonexistent/lb.toml");
    assert_eq!(exit, Some(1));
    assert!(has(&none, "config", "failed", "cannot read"), "{none:#}");
}
