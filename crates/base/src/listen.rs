//! An address to listen on, or none.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a part listens; `off`, or nothing at all, is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" | "off" => Ok(Self(None)),
            address => address
                .parse()
                .map(|a| Self(Some(a)))
                .map_err(|_| format!("`{address}` is neither an address such as 127.0.0.1:8702 nor `off`")),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_none() {
        for (text, shown) in [("127.0.0.1:8702", "127.0.0.1:8702"), ("[::1]:1", "[::1]:1"), ("off", "off"), ("", "off")]
        {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
        assert!("localhost".parse::<Listen>().unwrap_err().contains("nor `off`"));
    }
}
