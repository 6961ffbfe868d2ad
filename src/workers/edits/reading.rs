//! What the tables say of workers at one moment, and the fleet that follows from it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Grounds;
use super::bound_to;
use super::rows;
use super::rows::ADDED;
use super::rows::CHANGED;
use super::rows::Row;
use super::rows::SealedKey;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::secret::Secret;
use crate::replication;
use crate::replication::admin::InstanceId;
use crate::replication::sources;
use crate::replication::sources::Assertion;
use crate::replication::sources::InForce;
use crate::replication::sources::Instance;
use crate::replication::sources::Place;
use crate::replication::sources::Standing;
use crate::replication::tables::SOURCES;
use crate::replication::tables::SUPPRESSIONS;
use crate::replication::tables::WORKERS;
use crate::workers::address::Origin;
use crate::workers::registry::Wanted;
use crate::workers::spec::Source;
use crate::workers::spec::Spec;

/// See the file's header.
pub(super) struct Reading {
    pub(super) rows: Vec<Row>,
    pub(super) suppressions: Vec<Instance>,
    /// What sources of all nodes name, with sealed keys; this node's as they are now, sealed or not.
    pub(super) assertions: Vec<(Assertion, SealedKey)>,
}

impl Reading {
    pub(super) fn of(tables: &replication::Handle, me: StorageId, named: &BTreeMap<Place, Option<Secret>>) -> Self {
        let mut rows: Vec<Row> =
            tables.admin(WORKERS, |table| table.entries().filter_map(|(key, entry)| Row::read(key, entry)).collect());
        // The oldest counts where two nodes made one at the same time.
        rows.sort_by_key(|it| (it.born, it.key.birth));
        let suppressions = tables.admin(SUPPRESSIONS, |table| {
            table.entries().filter_map(|(key, entry)| rows::suppression(key, entry)).collect()
        });
        let mut assertions: Vec<(Assertion, SealedKey)> = tables.owned(SOURCES, |now, table| {
            let others = table.rows(now).filter(|(owner, _, _)| *owner != me);
            others.filter_map(|(owner, _, bytes)| rows::read_assertion(owner, bytes)).collect()
        });
        let own = |place: &Place| Assertion {
            url: place.url.clone(),
            owner: me,
            source: sources::Source::Flag,
            is_local: place.via.is_some(),
        };
        assertions.extend(named.keys().map(|it| (own(it), None)));
        Self { rows, suppressions, assertions }
    }

    /// Instances of one kind, the oldest first.
    pub(super) fn instances(&self, kind: u16) -> Vec<Instance> {
        self.rows.iter().filter(|it| it.kind == kind).map(Row::instance).collect()
    }

    pub(super) fn suppressed(&self) -> BTreeSet<Place> {
        self.suppressions.iter().map(|it| it.place.clone()).collect()
    }

    /// The row that an edit of this place's worker goes to: the oldest added one, else the oldest change of a source's.
    pub(super) fn counts_at(&self, place: &Place) -> Option<&Row> {
        let of_kind = |kind| self.rows.iter().find(|it| it.kind == kind && it.place == *place);
        of_kind(ADDED).or_else(|| of_kind(CHANGED))
    }

    /// The workers in force. `told`: instances whose trouble is in the log already.
    pub(super) fn wanted(
        &self,
        grounds: &Grounds,
        named: &BTreeMap<Place, Option<Secret>>,
        told: &mut BTreeSet<InstanceId>,
    ) -> Vec<Wanted> {
        let assertions: Vec<Assertion> = self.assertions.iter().map(|it| it.0.clone()).collect();
        let standing = Members(grounds);
        let in_force = sources::in_force(&self.instances(ADDED), &assertions, &self.suppressed(), &standing);
        in_force.into_iter().filter_map(|it| self.worker(&it, grounds, named, told)).collect()
    }

    fn worker(
        &self,
        it: &InForce,
        grounds: &Grounds,
        named: &BTreeMap<Place, Option<Secret>>,
        told: &mut BTreeSet<InstanceId>,
    ) -> Option<Wanted> {
        let place = &it.place;
        let origin = Origin::parse(&place.url).ok()?;
        let mut spec = Spec { via: place.via, ..Spec::named(&origin, None) };
        let row = self.counts_at(place);
        if let Some(row) = row {
            row.change().apply(&mut spec);
        }
        spec.api_key = match row.and_then(|it| Some((it.key.id, it.api_key.as_ref()?))) {
            Some((_, None)) => None,
            Some((id, Some(sealed))) => {
                let opened = grounds.seals.open(sealed, &bound_to(place));
                if opened.is_none() && told.insert(id) {
                    tracing::error!(
                        url = place.url,
                        "a worker's key cannot be opened, it goes without: give it again with `smg workers update`"
                    );
                }
                opened.map(|it| it.secret)
            }
            // An added worker has the key it was given; a source's has its source's.
            None if it.instance.is_some() => None,
            None => self.key_of_sources(place, grounds, named),
        };
        let source = if it.instance.is_some() { Source::Api } else { Source::Config };
        Some(Wanted { id: WorkerId::of(&place.url, place.via), spec, source })
    }

    /// The key that a source gives: this node's own, else the first that opens.
    fn key_of_sources(
        &self,
        place: &Place,
        grounds: &Grounds,
        named: &BTreeMap<Place, Option<Secret>>,
    ) -> Option<Secret> {
        if let Some(own) = named.get(place) {
            return own.clone();
        }
        let of_it = self.assertions.iter().filter(|(assertion, _)| assertion.place() == *place);
        let sealed = of_it.filter_map(|(_, sealed)| sealed.as_ref());
        sealed.filter_map(|it| grounds.seals.open(it, &bound_to(place))).map(|it| it.secret).next()
    }
}

/// Who asserts, as membership and operators have it.
struct Members<'a>(&'a Grounds);

impl Standing for Members<'_> {
    fn is_here(&self, owner: StorageId) -> bool {
        self.0.tables.is_here(owner)
    }

    fn is_forgotten(&self, owner: StorageId) -> bool {
        self.0.tables.is_forgotten(owner)
    }

    fn is_dead(&self, place: &Place) -> bool {
        (self.0.is_dead)(place)
    }
}
