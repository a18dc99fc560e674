//! Whom it was about: the customer can prove it, and nobody else can find out.

use quittance_domain::ids::CustomerId;
use quittance_ledger::certificate::{OPENING_BYTES_MAX, OpeningFault, SubjectOpening, open};

use crate::sample::{self, SampleKey, customer, identifiers, request, signed, subject_opening};

fn certificate() -> quittance_ledger::certificate::Certificate {
    open(&signed(sample::small()), &[SampleKey::new(7).trusted()]).unwrap().certificate
}

#[test]
fn the_opening_proves_whom_the_certificate_is_about() {
    let file = subject_opening().write().unwrap();
    let text = std::str::from_utf8(&file).unwrap();
    assert_eq!(
        text,
        format!(
            "{{\"format\":\"quittance.subject-opening/v1\",\"customer\":\"acme\",\"request\":\"{}\",\"salt\":\"{}\",\
             \"identifiers\":[\"email:mara@example.com\",\"user_id:U-7\"]}}",
            request(),
            "ee".repeat(32)
        )
    );
    let read = SubjectOpening::read(&file).unwrap();
    assert_eq!(read.verify(&certificate()), Ok(()));
    assert_eq!(read.identifiers(), ["email:mara@example.com", "user_id:U-7"]);
}

#[test]
fn another_person_salt_or_request_does_not_open_it() {
    let other = |customer, request, salt, identifiers: &[_]| {
        SubjectOpening::new(customer, request, salt, identifiers).verify(&certificate())
    };
    let (salt, all) = (sample::SUBJECT_SALT, identifiers());
    assert_eq!(other(customer(), request(), salt, &all), Ok(()));
    assert_eq!(other(customer(), request(), salt, &all[..1]), Err(OpeningFault::Mismatch));
    assert_eq!(other(customer(), request(), [8; 32], &all), Err(OpeningFault::Mismatch));
    let globex = CustomerId::new("globex").unwrap();
    assert_eq!(other(globex, request(), salt, &all), Err(OpeningFault::OtherRequest));
}

#[test]
fn any_changed_byte_of_an_opening_is_refused() {
    let file = subject_opening().write().unwrap();
    let certificate = certificate();
    let mut altered = file.to_vec();
    for at in 0..file.len() {
        for other in [file[at] ^ 1, file[at] ^ 0x20, b' ', b'"', b'0', b'x'] {
            if other != file[at] {
                altered[at] = other;
                let opened = SubjectOpening::read(&altered).and_then(|opening| opening.verify(&certificate));
                assert!(opened.is_err(), "byte {at} replaced by {other}");
            }
        }
        altered[at] = file[at];
    }
}

#[test]
fn an_opening_has_one_form_only() {
    let text = String::from_utf8(subject_opening().write().unwrap().to_vec()).unwrap();
    for (from, to) in [
        ("[\"email:mara@example.com\",\"user_id:U-7\"]", "[]"),
        ("[\"email:mara@example.com\",\"user_id:U-7\"]", "[\"user_id:U-7\",\"email:mara@example.com\"]"),
        // The same bytes under the commitment, cut otherwise.
        ("\"email:mara@example.com\",\"user_id:U-7\"", "\"email:mara@example.com\\nuser_id:U-7\""),
        ("\"user_id:U-7\"", "\"nickname:U-7\""),
        ("\"user_id:U-7\"", "\"user_id:\""),
        ("{\"format\"", "{\"more\":1,\"format\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(SubjectOpening::read(text.replace(from, to).as_bytes()), Err(OpeningFault::Form), "{to}");
    }
    assert_eq!(SubjectOpening::read(format!("{text}\n").as_bytes()), Err(OpeningFault::Form));
    assert_eq!(SubjectOpening::read(&vec![b' '; OPENING_BYTES_MAX + 1]), Err(OpeningFault::TooLarge));
}

#[test]
fn an_opening_does_not_show_itself_in_a_log() {
    assert_eq!(format!("{:?}", subject_opening()), "SubjectOpening(2 identifiers)");
}

#[test]
fn the_certificate_itself_does_not_say_whom_it_is_about() {
    for input in [sample::small(), sample::rich(), sample::interim()] {
        let file = String::from_utf8(signed(input)).unwrap();
        assert!(!file.contains("mara@") && !file.contains("U-7") && !file.contains(&"ee".repeat(32)));
    }
}
