//! Guessing a function's runtime and handler from its files, and saying why.

use crate::error::CliError;
use mayfly_model::RuntimeId;
use mayfly_model::runtime::find_runtime;
use regex::Regex;
use std::io::Read;
use std::path::Path;

/// Names of handlers, in the order in which they are looked for.
const HANDLERS: [&str; 3] = ["main_handler", "handler", "lambda_handler"];
const PYTHON_FILES: [&str; 3] = ["index.py", "app.py", "main.py"];
/// What Go functions are called. Source: SCF, "Golang".
const GO_PROGRAM: &str = "main";
const PHP_FILES: [&str; 3] = ["index.php", "app.php", "main.php"];
const NODE_FILES: [&str; 5] = ["index.js", "index.mjs", "index.cjs", "app.js", "main.js"];
/// What the Node.js runtime appends to a handler's file, in its order.
pub const NODE_ENDINGS: [&str; 6] = [".js", ".cjs", ".mjs", "/index.js", "/index.cjs", "/index.mjs"];
/// How much of a file is searched, in bytes.
const SEARCH_BYTES_MAX: u64 = 1024 * 1024;

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// A runtime name of the API.
    pub runtime: String,
    /// `file.function`; empty for custom runtimes.
    pub handler: String,
    /// Why, in a few words; empty when nothing was guessed.
    pub why: String,
}

/// Completes runtime and handler of the code in `dir`. What is given is not questioned.
///
/// # Errors
/// When nothing, or more than one thing, can be meant.
pub fn complete(dir: &Path, runtime: Option<&str>, handler: Option<&str>) -> Result<Guess, CliError> {
    let family = runtime.map(family_of).transpose()?;
    if let Some(runtime) = runtime
        && (handler.is_some() || family == Some(RuntimeId::Custom))
    {
        let handler = handler.unwrap_or_default().to_owned();
        return Ok(Guess { runtime: runtime.to_owned(), handler, why: String::new() });
    }
    let mut guess = match handler {
        Some(handler) => by_handler(dir, handler)?,
        None => by_files(dir, family)?,
    };
    if let Some(runtime) = runtime {
        guess.runtime = runtime.to_owned();
    }
    Ok(guess)
}

/// The family of a runtime name.
///
/// # Errors
/// For names that do not exist or are not served.
pub fn family_of(name: &str) -> Result<RuntimeId, CliError> {
    match find_runtime(name).map(|r| r.family) {
        Some(Ok(family)) => Ok(family),
        Some(Err(why)) => Err(CliError::local(format!("runtime `{name}` is not served: {why}"))),
        None => Err(CliError::local(format!("there is no runtime `{name}`"))
            .hint("use Python3, Nodejs, Php, Go1, Java11 or CustomRuntime; docs/scf-compatibility.md has all names")),
    }
}

fn by_handler(dir: &Path, handler: &str) -> Result<Guess, CliError> {
    if !handler.contains('.') && is_executable(&dir.join(handler)) {
        let why = format!("`{handler}` is a program");
        return Ok(Guess { runtime: "Go1".into(), handler: handler.into(), why });
    }
    let file = handler.rsplit_once('.').map_or(handler, |(file, _)| file);
    let guess = |runtime: &str, name: String| Guess {
        runtime: runtime.into(),
        handler: handler.into(),
        why: format!("the handler `{handler}` is in {name}"),
    };
    if handler.contains("::") {
        let why = format!("the handler `{handler}` is a method");
        return Ok(Guess { runtime: "Java11".into(), handler: handler.into(), why });
    }
    let find = |endings: &[&str]| endings.iter().map(|e| format!("{file}{e}")).find(|f| dir.join(f).is_file());
    let mut found: Vec<(&str, String)> = Vec::new();
    for (runtime, endings) in [("Python3", &[".py"][..]), ("Nodejs", &NODE_ENDINGS), ("Php", &[".php"])] {
        found.extend(find(endings).map(|file| (runtime, file)));
    }
    match found.as_slice() {
        [(runtime, file)] => Ok(guess(runtime, file.clone())),
        [] => Err(CliError::local(format!(
            "the handler `{handler}` is in no file: there is none of {file}.py, {file}.js, {file}.php"
        ))
        .hint("a handler is `file.function`, the file without its ending")),
        several => {
            let files: Vec<_> = several.iter().map(|(_, file)| file.as_str()).collect();
            Err(CliError::local(format!("the handler `{handler}` may be in {}", files.join(" or in ")))
                .hint("say which with --runtime or `runtime` in mayfly.yml"))
        }
    }
}

/// A file that may hold a handler.
struct Candidate {
    family: RuntimeId,
    file: String,
    from: &'static str,
}

fn by_files(dir: &Path, family: Option<RuntimeId>) -> Result<Guess, CliError> {
    let wanted = |f: RuntimeId| family.is_none_or(|family| family == f);
    if wanted(RuntimeId::Custom) && is_executable(&dir.join("bootstrap")) {
        let why = "there is an executable `bootstrap`".into();
        return Ok(Guess { runtime: "CustomRuntime".into(), handler: String::new(), why });
    }
    if wanted(RuntimeId::Go) && is_executable(&dir.join(GO_PROGRAM)) {
        let why = format!("there is an executable `{GO_PROGRAM}`");
        return Ok(Guess { runtime: "Go1".into(), handler: GO_PROGRAM.into(), why });
    }
    if wanted(RuntimeId::Go) && dir.join("go.mod").is_file() {
        // The platform builds it. Programs on AWS's library speak the protocol of custom runtimes.
        let aws = head(&dir.join("go.mod"))?.contains("aws/aws-lambda-go");
        let (runtime, handler) = if aws { ("CustomRuntime", "") } else { ("Go1", GO_PROGRAM) };
        return Ok(Guess { runtime: runtime.into(), handler: handler.into(), why: "there is a go.mod".into() });
    }
    if wanted(RuntimeId::Java) && has_java(dir) {
        return Err(CliError::local("a Java function's class and method cannot be told from its files")
            .hint("say them with --runtime Java11 --handler package.Class::method, or in mayfly.yml"));
    }
    let mut candidates = Vec::new();
    if wanted(RuntimeId::Python) {
        let exist = PYTHON_FILES.iter().filter(|f| dir.join(f).is_file());
        candidates.extend(exist.map(|f| Candidate { family: RuntimeId::Python, file: (*f).into(), from: "" }));
    }
    if wanted(RuntimeId::Node) {
        let main = package_main(dir).filter(|f| dir.join(f).is_file());
        let exist = NODE_FILES.iter().filter(|f| dir.join(f).is_file() && main.as_deref() != Some(**f));
        let exist: Vec<_> = exist.collect();
        let main = main.map(|file| Candidate { family: RuntimeId::Node, file, from: " (`main` of package.json)" });
        candidates.extend(main);
        candidates.extend(exist.into_iter().map(|f| Candidate {
            family: RuntimeId::Node,
            file: (*f).into(),
            from: "",
        }));
    }
    if wanted(RuntimeId::Php) {
        let exist = PHP_FILES.iter().filter(|f| dir.join(f).is_file());
        candidates.extend(exist.map(|f| Candidate { family: RuntimeId::Php, file: (*f).into(), from: "" }));
    }
    let mut found: Vec<Guess> = Vec::new();
    for candidate in &candidates {
        let text = head(&dir.join(&candidate.file))?;
        let Some(name) = HANDLERS.into_iter().find(|name| defines(candidate.family, &text, name)) else { continue };
        let runtime = match candidate.family {
            RuntimeId::Python => "Python3",
            RuntimeId::Php => "Php",
            _ => "Nodejs",
        };
        // The first file of a family is meant; a second family makes it unclear.
        if found.iter().any(|g| g.runtime == runtime) {
            continue;
        }
        let stem = candidate.file.rsplit_once('.').map_or(candidate.file.as_str(), |(stem, _)| stem);
        let why = format!("{}{} defines `{name}`", candidate.file, candidate.from);
        found.push(Guess { runtime: runtime.into(), handler: format!("{stem}.{name}"), why });
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(nothing(dir, &candidates)),
        _ => {
            let all: Vec<_> = found.iter().map(|g| g.why.as_str()).collect();
            Err(CliError::local(format!("cannot tell what this function is: {}", all.join(", and ")))
                .hint("say it with --runtime (Python3, Nodejs, Php), or `runtime` in mayfly.yml"))
        }
    }
}

fn nothing(dir: &Path, candidates: &[Candidate]) -> CliError {
    if dir.join("bootstrap").is_file() {
        return CliError::local("`bootstrap` is there but not executable").hint("chmod +x bootstrap");
    }
    let hint = "say what it is with --runtime and --handler file.function, or in mayfly.yml";
    let names = HANDLERS.join(", ");
    let error = if candidates.is_empty() {
        format!(
            "cannot tell what runs {}: there is no executable `bootstrap`, and none of {}, {}, {}",
            dir.display(),
            PYTHON_FILES.join(", "),
            NODE_FILES.join(", "),
            PHP_FILES.join(", ")
        )
    } else {
        let files: Vec<_> = candidates.iter().map(|c| c.file.as_str()).collect();
        format!("cannot tell the handler: {} defines none of {names}", files.join(" or "))
    };
    CliError::local(error).hint(hint)
}

/// True for a folder of jars, or a Maven or Gradle project.
fn has_java(dir: &Path) -> bool {
    let is_jar = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "jar");
    ["pom.xml", "build.gradle", "build.gradle.kts"].iter().any(|f| dir.join(f).is_file())
        || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(is_jar)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// `main` of package.json, as a path of the package.
fn package_main(dir: &Path) -> Option<String> {
    let text = head(&dir.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    let main = package.get("main")?.as_str()?;
    let main = main.strip_prefix("./").unwrap_or(main);
    let plain = !main.is_empty() && !main.starts_with('/') && main.split('/').all(|p| !p.is_empty() && p != "..");
    match plain {
        true if [".js", ".cjs", ".mjs"].iter().any(|e| main.ends_with(e)) => Some(main.to_owned()),
        true => Some(format!("{main}.js")),
        false => None,
    }
}

fn head(path: &Path) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(SEARCH_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|e| CliError::local(format!("cannot read {}: {e}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// True when a source file seems to define `name` at its top level. A guess: no file is parsed.
fn defines(family: RuntimeId, text: &str, name: &str) -> bool {
    let patterns: &[&str] = match family {
        RuntimeId::Python => &[
            r"(?m)^(async\s+)?def\s+NAME\s*\(",
            r"(?m)^NAME\s*(:[^=\n]+)?=[^=]",
            r"(?m)^from\s+\S+\s+import\s+[^\n]*\bNAME\b",
        ],
        RuntimeId::Node => &[
            r"(?m)^\s*(module\.)?exports\.NAME\s*=[^=]",
            r#"(?m)^\s*(module\.)?exports\[['"]NAME['"]\]\s*=[^=]"#,
            r"(?m)^\s*(module\.)?exports\s*=\s*\{[^}]*\bNAME\b",
            r"(?m)^\s*export\s+(async\s+)?(function\s*\*?|const|let|var)\s+NAME\b",
            r"(?m)^\s*export\s*\{[^}]*\bNAME\b",
        ],
        // Names of functions do not distinguish case.
        RuntimeId::Php => &[r"(?mi)^\s*function\s+&?\s*NAME\s*\("],
        RuntimeId::Go | RuntimeId::Java | RuntimeId::Custom => &[],
    };
    patterns.iter().any(|p| Regex::new(&p.replace("NAME", name)).is_ok_and(|r| r.is_match(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::folder;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn guess(files: &[(&str, &str)]) -> Result<Guess, CliError> {
        complete(folder(files).path(), None, None)
    }

    #[test]
    fn python_and_node_are_told_by_their_files() {
        for (files, runtime, handler) in [
            (
                vec![("index.py", "import os\ndef main_handler(event, context):\n  pass")],
                "Python3",
                "index.main_handler",
            ),
            (vec![("app.py", "async def handler(e, c): pass")], "Python3", "app.handler"),
            (vec![("main.py", "lambda_handler = make()")], "Python3", "main.lambda_handler"),
            (vec![("index.py", "x = 1"), ("app.py", "def handler(e, c): 1")], "Python3", "app.handler"),
            (vec![("index.js", "exports.handler = async () => 1")], "Nodejs", "index.handler"),
            (vec![("app.js", "module.exports = {\n  main_handler,\n}")], "Nodejs", "app.main_handler"),
            (vec![("index.mjs", "export const handler = 1")], "Nodejs", "index.handler"),
            (vec![("index.php", "<?php\nfunction main_handler($event, $context) {\n}")], "Php", "index.main_handler"),
            (
                vec![("package.json", r#"{"main":"./src/run"}"#), ("src/run.js", "exports.main_handler = f")],
                "Nodejs",
                "src/run.main_handler",
            ),
        ] {
            let guess = guess(&files).unwrap();
            assert_eq!((guess.runtime.as_str(), guess.handler.as_str()), (runtime, handler));
            assert!(!guess.why.is_empty());
        }
    }

    #[test]
    fn a_bootstrap_is_a_custom_runtime_when_it_can_run() {
        let dir = folder(&[("bootstrap", "#!/bin/bash"), ("notes.txt", "")]);
        let error = complete(dir.path(), None, None).unwrap_err();
        assert_eq!(error.hint, "chmod +x bootstrap");
        fs::set_permissions(dir.path().join("bootstrap"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(complete(dir.path(), None, None).unwrap().runtime, "CustomRuntime");
    }

    #[test]
    fn go_is_told_by_its_program() {
        let dir = folder(&[("go.mod", "module x"), ("main.go", "package main")]);
        let guess = complete(dir.path(), None, None).unwrap();
        assert_eq!((guess.runtime.as_str(), guess.handler.as_str()), ("Go1", "main"));
        let dir = folder(&[("go.mod", "module x\nrequire github.com/aws/aws-lambda-go v1.47.0"), ("main.go", "")]);
        assert_eq!(complete(dir.path(), None, None).unwrap().runtime, "CustomRuntime");
        fs::write(dir.path().join("main"), "").unwrap();
        fs::set_permissions(dir.path().join("main"), fs::Permissions::from_mode(0o755)).unwrap();
        for handler in [None, Some("main")] {
            let guess = complete(dir.path(), None, handler).unwrap();
            assert_eq!((guess.runtime.as_str(), guess.handler.as_str()), ("Go1", "main"));
        }
    }

    #[test]
    fn java_needs_its_handler_said() {
        let dir = folder(&[("pom.xml", "<project/>")]);
        assert!(complete(dir.path(), None, None).unwrap_err().hint.contains("package.Class::method"));
        let given = complete(dir.path(), None, Some("example.Hello::mainHandler")).unwrap();
        assert_eq!((given.runtime.as_str(), given.handler.as_str()), ("Java11", "example.Hello::mainHandler"));
    }

    #[test]
    fn what_is_unclear_is_asked_back() {
        assert!(guess(&[]).unwrap_err().hint.contains("--runtime"));
        let none = guess(&[("index.py", "def other(): pass\nif handler == 1: pass")]).unwrap_err();
        assert!(none.message.contains("index.py defines none of main_handler"), "{none}");
        let both = guess(&[("index.py", "def handler(e,c): 1"), ("index.js", "exports.handler = 1")]).unwrap_err();
        assert!(both.message.contains("index.py") && both.message.contains("index.js"), "{both}");
        let outside = guess(&[("package.json", r#"{"main":"../../x.js"}"#)]).unwrap_err();
        assert!(outside.message.contains("there is no executable"));
    }

    #[test]
    fn what_is_given_is_kept() {
        let dir = folder(&[("index.py", "def handler(e,c): 1"), ("index.js", "exports.handler = 1")]);
        let guess = complete(dir.path(), Some("Nodejs18.15"), None).unwrap();
        assert_eq!((guess.runtime.as_str(), guess.handler.as_str()), ("Nodejs18.15", "index.handler"));
        let given = complete(dir.path(), Some("Python3.9"), Some("any.thing")).unwrap();
        assert_eq!((given.handler.as_str(), given.why.as_str()), ("any.thing", ""));
        assert!(complete(dir.path(), None, Some("index.handler")).is_err());
        assert!(complete(dir.path(), None, Some("lost.handler")).unwrap_err().message.contains("lost.py"));
        assert!(complete(dir.path(), Some("Cobol"), None).unwrap_err().message.contains("Cobol"));
        assert!(complete(dir.path(), Some("Php5.6"), None).unwrap_err().message.contains("not served"));
        assert_eq!(complete(dir.path(), Some("CustomRuntime"), None).unwrap().handler, "");
    }
}
