//! Enums by their short names: `ACTION_LIFT_RESTRICTION` is `lift_restriction` on the command line, in files and in JSON.

use quittance_api::v1::{
    Action, ConnectorKind, EvidenceKind, Grade, IdentifierKind, InstructionKind, KeyEpochState, OutcomeKind,
    PackageState, ReplayFindingKind, ReplayState, RequestState, RestrictionGround, SystemRole, TaskState, Timeliness,
    WaitUntil,
};

pub trait ShortName: Sized + Copy + TryFrom<i32> {
    const PREFIX: &'static str;
    fn long_name(self) -> &'static str;
    fn from_long_name(name: &str) -> Option<Self>;

    fn short_name(self) -> String {
        let long = self.long_name();
        long.strip_prefix(Self::PREFIX).unwrap_or(long).to_ascii_lowercase()
    }

    /// Every value but the unspecified one: enum values are dense.
    fn all() -> Vec<Self> {
        (1..).map_while(|number| Self::try_from(number).ok()).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let name = format!("{}{}", Self::PREFIX, text.trim().to_ascii_uppercase().replace('-', "_"));
        let found = Self::from_long_name(&name).filter(|_| !name.ends_with("_UNSPECIFIED"));
        found.ok_or_else(|| {
            let all: Vec<String> = Self::all().into_iter().map(Self::short_name).collect();
            format!("must be one of {}", all.join(", "))
        })
    }
}

macro_rules! short_name {
    ($($enum:ident $prefix:literal),* $(,)?) => {$(
        impl ShortName for $enum {
            const PREFIX: &'static str = $prefix;
            fn long_name(self) -> &'static str {
                self.as_str_name()
            }
            fn from_long_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
        }
    )*};
}

short_name!(
    Action "ACTION_",
    ConnectorKind "CONNECTOR_KIND_",
    EvidenceKind "EVIDENCE_KIND_",
    Grade "GRADE_",
    IdentifierKind "IDENTIFIER_KIND_",
    InstructionKind "INSTRUCTION_KIND_",
    KeyEpochState "KEY_EPOCH_STATE_",
    OutcomeKind "OUTCOME_KIND_",
    PackageState "PACKAGE_STATE_",
    ReplayFindingKind "REPLAY_FINDING_KIND_",
    ReplayState "REPLAY_STATE_",
    RequestState "REQUEST_STATE_",
    RestrictionGround "RESTRICTION_GROUND_",
    SystemRole "SYSTEM_ROLE_",
    TaskState "TASK_STATE_",
    Timeliness "TIMELINESS_",
    WaitUntil "WAIT_UNTIL_",
);

/// A field's number by its short name; one that this program does not know by its number, so that nothing is hidden. Empty where unspecified.
pub fn short<E: ShortName>(number: i32) -> String {
    match E::try_from(number) {
        _ if number == 0 => String::new(),
        Ok(value) => value.short_name(),
        Err(_) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_read_back() {
        for action in Action::all() {
            assert_eq!(Action::parse(&action.short_name()), Ok(action));
        }
        assert_eq!(Action::parse("lift-restriction"), Ok(Action::LiftRestriction));
        assert!(Action::parse("unspecified").is_err());
        assert!(Action::parse("erase").unwrap_err().contains("erasure"));
        assert_eq!(short::<TaskState>(TaskState::NeedsAttention.into()), "needs_attention");
        assert_eq!(short::<TaskState>(99), "99");
    }
}
