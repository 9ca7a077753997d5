//! The runtimes that come with the program: written to the data directory at start, and matched with what the machine has.

use anyhow::{Context, Result};
use mayfly_sandbox::process::find_interpreter;
use mayfly_sandbox::wire::{RuntimeConfig, Start};
use serde::Deserialize;
use sha2::{Digest, Sha256};
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
    #[serde(default, rename = "version_args")]
    _version_args: Vec<String>,
    #[serde(default)]
    zygote: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
}

/// Runtimes ready for the spawner.
pub struct Installed {
    /// The folder of all runtimes.
    pub dir: PathBuf,
    /// Those that the machine has an interpreter for.
    pub configs: Vec<RuntimeConfig>,
    /// What is said of the others.
    pub missing: Vec<String>,
}

/// Writes the runtimes below `base`, in a folder named after their content, and removes folders of other contents.
pub fn install(base: &Path) -> Result<Installed> {
    let mut hash = Sha256::new();
    for name in Files::iter() {
        let file = Files::get(&name).expect("an embedded file's name leads to it");
        hash.update(name.as_bytes());
        hash.update(file.metadata.sha256_hash());
    }
    let name = hex::encode(hash.finalize())[..16].to_owned();
    let dir = base.join(&name);
    if !dir.exists() {
        let building = base.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&building);
        for name in Files::iter() {
            let file = Files::get(&name).expect("an embedded file's name leads to it");
            let path = building.join(name.as_ref());
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).context("make the runtimes' folder")?;
            }
            fs::write(&path, &file.data).context("write a runtime")?;
        }
        fs::rename(&building, &dir).context("put the runtimes in place")?;
    }
    for entry in fs::read_dir(base).context("look at the runtimes")?.flatten() {
        if entry.path() != dir {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let mut installed = Installed { dir: dir.clone(), configs: Vec::new(), missing: Vec::new() };
    for file in Files::iter().filter(|n| n.ends_with("/runtime.toml")) {
        let text = fs::read_to_string(dir.join(file.as_ref())).context("read a runtime's descriptor")?;
        let descriptor: Descriptor = toml::from_str(&text).with_context(|| format!("read {file}"))?;
        match configure(descriptor, &dir) {
            Ok(config) => installed.configs.push(config),
            Err(why) => installed.missing.push(why),
        }
    }
    Ok(installed)
}

fn configure(descriptor: Descriptor, dir: &Path) -> Result<RuntimeConfig, String> {
    let Descriptor { id, start, interpreters, zygote, command, .. } = descriptor;
    let interpreter = find_interpreter(&interpreters);
    if interpreter.is_none() && start != Start::Bootstrap {
        return Err(format!("runtime `{id}` is not available: none of {} is installed", interpreters.join(", ")));
    }
    let interpreter = interpreter.unwrap_or_default();
    let host = dir.join(&id).display().to_string();
    let fill = |words: Vec<String>, dir: &str| {
        words.into_iter().map(|w| w.replace("{interpreter}", &interpreter).replace("{dir}", dir)).collect()
    };
    let inside = format!("/var/runtime/{id}");
    Ok(RuntimeConfig { start, zygote: fill(zygote, &host), command: fill(command, &inside), id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_model::RuntimeId;

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
