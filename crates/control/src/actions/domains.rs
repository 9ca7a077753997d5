//! Custom domains.

use super::common::{Page, ascending, contains, existing, filled, function_name, namespace, order_by, show_tags};
use super::config;
use super::{Answer, Cx, Run};
use crate::api::requests::{
    CertConf, CreateCustomDomain, DeleteCustomDomain, EndpointsConf, Filter, GetCustomDomain, ListCustomDomains,
    PathRewriteRule, UpdateCustomDomain,
};
use crate::catalogue::{DomainChange, DomainEntry, Domains, clip, no_version};
use async_trait::async_trait;
use mayfly_model::{
    ApiError, DomainEndpoint, DomainProtocol, DomainRecord, PathPattern, PathRewrite, Qualifier, limits,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// Longest host. Source: RFC 1035 §2.3.4.
const HOST_BYTES_MAX: usize = 253;
/// Longest part of a host. Source: the same.
const LABEL_BYTES_MAX: usize = 63;

fn bad_domain(text: &str, why: &str) -> ApiError {
    ApiError::new("InvalidParameterValue.Domain", format!("`Domain` is `{}`; {why}.", clip(text)))
}

/// A host as it is stored and compared: in ASCII and lower case. Errors: `InvalidParameterValue.Domain`.
pub fn host_name(text: &str) -> Result<String, ApiError> {
    if text.contains('*') {
        return Err(bad_domain(text, "domains with `*` are not supported; give each host by itself"));
    }
    if text.contains(['/', ':', '@', '?', '#', ' ']) {
        return Err(bad_domain(text, "it is a host alone, without scheme, port or path"));
    }
    let name = idna::domain_to_ascii(text).map_err(|_| bad_domain(text, "that is no name of a host"))?;
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > HOST_BYTES_MAX || !name.split('.').all(label) {
        return Err(bad_domain(
            text,
            "a host has parts of letters, digits and `-` with dots between, 253 characters in all",
        ));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if !name.contains('.') || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad_domain(text, "a host has two parts or more, and is no address"));
    }
    Ok(name)
}

/// Refuses hosts that would take the platform's own from it. `asked` is the host of this very request.
fn not_the_platforms(cx: Cx<'_>, name: &str) -> Result<(), ApiError> {
    let own = cx.control.options.domain.as_str();
    if name == own || name.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')) {
        let why = format!(
            "hosts below `{own}` are the platform's own, for URLs of functions; `mayfly up --domain` sets another"
        );
        return Err(bad_domain(name, &why));
    }
    let asked = cx.host.rsplit_once(':').map_or(cx.host, |(host, _)| host);
    if name.eq_ignore_ascii_case(asked) {
        let why = "the API is asked by this host just now, and would not be reached by it any more; ask by another, such as 127.0.0.1";
        return Err(bad_domain(name, why));
    }
    Ok(())
}

fn protocol(text: &str) -> Result<DomainProtocol, ApiError> {
    DomainProtocol::ALL
        .into_iter()
        .find(|p| p.as_str().eq_ignore_ascii_case(text.trim()))
        .ok_or_else(|| ApiError::invalid(format!("`Protocol` is `{}`; it is HTTP, HTTPS or HTTP&HTTPS.", clip(text))))
}

fn pattern(text: &str, field: &str) -> Result<PathPattern, ApiError> {
    PathPattern::parse(text).map_err(|why| {
        ApiError::invalid(format!(
            "`{field}` is `{}`: {why}. It is like `/`, `/*`, `/x`, `/x/a` or `/x/*`.",
            clip(text)
        ))
    })
}

fn rewrite(rule: PathRewriteRule) -> Result<PathRewrite, ApiError> {
    let path = pattern(&rule.path, "PathRewrite.Path")?;
    let wildcard = match rule.kind.as_str() {
        k if k.eq_ignore_ascii_case("WildcardRules") => true,
        k if k.eq_ignore_ascii_case("ExactRules") => false,
        other => {
            let message = format!("`PathRewrite.Type` is `{}`; it is WildcardRules or ExactRules.", clip(other));
            return Err(ApiError::invalid(message));
        }
    };
    if wildcard != path.is_wildcard() {
        let message = format!(
            "The rewriting rule for `{path}` has the type {}: WildcardRules are for paths that end with `/*`, ExactRules for others.",
            clip(&rule.kind)
        );
        return Err(ApiError::invalid(message));
    }
    let target = rule.rewrite;
    let holes = target.matches('$').count();
    if holes > usize::from(wildcard) {
        let message = format!(
            "`PathRewrite.Rewrite` is `{}`; `$` stands in it at most once, for what the `*` of `Path` stood for.",
            clip(&target)
        );
        return Err(ApiError::invalid(message));
    }
    if target.contains('*') {
        let message = format!("`PathRewrite.Rewrite` is `{}`; write `$` where `*` is meant.", clip(&target));
        return Err(ApiError::invalid(message));
    }
    // The same letters as in a path, without the wildcard.
    pattern(&target, "PathRewrite.Rewrite")?;
    Ok(PathRewrite { path, rewrite: target })
}

/// `EndpointsConfig`, of functions that are there.
fn endpoints(cx: Cx<'_>, wanted: Vec<EndpointsConf>) -> Result<Vec<DomainEndpoint>, ApiError> {
    let max = limits::DOMAIN_ENDPOINTS_MAX;
    if wanted.is_empty() || wanted.len() > max {
        let message = format!("`EndpointsConfig` has {} endpoints; there are 1 to {max}.", wanted.len());
        return Err(ApiError::invalid(message));
    }
    let mut seen = HashSet::new();
    let mut read = Vec::with_capacity(wanted.len());
    for endpoint in wanted {
        let (namespace, function) = (namespace(&endpoint.namespace)?, function_name(&endpoint.function_name)?);
        let entry = existing(&cx.control.catalogue, &namespace, &function)?;
        let text = filled(&endpoint.qualifier).unwrap_or("$DEFAULT");
        let missing = || no_version("ResourceNotFound.Qualifier", function.as_str(), text);
        let qualifier = Qualifier::parse(text).map_err(|_| missing())?.to_string();
        entry.route(&qualifier, &[], 0.0).ok_or_else(missing)?;
        let path = pattern(&endpoint.path_match, "PathMatch")?;
        if !seen.insert(path.clone()) {
            let message = format!("`EndpointsConfig` has the path `{path}` twice; a path leads to one function.");
            return Err(ApiError::invalid(message));
        }
        let rules = endpoint.path_rewrite.unwrap_or_default();
        if rules.len() > limits::PATH_REWRITES_MAX {
            let message =
                format!("`PathRewrite` has {} rules; the limit is {}.", rules.len(), limits::PATH_REWRITES_MAX);
            return Err(ApiError::invalid(message));
        }
        let rewrites = rules.into_iter().map(rewrite).collect::<Result<_, _>>()?;
        let (namespace, function) = (namespace.to_string(), function.to_string());
        read.push(DomainEndpoint { namespace, function, qualifier, path, rewrites });
    }
    Ok(read)
}

/// The certificate that a domain gets: `given` if there is one, else what it had.
fn certificate(
    domains: &Domains,
    name: &str,
    protocol: DomainProtocol,
    given: Option<&str>,
    had: Option<String>,
) -> Result<Option<String>, ApiError> {
    if !protocol.is_secure() {
        return match given {
            None => Ok(None),
            Some(_) => Err(ApiError::invalid("`CertConfig` is of no use with `Protocol` HTTP; leave one of them out.")),
        };
    }
    let id = given.map(str::to_owned).or(had).ok_or_else(|| {
        ApiError::invalid(format!(
            "`Protocol` {protocol} needs a certificate: store one with PutCertificate (`mayfly cert add`) and name it in `CertConfig.CertificateId`."
        ))
    })?;
    let entry = domains.certificate(&id).ok_or_else(|| super::certificates::missing(&id))?;
    let Some(identity) = &entry.identity else {
        let message =
            format!("The stored certificate `{id}` cannot be used any more; give it anew with PutCertificate.");
        return Err(ApiError::invalid(message));
    };
    if !identity.covers(name) {
        return Err(ApiError::invalid(format!(
            "The certificate `{id}` is not good for `{name}`; its names are: {}.",
            clip(&identity.facts.names.join(", "))
        )));
    }
    Ok(Some(id))
}

fn given(config: Option<CertConf>) -> Option<String> {
    config?.certificate_id.filter(|id| !id.is_empty())
}

/// A domain by a name that a client gave. Errors: `FailedOperation.Domain.UnExist`.
fn find<'a>(domains: &'a Domains, text: &str) -> Result<&'a Arc<DomainEntry>, ApiError> {
    let found = host_name(text).ok().and_then(|name| domains.domain(&name));
    found.ok_or_else(|| {
        let message = format!("There is no custom domain `{}`.", clip(text));
        ApiError::new("FailedOperation.Domain.UnExist", message)
    })
}

fn show(record: &DomainRecord) -> Answer {
    let rewrites = |rules: &[PathRewrite]| -> Value {
        let show = |rule: &PathRewrite| {
            let kind = if rule.path.is_wildcard() { "WildcardRules" } else { "ExactRules" };
            json!({"Path": rule.path, "Type": kind, "Rewrite": rule.rewrite})
        };
        rules.iter().map(show).collect()
    };
    let endpoints: Value = record
        .endpoints
        .iter()
        .map(|e| {
            json!({
                "Namespace": e.namespace,
                "FunctionName": e.function,
                "Qualifier": e.qualifier,
                "PathMatch": e.path,
                "PathRewrite": rewrites(&e.rewrites),
            })
        })
        .collect();
    Answer::from_iter([
        ("Domain".to_owned(), json!(record.name)),
        ("Protocol".to_owned(), json!(record.protocol.as_str())),
        ("EndpointsConfig".to_owned(), endpoints),
        ("CertConfig".to_owned(), json!({"CertificateId": record.certificate.as_deref().unwrap_or_default()})),
        ("WafConfig".to_owned(), json!({"WafOpen": "CLOSE", "WafInstanceId": ""})),
        ("Tags".to_owned(), show_tags(&record.tags)),
    ])
}

#[async_trait]
impl Run for CreateCustomDomain {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let name = host_name(&self.domain)?;
        not_the_platforms(cx, &name)?;
        let protocol = protocol(&self.protocol)?;
        let endpoints = endpoints(cx, self.endpoints_config)?;
        let given = given(self.cert_config);
        let tags = config::tags(self.tags)?;
        cx.control
            .catalogue
            .change_domains(|domains| {
                if domains.domain(&name).is_some() {
                    return Err(ApiError::new("ResourceInUse", format!("There is a custom domain `{name}` already.")));
                }
                if domains.domains().len() >= limits::DOMAINS_MAX {
                    let message = format!("There are {} custom domains, which is the limit.", limits::DOMAINS_MAX);
                    return Err(ApiError::new("LimitExceeded", message));
                }
                let certificate = certificate(domains, &name, protocol, given.as_deref(), None)?;
                let (add_time_ms, mod_time_ms) = (cx.now_ms, cx.now_ms);
                Ok(DomainChange::Put(DomainRecord {
                    name,
                    protocol,
                    endpoints,
                    certificate,
                    tags,
                    add_time_ms,
                    mod_time_ms,
                }))
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for UpdateCustomDomain {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let protocol = filled(&self.protocol).map(protocol).transpose()?;
        // An unknown domain is the first thing to be told.
        find(&cx.control.catalogue.domains(), &self.domain)?;
        let endpoints = self.endpoints_config.map(|wanted| endpoints(cx, wanted)).transpose()?;
        let given = given(self.cert_config);
        cx.control
            .catalogue
            .change_domains(|domains| {
                let mut record = find(domains, &self.domain)?.record.clone();
                record.protocol = protocol.unwrap_or(record.protocol);
                record.endpoints = endpoints.unwrap_or(record.endpoints);
                let had = record.certificate.take();
                record.certificate = certificate(domains, &record.name, record.protocol, given.as_deref(), had)?;
                record.mod_time_ms = cx.now_ms;
                Ok(DomainChange::Put(record))
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for DeleteCustomDomain {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let decide = |domains: &Domains| Ok(DomainChange::Delete(find(domains, &self.domain)?.record.name.clone()));
        cx.control.catalogue.change_domains(decide).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetCustomDomain {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        Ok(show(&find(&cx.control.catalogue.domains(), &self.domain)?.record))
    }
}

/// Names that domains are filtered by.
const FILTERS: [&str; 4] = ["Domain", "Protocol", "Namespace", "FunctionName"];

/// True when a domain passes a filter of a name in [`FILTERS`].
fn passes(record: &DomainRecord, filter: &Filter) -> bool {
    filter.values.iter().any(|value| match filter.name.as_str() {
        "Domain" => contains(&record.name, Some(value)),
        "Protocol" => record.protocol.as_str() == value,
        "Namespace" => record.endpoints.iter().any(|e| e.namespace == *value),
        _ => record.endpoints.iter().any(|e| e.function == *value),
    })
}

#[async_trait]
impl Run for ListCustomDomains {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let by = order_by(&self.order_by, &["AddTime", "ModTime"], "AddTime")?;
        let up = ascending(&self.order, false)?;
        let filters = self.filters.unwrap_or_default();
        if let Some(filter) = filters.iter().find(|f| !FILTERS.contains(&f.name.as_str())) {
            let message =
                format!("Domains cannot be filtered by `{}`; they can by: {}.", clip(&filter.name), FILTERS.join(", "));
            return Err(ApiError::new("InvalidParameterValue.Filters", message));
        }
        let all = cx.control.catalogue.domains();
        let records = all.domains().map(|entry| &entry.record);
        let mut found: Vec<&DomainRecord> = records.filter(|r| filters.iter().all(|f| passes(r, f))).collect();
        // The name breaks ties, so that pages neither repeat nor skip a domain.
        found.sort_by(|a, b| {
            let time = |r: &DomainRecord| if by == "AddTime" { r.add_time_ms } else { r.mod_time_ms };
            let order = time(a).cmp(&time(b)).then_with(|| a.name.cmp(&b.name));
            if up { order } else { order.reverse() }
        });
        let total = found.len();
        let domains: Value = found[page.of(total)].iter().map(|r| Value::Object(show(r))).collect();
        Ok(Answer::from_iter([("Total".to_owned(), json!(total)), ("Domains".to_owned(), domains)]))
    }
}

/// The first domain that leads to a version or alias of a function.
pub fn leading_to(domains: &Domains, namespace: &str, function: &str, qualifier: &str) -> Option<String> {
    let leads = |e: &DomainEndpoint| e.namespace == namespace && e.function == function && e.qualifier == qualifier;
    domains.domains().find(|d| d.record.endpoints.iter().any(leads)).map(|d| d.record.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_brought_to_one_form() {
        for (text, name) in [
            ("shop.example.com", "shop.example.com"),
            ("SHOP.Example.COM", "shop.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("例子.测试", "xn--fsqu00a.xn--0zwm56d"),
            ("a-b.localhost", "a-b.localhost"),
        ] {
            assert_eq!(host_name(text).unwrap(), name);
        }
        let long = format!("{}.example", "a".repeat(64));
        let endless = format!("{}example", "abc.".repeat(70));
        for bad in [
            "",
            "localhost",
            "*.example.com",
            "http://a.example",
            "a.example:80",
            "a.example/x",
            "u@a.example",
            "a..example",
            ".example.com",
            "a.example.",
            "-a.example",
            "a_b.example",
            "127.0.0.1",
            "[::1]",
            "a b.example",
            &long,
            &endless,
        ] {
            assert_eq!(host_name(bad).unwrap_err().code, "InvalidParameterValue.Domain", "{bad}");
        }
    }
}
