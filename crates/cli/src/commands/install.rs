//! Dependencies that the platform installs at deployment: whether to ask for it, and how it goes.

use super::Context;
use crate::api::{Function, GetFunction, GetInstallLog};
use crate::error::{CliError, Kind};
use crate::manifest::Install;
use crate::output::{Output, printable};
use mayfly_model::RuntimeId;
use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest wait for an install: more than the longest that a platform can be told to allow, and one that waits before it.
const INSTALLED_WITHIN: Duration = Duration::from_secs(2 * 3600);
const POLL: Duration = Duration::from_millis(250);
/// Largest manifest that is looked at, in bytes.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The files that name dependencies, with what shows that these are in the package already.
const MANIFESTS: [(&str, RuntimeId); 4] = [
    ("requirements.txt", RuntimeId::Python),
    ("package.json", RuntimeId::Node),
    ("composer.json", RuntimeId::Php),
    ("go.mod", RuntimeId::Go),
];

/// How an install went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Nothing had to be run.
    pub cached: bool,
    /// How long it took.
    pub duration_ms: u64,
}

impl Done {
    /// In words.
    pub fn text(self) -> String {
        let seconds = self.duration_ms as f64 / 1000.0;
        if self.cached { "cached".to_owned() } else { format!("installed in {seconds:.1} s") }
    }
}

/// Whether the platform shall install the dependencies of a package, and why.
pub fn decide(
    mode: Install,
    family: RuntimeId,
    handler: &str,
    paths: &BTreeSet<String>,
    dir: &Path,
) -> Result<Option<String>, CliError> {
    let served = |runtime: RuntimeId| family == runtime || family == RuntimeId::Custom;
    let found = MANIFESTS.iter().find(|(file, runtime)| served(*runtime) && paths.contains(*file));
    match (mode, found) {
        (Install::Never, _) | (Install::Auto, None) => Ok(None),
        (Install::Always, Some((file, _))) => Ok(Some((*file).to_owned())),
        (Install::Always, None) => {
            let files: Vec<_> = MANIFESTS.iter().filter(|(_, r)| served(*r)).map(|(file, _)| *file).collect();
            let error = CliError::local("--install always, and the package names no dependencies");
            Err(match files.is_empty() {
                true => error
                    .hint("dependencies of this runtime are not installed on the platform: put them into the package"),
                false => error.hint(format!("it needs {} in its root", files.join(" or "))),
            })
        }
        (Install::Auto, Some((file, runtime))) => {
            let names = names_any(*runtime, &dir.join(file));
            let has = has_them(*runtime, family, handler, paths);
            Ok((names && !has).then(|| (*file).to_owned()))
        }
    }
}

/// True when a manifest names at least one dependency. One that cannot be read does: the platform will say what is wrong with it.
fn names_any(runtime: RuntimeId, path: &Path) -> bool {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(MANIFEST_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return true;
    }
    let json = |lists: &[&str]| match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) => lists.iter().any(|list| json[list].as_object().is_some_and(|all| !all.is_empty())),
        Err(_) => true,
    };
    match runtime {
        RuntimeId::Python => text.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')),
        RuntimeId::Node => json(&["dependencies", "optionalDependencies", "peerDependencies"]),
        RuntimeId::Php => json(&["require"]),
        _ => true,
    }
}

/// True when what a manifest names is in the package already.
fn has_them(runtime: RuntimeId, family: RuntimeId, handler: &str, paths: &BTreeSet<String>) -> bool {
    let below = |directory: &str| paths.iter().any(|path| path.starts_with(directory));
    match runtime {
        RuntimeId::Python => paths.iter().any(|p| p.split('/').next().is_some_and(|d| d.ends_with(".dist-info"))),
        RuntimeId::Node => below("node_modules/"),
        RuntimeId::Php => below("vendor/"),
        _ if family == RuntimeId::Custom => paths.contains("bootstrap") || paths.contains("main"),
        _ => paths.contains(handler),
    }
}

/// What `InstallDependency` to send; `None`: nothing, because the platform does that already.
pub fn field(wanted: bool, present: Option<&Function>) -> Option<String> {
    let on = present.is_some_and(|function| function.install_dependency == "TRUE");
    (wanted || on).then(|| if wanted { "TRUE" } else { "FALSE" }.to_owned())
}

/// Shows what the installer prints until it has ended. `None`: the platform cannot tell.
///
/// # Errors
/// When the platform cannot be asked, or takes longer than it ever should.
pub fn follow(context: &Context, get: &GetFunction) -> Result<Option<Done>, CliError> {
    let deadline = Instant::now() + INSTALLED_WITHIN;
    let mut offset = 0;
    loop {
        let request = GetInstallLog {
            function_name: get.function_name.clone(),
            namespace: get.namespace.clone(),
            offset: Some(offset),
        };
        let Some(answer) = context.client.find(&request, "InvalidAction")? else { return Ok(None) };
        let log = answer.body;
        show(&log.lines, context.out);
        // Lines that came between are fetched before the status is believed.
        if !log.lines.is_empty() {
            offset = log.next_offset;
            continue;
        }
        if !matches!(log.status.as_str(), "Creating" | "Updating") {
            return Ok((log.status == "Active").then_some(Done { cached: log.cached, duration_ms: log.duration_ms }));
        }
        if Instant::now() >= deadline {
            let message =
                format!("the dependencies are not installed after {} minutes", INSTALLED_WITHIN.as_secs() / 60);
            return Err(CliError::new(Kind::Api(log.status), message)
                .hint(format!("look again later: mayfly get {}", get.function_name)));
        }
        sleep(POLL);
    }
}

fn show(lines: &[String], out: Output) {
    for line in lines {
        out.note(format_args!("  {}", printable(line)));
    }
}

/// What a Go function needs that is deployed as source, and is not to be built on the platform.
pub fn check_program(
    family: RuntimeId,
    handler: &str,
    paths: &BTreeSet<String>,
    installs: bool,
) -> Result<(), CliError> {
    if family != RuntimeId::Go || installs || paths.contains(handler) || !paths.contains("go.mod") {
        return Ok(());
    }
    Err(CliError::local("a Go function is deployed as a program, which is not there")
        .hint(format!("CGO_ENABLED=0 go build -o {handler} . (or let the platform build it: --install auto)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(mode: Install, family: RuntimeId, files: &[(&str, &str)]) -> Result<Option<String>, CliError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files.iter().filter(|(name, _)| !name.contains('/')) {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let paths = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        decide(mode, family, "main", &paths, dir.path())
    }

    #[test]
    fn auto_installs_what_is_named_and_not_there() {
        use RuntimeId::{Custom, Go, Java, Node, Php, Python};
        let auto = |family, files: &[(&str, &str)]| decided(Install::Auto, family, files).unwrap().is_some();
        let dependent = ("package.json", r#"{"dependencies": {"ms": "2"}}"#);
        assert!(auto(Python, &[("requirements.txt", "# x\nsix\n")]));
        assert!(!auto(Python, &[("requirements.txt", "# nothing\n")]));
        assert!(!auto(Python, &[("requirements.txt", "six\n"), ("six-1.0.dist-info/METADATA", "")]));
        assert!(auto(Node, &[dependent]) && auto(Custom, &[dependent]) && !auto(Python, &[dependent]));
        assert!(!auto(Node, &[dependent, ("node_modules/ms/index.js", "")]));
        assert!(!auto(Node, &[("package.json", r#"{"devDependencies": {"jest": "1"}}"#)]));
        assert!(auto(Node, &[("package.json", "{")]), "the platform says what is wrong with it");
        assert!(auto(Php, &[("composer.json", r#"{"require": {"a/b": "1"}}"#)]));
        assert!(auto(Go, &[("go.mod", "")]) && !auto(Go, &[("go.mod", ""), ("main", "")]));
        assert!(!auto(Java, &[dependent]));
        assert!(decided(Install::Never, Node, &[dependent]).unwrap().is_none());
        assert!(decided(Install::Always, Node, &[dependent, ("node_modules/x", "")]).unwrap().is_some());
        assert!(decided(Install::Always, Node, &[("a.js", "")]).unwrap_err().hint.contains("package.json"));
    }

    #[test]
    fn a_switch_is_sent_when_it_is_to_change() {
        let function = |on: &str| Function { install_dependency: on.into(), ..Default::default() };
        assert_eq!(field(false, None), None);
        assert_eq!(field(true, None).as_deref(), Some("TRUE"));
        assert_eq!(field(false, Some(&function("TRUE"))).as_deref(), Some("FALSE"));
        assert_eq!(field(false, Some(&function("FALSE"))), None);
    }
}
