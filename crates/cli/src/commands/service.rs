//! What `mayfly deploy` knows of HTTP services: their start file, and how to tell them from event functions.

use super::url::is_service;
use super::{namespace_flag, quoted};
use crate::api::{Concurrency, Function};
use crate::error::CliError;
use crate::guess::Guess;
use crate::manifest::FunctionType;
use crate::output::Output;
use crate::package::{IGNORE_FILE, Package, START_FILE};
use std::io::Read;
use std::path::Path;

/// Requests that an instance takes at a time unless something else is said. (SCF's own default of 1 would start one server a request.)
pub const CONCURRENCY_DEFAULT: u64 = 100;
/// How much of the start file is looked at, in bytes.
const HEAD_BYTES: u64 = 64 * 1024;
/// Runtime of services whose runtime is not named: their start file says itself what it runs.
const RUNTIME_DEFAULT: &str = "CustomRuntime";

/// The type of the function: as wanted; else as it is; else by the start file. With why, when it was guessed.
///
/// # Errors
/// When a function would have to change its type.
pub fn type_of(
    dir: &Path,
    wanted: Option<FunctionType>,
    handler: Option<&str>,
    present: Option<&Function>,
) -> Result<(FunctionType, Option<String>), CliError> {
    let Some(present) = present else {
        return Ok(match wanted {
            Some(wanted) => (wanted, None),
            None if handler.is_none() && dir.join(START_FILE).is_file() => {
                (FunctionType::Http, Some(format!("type: http (there is `{START_FILE}`)")))
            }
            None => (FunctionType::Event, None),
        });
    };
    let now = if is_service(present) { FunctionType::Http } else { FunctionType::Event };
    match wanted {
        Some(wanted) if wanted != now => Err(other_type(present, now, wanted.as_str())),
        _ => Ok((now, None)),
    }
}

fn other_type(present: &Function, now: FunctionType, wanted: &str) -> CliError {
    CliError::local(format!(
        "the function `{}` has the type {}, which cannot become {wanted}",
        present.function_name,
        now.as_str()
    ))
    .hint(format!(
        "choose another name, or remove it first: mayfly rm {}{}",
        quoted(&present.function_name),
        namespace_flag(&present.namespace)
    ))
}

/// Explains why no handler was found in the folder of an event function that has a start file.
pub fn explain(dir: &Path, present: Option<&Function>, error: CliError) -> CliError {
    match present.filter(|p| !is_service(p) && dir.join(START_FILE).is_file()) {
        Some(present) => other_type(present, FunctionType::Event, "http")
            .details(format!("the folder has `{START_FILE}`, but no handler: {}", error.message)),
        None => error,
    }
}

/// Runtime and handler of a service, neither of which it needs.
pub fn complete(runtime: Option<&str>, handler: Option<&str>, present: Option<&Function>) -> Guess {
    let now = present.map(|p| p.runtime.as_str()).filter(|r| !r.is_empty());
    Guess {
        runtime: runtime.or(now).unwrap_or(RUNTIME_DEFAULT).to_owned(),
        handler: handler.unwrap_or_default().to_owned(),
        why: String::new(),
    }
}

/// `concurrency`, checked. Errors when it is out of range, or the function is no service.
pub fn check_concurrency(concurrency: Option<u64>, kind: FunctionType) -> Result<(), CliError> {
    match (concurrency, kind) {
        (Some(1), _) | (None, _) => Ok(()),
        (Some(n), FunctionType::Http) if (1..=100).contains(&n) => Ok(()),
        (Some(n), FunctionType::Http) => {
            Err(CliError::local(format!("concurrency cannot be {n}")).hint("it is a number from 1 to 100"))
        }
        (Some(_), FunctionType::Event) => Err(CliError::local("concurrency is for functions of type http").hint(
            "an event function takes one event at a time in each instance; the platform starts as many as are needed",
        )),
    }
}

/// As the API takes it.
pub fn concurrency(n: u64) -> Concurrency {
    Concurrency { dynamic_enabled: "FALSE".into(), max_concurrency: n }
}

/// Says what would surely fail of the start file, and what was mended.
///
/// # Errors
/// When there is none.
pub fn check_files(package: &Package, dir: &Path, out: Output) -> Result<(), CliError> {
    if !package.paths.contains(START_FILE) {
        return Err(match dir.join(START_FILE).is_file() {
            true => CliError::local(format!("{START_FILE} is left out of the package by the ignore rules"))
                .hint(format!("bring it back with a line `!{START_FILE}` in {IGNORE_FILE}")),
            false => CliError::local(format!("a function of type http needs a file `{START_FILE}`, which starts its server"))
                .hint(format!("for example: printf '#!/bin/bash\\nexec node server.js\\n' > {START_FILE}; the server listens on port 9000")),
        });
    }
    if package.made_executable {
        out.note(format_args!(
            "{START_FILE} is not executable; in the package it is (chmod +x {START_FILE} does it for good)"
        ));
    }
    for warning in faults(&dir.join(START_FILE)) {
        out.warning(warning);
    }
    if package.left_out.iter().any(|n| n == "node_modules/") && package.paths.contains("package.json") {
        out.warning(format_args!(
            "node_modules/ is not in the package; add a line `!node_modules/` to {IGNORE_FILE} unless a layer has it"
        ));
    }
    Ok(())
}

/// What keeps a start file from starting.
fn faults(file: &Path) -> Vec<String> {
    let mut head = Vec::new();
    if std::fs::File::open(file).and_then(|f| f.take(HEAD_BYTES).read_to_end(&mut head)).is_err() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let is_program = head.starts_with(b"\x7fELF");
    if !is_program && head.windows(2).any(|w| w == b"\r\n") {
        faults.push(format!(
            "{START_FILE} has Windows line ends (CRLF), with which it will not start; mend it: sed -i 's/\\r$//' {START_FILE}"
        ));
    }
    if !is_program && !head.starts_with(b"#!") {
        faults.push(format!("{START_FILE} does not begin with `#!/bin/bash` or the like, and may not start"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::pack;
    use crate::test_folder::folder;
    use std::os::unix::fs::PermissionsExt;

    fn present(kind: &str) -> Function {
        Function { function_name: "web".into(), namespace: "default".into(), kind: kind.into(), ..Default::default() }
    }

    #[test]
    fn the_type_is_wanted_kept_or_guessed() {
        let (service, event) = (folder(&[(START_FILE, "#!/bin/bash\n")]), folder(&[("index.py", "")]));
        let kind = |dir: &tempfile::TempDir, wanted, handler, present: Option<&Function>| {
            type_of(dir.path(), wanted, handler, present).map(|(kind, why)| (kind, why.is_some()))
        };
        use FunctionType::{Event, Http};
        assert_eq!(kind(&service, None, None, None).unwrap(), (Http, true));
        assert_eq!(kind(&service, Some(Event), None, None).unwrap(), (Event, false));
        assert_eq!(kind(&service, None, Some("index.handler"), None).unwrap(), (Event, false));
        assert_eq!(kind(&event, None, None, None).unwrap(), (Event, false));
        assert_eq!(kind(&event, None, None, Some(&present("HTTP"))).unwrap(), (Http, false));
        assert_eq!(kind(&service, None, None, Some(&present("Event"))).unwrap(), (Event, false));
        let error = kind(&service, Some(Http), None, Some(&present("Event"))).unwrap_err();
        assert!(error.message.contains("type event") && error.hint.contains("mayfly rm web"), "{error}");
        let error = explain(service.path(), Some(&present("Event")), CliError::local("nothing found"));
        assert!(error.message.contains("cannot become http"), "{error}");
        assert_eq!(
            explain(event.path(), Some(&present("Event")), CliError::local("nothing found")).message,
            "nothing found"
        );
    }

    #[test]
    fn services_need_no_runtime() {
        assert_eq!(complete(None, None, None).runtime, "CustomRuntime");
        let now = Function { runtime: "Nodejs18.15".into(), ..present("HTTP") };
        assert_eq!(complete(None, None, Some(&now)).runtime, "Nodejs18.15");
        assert_eq!(complete(Some("Python3"), None, None).runtime, "Python3");
        assert!(check_concurrency(Some(100), FunctionType::Http).is_ok());
        assert!(check_concurrency(Some(101), FunctionType::Http).unwrap_err().hint.contains("100"));
        assert!(check_concurrency(Some(0), FunctionType::Http).is_err());
        assert!(check_concurrency(Some(2), FunctionType::Event).unwrap_err().message.contains("http"));
        assert!(check_concurrency(Some(1), FunctionType::Event).is_ok());
    }

    #[test]
    fn start_files_are_mended_and_looked_at() {
        let dir = folder(&[(START_FILE, "#!/bin/bash\r\nnode server.js\r\n"), ("run.sh", "#!/bin/sh\n")]);
        let package = pack(dir.path(), &[]).unwrap();
        assert!(package.made_executable);
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&package.zip)).unwrap();
        assert_eq!(archive.by_name(START_FILE).unwrap().unix_mode().unwrap() & 0o777, 0o755);
        assert_eq!(archive.by_name("run.sh").unwrap().unix_mode().unwrap() & 0o777, 0o644, "nothing else is touched");
        let file = dir.path().join(START_FILE);
        assert!(faults(&file).len() == 1 && faults(&file)[0].contains("CRLF"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let again = pack(dir.path(), &[]).unwrap();
        assert!(!again.made_executable && again.sha256 == package.sha256, "the mode makes no other package");
        std::fs::write(&file, "exec node server.js\n").unwrap();
        assert!(faults(&file)[0].contains("#!/bin/bash"));
        std::fs::write(&file, "\x7fELF\r\n").unwrap();
        assert!(faults(&file).is_empty());
    }
}
