//! Who may ask, and which bucket a host name means.

use mayfly_model::Lineage;
use mayfly_sign::{CredentialSource, check_session_token};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::host::{S3Host, VirtualHost};
use s3s::{S3Result, s3_error};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Put among a request's extensions once its COS signature is proven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proven;

/// To be put among a request's extensions when it comes from inside a function.
#[derive(Clone, Debug)]
pub struct Within {
    /// The id of the temporary keys that the function has: others' do not count there.
    pub secret_id: Arc<str>,
    /// What the request comes of.
    pub lineage: Lineage,
    /// Documents that the instance may have read at a time.
    pub documents: Arc<Semaphore>,
}

impl Within {
    /// Whether keys of this id count: the function's own temporary ones, and all permanent ones.
    pub(crate) fn admits(&self, id: &str, keys: &dyn CredentialSource) -> bool {
        *id == *self.secret_id || keys.find(id).is_some_and(|credential| credential.token.is_none())
    }
}

/// The keys of whoever may ask.
#[derive(Clone)]
pub(crate) struct Keys(pub(crate) Arc<dyn CredentialSource>);

pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let unknown = || s3_error!(InvalidAccessKeyId, "The access key does not exist.");
        let found = self.0.find(access_key).ok_or_else(unknown)?;
        Ok(SecretKey::from(&*found.secret_key))
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.extensions_mut().get::<Proven>().is_some() {
            return Ok(());
        }
        let denied = || s3_error!(AccessDenied, "The request is not signed. Sign it with COS's or AWS's signature.");
        let id = cx.credentials().ok_or_else(denied)?.access_key.clone();
        let credential = self.0.find(&id).ok_or_else(denied)?;
        if let Some(within) = cx.extensions_mut().get::<Within>().cloned()
            && !within.admits(&id, &*self.0)
        {
            return Err(s3_error!(InvalidAccessKeyId, "The access key does not exist."));
        }
        let in_header = cx.headers().get("x-amz-security-token").map(|v| v.as_bytes().to_vec());
        let in_query = || {
            let pairs = form_urlencoded::parse(cx.uri().query().unwrap_or("").as_bytes());
            pairs
                .into_iter()
                .find(|(n, _)| n.eq_ignore_ascii_case("x-amz-security-token"))
                .map(|(_, v)| v.into_owned().into_bytes())
        };
        let token = in_header.or_else(in_query);
        check_session_token(&credential, token.as_deref(), now_ms())
            .map_err(|_| s3_error!(InvalidToken, "The security token is missing, wrong or has expired."))
    }
}

/// Which bucket a host name means.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    /// The platform's own domains.
    pub(crate) domains: Arc<[String]>,
}

impl Hosts {
    /// The bucket in `host`, if one is in it: `<bucket>.cos.<region>.myqcloud.com`, `<bucket>.<own domain>`, `<bucket>.cos.<own domain>`,
    /// `<bucket>.cos.<region>.<own domain>` (and `s3` for `cos`), or AWS's form. All other hosts mean
    /// that the path begins with the bucket.
    pub(crate) fn bucket<'h>(&self, host: &'h str) -> Option<&'h str> {
        let bare = match host.rsplit_once(':') {
            Some((h, port)) if port.bytes().all(|b| b.is_ascii_digit()) => h,
            _ => host,
        };
        if bare.parse::<IpAddr>().is_ok() || bare.starts_with('[') {
            return None;
        }
        let found = if bare.ends_with(".myqcloud.com") || bare.ends_with(".tencentcos.cn") {
            ["cos", "cos-internal"].iter().find_map(|service| bare.split_once(&format!(".{service}.")).map(|(b, _)| b))
        } else if bare.ends_with(".amazonaws.com") {
            bare.split_once(".s3.").or_else(|| bare.split_once(".s3-")).map(|(b, _)| b)
        } else {
            let own = self.domains.iter().find_map(|d| bare.strip_suffix(d.as_str())?.strip_suffix('.'));
            own.map(|own| {
                let (before, service) = own.rsplit_once('.').unwrap_or(("", own));
                let names_service = |label: &str| matches!(label, "cos" | "s3");
                match before.rsplit_once('.').unwrap_or(("", before)) {
                    _ if names_service(service) => before,
                    // A region behind it.
                    (bucket, label) if names_service(label) => bucket,
                    _ => own,
                }
            })
        };
        found.filter(|b| !b.is_empty() && !matches!(*b, "service" | "cos" | "s3"))
    }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let found = VirtualHost::new(host);
        Ok(match self.bucket(host) {
            Some(bucket) => found.with_bucket(bucket.to_ascii_lowercase()),
            None => found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_buckets() {
        let hosts = Hosts { domains: ["mayfly.localhost".to_owned(), "mayfly.internal".to_owned()].into() };
        for (host, bucket) in [
            ("b-125.cos.ap-guangzhou.myqcloud.com", Some("b-125")),
            ("b-125.cos.ap-guangzhou.myqcloud.com:8701", Some("b-125")),
            ("service.cos.myqcloud.com", None),
            ("cos.ap-guangzhou.myqcloud.com", None),
            ("127.0.0.1:8701", None),
            ("[::1]:8701", None),
            ("localhost:8701", None),
            ("mayfly.localhost:8701", None),
            ("photos.mayfly.localhost:8701", Some("photos")),
            ("photos.cos.mayfly.localhost", Some("photos")),
            ("cos.mayfly.localhost", None),
            ("a.b.mayfly.localhost", Some("a.b")),
            ("photos-125.cos.mayfly.internal", Some("photos-125")),
            ("a.b.s3.mayfly.internal", Some("a.b")),
            ("photos.cos.ap-guangzhou.mayfly.internal", Some("photos")),
            ("cos.ap-guangzhou.mayfly.internal", None),
            ("s3.mayfly.internal", None),
            ("a.b.s3.eu-west-1.amazonaws.com", Some("a.b")),
            ("s3.eu-west-1.amazonaws.com", None),
            ("storage.example.com", None),
        ] {
            assert_eq!(hosts.bucket(host), bucket, "{host}");
        }
    }
}
