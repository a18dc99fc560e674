//! Nederlands.

use quittance_domain::{
    action::{Action, InstructionKind, RestrictionGround},
    outcome::{EvidenceKind, Grade, OutcomeKind},
    system::{ConnectorKind, SystemRole},
    task::TaskState,
};
use quittance_ledger::certificate::DecisionKind;

use super::{Texts, Word, word};

pub static MONTHS: [&str; 12] = [
    "januari",
    "februari",
    "maart",
    "april",
    "mei",
    "juni",
    "juli",
    "augustus",
    "september",
    "oktober",
    "november",
    "december",
];

pub static TEXTS: Texts = Texts {
    certificate: "Certificaat: {action}",
    interim_statement: "Tussentijdse verklaring: {action}",
    closing_statement: "Verklaring van wat is gedaan: {action}",
    intro_completed: "{processor}, de verwerker, verklaart aan {controller}, de verwerkingsverantwoordelijke, hoe de in onderdeel 1 \
                      genoemde instructie is uitgevoerd (art. 28 lid 3 onder e en h AVG). De instructie is aan {systems} systemen \
                      gegeven, en elk daarvan heeft bevestigd wat onderdeel 4 vermeldt.",
    intro_exceptions: "{processor}, de verwerker, verklaart aan {controller}, de verwerkingsverantwoordelijke, hoe de in onderdeel 1 \
                       genoemde instructie is uitgevoerd (art. 28 lid 3 onder e en h AVG). De instructie is aan {systems} systemen \
                       gegeven. Onderdeel 4 vermeldt wat elk daarvan heeft bevestigd; wat niet kon worden bevestigd staat in \
                       onderdeel 6.",
    intro_interim: "{processor}, de verwerker, verklaart aan {controller}, de verwerkingsverantwoordelijke, hoe het staat met de in \
                    onderdeel 1 genoemde instructie (art. 28 lid 3 onder e en h AVG). Het verzoek is nog open: {confirmed} van de \
                    {systems} systemen hebben bevestigd. Dit is geen certificaat van voltooiing.",
    intro_declined: "{processor}, de verwerker, verklaart aan {controller}, de verwerkingsverantwoordelijke, wat van de in onderdeel 1 genoemde \
                     instructie was gedaan toen de verwerkingsverantwoordelijke haar afwees (art. 28 lid 3 onder e en h AVG). Van de {systems} systemen \
                     waarvoor zij was gepland, bevestigden er {confirmed} wat onderdeel 4 vermeldt; onderdeel 7 noemt waar niets is gedaan. \
                     Waarom het eindigde staat in onderdeel 8. Dit is geen certificaat van voltooiing.",
    intro_cancelled: "{processor}, de verwerker, verklaart aan {controller}, de verwerkingsverantwoordelijke, wat van de in onderdeel 1 genoemde \
                      instructie was gedaan toen de verwerkingsverantwoordelijke haar introk (art. 28 lid 3 onder e en h AVG). Van de {systems} systemen \
                      waarvoor zij was gepland, bevestigden er {confirmed} wat onderdeel 4 vermeldt; onderdeel 7 noemt waar niets is gedaan. \
                      Waarom het eindigde staat in onderdeel 8. Dit is geen certificaat van voltooiing.",
    result_completed: "OP TIJD VOLTOOID",
    result_completed_late: "TE LAAT VOLTOOID",
    result_exceptions: "OP TIJD VOLTOOID, MET UITZONDERINGEN",
    result_exceptions_late: "TE LAAT VOLTOOID, MET UITZONDERINGEN",
    result_open: "OPEN",
    result_open_late: "OPEN, EN TE LAAT",
    result_declined: "AFGEWEZEN",
    result_declined_late: "TE LAAT AFGEWEZEN",
    result_cancelled: "INGETROKKEN",
    result_cancelled_late: "TE LAAT INGETROKKEN",
    code_caption: "SHA-256 van het ondertekende bestand",
    code_alternative: "QR-code met de SHA-256-waarde van het ondertekende bestand: {digest}",
    instruction: "1. De instructie",
    dates: "2. Termijnen en tijdstippen",
    overview: "3. De systemen",
    systems: "4. Wat elk systeem heeft verklaard",
    holds: "5. Wat wordt bewaard, en tot wanneer",
    exceptions: "6. Wat niet kon worden bevestigd",
    not_processed: "7. Wat niet of nog niet is gedaan",
    decisions: "8. Beslissingen onderweg",
    words: "9. Wat de woorden betekenen",
    check: "10. Hoe dit document te controleren is",
    controller: "Verwerkingsverantwoordelijke",
    representative: "Vertegenwoordiger",
    data_protection_officer: "Functionaris gegevensbescherming",
    processor: "Verwerker",
    agreement: "Overeenkomst",
    agreement_terms: "Versie {version}, ondertekend op {signed}; {days} dagen, geteld in de tijdzone {zone}",
    request: "Verzoek",
    reference: "Kenmerk van de verantwoordelijke",
    action: "Handeling",
    basis: "Instructie",
    restriction_ground: "Grond van de beperking",
    instructed_by: "Gegeven door",
    follow_up: "Opnieuw uitgevoerd",
    follow_up_of: "Wat verzoek {request} had opgedragen, bij {system}, dat vanuit een back-up is hersteld",
    follows: "Voortgezet",
    follows_hold_of: "Wat na verzoek {request} werd bewaard, nu de tijd om is",
    instructed_by_referred: "{by}; het kwam niet van de verwerkingsverantwoordelijke en is aan haar voorgelegd (onderdeel 8)",
    person: "Betrokkene",
    person_commitment: "Hier niet genoemd; vastlegging {commitment}",
    issued: "Afgegeven",
    dates_note: "Lokale tijden zijn die van {zone}, de tijdzone van de overeenkomst. Ernaast staat wie een tijd opgeeft.",
    event: "Gebeurtenis",
    local_time: "Lokale tijd",
    utc: "UTC",
    word_of: "Bron",
    subject_asked: "De betrokkene vroeg het de verantwoordelijke",
    subject_informed: "De betrokkene is ge\u{ef}nformeerd",
    received: "Ontvangen door de verwerker",
    controller_due: "De verantwoordelijke moet antwoorden v\u{f3}\u{f3}r",
    first_due: "Eerste uiterste datum",
    extension_decided: "Tot verlenging besloten: {reason}",
    extension_decided_by: "Tot verlenging besloten door {by}: {reason}",
    extension_due: "Verlengd tot",
    due: "Uiterste datum",
    completed: "Voltooid",
    asserted: "Eigen opgave",
    by_customer: "Verantwoordelijke",
    attested: "Eigen opgave; in het logboek op {at} ({by})",
    overview_note: "Alle systemen van de verwerker en zijn subverwerkers die gegevens van deze verwerkingsverantwoordelijke kunnen bevatten, bij de \
                    planning of sindsdien. Van de ontvangers aan wie gegevens zijn verstrekt (art. 19 AVG) alleen wie in kennis moest worden gesteld.",
    overview_note_follows: "Alleen wat dit verzoek voortzet, waar het dat doet: over de andere systemen vertelt het certificaat van verzoek {request}.",
    system: "Systeem",
    role: "Rol",
    country: "Land",
    connector: "Koppeling",
    connector_and_map: "{connector}, gegevenskaart {version}",
    result: "Resultaat",
    confirmed: "Bevestigd",
    confirmed_in_time: "{time}, op tijd; door {by}",
    confirmed_late: "{time}, TE LAAT; door {by}",
    evidence: "Bewijs",
    evidence_reference: "kenmerk {reference}",
    evidence_digest: "SHA-256 {digest}",
    read_back: "Teruggelezen",
    read_back_none: "De verwerker heeft niet opnieuw gekeken; het bewijs vermeldt waarop de verklaring berust",
    backups: "Reservekopie\u{eb}n",
    backups_until: "De laatste reservekopie die de gegevens kan bevatten vervalt op {time}",
    backups_none: "Niet opgegeven",
    planned: "Gepland",
    open_state: "Stand",
    open: "niet bevestigd",
    not_begun: "niets gedaan",
    collection: "Verzameling",
    category: "Categorie",
    outcome: "Uitkomst",
    grade: "Zekerheid",
    count: "Rijen",
    basis_and_until: "Grond of reden; tot",
    until: "Tot",
    ground: "Grond",
    reason: "Reden",
    holds_note: "Bewaard op grond van een uitzondering op wissing (art. 17 lid 3 AVG), en te wissen zodra de tijd om is. Waar het intussen als \
                 beperkt is gemarkeerd, vermeldt onderdeel 4 dat.",
    exceptions_note: "Niets ondersteunt dat dit is gedaan. Het wordt niet naar boven afgerond tot een succes.",
    not_processed_note: "Bij afgifte van dit document, naast wat de onderdelen 5 en 6 vermelden.",
    what: "Wat",
    not_processed_open: "Het systeem heeft niet bevestigd",
    not_processed_not_begun: "Er was niets begonnen toen het verzoek eindigde, en er is niets gedaan",
    not_processed_expires: "Vervalt vanzelf: {collection}, {category}",
    not_processed_backups: "Reservekopie\u{eb}n kunnen het nog bevatten",
    not_processed_withheld: "Door de verantwoordelijke buiten het pakket gehouden, omdat het anderen betreft (art. 15 lid 4 AVG): {collection}, {category}; aantal gegevens: {count}",
    none: "Geen.",
    everything: "alle",
    no_systems: "Er is nog geen systeem gepland: het verzoek wacht op het woord van de verwerkingsverantwoordelijke.",
    no_systems_ended: "Er was nog geen systeem gepland toen het verzoek eindigde: er is nergens iets gedaan.",
    decided: "Genomen",
    decision: "Beslissing",
    by: "Door",
    words_note: "Zoals ze in dit document worden gebruikt.",
    term: "Woord",
    meaning: "Betekenis",
    verified_absent: "afwezigheid vastgesteld",
    asserted_meaning: "Een tijd volgens de eigen klok van de verwerker. Niemand anders staat ervoor in.",
    attested_meaning: "Naast het woord van de verwerker heeft een onafhankelijke getuige op de genoemde tijd ondertekend dat het \
                       logboek de vermelding al bevatte: zij is niet later geschreven.",
    by_customer_meaning: "Een tijd die de verwerkingsverantwoordelijke heeft opgegeven; de verwerker herhaalt haar slechts.",
    commitment_term: "vastlegging",
    commitment_meaning: "Een SHA-256-waarde met salt over de identificatiegegevens van de betrokkene. De verwerkingsverantwoordelijke kan de \
                         sleutel ertoe, een eigen bestand, opvragen tot de gegevens van het verzoek zijn vergeten, en daarmee aantonen over \
                         wie dit document gaat; niemand anders kan dat achterhalen (art. 5 lid 1 onder c AVG).",
    commitment_meaning_follows: "Een SHA-256-waarde met salt. Dit verzoek is gedaan zonder identificatiegegevens van de betrokkene, en een \
                                 sleutel ertoe bestaat niet. Onderdeel 1 noemt het verzoek dat het voortzet: beide gaan over dezelfde betrokkene.",
    backups_meaning: "\u{201c}Vastgesteld\u{201d} gaat over actuele gegevens. Reservekopie\u{eb}n worden niet gewijzigd; zij vervallen op de \
                      tijd die bij elk systeem staat, en wat eerder uit een kopie wordt teruggezet, moet opnieuw worden gewist.",
    check_file: "Ondertekend bestand",
    check_digest: "SHA-256 van het bestand",
    check_signed_by: "Ondertekend met de sleutel",
    check_log: "Logboek",
    check_keys: "Sleutels van het logboek",
    key_current: "geldig sinds {from}",
    key_retired: "van {from} tot {to}",
    key_revoked: "ingetrokken, van {from} tot {to}",
    witness: "Getuige",
    witnesses_none: "Geen getuigen: alle tijden zijn eigen opgave.",
    check_command: "Het ondertekende bestand certificate.json is bij deze PDF gevoegd. Het commando \u{201c}quittance verify \
                    certificate.json --key KEY\u{201d} controleert het zonder verbinding, en dat kan ook elke software die Ed25519, RFC 9162 en de C2SP-formaten signed-note en \
                    tlog-proof kent. Haal de sleutel ergens anders vandaan dan uit dit document.",
    check_statement: "De verklaring volgt uit {entries} vermeldingen in een logboek dat alleen kan groeien; het bestand bevat elk daarvan \
                      met het bewijs dat het logboek haar heeft. Een controle berekent de verklaring daaruit opnieuw en weigert het \
                      bestand als er een enkele byte is gewijzigd.",
    check_alone: "Alleen op de handtekening van de verwerker berusten: wanneer het bestand is afgegeven en door wie; de namen van de \
                  verwerkingsverantwoordelijke en van de systemen, hun rollen, landen en koppelingen; de voorwaarden van de \
                  overeenkomst; hoe taken staan die niet zijn bevestigd, en welke niet waren begonnen toen het verzoek eindigde; en de \
                  lijst van sleutels.",
    check_prevails: "Dit document is om te lezen. Waar het afwijkt van het ondertekende bestand, gaat het bestand voor.",
    page: "Pagina {page} van {pages}",
};

pub const fn action(action: Action) -> Word {
    match action {
        Action::Access => word("inzage in persoonsgegevens", "art. 15 AVG"),
        Action::Rectification => word("rectificatie van persoonsgegevens", "art. 16 AVG"),
        Action::Erasure => word("wissing van persoonsgegevens", "art. 17 AVG"),
        Action::Restriction => word("beperking van de verwerking", "art. 18 AVG"),
        Action::LiftRestriction => word("opheffing van een beperking van de verwerking", "art. 18 lid 3 AVG"),
    }
}

pub const fn outcome(outcome: OutcomeKind) -> Word {
    match outcome {
        OutcomeKind::Erased => word(
            "gewist",
            "Verwijderd, of overschreven met iets dat niets over de betrokkene zegt (art. 17 lid 1 AVG).",
        ),
        OutcomeKind::Pseudonymised => word(
            "gepseudonimiseerd",
            "Vervangen door een pseudoniem onder een sleutel. Wie de sleutel heeft, ziet nog welke rijen bij elkaar horen (art. 4 onder 5 AVG).",
        ),
        OutcomeKind::NotHeld => {
            word("niet aanwezig", "Gezocht met elk identificatiegegeven dat het systeem aanvaardt, en niets gevonden.")
        }
        OutcomeKind::Retained => {
            word("bewaard", "Bewaard omdat een wet of een rechtsvordering dat vereist (art. 17 lid 3 AVG).")
        }
        OutcomeKind::Rectified => {
            word("gerectificeerd", "Verbeterd, of aangevuld met een aanvullende verklaring (art. 16 AVG).")
        }
        OutcomeKind::Restricted => word(
            "beperkt",
            "Gemarkeerd, zodat het wordt opgeslagen en niet anderszins verwerkt (art. 18 lid 1 en 2 AVG).",
        ),
        OutcomeKind::Notified => {
            word("in kennis gesteld", "Meegedeeld aan een ontvanger aan wie de gegevens waren verstrekt (art. 19 AVG).")
        }
        OutcomeKind::RestrictionLifted => word(
            "beperking opgeheven",
            "De markering is weggenomen nadat de betrokkene was ge\u{ef}nformeerd (art. 18 lid 3 AVG).",
        ),
        OutcomeKind::Exported => word("verstrekt", "Gekopieerd naar het inzagepakket (art. 15 lid 1 en 3 AVG)."),
        OutcomeKind::Unconfirmed => word(
            "niet bevestigd",
            "Niemand kon het bevestigen: een beheerder heeft het opgegeven en gezegd waarom. Mogelijk is het niet gedaan.",
        ),
    }
}

pub const fn grade(grade: Grade) -> Word {
    match grade {
        Grade::None => word("geen", "Er is niets bekend."),
        Grade::Accepted => {
            word("aanvaard", "Het systeem heeft de instructie aangenomen. Dat zij is uitgevoerd, is niet gezegd.")
        }
        Grade::Executed => {
            word("uitgevoerd", "Het systeem, of wie het beheert, zegt dat het is gedaan. Er is niet opnieuw gekeken.")
        }
        Grade::RetainedUntil => {
            word("bewaard tot", "Bewaard op de genoemde grond, tot de genoemde tijd; daarna te wissen.")
        }
        Grade::ExpiresOn => word("vervalt op", "Nog aanwezig; verdwijnt vanzelf op de genoemde tijd."),
        Grade::Verified => word(
            "vastgesteld",
            "Na de handeling opnieuw bekeken, in de actuele gegevens en op de genoemde tijd, en zo aangetroffen; \u{201c}afwezigheid \
             vastgesteld\u{201d} waar niets meer werd gevonden. Het zegt niets over reservekopie\u{eb}n.",
        ),
    }
}

pub const fn evidence(kind: EvidenceKind) -> Word {
    match kind {
        EvidenceKind::ReadBack => word(
            "teruglezing",
            "De verwerker heeft het systeem opnieuw bevraagd, in een nieuwe transactie op het primaire exemplaar, met de sleutels van de \
             rijen en met de identificatiegegevens.",
        ),
        EvidenceKind::SystemReport => word(
            "melding van het systeem",
            "Gemeld door een programma dat bij het systeem zelf werkt en daar opnieuw heeft gekeken.",
        ),
        EvidenceKind::VendorReceipt => {
            word("ontvangstbewijs", "Een ontvangstbewijs dat de koppeling van de leverancier heeft teruggegeven.")
        }
        EvidenceKind::SignedStatement => {
            word("ondertekende verklaring", "Iemand die voor het systeem instaat, heeft haar ondertekend.")
        }
        EvidenceKind::DocumentDigest => {
            word("document", "Een document dat de verwerker bewaart; de SHA-256-waarde ervan staat hier.")
        }
        EvidenceKind::RetentionExpiry => {
            word("einde van de bewaartermijn", "De eigen bewaartermijn van het systeem eindigt dan.")
        }
        EvidenceKind::OperatorStatement => word(
            "verklaring van een beheerder",
            "Het woord van een medewerker van de verwerker; het ondersteunt geen succes.",
        ),
    }
}

pub const fn task_state(state: TaskState) -> Word {
    match state {
        TaskState::Waiting => word("wacht", "Het wacht op een ander systeem of op de verwerkingsverantwoordelijke."),
        TaskState::Pending => word("aan de beurt", "Het moet worden uitgevoerd."),
        TaskState::Running => word("loopt", "Het wordt uitgevoerd."),
        TaskState::AwaitingConfirmation => {
            word("wacht op bevestiging", "Het systeem heeft de instructie gekregen en nog niet geantwoord.")
        }
        TaskState::NeedsAttention => word("vraagt aandacht", "Het kan niet verder zonder de beslissing van een mens."),
        TaskState::Confirmed => word("bevestigd", "Het systeem heeft bevestigd."),
    }
}

pub const fn instruction(kind: InstructionKind) -> &'static str {
    match kind {
        InstructionKind::CustomerRequest => "Verzoek van de verwerkingsverantwoordelijke (art. 28 lid 3 onder a AVG)",
        InstructionKind::AgreementTerm => "Bepaling van de overeenkomst (art. 28 lid 3 onder a en g AVG)",
        InstructionKind::LegalRequirement => {
            "Voorschrift van Unierecht of lidstatelijk recht (art. 28 lid 3 onder a AVG)"
        }
    }
}

pub const fn restriction_ground(ground: RestrictionGround) -> &'static str {
    match ground {
        RestrictionGround::AccuracyContested => "De betrokkene betwist de juistheid (art. 18 lid 1 onder a AVG)",
        RestrictionGround::UnlawfulProcessing => {
            "De verwerking is onrechtmatig, en de betrokkene verzet zich tegen wissing (art. 18 lid 1 onder b AVG)"
        }
        RestrictionGround::NeededForLegalClaims => {
            "De betrokkene heeft de gegevens nodig voor een rechtsvordering (art. 18 lid 1 onder c AVG)"
        }
        RestrictionGround::ObjectionPending => {
            "De betrokkene heeft bezwaar gemaakt, en dat wordt beoordeeld (art. 18 lid 1 onder d AVG)"
        }
    }
}

pub const fn role(role: SystemRole) -> &'static str {
    match role {
        SystemRole::StorageBackend => "Eigen systeem van de verwerker",
        SystemRole::SubProcessor => "Subverwerker",
        SystemRole::Recipient => "Ontvanger",
    }
}

pub const fn connector(kind: ConnectorKind) -> &'static str {
    match kind {
        ConnectorKind::Sql => "SQL-database",
        ConnectorKind::Remote => "Werker op afstand",
    }
}

pub const fn decision(kind: DecisionKind) -> &'static str {
    match kind {
        DecisionKind::Objected => "De verwerker maakte bezwaar tegen de instructie (art. 28 lid 3 AVG)",
        DecisionKind::Authorised => "De verantwoordelijke gaf opdracht tot het verzoek",
        DecisionKind::Retried => "Een beheerder liet de taak opnieuw lopen",
        DecisionKind::Resolved => "Een beheerder handelde de taak af",
        DecisionKind::Reviewed => "De verantwoordelijke beoordeelde wat ook anderen betreft (art. 15 lid 4 AVG)",
        DecisionKind::Declined => "De verantwoordelijke wees het verzoek af",
        DecisionKind::Cancelled => "De verantwoordelijke trok het verzoek in",
    }
}
