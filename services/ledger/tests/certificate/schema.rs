//! The published schema: what we issue fits it, and it is strict.

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

use crate::sample::{self, signed};

fn valid(value: &Value) -> Result<(), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/certificate.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("certificate.schema.json", schema).unwrap();
    let index = compiler.compile("certificate.schema.json", &mut schemas).unwrap();
    schemas.validate(value, index).map_err(|e| format!("{e:#}"))
}

fn file(input: quittance_ledger::certificate::CertificateInput) -> Value {
    serde_json::from_slice(&signed(input)).unwrap()
}

#[test]
fn what_is_issued_fits_the_published_schema() {
    let reviewed = sample::reviewed(vec![sample::withheld("desk", "tickets", "free_text", 7)]);
    for input in [sample::small(), sample::rich(), sample::interim(), sample::large(3), sample::declined(), reviewed] {
        valid(&file(input)).unwrap();
    }
}

#[test]
fn the_schema_knows_every_member_and_refuses_others() {
    let rich = file(sample::rich());
    let mut objects = Vec::new();
    places(&rich, "", &mut objects);
    assert!(objects.len() > 100);
    for place in objects {
        let mut altered = rich.clone();
        altered.pointer_mut(&place).unwrap().as_object_mut().unwrap().insert("surprise".to_owned(), json!("x"));
        assert!(valid(&altered).is_err(), "{place}");
    }
}

fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            members.iter().for_each(|(k, v)| places(v, &format!("{at}/{k}"), found));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(n, v)| places(v, &format!("{at}/{n}"), found)),
        _ => {}
    }
}

#[test]
fn the_schema_refuses_what_is_no_certificate() {
    for (place, value) in [
        ("/certificate/format", json!("quittance.certificate/v2")),
        ("/certificate/statement/state", json!("DONE")),
        ("/certificate/statement/request/subject", json!("ABCD")),
        ("/certificate/statement/dates/received/at", json!("yesterday")),
        ("/certificate/statement/systems/0/country", json!("Netherlands")),
        ("/certificate/entries", json!([])),
        ("/signatures", json!([])),
    ] {
        let mut altered = file(sample::small());
        *altered.pointer_mut(place).unwrap() = value;
        assert!(valid(&altered).is_err(), "{place}");
    }
}
