//! A browser without a window, inside a host's namespace: driven over pipes by the DevTools
//! protocol, JSON messages that end with a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use lbd::net::netns::Namespace;
use serde_json::{Value, json};

/// The program of Debian's package.
pub const PROGRAM: &str = "chromium";

/// A browser that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Browser {
    child: Child,
    profile: PathBuf,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    number: u64,
    /// What the page asked for, in order.
    pub requests: Vec<String>,
    /// What went wrong in the page: exceptions, violated policies, failed assertions.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts it with an empty page.
    pub fn start(host: &Namespace) -> Self {
        let profile = std::env::temp_dir().join(format!("lbd-browser-{}", std::process::id()));
        // The pipes are to be descriptors 3 and 4.
        let script = format!(
            "exec {PROGRAM} --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --disable-extensions --disable-background-networking --no-first-run \
             --hide-scrollbars --remote-debugging-pipe --user-data-dir={} about:blank \
             3<&0 4>&1 </dev/null >/dev/null 2>&1",
            profile.display()
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .env("HOME", &profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = host.spawn(&mut command).expect("the browser starts");
        let commands = child.stdin.take().unwrap();
        let answers = child.stdout.take().unwrap();
        let (tell, messages) = sync_channel(1_000);
        thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("it speaks JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            profile,
            commands,
            messages,
            session: None,
            number: 0,
            requests: Vec::new(),
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// A command, and what came of it.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method });
        command["params"] = parameters;
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut line = serde_json::to_vec(&command).unwrap();
        line.push(0);
        self.commands.write_all(&line).expect("the browser lives");
        let end = clock::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(clock::now());
            let message = match self.messages.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer"),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser has ended"),
            };
            if message["id"] == json!(self.number) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters.to_string()),
            Some("Log.entryAdded") => {
                let entry = &parameters["entry"];
                // A daemon that is gone is no fault of the page.
                if entry["source"] != "network" {
                    self.complaints.push(entry.to_string());
                }
            }
            Some(_) | None => {}
        }
    }

    /// Opens a page.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// A window of this size, in `light` or `dark`; a telephone has touch and two pixels for one.
    pub fn dress(&mut self, (width, height): (u32, u32), scheme: &str, is_phone: bool) {
        let size = json!({
            "width": width, "height": height, "mobile": is_phone,
            "deviceScaleFactor": if is_phone { 2 } else { 1 },
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [scheme] }),
        );
    }

    /// What an expression is in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let ask = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let answer = self.call("Runtime.evaluate", ask);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// What a reader sees.
    pub fn text(&mut self) -> String {
        let text = self.value("document.body ? document.body.innerText : ''");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the reader sees what is wanted; what is seen then.
    pub fn until(&mut self, what: &str, ms: u64, wanted: impl Fn(&str) -> bool) -> String {
        let end = clock::now() + Duration::from_millis(ms);
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(
                clock::now() < end,
                "not within {ms} ms: {what}\n{text}\n{:?}",
                self.complaints
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key that moves the focus.
    pub fn tab(&mut self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({
                "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9,
            });
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// The roles that assistive programs are told of.
    pub fn roles(&mut self) -> Vec<String> {
        self.call("Accessibility.enable", json!({}));
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().expect("there is a tree");
        let shown = nodes.iter().filter(|node| node["ignored"] != true);
        let role = |node: &Value| {
            node["role"]["value"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        shown.map(role).collect()
    }

    /// Keeps a picture of the whole page.
    pub fn picture(&mut self, path: &Path) {
        let how = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", how);
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(path).expect("the directory is there"))
            .spawn()
            .unwrap();
        let data = picture["data"].as_str().unwrap();
        let mut input = decode.stdin.take().unwrap();
        input.write_all(data.as_bytes()).unwrap();
        drop(input);
        assert!(decode.wait().unwrap().success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}
