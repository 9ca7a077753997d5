//! One type for each kind of name, valid by construction.

use crate::limits;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a name was refused. The API layer picks the SCF code that fits the action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $parse:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rule of this kind of name. Errors: [`NameError`] saying which part of the rule broke.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $parse(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $parse(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A function's name: 2–60 of letters, digits, `-`, `_`; begins with a letter; does not end with `-` or `_`.
    FunctionName, check_function_name
);
name_type!(
    /// A namespace's name: 1–30 of letters, digits, `-`, `_`; begins with a letter; does not end with `-` or `_`.
    NamespaceName, check_namespace_name
);
name_type!(
    /// An alias: 1–64 of letters, digits, `-`, `_`, beginning with a letter; or the built-in `$DEFAULT`.
    AliasName, check_alias_name
);
name_type!(
    /// A layer's name: 1–64 of letters, digits, `-`, `_`; begins with a letter; does not end with `-` or `_`.
    LayerName, check_layer_name
);

impl NamespaceName {
    /// The namespace used when a request names none. It always exists and cannot be deleted.
    pub fn default_namespace() -> Self {
        Self("default".into())
    }
}

impl AliasName {
    /// The alias that every function has from its creation, pointing at `$LATEST`.
    pub fn default_alias() -> Self {
        Self("$DEFAULT".into())
    }

    /// True for `$DEFAULT`.
    pub fn is_default(&self) -> bool {
        self.0 == "$DEFAULT"
    }
}

/// What a request points at within a function: `$LATEST`, a published version's number, or an alias.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Qualifier {
    /// `$LATEST`: the code and settings as last updated.
    Latest,
    /// A published, immutable version.
    Version(u32),
    /// An alias, `$DEFAULT` among them.
    Alias(AliasName),
}

impl Qualifier {
    /// Reads `$LATEST`, a number, or an alias name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "$LATEST" {
            return Ok(Self::Latest);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse::<u32>() {
                Ok(n) if n > 0 => Ok(Self::Version(n)),
                _ => Err(NameError(format!("`{text}` is not a version number"))),
            };
        }
        AliasName::parse(text).map(Self::Alias)
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("$LATEST"),
            Self::Version(n) => write!(f, "{n}"),
            Self::Alias(a) => f.write_str(a.as_str()),
        }
    }
}

fn check(text: &str, what: &str, min: usize, max: usize, may_end_with_mark: bool) -> Result<(), NameError> {
    let chars = text.chars().count();
    if chars < min || chars > max {
        return Err(NameError(format!("a {what} has {min} to {max} characters; this one has {chars}")));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(NameError(format!("a {what} holds only letters, digits, `-` and `_`")));
    }
    if !text.as_bytes()[0].is_ascii_alphabetic() {
        return Err(NameError(format!("a {what} begins with a letter")));
    }
    if !may_end_with_mark && matches!(text.as_bytes()[text.len() - 1], b'-' | b'_') {
        return Err(NameError(format!("a {what} does not end with `-` or `_`")));
    }
    Ok(())
}

fn check_function_name(text: &str) -> Result<(), NameError> {
    check(text, "function name", limits::FUNCTION_NAME_CHARS_MIN, limits::FUNCTION_NAME_CHARS_MAX, false)
}

fn check_namespace_name(text: &str) -> Result<(), NameError> {
    check(text, "namespace name", 1, limits::NAMESPACE_NAME_CHARS_MAX, false)
}

fn check_alias_name(text: &str) -> Result<(), NameError> {
    if text == "$DEFAULT" {
        return Ok(());
    }
    check(text, "alias name", 1, limits::ALIAS_NAME_CHARS_MAX, true)
}

fn check_layer_name(text: &str) -> Result<(), NameError> {
    check(text, "layer name", 1, limits::LAYER_NAME_CHARS_MAX, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn function_names_follow_scf() {
        for good in ["ab", "hello", "a-b_c9", &"a".repeat(60)] {
            assert!(FunctionName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "9a", "-ab", "ab-", "ab_", "a b", "a/b", "héllo", &"a".repeat(61), "../x"] {
            assert!(FunctionName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn qualifiers_are_told_apart() {
        assert_eq!(Qualifier::parse("$LATEST").unwrap(), Qualifier::Latest);
        assert_eq!(Qualifier::parse("12").unwrap(), Qualifier::Version(12));
        assert_eq!(Qualifier::parse("$DEFAULT").unwrap(), Qualifier::Alias(AliasName::default_alias()));
        for bad in ["", "0", "99999999999", "$OTHER", "1x"] {
            assert!(Qualifier::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_valid_name_is_a_safe_path_component(text in "\\PC*") {
            if let Ok(name) = FunctionName::parse(&text) {
                prop_assert!(!name.as_str().contains(['/', '.', '\0']));
            }
        }

        #[test]
        fn qualifiers_round_trip(text in "\\PC{0,70}") {
            if let Ok(q) = Qualifier::parse(&text) {
                prop_assert_eq!(Qualifier::parse(&q.to_string()).unwrap(), q);
            }
        }
    }
}
