//! What virtual routers track: `track` of each, and the tables of the scripts and files in it.

use std::net::IpAddr;

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::{Table, comment, key, string};
use super::super::{haproxy, words};
use super::merge::Group;
use super::script::Script;
use super::traps::{self, Rank};
use super::{File, Said};

type Entry = Said<(String, Option<i64>)>;

/// Scripts and files that are tracked, once for the whole file.
pub(super) struct Tracks<'a> {
    files: &'a [File],
    proxies: &'a [haproxy::Proxy],
    /// Ports on which this machine answers once it runs lbd.
    ports: Vec<u16>,
    /// How many virtual routers there are.
    groups: usize,
    scripts: Vec<(String, &'a Script)>,
    paths: Vec<(String, String, Option<i64>, Id)>,
}

impl<'a> Tracks<'a> {
    pub(super) fn new(
        files: &'a [File],
        proxies: &'a [haproxy::Proxy],
        groups: usize,
        health: Option<u16>,
    ) -> Self {
        let ports = proxies
            .iter()
            .flat_map(|p| p.ports.iter().map(|(_, port)| *port));
        Self {
            files,
            proxies,
            ports: ports.chain(health).collect(),
            groups,
            scripts: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// The value of `track` of one virtual router, and where it comes from.
    pub(super) fn of(
        &mut self,
        group: &Group<'_>,
        nodes: &[Rank],
        work: &mut Work,
    ) -> Option<(String, Vec<Id>)> {
        let mut items: Vec<String> = Vec::new();
        let mut ids: Vec<Id> = Vec::new();
        let mut follows = self.processes(group, &mut ids, work);
        for (name, weight, id) in entries(group, work, |i| &i.scripts) {
            let all = group.members.iter().flat_map(|(file, _)| &file.scripts);
            let Some(script) = all
                .chain(self.files.iter().flat_map(|f| &f.scripts))
                .find(|s| s.name == name)
            else {
                work.ledger
                    .mark(id, Fate::Lost, "there is no such vrrp_script");
                continue;
            };
            let script = self
                .files
                .iter()
                .flat_map(|f| &f.scripts)
                .find(|s| s.id == script.id);
            let Some(script) = script else { continue };
            ids.push(id);
            let counts = weight.or(script.weight.as_ref().map(|w| w.value));
            let proxy = !self.proxies.is_empty() && script.asks_for_proxy(&self.ports);
            traps::weight(&group.name, &name, counts.unwrap_or(0), nodes, proxy, work);
            if proxy {
                follows = true;
                self.replaced(script, id, work);
                if !script.asks_through() {
                    traps::process(&group.name, &name, &script.command.value, work);
                }
            } else {
                items.push(self.script(script, weight, work));
            }
        }
        for (name, weight, id) in entries(group, work, |i| &i.interfaces) {
            ids.push(id);
            items.push(format!("interface:{name}{}", suffix(weight)));
        }
        self.paths(group, &mut items, &mut ids, work);
        let proxies = self.followed(group, follows);
        if !follows && !self.proxies.is_empty() && items.is_empty() {
            traps::unwatched(&group.name, work);
        }
        let proxies = proxies.into_iter().map(|name| format!("proxy:{name}"));
        let items: Vec<String> = proxies.chain(items).map(|item| string(&item)).collect();
        (!items.is_empty()).then(|| (format!("[{}]", items.join(", ")), ids))
    }

    /// The proxies that this virtual router stands for.
    fn followed(&self, group: &Group<'_>, follows: bool) -> Vec<String> {
        let own: Vec<IpAddr> = group
            .members
            .iter()
            .flat_map(|(_, i)| &i.addresses)
            .map(|a| a.value.ip)
            .collect();
        let names = |wanted: &dyn Fn(Option<IpAddr>) -> bool| -> Vec<String> {
            let fits = |p: &&haproxy::Proxy| p.ports.iter().any(|(ip, _)| wanted(*ip));
            self.proxies
                .iter()
                .filter(fits)
                .map(|p| p.name.clone())
                .collect()
        };
        let theirs = names(&|ip| ip.is_some_and(|ip| own.contains(&ip)));
        if !theirs.is_empty() || !(follows || self.groups == 1) {
            return theirs;
        }
        names(&|ip| ip.is_none_or(|ip| !ip.is_loopback()))
    }

    /// `track_process` of HAProxy.
    fn processes(&self, group: &Group<'_>, ids: &mut Vec<Id>, work: &mut Work) -> bool {
        let known = |name: &String| self.files.iter().any(|file| file.processes.contains(name));
        let mut follows = false;
        for (name, _, id) in entries(group, work, |i| &i.processes) {
            if known(&name) && !self.proxies.is_empty() {
                work.ledger
                    .mark(id, Fate::Changed, "the VIP follows the proxies");
                ids.push(id);
                follows = true;
            } else {
                work.ledger.mark(
                    id,
                    Fate::Lost,
                    "lbd watches no processes: write a track script",
                );
            }
        }
        follows
    }

    /// Enters a script in whose place the proxies are followed, in every file that has it.
    fn replaced(&self, script: &Script, id: Id, work: &mut Work) {
        let why = "the VIP follows the proxies instead";
        work.ledger.mark(id, Fate::Changed, why);
        for twin in self
            .files
            .iter()
            .flat_map(|f| &f.scripts)
            .filter(|s| s.name == script.name)
        {
            for line in twin.lines() {
                work.ledger.mark(line, Fate::Changed, why);
            }
        }
    }

    /// The name under which a script is tracked.
    fn script(&mut self, script: &'a Script, weight: Option<i64>, work: &mut Work) -> String {
        let known = self
            .scripts
            .iter()
            .find(|(_, other)| other.name == script.name);
        let name = match known {
            Some((name, _)) => name.clone(),
            None => {
                let taken: Vec<String> =
                    self.scripts.iter().map(|(name, _)| name.clone()).collect();
                let name = words::unique(&script.name, &taken);
                self.scripts.push((name.clone(), script));
                name
            }
        };
        let own = script.weight.as_ref().map(|w| w.value);
        if weight == Some(0) && own.is_some_and(|w| w != 0) {
            work.ledger
                .mark(script.id, Fate::Changed, "its own weight holds everywhere");
        }
        format!(
            "script:{name}{}",
            suffix(weight.filter(|w| Some(*w) != own))
        )
    }

    fn paths(
        &mut self,
        group: &Group<'_>,
        items: &mut Vec<String>,
        ids: &mut Vec<Id>,
        work: &mut Work,
    ) {
        for (name, weight, id) in entries(group, work, |i| &i.files) {
            let wanted = words::name(&name);
            let all = self.files.iter().flat_map(|f| &f.tracked);
            let Some(file) = all.into_iter().find(|(other, ..)| *other == wanted) else {
                work.ledger
                    .mark(id, Fate::Lost, "there is no such track file");
                continue;
            };
            if !self.paths.iter().any(|(other, ..)| *other == wanted) {
                self.paths.push(file.clone());
            }
            ids.push(id);
            items.push(format!("file:{wanted}{}", suffix(weight)));
        }
    }

    /// The tables of all that is tracked.
    pub(super) fn tables(&self, work: &mut Work) -> Vec<Table> {
        let mut made = Vec::new();
        for (name, script) in &self.scripts {
            made.push(table(name, script, work));
            let twins = self
                .files
                .iter()
                .flat_map(|f| &f.scripts)
                .filter(|s| s.name == script.name);
            for twin in twins.filter(|s| s.id != script.id) {
                let same = twin.command.value == script.command.value
                    && twin.weight.as_ref().map(|w| w.value)
                        == script.weight.as_ref().map(|w| w.value);
                for line in twin.lines() {
                    let note = if same {
                        String::new()
                    } else {
                        format!("{} counts", work.ledger.place(script.id))
                    };
                    work.ledger
                        .mark(line, if same { Fate::Exact } else { Fate::Changed }, note);
                }
            }
        }
        for (name, path, weight, id) in &self.paths {
            let mut table = Table::new(
                format!("[track.file.{}]", key(name)),
                work.ledger.origin(*id),
            );
            table.put("path", &string(path), String::new());
            if let Some(weight) = weight.filter(|w| *w != 0) {
                table.put(
                    "weight",
                    &weight.clamp(-253, 253).to_string(),
                    String::new(),
                );
            }
            made.push(table);
        }
        for script in self.files.iter().flat_map(|f| &f.scripts) {
            for line in script.lines() {
                work.ledger
                    .otherwise(line, Fate::NotNeeded, "nothing tracks it");
            }
        }
        made
    }
}

fn suffix(weight: Option<i64>) -> String {
    let weight = weight.filter(|w| *w != 0);
    weight.map_or_else(String::new, |w| format!(":{}", w.clamp(-253, 253)))
}

/// What all members track, each name once.
fn entries(
    group: &Group<'_>,
    work: &mut Work,
    of: impl Fn(&super::Instance) -> &Vec<Entry>,
) -> Vec<(String, Option<i64>, Id)> {
    let mut found: Vec<(String, Option<i64>, Id)> = Vec::new();
    for said in group.members.iter().flat_map(|(_, i)| of(i)) {
        let (name, weight) = &said.value;
        match found.iter().find(|(other, ..)| other == name) {
            Some((_, other, id)) if other != weight => {
                let note = format!("{} counts", work.ledger.place(*id));
                work.ledger.mark(said.id, Fate::Changed, note);
            }
            Some(_) => {}
            None => found.push((name.clone(), *weight, said.id)),
        }
    }
    found
}

/// Enters a number of a script that lbd can have, or the nearest.
fn kept(id: Id, exact: bool, work: &mut Work) {
    let (fate, note) = if exact {
        (Fate::Exact, "")
    } else {
        (Fate::Changed, "the nearest that lbd has")
    };
    work.ledger.mark(id, fate, note);
}

fn table(name: &str, script: &Script, work: &mut Work) -> Table {
    let mut table = Table::new(
        format!("[track.script.{}]", key(name)),
        work.ledger.origin(script.id),
    );
    work.ledger.mark(script.id, Fate::Exact, "");
    work.ledger.mark(script.command.id, Fate::Exact, "");
    let argv = script.argv();
    if argv.first().is_some_and(|program| program == "/bin/sh") {
        work.ledger.mark(
            script.command.id,
            Fate::Changed,
            "a shell finds the program",
        );
    }
    let argv: Vec<String> = argv.iter().map(|word| string(word)).collect();
    let origin = |ids: &[Id], work: &Work| comment(&work.ledger, ids);
    table.put(
        "command",
        &format!("[{}]", argv.join(", ")),
        origin(&[script.command.id], work),
    );
    for (key, said, min) in [
        ("interval", &script.interval, 100),
        ("timeout", &script.timeout, 10),
    ] {
        if let Some(said) = said {
            let fit = said.value.clamp(min, 86_400_000);
            kept(said.id, fit == said.value, work);
            let value = words::duration(fit);
            table.put(key, &value, origin(&[said.id], work));
        }
    }
    for (key, said) in [("rise", &script.rise), ("fall", &script.fall)] {
        if let Some(said) = said {
            let fit = said.value.clamp(1, 255);
            kept(said.id, fit == said.value, work);
            table.put(key, &fit.to_string(), origin(&[said.id], work));
        }
    }
    if let Some(said) = &script.weight {
        kept(said.id, (-253..=253).contains(&said.value), work);
        if said.value != 0 {
            table.put(
                "weight",
                &said.value.clamp(-253, 253).to_string(),
                origin(&[said.id], work),
            );
        }
    }
    if let Some(said) = &script.user {
        work.ledger.mark(
            said.id,
            Fate::Changed,
            "it runs as lbd's own user; or write `user`",
        );
    }
    table
}
