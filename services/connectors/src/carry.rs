//! What was found by one version of a data map, for a task that goes on by another: a match set names fields, links and identifiers by
//! their places in the map.

use quittance_domain::{
    data_map::{Collection, DataMap, Link, Matching},
    identifier::IdentifierKind,
};

use crate::{MatchSet, MatchedRow, RowFate};

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CannotCarry {
    #[error("the match set does not parse")]
    Unreadable,
    #[error("rows were found in the collection {0}, which the data map in force does not have")]
    NoCollection(String),
    #[error("rows were found in the collection {collection}, and the data map in force has another {what} for it")]
    Changed { collection: String, what: &'static str },
}

/// Of a stored match set. A later find decides what becomes of its rows; of those that it does not see any more, what was decided stands.
pub fn carry(stored: &[u8], from: &DataMap, to: &DataMap) -> Result<Vec<u8>, CannotCarry> {
    let mut set: MatchSet = serde_json::from_slice(stored).map_err(|_| CannotCarry::Unreadable)?;
    let renumbered = places(from) != places(to);
    for (name, rows) in &mut set.collections {
        let of = |map| DataMap::collection(map, name).ok_or_else(|| CannotCarry::NoCollection(name.clone()));
        let (from, to) = (Side::of(from, of(from)?), Side::of(to, of(to)?));
        let changed = |what| CannotCarry::Changed { collection: name.clone(), what };
        if from.c.table != to.c.table || from.c.key != to.c.key || from.c.customer_field != to.c.customer_field {
            return Err(changed("table, key or customer's column"));
        }
        for row in rows {
            if renumbered && !row.corrections.is_empty() {
                return Err(changed("list of fields and identifiers, by which its corrections are numbered,"));
            }
            row.carry(&from, &to).map_err(changed)?;
        }
    }
    set.carried = true;
    serde_json::to_vec(&set).map_err(|_| CannotCarry::Unreadable)
}

/// What a rectification's orders are numbered by: fields, and where identifiers stand.
fn places(map: &DataMap) -> Vec<(&str, &str, Option<IdentifierKind>)> {
    let mut places = Vec::new();
    for c in &map.collections {
        places.extend(c.fields.iter().map(|f| (c.name.as_str(), f.name.as_str(), None)));
        places.extend(c.identifiers.iter().map(|rule| (c.name.as_str(), rule.field.as_str(), Some(rule.kind))));
        places.extend(c.yields.iter().map(|y| (c.name.as_str(), y.field.as_str(), Some(y.kind))));
    }
    places
}

/// One collection in its map, and what its rows name by places.
struct Side<'m> {
    map: &'m DataMap,
    c: &'m Collection,
    rules: Vec<(IdentifierKind, &'m str, Matching)>,
    pointers: Vec<&'m Link>,
    fields: Vec<&'m str>,
    linked: Vec<&'m String>,
}

impl<'m> Side<'m> {
    fn of(map: &'m DataMap, c: &'m Collection) -> Self {
        let linked = map.linked_columns(&c.name).into_iter().filter(|name| !c.key.contains(*name));
        Self {
            map,
            c,
            rules: c.identifiers.iter().map(|rule| (rule.kind, rule.field.as_str(), rule.matching)).collect(),
            pointers: c.points_at.iter().map(|pointer| &pointer.link).collect(),
            fields: c.fields.iter().map(|field| field.name.as_str()).collect(),
            linked: linked.collect(),
        }
    }
}

/// Where what stood at `place` stands now.
fn moved<T: PartialEq>(place: u16, from: &[T], to: &[T]) -> Option<u16> {
    let it = from.get(usize::from(place))?;
    u16::try_from(to.iter().position(|other| other == it)?).ok()
}

impl MatchedRow {
    fn carry(&mut self, from: &Side<'_>, to: &Side<'_>) -> Result<(), &'static str> {
        let rule = |place| moved(place, &from.rules, &to.rules).ok_or("way from an identifier to them");
        let pointer = |place| moved(place, &from.pointers, &to.pointers).ok_or("points_at");
        let owner = |place| moved(place, &from.c.owned_by, &to.c.owned_by).ok_or("owned_by");
        let field = |place| moved(place, &from.fields, &to.fields);
        let is_pointer = self.fate == RowFate::Unpoint;
        for place in &mut self.rules {
            *place = if is_pointer { pointer(*place)? } else { rule(*place)? };
        }
        for (place, _) in &mut self.known_by {
            *place = rule(*place)?;
        }
        if let Some(via) = &mut self.via {
            via.link = if is_pointer { pointer(via.link)? } else { owner(via.link)? };
        }
        // What is not mapped any more is nobody's to count; but what is retained is not let go of unseen.
        self.filled = self.filled.iter().filter_map(|place| field(*place)).collect();
        for (place, _) in &mut self.held_fields {
            *place = field(*place).ok_or("set of retained fields")?;
        }
        if self.held_by.as_ref().is_some_and(|name| to.map.collection(name).is_none()) {
            return Err("collection that holds them");
        }
        let values = std::mem::take(&mut self.linked);
        if !values.is_empty() {
            let value = |name| values.get(from.linked.iter().position(|n| n == name)?).cloned().flatten();
            self.linked = to.linked.iter().map(value).collect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quittance_domain::data_map::MapKind;

    use super::*;
    use crate::Via;

    const MAP: &str = "version: 1
collections:
  customer:
    key: [id]
    identifiers: [{kind: email, field: email}, {kind: phone, field: phone}]
    fields: {email: email, phone: phone, name: {category: display_name, erase: set_null}}
    erase: mask
  orders:
    key: [id]
    owned_by: [{collection: customer, fields: {customer_id: id}}]
    fields: {note: message, iban: financial}
    erase: delete
";

    fn map(changes: &[(&str, &str)]) -> DataMap {
        let yaml = changes.iter().fold(MAP.to_owned(), |yaml, (old, new)| {
            assert!(yaml.contains(old), "{old}");
            yaml.replace(old, new)
        });
        DataMap::parse(&yaml, MapKind::Sql).unwrap()
    }

    fn found() -> MatchSet {
        let customer =
            MatchedRow { rules: vec![1], filled: vec![0, 2], ..MatchedRow::new(vec!["7".to_owned()], RowFate::Mask) };
        let via = Some(Via { link: 0, values: vec!["7".to_owned()] });
        let order = MatchedRow { via, filled: vec![1], ..MatchedRow::new(vec!["70".to_owned()], RowFate::Delete) };
        let collections = [("customer".to_owned(), vec![customer]), ("orders".to_owned(), vec![order])];
        MatchSet { collections: collections.into(), ..MatchSet::default() }
    }

    fn carried(set: &MatchSet, to: &DataMap) -> Result<MatchSet, CannotCarry> {
        let bytes = carry(&serde_json::to_vec(set).unwrap(), &map(&[]), to)?;
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn what_was_found_is_named_by_the_places_of_the_other_map() {
        let to = map(&[
            (
                "[{kind: email, field: email}, {kind: phone, field: phone}]",
                "[{kind: phone, field: phone}, {kind: email, field: email}]",
            ),
            (
                "email: email, phone: phone, name: {category: display_name, erase: set_null}",
                "born: birth_date, phone: phone, email: email",
            ),
            ("{note: message, iban: financial}", "{iban: financial}"),
            ("owned_by: [", "owned_by: [{collection: customer, fields: {payer_id: id}}, "),
        ]);
        let set = carried(&found(), &to).unwrap();
        let (customer, order) = (&set.collections["customer"][0], &set.collections["orders"][0]);
        assert_eq!(
            (customer.rules.as_slice(), customer.filled.as_slice()),
            (&[0][..], &[2][..]),
            "the name is not counted any more"
        );
        assert_eq!((order.via.as_ref().unwrap().link, order.filled.as_slice()), (1, &[0][..]));
        assert!(set.carried);
    }

    #[test]
    fn what_has_no_place_in_the_other_map_is_not_carried() {
        for (change, what) in [
            (("  orders:", "  order:"), "collection orders"),
            (("    key: [id]\n    owned_by", "    key: [id, customer_id]\n    owned_by"), "table, key"),
            (("fields: {customer_id: id}", "fields: {payer_id: id}"), "owned_by"),
            ((", {kind: phone, field: phone}]", "]"), "way from an identifier"),
        ] {
            let refused = carried(&found(), &map(&[change])).unwrap_err().to_string();
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn corrections_keep_their_numbers_or_are_not_carried() {
        let mut set = found();
        set.collections.get_mut("customer").unwrap()[0].corrections = vec![0];
        assert!(carried(&set, &map(&[("erase: set_null", "erase: {constant: gone}")])).is_ok());
        let refused = carried(&set, &map(&[("fields: {email", "fields: {born: birth_date, email")])).unwrap_err();
        assert!(refused.to_string().contains("corrections"), "{refused}");
    }
}
