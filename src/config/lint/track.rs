//! Lints of what is tracked and of the programs that are run.

use std::path::Path;

use super::vip::strongest_two;
use super::{Host, Trouble};
use crate::config::model::{Preempt, RunAs, TrackTarget, Vip};
use crate::config::parse::{Draft, TrackEntry};
use crate::config::problem::Problem;

/// The strongest priority that tracks can reach; 255 is the owner's.
const PRIORITY_MAX: usize = 254;

/// Whether `per-server-weight` does what it is for.
pub(super) fn servers(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    let weight = usize::from(vip.per_server_weight);
    if weight == 0 || draft.config.proxies.len() < draft.proxy_names.len() {
        return;
    }
    let at = draft
        .spans
        .at(&format!("vip/{}/per-server-weight", vip.name));
    let tracked = vip.track.iter().filter_map(|track| match track.target {
        TrackTarget::Proxy(index) => draft.config.proxies.get(index),
        TrackTarget::Script(_) | TrackTarget::Interface(_) | TrackTarget::File(_) => None,
    });
    let servers: usize = tracked.map(|proxy| proxy.servers.len()).sum();
    let warn = |text: String| Problem::warning("W0261", text);
    if vip.preempt == Preempt::Never {
        let preempt = draft.spans.at(&format!("vip/{}/preempt", vip.name));
        problems.push(
            warn(format!(
                "`vip.{}.per-server-weight` moves nothing",
                vip.name
            ))
            .at(&at, "a lower priority alone moves nothing")
            .context(&preempt, "no node takes over from a weaker one"),
        );
        return;
    }
    let Some((first, second)) = strongest_two(vip) else {
        return;
    };
    let (first, second) = (
        usize::from(first.priority.get()),
        usize::from(second.priority.get()),
    );
    let gap = first - second;
    let most = servers.saturating_sub(1) * weight;
    if most <= gap {
        problems.push(
            warn(format!(
                "`vip.{}.per-server-weight` can't decide an election",
                vip.name
            ))
            .at(
                &at,
                format!(
                    "with one server against {servers} the preferred node still has {} to {}",
                    first + weight,
                    second + servers * weight
                ),
            )
            .help(format!(
                "it must make up for the gap of {gap} between the two strongest nodes"
            )),
        );
    } else if first + servers * weight > PRIORITY_MAX {
        problems.push(
            warn(format!(
                "`vip.{}.per-server-weight` goes beyond {PRIORITY_MAX}",
                vip.name
            ))
            .at(
                &at,
                format!(
                    "{first} + {servers} × {weight} = {}: above {PRIORITY_MAX} a lost server makes no difference",
                    first + servers * weight
                ),
            )
            .help("give the nodes lower priorities"),
        );
    }
}

/// Scripts and files that are set up for nobody.
pub(super) fn unused(draft: &Draft, problems: &mut Vec<Problem>) {
    if draft.config.vips.len() + draft.config.routes.len() < draft.vip_count {
        return;
    }
    let tracked = &draft.tracked;
    for (index, entry) in tracked.scripts.iter().enumerate() {
        untracked(draft, "script", entry, TrackTarget::Script(index), problems);
    }
    for (index, entry) in tracked.files.iter().enumerate() {
        untracked(draft, "file", entry, TrackTarget::File(index), problems);
    }
}

fn untracked(
    draft: &Draft,
    kind: &str,
    entry: &TrackEntry,
    target: TrackTarget,
    problems: &mut Vec<Problem>,
) {
    let of_routes = draft.config.routes.iter().flat_map(|route| &route.track);
    let tracks = draft.config.vips.iter().flat_map(|vip| &vip.track);
    if tracks.chain(of_routes).any(|track| track.target == target) {
        return;
    }
    let name = &entry.name;
    problems.push(
        Problem::warning("W0216", format!("nothing tracks the {kind} `{name}`")).at(
            &draft.spans.at(&format!("track/{kind}/{name}")),
            format!("add \"{kind}:{name}\" to the `track` of a VIP"),
        ),
    );
}

/// Programs that this machine will not run, and interfaces it does not have.
pub(super) fn here(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    for script in &draft.config.scripts {
        let path = format!("track/script/{}", script.name);
        let consequence = "it counts as failed";
        program(
            draft,
            (script.command.as_slice(), "command", script.user.as_ref()),
            &path,
            consequence,
            host,
            problems,
        );
    }
    for vip in &draft.config.vips {
        let path = format!("vip/{}/notify", vip.name);
        if let Some(notify) = &vip.notify {
            let programs = [
                (notify.active.as_slice(), "active"),
                (notify.backup.as_slice(), "backup"),
                (notify.fault.as_slice(), "fault"),
                (notify.stop.as_slice(), "stop"),
                (notify.any.as_slice(), "any"),
            ];
            for (command, key) in programs {
                let what = (command, key, notify.user.as_ref());
                program(draft, what, &path, "nobody is told", host, problems);
            }
        }
        for (index, track) in vip.track.iter().enumerate() {
            let TrackTarget::Interface(interface) = track.target else {
                continue;
            };
            let Some(name) = draft.config.track_interfaces.get(interface) else {
                continue;
            };
            if host.facts.interface(name).is_none() {
                problems.push(
                    Problem::warning("W0262", format!("there is no interface {name}")).at(
                        &draft.spans.at(&format!("vip/{}/track/{index}", vip.name)),
                        "not on this machine: it counts as failed",
                    ),
                );
            }
        }
    }
}

fn program(
    draft: &Draft,
    (command, key, user): (&[String], &str, Option<&RunAs>),
    path: &str,
    consequence: &str,
    host: &Host<'_>,
    problems: &mut Vec<Problem>,
) {
    let Some(program) = command.first() else {
        return;
    };
    let Some(trouble) = (host.trouble)(Path::new(program), user) else {
        return;
    };
    let (key, why, help) = match trouble {
        // A missing file is an error of its own.
        Trouble::Missing if key == "command" => return,
        Trouble::Missing => (key, "there is no such file".to_owned(), None),
        Trouble::NotExecutable => (
            key,
            "it is no executable file".to_owned(),
            Some("`chmod +x`?"),
        ),
        Trouble::NoSuchUser(name) => ("user", format!("there is no user {name}"), None),
        Trouble::NoSuchGroup(name) => ("user", format!("there is no group {name}"), None),
        Trouble::NotPermitted => (
            "user",
            "another user takes an lbd that runs as root".to_owned(),
            Some("leave `user` out if lbd itself has a user of its own"),
        ),
        Trouble::ChangeableByOthers(place) => (
            key,
            format!("others than root can change {}", place.display()),
            Some(
                "as root lbd runs no such program: `chown root` and `chmod go-w`, or give another `user`",
            ),
        ),
    };
    let problem = Problem::warning("W0263", format!("{program} will not be run")).at(
        &draft.spans.at(&format!("{path}/{key}")),
        format!("{why}: {consequence}"),
    );
    problems.push(match help {
        Some(help) => problem.help(help),
        None => problem,
    });
}
