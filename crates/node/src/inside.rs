//! The platform's services as a function reaches them from inside its sandbox, and the temporary keys of its role.
//!
//! A version with a role gets a [`Badge`] for each process that is initialised, shared by the forks of that process: they have one
//! environment. Badges live in memory and by reference counting: with the last process that has it a badge is gone, and so are its keys.
//! Each instance has a [`Caller`]: who asks, when something is asked through the sockets in its sandbox. What serves those sockets is the
//! server's ([`Services`]). See `docs/inside.md`.

use crate::Inner;
use crate::error::Refusal;
use crate::pool::Pool;
use mayfly_model::{Lineage, RequestId, VersionKey, VersionSpec};
use mayfly_sandbox::Instance;
use mayfly_sandbox::wire::SERVICES_DOMAIN;
use mayfly_sign::{Credential, CredentialSource};
use parking_lot::{Mutex, RwLock};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How old the keys of an instance may grow: it takes no further work then and ends when it has none, so that keys that got out are good
/// for nothing a while later. Work that has begun keeps its keys to its end. Twelve hours, as long as CAM lets a role's keys live.
pub const BADGE_AGE_MAX: Duration = Duration::from_secs(12 * 3600);

/// Serves the sockets in sandboxes. Implemented by the server, over the control API, the object store and the queues.
pub trait Services: Send + Sync {
    /// Serves `http` and `names` (both non-blocking) for `caller` until what is returned is dropped; nothing of it goes on after that. To
    /// be called on the main runtime; must not block.
    ///
    /// # Errors
    /// When the sockets cannot be used.
    fn open(&self, http: TcpListener, names: UdpSocket, caller: Arc<Caller>) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// The temporary keys of a role, in the hands of one initialised process and its forks.
pub struct Badge {
    secret_id: String,
    credential: Credential,
    role: String,
    version: VersionKey,
    born: Instant,
    revoked: AtomicBool,
    callers: Mutex<Vec<Weak<Caller>>>,
    badges: Weak<Table>,
}

type Table = RwLock<HashMap<String, Weak<Badge>>>;

impl Badge {
    /// The id of its key pair.
    pub fn secret_id(&self) -> &str {
        &self.secret_id
    }

    /// The role that it stands for.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// What requests signed with it are verified by; `None`: it was revoked.
    pub fn credential(&self) -> Option<Credential> {
        (!self.revoked.load(Ordering::Acquire)).then(|| self.credential.clone())
    }

    /// What is called with these keys from elsewhere than an instance's own sockets comes of whatever is deepest among its instances.
    pub fn lineage(&self) -> Lineage {
        let callers = self.callers.lock();
        callers.iter().filter_map(|c| Some(c.upgrade()?.lineage())).max_by_key(|l| l.depth).unwrap_or_default()
    }

    fn is_old(&self) -> bool {
        self.born.elapsed() >= BADGE_AGE_MAX
    }
}

impl Drop for Badge {
    fn drop(&mut self) {
        if let Some(badges) = self.badges.upgrade() {
            badges.write().remove(&self.secret_id);
        }
    }
}

// Keys must not reach a log by way of `{:?}`.
impl std::fmt::Debug for Badge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Badge").field("role", &self.role).field("version", &self.version).finish_non_exhaustive()
    }
}

/// All badges that are in somebody's hands. Cheap to clone.
#[derive(Clone, Default)]
pub struct Badges(Arc<Table>);

impl Badges {
    fn mint(&self, spec: &VersionSpec, role: &str) -> Result<Arc<Badge>, Refusal> {
        let mut random = [0u8; 16 + 24 + 48];
        getrandom::fill(&mut random).map_err(|e| Refusal::internal(&e))?;
        let secret_id = format!("AKIDtmp{}", hex::encode(&random[..16]));
        // No end of its own: it ends with its processes, which end when it is old.
        let credential = Credential {
            secret_key: hex::encode(&random[16..40]).into(),
            token: Some(hex::encode(&random[40..]).into()),
            expires_at_ms: None,
        };
        let badge = Arc::new(Badge {
            secret_id: secret_id.clone(),
            credential,
            role: role.to_owned(),
            version: spec.key.clone(),
            born: Instant::now(),
            revoked: AtomicBool::new(false),
            callers: Mutex::default(),
            badges: Arc::downgrade(&self.0),
        });
        self.0.write().insert(secret_id, Arc::downgrade(&badge));
        Ok(badge)
    }

    /// The badge with this key pair, if somebody has it.
    pub fn get(&self, secret_id: &str) -> Option<Arc<Badge>> {
        self.0.read().get(secret_id)?.upgrade()
    }

    /// Takes the rights of all badges of a version away, also of processes that still have work.
    pub(crate) fn revoke(&self, version: &VersionKey) {
        for badge in self.0.read().values().filter_map(Weak::upgrade).filter(|b| b.version == *version) {
            badge.revoked.store(true, Ordering::Release);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.read().len()
    }

    /// True when nobody has any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl CredentialSource for Badges {
    fn find(&self, secret_id: &str) -> Option<Credential> {
        self.get(secret_id)?.credential()
    }
}

/// Who asks through the sockets of one sandbox, and on whose behalf.
pub struct Caller {
    badge: Arc<Badge>,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    running: Vec<(RequestId, Lineage)>,
    /// What is called while nothing runs: module-level code, and threads that a handler left behind.
    idle: Lineage,
}

impl Caller {
    /// `idle`: the lineage of what is called before the first invocation.
    fn new(badge: Arc<Badge>, idle: Lineage) -> Arc<Self> {
        let caller = Arc::new(Self { badge, work: Mutex::new(Work { running: Vec::new(), idle }) });
        let mut callers = caller.badge.callers.lock();
        callers.retain(|c| c.strong_count() > 0);
        callers.push(Arc::downgrade(&caller));
        drop(callers);
        caller
    }

    /// The keys that its processes have.
    pub fn badge(&self) -> &Arc<Badge> {
        &self.badge
    }

    /// What a call from here comes of: the deepest of the invocations that run, since nobody can tell which of them calls.
    pub fn lineage(&self) -> Lineage {
        let work = self.work.lock();
        let deepest = work.running.iter().max_by_key(|(_, lineage)| lineage.depth);
        deepest.map_or(work.idle, |(id, lineage)| lineage.child(*id))
    }

    pub(crate) fn begin(&self, id: RequestId, lineage: Lineage) {
        self.work.lock().running.push((id, lineage));
    }

    pub(crate) fn end(&self, id: RequestId) {
        let mut work = self.work.lock();
        if let Some(at) = work.running.iter().position(|(other, _)| *other == id) {
            let (_, lineage) = work.running.swap_remove(at);
            work.idle = lineage.child(id);
        }
    }
}

/// What an instance has of the platform's services. Dropping it closes them for the instance.
pub(crate) struct Inside {
    caller: Arc<Caller>,
    _served: Box<dyn Any + Send + Sync>,
}

impl Inside {
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// True when the instance should take no further work.
    pub(crate) fn is_old(&self) -> bool {
        self.caller.badge.is_old()
    }
}

/// Opens the services in a sandbox that was just bound, or forked from the process with `badge`. `None`: the function has no role.
pub(crate) async fn open(
    inner: &Inner,
    pool: &Pool,
    instance: &dyn Instance,
    badge: Option<Arc<Badge>>,
) -> Result<Option<Inside>, Refusal> {
    let (Some(role), Some(services)) = (pool.spec.config.role(), &inner.options.services) else { return Ok(None) };
    let badge = match badge {
        Some(badge) => badge,
        None => inner.badges.mint(&pool.spec, role)?,
    };
    let (http, names) = instance.listen_inside().await.map_err(|e| Refusal::internal(&e))?;
    let caller = Caller::new(badge, pool.starting_for());
    let served = services.open(http, names, Arc::clone(&caller)).map_err(|e| Refusal::internal(&e))?;
    Ok(Some(Inside { caller, _served: served }))
}

/// Variables of AWS that say whose keys or which endpoint to use: who sets one of them means another place than this platform.
const AWS_OWN: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
];

/// Adds what SDKs read to an environment. `user`: the function's own variables, which come on top.
pub(crate) fn environment(env: &mut BTreeMap<String, String>, badge: &Badge, region: &str, user: &[(String, String)]) {
    let Some(Credential { secret_key, token, .. }) = badge.credential() else { return };
    let token = token.unwrap_or_default();
    let endpoints = [
        ("TENCENTCLOUD_ENDPOINT", format!("scf.{SERVICES_DOMAIN}")),
        ("COS_ENDPOINT", format!("cos.{SERVICES_DOMAIN}")),
        ("CMQ_ENDPOINT", format!("http://cmq.{SERVICES_DOMAIN}")),
    ];
    let keys = [
        ("TENCENTCLOUD_SECRETID", &*badge.secret_id),
        ("TENCENTCLOUD_SECRETKEY", &*secret_key),
        ("TENCENTCLOUD_SESSIONTOKEN", &*token),
    ];
    for (key, value) in endpoints.iter().map(|(k, v)| (*k, v.as_str())).chain(keys) {
        env.insert(key.into(), value.into());
    }
    if !user.iter().any(|(name, _)| AWS_OWN.contains(&name.as_str())) {
        let s3 = format!("http://s3.{SERVICES_DOMAIN}");
        for (key, value) in [
            ("AWS_ACCESS_KEY_ID", &*badge.secret_id),
            ("AWS_SECRET_ACCESS_KEY", &*secret_key),
            ("AWS_SESSION_TOKEN", &*token),
            ("AWS_ENDPOINT_URL_S3", s3.as_str()),
            ("AWS_REGION", region),
            ("AWS_DEFAULT_REGION", region),
        ] {
            env.insert(key.into(), value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(version: &str) -> VersionKey {
        VersionKey { function_id: "lam-12345678".into(), version: version.into(), revision: 1 }
    }

    fn badge(badges: &Badges, version: &str) -> Arc<Badge> {
        let badge = Arc::new(Badge {
            secret_id: format!("AKIDtmp{version}"),
            credential: Credential { secret_key: "k".into(), token: Some("t".into()), expires_at_ms: None },
            role: "r".into(),
            version: key(version),
            born: Instant::now(),
            revoked: AtomicBool::new(false),
            callers: Mutex::default(),
            badges: Arc::downgrade(&badges.0),
        });
        badges.0.write().insert(badge.secret_id.clone(), Arc::downgrade(&badge));
        badge
    }

    #[test]
    fn keys_end_with_the_last_who_has_them_or_when_they_are_revoked() {
        let badges = Badges::default();
        let (one, two) = (badge(&badges, "1"), badge(&badges, "2"));
        let fork = Arc::clone(&one);
        drop(one);
        assert!(badges.find("AKIDtmp1").is_some() && badges.find("AKIDtmp9").is_none());
        badges.revoke(&key("2"));
        assert!(badges.find("AKIDtmp2").is_none() && badges.find("AKIDtmp1").is_some());
        drop((fork, two));
        assert!(badges.is_empty());
    }

    #[test]
    fn calls_come_of_the_deepest_that_runs_or_ran() {
        let badges = Badges::default();
        let (a, b) = (RequestId(1), RequestId(2));
        let deep = Lineage { depth: 5, parent: Some(RequestId(9)) };
        let caller = Caller::new(badge(&badges, "1"), Lineage::default());
        assert!(caller.lineage().is_root());
        caller.begin(a, Lineage::default());
        caller.begin(b, deep);
        assert_eq!(caller.lineage(), Lineage { depth: 6, parent: Some(b) });
        caller.end(b);
        assert_eq!(caller.lineage(), Lineage { depth: 1, parent: Some(a) });
        caller.end(a);
        assert_eq!(caller.lineage(), Lineage { depth: 1, parent: Some(a) });
        assert_eq!(caller.badge().lineage(), caller.lineage());
    }

    #[test]
    fn who_means_aws_gets_no_keys_of_ours_for_it() {
        let badges = Badges::default();
        let badge = badge(&badges, "1");
        let mut env = BTreeMap::new();
        environment(&mut env, &badge, "ap-guangzhou", &[]);
        assert_eq!(env["AWS_ACCESS_KEY_ID"], env["TENCENTCLOUD_SECRETID"]);
        assert_eq!(env["AWS_ENDPOINT_URL_S3"], "http://s3.mayfly.internal");
        let mut env = BTreeMap::new();
        environment(&mut env, &badge, "ap-guangzhou", &[("AWS_PROFILE".into(), "mine".into())]);
        assert!(AWS_OWN.iter().all(|name| !env.contains_key(*name)));
        assert_eq!(env["TENCENTCLOUD_SESSIONTOKEN"], "t");
        assert!(!format!("{badge:?}").contains("AKIDtmp"));
    }
}
