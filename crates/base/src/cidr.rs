//! Address ranges, `10.213.0.0/16`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of IPv4 or IPv6 addresses with a common prefix. The bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `address/prefix`.
    #[error("`{0}` is not an address range of the form 10.213.0.0/16")]
    Form(String),
    /// The prefix has more bits than the address.
    #[error("the prefix of `{0}` is longer than the address")]
    Prefix(String),
    /// Bits are set after the prefix.
    #[error("`{given}` has bits after its prefix: the range it lies in is {range}")]
    HostBits {
        /// What was given.
        given: String,
        /// The range with those bits cleared.
        range: Cidr,
    },
}

impl Cidr {
    /// The range of `prefix` bits that `address` lies in. `None` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Some(Self { address: IpAddr::V4((v4.to_bits() & mask).into()), prefix })
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Some(Self { address: IpAddr::V6((v6.to_bits() & mask).into()), prefix })
            }
            _ => None,
        }
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of common bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// True when `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::new(address, self.prefix) == Some(*self)
    }

    /// True when the two ranges have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let form = || CidrError::Form(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        let prefix: u8 = prefix.parse().map_err(|_| CidrError::Prefix(text.to_owned()))?;
        let range = Self::new(address, prefix).ok_or_else(|| CidrError::Prefix(text.to_owned()))?;
        if range.address != address {
            return Err(CidrError::HostBits { given: text.to_owned(), range });
        }
        Ok(range)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_refuses() {
        for text in ["10.213.0.0/16", "0.0.0.0/0", "1.2.3.4/32", "fd00::/8", "::1/128"] {
            assert_eq!(cidr(text).to_string(), text);
        }
        let says = |text: &str| text.parse::<Cidr>().unwrap_err().to_string();
        assert!(says("10.0.0.0").contains("form"));
        assert!(says("10.0.0/8").contains("form"));
        assert!(says("10.0.0.0/").contains("form"));
        assert!(says("10.0.0.0/-1").contains("form"));
        assert!(says("10.0.0.0/33").contains("longer"));
        assert!(says("10.0.0.0/999").contains("longer"));
        assert!(says("10.0.0.1/8").contains("10.0.0.0/8"));
    }

    #[test]
    fn overlaps_and_contains() {
        assert!(cidr("10.0.0.0/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!cidr("10.0.0.0/8").contains("11.0.0.0".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("0.0.0.0/0").overlaps(&cidr("127.0.0.0/8")));
        assert!(cidr("127.0.0.1/32").overlaps(&cidr("127.0.0.0/8")));
        assert!(!cidr("10.0.0.0/16").overlaps(&cidr("10.1.0.0/16")));
        assert!(!cidr("0.0.0.0/0").overlaps(&cidr("::/0")));
    }
}
