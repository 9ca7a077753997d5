//! What can go wrong, as people see it: one line `error: …`, perhaps details, and a line `hint: …` on what to do next.

use std::fmt;

/// Exit code of usage and local errors.
pub const EXIT_LOCAL: u8 = 1;
/// Exit code when the platform refused the call.
pub const EXIT_API: u8 = 2;
/// Exit code when the function itself failed.
pub const EXIT_FUNCTION: u8 = 3;
/// Exit code when the platform did not answer.
pub const EXIT_UNREACHABLE: u8 = 4;

/// Whose fault it is; decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Usage, files, settings.
    Local,
    /// The API answered with an error of this code.
    Api(String),
    /// The function failed.
    Function,
    /// Nothing that speaks the API answered.
    Unreachable,
}

/// An error of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// Whose fault it is.
    pub kind: Kind,
    /// One line.
    pub message: String,
    /// More lines (a stack, a list of files); may be empty.
    pub details: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl CliError {
    /// A usage or local error.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(Kind::Local, message)
    }

    /// An error of any kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: String::new(), hint: String::new() }
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with more lines.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The code with which the command exits.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Local => EXIT_LOCAL,
            Kind::Api(_) => EXIT_API,
            Kind::Function => EXIT_FUNCTION,
            Kind::Unreachable => EXIT_UNREACHABLE,
        }
    }

    /// True when the API answered with `code` or one of its subcodes (`ResourceNotFound` covers `ResourceNotFound.Function`).
    pub fn is_api(&self, code: &str) -> bool {
        match &self.kind {
            Kind::Api(actual) => actual.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
            _ => false,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message.trim_end().replace('\n', " "))?;
        if !self.details.is_empty() {
            writeln!(f, "{}", self.details.trim_end())?;
        }
        if !self.hint.is_empty() {
            writeln!(f, "hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// What to do about an error of the API, by its code. Empty when the message says it all.
pub fn api_hint(code: &str) -> &'static str {
    const HINTS: &[(&str, &str)] = &[
        (
            "AuthFailure.SecretIdNotFound",
            "the platform does not know this secret id; see `credentials.json` in its data directory",
        ),
        (
            "AuthFailure.SignatureFailure",
            "the secret key does not belong to this secret id; see `credentials.json` in the platform's data directory",
        ),
        (
            "AuthFailure.SignatureExpire",
            "the clocks of this machine and of the platform are more than five minutes apart",
        ),
        ("AuthFailure", "check the secret id and the secret key (--secret-id, MAYFLY_SECRET_ID, --data)"),
        ("InvalidAction", "the platform is older than this `mayfly`; start the same version"),
        (
            "ResourceNotFound.Namespace",
            "`mayfly namespaces ls` shows the namespaces, `mayfly namespaces create NAME` makes one",
        ),
        ("ResourceNotFound.Function", "`mayfly ls --all` shows the functions of all namespaces"),
        ("ResourceNotFound.FunctionName", "`mayfly ls --all` shows the functions of all namespaces"),
        ("ResourceNotFound.Alias", "`mayfly alias ls NAME` shows the aliases"),
        ("ResourceNotFound.Version", "`mayfly versions NAME` shows the versions"),
        ("ResourceNotFound.FunctionVersion", "`mayfly versions NAME` shows the versions"),
        ("ResourceNotFound.Qualifier", "`mayfly versions NAME` and `mayfly alias ls NAME` show what there is"),
        ("ResourceNotFound.Layer", "`mayfly layers ls` shows the layers"),
        ("ResourceNotFound.LayerVersion", "`mayfly layers ls NAME` shows the versions of a layer"),
        ("ResourceInUse.Namespace", "`mayfly ls --namespace NAME` shows what is in it, `mayfly rm` removes it"),
        ("UnsupportedOperation.AliasBind", "`mayfly alias ls NAME` shows the aliases; point them elsewhere first"),
        ("FailedOperation.Domain.UnExist", "`mayfly domain ls` shows the domains"),
        ("InternalError", "the platform's own log says why"),
        ("RequestLimitExceeded", "wait a moment and try again"),
    ];
    let matches = |prefix: &str| code.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    HINTS
        .iter()
        .filter(|(prefix, _)| matches(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or("", |(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line_then_details_then_a_hint() {
        let error = CliError::new(Kind::Function, "it\nfailed").details("a\nb\n").hint("look");
        assert_eq!(error.to_string(), "error: it failed\na\nb\nhint: look\n");
        assert_eq!(error.exit_code(), 3);
        assert_eq!(CliError::local("x").to_string(), "error: x\n");
    }

    #[test]
    fn the_longest_code_gives_the_hint() {
        assert!(api_hint("AuthFailure.SignatureExpire").contains("clocks"));
        assert!(api_hint("AuthFailure.Other").contains("secret id"));
        assert_eq!(api_hint("AuthFailureX"), "");
        let error = CliError::new(Kind::Api("ResourceNotFound.Function".into()), "");
        assert!(error.is_api("ResourceNotFound") && !error.is_api("ResourceNot"));
        assert_eq!(error.exit_code(), 2);
    }
}
