//! A proxy gets other settings while it serves: limits, queue, strategy, servers. What a worker keeps
//! of them it reads again when it is told. Called by the control thread alone.

use std::sync::Arc;
use std::time::Instant;

use super::Farm;
use super::table::Reconciled;
use crate::config::model;
use crate::health::fsm::Health;
use crate::proxy::dispatch::verdicts::Checked;
use crate::proxy::rebalance::Rebalancing;
use crate::proxy::roster::{self, AddError, Origin, ServerSpec};
use crate::proxy::sources::Sources;

impl Farm {
    /// Whether the servers that `config` wants find a place here; else, how many places are
    /// missing. Those that leave keep theirs until their last connection has ended.
    #[must_use]
    pub fn lacks_places(&self, config: &model::Proxy) -> usize {
        let roster = self.roster();
        let known = |spec: &&ServerSpec| {
            let mut all = roster.all();
            all.any(|(_, member)| member.is_at(spec))
        };
        let new = config.servers.iter().filter(|spec| !known(spec)).count();
        let found = roster::places_for_discovery(config);
        let taken = roster.all().filter(|(_, m)| m.origin != Origin::Discovered);
        let needed = taken.count() + new + found;
        needed.saturating_sub(self.addresses.len())
    }

    /// How the server at this place is, by its checks; `None`: nothing is known.
    #[must_use]
    pub fn health(&self, place: usize) -> Option<Health> {
        self.dispatch().server(place)?.health()
    }

    /// Client connections now, running and queued.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.gate.inside()
    }

    /// Puts `config` in force, but for the servers and what workers keep: see
    /// [`Self::reconcile_file`] and [`super::super::engine::Engine::commit`].
    pub fn set_config(&self, config: &Arc<model::Proxy>) {
        let before = self.config.swap(Arc::clone(config));
        self.set_own_limit(config.max_connections);
        if let Some(per_source) = &config.guard.per_source {
            self.sources
                .get_or_init(|| Sources::new(per_source))
                .set_rules(per_source);
        }
        if before.rebalance != config.rebalance {
            self.set_rebalance(config);
        }
        self.judge(|dispatch| dispatch.set_config(&before, config));
    }

    fn set_rebalance(&self, config: &model::Proxy) {
        match (self.rebalancing.get(), &config.rebalance) {
            (Some(present), wanted) => present.set(wanted.as_ref()),
            (None, Some(wanted)) => {
                let places = self.addresses.len();
                self.rebalancing
                    .get_or_init(|| Box::new(Rebalancing::new(wanted, places)));
            }
            (None, None) => {}
        }
    }

    /// Makes a server of the file a member that was checked already. Another one of its name goes,
    /// and not before this one may take connections. One that is a member as it is stays.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub fn bring(
        &self,
        spec: &ServerSpec,
        (checked, at): (Checked, Instant),
    ) -> Result<usize, AddError> {
        let before = self.roster();
        let namesake = before.place(&spec.name);
        let namesake = namesake.and_then(|place| Some((place, before.member(place)?)));
        let place = match namesake {
            Some((place, member)) if member.is_at(spec) => {
                if self.health(place).is_some() {
                    return Ok(place);
                }
                self.on_check(place, checked, at);
                place
            }
            Some(_) | None => {
                let namesake = namesake.map(|(place, _)| place);
                self.succeed(namesake, spec, Origin::File, |dispatch, place| {
                    dispatch.on_check(place, checked, at);
                })?
            }
        };
        if checked.found.is_ready() {
            self.passed_check(place, at);
        }
        Ok(place)
    }

    /// Makes the members that the file names those in `wanted`. One that an operator added, or that
    /// was discovered, becomes the file's own when the file names it: it keeps its connections, its
    /// health and its counters.
    pub fn reconcile_file(&self, wanted: &[ServerSpec]) -> Reconciled {
        for spec in wanted {
            self.adopt(spec);
        }
        self.reconcile(Origin::File, wanted)
    }
}
