//! `mayfly doctor`: what holds on this machine.

use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use mayfly_sandbox::doctor::{Finding, Verdict, examine};
use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// Say which guarantees hold on this machine, and how to get the missing ones. Changes nothing.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// A language: where its interpreter may lie, which must be in /usr, since that is what sandboxes see.
struct Language {
    name: &'static str,
    paths: [&'static str; 2],
    advice: &'static str,
}

const LANGUAGES: [Language; 2] = [
    Language {
        name: "Python",
        paths: ["/usr/bin/python3", "/usr/local/bin/python3"],
        advice: "Python functions cannot run: apt-get install python3",
    },
    Language {
        name: "Node.js",
        paths: ["/usr/bin/node", "/usr/local/bin/node"],
        advice: "Node.js functions cannot run: apt-get install nodejs",
    },
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Prints the findings. Fails when something fails that the platform needs.
pub fn run(_: DoctorArgs, out: Output) -> Result<(), CliError> {
    let mut findings = examine();
    findings.extend(LANGUAGES.iter().map(interpreter));
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

fn interpreter(language: &Language) -> Finding {
    let Language { name, paths, advice } = language;
    let missing = |found: String| Finding { name, verdict: Verdict::Warn, found, advice };
    let Some(path) = paths.iter().find(|p| Path::new(p).is_file()) else {
        return missing(format!("neither {} nor {}", paths[0], paths[1]));
    };
    match Command::new(path).arg("--version").output() {
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
        let none = Language { name: "X", paths: ["/usr/bin/no-such-x", "/usr/local/bin/no-such-x"], advice: "get it" };
        let finding = interpreter(&none);
        assert_eq!((finding.verdict, finding.advice), (Verdict::Warn, "get it"));
        let shell = Language { name: "env", paths: ["/usr/bin/env", "/usr/bin/env"], advice: "get it" };
        assert_eq!(interpreter(&shell).verdict, Verdict::Ok);
    }
}
