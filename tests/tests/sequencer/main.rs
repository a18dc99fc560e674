//! The sequencer, with each of its writes failed in every way, killed at every step, and overtaken at every step: one log, always.

mod bed;
mod damage;
mod faults;
mod faulty;
mod recovery;
mod witnessed;
