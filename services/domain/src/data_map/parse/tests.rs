use proptest::prelude::*;

use super::*;
use crate::{
    data_map::{CountedFrom, FieldErasure, Mask, Matching, Period, RowErasure, SharedRows},
    identifier::IdentifierKind,
};

const DOCS: &str = include_str!("../../../../../docs/data-map.md");

/// The complete example of the reference: what newcomers copy must work.
fn documented() -> &'static str {
    let start = DOCS.find("```yaml\n").expect("an example") + "```yaml\n".len();
    let length = DOCS[start..].find("```").expect("its end");
    &DOCS[start..start + length]
}

/// As `line:column field: message`, for a map that must not be accepted.
fn problems_of(yaml: &str, kind: MapKind) -> Vec<String> {
    match DataMap::parse(yaml, kind) {
        Ok(_) => Vec::new(),
        Err(error) => {
            assert!(!error.problems.is_empty());
            let shown = |p: &Problem| format!("{}:{} {}: {}", p.line, p.column, p.field, p.message);
            error.problems.iter().map(shown).collect()
        }
    }
}

#[track_caller]
fn refused(yaml: &str, expected: &[&str]) {
    let found = problems_of(yaml, MapKind::Sql);
    let right =
        found.len() == expected.len() && found.iter().zip(expected).all(|(found, start)| found.starts_with(start));
    assert!(right, "expected {expected:#?}\nfound {found:#?}");
}

#[test]
fn what_is_found_out_later_has_its_line_too() {
    let yaml = "version: 1
collections:
  a:
    key: [id]
  a.b:
    key: [id]
    owned_by:
      - {collection: a, fields: {x: id}}
      - collection: a
        fields: {y: id}
";
    let lines = [
        ("collections.a", 3),
        ("collections.a.key", 4),
        ("collections.a.b", 5),
        ("collections.a.b.owned_by[0].fields.x", 8),
        ("collections.a.b.owned_by[1].fields", 10),
        ("collections.a.fields.remark", 3),
        ("collections.c", 2),
        ("", 1),
    ];
    for (field, line) in lines {
        assert_eq!(DataMap::lines(yaml)(field), line, "{field}");
    }
    assert_eq!(DataMap::lines("- [")("collections.a"), 1);
}

/// A sound map whose collection `c` holds these further lines, from line 8 on.
fn with(lines: &str) -> String {
    let head = "version: 1\ncollections:\n  c:\n    key: [id]\n    identifiers: [{kind: email, field: email}]\n    fields: {email: email, note: message}\n    erase: mask\n";
    format!("{head}{}", lines.lines().map(|line| format!("    {line}\n")).collect::<String>())
}

#[test]
fn the_documented_example_is_sound() {
    let map = DataMap::parse(documented(), MapKind::Sql).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(map.max_rows_per_subject, 500);
    let names: Vec<_> = map.collections.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["customer", "orders", "order_lines", "messages", "sales_team"]);

    let customer = map.collection("customer").unwrap();
    assert_eq!((customer.table.schema.as_deref(), customer.table.name.as_str()), (Some("public"), "customer"));
    assert_eq!(customer.customer_field.as_deref(), Some("tenant"));
    let matches: Vec<_> = customer.identifiers.iter().map(|i| (i.kind, i.matching)).collect();
    assert_eq!(
        matches,
        [
            (IdentifierKind::Email, Matching::CaseInsensitive),
            (IdentifierKind::Phone, Matching::Digits),
            (IdentifierKind::UserId, Matching::Exact),
        ]
    );
    assert_eq!(customer.field("phone").unwrap().category, "phone");
    assert_eq!(customer.field("email").unwrap().erase, FieldErasure::Mask(Mask::Pseudonym));
    assert!(!customer.field("id").unwrap().rectify, "a key is never rectified");
    assert!(customer.field("email").unwrap().rectify);
    assert_eq!(customer.points_at[0].category, "manager");

    let orders = map.collection("orders").unwrap();
    let retain = orders.retain.as_ref().unwrap();
    assert_eq!((retain.counted_from, retain.period), (CountedFrom::EndOfYear, Period { years: 7, months: 0, days: 0 }));
    assert_eq!(orders.owned_by[0].fields, [("customer_id".to_owned(), "id".to_owned())]);
    let messages = map.collection("messages").unwrap();
    assert_eq!((messages.erase, messages.shared, messages.third_party), (RowErasure::Delete, SharedRows::Redact, true));
    assert_eq!(messages.identifiers[0].redacts, ["sender", "sender_name", "body"]);
}

#[test]
fn every_key_is_documented() {
    for key in [
        "version",
        "max_rows_per_subject",
        "table",
        "key",
        "customer_field",
        "identifiers",
        "kind",
        "field",
        "match",
        "redacts",
        "yields",
        "owned_by",
        "points_at",
        "mask",
        "category",
        "fields",
        "erase",
        "rectify",
        "constant",
        "retain",
        "ground",
        "anchor",
        "counted_from",
        "period",
        "shared",
        "restriction",
        "set",
        "clear",
        "third_party",
    ] {
        assert!(DOCS.contains(&format!("`{key}`")), "{key}");
    }
    for category in BUILT_IN_CATEGORIES {
        assert!(DOCS.contains(&format!("`{category}`")), "{category}");
    }
}

#[test]
fn defaults() {
    let map = DataMap::parse(&with(""), MapKind::Sql).unwrap();
    let c = &map.collections[0];
    assert_eq!(map.max_rows_per_subject, 1000);
    assert_eq!((c.table.schema.as_deref(), c.table.name.as_str()), (None, "c"));
    assert_eq!(c.identifiers[0].redacts, ["email"]);
    assert_eq!((c.shared, c.third_party), (SharedRows::Redact, false));
    assert!(c.fields.iter().all(|f| f.erase == FieldErasure::Mask(Mask::SetNull) && f.rectify));
    let map = DataMap::parse(&with("points_at: [{collection: c, fields: {boss: id}}]"), MapKind::Sql).unwrap();
    assert_eq!(map.collections[0].points_at[0].mask, Mask::SetNull);
    assert_eq!(map.collections[0].points_at[0].category, "reference");
}

#[test]
fn stored_maps_read_back() {
    let map = DataMap::parse(documented(), MapKind::Sql).unwrap();
    let json = serde_json::to_string(&map).unwrap();
    assert_eq!(serde_json::from_str::<DataMap>(&json).unwrap(), map);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let yaml = "\
version: 2
max_rows_per_subject: 0
collectons: {}
collections:
  orders:
    table: a.b.c
    keys: [id]
    owned_by:
      - {collection: custmer, fields: {customer_id: id}}
      - {collection: customer, fields: {}}
    fields:
      email: {category: E-Mail, erase: sometimes}
      note: 7
    erase: drop
  customer:
    key: [id, id]
    identifiers:
      - {kind: mail, field: email}
      - {kind: email}
    yields: {userid: id}
    erase: mask
";
    refused(
        yaml,
        &[
            "1:10 version: must be 1",
            "2:23 max_rows_per_subject: must be a whole number from 1 to 1000000",
            "3:1 collectons: unknown key \"collectons\"; known here: version, max_rows_per_subject, collections",
            "5:3 collections.orders.key: is required",
            "6:12 collections.orders.table: must be `table` or `schema.table`",
            "7:5 collections.orders.keys: unknown key \"keys\"",
            "9:22 collections.orders.owned_by[0].collection: unknown collection \"custmer\"",
            "10:40 collections.orders.owned_by[1].fields: must name at least one pair",
            "12:25 collections.orders.fields.email.category: must be a category",
            "12:40 collections.orders.fields.email.erase: must be set_null, pseudonym, keep",
            "13:13 collections.orders.fields.note: must be text, and is a number: put it in quotes",
            "14:12 collections.orders.erase: must be one of delete, mask",
            "16:15 collections.customer.key[1]: \"id\" is given twice",
            "18:16 collections.customer.identifiers[0].kind: must be one of email, phone",
            "19:9 collections.customer.identifiers[1].field: is required",
            "20:14 collections.customer.yields.userid: must be one of email, phone",
        ],
    );
    let error = DataMap::parse(yaml, MapKind::Sql).unwrap_err();
    assert_eq!(error.to_string().lines().nth(3), Some("line 5, collections.orders.key: is required"));
}

#[test]
fn what_is_no_yaml_says_where() {
    let one = |yaml: &str| {
        let found = problems_of(yaml, MapKind::Sql);
        assert_eq!(found.len(), 1, "{yaml:?} {found:?}");
        found[0].clone()
    };
    assert!(one("version: 1\ncollections: [\n").contains(": "), "an open bracket");
    assert_eq!(one("version: 1\n\tcollections: {}\n"), "1:10 : while scanning a plain scalar, found a tab");
    assert!(one("").contains("must be a mapping, and is nothing"));
    assert!(one("- 1\n").contains("must be a mapping, and is a list"));
    assert!(one("version: 1\ncollections: {}\n").starts_with("2:14 collections: must hold at least one"));
    assert!(one(&with("third_party: yes")).starts_with("8:18 collections.c.third_party: must be true or false"));
    assert!(one(&with("erase: delete")).starts_with("8:5 collections.c.erase: is given twice"));
    assert!(one(&with("7: x")).starts_with("8:5 collections.c: has a key that is a number: put it in quotes"));
    assert!(one(&format!("{}---\nversion: 1\n", with(""))).starts_with("9:"), "a second document");
    assert!(one(&with("<<: {shared: delete}")).starts_with("8:"), "merge keys");
    assert!(one(&with("retain: *nothing")).starts_with("8:"), "an unknown anchor");
}

#[test]
fn names_of_columns_may_look_like_yaml() {
    let yaml = with("restriction: {field: on, set: \"true\", clear: \"false\"}")
        .replace("note: message", "no: message, y: title, \"1\": city");
    let map = DataMap::parse(&yaml, MapKind::Sql).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<_> = map.collections[0].fields.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["email", "no", "y", "1"]);
    assert_eq!(map.collections[0].restriction.as_ref().unwrap().field, "on");
    refused(
        &with("restriction: {field: on, set: true}"),
        &["8:35 collections.c.restriction.set: must be text, and is true or false: put it in quotes"],
    );
    refused(
        &with("restriction: {field: r, set: x, clear: x}"),
        &["8:34 collections.c.restriction.set: must differ from clear"],
    );
}

#[test]
fn names_are_bounded() {
    refused(
        &with(&format!("customer_field: {}", "x".repeat(129))),
        &["8:21 collections.c.customer_field: must be a name of 1 to 128 bytes"],
    );
    refused(&with("customer_field: \"\""), &["8:21 collections.c.customer_field: must be a name"]);
    refused(&with("customer_field: \"a\\0b\""), &["8:21 collections.c.customer_field: must not hold a NUL"]);
    refused(&with("table: public."), &["8:12 collections.c.table: must be a name"]);
    let error = DataMap::parse(&with("\"x\\n\\e[31m\": 1"), MapKind::Sql).unwrap_err().to_string();
    assert!(!error.contains('\u{1b}') && error.lines().count() == 1, "{error:?}");
}

#[test]
fn what_holds_a_row_is_not_masked() {
    let masked = |field: &str, lines: &str| with(lines).replace("note: message", field);
    refused(&masked("id: user_name", ""), &["6:28 collections.c.fields.id: \"id\" is part of the key"]);
    refused(
        &masked("tenant: company", "customer_field: tenant"),
        &["6:28 collections.c.fields.tenant: \"tenant\" is the customer's column"],
    );
    refused(
        &masked("boss: manager", "owned_by: [{collection: c, fields: {boss: id}}]"),
        &["6:28 collections.c.fields.boss: \"boss\" is part of an owned_by link"],
    );
    refused(
        &with("points_at: [{collection: c, fields: {id: id}}]"),
        &["8:42 collections.c.points_at[0].fields.id: \"id\" is part of the key"],
    );
    refused(
        &with("restriction: {field: id, set: x}"),
        &["8:26 collections.c.restriction.field: \"id\" is part of the key"],
    );
    refused(
        &masked("id: {category: user_name, erase: keep, rectify: true}", ""),
        &["6:76 collections.c.fields.id.rectify: keys, links and the customer's column"],
    );
    // Kept, or in a row that goes as a whole, they harm nothing.
    assert!(DataMap::parse(&masked("id: {category: user_name, erase: keep}", ""), MapKind::Sql).is_ok());
    assert!(DataMap::parse(&masked("id: user_name", "").replace("erase: mask", "erase: delete"), MapKind::Sql).is_ok());
}

#[test]
fn a_deleted_row_keeps_nothing() {
    let field = |field: &str| with("").replace("note: message", field).replace("erase: mask", "erase: delete");
    refused(
        &field("note: {category: message, erase: keep}"),
        &["6:61 collections.c.fields.note.erase: nothing can be kept"],
    );
    refused(
        &field("note: {category: message, erase: {retain: {ground: law, anchor: at, period: P1Y}}}"),
        &["6:70 collections.c.fields.note.erase.retain: one field of a deleted row"],
    );
}

#[test]
fn identifiers_are_erased_too() {
    let undeclared = with("").replace("email: email, note", "note");
    refused(&undeclared, &["5:40 collections.c.identifiers[0].field: \"email\" must be listed in fields too"]);
    assert!(DataMap::parse(&undeclared.replace("erase: mask", "erase: delete"), MapKind::Sql).is_ok());
    let rule = |rest: &str| with("").replace("field: email}", &format!("field: email, {rest}}}"));
    refused(&rule("match: digits"), &["5:54 collections.c.identifiers[0].match: digits is for phone numbers"]);
    refused(&rule("redacts: [nte]"), &["5:57 collections.c.identifiers[0].redacts[0]: unknown field \"nte\""]);
    let map = DataMap::parse(&rule("redacts: [note, email]"), MapKind::Sql).unwrap();
    assert_eq!(map.collections[0].identifiers[0].redacts, ["note", "email"]);
    let twice =
        with("").replace("{kind: email, field: email}", "{kind: email, field: email}, {kind: email, field: email}");
    refused(&twice, &["5:69 collections.c.identifiers[1].field: \"email\" is given twice for email"]);
}

#[test]
fn retentions() {
    let retain = |inner: &str| with(&format!("retain: {{{inner}}}"));
    refused(&retain("ground: law, period: P7Y"), &["8:13 collections.c.retain.anchor: is required"]);
    refused(
        &retain("ground: \" \", anchor: at, period: P7Y"),
        &["8:22 collections.c.retain.ground: must name the law"],
    );
    for bad in [
        "P0Y",
        "P-1Y",
        "7Y",
        "P",
        "P7",
        "PY",
        "P1D1Y",
        "P1Y1Y",
        "PT1H",
        "P1001Y",
        "p7y",
        "P99999999999Y",
        "P1.5Y",
        "P7é",
    ] {
        let yaml = retain(&format!("ground: law, anchor: at, period: {bad}"));
        refused(&yaml, &["8:47 collections.c.retain.period: must be an ISO 8601 period"]);
    }
    for (good, years, months, days) in
        [("P7Y", 7, 0, 0), ("P18M", 0, 18, 0), ("P90D", 0, 0, 90), ("P2W", 0, 0, 14), ("P1Y2M1W3D", 1, 2, 10)]
    {
        let map = DataMap::parse(&retain(&format!("ground: law, anchor: at, period: {good}")), MapKind::Sql).unwrap();
        assert_eq!(map.collections[0].retain.as_ref().unwrap().period, Period { years, months, days });
    }
    let masked_anchor = with("").replace(
        "note: message",
        "at: message, note: {category: message, erase: {retain: {ground: law, anchor: at, period: P1Y}}}",
    );
    refused(&masked_anchor, &["6:105 collections.c.fields.note.erase.retain.anchor: \"at\" is erased itself"]);
}

#[test]
fn every_row_is_reached() {
    let head = "version: 1\ncollections:\n  c: {key: [id], identifiers: [{kind: user_id, field: id}], erase: delete}\n";
    let more = |lines: &str| format!("{head}{lines}\n");
    refused(&more("  d: {key: [id], erase: delete}"), &["4:3 collections.d: is reached by nothing"]);
    let island = "  d: {key: [id], erase: delete, owned_by: [{collection: e, fields: {e: id}}]}\n  e: {key: [id], erase: delete, owned_by: [{collection: d, fields: {d: id}}]}";
    refused(&more(island), &["4:3 collections.d: is reached by nothing", "5:3 collections.e: is reached by nothing"]);
    refused(
        &more("  d: {key: [id], owned_by: [{collection: c, fields: {c: id}}]}"),
        &["4:3 collections.d.erase: is required"],
    );
    refused(
        &more("  d: {key: [id], points_at: [{collection: c, fields: {c: id}}], fields: {a: city}}"),
        &["4:3 collections.d.fields: a collection that only points at others"],
    );
    assert!(
        DataMap::parse(&more("  d: {key: [id], points_at: [{collection: c, fields: {c: id}}]}"), MapKind::Sql).is_ok()
    );
    // One thing that is wrong is told once.
    refused(
        &more("  d: {key: [id], erase: delete, identifiers: [{kind: mail, field: a}]}"),
        &["4:54 collections.d.identifiers[0].kind: must be one of"],
    );
    refused(
        &more("  d: 7\n  e: {key: [id], erase: delete, owned_by: [{collection: d, fields: {d: id}}]}"),
        &["4:3 collections.d: must be a mapping, and is a number"],
    );
}

#[test]
fn owners_stand_first() {
    let order = |links: &[(&str, &[&str])]| {
        let mut yaml = "version: 1\ncollections:\n".to_owned();
        for (name, owners) in links {
            let owners: Vec<_> = owners.iter().map(|o| format!("{{collection: {o}, fields: {{o: id}}}}")).collect();
            yaml += &format!(
                "  {name}: {{key: [id], erase: delete, identifiers: [{{kind: user_id, field: u}}], owned_by: [{}]}}\n",
                owners.join(", ")
            );
        }
        let map = DataMap::parse(&yaml, MapKind::Sql).unwrap_or_else(|e| panic!("{e}"));
        map.collections.into_iter().map(|c| c.name).collect::<String>()
    };
    assert_eq!(order(&[("a", &[]), ("b", &[]), ("c", &[])]), "abc");
    assert_eq!(order(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]), "cba");
    assert_eq!(order(&[("z", &["y", "x"]), ("y", &["x"]), ("x", &["x"]), ("w", &[])]), "xyzw");
    // A cycle, what it owns, and its owner.
    assert_eq!(order(&[("d", &["a"]), ("a", &["b"]), ("b", &["a", "o"]), ("o", &[])]), "obad");
}

#[test]
fn a_declared_map_needs_only_categories() {
    let yaml = "version: 1\ncollections:\n  contacts:\n    identifiers: [{kind: email}]\n    yields: {user_id: id}\n    fields: {name: display_name}\n  tickets: {fields: {body: message}}\n";
    let map = DataMap::parse(yaml, MapKind::Declared).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(map.accepts().collect::<Vec<_>>(), [IdentifierKind::Email]);
    assert_eq!(map.yields().collect::<Vec<_>>(), [IdentifierKind::UserId]);
    assert!(map.collections.iter().all(|c| c.key.is_empty()));
    assert_eq!(
        problems_of("version: 1\ncollections:\n  a: {third_party: true}\n", MapKind::Declared),
        ["3:3 collections.a.fields: is required: what the system declares is its fields and their categories"],
    );
    assert!(DataMap::parse(yaml, MapKind::Sql).is_err());
}

#[test]
fn limits() {
    let big = format!("{}# {}\n", with(""), "x".repeat(MAX_BYTES));
    assert!(problems_of(&big, MapKind::Sql)[0].contains("the limit is 262144"));
    let many = |n: usize| {
        let collections: String = (0..n).map(|i| format!("  c{i}: {{fields: {{a: city}}}}\n")).collect();
        DataMap::parse(&format!("version: 1\ncollections:\n{collections}"), MapKind::Declared)
    };
    assert!(many(500).is_ok());
    assert!(many(501).unwrap_err().to_string().contains("holds 501 entries; the limit is 500"));
    let fields: String = (0..501).map(|i| format!("f{i}: city, ")).collect();
    refused(
        &with("").replace("note: message", &fields),
        &["6:13 collections.c.fields: holds 503 entries"]
            .map(|s| s.replace("503", "502"))
            .each_ref()
            .map(String::as_str),
    );
    let wrong: String = (0..300).map(|i| format!("k{i}: 1\n")).collect();
    let error = DataMap::parse(&with(&wrong), MapKind::Sql).unwrap_err();
    assert_eq!((error.problems.len(), error.omitted), (100, 200));
    assert!(error.to_string().ends_with("\nand 200 more"));
}

#[test]
fn bombs_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}, ", i - 1).repeat(9);
        laughs += &format!("a{i}: &a{i} [{before}]\n");
    }
    assert_eq!(problems_of(&laughs, MapKind::Sql).len(), 1);
    assert!(
        problems_of(&laughs, MapKind::Sql)[0].contains("refers to itself too often"),
        "{:?}",
        problems_of(&laughs, MapKind::Sql)
    );
    for deep in ["[".repeat(100_000), "{a: ".repeat(50_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
        assert_eq!(problems_of(&deep, MapKind::Sql).len(), 1);
    }
    assert!(!problems_of("a: &a [*a]\n", MapKind::Sql).is_empty());
}

#[test]
fn a_retention_may_be_shared_by_anchor() {
    let yaml = with("retain: &law {ground: law, anchor: at, period: P7Y}")
        + "  d: {key: [id], erase: delete, identifiers: [{kind: user_id, field: u}], retain: *law}\n";
    let map = DataMap::parse(&yaml, MapKind::Sql).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(map.collections[0].retain, map.collections[1].retain);
}

fn kinds() -> impl Strategy<Value = MapKind> {
    prop_oneof![Just(MapKind::Sql), Just(MapKind::Declared)]
}

proptest! {
    #[test]
    fn no_text_panics(text: String, kind in kinds()) {
        let _ = DataMap::parse(&text, kind);
    }

    /// A sound map with some of its characters exchanged for others that mean something.
    #[test]
    fn no_damaged_map_panics(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..4, r#"[\[\]{}:,\-&*#"'|>!%@?~ \n\t0-9a-zé]{0,3}"#), 1..8),
        kind in kinds(),
    ) {
        let mut text: Vec<char> = documented().chars().collect();
        for (at, cut, put) in damage {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, put.chars());
        }
        let text: String = text.into_iter().collect();
        let lines = u32::try_from(text.lines().count()).unwrap() + 1;
        if let Err(error) = DataMap::parse(&text, kind) {
            for problem in &error.problems {
                prop_assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{:?}", problem);
            }
            prop_assert_eq!(error.to_string().lines().count(), error.problems.len() + usize::from(error.omitted > 0));
        }
    }
}
