//! The URLs of functions, as the front door looks them up.

use super::key::{PairKey, shard_of};
use super::{Catalogue, RouteTarget, clip, no_version};
use mayfly_model::{ApiError, CorsConfig, UrlAuth, UrlConfig};
use std::sync::Arc;

/// Where a request to a function's URL goes, and on what terms.
#[derive(Clone, Debug)]
pub struct UrlRoute {
    /// The version that answers.
    pub target: Arc<RouteTarget>,
    /// The version or alias that the URL names; `$DEFAULT` when it names none.
    pub qualifier: String,
    /// Who may call.
    pub auth: UrlAuth,
    /// Answers to other origins; `None`: the function's own affair.
    pub cors: Option<Arc<CorsConfig>>,
}

/// One `http` trigger, ready for the hot path.
#[derive(Debug)]
struct UrlRow {
    qualifier: String,
    enabled: bool,
    auth: UrlAuth,
    cors: Option<Arc<CorsConfig>>,
}

/// The `http` triggers of one function. At most ten, so that a scan beats a map.
#[derive(Debug, Default)]
pub(super) struct Urls {
    rows: Vec<UrlRow>,
    /// True when one of them is closed or wants signatures: then a qualifier without a URL of its own is no way around it.
    guarded: bool,
}

impl Urls {
    pub(super) fn of(configs: &[UrlConfig]) -> Self {
        let row = |config: &UrlConfig| UrlRow {
            qualifier: config.qualifier.clone(),
            enabled: config.enabled,
            auth: config.auth,
            cors: config.cors.clone().map(Arc::new),
        };
        let guarded = configs.iter().any(|config| !config.enabled || config.auth == UrlAuth::Signed);
        Self { rows: configs.iter().map(row).collect(), guarded }
    }

    /// Terms of a qualifier: `None` when its URL is closed.
    fn terms(&self, qualifier: &str, is_service: bool) -> Option<(UrlAuth, Option<Arc<CorsConfig>>)> {
        match self.rows.iter().find(|row| row.qualifier == qualifier) {
            Some(row) => row.enabled.then(|| (row.auth, row.cors.clone())),
            None if is_service && !self.guarded => Some((UrlAuth::Open, None)),
            None => Some((UrlAuth::Signed, None)),
        }
    }
}

impl Catalogue {
    /// The target of a request to a function's URL, and who may send it. No lock; one hash look-up. `qualifier` `None` means `$DEFAULT`;
    /// `random` is uniform in [0, 1).
    ///
    /// A URL trigger of that qualifier decides. Without one, HTTP functions are open to anybody (but not past another trigger of the
    /// function that is closed or wants signatures), and event functions want a signature.
    ///
    /// Errors: `ResourceNotFound.{Namespace, Function, Qualifier}`; `ResourceNotFound.Trigger` when the URL is closed.
    pub fn resolve_url(
        &self,
        namespace: &str,
        function: &str,
        qualifier: Option<&str>,
        random: f64,
    ) -> Result<UrlRoute, ApiError> {
        let qualifier = qualifier.unwrap_or("$DEFAULT");
        let key: &dyn PairKey = &(namespace, function);
        let table = self.0.shards[shard_of(key)].functions.load();
        let Some(entry) = table.get(key) else { return Err(self.no_function(namespace, function)) };
        entry.state.check_serving()?;
        // `01` would name version 1 past the trigger that stands under `1`.
        let target = match qualifier.starts_with('0') {
            true => None,
            false => entry.route(qualifier, &[], random),
        };
        let target = target.ok_or_else(|| no_version("ResourceNotFound.Qualifier", function, qualifier))?;
        match entry.urls.terms(qualifier, target.spec.config.service.is_some()) {
            Some((auth, cors)) => Ok(UrlRoute { target, qualifier: qualifier.to_owned(), auth, cors }),
            None => Err(ApiError::new(
                "ResourceNotFound.Trigger",
                format!("The URL of `{}` ({}) is closed.", clip(function), clip(qualifier)),
            )),
        }
    }
}
