//! The packages, as conf/packages/build makes them, in a fresh root file system: installed, used,
//! upgraded, removed, purged. Needs root, rpmbuild and mmdebstrap with its network; skipped without,
//! and failed without in CI. The root is kept in target/tmp, so that it is fetched once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");

/// Fetching the packages of a minimal Debian, s.
const FETCH_SECONDS: &str = "240";

/// What a service manager is told by the packages' scripts; it says that it runs the service.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >>/systemctl.log\n";

/// `None`, said why, where it can't be run; that is a failure in CI.
fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped: {why}");
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs it, and fails with what it said.
fn must(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = text(&output);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The packages of one release.
fn build(release: &str, kinds: &[&str]) -> Vec<PathBuf> {
    let script = Path::new(PROJECT).join("conf/packages/build");
    let output = Command::new(script)
        .args(["--quick", "--binary", env!("CARGO_BIN_EXE_lbd")])
        .args(["--release", release, "--output"])
        .arg(Path::new(SCRATCH).join("packages"))
        .args(kinds)
        .output()
        .expect("the script starts");
    assert!(output.status.success(), "{}", text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().map(PathBuf::from).collect()
}

/// A file system with the essential packages of Debian; removed with what is in it.
struct Root(PathBuf);

impl Root {
    /// A copy of the one that was fetched; why there is none.
    fn fresh(name: &str) -> Result<Self, String> {
        let scratch = Path::new(SCRATCH);
        let kept = scratch.join("bookworm.tar");
        // Both tests want it at once, and one of them fetches it.
        static FETCH: Mutex<()> = Mutex::new(());
        let fetch = FETCH.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.exists() {
            let new = scratch.join(format!("bookworm-{}.tar", std::process::id()));
            let fetched = Command::new("timeout")
                .args([FETCH_SECONDS, "mmdebstrap", "--variant=essential"])
                .args(["--include=systemd-standalone-sysusers", "bookworm"])
                .arg(&new)
                .arg("http://deb.debian.org/debian")
                .output();
            let fetched = fetched.map_err(|error| error.to_string())?;
            if !fetched.status.success() {
                drop(fs::remove_file(&new));
                return Err(format!("no fresh Debian: {}", text(&fetched)));
            }
            fs::rename(&new, &kept).map_err(|error| error.to_string())?;
        }
        drop(fetch);
        let root = scratch.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        let root = Self(root);
        must(
            Command::new("tar")
                .arg("-xf")
                .arg(&kept)
                .arg("-C")
                .arg(&root.0),
        );
        Ok(root)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside.trim_start_matches('/'))
    }

    fn exists(&self, inside: &str) -> bool {
        fs::symlink_metadata(self.path(inside)).is_ok()
    }

    fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap()
    }

    /// Runs a script inside, with a /proc and a network of its own that is gone with it.
    fn run(&self, script: &str) -> Output {
        let outside = "ip link set lo up\n\
                       ip link add lan0 type veth peer name lan1\n\
                       ip addr add 10.9.9.2/24 dev lan0\n\
                       ip link set lan0 up; ip link set lan1 up\n\
                       mount -t proc proc \"$0/proc\"\n\
                       mount --bind /dev \"$0/dev\"\n\
                       exec chroot \"$0\" /bin/bash -ec \"$1\"";
        Command::new("timeout")
            .args(["--kill-after=5", "60", "unshare"])
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-ec", outside])
            .arg(&self.0)
            .arg(script)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .expect("unshare starts")
    }

    fn must(&self, script: &str) -> String {
        let output = self.run(script);
        let said = text(&output);
        assert!(output.status.success(), "{script}: {said}");
        said
    }

    /// Brings a package in.
    fn take(&self, package: &Path, name: &str) {
        fs::copy(package, self.path(name)).unwrap();
    }

    /// All files, without those that change by themselves.
    fn files(&self) -> BTreeSet<String> {
        let listed = self.must(
            "find / -xdev \\( -path /proc -o -path /dev -o -path /var/lib/dpkg -o -path /tmp \
             -o -path /var/log -o -path /var/cache \\) -prune -o -print",
        );
        listed.lines().map(str::to_owned).collect()
    }

    /// A systemctl that writes down what it is told.
    fn pretend_systemd(&self) {
        fs::create_dir_all(self.path("run/systemd/system")).unwrap();
        let program = self.path("usr/bin/systemctl");
        fs::write(&program, SYSTEMCTL).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What it was told since it was asked last.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.path("systemctl.log")).unwrap_or_default();
        drop(fs::remove_file(self.path("systemctl.log")));
        told.lines().map(str::to_owned).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A daemon as the installed unit would start it, as far as that is possible without systemd: user,
/// capabilities, no_new_privs, directories. It serves, says so, and leaves when told.
const SERVE: &str = r#"
cat >/etc/lbd/lb.toml <<'END'
[proxy.web]
listen   = "127.0.0.1:6443"
backends = ["127.0.0.1:7001"]
END
chown root:lbd /etc/lbd/lb.toml; chmod 640 /etc/lbd/lb.toml
lbd check /etc/lbd/lb.toml
install -d -o lbd -g lbd -m 750 /run/lbd /var/lib/lbd
export RUNTIME_DIRECTORY=/run/lbd STATE_DIRECTORY=/var/lib/lbd
setpriv --reuid=lbd --regid=lbd --clear-groups --no-new-privs \
  --bounding-set=-all,+net_admin,+net_raw --inh-caps=-all,+net_admin,+net_raw \
  --ambient-caps=-all,+net_admin,+net_raw /usr/bin/lbd --config /etc/lbd/lb.toml 2>/var/lib/lbd/log &
daemon=$!
for _ in $(seq 200); do
  if lbd status >/tmp/status 2>&1; then break; fi
  sleep 0.05
done
cat /tmp/status /var/lib/lbd/log
grep -q web /tmp/status
[ "$(stat -c %U /proc/$daemon)" = lbd ]
exec 5<>/dev/tcp/127.0.0.1/6443
exec 5>&-
kill -TERM $daemon
wait $daemon
"#;

/// Started as root, without a service manager: with an address to take, and a port below 1024.
const AS_ROOT: &str = r#"
cat >/etc/lbd/lb.toml <<'END'
[vip.kube]
address   = "10.9.9.10/24"
nodes     = ["10.9.9.2", "10.9.9.3"]

[proxy.web]
listen   = ":443"
backends = ["127.0.0.1:7001"]
END
rm -rf /run/lbd /var/lib/lbd; mkdir -p /var/lib/lbd; touch /var/lib/lbd/of-root
lbd --config /etc/lbd/lb.toml 2>/tmp/log &
daemon=$!
holds() { lbd status 2>/dev/null | grep -q 'ACTIVE\|active (MASTER)\|Active'; }
until_it_holds() { for _ in $(seq 300); do if holds; then break; fi; sleep 0.05; done; holds; }
until_it_holds
cat /tmp/log; lbd status
# Keeper, runner and proxy.
ours() { for p in /proc/[0-9]*; do case "$(tr '\0' ' ' 2>/dev/null <$p/cmdline)" in lbd\ *) stat -c %U $p ;; esac; done; }
[ "$(ours | sort | uniq -c | tr -s ' ')" = " 3 lbd" ]
grep -q '^CapEff:.*0000003400$' /proc/$daemon/status
grep -q '^NoNewPrivs:.*1$' /proc/$daemon/status
grep -q '^Seccomp:.*2$' /proc/$daemon/status
grep -q 'goes on as user' /tmp/log
[ "$(stat -c %U /var/lib/lbd/of-root)" = lbd ]
exec 5<>/dev/tcp/10.9.9.10/443
exec 5>&-
# Who becomes another user must still be able to become another program.
lbd upgrade
[ "$(stat -c %U /proc/$daemon)" = lbd ]
exec 5<>/dev/tcp/10.9.9.10/443
exec 5>&-
until_it_holds
kill -TERM $daemon
wait $daemon
"#;

/// What a first installation puts in place.
fn assert_installed(root: &Root) {
    // Nothing is started by an installation, and there is no address to take.
    assert!(!root.exists("/etc/lbd/lb.toml"));
    let folder = fs::metadata(root.path("/etc/lbd")).unwrap();
    let group = root.must("getent group lbd | cut -d : -f 3");
    assert_eq!(folder.permissions().mode() & 0o7777, 0o750);
    assert_eq!(
        (folder.uid(), folder.gid().to_string()),
        (0, group.trim().to_owned())
    );
    let user = root.must("getent passwd lbd");
    assert!(user.trim_end().ends_with("nologin"), "{user}");
    assert!(root.must("lbd --version").starts_with("lbd "));
    root.must("lbd check --offline /etc/lbd/lb.toml.example");
    root.must("lbd check --offline /usr/share/doc/lbd/examples/lb.full.toml");
    for file in [
        "/usr/lib/systemd/system/lbd.service",
        "/usr/share/man/man8/lbd.8.gz",
        "/usr/share/man/man5/lb.toml.5.gz",
        "/usr/share/bash-completion/completions/lbd",
        "/usr/share/lbd/grafana/lbd.json",
        "/usr/share/lbd/prometheus/alerts.yml",
    ] {
        assert!(root.exists(file), "{file}");
    }
}

#[test]
fn the_debian_package_installs_runs_upgrades_and_leaves_nothing_but_what_people_wrote() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    for program in ["mmdebstrap", "dpkg-deb"] {
        if !installed(program) {
            return skipped(&format!("{program} is not installed"));
        }
    }
    let root = match Root::fresh("deb") {
        Ok(root) => root,
        Err(why) => return skipped(&why),
    };
    let before = root.files();

    let first = build("1", &["deb"]).remove(0);
    root.take(&first, "lbd.deb");
    root.must("dpkg -i /lbd.deb");
    assert_installed(&root);
    // Every file as it was packed.
    assert_eq!(root.must("dpkg -V lbd"), "");
    root.must(SERVE);
    println!("{}", root.must(AS_ROOT));

    // An upgrade leaves what people changed, and tells the service manager.
    root.pretend_systemd();
    fs::write(root.path("/etc/lbd/lb.toml.example"), "# mine\n").unwrap();
    let second = build("2", &["deb"]).remove(0);
    root.take(&second, "lbd.deb");
    root.must("dpkg -i --force-confold /lbd.deb");
    assert_eq!(
        root.must("dpkg-query -W -f '${Version}' lbd"),
        format!("{}-2", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(root.read("/etc/lbd/lb.toml.example"), "# mine\n");
    assert!(root.read("/etc/lbd/lb.toml").contains("[proxy.web]"));
    // No daemon answers in here.
    assert_eq!(
        root.told(),
        [
            "daemon-reload",
            "is-active --quiet lbd.service",
            "try-restart lbd.service"
        ]
    );

    root.must("dpkg -r lbd");
    assert_eq!(
        root.told(),
        ["--no-reload disable --now lbd.service", "daemon-reload"]
    );
    assert!(!root.exists("/usr/bin/lbd"));
    assert!(root.exists("/var/lib/lbd/of-root"));
    let said = root.must("dpkg -P lbd");
    assert!(said.contains("they stay"), "{said}");
    root.must("rm -rf /lbd.deb /run/systemd /usr/bin/systemctl /systemctl.log");
    let left: Vec<String> = root.files().difference(&before).cloned().collect();
    // What was written by hand, and the user, whose number nobody else shall get.
    let of_users = ["/etc/.pwd.lock", "/etc/shadow", "/etc/gshadow"];
    let others = |file: &&String| !file.ends_with('-') && !of_users.contains(&file.as_str());
    let left: Vec<&String> = left.iter().filter(others).collect();
    assert_eq!(left, ["/etc/lbd", "/etc/lbd/lb.toml"]);
    assert!(root.read("/etc/passwd").contains("\nlbd:"));
}

#[test]
fn the_rpm_package_installs_verifies_and_leaves() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    for program in ["mmdebstrap", "rpmbuild"] {
        if !installed(program) {
            return skipped(&format!("{program} is not installed"));
        }
    }
    // Debian's files stand in for those of a distribution that uses RPM.
    let root = match Root::fresh("rpm") {
        Ok(root) => root,
        Err(why) => return skipped(&why),
    };
    let before = root.files();
    let package = build("1", &["rpm"]).remove(0);
    let rpm = |arguments: &[&str]| {
        let mut command = Command::new("rpm");
        command.arg("--root").arg(&root.0).args(arguments);
        must(&mut command)
    };
    rpm(&["--initdb"]);
    rpm(&["--nodeps", "-i", package.to_str().unwrap()]);
    assert!(root.read("/etc/passwd").contains("\nlbd:"));
    let folder = fs::metadata(root.path("/etc/lbd")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o7777, 0o750);
    // Owner, mode, digest of every file.
    assert_eq!(rpm(&["--nodeps", "-V", "lbd"]), "");
    root.must("lbd check --offline /etc/lbd/lb.toml.example");
    root.must(SERVE);
    rpm(&["--nodeps", "-e", "lbd"]);
    let left: Vec<String> = root.files().difference(&before).cloned().collect();
    let of_lbd = |file: &&String| file.contains("lbd") || file.contains("lb.toml");
    let left: Vec<&String> = left.iter().filter(of_lbd).collect();
    // RPM knows no purge.
    assert_eq!(
        left,
        [
            "/etc/lbd",
            "/etc/lbd/lb.toml",
            "/run/lbd",
            "/run/lbd/keeper.lock",
            "/run/lbd/keeper.state",
            "/var/lib/lbd",
            "/var/lib/lbd/events.jsonl",
            "/var/lib/lbd/log"
        ]
    );
}
