//! Which names were one person's before: of the changes of identifiers that one chunk has, in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quittance_domain::{action::Action, request::RequestState};
use uuid::Uuid;

use crate::intake::Prepared;

/// A name that a person had, and one that it has now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rename<'a> {
    pub was: &'a [u8],
    pub becomes: &'a [u8],
    /// What restricted the person under the old name is ended under the new one by this request of the chunk, the first that came after it.
    pub ended_by: Option<Uuid>,
}

#[derive(Default)]
pub(crate) struct Renames<'a> {
    /// By a name: all names before it, however many changes ago.
    before: HashMap<&'a [u8], BTreeMap<&'a [u8], Option<Uuid>>>,
}

impl<'a> Renames<'a> {
    pub fn of(changes: &'a [(Vec<u8>, Vec<u8>)]) -> Self {
        let mut renames = Self::default();
        renames.change(changes);
        renames
    }

    /// The next of the chunk. What waits for the customer changes nobody's name, and ends nothing.
    pub fn add(&mut self, p: &'a Prepared) {
        if p.state != RequestState::InProgress {
            return;
        }
        if matches!(p.request.action, Action::LiftRestriction | Action::Erasure) {
            for name in &p.pseudonyms {
                self.end(name, p.id.uuid());
            }
        }
        self.change(&p.renamed);
    }

    fn end(&mut self, name: &[u8], by: Uuid) {
        let before = self.before.get_mut(name).into_iter().flatten();
        before.for_each(|(_, ended_by)| *ended_by = ended_by.or(Some(by)));
    }

    fn change(&mut self, changes: &'a [(Vec<u8>, Vec<u8>)]) {
        for (was, becomes) in changes {
            let mut names = self.before.get(was.as_slice()).cloned().unwrap_or_default();
            names.insert(was, None);
            let before = self.before.entry(becomes).or_default();
            for (was, ended_by) in names {
                // By whichever way it came: it is ended when all of them are.
                let known = before.entry(was).or_insert(ended_by);
                *known = known.and(ended_by);
            }
        }
    }

    /// These names, and all before them.
    pub fn and_before<'n>(&self, names: &'n [Vec<u8>]) -> BTreeSet<&'n [u8]>
    where
        'a: 'n,
    {
        let before = |name: &Vec<u8>| self.before.get(name.as_slice()).into_iter().flat_map(BTreeMap::keys);
        names.iter().map(Vec::as_slice).chain(names.iter().flat_map(before).copied()).collect()
    }

    /// Each old name with each that it became.
    pub fn all(&self) -> impl Iterator<Item = Rename<'a>> {
        self.before.iter().flat_map(|(becomes, before)| {
            before.iter().map(|(was, ended_by)| Rename { was, becomes, ended_by: *ended_by })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(was: &str, becomes: &str) -> (Vec<u8>, Vec<u8>) {
        (was.into(), becomes.into())
    }

    #[test]
    fn a_name_has_all_before_it() {
        let changes = [change("c", "d"), change("a", "b"), change("b", "c"), change("c", "a")];
        let renames = Renames::of(&changes);
        let before = |name: &str| {
            let names = [name.into()];
            renames.and_before(&names).into_iter().map(|n| str::from_utf8(n).unwrap()).collect::<String>()
        };
        assert_eq!(["a", "b", "c", "d", "e"].map(before), ["abc", "ab", "abc", "cd", "e"]);
        assert_eq!(renames.all().count(), 7);
    }

    #[test]
    fn what_comes_after_an_end_is_not_ended() {
        let changes = [change("a", "b"), change("a", "d"), change("b", "c"), change("b", "d")];
        let (end, mut renames) = (Uuid::from_u128(7), Renames::default());
        renames.change(&changes[..2]);
        renames.end(b"b", end);
        renames.end(b"b", Uuid::from_u128(8));
        renames.change(&changes[2..]);
        let mut all: Vec<_> = renames.all().map(|r| (r.was, r.becomes, r.ended_by)).collect();
        all.sort();
        let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|name| name.as_slice());
        assert_eq!(all, [(a, b, Some(end)), (a, c, Some(end)), (a, d, None), (b, c, None), (b, d, None)]);
    }
}
