//! Certificates of custom domains: actions of Mayfly's own. Nothing here shows or logs a key.

use super::common::Page;
use super::{Answer, Cx, Run};
use crate::api::requests::{DeleteCertificate, ListCertificates, PutCertificate};
use crate::api::time;
use crate::catalogue::{CertificateEntry, DomainChange, Domains, clip};
use async_trait::async_trait;
use mayfly_cert::{Identity, Validity};
use mayfly_model::{ApiError, CertificateRecord, limits};
use serde_json::{Value, json};

/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 64;
/// A certificate that has no longer to live is said to expire soon, in seconds.
const SOON_S: i64 = 14 * 86_400;

/// The error for a certificate that is not there.
pub fn missing(id: &str) -> ApiError {
    let message = format!("There is no certificate `{}`; PutCertificate (`mayfly cert add`) stores one.", clip(id));
    ApiError::new("ResourceNotFound", message)
}

fn check_id(text: &str) -> Result<(), ApiError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty()
        || text.len() > ID_BYTES_MAX
        || !text.bytes().all(good)
        || !text.as_bytes()[0].is_ascii_alphanumeric()
    {
        let message = format!(
            "`CertificateId` is `{}`; it has 1 to {ID_BYTES_MAX} letters, digits, `-`, `_` and `.`, a letter or digit first.",
            clip(text)
        );
        return Err(ApiError::invalid(message));
    }
    Ok(())
}

/// What `Status` says of a certificate.
fn status(identity: Option<&Identity>, now_ms: u64) -> &'static str {
    let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    match identity.map(|i| (i.validity(now_s), i.facts.not_after_s.saturating_sub(now_s))) {
        None => "UNREADABLE",
        Some((Validity::NotYet, _)) => "NOT_YET_VALID",
        Some((Validity::Expired, _)) => "EXPIRED",
        Some((Validity::Good, left)) if left < SOON_S => "EXPIRES_SOON",
        Some((Validity::Good, _)) => "VALID",
    }
}

fn show(domains: &Domains, entry: &CertificateEntry, now_ms: u64) -> Answer {
    let identity = entry.identity.as_deref();
    let facts = identity.map(|i| &i.facts);
    let date = |s: Option<i64>| s.map(|s| time::show(u64::try_from(s).unwrap_or(0).saturating_mul(1000)));
    let users: Vec<&str> = domains.users(&entry.record.id).map(|record| record.name.as_str()).collect();
    Answer::from_iter([
        ("CertificateId".to_owned(), json!(entry.record.id)),
        ("SubjectAltName".to_owned(), json!(facts.map(|f| f.names.as_slice()).unwrap_or_default())),
        ("Subject".to_owned(), json!(facts.map(|f| f.subject.as_str()).unwrap_or_default())),
        ("Issuer".to_owned(), json!(facts.map(|f| f.issuer.as_str()).unwrap_or_default())),
        ("CertBeginTime".to_owned(), json!(date(facts.map(|f| f.not_before_s)))),
        ("CertEndTime".to_owned(), json!(date(facts.map(|f| f.not_after_s)))),
        ("Sha256".to_owned(), json!(facts.map(|f| f.sha256.as_str()).unwrap_or_default())),
        ("Status".to_owned(), json!(status(identity, now_ms))),
        ("Domains".to_owned(), json!(users)),
        ("AddTime".to_owned(), json!(time::show(entry.record.add_time_ms))),
        ("ModTime".to_owned(), json!(time::show(entry.record.mod_time_ms))),
    ])
}

#[async_trait]
impl Run for PutCertificate {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let id = self.certificate_id;
        check_id(&id)?;
        let (certificate, key) = (self.certificate_public_key, self.certificate_private_key);
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())
            .map_err(|e| ApiError::invalid(format!("The certificate `{id}` cannot be used: {e}.")))?;
        let catalogue = &cx.control.catalogue;
        catalogue
            .change_domains(|domains| {
                let old = domains.certificate(&id);
                if old.is_none() && domains.certificates().len() >= limits::CERTIFICATES_MAX {
                    let message = format!("There are {} certificates, which is the limit.", limits::CERTIFICATES_MAX);
                    return Err(ApiError::new("LimitExceeded", message));
                }
                if let Some(left) = domains.users(&id).find(|user| !identity.covers(&user.name)) {
                    let message = format!(
                        "The new certificate is not good for `{}`, which uses `{id}`; its names are: {}. Store it under another id, or change the domain first.",
                        left.name,
                        clip(&identity.facts.names.join(", "))
                    );
                    return Err(ApiError::invalid(message));
                }
                let add_time_ms = old.map_or(cx.now_ms, |old| old.record.add_time_ms);
                let id = id.clone();
                let record = CertificateRecord { id, certificate, key, add_time_ms, mod_time_ms: cx.now_ms };
                Ok(DomainChange::PutCertificate(record, identity))
            })
            .await?;
        let domains = catalogue.domains();
        // Deleted again in the meantime: then there is nothing to show.
        Ok(domains.certificate(&id).map(|entry| show(&domains, entry, cx.now_ms)).unwrap_or_default())
    }
}

#[async_trait]
impl Run for ListCertificates {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let domains = cx.control.catalogue.domains();
        let range = page.of(domains.certificates().len());
        let shown = domains.certificates().skip(range.start).take(range.len());
        let shown: Value = shown.map(|entry| Value::Object(show(&domains, entry, cx.now_ms))).collect();
        let total = json!(domains.certificates().len());
        Ok(Answer::from_iter([("TotalCount".to_owned(), total), ("Certificates".to_owned(), shown)]))
    }
}

#[async_trait]
impl Run for DeleteCertificate {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let id = self.certificate_id;
        cx.control
            .catalogue
            .change_domains(|domains| {
                domains.certificate(&id).ok_or_else(|| missing(&id))?;
                match domains.users(&id).next() {
                    None => Ok(DomainChange::DeleteCertificate(id.clone())),
                    Some(user) => {
                        let message = format!(
                            "The certificate `{id}` is used by the domain `{}`; give that one another certificate, or delete it first.",
                            user.name
                        );
                        Err(ApiError::new("ResourceInUse", message))
                    }
                }
            })
            .await?;
        Ok(Answer::new())
    }
}
