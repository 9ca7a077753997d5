//! Which instances to keep or make before they are asked for, and what that may cost: the same code for the server,
//! minute by minute, and for the simulator, in virtual time.
//!
//! A [`Fleet`] watches all functions whose instances share a machine's or a tenant's memory. At the start of each minute it
//! says how many instances of each function should be warm; when the minute is over it is told how many were needed.
//! It starts knowing nothing and never sees ahead.

mod fleet;
mod keep_alive;
mod ledger;
mod levels;

pub use fleet::{Fleet, FleetError, FleetOptions, Function, FunctionId, Target, Totals};
pub use keep_alive::RecentPeak;
pub use ledger::{Ledger, Price};
pub use levels::Levels;

use std::fmt;
use std::str::FromStr;

/// How many instances are kept or made ahead of demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// As many as were needed at once in the last so many minutes. 0: none.
    KeepAlive {
        /// How long an instance stays idle, in minutes.
        minutes: u32,
    },
    /// Those most probably needed for the memory they take, within a budget of memory-time.
    Forecast {
        /// Memory-time it may hold, as a share of what the fixed keep-alive it is measured against would have held.
        budget: f64,
        /// Whether each function has a parked instance (a template or a snapshot) that warm ones are made from.
        parked: bool,
    },
}

impl Policy {
    /// Forecasts at no more than the cost of the fixed keep-alive.
    pub const CONSERVATIVE: Policy = Policy::Forecast { budget: 1.0, parked: false };
    /// Forecasts that may hold some more than the fixed keep-alive.
    pub const EAGER: Policy = Policy::Forecast { budget: 1.15, parked: false };
    /// Every function parked, little else held.
    pub const PARKED: Policy = Policy::Forecast { budget: 0.55, parked: true };
    /// Minutes of the fixed keep-alive that budgets are measured against, unless told otherwise.
    pub const BASELINE_MINUTES: u32 = 10;
    /// Longest fixed keep-alive, in minutes: a week.
    pub const KEEP_ALIVE_MAX_MINUTES: u32 = 7 * 24 * 60;

    /// Largest budget of a forecast, as a share of the fixed keep-alive's memory-time.
    pub const BUDGET_MAX: f64 = 100.0;

    /// Names of the policies, for messages.
    pub const NAMES: &str =
        "conservative, eager, parked, off, keepalive-<minutes>m, forecast-<budget>, parked-<budget>";
}

/// A name that is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// What was given.
    pub name: String,
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no policy is called {:?}; there are: {}", self.name, Policy::NAMES)
    }
}

impl std::error::Error for UnknownPolicy {}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let unknown = || UnknownPolicy { name: name.chars().take(80).collect() };
        match name {
            "conservative" => Ok(Self::CONSERVATIVE),
            "eager" => Ok(Self::EAGER),
            "parked" => Ok(Self::PARKED),
            "off" => Ok(Self::KeepAlive { minutes: 0 }),
            _ if name.starts_with("forecast-") || name.starts_with("parked-") => {
                let (kind, number) = name.split_once('-').ok_or_else(unknown)?;
                // Digits and a point: no signs, exponents, infinities.
                let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                let budget = number.parse::<f64>().ok().filter(|b| plain && (0.0..=Self::BUDGET_MAX).contains(b));
                Ok(Self::Forecast { budget: budget.ok_or_else(unknown)?, parked: kind == "parked" })
            }
            _ => {
                let rest = name.strip_prefix("keepalive-").ok_or_else(unknown)?;
                let (number, factor) = match rest.strip_suffix('m') {
                    Some(number) => (number, 1),
                    None => (rest.strip_suffix('h').ok_or_else(unknown)?, 60),
                };
                if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(unknown());
                }
                let minutes = number.parse::<u32>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(unknown)?;
                if minutes > Self::KEEP_ALIVE_MAX_MINUTES {
                    return Err(unknown());
                }
                Ok(Self::KeepAlive { minutes })
            }
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CONSERVATIVE => f.write_str("conservative"),
            Self::EAGER => f.write_str("eager"),
            Self::PARKED => f.write_str("parked"),
            Self::KeepAlive { minutes: 0 } => f.write_str("off"),
            Self::KeepAlive { minutes } => write!(f, "keepalive-{minutes}m"),
            Self::Forecast { budget, parked } => {
                write!(f, "{}-{budget}", if parked { "parked" } else { "forecast" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        for name in ["conservative", "eager", "parked", "off", "keepalive-5m", "keepalive-10m", "keepalive-240m"] {
            assert_eq!(name.parse::<Policy>().expect(name).to_string(), name);
        }
        assert_eq!("keepalive-4h".parse(), Ok(Policy::KeepAlive { minutes: 240 }));
        assert_eq!("forecast-0.9".parse(), Ok(Policy::Forecast { budget: 0.9, parked: false }));
        assert_eq!("parked-0.7".parse::<Policy>().map(|p| p.to_string()), Ok("parked-0.7".to_owned()));
        for name in ["forecast-", "forecast-nan", "forecast--1", "forecast-1e9", "parked-inf", "parked-101"] {
            assert!(name.parse::<Policy>().is_err(), "{name}");
        }
        for name in [
            "",
            "keepalive",
            "keepalive-",
            "keepalive-m",
            "keepalive--1m",
            "keepalive-+1m",
            "keepalive-99999999999m",
            "keepalive-20000m",
            "Eager",
        ] {
            assert!(name.parse::<Policy>().is_err(), "{name}");
        }
    }
}
