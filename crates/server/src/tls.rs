//! Which certificate a TLS client is shown: that of its custom domain, or the platform's own, which is read again when its files change.

use anyhow::{Context, Result, bail};
use mayfly_base::Clock;
use mayfly_base::shutdown::Shutdown;
use mayfly_cert::server::{ClientHello, ResolvesServerCert};
use mayfly_cert::{CertifiedKey, Identity, PEM_BYTES_MAX, Validity};
use mayfly_control::Control;
use parking_lot::RwLock;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the operator is told of certificates that are over, or will be.
const REMIND_EVERY: Duration = Duration::from_secs(86_400);
/// From when on the operator is told that a certificate will be over, in seconds before.
const SOON_S: i64 = 14 * 86_400;

/// Files with the certificate for the platform's own names, and its key.
#[derive(Clone, Debug)]
pub struct Files {
    /// The chain, in PEM.
    pub certificate: PathBuf,
    /// The key, in PEM. May be the same file.
    pub key: PathBuf,
}

/// What tells that a file is another: device, inode, size, and when it was written.
type Stamp = [(u64, u64, u64, i64, i64); 2];

impl Files {
    fn read(&self) -> Result<(Stamp, Identity)> {
        // Before the content: what changes meanwhile is read again at the next look.
        let stamp = self.stamp()?;
        let identity = Identity::from_pem(&content(&self.certificate)?, &content(&self.key)?);
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let identity = identity.with_context(|| format!("the certificate {certificate} with the key {key}"))?;
        Ok((stamp, identity))
    }

    fn stamp(&self) -> Result<Stamp> {
        let of = |path: &Path| {
            let about = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
            anyhow::Ok((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
        };
        Ok([of(&self.certificate)?, of(&self.key)?])
    }
}

fn content(path: &Path) -> Result<Vec<u8>> {
    let read = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).with_context(read)?.take(PEM_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).with_context(read)?;
    if bytes.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(bytes)
}

/// The certificates of a TLS listener.
#[derive(Debug)]
pub struct Certificates {
    control: ControlOf,
    files: Option<Files>,
    own: RwLock<Option<(Stamp, Arc<Identity>)>>,
}

/// [`Control`] says nothing of itself.
struct ControlOf(Control);

impl std::fmt::Debug for ControlOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Certificates {
    /// Reads the platform's own certificate, if there is one.
    ///
    /// # Errors
    /// When a file cannot be read, or the two do not make a certificate with its key; says which and why.
    pub fn new(control: Control, files: Option<Files>) -> Result<Arc<Self>> {
        let own = files.as_ref().map(Files::read).transpose()?;
        let own = RwLock::new(own.map(|(stamp, identity)| (stamp, Arc::new(identity))));
        Ok(Arc::new(Self { control: ControlOf(control), files, own }))
    }

    /// Keeps the platform's own certificate as its files are, and tells of those that are over.
    pub async fn watch(self: Arc<Self>, clock: impl Clock, shutdown: Shutdown) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut remind = tokio::time::interval(REMIND_EVERY);
        let mut refused = None;
        loop {
            tokio::select! {
                _ = look.tick() => self.look(&mut refused),
                _ = remind.tick() => self.remind(clock.now_ms()),
                () = shutdown.triggered() => return,
            }
        }
    }

    /// `refused`: the stamp of files that were told to be of no use, so that it is told once.
    fn look(&self, refused: &mut Option<Stamp>) {
        let Some(files) = &self.files else { return };
        // Gone, or half renamed: what was read stays, and the next look sees more.
        let Ok(stamp) = files.stamp() else { return };
        if self.own.read().as_ref().is_some_and(|(read, _)| *read == stamp) || *refused == Some(stamp) {
            return;
        }
        match files.read() {
            Ok((stamp, identity)) => {
                tracing::info!(names = identity.facts.names.join(", "), "the TLS certificate was read again");
                *self.own.write() = Some((stamp, Arc::new(identity)));
                *refused = None;
            }
            Err(error) => {
                tracing::warn!("the new TLS certificate is of no use, the old one stays: {error:#}");
                *refused = Some(stamp);
            }
        }
    }

    fn remind(&self, now_ms: u64) {
        let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let own = self.own.read().as_ref().map(|(_, identity)| ("--tls-cert".to_owned(), identity.clone()));
        let domains = self.control.0.catalogue().domains();
        let stored = domains.certificates().filter_map(|c| Some((c.record.id.clone(), c.identity.clone()?)));
        for (certificate, identity) in own.into_iter().chain(stored) {
            match identity.validity(now_s) {
                Validity::Expired => {
                    tracing::warn!(certificate, "this TLS certificate has expired; clients refuse it")
                }
                Validity::NotYet => {
                    tracing::warn!(certificate, "this TLS certificate is not valid yet; clients refuse it")
                }
                Validity::Good => {
                    let days = identity.facts.not_after_s.saturating_sub(now_s) / 86_400;
                    if identity.facts.not_after_s.saturating_sub(now_s) < SOON_S {
                        tracing::warn!(certificate, days, "this TLS certificate expires soon");
                    }
                }
            }
        }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let domain = name.and_then(|name| self.control.0.domain(&name.to_ascii_lowercase()));
        let own = || Some(self.own.read().as_ref()?.1.certified.clone());
        domain.and_then(|domain| domain.certified()).or_else(own)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_are_read_with_errors_that_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        let error = |files: &Files| format!("{:#}", files.read().unwrap_err());
        assert!(error(&files).contains("c.pem"));
        let (certificate, key) = made();
        fs::write(&files.certificate, &certificate).unwrap();
        assert!(error(&files).contains("k.pem"));
        fs::write(&files.key, "").unwrap();
        assert!(error(&files).contains("k.pem is empty"));
        fs::write(&files.key, made().1).unwrap();
        assert!(error(&files).contains("does not belong"), "{}", error(&files));
        fs::write(&files.key, &key).unwrap();
        let (stamp, _) = files.read().unwrap();
        assert_eq!(files.stamp().unwrap(), stamp);
        // Replaced as tools do it, by a file of the same size.
        fs::write(dir.path().join("new"), &key).unwrap();
        fs::rename(dir.path().join("new"), &files.key).unwrap();
        assert_ne!(files.stamp().unwrap(), stamp);
    }
}
