//! `mayfly versions`, `publish` and `rollback`.

use super::deploy::same_settings;
use super::{Context, namespace_flag, pages, quoted, raw_items};
use crate::api::{
    Alias, CreateAlias, Function, GetAlias, GetFunction, GetFunctionAddress, ListAliases, ListVersionByFunction,
    PublishVersion, Routing, UpdateAlias, Version,
};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::Args;
use serde_json::json;

/// List the versions of a function, and the aliases that lead to them.
#[derive(Debug, Args)]
pub struct VersionsArgs {
    /// The function
    pub name: String,
    #[command(flatten)]
    pub place: InNamespace,
}

/// All aliases of a function.
pub fn aliases(
    context: &Context,
    name: &str,
    namespace: &str,
) -> Result<(Vec<Alias>, Vec<serde_json::Value>), CliError> {
    let mut raw = Vec::new();
    let all = pages(|offset, limit| {
        let answer = context.client.call(&ListAliases {
            function_name: name.into(),
            namespace: namespace.into(),
            offset: offset.to_string(),
            limit: limit.to_string(),
        })?;
        raw.extend(raw_items(&answer, "Aliases")?);
        Ok((answer.body.aliases, answer.body.total_count))
    })?;
    Ok((all, raw))
}

fn versions(
    context: &Context,
    name: &str,
    namespace: &str,
) -> Result<(Vec<Version>, Vec<serde_json::Value>), CliError> {
    let mut raw = Vec::new();
    let all = pages(|offset, limit| {
        let answer = context.client.call(&ListVersionByFunction {
            function_name: name.into(),
            namespace: namespace.into(),
            offset,
            limit,
        })?;
        raw.extend(raw_items(&answer, "Versions")?);
        Ok((answer.body.versions, answer.body.total_count))
    })?;
    Ok((all, raw))
}

/// Lists versions.
pub fn ls(args: &VersionsArgs, context: &Context) -> Result<(), CliError> {
    let namespace = &args.place.namespace;
    let (all, raw) = versions(context, &args.name, namespace)?;
    if context.out.is_json() {
        let names: Vec<_> = all.iter().map(|v| v.version.as_str()).collect();
        let body = json!({"FunctionVersion": names, "Versions": raw, "TotalCount": raw.len()});
        context.out.json(&body.to_string());
        return Ok(());
    }
    let (aliases, _) = aliases(context, &args.name, namespace)?;
    let rows = all.into_iter().map(|v| {
        let names = leading_to(&aliases, &v.version);
        vec![v.version, names, v.add_time, v.description]
    });
    context.out.table(&["VERSION", "ALIASES", "CREATED", "DESCRIPTION"], rows.collect());
    Ok(())
}

/// The aliases that lead to a version, with the share of requests where it is not all.
fn leading_to(aliases: &[Alias], version: &str) -> String {
    let mut names = Vec::new();
    for alias in aliases {
        let weights = &alias.routing_config.additional_version_weights;
        let rest = 1.0 - weights.iter().map(|w| w.weight).sum::<f64>();
        if alias.function_version == version {
            names.push(if weights.is_empty() {
                alias.name.clone()
            } else {
                format!("{} {}", alias.name, percent(rest))
            });
        }
        let weights = weights.iter().filter(|w| w.version == version);
        names.extend(weights.map(|w| format!("{} {}", alias.name, percent(w.weight))));
    }
    names.join(", ")
}

/// A share as people read it.
pub fn percent(share: f64) -> String {
    format!("{}%", (share.max(0.0) * 10_000.0).round() / 100.0)
}

/// Publish $LATEST as a version that never changes.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The function
    pub name: String,
    /// What is new
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub message: Option<String>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// Publishes a version.
pub fn publish(args: &PublishArgs, context: &Context) -> Result<(), CliError> {
    let answer = context.client.call(&PublishVersion {
        function_name: args.name.clone(),
        namespace: args.place.namespace.clone(),
        description: args.message.clone(),
    })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
        return Ok(());
    }
    context.out.line(&answer.body.function_version);
    context.out.note(format_args!("published as version {}", answer.body.function_version));
    Ok(())
}

/// Send requests back to the previous published version.
///
/// Points an alias ($DEFAULT, which `mayfly invoke` and the API action InvokeFunction ask) at one version, and removes
/// its weights and rules. Which version: the one given with --to; else, when the alias leads to version N, the highest
/// published version below N; when it leads to $LATEST, the highest published version that differs from $LATEST in
/// code or settings. $LATEST itself, and calls that ask for it by name, stay as they are.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The function
    pub name: String,
    /// The version to go to; '$LATEST' undoes a rollback
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// The alias that is moved
    #[arg(long, value_name = "ALIAS", default_value = "$DEFAULT")]
    pub alias: String,
    #[command(flatten)]
    pub place: InNamespace,
}

/// Moves an alias back.
pub fn rollback(args: &RollbackArgs, context: &Context) -> Result<(), CliError> {
    let namespace = &args.place.namespace;
    let get = GetAlias { name: args.alias.clone(), function_name: args.name.clone(), namespace: namespace.clone() };
    let alias = context.client.call(&get)?.body;
    let now = alias.function_version.clone();
    let target = match &args.to {
        Some(version) => version.clone(),
        None => {
            let (all, _) = versions(context, &args.name, namespace)?;
            let published = published_numbers(&all);
            let found = match now.parse::<u64>() {
                Ok(n) => below(&published, n),
                Err(_) => differing(context, args, &published)?,
            };
            found.map(|n| n.to_string()).ok_or_else(|| no_version(args, &now, &published))?
        }
    };
    let split = !alias.routing_config.additional_version_weights.is_empty()
        || !alias.routing_config.addtion_version_matchs.is_empty();
    if target == now && !split {
        context.out.note(format_args!("{} leads to version {now} already", args.alias));
    }
    context.client.call(&UpdateAlias(CreateAlias {
        name: args.alias.clone(),
        function_name: args.name.clone(),
        function_version: target.clone(),
        namespace: namespace.clone(),
        routing_config: Some(Routing::default()),
        description: None,
    }))?;
    if context.out.is_json() {
        let body = json!({
            "Name": args.alias, "FunctionVersion": target, "PreviousFunctionVersion": now, "RoutingRemoved": split,
        });
        context.out.json(&body.to_string());
        return Ok(());
    }
    let removed = if split { "; its weights and rules are removed" } else { "" };
    context.out.line(format_args!("{} of {}: {now} -> {target}{removed}", args.alias, args.name));
    let alias_flag = if args.alias == "$DEFAULT" { String::new() } else { format!(" --alias {}", quoted(&args.alias)) };
    context.out.note(format_args!(
        "to undo: mayfly rollback {}{}{alias_flag} --to {}",
        quoted(&args.name),
        namespace_flag(namespace),
        quoted(&now)
    ));
    Ok(())
}

/// Published versions, highest first.
fn published_numbers(versions: &[Version]) -> Vec<u64> {
    let mut numbers: Vec<u64> = versions.iter().filter_map(|v| v.version.parse().ok()).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

fn below(published: &[u64], n: u64) -> Option<u64> {
    published.iter().copied().find(|v| *v < n)
}

/// The highest published version that is not what `$LATEST` is.
fn differing(context: &Context, args: &RollbackArgs, published: &[u64]) -> Result<Option<u64>, CliError> {
    let state = |qualifier: String| -> Result<(Function, String), CliError> {
        let (function_name, namespace) = (args.name.clone(), args.place.namespace.clone());
        let get = GetFunction {
            function_name: function_name.clone(),
            namespace: namespace.clone(),
            qualifier: Some(qualifier.clone()),
        };
        let address = GetFunctionAddress { function_name, namespace, qualifier: Some(qualifier) };
        Ok((context.client.call(&get)?.body, context.client.call(&address)?.body.code_sha256))
    };
    let (latest, latest_code) = state("$LATEST".into())?;
    for n in published {
        let (version, code) = state(n.to_string())?;
        if code != latest_code || !same_settings(&version, &latest) {
            return Ok(Some(*n));
        }
    }
    Ok(None)
}

fn no_version(args: &RollbackArgs, now: &str, published: &[u64]) -> CliError {
    let name = format!("{}{}", quoted(&args.name), namespace_flag(&args.place.namespace));
    match published {
        [] => CliError::local(format!("{} has no published version to go back to", args.name))
            .hint(format!("publish one when things are well: mayfly publish {name}")),
        _ if now == "$LATEST" => {
            CliError::local(format!("all published versions of {} are the same as $LATEST", args.name))
                .hint(format!("name one with --to; mayfly versions {name} lists them"))
        }
        _ => CliError::local(format!("{} has no published version before {now}", args.name))
            .hint(format!("name another with --to; mayfly versions {name} lists them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Weight;

    fn version(text: &str) -> Version {
        Version { version: text.into(), ..Default::default() }
    }

    #[test]
    fn back_is_the_next_lower_number() {
        let all = published_numbers(&[version("$LATEST"), version("2"), version("10"), version("9")]);
        assert_eq!(all, [10, 9, 2]);
        assert_eq!((below(&all, 10), below(&all, 9), below(&all, 2)), (Some(9), Some(2), None));
    }

    #[test]
    fn aliases_are_shown_with_their_share() {
        let split = Alias {
            name: "prod".into(),
            function_version: "1".into(),
            routing_config: Routing {
                additional_version_weights: vec![Weight { version: "2".into(), weight: 0.125 }],
                ..Default::default()
            },
            ..Default::default()
        };
        let plain = Alias { name: "$DEFAULT".into(), function_version: "$LATEST".into(), ..Default::default() };
        let all = [plain, split];
        assert_eq!(leading_to(&all, "$LATEST"), "$DEFAULT");
        assert_eq!(leading_to(&all, "1"), "prod 87.5%");
        assert_eq!(leading_to(&all, "2"), "prod 12.5%");
        assert_eq!(leading_to(&all, "3"), "");
    }
}
