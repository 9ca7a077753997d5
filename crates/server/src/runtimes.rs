//! The runtimes that come with the program: written to the data directory at start, and matched with what the machine has.

use crate::prepare::{PREPARED, Preparation};
use anyhow::{Context, Result};
use mayfly_model::RuntimeId;
use mayfly_sandbox::process::find_interpreter;
use mayfly_sandbox::wire::{RuntimeConfig, Start};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(rust_embed::Embed)]
#[folder = "../../runtimes/"]
#[exclude = "*/test_*"]
#[exclude = "*/__pycache__/*"]
struct Files;

/// A runtime's `runtime.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    id: String,
    start: Start,
    #[serde(default)]
    interpreters: Vec<String>,
    #[serde(default)]
    version_args: Vec<String>,
    #[serde(default)]
    zygote: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    /// Programs to run on the host before the first use; see [`Preparation`].
    #[serde(default)]
    prepare: Vec<Vec<String>>,
    /// What they make stays good until the interpreter changes.
    #[serde(default)]
    prepare_once: bool,
}

/// What a runtime needs of the machine.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The runtime.
    pub runtime: RuntimeId,
    /// Where its interpreter may be; the first that is there is used.
    pub paths: Vec<String>,
    /// Arguments that make it print its version.
    pub version_args: Vec<String>,
}

/// The interpreters of the runtimes that come with the program. Errors: a descriptor that cannot be read.
pub fn interpreters() -> Result<Vec<Interpreter>> {
    let mut found = Vec::new();
    for Descriptor { id, interpreters: paths, version_args, .. } in descriptors()? {
        let runtime = RuntimeId::ALL.into_iter().find(|known| known.as_str() == id);
        let runtime = runtime.with_context(|| format!("no runtime is called `{id}`"))?;
        if !paths.is_empty() {
            found.push(Interpreter { runtime, paths, version_args });
        }
    }
    found.sort_by_key(|interpreter| interpreter.runtime);
    Ok(found)
}

fn embedded(name: &str) -> rust_embed::EmbeddedFile {
    Files::get(name).expect("an embedded file's name leads to it")
}

fn descriptors() -> Result<Vec<Descriptor>> {
    Files::iter()
        .filter(|name| name.ends_with("/runtime.toml"))
        .map(|name| toml::from_slice(&embedded(&name).data).with_context(|| format!("read {name}")))
        .collect()
}

/// Runtimes ready for the spawner.
pub struct Installed {
    /// The folder of all runtimes.
    pub dir: PathBuf,
    /// Those that the machine has an interpreter for.
    pub configs: Vec<RuntimeConfig>,
    /// What is said of the others.
    pub missing: Vec<String>,
    /// What some of them need before their first use, by name.
    pub prepare: HashMap<String, Preparation>,
}

/// Writes the runtimes below `base`, in a folder named after their content, and removes folders of other contents.
pub fn install(base: &Path) -> Result<Installed> {
    let mut hash = Sha256::new();
    for name in Files::iter() {
        let file = embedded(&name);
        hash.update(name.as_bytes());
        hash.update(file.metadata.sha256_hash());
    }
    let name = hex::encode(hash.finalize())[..16].to_owned();
    let dir = base.join(&name);
    if !dir.exists() {
        let building = base.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&building);
        for name in Files::iter() {
            let path = building.join(name.as_ref());
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).context("make the runtimes' folder")?;
            }
            fs::write(&path, &embedded(&name).data).context("write a runtime")?;
        }
        fs::rename(&building, &dir).context("put the runtimes in place")?;
    }
    for entry in fs::read_dir(base).context("look at the runtimes")?.flatten() {
        if entry.path() != dir {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let (configs, missing, prepare) = (Vec::new(), Vec::new(), HashMap::new());
    let mut installed = Installed { dir: dir.clone(), configs, missing, prepare };
    for descriptor in descriptors()? {
        match configure(descriptor, &dir) {
            Ok((config, preparation)) => {
                installed.prepare.extend(preparation.map(|p| (config.id.clone(), p)));
                installed.configs.push(config);
            }
            Err(why) => installed.missing.push(why),
        }
    }
    Ok(installed)
}

/// The command lines of runtimes whose program is started when the function is known.
pub fn programs(configs: &[RuntimeConfig]) -> HashMap<RuntimeId, Vec<String>> {
    let late = configs.iter().filter(|c| c.start == Start::Bootstrap && !c.command.is_empty());
    let named = late.filter_map(|c| {
        let runtime = RuntimeId::ALL.into_iter().find(|known| known.as_str() == c.id)?;
        Some((runtime, c.command.clone()))
    });
    named.collect()
}

fn configure(descriptor: Descriptor, dir: &Path) -> Result<(RuntimeConfig, Option<Preparation>), String> {
    let Descriptor { id, start, interpreters, zygote, command, prepare, prepare_once, .. } = descriptor;
    let interpreter = find_interpreter(&interpreters);
    if interpreter.is_none() && !interpreters.is_empty() {
        return Err(format!("runtime `{id}` is not available: none of {} is installed", interpreters.join(", ")));
    }
    let interpreter = interpreter.unwrap_or_default();
    let real = fs::canonicalize(&interpreter).unwrap_or_default();
    let bin = real.parent().map(|bin| bin.display().to_string()).unwrap_or_default();
    let host = dir.join(&id).display().to_string();
    let fill = |words: Vec<String>, dir: &str| -> Vec<String> {
        let fill = |w: String| w.replace("{interpreter}", &interpreter).replace("{bin}", &bin).replace("{dir}", dir);
        words.into_iter().map(fill).collect()
    };
    let inside = format!("/var/runtime/{id}");
    let commands: Vec<_> = prepare.into_iter().map(|command| fill(command, &host)).collect();
    let stamp = prepare_once.then(|| {
        let changed = fs::metadata(&real).and_then(|m| m.modified()).ok();
        format!("{} {changed:?}", real.display())
    });
    let preparation = (!commands.is_empty()).then(|| Preparation { commands, dir: dir.join(&id), stamp });
    let command = command.into_iter().map(|w| w.replace("{prepared}", &format!("{inside}/{PREPARED}"))).collect();
    Ok((RuntimeConfig { start, zygote: fill(zygote, &host), command: fill(command, &inside), id }, preparation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_where_sandboxes_see_them() {
        let all = interpreters().unwrap();
        assert!(
            RuntimeId::ALL
                .into_iter()
                .all(|id| matches!(id, RuntimeId::Go | RuntimeId::Custom) || all.iter().any(|i| i.runtime == id))
        );
        for interpreter in all {
            assert!(!interpreter.version_args.is_empty(), "{interpreter:?}");
            assert!(interpreter.paths.iter().all(|p| p.starts_with("/usr/")), "{interpreter:?}");
        }
    }

    #[test]
    fn every_runtime_of_the_model_comes_with_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let installed = install(dir.path()).unwrap();
        for id in RuntimeId::ALL {
            let known = installed.configs.iter().any(|c| c.id == id.as_str())
                || installed.missing.iter().any(|m| m.contains(&format!("`{id}`")));
            assert!(known, "{id}");
        }
        let again = install(dir.path()).unwrap();
        assert_eq!(installed.dir, again.dir);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
