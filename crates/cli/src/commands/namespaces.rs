//! `mayfly namespaces`.

use super::{Context, pages, raw_items};
use crate::api::{CreateNamespace, DeleteNamespace, ListNamespaces};
use crate::error::CliError;
use clap::{Args, Subcommand};
use serde_json::json;

/// Namespaces: names of functions are unique in each.
#[derive(Debug, Args)]
pub struct NamespacesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NamespacesCommand,
}

/// What can be done with namespaces.
#[derive(Debug, Subcommand)]
pub enum NamespacesCommand {
    /// List namespaces
    Ls,
    /// Create a namespace
    Create {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, short = 'm', value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete an empty namespace
    Rm {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub fn run(args: &NamespacesArgs, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    match &args.command {
        NamespacesCommand::Ls => {
            let mut raw = Vec::new();
            let all = pages(|offset, limit| {
                let request = ListNamespaces { offset, limit, order: "ASC".into(), order_by: "Name".into() };
                let answer = context.client.call(&request)?;
                raw.extend(raw_items(&answer, "Namespaces")?);
                Ok((answer.body.namespaces, answer.body.total_count))
            })?;
            if out.is_json() {
                out.json(&json!({"Namespaces": raw, "TotalCount": raw.len()}).to_string());
                return Ok(());
            }
            let rows = all.into_iter().map(|n| vec![n.name, n.add_time, n.description]);
            out.table(&["NAMESPACE", "CREATED", "DESCRIPTION"], rows.collect());
        }
        NamespacesCommand::Create { name, description } => {
            let request = CreateNamespace { namespace: name.clone(), description: description.clone() };
            let answer = context.client.call(&request)?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("created the namespace {name}"));
        }
        NamespacesCommand::Rm { name } => {
            let answer = context.client.call(&DeleteNamespace { namespace: name.clone() })?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("deleted the namespace {name}"));
        }
    }
    Ok(())
}
