//! Custom domains and the certificates they name: kept with everything else, looked up by host without locks.

use super::{Catalogue, rows, run_to_end, store_error};
use mayfly_cert::{CertifiedKey, Identity};
use mayfly_model::{ApiError, CertificateRecord, DomainRecord};
use mayfly_store::Change;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A custom domain as readers see it.
#[derive(Debug)]
pub struct DomainEntry {
    /// Its record.
    pub record: DomainRecord,
    identity: Option<Arc<Identity>>,
}

impl DomainEntry {
    /// What to show to TLS clients that ask for it. `None`: it has no certificate.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.identity.as_ref()?.certified.clone())
    }
}

/// A certificate as readers see it.
#[derive(Clone, Debug)]
pub struct CertificateEntry {
    /// Its record.
    pub record: Arc<CertificateRecord>,
    /// What it says, and its key. `None`: this release cannot read what an earlier one stored.
    pub identity: Option<Arc<Identity>>,
}

/// Domains and certificates at one moment.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    domains: BTreeMap<String, Arc<DomainEntry>>,
    certificates: BTreeMap<String, CertificateEntry>,
}

impl Domains {
    /// As they were stored.
    pub(super) fn of(domains: Vec<DomainRecord>, certificates: Vec<CertificateRecord>) -> Self {
        let mut all = Self::default();
        for record in certificates {
            let identity = Identity::from_pem(record.certificate.as_bytes(), record.key.as_bytes());
            let identity = identity.inspect_err(|error| {
                tracing::error!(certificate = record.id, %error, "a stored certificate cannot be used; give it anew");
            });
            let entry = CertificateEntry { record: Arc::new(record), identity: identity.ok().map(Arc::new) };
            all.certificates.insert(entry.record.id.clone(), entry);
        }
        for record in domains {
            all.put_domain(record);
        }
        all
    }

    /// A domain by its host, in ASCII and lower case.
    pub fn domain(&self, host: &str) -> Option<&Arc<DomainEntry>> {
        self.domains.get(host)
    }

    /// All domains by name.
    pub fn domains(&self) -> impl ExactSizeIterator<Item = &Arc<DomainEntry>> {
        self.domains.values()
    }

    /// A certificate by its id.
    pub fn certificate(&self, id: &str) -> Option<&CertificateEntry> {
        self.certificates.get(id)
    }

    /// All certificates by id.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &CertificateEntry> {
        self.certificates.values()
    }

    /// The domains that name a certificate.
    pub fn users<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a DomainRecord> {
        self.domains.values().map(|entry| &entry.record).filter(move |r| r.certificate.as_deref() == Some(id))
    }

    fn put_domain(&mut self, record: DomainRecord) {
        let identity = record.certificate.as_ref().and_then(|id| self.certificates.get(id)?.identity.clone());
        self.domains.insert(record.name.clone(), Arc::new(DomainEntry { record, identity }));
    }

    fn put_certificate(&mut self, record: CertificateRecord, identity: Identity) {
        let (id, identity) = (record.id.clone(), Some(Arc::new(identity)));
        self.certificates.insert(id.clone(), CertificateEntry { record: Arc::new(record), identity });
        let users: Vec<DomainRecord> = self.users(&id).cloned().collect();
        for record in users {
            self.put_domain(record);
        }
    }
}

/// A change of domains or certificates.
#[derive(Debug)]
pub enum DomainChange {
    /// Creates or replaces a domain.
    Put(DomainRecord),
    /// Removes a domain.
    Delete(String),
    /// Creates or replaces a certificate, for all domains that name it.
    PutCertificate(CertificateRecord, Identity),
    /// Removes a certificate.
    DeleteCertificate(String),
}

impl DomainChange {
    fn apply(self, domains: &mut Domains) -> Change {
        match self {
            Self::Put(record) => {
                let row = rows::put_domain(&record);
                domains.put_domain(record);
                row
            }
            Self::Delete(name) => {
                domains.domains.remove(&name);
                rows::delete_domain(name)
            }
            Self::PutCertificate(record, identity) => {
                let row = rows::put_certificate(&record);
                domains.put_certificate(record, identity);
                row
            }
            Self::DeleteCertificate(id) => {
                domains.certificates.remove(&id);
                rows::delete_certificate(id)
            }
        }
    }
}

impl Catalogue {
    /// Domains and certificates as they are now. No lock.
    pub fn domains(&self) -> Arc<Domains> {
        self.0.domains.load_full()
    }

    /// A domain by its host. Costs next to nothing while there are none.
    pub fn domain(&self, host: &str) -> Option<Arc<DomainEntry>> {
        self.0.domains.load().domain(host).cloned()
    }

    /// True when there is any domain.
    pub fn has_domains(&self) -> bool {
        !self.0.domains.load().domains.is_empty()
    }

    /// Changes domains or certificates. `decide` sees them all. Durable and visible when it returns; goes on when the caller goes away.
    ///
    /// # Errors
    /// Those of `decide`, which change nothing; a code of [`store_error`] when it cannot be made durable.
    pub async fn change_domains(
        &self,
        decide: impl FnOnce(&Domains) -> Result<DomainChange, ApiError> + Send,
    ) -> Result<(), ApiError> {
        let guard = self.0.domains_lock.clone().lock_owned().await;
        let mut next = Domains::clone(&self.0.domains.load());
        let row = decide(&next)?.apply(&mut next);
        let inner = self.0.clone();
        run_to_end(async move {
            inner.meta.apply(vec![row]).await.map_err(store_error)?;
            inner.domains.store(Arc::new(next));
            drop(guard);
            Ok(())
        })
        .await
    }
}
