//! SCF's runtime names, and what Mayfly runs them on.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A family of runtimes: one folder under `runtimes/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeId {
    /// CPython 3.
    Python,
    /// Node.js.
    Node,
    /// PHP.
    Php,
    /// Programs built on SCF's Go library.
    Go,
    /// Java.
    Java,
    /// The user's own `bootstrap`, speaking SCF's or Lambda's runtime API over HTTP.
    Custom,
}

impl RuntimeId {
    /// Every family, in the order in which tables show them.
    pub const ALL: [Self; 6] = [Self::Python, Self::Node, Self::Php, Self::Go, Self::Java, Self::Custom];

    /// The folder under `runtimes/`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Php => "php",
            Self::Go => "go",
            Self::Java => "java",
            Self::Custom => "custom",
        }
    }

    /// True when waiting processes are kept only once a function has needed one: for languages that most platforms never run.
    pub fn is_kept_on_demand(self) -> bool {
        matches!(self, Self::Php | Self::Java)
    }

    /// The family whose waiting sandboxes its functions take.
    pub fn stock(self) -> Self {
        // A program of the function's own needs nothing but a sandbox, whatever protocol it speaks.
        if self == Self::Go { Self::Custom } else { self }
    }

    /// What handlers of this family look like.
    pub fn handler_form(self) -> HandlerForm {
        match self {
            Self::Python | Self::Node | Self::Php => HandlerForm::Function,
            Self::Go => HandlerForm::Program,
            Self::Java => HandlerForm::Method,
            Self::Custom => HandlerForm::Any,
        }
    }
}

impl fmt::Display for RuntimeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a handler names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerForm {
    /// `file.function`, such as `index.main_handler`.
    Function,
    /// An executable file of the package, such as `main`.
    Program,
    /// `package.Class::method`.
    Method,
    /// Nothing: the package's `bootstrap` is run.
    Any,
}

/// One name that SCF sells, and the family that serves it here.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeName {
    /// The name on the wire, for example `Python3.9`.
    pub name: &'static str,
    /// The family that serves it, or why none does.
    pub family: Result<RuntimeId, &'static str>,
}

const NO_PYTHON2: &str = "Python 2 is no longer packaged by any supported system; port the function to Python 3";
const NO_PHP5: &str = "PHP 5 is no longer packaged by any supported system; port the function to PHP 7.4 or later, or bring an interpreter as CustomRuntime";
const NO_IMAGES: &str = "functions from container images are not supported; deploy a zip package";

/// Every runtime name of SCF 2018-04-16, with its mapping. Any name of a language runs on the one interpreter
/// of it that the machine has; the interpreter's version is shown by `mayfly doctor` and in the `Init Report`.
pub const RUNTIME_NAMES: &[RuntimeName] = &[
    RuntimeName { name: "Python2.7", family: Err(NO_PYTHON2) },
    RuntimeName { name: "Python3.6", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Python3.7", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Python3.9", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Python3.10", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Python3.11", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Python3.12", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Python3", family: Ok(RuntimeId::Python) },
    RuntimeName { name: "Nodejs6.10", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs8.9", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs10.15", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs12.16", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs14.18", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs16.13", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs18.15", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs20.19", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "Nodejs", family: Ok(RuntimeId::Node) },
    RuntimeName { name: "CustomRuntime", family: Ok(RuntimeId::Custom) },
    RuntimeName { name: "Php5.6", family: Err(NO_PHP5) },
    RuntimeName { name: "Php7", family: Ok(RuntimeId::Php) },
    RuntimeName { name: "Php7.4", family: Ok(RuntimeId::Php) },
    RuntimeName { name: "Php8.0", family: Ok(RuntimeId::Php) },
    RuntimeName { name: "Php", family: Ok(RuntimeId::Php) },
    RuntimeName { name: "Go1", family: Ok(RuntimeId::Go) },
    RuntimeName { name: "Java8", family: Ok(RuntimeId::Java) },
    RuntimeName { name: "Java11", family: Ok(RuntimeId::Java) },
    RuntimeName { name: "Java", family: Ok(RuntimeId::Java) },
    RuntimeName { name: "CustomImage", family: Err(NO_IMAGES) },
];

/// Finds a runtime name, ignoring case as SCF does.
pub fn find_runtime(name: &str) -> Option<&'static RuntimeName> {
    RUNTIME_NAMES.iter().find(|r| r.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_in_any_case() {
        for (i, r) in RUNTIME_NAMES.iter().enumerate() {
            assert!(RUNTIME_NAMES[i + 1..].iter().all(|o| !o.name.eq_ignore_ascii_case(r.name)), "{}", r.name);
            assert_eq!(find_runtime(&r.name.to_lowercase()).unwrap().name, r.name);
        }
        assert!(find_runtime("Python3.11.7").is_none());
    }
}
