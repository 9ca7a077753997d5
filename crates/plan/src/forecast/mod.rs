//! Forecasts of demand from its own past: how probable is it that a function needs one more instance in the minute to come?
//!
//! Demand is cut into levels: level 1 is "at least one instance is busy", level 2 "at least two", and so on. Each level of
//! each function is a series of yes and no, minute by minute ([`Series`]). A dozen small forecasters look at it from
//! different sides (idle time, last gaps, distances at which it recurs, time of the hour and the day, the last minutes);
//! what they have in common for all functions is pooled in [`Shared`], from which a young series borrows until it
//! has a past of its own. Their answers are averaged in log-odds, each weighted by how well it has lately foretold this
//! series (a Bayesian mixture with forgetting). `docs/autoscaling.md` has the mathematics and the sources.
//!
//! No clock and no randomness: a minute is a number that the caller gives, and the same past gives the same forecast.

mod accuracy;
mod counter;
mod experts;
mod period;

pub use accuracy::Accuracy;
pub use experts::{EXPERTS, Series, Shared, Surroundings};
pub use period::{DAY, WEEK};
