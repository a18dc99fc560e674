//! What customers instruct about each person, by the seed.

use quittance_chaos_check::journal::{Corrected, Referred, Sent};
use quittance_client::api as v1;
use quittance_tests::scenario::{by_email, identifier, new_id};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    apps::{email, name, user_id},
    journal::now_us,
};

/// One request, as it is sent however often it takes.
#[derive(Clone)]
pub struct Instruction {
    pub sent: Sent,
    pub request: v1::Request,
}

/// One in so many comes from the person, and waits for the customer's word.
const REFERRED: u32 = 6;
/// What has no date of its own is due in a month; whoever takes longer answers then.
const EXTENDED_DAYS: i64 = 80;

/// How an instruction may come in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// From the customer alone.
    Instructed,
    /// Or from the person, through the operator.
    Any,
}

/// What is instructed about one person, in this order.
pub fn of(seed: u64, customer: &str, n: u64, ways: Ways) -> Vec<Instruction> {
    use v1::Action::{Access, Erasure, LiftRestriction, Rectification, Restriction};
    let mut rng = StdRng::seed_from_u64(seed ^ (n << 8) ^ customer.bytes().map(u64::from).sum::<u64>());
    let actions: &[v1::Action] = match rng.random_range(0..100) {
        0..44 => &[Erasure],
        44..54 => &[Access],
        54..62 => &[Access, Erasure],
        62..70 => &[Restriction],
        70..80 => &[Restriction, LiftRestriction],
        80..88 => &[Rectification],
        88..93 => &[Rectification, Erasure],
        93..96 => &[Restriction, Erasure],
        // Asked for twice, by two requests.
        _ => &[Erasure, Erasure],
    };
    // The second erasure finds nobody who yields the user id any more.
    let by_both = actions == [Erasure, Erasure];
    let mut instructions = Vec::with_capacity(actions.len());
    for action in actions {
        let mut instruction = instruction(&mut rng, customer, n, *action, by_both);
        if ways == Ways::Any && rng.random_ratio(1, REFERRED) {
            refer(&mut rng, &mut instruction);
        }
        instructions.push(instruction);
    }
    instructions
}

/// Its window begins when the customer authorises it.
fn refer(rng: &mut StdRng, instruction: &mut Instruction) {
    instruction.request.controller_due_time = None;
    instruction.sent.controller_due_us = None;
    let later = (now_us() / 1_000_000 + EXTENDED_DAYS * 86_400) * 1_000_000;
    let extended_due_us = rng.random_ratio(1, 2).then_some(later);
    instruction.sent.referred = Some(Referred { authorised: rng.random_ratio(2, 3), extended_due_us });
}

fn instruction(rng: &mut StdRng, customer: &str, n: u64, action: v1::Action, by_both: bool) -> Instruction {
    let mut request = by_email(action, email(n));
    if by_both {
        request.identifiers.push(identifier(v1::IdentifierKind::UserId, user_id(customer, n)));
    }
    let mut corrected = None;
    match action {
        v1::Action::Restriction => request.restriction_ground = v1::RestrictionGround::AccuracyContested.into(),
        v1::Action::LiftRestriction => {
            request.subject_informed_time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
        }
        v1::Action::Rectification => {
            let (new, statement) = (format!("Renamed {customer} {n}"), format!("{customer} {n} disagrees."));
            let replace = v1::ReplaceValue { old_value: name(customer, n), new_value: new.clone() };
            request.corrections = vec![
                correction("customer", "name", v1::correction::Target::Replace(replace)),
                correction("files", "content", v1::correction::Target::AppendStatement(statement.clone())),
            ];
            corrected = Some(Corrected { name: new, statement });
        }
        _ => {}
    }
    // Some have so little time that they are late.
    let mut controller_due_us = None;
    if rng.random_ratio(1, 8) {
        let due = now_us() / 1_000_000 + rng.random_range(1..8);
        request.controller_due_time = Some(prost_types::Timestamp { seconds: due, nanos: 0 });
        controller_due_us = Some(due * 1_000_000);
    }
    let action = action.as_str_name().trim_start_matches("ACTION_").to_owned();
    let sent = Sent {
        customer: customer.to_owned(),
        request_id: new_id(),
        action,
        email: email(n),
        corrected,
        controller_due_us,
        referred: None,
    };
    Instruction { sent, request }
}

fn correction(collection: &str, field: &str, target: v1::correction::Target) -> v1::Correction {
    v1::Correction { collection: collection.to_owned(), field: field.to_owned(), target: Some(target) }
}
