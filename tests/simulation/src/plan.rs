//! What goes wrong, and when: drawn from the seed as the run goes, or listed, so that a failure can be made small and replayed.

use crate::dice::Dice;

/// What happens to a transaction, or to the process that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The connection breaks: the caller is told, and nothing is done. After a commit: it is done all the same.
    Break,
    /// The database asks to try the same again: a deadlock's loser.
    Conflict,
    /// The process ends here. After a commit: what it did stands.
    Crash,
    /// The process stands still for so long; what it had begun goes on then.
    Pause { seconds: u16 },
}

/// What a system does with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quirk {
    /// It takes its time, then does it.
    Slow {
        seconds: u16,
    },
    /// It does it, and takes its time to say so.
    AnswersLate {
        seconds: u16,
    },
    Unavailable,
    /// It does it, and the answer is lost.
    AnswerLost,
    /// The call arrives twice.
    Twice,
    /// It does half of the batch's rows, and breaks.
    HalfDone,
    /// It refuses the batch: one of it is poisonous.
    Refuses,
    /// It refuses one subject.
    RefusesOne,
    /// It says that it has done all, and has done half of the rows: of a single one, nothing.
    SaysDone,
    /// It does it, and the application writes one of its subjects anew, before anybody looks again.
    WrittenAnew,
}

/// A call of a system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Find,
    Act,
    ReadBack,
    Export,
}

impl Call {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Act => "act",
            Self::ReadBack => "read back",
            Self::Export => "export",
        }
    }
}

/// Written in a replay as a letter and, where there is one, a number.
pub trait Written: Copy + PartialEq + std::fmt::Debug {
    fn letter(self) -> (char, Option<u16>);
    fn read(letter: char, number: u16) -> Option<Self>;
}

impl Written for Fault {
    fn letter(self) -> (char, Option<u16>) {
        match self {
            Self::Break => ('b', None),
            Self::Conflict => ('x', None),
            Self::Crash => ('c', None),
            Self::Pause { seconds } => ('p', Some(seconds)),
        }
    }

    fn read(letter: char, number: u16) -> Option<Self> {
        Some(match letter {
            'b' => Self::Break,
            'x' => Self::Conflict,
            'c' => Self::Crash,
            'p' => Self::Pause { seconds: number },
            _ => return None,
        })
    }
}

impl Written for Quirk {
    fn letter(self) -> (char, Option<u16>) {
        match self {
            Self::Slow { seconds } => ('s', Some(seconds)),
            Self::AnswersLate { seconds } => ('l', Some(seconds)),
            Self::Unavailable => ('u', None),
            Self::AnswerLost => ('a', None),
            Self::Twice => ('t', None),
            Self::HalfDone => ('h', None),
            Self::Refuses => ('r', None),
            Self::RefusesOne => ('o', None),
            Self::SaysDone => ('d', None),
            Self::WrittenAnew => ('w', None),
        }
    }

    fn read(letter: char, number: u16) -> Option<Self> {
        Some(match letter {
            's' => Self::Slow { seconds: number },
            'l' => Self::AnswersLate { seconds: number },
            'u' => Self::Unavailable,
            'a' => Self::AnswerLost,
            't' => Self::Twice,
            'h' => Self::HalfDone,
            'r' => Self::Refuses,
            'o' => Self::RefusesOne,
            'd' => Self::SaysDone,
            'w' => Self::WrittenAnew,
            _ => return None,
        })
    }
}

/// Where in a run, counted; and what.
pub type Listed<T> = Vec<(u64, T)>;

/// What is to come.
#[derive(Clone, PartialEq, Debug)]
pub enum Plan<T> {
    /// As the seed says.
    Drawn,
    /// These, and no others.
    Listed(Listed<T>),
}

impl<T: Written> Plan<T> {
    pub fn at(&self, place: u64, drawn: impl FnOnce() -> Option<T>) -> Option<T> {
        match self {
            Self::Drawn => drawn(),
            Self::Listed(listed) => listed.iter().find(|(at, _)| *at == place).map(|(_, what)| *what),
        }
    }

    /// `12c,40p30`; nothing where all is drawn.
    pub fn text(&self) -> Option<String> {
        let Self::Listed(listed) = self else { return None };
        let one = |(at, what): &(u64, T)| {
            let (letter, number) = what.letter();
            format!("{at}{letter}{}", number.map(|n| n.to_string()).unwrap_or_default())
        };
        Some(listed.iter().map(one).collect::<Vec<_>>().join(","))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let one = |part: &str| -> Option<(u64, T)> {
            let at = part.find(|c: char| c.is_ascii_alphabetic())?;
            let letter = part[at..].chars().next()?;
            let number = &part[at + 1..];
            let number = if number.is_empty() { 0 } else { number.parse().ok()? };
            Some((part[..at].parse().ok()?, T::read(letter, number)?))
        };
        text.split(',').filter(|part| !part.is_empty()).map(one).collect::<Option<_>>().map(Self::Listed)
    }
}

/// When in a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    Begin,
    Statement,
    Commit,
    Committed,
}

/// How hard a run is tried.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand commits, so many are lost, and as many done and not answered. Other moments have less.
    pub faults: u64,
    /// Of a thousand calls of a system.
    pub quirks: u64,
    /// What is slow is slow against this.
    pub lease_s: u64,
    /// Of a thousand slow ones, so many outlast it.
    pub outlasting: u64,
}

impl Weather {
    pub fn fault(&self, seed: u64, place: u64, moment: Moment) -> Option<Fault> {
        let mut dice = Dice::at(seed, "faults", place);
        let rate = match moment {
            Moment::Begin => self.faults / 2,
            Moment::Statement => self.faults / 8,
            Moment::Commit | Moment::Committed => self.faults,
        };
        if !dice.per_mille(rate) {
            return None;
        }
        Some(match (moment, dice.below(10)) {
            (Moment::Begin, 0..5) => Fault::Pause { seconds: dice.between(1, self.lease_s * 2) as u16 },
            (_, 0..2) if moment == Moment::Statement => Fault::Conflict,
            (_, 0..6) => Fault::Break,
            _ => Fault::Crash,
        })
    }

    pub fn quirk(&self, seed: u64, place: u64, call: Call) -> Option<Quirk> {
        let mut dice = Dice::at(seed, "quirks", place);
        // An act is where it matters.
        let rate = if call == Call::Act { self.quirks * 3 / 2 } else { self.quirks };
        if !dice.per_mille(rate) {
            return None;
        }
        let (short, long) = ((1, self.lease_s / 4), (self.lease_s / 2, self.lease_s * 5 / 2));
        let (least, most) = if dice.per_mille(self.outlasting) { long } else { short };
        let seconds = dice.between(least, most) as u16;
        // What spoils an act alone: drawn for another call, it would be wasted.
        if call == Call::Act && dice.per_mille(700) {
            return Some(match dice.below(9) {
                0..3 => Quirk::SaysDone,
                3..7 => Quirk::WrittenAnew,
                7 => Quirk::HalfDone,
                _ => Quirk::Twice,
            });
        }
        Some(match dice.below(16) {
            0..4 => Quirk::Slow { seconds },
            4..8 => Quirk::AnswersLate { seconds },
            8 | 9 => Quirk::Unavailable,
            10 | 11 => Quirk::AnswerLost,
            12 | 13 => Quirk::Refuses,
            _ => Quirk::RefusesOne,
        })
    }
}
