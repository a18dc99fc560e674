//! Somebody has yesterday's whole database and today's, everything that either key ring ever held but for the destroyed key, and this code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use quittance_domain::{
    action::Action,
    identifier::Identifier,
    ids::{RequestId, SystemId},
};
use quittance_sql::{ConnectOptions, Pool, Row, Tx};
use quittance_store::ReportResult;
use uuid::Uuid;

use crate::{
    forgetting::rotate,
    harness::TestStore,
    kept::held,
    replays::{asked, ended, instruct, matched, registered, with_backups},
    statements::by_the_case,
    world::*,
};

type RawKey = [u8; 32];

/// A sealed value with the place that it is bound to.
struct Sealed {
    customer: String,
    request: Uuid,
    column: &'static str,
    place: String,
    bytes: Vec<u8>,
}

impl Sealed {
    fn open(&self, key: &RawKey) -> Option<Vec<u8>> {
        let Self { customer, request, column, place, bytes } = self;
        let (nonce, body) = bytes.split_at_checked(NONCE_LEN)?;
        let aad = format!("quittance/v1\0{customer}\0{request}\0{column}\0{place}");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
        key.open_in_place(nonce, Aad::from(aad.as_bytes()), &mut body).ok().map(|plain| plain.to_vec())
    }
}

/// All that a copy of the database has.
#[derive(Default)]
struct Loot {
    wrapped: Vec<Sealed>,
    sealed: Vec<Sealed>,
    /// Every byte, or every row as text.
    bytes: Vec<u8>,
}

impl Loot {
    async fn take(tx: &mut Tx) -> Self {
        let mut loot = Self::default();
        let of = |row: &Row, column, place, at| Sealed {
            customer: row.text(0).unwrap(),
            request: row.uuid(1).unwrap(),
            column,
            place,
            bytes: row.bytes(at).unwrap(),
        };
        for row in all(tx, "SELECT customer_id, request_id, wrapped_key, sealed_subject FROM requests").await {
            loot.wrapped.push(of(&row, "requests.wrapped_key", String::new(), 2));
            loot.sealed.push(of(&row, "requests.sealed_subject", String::new(), 3));
        }
        for row in all(tx, "SELECT customer_id, request_id, system_id, sealed FROM match_sets").await {
            loot.sealed.push(of(&row, "match_sets.sealed", row.text(2).unwrap(), 3));
        }
        for row in all(tx, "SELECT customer_id, request_id, system_id, number, sealed FROM package_records").await {
            let place = format!("{}/{}", row.text(2).unwrap(), row.i64(3).unwrap());
            loot.sealed.push(of(&row, "package_records.sealed", place, 4));
        }
        for row in all(tx, "SELECT customer_id, request_id, system_id, wrapped_key, sealed FROM kept_rows").await {
            let system = row.text(2).unwrap();
            loot.wrapped.push(of(&row, "kept_rows.wrapped_key", system.clone(), 3));
            loot.sealed.push(of(&row, "kept_rows.sealed", system, 4));
        }
        // Under a key of the replay's own, with its id in a request's place.
        for row in all(tx, "SELECT customer_id, replay_id, wrapped_key FROM replay_shares").await {
            loot.wrapped.push(of(&row, "requests.wrapped_key", String::new(), 2));
        }
        for row in all(tx, "SELECT customer_id, replay_id, sealed FROM replay_matches WHERE sealed IS NOT NULL").await {
            loot.sealed.push(of(&row, "replay_matches.sealed", String::new(), 2));
        }
        loot
    }

    /// Whatever opens with any of the keys, used in any way that the format knows.
    fn open(&self, keys: &[RawKey]) -> Vec<String> {
        let unwrapped = self.wrapped.iter().flat_map(|w| keys.iter().filter_map(|key| w.open(key)));
        let unwrapped: BTreeSet<RawKey> = unwrapped.map(|key| key.try_into().unwrap()).collect();
        let all = || keys.iter().chain(&unwrapped);
        let opened = self.sealed.iter().flat_map(|s| all().filter_map(|key| s.open(key)));
        // Before the rows of a hold stand its pseudonyms, which are no text.
        opened.map(|plain| String::from_utf8_lossy(&plain).into_owned()).collect()
    }

    fn holds(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}

async fn all(tx: &mut Tx, sql: &str) -> Vec<Row> {
    tx.fetch(&by_the_case(sql), vec![]).await.unwrap()
}

/// SQLite: the files, with their write-ahead log. PostgreSQL: every row of every table, as the superuser reads it.
async fn steal(t: &TestStore, name: &str) -> Loot {
    let tables = t.tables().await;
    if let Some(superuser) = t.superuser_pool() {
        let mut tx = superuser.begin().await.unwrap();
        let mut loot = Loot::take(&mut tx).await;
        for (table, _) in tables {
            for row in all(&mut tx, &format!("SELECT CAST(to_jsonb(t) AS text) FROM {table} t")).await {
                loot.bytes.extend(row.text(0).unwrap().into_bytes());
            }
        }
        return loot;
    }
    let folder = t.file(name);
    fs::create_dir(&folder).unwrap();
    let mut bytes = Vec::new();
    for suffix in ["", "-wal"] {
        let file = format!("store.db{suffix}");
        fs::copy(t.file(&file), folder.join(&file)).unwrap();
        bytes.extend(fs::read(folder.join(&file)).unwrap());
    }
    let copy = format!("sqlite:{}", folder.join("store.db").display());
    let pool = Pool::open(&ConnectOptions { connections_max: 1, ..ConnectOptions::new(copy) }).unwrap();
    let loot = Loot::take(&mut pool.begin_read().await.unwrap()).await;
    Loot { bytes, ..loot }
}

/// Every key file, by name.
pub fn copy_ring(t: &TestStore) -> BTreeMap<String, RawKey> {
    let files = fs::read_dir(t.file("keys")).unwrap();
    files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap().try_into().unwrap())
        })
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let n = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        text.extend([18, 12, 6, 0].map(|shift| char::from(DIGITS[(n >> shift & 63) as usize])));
    }
    text
}

/// As it may stand in a file: as it is, in hexadecimal digits, in base64 wherever its groups begin.
fn spellings(plain: &str) -> Vec<Vec<u8>> {
    let bytes = plain.as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut all =
        vec![bytes.to_vec(), plain.to_uppercase().into_bytes(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    all.extend((0..3).map(|skip| base64(&bytes[skip..]).into_bytes()));
    all
}

/// Of one person: identifiers that were instructed and yielded, a match set, a record; all of them findable.
async fn request_of(t: &TestStore, acme: &Customer, systems: [&SystemId; 2], person: &str, close: bool) -> RequestId {
    let [crm, shop] = systems;
    let phone = Identifier::normalise(Phone, &format!("+4670{}", person.len() * 1_111_111)).unwrap();
    let id = acme.instruct(at(1), intake(Action::Access, &[email(person), phone])).await;
    let task = claim_one(t, crm, at(2)).await;
    acme.report(&task, at(2), ReportResult::Resolved(vec![user(&format!("U-{person}-yielded"))])).await;
    for system in [shop, crm] {
        let task = claim_one(t, system, at(3)).await;
        t.save_match_sets(system, at(3), &[(&task, format!("rows-of-{person}").into_bytes())]).await.unwrap();
        let records = vec![(format!("record-of-{person}").into_bytes(), false)];
        t.add_records(&task.key, task.lease, at(3), 0, records).await.unwrap();
        if close || system == shop {
            assert!(acme.report(&task, at(4), done(system)).await.is_empty());
        }
    }
    id
}

/// How many of the opened values are about this person.
fn about(opened: &[String], person: &str) -> usize {
    opened.iter().filter(|plain| plain.contains(person)).count()
}

pub async fn with_everything_but_the_destroyed_key_nothing_that_was_forgotten_opens(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    let shop = register(t, "shop", &[UserId], &[]).await;
    let wal_from = t.wal_position().await;
    // Nobody else's test writes these names.
    let over = format!("quagga{}", Uuid::now_v7().simple());
    let living = format!("quokka{}", Uuid::now_v7().simple());
    request_of(t, &acme, [&crm, &shop], &over, true).await;
    request_of(t, &acme, [&crm, &shop], &living, false).await;
    let (yesterday, yesterdays_ring) = (steal(t, "yesterday").await, copy_ring(t));
    rotate(t, day(31)).await;
    let (today, todays_ring) = (steal(t, "today").await, copy_ring(t));
    let destroyed = "epoch-1.key";
    assert!(!todays_ring.contains_key(destroyed) && todays_ring.len() == 3);
    let everything: Vec<RawKey> = yesterdays_ring.values().chain(todays_ring.values()).copied().collect();
    let but_destroyed: Vec<RawKey> =
        everything.iter().filter(|key| **key != yesterdays_ring[destroyed]).copied().collect();
    assert!(but_destroyed.len() < everything.len());

    // The attack works: with the key, everything opens that there was yesterday.
    let opened = yesterday.open(&everything);
    assert_eq!((about(&opened, &over), about(&opened, &living)), (5, 5), "{opened:?}");
    // Without it, nothing does, and of today's only what lives.
    assert!(yesterday.open(&but_destroyed).is_empty());
    let opened = today.open(&but_destroyed);
    assert_eq!((about(&opened, &over), about(&opened, &living)), (0, 5), "{opened:?}");
    assert!(today.open(&everything).iter().all(|plain| !plain.contains(&over)));

    // Nor does it stand anywhere as it is.
    let phone = format!("4670{}", over.len() * 1_111_111);
    for plain in [over.as_str(), living.as_str(), phone.as_str()] {
        for spelling in spellings(plain) {
            assert!(!yesterday.holds(&spelling) && !today.holds(&spelling), "{plain}");
            assert!(!t.wal_holds(&wal_from, &spelling).await, "{plain}");
        }
    }
    assert!(today.holds(b"acme") && yesterday.holds(b"acme"), "the search works");
    assert!(!t.is_postgres() || t.wal_holds(&wal_from, b"acme").await, "and in the log");
}

/// Each under a key of its own: what a hold keeps beyond its request, and what a replay has matched.
pub async fn what_a_hold_or_a_replay_has_kept_does_not_open_without_the_destroyed_key(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let [crm, pbx] = [registered(t, with_backups("crm")).await, registered(t, with_backups("pbx")).await];
    let over = format!("quagga{}", Uuid::now_v7().simple());
    let living = format!("quokka{}", Uuid::now_v7().simple());
    for (person, ends) in [(&over, day(2)), (&living, day(100))] {
        acme.instruct(at(10), erasure(person)).await;
        let task = claim_one(t, &crm, at(11)).await;
        let rows = format!("rows-of-{person}").into_bytes();
        assert!(acme.report(&task, at(11), held(&crm, &rows, ends)).await.is_empty());
        acme.confirm_next(&pbx, at(11)).await;
    }
    let of_over = matched(t, &asked(&crm, at(5)), &[(&acme, &[email(&over)])], at(20)).await;
    matched(t, &asked(&pbx, at(5)), &[(&acme, &[email(&living)])], at(20)).await;
    let (yesterday, yesterdays_ring) = (steal(t, "yesterday").await, copy_ring(t));

    // Of one all is done: the replay, and what was held on its day. Of the other nothing is.
    assert_eq!(instruct(&acme, &of_over, at(21)).await.intakes.len(), 1);
    acme.confirm_next(&crm, at(22)).await;
    ended(t, &of_over, at(23)).await;
    let topology = t.topology().await.unwrap();
    assert_eq!(t.follow_up(&acme.id, &acme.agreement, &topology, day(2)).await.unwrap().len(), 1);
    acme.confirm_next(&crm, day(2)).await;
    rotate(t, day(40)).await;
    let (today, todays_ring) = (steal(t, "today").await, copy_ring(t));
    let destroyed = yesterdays_ring["epoch-1.key"];
    let everything: Vec<RawKey> = yesterdays_ring.values().chain(todays_ring.values()).copied().collect();
    let but_destroyed: Vec<RawKey> = everything.iter().filter(|key| **key != destroyed).copied().collect();

    // The attack works: the subject, the rows of the hold, and what was matched.
    let opened = yesterday.open(&everything);
    assert_eq!((about(&opened, &over), about(&opened, &living)), (3, 3), "{opened:?}");
    assert!(yesterday.open(&but_destroyed).is_empty());
    // What lives needs the rows and what was matched, and its subject no more.
    let opened = today.open(&everything);
    assert_eq!((about(&opened, &over), about(&opened, &living)), (0, 2), "{opened:?}");
}
