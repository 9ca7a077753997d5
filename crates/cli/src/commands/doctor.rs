//! `mayfly doctor`: what holds on this machine.

use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use mayfly_model::RuntimeId;
use mayfly_sandbox::doctor::{Finding, Verdict, examine};
use mayfly_sandbox::process::find_interpreter;
use mayfly_server::{Interpreter, interpreters};
use serde::Serialize;
use std::process::Command;

/// Say which guarantees hold on this machine, and how to get the missing ones. Changes nothing.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// Name and advice for a runtime that needs an interpreter.
fn words(runtime: RuntimeId) -> (&'static str, &'static str) {
    match runtime {
        RuntimeId::Python => ("Python", "Python functions cannot run: apt-get install python3"),
        RuntimeId::Node => ("Node.js", "Node.js functions cannot run: apt-get install nodejs"),
        RuntimeId::Php => ("PHP", "PHP functions cannot run: apt-get install php-cli"),
        RuntimeId::Go => ("Go", "Go functions cannot run"),
        RuntimeId::Java => ("Java", "Java functions cannot run: apt-get install default-jdk-headless"),
        RuntimeId::Custom => ("custom runtime", "custom runtimes cannot run"),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Prints the findings. Fails when something fails that the platform needs.
pub fn run(_: DoctorArgs, out: Output) -> Result<(), CliError> {
    let mut findings = examine();
    let interpreters = interpreters().map_err(|e| CliError::local(format!("{e:#}")))?;
    findings.extend(interpreters.iter().map(interpreter));
    let failed = findings.iter().filter(|f| f.verdict == Verdict::Fail).count();
    if out.is_json() {
        let report = Report { ok: failed == 0, findings: &findings };
        let text = serde_json::to_string(&report).map_err(|e| CliError::local(e.to_string()))?;
        out.json(&text);
    } else {
        out.raw(&render(&findings));
    }
    match failed {
        0 => Ok(()),
        1 => Err(CliError::local("the platform does not work here: one check failed")),
        n => Err(CliError::local(format!("the platform does not work here: {n} checks failed"))),
    }
}

fn interpreter(wanted: &Interpreter) -> Finding {
    let (name, advice) = words(wanted.runtime);
    let missing = |found: String| Finding { name, verdict: Verdict::Warn, found, advice };
    let Some(path) = find_interpreter(&wanted.paths) else {
        return missing(format!("none of {} is there", wanted.paths.join(", ")));
    };
    match Command::new(&path).args(&wanted.version_args).output() {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Finding { name, verdict: Verdict::Ok, found: format!("{path} ({version})"), advice: "" }
        }
        Ok(output) => missing(format!("{path} does not start: {}", output.status)),
        Err(error) => missing(format!("{path} does not start: {error}")),
    }
}

fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => '✓',
            Verdict::Warn => '!',
            Verdict::Fail => '✗',
        };
        text.push_str(&format!("{mark} {:width$}  {}\n", finding.name, finding.found));
        if !finding.advice.is_empty() {
            text.push_str(&format!("  {:width$}  → {}\n", "", finding.advice));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_advice_below() {
        let findings = [
            Finding { name: "kernel", verdict: Verdict::Ok, found: "Linux 6.1".into(), advice: "" },
            Finding { name: "KVM", verdict: Verdict::Warn, found: "no /dev/kvm".into(), advice: "not needed" },
            Finding { name: "user", verdict: Verdict::Fail, found: "not root".into(), advice: "use sudo" },
        ];
        assert_eq!(
            render(&findings),
            "✓ kernel  Linux 6.1\n! KVM     no /dev/kvm\n          → not needed\n✗ user    not root\n          → use sudo\n"
        );
    }

    #[test]
    fn a_missing_interpreter_is_a_warning_with_advice() {
        let mut wanted = Interpreter {
            runtime: RuntimeId::Python,
            paths: vec!["/usr/bin/no-such-python".into(), "/usr/local/bin/no-such-python".into()],
            version_args: vec!["--version".into()],
        };
        let finding = interpreter(&wanted);
        assert_eq!((finding.verdict, finding.name), (Verdict::Warn, "Python"));
        assert!(finding.advice.contains("install python3") && finding.found.contains("/usr/local/bin/no-such-python"));
        wanted.paths.push("/usr/bin/env".into());
        assert_eq!(interpreter(&wanted).verdict, Verdict::Ok);
        wanted.version_args = vec!["--no-such-flag".into()];
        assert!(interpreter(&wanted).found.contains("/usr/bin/env does not start"));
    }
}
