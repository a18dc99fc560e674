//! From identifiers to rows: what the identifiers name, then what these rows own, level by level, for the whole batch at once.

use quittance_domain::{action::Action, identifier::Identifier};
use quittance_sql::{Column as Values, Part, Row, Rows, Tx};

use super::{
    batch::{CHUNK, ForColumn},
    failure,
    identify::{PATTERN, is_of, sought},
    others::{is_mask, sharing_counts, tells_parties_apart},
    plan::{Plan, Shape, Statement},
    seen::{Bits, Rowset, Seen},
    statements::{FIND_LIMIT, Find},
    waiting::Waiting,
};
use crate::{BatchContext, ConnectorError, MatchSet, MatchedRow, RowFate, Subject, SubjectError};

/// Levels of ownership. A chain that is longer is a loop of somebody's making, or for a person to look at.
const DEPTH_MAX: usize = 64;

pub(super) struct Walk<'a, 't> {
    pub plan: &'a Plan,
    pub ctx: &'a BatchContext,
    pub subjects: &'a [Subject],
    pub tx: &'t mut Tx,
    /// Leave out rows on which erasure has nothing to do.
    pub only_left: bool,
    pub sets: Vec<Rowset<'a>>,
    /// Per collection, the (subject, row) whose owned rows are still to be looked for.
    pub frontier: Vec<Vec<(usize, usize)>>,
    /// Rows of which it is not told yet whether they are somebody else's too.
    pub waiting: Vec<Waiting>,
}

/// Questions that travel together.
#[derive(Default)]
struct Ask {
    parts: Vec<Part>,
    /// By part: the collection, and its identifier rule or link.
    of: Vec<(usize, usize)>,
    /// By the number that a batch's row and the answers to it bear.
    asked: Vec<Asked>,
}

#[derive(Clone, Copy)]
struct Asked {
    part: usize,
    subject: usize,
    /// The owner's row, for a link.
    owner: usize,
}

impl Ask {
    /// A row of the next part's batch.
    fn row(&mut self, subject: usize, owner: usize) -> i64 {
        self.asked.push(Asked { part: self.parts.len(), subject, owner });
        index(self.asked.len() - 1)
    }

    fn part(&mut self, of: (usize, usize), part: Part) {
        self.of.push(of);
        self.parts.push(part);
    }
}

impl<'a, 't> Walk<'a, 't> {
    pub fn new(
        plan: &'a Plan,
        ctx: &'a BatchContext,
        subjects: &'a [Subject],
        tx: &'t mut Tx,
        only_left: bool,
    ) -> Self {
        let sets = subjects.iter().map(|_| Rowset::default()).collect();
        let frontier = vec![Vec::new(); plan.collections.len()];
        Self { plan, ctx, subjects, tx, only_left, sets, frontier, waiting: Vec::new() }
    }

    /// Rows of a match set whose owned rows are looked for whether or not they are still there.
    pub fn seed(&mut self, subject: usize, set: &'a MatchSet, skip: impl Fn(usize, &MatchedRow) -> bool) {
        for (name, rows) in &set.collections {
            let Some(collection) = self.plan.index(name) else { continue };
            let of = &self.plan.collections[collection];
            for row in rows.iter().filter(|r| r.fate != RowFate::Unpoint && r.key.len() == of.key_len()) {
                if skip(collection, row) {
                    continue;
                }
                let seen = Seen {
                    collection,
                    texts: Vec::new(),
                    filled: Bits::default(),
                    dirty: Bits::default(),
                    rules: Vec::new(),
                    parent: None,
                    led: Bits::default(),
                    shared: row.ends_redacted(),
                    rest: row.rest,
                    stored: Some(row),
                    fresh: false,
                    twin: None,
                };
                let at = self.sets[subject].insert(of, seen);
                let shared = row.ends_redacted() && self.ctx.action == Action::Erasure;
                if !shared && !of.leaf {
                    self.frontier[collection].push((subject, at));
                }
            }
        }
    }

    pub async fn run(&mut self) -> Result<(), ConnectorError> {
        self.roots().await?;
        self.tell_shared();
        self.set_aside();
        let mut depth = 0;
        loop {
            if self.frontier.iter().all(Vec::is_empty) {
                if !self.settle().await? {
                    return Ok(());
                }
                // What waited stands where identifiers have named it.
                depth = 0;
            }
            if depth == DEPTH_MAX {
                // Of these persons alone: what waits of others is still to be judged.
                for (subject, _) in self.frontier.iter_mut().flat_map(std::mem::take) {
                    let message = format!("its rows own one another through more than {DEPTH_MAX} levels");
                    self.sets[subject].error.get_or_insert(SubjectError::Other(message));
                }
                continue;
            }
            depth += 1;
            let level = std::mem::replace(&mut self.frontier, vec![Vec::new(); self.plan.collections.len()]);
            let longest = level.iter().map(Vec::len).max().unwrap_or_default();
            for chunk in 0..longest.div_ceil(CHUNK) {
                self.children(&level, chunk).await?;
            }
        }
    }

    /// What the identifiers name, in all collections at once.
    async fn roots(&mut self) -> Result<(), ConnectorError> {
        let plan = self.plan;
        let mut ask = Ask::default();
        for (collection, of) in plan.collections.iter().enumerate() {
            for (at, rule) in of.rules.iter().enumerate() {
                let kind = plan.map_of(collection).identifiers[at].kind;
                let sought = self.subjects.iter().enumerate().flat_map(|(s, subject)| {
                    sought(plan.dialect.engine, rule, kind, subject).into_iter().map(move |text| (s, text))
                });
                let (patterns, texts): (Vec<_>, Vec<_>) = sought.partition(|(_, text)| text.starts_with(PATTERN));
                self.root((collection, at), &of.statements.roots[at], texts, &mut ask);
                if let Some(find) = of.statements.patterns[at].as_ref().filter(|_| !patterns.is_empty()) {
                    self.root((collection, at), find, patterns, &mut ask);
                }
            }
        }
        for (asked, (collection, rule), row) in self.answers(ask).await? {
            let seen = self.read(collection, &row)?;
            self.keep(asked.subject, seen, Some(u16::try_from(rule).unwrap_or(u16::MAX)), None)?;
        }
        Ok(())
    }

    fn root(&self, of: (usize, usize), find: &'a Find, texts: Vec<(usize, String)>, ask: &mut Ask) {
        let (mut who, mut what, mut pseudonyms) = (Vec::new(), Vec::new(), Vec::new());
        for (s, text) in texts {
            who.push(ask.row(s, 0));
            what.push(text);
            if self.plan.collections[of.0].pseudonym {
                pseudonyms.push(self.subjects[s].pseudonym.clone());
            }
        }
        let mut columns = vec![Values::i64s(who), Values::texts(what)];
        if self.plan.collections[of.0].pseudonym {
            columns.push(Values::texts(pseudonyms));
        }
        ask.part(of, self.which(of.0, find).part(self.customer(), Rows::new(columns)));
    }

    /// What a level of rows owns, in all collections at once; `chunk`: of each collection's rows.
    async fn children(&mut self, level: &[Vec<(usize, usize)>], chunk: usize) -> Result<(), ConnectorError> {
        let plan = self.plan;
        let mut ask = Ask::default();
        for (owner, links) in plan.owned.iter().enumerate() {
            let rows = level[owner].chunks(CHUNK).nth(chunk).unwrap_or_default();
            for (collection, link) in links {
                let batch = self.owned_by(rows, *collection, *link, &mut ask);
                let statement = self.which(*collection, &plan.collections[*collection].statements.children[*link]);
                ask.part((*collection, *link), statement.part(self.customer(), batch));
            }
        }
        for (asked, (collection, link), row) in self.answers(ask).await? {
            let seen = self.read(collection, &row)?;
            self.keep(asked.subject, seen, None, Some((asked.owner, link)))?;
        }
        Ok(())
    }

    fn owned_by(&self, owners: &[(usize, usize)], collection: usize, link: usize, ask: &mut Ask) -> Rows {
        let plan = &self.plan.collections[collection];
        let of = &plan.links[link];
        let mut who = Vec::with_capacity(owners.len());
        let engine = self.plan.dialect.engine;
        let mut columns: Vec<ForColumn> = of.here.iter().map(|column| ForColumn::of(engine, column)).collect();
        let mut pseudonyms = Vec::new();
        for (subject, row) in owners {
            let set = &self.sets[*subject];
            let value = |j: usize| set.rows[*row].text(&self.plan.collections[of.owner], of.there[j]);
            // A NULL is nobody's, and a text that the column cannot hold neither.
            let asks = (0..of.here.len()).all(|j| value(j).is_some_and(|v| of.here[j].accepts(v)));
            if set.error.is_some() || !asks {
                continue;
            }
            who.push(ask.row(*subject, *row));
            for (j, column) in columns.iter_mut().enumerate() {
                column.push(value(j));
            }
            if plan.pseudonym {
                pseudonyms.push(self.subjects[*subject].pseudonym.clone());
            }
        }
        let mut batch = vec![Values::i64s(who)];
        batch.extend(columns.into_iter().map(Values::from));
        if plan.pseudonym {
            batch.push(Values::texts(pseudonyms));
        }
        Rows::new(batch)
    }

    fn customer(&self) -> Option<&'a str> {
        self.ctx.customer_key.as_deref()
    }

    /// A row on which nothing is left to erase still says by what the person is known elsewhere.
    fn which(&self, collection: usize, find: &'a Find) -> &'a Statement {
        let tells = self.ctx.resolving && !self.plan.map_of(collection).yields.is_empty();
        find.left.as_ref().filter(|_| self.only_left && !tells).unwrap_or(&find.all)
    }

    async fn answers(&mut self, ask: Ask) -> Result<Vec<(Asked, (usize, usize), Row)>, ConnectorError> {
        let mut rows = vec![0; ask.parts.len()];
        let found = self.tx.fetch_together(ask.parts).await.map_err(failure)?;
        let mut answers = Vec::with_capacity(found.len());
        for row in found {
            let i = row.i64(0).map_err(failure)?;
            if let Some(asked) = usize::try_from(i).ok().and_then(|i| ask.asked.get(i)) {
                rows[asked.part] += 1;
                answers.push((*asked, ask.of[asked.part], row));
            }
        }
        if !self.bounded(rows.into_iter().max().unwrap_or_default())? {
            answers.clear();
        }
        Ok(answers)
    }

    pub async fn fetch(&mut self, statement: &Statement, rows: Rows) -> Result<Vec<Row>, ConnectorError> {
        let args = statement.args(self.ctx.customer_key.as_deref());
        let found = self.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)?;
        Ok(if self.bounded(found.len())? { found } else { Vec::new() })
    }

    /// Whether one statement has brought all rows that there are.
    fn bounded(&mut self, rows: usize) -> Result<bool, ConnectorError> {
        if rows <= FIND_LIMIT {
            return Ok(true);
        }
        if let [set] = self.sets.as_mut_slice() {
            let rows = FIND_LIMIT as u64;
            set.error.get_or_insert(SubjectError::TooManyRows { rows, allowed: self.plan.map.max_rows_per_subject });
            return Ok(false);
        }
        // Whose they are is found by splitting the batch.
        Err(ConnectorError::Refused(format!("the batch matches more than {FIND_LIMIT} rows")))
    }

    fn read(&self, collection: usize, row: &Row) -> Result<Seen<'a>, ConnectorError> {
        let Shape { texts, words, dirty, .. } = &self.plan.collections[collection].shape;
        let from = self.plan.found.texts_at();
        Ok(Seen {
            collection,
            texts: (from..from + texts.len()).map(|at| row.opt_text(at)).collect::<Result<_, _>>().map_err(failure)?,
            filled: Bits::read(row, 1..1 + words)?,
            dirty: if *dirty { Bits::read(row, 1 + words..1 + 2 * words)? } else { Bits::default() },
            rules: Vec::new(),
            parent: None,
            led: Bits::default(),
            shared: false,
            rest: false,
            stored: None,
            fresh: true,
            twin: None,
        })
    }

    fn keep(
        &mut self,
        subject: usize,
        mut seen: Seen<'a>,
        rule: Option<u16>,
        parent: Option<(usize, usize)>,
    ) -> Result<(), ConnectorError> {
        let of = &self.plan.collections[seen.collection];
        let erasure = self.ctx.action == Action::Erasure;
        let allowed = self.plan.map.max_rows_per_subject;
        let Some(set) = self.sets.get_mut(subject).filter(|set| set.error.is_none()) else { return Ok(()) };
        if seen.texts[..of.key_len()].iter().any(Option::is_none) {
            let name = &self.plan.map_of(seen.collection).name;
            set.error = Some(SubjectError::Other(format!(
                "collection {name} has a row of it whose key is NULL, or whose key, or what other rows refer to it by, is not found again by its text (in SQLite, \
                 a BLOB in a column of texts): nothing was done. Have another value stand there, and retry"
            )));
            return Ok(());
        }
        let hangs = parent.is_some_and(|(p, _)| set.rows[p].shared);
        // However it is owned, a row that names somebody else is that one's too.
        let counts = parent.is_some() && sharing_counts(self.plan.map_of(seen.collection), self.ctx.action);
        let is_named = |row: &Seen<'_>| counts && is_shared(self.plan, row, &self.subjects[subject]);
        let collection = seen.collection;
        let at = match set.position(collection, of, seen.texts[..of.key_len()].iter().flatten().map(String::as_str)) {
            Some(at) => {
                let known = &mut set.rows[at];
                if !known.fresh {
                    (known.texts, known.filled, known.dirty, known.fresh) = (seen.texts, seen.filled, seen.dirty, true);
                }
                if let Some((owner, _)) = parent.filter(|(owner, _)| *owner != at && known.stored.is_none()) {
                    match known.parent {
                        None => known.parent = parent,
                        Some((first, _)) if first != owner => set.further.push((at, owner)),
                        Some(_) => {}
                    }
                    let named = is_named(known);
                    known.rest |= named && !hangs;
                    // Owned as a whole counts for more than hanging on what is shared.
                    if known.shared && !hangs && !named {
                        known.shared = false;
                        if erasure && !of.leaf {
                            self.frontier[collection].push((subject, at));
                        }
                    }
                }
                at
            }
            None => {
                set.counted += 1;
                if set.counted > u64::from(allowed) {
                    set.error = Some(SubjectError::TooManyRows { rows: set.counted, allowed });
                    return Ok(());
                }
                seen.parent = parent;
                let named = is_named(&seen);
                seen.shared = hangs || named;
                seen.rest = named && !hangs;
                let stays = erasure && seen.shared;
                let at = set.insert(of, seen);
                if !of.leaf && !stays {
                    self.frontier[collection].push((subject, at));
                }
                at
            }
        };
        if let Some((_, link)) = parent {
            set.rows[at].led.set(link);
        }
        if let Some(rule) = rule
            && !set.rows[at].rules.contains(&rule)
        {
            set.rows[at].rules.push(rule);
        }
        Ok(())
    }

    /// Which of the rows that identifiers named are somebody else's too. What a shared row owns stays as it is when it is redacted.
    fn tell_shared(&mut self) {
        let (plan, subjects) = (self.plan, self.subjects);
        for (subject, set) in self.sets.iter_mut().enumerate() {
            for row in set.rows.iter_mut().filter(|r| r.fresh) {
                row.shared = sharing_counts(plan.map_of(row.collection), self.ctx.action)
                    && is_shared(plan, row, &subjects[subject]);
            }
        }
        if self.ctx.action == Action::Erasure {
            let sets = &self.sets;
            for rows in &mut self.frontier {
                rows.retain(|(subject, row)| !sets[*subject].rows[*row].shared);
            }
        }
    }
}

pub(super) fn index(i: usize) -> i64 {
    i64::try_from(i).unwrap_or(i64::MAX)
}

/// Another column that names a person names somebody else. Columns of different kinds are two names of one person, unless the map tells
/// apart what each of them redacts. A row that only an owner has led to is compared with all that the subject is known by, but for what it
/// yields: that is one's own name, by the map.
fn is_shared(plan: &Plan, row: &Seen<'_>, subject: &Subject) -> bool {
    let of = &plan.collections[row.collection];
    let map = plan.map_of(row.collection);
    if of.shape.identifiers.is_empty() {
        return false;
    }
    let parties = tells_parties_apart(map);
    let matched = |r: usize| row.rules.iter().any(|m| usize::from(*m) == r);
    let kinds: Vec<_> = if row.rules.is_empty() {
        subject.identifiers.iter().map(Identifier::kind).collect()
    } else {
        map.identifiers.iter().enumerate().filter(|(r, _)| matched(*r)).map(|(_, rule)| rule.kind).collect()
    };
    let own_name = |field: &str| row.rules.is_empty() && map.yields.iter().any(|y| y.field == field);
    map.identifiers.iter().enumerate().any(|(r, rule)| {
        let stored = row.text(of, of.shape.identifiers[r]).filter(|text| !text.trim().is_empty());
        !matched(r)
            && !own_name(&rule.field)
            && (parties || kinds.contains(&rule.kind))
            && stored.is_some_and(|text| !is_of(&of.rules[r], rule.kind, subject, text))
            // What we have put there names nobody.
            && !(row.rules.is_empty() && stored.is_some_and(|text| is_mask(map, of.rules[r].field, text)))
    })
}
