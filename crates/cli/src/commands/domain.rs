//! `mayfly domain`: hosts of one's own that lead to functions.

use super::{Context, confirm, pages, quoted, raw_items};
use crate::api::{
    CertConf, CreateCustomDomain, DeleteCustomDomain, Domain, Endpoint, Filter, GetCustomDomain, ListCustomDomains,
    PathRewrite, UpdateCustomDomain,
};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

/// Hosts of your own that lead to functions.
#[derive(Debug, Args)]
pub struct DomainArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DomainCommand,
}

/// What can be done with domains.
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Bind a domain to functions
    ///
    /// Who may call is what `mayfly url` says of each function. Point the domain's DNS record at this machine yourself.
    #[command(after_help = EXAMPLES)]
    Add(PutArgs),
    /// Change a domain; what is not given stays as it is
    Set(PutArgs),
    /// List domains
    Ls,
    /// Show a domain
    Show {
        /// The domain
        domain: String,
    },
    /// Delete a domain; its functions stay
    Rm {
        /// The domain
        domain: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  mayfly domain add shop.example.com web                  every path, without TLS
  mayfly cert add shop --cert chain.pem --key key.pem
  mayfly domain add shop.example.com web --cert shop      every path, with TLS only
  mayfly domain add shop.example.com web --route '/api/*=api@prod' --strip --cert shop
";

/// What a domain is to be.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The domain, such as shop.example.com
    pub domain: String,
    /// The function that answers all paths without a route of their own, with @QUALIFIER for a version or alias
    #[arg(value_name = "FUNCTION[@QUALIFIER]")]
    pub function: Option<String>,
    /// Another function for a path (/x) or all below one (/x/*); may be repeated. The longest path wins
    #[arg(long = "route", short = 'r', value_name = "PATH=FUNCTION[@QUALIFIER]")]
    pub routes: Vec<String>,
    /// Routes like /x/*: the function does not see the /x
    #[arg(long)]
    pub strip: bool,
    /// Certificate that `mayfly cert add` stored
    #[arg(long, value_name = "ID")]
    pub cert: Option<String>,
    /// What the domain is asked over [default: https with --cert, else http]
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// What a domain is asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Without TLS only
    Http,
    /// With TLS only; visitors without are sent there
    Https,
    /// As the visitor likes
    Both,
}

impl Protocol {
    fn as_api(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Both => "HTTP&HTTPS",
        }
    }
}

impl PutArgs {
    fn protocol(&self) -> Option<String> {
        let by_certificate = self.cert.as_ref().map(|_| Protocol::Https);
        self.protocol.or(by_certificate).map(|p| p.as_api().to_owned())
    }

    fn certificate(&self) -> Option<CertConf> {
        self.cert.as_ref().map(|id| CertConf { certificate_id: id.clone() })
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, CliError> {
        let mut all = Vec::new();
        if let Some(function) = &self.function {
            all.push(self.endpoint("/*", function)?);
        }
        for route in &self.routes {
            let (path, function) = route.split_once('=').ok_or_else(|| {
                CliError::local(format!("`{route}` is no route")).hint("a route looks like '/api/*=FUNCTION'")
            })?;
            all.push(self.endpoint(path, function)?);
        }
        Ok(all)
    }

    fn endpoint(&self, path: &str, function: &str) -> Result<Endpoint, CliError> {
        let (function, qualifier) = function.split_once('@').unwrap_or((function, "$DEFAULT"));
        if function.is_empty() || qualifier.is_empty() {
            return Err(CliError::local(format!("the route for {path} names no function"))
                .hint("a function looks like NAME or NAME@QUALIFIER"));
        }
        let strip = self.strip && path.ends_with("/*") && path != "/*";
        let rewrite = || PathRewrite { path: path.to_owned(), kind: "WildcardRules".into(), rewrite: "/$".into() };
        Ok(Endpoint {
            namespace: self.place.namespace.clone(),
            function_name: function.to_owned(),
            qualifier: qualifier.to_owned(),
            path_match: path.to_owned(),
            path_rewrite: strip.then(rewrite).into_iter().collect(),
        })
    }
}

/// The URLs that a domain is reached by, as far as the platform can know: it may be reached by other ports than it listens on.
fn urls(domain: &Domain) -> Vec<String> {
    let schemes: &[&str] = match domain.protocol.as_str() {
        "HTTP" => &["http"],
        "HTTPS" => &["https"],
        _ => &["https", "http"],
    };
    schemes.iter().map(|scheme| format!("{scheme}://{}/", domain.domain)).collect()
}

fn target(endpoint: &Endpoint) -> String {
    let at = if endpoint.qualifier == "$DEFAULT" { String::new() } else { format!("@{}", endpoint.qualifier) };
    let place = if endpoint.namespace == "default" { String::new() } else { format!("{}/", endpoint.namespace) };
    format!("{place}{}{at}", endpoint.function_name)
}

fn list(context: &Context, filters: &[Filter]) -> Result<(Vec<Domain>, Vec<serde_json::Value>), CliError> {
    let mut raw = Vec::new();
    let all = pages(|offset, limit| {
        let request = ListCustomDomains { offset, limit, order: "ASC".into(), filters: filters.to_vec() };
        let answer = context.client.call(&request)?;
        raw.extend(raw_items(&answer, "Domains")?);
        Ok((answer.body.domains, answer.body.total))
    })?;
    Ok((all, raw))
}

/// URLs by domains that lead to a version or alias of a function, without the `*` of their paths.
///
/// # Errors
/// Those of the platform; one that knows no domains has none.
pub fn leading_to(
    context: &Context,
    namespace: &str,
    function: &str,
    qualifier: &str,
) -> Result<Vec<String>, CliError> {
    let filter = |name: &str, value: &str| Filter { name: name.into(), values: vec![value.into()] };
    let found = match list(context, &[filter("Namespace", namespace), filter("FunctionName", function)]) {
        Err(error) if error.is_api("InvalidAction") => return Ok(Vec::new()),
        found => found?.0,
    };
    let mut all = Vec::new();
    for domain in &found {
        let leads = |e: &&Endpoint| e.namespace == namespace && e.function_name == function && e.qualifier == qualifier;
        for endpoint in domain.endpoints_config.iter().filter(leads) {
            let path = endpoint.path_match.trim_end_matches('*').trim_start_matches('/');
            all.extend(urls(domain).iter().map(|url| format!("{url}{path}")));
        }
    }
    Ok(all)
}

fn show(context: &Context, name: &str) -> Result<(), CliError> {
    let answer = context.client.call(&GetCustomDomain { domain: name.to_owned() })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
        return Ok(());
    }
    let domain = answer.body;
    context.out.line(urls(&domain).join(" "));
    if !domain.cert_config.certificate_id.is_empty() {
        context.out.line(format_args!("certificate: {}", domain.cert_config.certificate_id));
    }
    let row = |e: &Endpoint| {
        let rewrites: Vec<String> = e.path_rewrite.iter().map(|r| format!("{} → {}", r.path, r.rewrite)).collect();
        vec![e.path_match.clone(), target(e), rewrites.join(", ")]
    };
    context.out.table(&["PATH", "FUNCTION", "REWRITTEN"], domain.endpoints_config.iter().map(row).collect());
    Ok(())
}

/// Runs the command.
pub fn run(args: &DomainArgs, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    match &args.command {
        DomainCommand::Add(args) => {
            let endpoints_config = args.endpoints()?;
            if endpoints_config.is_empty() {
                return Err(CliError::local("a domain leads to a function: name one")
                    .hint("mayfly domain add DOMAIN FUNCTION, or --route PATH=FUNCTION"));
            }
            context.client.call(&CreateCustomDomain {
                domain: args.domain.clone(),
                protocol: args.protocol().unwrap_or_else(|| "HTTP".into()),
                endpoints_config,
                cert_config: args.certificate(),
            })?;
            out.note(format_args!("bound {}", args.domain));
            show(context, &args.domain)
        }
        DomainCommand::Set(args) => {
            let endpoints = args.endpoints()?;
            if args.strip && endpoints.is_empty() {
                return Err(CliError::local("--strip is about routes, and none is given").hint("give all of them anew"));
            }
            context.client.call(&UpdateCustomDomain {
                domain: args.domain.clone(),
                protocol: args.protocol(),
                cert_config: args.certificate(),
                endpoints_config: Some(endpoints).filter(|e| !e.is_empty()),
            })?;
            out.note(format_args!("changed {}", args.domain));
            show(context, &args.domain)
        }
        DomainCommand::Ls => {
            let (all, raw) = list(context, &[])?;
            if out.is_json() {
                out.json(&json!({"Domains": raw, "Total": raw.len()}).to_string());
                return Ok(());
            }
            let row = |d: Domain| {
                let routes: Vec<String> =
                    d.endpoints_config.iter().map(|e| format!("{} → {}", e.path_match, target(e))).collect();
                vec![d.domain.clone(), d.protocol.clone(), d.cert_config.certificate_id.clone(), routes.join(", ")]
            };
            out.table(&["DOMAIN", "PROTOCOL", "CERTIFICATE", "ROUTES"], all.into_iter().map(row).collect());
            Ok(())
        }
        DomainCommand::Show { domain } => show(context, domain),
        DomainCommand::Rm { domain, yes } => {
            if !yes && !confirm(&format!("Delete the domain {}?", quoted(domain)), out)? {
                return Err(CliError::local("nothing was deleted"));
            }
            let answer = context.client.call(&DeleteCustomDomain { domain: domain.clone() })?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("deleted the domain {domain}"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn put(line: &[&str]) -> PutArgs {
        let cli = Cli::try_parse_from(["mayfly", "domain", "add"].iter().chain(line)).unwrap();
        match cli.command {
            Command::Domain(DomainArgs { command: DomainCommand::Add(args) }) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn routes_are_read_as_they_are_written() {
        let args = put(&["a.example", "web", "--route", "/api/*=api@prod", "-r", "/x=x@3", "--strip", "-n", "dev"]);
        let endpoints = args.endpoints().unwrap();
        let shown: Vec<_> = endpoints.iter().map(|e| (e.path_match.as_str(), target(e))).collect();
        let wanted = [("/*", "dev/web"), ("/api/*", "dev/api@prod"), ("/x", "dev/x@3")];
        assert_eq!(shown, wanted.map(|(path, target)| (path, target.to_owned())));
        let rewritten: Vec<_> = endpoints.iter().map(|e| e.path_rewrite.len()).collect();
        assert_eq!(rewritten, [0, 1, 0]);
        assert_eq!(endpoints[1].path_rewrite[0].rewrite, "/$");
        for bad in [&["a.example", "-r", "/x"][..], &["a.example", "-r", "/x="], &["a.example", "f@"]] {
            assert!(put(bad).endpoints().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_means_tls() {
        assert_eq!(put(&["a.example", "f"]).protocol(), None);
        assert_eq!(put(&["a.example", "f", "--cert", "c"]).protocol().as_deref(), Some("HTTPS"));
        let both = put(&["a.example", "f", "--cert", "c", "--protocol", "both"]);
        assert_eq!(both.protocol().as_deref(), Some("HTTP&HTTPS"));
    }
}
