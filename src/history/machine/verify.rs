//! Whether rows are what the machine makes: each can be read, counts are right, and nothing refers to what is not there.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::jobs::Held;
use super::keys;
use super::keys::Key;
use super::keys::Parsed;
use super::keys::Side;
use super::step::Head;
use crate::history::Conversation;
use crate::history::Id;
use crate::history::Item;
use crate::history::Owner;
use crate::history::Response;
use crate::history::Usage;
use crate::raft::Rows;
use crate::storage::codec;

/// Faults that are told; more are counted.
const TOLD_MAX: usize = 100;
/// Rows that are looked at in one go.
const PAGE: usize = 1024;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that were read.
    pub rows: u64,
    /// Responses, conversations and bytes of all owners, as their rows say.
    pub total: Usage,
    /// What is wrong, the first hundred.
    pub told: Vec<String>,
    /// How much is wrong.
    pub faults: u64,
}

impl Report {
    fn fault(&mut self, what: impl FnOnce() -> String) {
        self.faults += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what());
        }
    }
}

/// What the rows of one record add up to.
#[derive(Default)]
struct Sum {
    inputs: u32,
    outputs: u32,
    entries: u32,
    bytes: u64,
    events: u64,
}

type Sums = BTreeMap<(Owner, Id), Sum>;

/// Reads every row once, and some twice.
#[must_use]
pub fn verify(rows: &dyn Rows) -> Report {
    let (mut report, mut sums, mut usages) = (Report::default(), Sums::new(), BTreeMap::new());
    each(rows, |key, value| {
        report.rows += 1;
        let Some(parsed) = keys::parse(key) else { return report.fault(|| format!("unknown key {key:02x?}")) };
        if !look(rows, &parsed, value, &mut report, &mut sums, &mut usages) {
            report.fault(|| format!("a row cannot be read: {parsed:?}"));
        }
    });
    add_up(rows, &mut report, &sums, &usages);
    report
}

/// Looks at all rows, in order.
pub fn each(rows: &dyn Rows, mut look: impl FnMut(&[u8], &[u8])) {
    let (mut from, to) = keys::all();
    loop {
        let page = rows.scan(&from, &to, PAGE, false);
        page.iter().for_each(|(key, value)| look(key, value));
        match page.into_iter().next_back() {
            Some((mut last, _)) => {
                last.push(0); // the next key there can be
                from = last;
            }
            None => return,
        }
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    codec::decode(value).ok()
}

/// Whether a row can be read; what it adds to is counted.
fn look(
    rows: &dyn Rows,
    key: &Parsed,
    value: &[u8],
    report: &mut Report,
    sums: &mut Sums,
    usages: &mut BTreeMap<Owner, Usage>,
) -> bool {
    let mut sum = |owner: &Owner, id: &Id, bytes: usize, count: fn(&mut Sum)| {
        let sum = sums.entry((owner.clone(), id.clone())).or_default();
        sum.bytes += bytes as u64;
        count(sum);
    };
    match key {
        Parsed::Response(owner, id) => {
            report.total.responses += 1;
            sum(owner, id, 0, |_| {});
            read::<Response>(value).is_some()
        }
        Parsed::Body(owner, id) => {
            sum(owner, id, value.len(), |_| {});
            read::<ByteBuf>(value).is_some()
        }
        Parsed::Item(owner, id, side) => {
            sum(owner, id, value.len(), if *side == Side::Input { |it| it.inputs += 1 } else { |it| it.outputs += 1 });
            read::<Item>(value).is_some()
        }
        Parsed::Event(owner, id) => {
            sum(owner, id, value.len(), |it| it.events += 1);
            read::<ByteBuf>(value).is_some()
        }
        Parsed::Conversation(owner, id) => {
            report.total.conversations += 1;
            sum(owner, id, 0, |_| {});
            read::<Conversation>(value).is_some()
        }
        Parsed::Entry(owner, id, _) => {
            sum(owner, id, value.len(), |it| it.entries += 1);
            refers(rows, key, value, report)
        }
        Parsed::Place(..) | Parsed::ItemOf(..) => refers(rows, key, value, report),
        Parsed::Usage(owner) => {
            let usage = read::<Usage>(value);
            report.total.bytes += usage.map_or(0, |it| it.bytes);
            usages.extend(usage.map(|it| (owner.clone(), it)));
            usage.is_some()
        }
        Parsed::Head => read::<Head>(value).is_some(),
        Parsed::Lease => read::<Held>(value).is_some(),
        // Nothing else depends on what these say.
        Parsed::Idempotent
        | Parsed::Done
        | Parsed::DoneAt
        | Parsed::Expiry
        | Parsed::Upload
        | Parsed::Part
        | Parsed::JobOf => !value.is_empty(),
    }
}

/// Whether a row that names another can be read; whether the other is there is told.
fn refers(rows: &dyn Rows, key: &Parsed, value: &[u8], report: &mut Report) -> bool {
    let has = |key: &Key<'_>| rows.get(&key.encode()).is_some();
    match key {
        Parsed::Entry(owner, id, place) => {
            let Some(item) = read::<Item>(value) else { return false };
            let back = rows.get(&Key::Place(owner, id, &item.id).encode()).and_then(|it| read::<u64>(&it));
            if back != Some(*place) {
                report.fault(|| format!("{} of {id} is not found by its name", item.id));
            }
        }
        Parsed::Place(owner, id, item) => {
            let Some(place) = read::<u64>(value) else { return false };
            if !has(&Key::Entry(owner, id, place)) {
                report.fault(|| format!("{item} of {id} is named and not there"));
            }
        }
        Parsed::ItemOf(owner, item) => {
            let Some(of) = read::<Id>(value) else { return false };
            if !has(&Key::Response(owner, &of)) {
                report.fault(|| format!("{item} is said to be of {of}, which is not there"));
            }
        }
        _ => {}
    }
    true
}

/// What records say of themselves against what their rows add up to.
fn add_up(rows: &dyn Rows, report: &mut Report, sums: &Sums, usages: &BTreeMap<Owner, Usage>) {
    let mut kept: BTreeMap<&Owner, Usage> = BTreeMap::new();
    for ((owner, id), sum) in sums {
        let response = rows.get(&Key::Response(owner, id).encode()).and_then(|it| read::<Response>(&it));
        let conversation = rows.get(&Key::Conversation(owner, id).encode()).and_then(|it| read::<Conversation>(&it));
        let usage = kept.entry(owner).or_default();
        match (response, conversation) {
            (Some(it), _) => {
                usage.responses += 1;
                usage.bytes += it.bytes;
                if (it.inputs, it.outputs, it.events, it.bytes) != (sum.inputs, sum.outputs, sum.events, sum.bytes) {
                    report.fault(|| {
                        format!(
                            "{id} says {it:?}, its rows have {} and {} items, {} events, {} bytes",
                            sum.inputs, sum.outputs, sum.events, sum.bytes
                        )
                    });
                }
            }
            (None, Some(it)) => {
                usage.conversations += 1;
                usage.bytes += it.bytes;
                let bytes = sum.bytes + it.metadata.len() as u64;
                if (it.items, it.bytes) != (sum.entries, bytes) {
                    report.fault(|| {
                        format!(
                            "{id} says {} items, {} bytes, its rows have {}, {bytes}",
                            it.items, it.bytes, sum.entries
                        )
                    });
                }
            }
            (None, None) => report.fault(|| format!("there are rows of {id}, which is not there")),
        }
    }
    for (owner, kept) in kept {
        let counted = usages.get(owner).copied().unwrap_or_default();
        if counted != kept {
            report.fault(|| format!("{} keeps {kept:?} and is counted as {counted:?}", owner.tenant()));
        }
    }
}
