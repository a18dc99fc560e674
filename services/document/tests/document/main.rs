//! The printed certificate, read back by other people's programs.

#[expect(dead_code, reason = "shared with the ledger's tests, which need more of it")]
#[path = "../../../ledger/tests/certificate/sample.rs"]
mod sample;

use std::{
    path::Path,
    process::{Command, Output},
};

use quittance_document::{DocumentError, Language, render};
use quittance_domain::{
    action::Action,
    ids::{ReplayId, RequestId},
    outcome::{Grade, OutcomeKind},
    request::RequestState,
};
use quittance_ledger::{
    Event, FollowedUp,
    certificate::{CertificateFault, CertificateInput, TrustedKey},
};
use sample::{SampleKey, signed};
use uuid::Uuid;

fn trusted() -> Vec<TrustedKey> {
    vec![SampleKey::new(7).trusted()]
}

fn rendered(input: CertificateInput, language: Language) -> (Vec<u8>, Vec<u8>) {
    let file = signed(input);
    let pdf = render(&file, &trusted(), language).unwrap();
    (file, pdf)
}

/// Programs of the packages poppler-utils and qpdf, which tests/with-servers.sh installs.
fn run(program: &str, package: &str, arguments: &[&str]) -> Output {
    match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(e) => panic!("{program} does not run ({e}): install the Debian package {package}"),
    }
}

fn in_file<T>(pdf: &[u8], read: impl FnOnce(&str) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certificate.pdf");
    std::fs::write(&path, pdf).unwrap();
    read(path.to_str().unwrap())
}

/// The text in reading order, with line breaks as blanks.
fn text(pdf: &[u8]) -> String {
    let output = in_file(pdf, |path| run("pdftotext", "poppler-utils", &["-raw", "-nopgbrk", path, "-"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_sound(pdf: &[u8]) {
    let output = in_file(pdf, |path| run("qpdf", "qpdf", &["--check", path]));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(!said.to_lowercase().contains("warning"), "{said}");
}

fn says(text: &str, facts: &[&str]) {
    // A long word may have been cut at a line's end.
    let joined: String = text.split(' ').collect();
    for fact in facts {
        let fact: String = fact.split(' ').collect();
        assert!(joined.contains(&fact), "{fact} is not in: {text}");
    }
}

fn digest(file: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn pages(pdf: &[u8]) -> usize {
    let output = in_file(pdf, |path| run("pdfinfo", "poppler-utils", &[path]));
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("Pages:")).unwrap();
    line.trim_start_matches("Pages:").trim().parse().unwrap()
}

#[test]
fn a_small_certificate_prints_its_key_facts() {
    let (file, pdf) = rendered(sample::small(), Language::English);
    is_sound(&pdf);
    let text = text(&pdf);
    says(
        &text,
        &[
            "Certificate: erasure of personal data",
            "COMPLETED IN TIME",
            "Acme Nederland B.V., Stationsplein 1, 3511 ED Utrecht",
            "Processor B.V., Utrecht (eu-1)",
            "0193a6f2-7c1e-7d40-9a2b-5f0c8e4d1a77",
            "DSR-2026-0042",
            "2 March 2026, 10:15:04 (UTC+01:00)",
            "2026-03-02T09:15:04.120334Z",
            "1 April 2026, 23:59:59 (UTC+02:00)",
            "Customer database (CRM)",
            "Netherlands (NL)",
            "erased verified absent 2",
            "The last backup that may hold the data expires on 6 April 2026",
            "5. What is kept, and until when None.",
            "The controller can obtain its opening, a file of its own, until the request's data are forgotten",
            "Page 1 of",
            &digest(&file),
        ],
    );
    assert!(!text.contains("mara"), "the person is named by commitment only");
}

#[test]
fn holds_exceptions_expiries_decisions_and_lateness_are_all_told() {
    let (_, pdf) = rendered(sample::rich(), Language::English);
    is_sound(&pdf);
    says(
        &text(&pdf),
        &[
            "COMPLETED LATE, WITH EXCEPTIONS",
            "Art. 52 Algemene wet inzake rijksbelastingen; GDPR Art. 17(3)(b)",
            "1 January 2034, 00:00:00 (UTC+01:00) = 2033-12-31T23:00:00Z",
            "The vendor has ceased trading; no reply since 2026-03-20",
            "Expires by itself: message_media, photo",
            "Vendor's receipt; reference PRIV-88213",
            "5b0e9c0d7b1a4f2c8e6d3a9f1b7c5d2e4f6a8091b2c3d4e5f60718293a4b5c6d",
            "Extension decided by customers/acme: Complexity: a sub-processor does not answer (Art. 12(3))",
            "The processor objected to the instruction",
            "The address belongs to two account holders",
            "LATE; by operators/kim",
            "in the log by 2026-05-04T07:30:02Z (witness.university.example)",
            "Backups may still hold it 25 May 2026",
            "Télécopie S.à r.l.",
            "Sub-processor",
            "Ireland (IE)",
        ],
    );
}

#[test]
fn an_interim_statement_says_so_and_names_what_is_open() {
    let (_, pdf) = rendered(sample::interim(), Language::English);
    is_sound(&pdf);
    says(
        &text(&pdf),
        &[
            "Interim statement: erasure of personal data",
            "The request is open: 4 of 6 systems have confirmed. This is not a certificate of completion.",
            "Needs attention. It cannot go on without a person's decision.",
            "NO_USABLE_IDENTIFIER",
            "Awaiting confirmation.",
            "The system has not confirmed",
        ],
    );
}

#[test]
fn what_was_declined_is_told_with_what_had_been_done_and_why_it_ended() {
    for (language, facts) in [
        (
            Language::English,
            [
                "Statement of what was done: erasure of personal data",
                "DECLINED",
                "Of the 3 systems that it was planned for, 1 confirmed",
                "Remote worker, data map 3 nothing was done",
                "Nothing had begun when the request ended, and nothing was done",
                "REQUEST_CLOSED",
                "The controller declined the request customers/acme – You are right, we must keep it",
            ],
        ),
        (
            Language::Dutch,
            [
                "Verklaring van wat is gedaan: wissing van persoonsgegevens",
                "AFGEWEZEN",
                "Van de 3 systemen waarvoor zij was gepland, bevestigden er 1",
                "niets gedaan",
                "Er was niets begonnen toen het verzoek eindigde, en er is niets gedaan",
                "REQUEST_CLOSED",
                "De verantwoordelijke wees het verzoek af",
            ],
        ),
    ] {
        let (_, pdf) = rendered(sample::declined(), language);
        is_sound(&pdf);
        says(&text(&pdf), &facts);
    }
}

/// It ended the day after it was due, in one of two ways.
#[test]
fn what_was_declined_or_cancelled_late_is_called_late() {
    let ended = |end: RequestState, at: &str| {
        let events = [
            sample::instructed(Action::Erasure),
            sample::planned(&["crm"]),
            Event::Closed { state: end, by: "customers/acme".to_owned(), reason: String::new(), at_us: sample::us(at) },
        ];
        sample::input(sample::openings(&events), &["crm"])
    };
    let (due, over) = ("2026-04-01T21:59:59.999999Z", "2026-04-02T21:59:59.999999Z");
    for (end, language, told) in [
        (RequestState::Declined, Language::English, "DECLINED LATE"),
        (RequestState::Declined, Language::Dutch, "TE LAAT AFGEWEZEN"),
        (RequestState::Cancelled, Language::English, "CANCELLED LATE"),
        (RequestState::Cancelled, Language::Dutch, "TE LAAT INGETROKKEN"),
    ] {
        says(&text(&rendered(ended(end, over), language).1), &[told]);
        let in_time = text(&rendered(ended(end, due), language).1);
        assert!(!in_time.contains("LATE") && !in_time.contains("TE LAAT"), "{in_time}");
    }
}

#[test]
fn who_extended_it_is_told_where_it_was_recorded() {
    let extended = |by: &str| {
        let mut events = vec![
            sample::instructed(Action::Erasure),
            sample::planned(&["crm"]),
            Event::Extended {
                due_us: sample::us("2026-05-01T21:59:59.999999Z"),
                by: by.to_owned(),
                reason: "Complexity".to_owned(),
                at_us: sample::us("2026-03-28T11:30:00Z"),
            },
        ];
        let erased = sample::line("contacts", "email", OutcomeKind::Erased, Grade::Verified, 2);
        events.push(Event::Confirmed { confirmation: sample::confirmed("crm", vec![erased]), late: false });
        let at_us = sample::us("2026-03-28T12:00:00Z");
        events.push(Event::Completed { state: RequestState::Completed, at_us, late: false });
        sample::input(sample::openings(&events), &["crm"])
    };
    for (language, by, told) in [
        (Language::English, "customers/acme", "Extension decided by customers/acme: Complexity"),
        (Language::Dutch, "customers/acme", "Tot verlenging besloten door customers/acme: Complexity"),
        (Language::English, "", "Extension decided: Complexity"),
    ] {
        says(&text(&rendered(extended(by), language).1), &[told]);
    }
}

#[test]
fn it_can_be_had_in_dutch() {
    let (_, pdf) = rendered(sample::rich(), Language::Dutch);
    is_sound(&pdf);
    let text = text(&pdf);
    says(
        &text,
        &[
            "Certificaat: wissing van persoonsgegevens",
            "art. 17 AVG",
            "TE LAAT VOLTOOID, MET UITZONDERINGEN",
            "2 maart 2026, 10:15:04 (UTC+01:00)",
            "Verwerkingsverantwoordelijke",
            "afwezigheid vastgesteld",
            "Zweden (SE)",
            "Subverwerker",
            "Pagina 1 van",
        ],
    );
    for english in ["erased", "Controller", "verified", "Sub-processor", "GDPR Art. 28"] {
        assert!(!text.contains(english), "{english}");
    }
}

#[test]
fn two_hundred_systems_break_over_pages_and_none_is_left_out() {
    let (_, pdf) = rendered(sample::large(200), Language::English);
    is_sound(&pdf);
    let text = text(&pdf);
    for n in 0..200 {
        assert!(text.contains(&format!("(systems/backend-{n:03})")), "{n}");
    }
    let pages = pages(&pdf);
    assert!(pages > 30, "{pages}");
    says(&text, &[&format!("Page {pages} of {pages}")]);
}

/// As a camera sees the first page.
#[test]
fn the_code_on_the_first_page_holds_the_digest_of_the_file() {
    let (file, pdf) = rendered(sample::rich(), Language::English);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("page").to_str().unwrap().to_owned();
    let output = in_file(&pdf, |path| {
        run("pdftoppm", "poppler-utils", &["-gray", "-r", "200", "-f", "1", "-l", "1", "-singlefile", path, &root])
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read(format!("{root}.pgm")).unwrap();
    let mut header = page.splitn(4, |b| b.is_ascii_whitespace());
    let mut number = || std::str::from_utf8(header.next().unwrap()).unwrap().to_owned();
    let (magic, width, height) = (number(), number(), number());
    assert_eq!(magic, "P5");
    let (width, height): (usize, usize) = (width.parse().unwrap(), height.parse().unwrap());
    let pixels = &page[page.len() - width * height..];
    let mut seen = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    let codes: Vec<String> = seen.detect_grids().iter().map(|grid| grid.decode().unwrap().1).collect();
    assert_eq!(codes, [format!("sha256:{}", digest(&file))]);
}

/// Whoever reads the paper finds the file.
#[test]
fn the_signed_file_is_attached_to_the_byte() {
    let (file, pdf) = rendered(sample::small(), Language::Dutch);
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved.json");
    let to = saved.to_str().unwrap().to_owned();
    let output = in_file(&pdf, |path| run("pdfdetach", "poppler-utils", &["-save", "1", "-o", &to, path]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(Path::new(&to)).unwrap(), file);
}

#[test]
fn the_file_calls_itself_what_it_is() {
    let (_, pdf) = rendered(sample::small(), Language::Dutch);
    let info = in_file(&pdf, |path| run("pdfinfo", "poppler-utils", &["-isodates", path]));
    let info = String::from_utf8(info.stdout).unwrap();
    for line in ["Tagged: yes", "Encrypted: no", "PDF version: 1.7", "CreationDate: 2026-05-04T07:31:00Z"] {
        let squeezed = info.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains(line), "{line}: {info}");
    }
    let metadata = in_file(&pdf, |path| run("pdfinfo", "poppler-utils", &["-meta", path]));
    let metadata = String::from_utf8(metadata.stdout).unwrap();
    for tag in
        ["<pdfaid:part>3</pdfaid:part>", "<pdfaid:conformance>A</pdfaid:conformance>", "<pdfuaid:part>1</pdfuaid:part>"]
    {
        assert!(metadata.contains(tag), "{tag}: {metadata}");
    }
}

#[test]
fn the_same_file_is_the_same_document() {
    let file = signed(sample::rich());
    let once = render(&file, &trusted(), Language::Dutch).unwrap();
    assert!(once == render(&file, &trusted(), Language::Dutch).unwrap());
    assert!(once != render(&file, &trusted(), Language::English).unwrap());
}

#[test]
fn nothing_is_printed_of_a_file_that_does_not_hold() {
    let mut file = signed(sample::small());
    assert_eq!(
        render(&file, &[], Language::English),
        Err(DocumentError::Certificate(CertificateFault::UntrustedKey(0)))
    );
    let at = file.len() / 2;
    file[at] ^= 1;
    assert!(matches!(render(&file, &trusted(), Language::English), Err(DocumentError::Certificate(_))));
}

/// Names come from people: other scripts, control characters and very long texts must not stop a certificate.
#[test]
fn any_name_can_be_printed() {
    let mut odd = sample::rich();
    odd.customer.display_name = "株式会社 \u{202e}\u{0007}\u{e000}🦀 Ωmega".to_owned();
    odd.customer.controller = "x".repeat(4000);
    odd.issuer.name = "word ".repeat(2000);
    let (_, pdf) = rendered(odd, Language::English);
    is_sound(&pdf);
    says(&text(&pdf), &["[U+682A][U+5F0F]", "[U+1F980]", "Ωmega", &"x".repeat(4000)]);
}

/// What another request had instructed or kept, at one system.
fn carrying_on(kept: Option<RequestId>, again: Option<FollowedUp>) -> CertificateInput {
    let mut instructed = sample::instructed(Action::Erasure);
    if let Event::Instructed { follows, follow_up, .. } = &mut instructed {
        (*follows, *follow_up) = (kept, again);
    }
    let erased = sample::line("contacts", "email", OutcomeKind::Erased, Grade::Verified, 2);
    let at_us = sample::us("2026-03-02T09:16:12.1Z");
    let events = [
        instructed,
        sample::planned(&["crm"]),
        Event::Confirmed { confirmation: sample::confirmed("crm", vec![erased]), late: false },
        Event::Completed { state: RequestState::Completed, at_us, late: false },
    ];
    sample::input(sample::openings(&events), &["crm"])
}

#[test]
fn what_carries_another_request_on_names_it_and_claims_no_other_systems() {
    let first = RequestId::new(Uuid::from_u128(7));
    let again = FollowedUp { follows: first, system: sample::system("crm"), replay: ReplayId::new(Uuid::from_u128(8)) };
    let (openable, not) = ("The controller can obtain its opening", "the digest has no opening");
    for (input, told, opening) in [
        (carrying_on(Some(first), None), format!("Carried on What was kept after request {first}"), [not, openable]),
        (
            carrying_on(None, Some(again)),
            format!("Carried out again What request {first} had instructed, at crm"),
            [openable, not],
        ),
    ] {
        let (_, pdf) = rendered(input, Language::English);
        is_sound(&pdf);
        let text = text(&pdf);
        let [told_of_it, not_told] = opening;
        says(&text, &[&told, &format!("of the other systems the certificate of request {first} tells"), told_of_it]);
        assert!(!text.contains("All systems") && !text.contains(not_told), "{text}");
    }
    let (_, pdf) = rendered(sample::small(), Language::English);
    says(&text(&pdf), &["All systems of the processor and its sub-processors"]);
}

#[test]
fn what_was_withheld_is_told_in_both_languages() {
    let kept_out = || sample::reviewed(vec![sample::withheld("desk", "tickets", "free_text", 7)]);
    for (language, facts) in [
        (
            Language::English,
            [
                "7. What was not done, or not yet",
                "Kept out of the package by the controller, since it concerns others (GDPR Art. 15(4)): tickets, free_text; 7 records",
                "The controller reviewed what also concerns others (GDPR Art. 15(4))",
            ],
        ),
        (
            Language::Dutch,
            [
                "7. Wat niet of nog niet is gedaan",
                "Door de verantwoordelijke buiten het pakket gehouden, omdat het anderen betreft (art. 15 lid 4 AVG): tickets, free_text; aantal gegevens: 7",
                "De verantwoordelijke beoordeelde wat ook anderen betreft (art. 15 lid 4 AVG)",
            ],
        ),
    ] {
        let (_, pdf) = rendered(kept_out(), language);
        is_sound(&pdf);
        says(&text(&pdf), &facts);
    }
}
