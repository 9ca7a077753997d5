//! The wire side of the control API: what each action takes, how values are checked, how answers are written.
//!
//! One declaration per action (in [`requests`]) gives the typed request, the coercion and checks of its fields, and the
//! rows of `docs/scf-compatibility.md`. Nothing about a field is written down twice.

pub mod envelope;
pub mod markdown;
pub mod requests;
pub mod schema;
pub mod time;
