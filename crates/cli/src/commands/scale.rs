//! `mayfly scale`: bounds of a function's number of instances.

use super::Context;
use crate::api::{GetFunction, PutFunctionScaling};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

/// Show or set how many instances a function has at least and at most, all its versions together.
///
/// The minimum is kept ready of the version that calls without a qualifier reach; for published versions there is provisioned concurrency
/// besides. Calls beyond the maximum wait for an instance to be free. Instances that run are not restarted.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// The function
    pub name: String,
    /// Fewest instances; 0: none need be there
    #[arg(long, value_name = "N")]
    pub min: Option<u32>,
    /// Most instances; 0: no limit but memory
    #[arg(long, value_name = "N")]
    pub max: Option<u32>,
    /// Whether instances are made ahead of demand: off, conservative, eager, or default, which is the platform's setting
    #[arg(long, value_name = "MODE", value_parser = ["off", "conservative", "eager", "default"])]
    pub forecast: Option<String>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// What GetFunction says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Bounds {
    min_instances: u32,
    max_instances: u32,
    forecast: String,
}

/// Runs the command.
pub fn run(args: &ScaleArgs, context: &Context) -> Result<(), CliError> {
    if args.min.is_some() || args.max.is_some() || args.forecast.is_some() {
        context.client.call(&PutFunctionScaling {
            function_name: args.name.clone(),
            namespace: args.place.namespace.clone(),
            min_instances: args.min,
            max_instances: args.max,
            forecast: args.forecast.as_ref().map(|mode| if mode == "default" { String::new() } else { mode.clone() }),
        })?;
        context.out.note(format_args!("set the bounds of {}", args.name));
    }
    let answer = context.client.call(&GetFunction {
        function_name: args.name.clone(),
        namespace: args.place.namespace.clone(),
        ..GetFunction::default()
    })?;
    let bounds: Bounds =
        serde_json::from_str(&answer.raw).map_err(|e| CliError::local(format!("the answer cannot be read: {e}")))?;
    if context.out.is_json() {
        let (min, max) = (bounds.min_instances, bounds.max_instances);
        context.out.json(&json!({"MinInstances": min, "MaxInstances": max, "Forecast": bounds.forecast}).to_string());
        return Ok(());
    }
    let max = if bounds.max_instances == 0 { "no limit".into() } else { bounds.max_instances.to_string() };
    let forecast = if bounds.forecast.is_empty() { "the platform's setting".into() } else { bounds.forecast };
    let rows = [("Minimum", bounds.min_instances.to_string()), ("Maximum", max), ("Forecast", forecast)];
    context.out.table(&[], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect());
    Ok(())
}
