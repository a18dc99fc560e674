//! The file: what was signed, to the byte.

use quittance_ledger::certificate::{
    CertificateFault as Fault, CertifiedState, FILE_BYTES_MAX, Signer, check_consistency, issue, open,
};

use crate::sample::{self, SampleKey, certificate_of, resigned, signed, signed_by};

fn trusted() -> Vec<quittance_ledger::certificate::TrustedKey> {
    vec![SampleKey::new(7).trusted()]
}

fn text(file: &[u8]) -> String {
    String::from_utf8(file.to_vec()).unwrap()
}

#[test]
fn what_was_issued_opens_with_the_key_and_stands_up_to_its_entries() {
    for (input, state) in [
        (sample::small(), CertifiedState::Completed),
        (sample::rich(), CertifiedState::CompletedWithExceptions),
        (sample::interim(), CertifiedState::Interim),
        (sample::declined(), CertifiedState::Declined),
        (sample::large(200), CertifiedState::Completed),
    ] {
        let (entries, systems) = (input.entries.len(), input.systems.len());
        let file = signed(input);
        let opened = open(&file, &trusted()).unwrap();
        assert_eq!(opened.signed_by, [SampleKey::new(7).key_id()]);
        let certificate = opened.certificate;
        let checked = check_consistency(&certificate).unwrap();
        assert_eq!((checked.state, checked.entries, checked.systems), (state, entries, systems));
        assert_eq!(certificate.statement.state, state);
    }
}

#[test]
fn the_same_input_is_the_same_file() {
    assert_eq!(signed(sample::rich()), signed(sample::rich()));
}

/// Written down once: a change of these bytes breaks every certificate ever issued.
#[test]
fn a_file_begins_and_ends_as_it_always_did() {
    let file = text(&signed(sample::small()));
    let begin = "{\"certificate\":{\"format\":\"quittance.certificate/v1\",\"issued\":{\"at\":\"2026-05-04T07:31:00Z\",\
                 \"by\":\"ASSERTED\"},\"issuer\":{\"name\":\"Processor B.V., Utrecht\",\"deployment\":\"eu-1\"},\
                 \"customer\":{\"id\":\"acme\",\"display_name\":\"Acme\",";
    assert!(file.starts_with(begin), "{}", &file[..300]);
    let tail = file.split("],\"witnesses\":").nth(1).unwrap();
    let signature = tail.split("\"signatures\":").nth(1).unwrap();
    assert!(signature.starts_with("[{\"key\":\"log.processor.example/quittance+"), "{signature}");
    assert!(signature.ends_with("==\"}]}"), "{signature}");
}

/// Every byte, replaced by several others; every prefix; and every byte left out or doubled.
#[test]
fn any_changed_byte_is_refused() {
    let file = signed(sample::small());
    let keys = trusted();
    let mut altered = file.clone();
    for at in 0..file.len() {
        let byte = file[at];
        for other in [byte ^ 0x01, byte ^ 0x20, byte ^ 0x80, b' ', b'0', b'"', b'A', 0] {
            if other != byte {
                altered[at] = other;
                assert!(open(&altered, &keys).is_err(), "byte {at}: {byte} replaced by {other}");
            }
        }
        altered[at] = byte;
        assert!(open(&file[..at], &keys).is_err(), "cut at {at}");
        let without = [&file[..at], &file[at + 1..]].concat();
        assert!(open(&without, &keys).is_err(), "without byte {at}");
        let doubled = [&file[..at], &[byte], &file[at..]].concat();
        assert!(open(&doubled, &keys).is_err(), "byte {at} doubled");
    }
    assert!(open(&altered, &keys).is_ok());
}

#[test]
fn nothing_may_stand_before_between_or_after() {
    let file = text(&signed(sample::small()));
    for altered in [
        format!("{file}\n"),
        format!(" {file}"),
        format!("\u{feff}{file}"),
        format!("{file}{file}"),
        file.replace("{\"certificate\":", "{ \"certificate\":"),
        file.replace("{\"certificate\":", "{\"note\":1,\"certificate\":"),
        file.replace("{\"certificate\":", "{\"certific\\u0061te\":"),
        file.replace(",\"signatures\":", ",\"signatures\":[],\"signatures\":"),
        file.replace("{\"format\":", "{\"format\": "),
        file.replace("{\"format\":", "{\"also\":\"x\",\"format\":"),
        file.replace("\"display_name\":\"Acme\"", "\"display_name\":\"\\u0041cme\""),
        file.replace("\"window_days\":30", "\"window_days\":30.0"),
        file.replace("\"window_days\":30", "\"window_days\":3e1"),
    ] {
        assert_ne!(altered, file);
        assert!(open(altered.as_bytes(), &trusted()).is_err(), "{}", &altered[..80]);
    }
}

/// Our own key may sign only what is canonical: a reader with another parser must not read something else.
#[test]
fn a_signature_does_not_save_what_is_not_canonical() {
    let file = text(&signed(sample::small()));
    let ours = |certificate: &str| open(resigned(&SampleKey::new(7), certificate).as_bytes(), &trusted());
    let body = certificate_of(&file);
    for (from, to) in [
        ("{\"format\":", "{\"more\":1,\"format\":"),
        ("\"display_name\":\"Acme\"", "\"display_name\":\"Acme\",\"display_name\":\"Acme\""),
        ("\"display_name\":\"Acme\"", "\"display_name\":\"\\u0041cme\""),
        ("\"display_name\":\"Acme\"", "\"display_name\":\"Acme\",\"representative\":\"\""),
        ("\"at\":\"2026-05-04T07:31:00Z\"", "\"at\":\"2026-05-04T07:31:00.000Z\""),
        ("\"at\":\"2026-05-04T07:31:00Z\"", "\"at\":\"2026-05-04T09:31:00+02:00\""),
        ("\"window_days\":30", "\"window_days\": 30"),
        ("quittance.certificate/v1", "quittance.certificate/v2"),
    ] {
        let altered = body.replacen(from, to, 1);
        assert_ne!(altered, body, "{from}");
        assert!(ours(&altered).is_err(), "{to}");
    }
    assert!(ours(body).is_ok());
}

#[test]
fn a_signature_is_by_a_trusted_key_or_nothing() {
    let file = signed(sample::small());
    assert_eq!(open(&file, &[]), Err(Fault::UntrustedKey(0)));
    assert_eq!(open(&file, &[SampleKey::new(6).trusted()]), Err(Fault::UntrustedKey(0)));
    // The right name before the wrong key.
    let mut wrong = SampleKey::new(6).trusted();
    wrong.id = SampleKey::new(7).trusted().id;
    assert_eq!(open(&file, &[wrong]), Err(Fault::Signature(0)));
    // A key that the history does not know signs nothing that anybody could check later.
    let stranger = SampleKey::new(5);
    let file = signed_by(&stranger, sample::small());
    assert_eq!(open(&file, &[stranger.trusted()]), Err(Fault::KeyNotInHistory(0)));
    assert_eq!(issue(sample::small(), &stranger), Err(Fault::KeyNotInHistory(0)));
}

/// Of two replicas one has made the key, and the other's clock is behind: what it issued would be refused for ever.
#[test]
fn nothing_is_issued_with_a_key_that_is_not_in_use() {
    let began = |at: &str| {
        let mut input = sample::small();
        input.log.keys[1].from = sample::at(at);
        issue(input, &SampleKey::new(7))
    };
    assert_eq!(began("2026-05-04T07:31:00.000001Z"), Err(Fault::SignerOutOfUse));
    assert!(began("2026-05-04T07:31:00Z").is_ok());
    let ended = |at: &str| {
        let mut input = sample::small();
        input.log.keys[0].to = Some(sample::at(at));
        issue(input, &SampleKey::new(6))
    };
    assert_eq!(ended("2026-05-04T07:31:00Z"), Err(Fault::SignerOutOfUse));
    assert!(ended("2026-05-04T07:31:00.000001Z").is_ok());
}

#[test]
fn signatures_are_one_to_four_each_by_another_key_and_in_strict_base64() {
    let file = text(&signed(sample::small()));
    let (body, signatures) = file.split_at(file.rfind("\"signatures\":[").unwrap() + "\"signatures\":[".len());
    let one = signatures.strip_suffix("]}").unwrap();
    let with = |signatures: &str| open(format!("{body}{signatures}]}}").as_bytes(), &trusted());
    assert_eq!(with(""), Err(Fault::Signatures(4)));
    assert_eq!(with(&format!("{one},{one}")), Err(Fault::Signatures(4)));
    let value = one.split("\"signature\":\"").nth(1).unwrap().trim_end_matches("\"}");
    for other in [
        value.trim_end_matches('=').to_owned(),
        format!("{value}="),
        value.replace("==", ""),
        format!("{value}\\n"),
        String::new(),
        // 64 bytes of zeros, and 32 bytes.
        "A".repeat(86) + "==",
        value[..44].to_owned(),
    ] {
        assert!(with(&one.replace(value, &other)).is_err(), "{other}");
    }
    // The last letter before the padding has four bits that say nothing: they must be zero.
    let at = value.find("==").unwrap() - 1;
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".chars() {
        let other = format!("{}{letter}==", &value[..at]);
        assert_eq!(with(&one.replace(value, &other)).is_ok(), other == value, "{letter}");
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let huge = vec![b' '; FILE_BYTES_MAX + 1];
    assert_eq!(open(&huge, &trusted()), Err(Fault::TooLarge(FILE_BYTES_MAX)));
}

#[test]
fn no_fault_repeats_what_stands_in_the_file() {
    let file = text(&signed(sample::small()));
    let altered = file.replace("\"state\":\"COMPLETED\"", "\"state\":\"mara@example.com\"");
    let fault = open(resigned(&SampleKey::new(7), certificate_of(&altered)).as_bytes(), &trusted()).unwrap_err();
    assert!(matches!(fault, Fault::Form(_)), "{fault}");
    assert!(!fault.to_string().contains("mara"), "{fault}");
}
