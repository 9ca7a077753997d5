//! The data directory: who may use it, and the root keys.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The root key pair.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Its public half.
    pub secret_id: String,
    /// Its secret half.
    pub secret_key: String,
    /// Where it came from, for people.
    pub source: String,
}

/// The form of `credentials.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    secret_id: String,
    secret_key: String,
}

/// The data directory of a running platform. Held by a lock: one platform at a time.
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, making it (mode 0700) where absent.
    pub fn open(root: &Path) -> Result<Self> {
        let shown = root.display();
        fs::create_dir_all(root).with_context(|| format!("make the data directory {shown}"))?;
        fs::set_permissions(root, Permissions::from_mode(0o700)).with_context(|| format!("close {shown} to others"))?;
        let root = fs::canonicalize(root).with_context(|| format!("find {shown}"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .context("open the lock")?;
        // SAFETY: flock on an open descriptor.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            bail!("another platform runs on the data directory {shown}; stop it, or give this one `--data` of its own");
        }
        Ok(Self { root, _lock: lock })
    }

    /// A path within.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Six characters that tell this platform's cgroups and links from others' on the machine. The same at each start, so that what a
    /// killed platform left is found.
    pub fn id(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        hex::encode(Sha256::digest(self.root.as_os_str().as_bytes()))[..6].to_owned()
    }

    /// A name that no other platform has, on any machine: for what it keeps with servers that others use too. Made at the first start.
    pub fn owner(&self) -> Result<String> {
        let path = self.path("owner");
        match fs::read_to_string(&path) {
            Ok(text) if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) => return Ok(text),
            Ok(_) => bail!("{} is damaged: it holds 32 hexadecimal digits", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
        let owner = random(16)?;
        write_secret(&path, owner.as_bytes()).context("write the file `owner`")?;
        Ok(owner)
    }

    /// The root key pair: from the environment, or from `credentials.json`, which is made at the first start.
    pub fn keys(&self) -> Result<Keys> {
        let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        match (variable("MAYFLY_SECRET_ID"), variable("MAYFLY_SECRET_KEY")) {
            (Some(secret_id), Some(secret_key)) => {
                return Ok(Keys { secret_id, secret_key, source: "MAYFLY_SECRET_ID and MAYFLY_SECRET_KEY".into() });
            }
            (None, None) => {}
            _ => bail!("of MAYFLY_SECRET_ID and MAYFLY_SECRET_KEY only one is set; set both or neither"),
        }
        let path = self.path("credentials.json");
        if !path.exists() {
            let file = KeysFile { secret_id: format!("AKID{}", random(16)?), secret_key: random(20)? };
            write_secret(&path, &serde_json::to_vec_pretty(&file)?).context("write credentials.json")?;
        }
        let text = fs::read(&path).context("read credentials.json")?;
        let file: KeysFile = serde_json::from_slice(&text)
            .with_context(|| format!("read {}: it holds `secret_id` and `secret_key`", path.display()))?;
        Ok(Keys { secret_id: file.secret_id, secret_key: file.secret_key, source: path.display().to_string() })
    }
}

fn random(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).context("get random bytes")?;
    Ok(hex::encode(buffer))
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_kept_secret() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let first = data.keys().unwrap();
        assert_eq!(first.secret_id, data.keys().unwrap().secret_id);
        let mode = fs::metadata(dir.path().join("credentials.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn one_platform_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let refused = DataDir::open(dir.path()).err().unwrap().to_string();
        assert!(refused.contains("another platform runs"), "{refused}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }
}
