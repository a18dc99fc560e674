//! Rows of the subject that hang on what is kept and is somebody else's: the line of another's order stays as long as the order, whoever
//! else owns it (Art. 17(3)).

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::{
    fate::{Held, until},
    others::{Asked, strange_owners},
    walk::Walk,
};
use crate::{ConnectorError, SubjectResult};

/// By row of one subject, until when another's row keeps it.
pub(super) type KeptByOthers = HashMap<usize, SubjectResult<Held>>;

/// By subject.
pub(super) async fn kept_by_others(
    walk: &mut Walk<'_, '_>,
    zone: &TimeZone,
) -> Result<HashMap<usize, KeptByOthers>, ConnectorError> {
    let (plan, now) = (walk.plan, walk.ctx.now);
    let mut found: HashMap<usize, KeptByOthers> = HashMap::new();
    for (at, of) in plan.collections.iter().enumerate() {
        for looked_up in of.looked_up.iter().filter(|l| l.keeps) {
            let statement = &of.statements.owners[looked_up.link];
            let link = &of.links[looked_up.link];
            let map = plan.map_of(link.owner);
            let Some(retention) = &map.retain else { continue };
            let mut asked: Vec<Asked> = Vec::new();
            for (s, set) in walk.sets.iter().enumerate().filter(|(_, set)| set.error.is_none()) {
                let rows = set.rows.iter().enumerate().filter(|(_, row)| row.collection == at && row.fresh);
                for (r, row) in rows.filter(|(_, row)| row.stored.is_none() && !row.led.has(looked_up.link)) {
                    let values = row.values(of, &looked_up.here);
                    let values = values.filter(|v| link.there_columns.iter().zip(v).all(|(c, v)| c.accepts(v)));
                    asked.extend(values.map(|values| ((s, r), values)));
                }
            }
            for ((s, r), anchor) in strange_owners(walk, link, statement, &asked).await? {
                let kept = until(anchor.as_deref(), retention, zone, &map.name);
                if kept.as_ref().is_ok_and(|until| *until <= now) {
                    continue;
                }
                let kept = kept.map(|until| Held { until, by: link.owner });
                let known = found.entry(s).or_default().entry(r).or_insert_with(|| kept.clone());
                if let (Ok(known), Ok(kept)) = (known, kept)
                    && kept.until > known.until
                {
                    *known = kept;
                }
            }
        }
    }
    Ok(found)
}
