//! `mayfly alias`: names for versions.

use super::Context;
use super::versions::{aliases, percent};
use crate::api::{Alias, CreateAlias, DeleteAlias, GetAlias, Routing, UpdateAlias, Weight};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::{Args, Subcommand};
use serde_json::json;

/// Names for versions, and how requests are split between them.
#[derive(Debug, Args)]
pub struct AliasArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AliasCommand,
}

/// What can be done with aliases.
#[derive(Debug, Subcommand)]
pub enum AliasCommand {
    /// List the aliases of a function
    Ls {
        /// The function
        name: String,
        #[command(flatten)]
        place: InNamespace,
    },
    /// Create an alias or point it elsewhere
    ///
    /// Without --weight all requests go to VERSION, and weights and rules that the alias had are removed.
    Set {
        /// The function
        name: String,
        /// The alias; '$DEFAULT' is there from the beginning
        alias: String,
        /// The version: a number, or '$LATEST'
        version: String,
        /// Send a share of the requests to another version, such as 2=0.1; may be repeated
        #[arg(long = "weight", short = 'w', value_name = "VERSION=SHARE")]
        weights: Vec<String>,
        /// What the alias is for
        #[arg(long, short = 'm', value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        place: InNamespace,
    },
    /// Delete an alias
    Rm {
        /// The function
        name: String,
        /// The alias
        alias: String,
        #[command(flatten)]
        place: InNamespace,
    },
}

/// Runs the command.
pub fn run(args: &AliasArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        AliasCommand::Ls { name, place } => {
            let (all, raw) = aliases(context, name, &place.namespace)?;
            if context.out.is_json() {
                context.out.json(&json!({"Aliases": raw, "TotalCount": raw.len()}).to_string());
                return Ok(());
            }
            let rows = all.into_iter().map(|a| vec![a.name.clone(), target(&a), a.mod_time, a.description]);
            context.out.table(&["ALIAS", "VERSION", "MODIFIED", "DESCRIPTION"], rows.collect());
        }
        AliasCommand::Set { name, alias, version, weights, description, place } => {
            let weights = weights.iter().map(|w| weight(w)).collect::<Result<Vec<_>, _>>()?;
            set(context, (name, &place.namespace), (alias, version), weights, description.clone())?;
        }
        AliasCommand::Rm { name, alias, place } => {
            let answer = context.client.call(&DeleteAlias {
                name: alias.clone(),
                function_name: name.clone(),
                namespace: place.namespace.clone(),
            })?;
            if context.out.is_json() {
                context.out.json(&answer.raw);
            }
            context.out.note(format_args!("deleted the alias {alias} of {name}"));
        }
    }
    Ok(())
}

fn set(
    context: &Context,
    (name, namespace): (&str, &str),
    (alias, version): (&str, &str),
    weights: Vec<Weight>,
    description: Option<String>,
) -> Result<(), CliError> {
    let get = GetAlias { name: alias.into(), function_name: name.into(), namespace: namespace.into() };
    let old = context.client.find(&get, "ResourceNotFound.Alias")?.map(|a| a.body);
    let routing = Routing { additional_version_weights: weights, ..Default::default() };
    let shown = Alias { function_version: version.into(), routing_config: routing.clone(), ..Default::default() };
    let request = CreateAlias {
        name: alias.into(),
        function_name: name.into(),
        function_version: version.into(),
        namespace: namespace.into(),
        routing_config: Some(routing),
        description,
    };
    let raw = match &old {
        Some(_) => context.client.call(&UpdateAlias(request))?.raw,
        None => context.client.call(&request)?.raw,
    };
    if context.out.is_json() {
        context.out.json(&raw);
        return Ok(());
    }
    let after = target(&shown);
    match old.as_ref().map(target) {
        Some(before) => context.out.line(format_args!("{alias} of {name}: {before} -> {after}")),
        None => context.out.line(format_args!("{alias} of {name}: {after} (new)")),
    }
    Ok(())
}

/// Where requests go, for people.
fn target(alias: &Alias) -> String {
    let weights = &alias.routing_config.additional_version_weights;
    let rules = alias.routing_config.addtion_version_matchs.len();
    let mut text = alias.function_version.clone();
    if !weights.is_empty() {
        let rest = 1.0 - weights.iter().map(|w| w.weight).sum::<f64>();
        text = format!("{text} {}", percent(rest));
        for w in weights {
            text = format!("{text}, {} {}", w.version, percent(w.weight));
        }
    }
    match rules {
        0 => text,
        1 => format!("{text}, 1 rule"),
        n => format!("{text}, {n} rules"),
    }
}

/// Reads `VERSION=SHARE`; the share is between 0 and 1, or a percentage.
fn weight(text: &str) -> Result<Weight, CliError> {
    let bad = |why: &str| {
        CliError::local(format!("`{text}` is not a weight: {why}")).hint("a weight looks like 2=0.1 or 2=10%")
    };
    let (version, share) = text.split_once('=').ok_or_else(|| bad("there is no `=`"))?;
    if version.is_empty() {
        return Err(bad("it names no version"));
    }
    let (number, scale) = share.strip_suffix('%').map_or((share, 1.0), |n| (n, 100.0));
    let weight = number.parse::<f64>().map_err(|_| bad("the share is not a number"))? / scale;
    if !(0.0..=1.0).contains(&weight) {
        return Err(bad("the share is not between 0 and 1"));
    }
    Ok(Weight { version: version.to_owned(), weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares_or_percentages() {
        for (text, version, share) in [("2=0.5", "2", 0.5), ("$LATEST=10%", "$LATEST", 0.1), ("3=1", "3", 1.0)] {
            let found = weight(text).unwrap();
            assert_eq!((found.version.as_str(), found.weight), (version, share));
        }
        for bad in ["2", "2=", "=0.5", "2=x", "2=1.5", "2=-0.1", "2=NaN", "2=inf", "2=101%"] {
            let error = weight(bad).unwrap_err();
            assert!(error.message.contains(bad) && error.hint.contains("2=0.1"), "{bad}");
        }
    }

    #[test]
    fn targets_tell_all_shares() {
        let mut alias = Alias { function_version: "1".into(), ..Default::default() };
        assert_eq!(target(&alias), "1");
        alias.routing_config.additional_version_weights = vec![weight("2=0.3").unwrap()];
        alias.routing_config.addtion_version_matchs = vec![Default::default()];
        assert_eq!(target(&alias), "1 70%, 2 30%, 1 rule");
    }
}
