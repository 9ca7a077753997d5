//! `mayfly api key` and `mayfly api plan`: who may call APIs, and how often.

use super::Context;
use super::apis::{all, existing_service, text};
use crate::error::CliError;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key pair, and print it
    Add {
        /// A name for it
        name: String,
    },
    /// List keys, without their secrets
    Ls,
    /// Delete a key; nobody gets in with it any more
    Rm {
        /// Its id
        id: String,
    },
}

/// What can be done with usage plans.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Make a plan, and bind it
    Add(PlanArgs),
    /// List plans
    Ls,
    /// Delete a plan with its bindings
    Rm {
        /// Its id
        id: String,
    },
}

/// A new plan.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A name for it
    pub name: String,
    /// Requests per second of each key
    #[arg(long, value_name = "NUMBER")]
    pub per_second: Option<u32>,
    /// Requests of each key in all
    #[arg(long, value_name = "NUMBER")]
    pub total: Option<u64>,
    /// Its keys, by id
    #[arg(long = "key", value_name = "ID")]
    pub keys: Vec<String>,
    /// The service that its keys get into, by name or id
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Only these APIs of it
    #[arg(long = "api", value_name = "ID", requires = "service")]
    pub apis: Vec<String>,
    /// The environment
    #[arg(long, value_name = "ENVIRONMENT", default_value = "release")]
    pub stage: String,
}

/// Runs `mayfly api key`.
pub(super) fn keys(command: &KeyCommand, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    match command {
        KeyCommand::Add { name } => {
            let made = context.client.apigw("CreateApiKey", &json!({ "SecretName": name }))?;
            if out.is_json() {
                out.json(&made.body["Result"].to_string());
            } else {
                let key = &made.body["Result"];
                out.line(format_args!("{} {}", text(key, "AccessKeyId"), text(key, "AccessKeySecret")));
                out.note(
                    "the second word is the secret; the key opens nothing before it is in a plan: mayfly api plan add",
                );
            }
        }
        KeyCommand::Ls => {
            let keys = all(context, "DescribeApiKeysStatus", json!({}), "ApiKeySet")?;
            if out.is_json() {
                out.json(&json!({ "TotalCount": keys.len(), "ApiKeySet": keys }).to_string());
                return Ok(());
            }
            let row = |k: &Value| {
                let state = if k["Status"] == 1 { "on" } else { "off" };
                vec![
                    text(k, "SecretName").into(),
                    text(k, "AccessKeyId").into(),
                    state.into(),
                    text(k, "CreatedTime").into(),
                ]
            };
            out.table(&["NAME", "KEY", "STATE", "MADE"], keys.iter().map(row).collect());
        }
        KeyCommand::Rm { id } => {
            context.client.apigw("DisableApiKey", &json!({ "AccessKeyId": id }))?;
            context.client.apigw("DeleteApiKey", &json!({ "AccessKeyId": id }))?;
            out.note(format_args!("deleted the key {id}"));
        }
    }
    Ok(())
}

/// Runs `mayfly api plan`.
pub(super) fn plans(command: &PlanCommand, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    match command {
        PlanCommand::Add(args) => {
            let service = args.service.as_ref().map(|s| existing_service(context, s)).transpose()?;
            let mut wanted = json!({ "UsagePlanName": args.name });
            if let Some(rate) = args.per_second {
                wanted["MaxRequestNumPreSec"] = rate.into();
            }
            if let Some(total) = args.total {
                wanted["MaxRequestNum"] = total.into();
            }
            let made = context.client.apigw("CreateUsagePlan", &wanted)?;
            let id = text(&made.body["Result"], "UsagePlanId").to_owned();
            if !args.keys.is_empty() {
                context.client.apigw("BindSecretIds", &json!({ "UsagePlanId": id, "AccessKeyIds": args.keys }))?;
            }
            if let Some(service) = service {
                let kind = if args.apis.is_empty() { "SERVICE" } else { "API" };
                let bind = json!({
                    "UsagePlanIds": [id], "BindType": kind, "Environment": args.stage,
                    "ServiceId": service["ServiceId"], "ApiIds": args.apis,
                });
                context.client.apigw("BindEnvironment", &bind)?;
            }
            let shown = context.client.apigw("DescribeUsagePlan", &json!({ "UsagePlanId": id }))?;
            if out.is_json() {
                out.json(&shown.body["Result"].to_string());
            } else {
                out.line(&id);
            }
        }
        PlanCommand::Ls => {
            let plans = all(context, "DescribeUsagePlansStatus", json!({}), "UsagePlanStatusSet")?;
            if out.is_json() {
                out.json(&json!({ "TotalCount": plans.len(), "UsagePlanStatusSet": plans }).to_string());
                return Ok(());
            }
            let limit = |v: &Value| v.as_i64().filter(|n| *n >= 0).map_or("-".to_owned(), |n| n.to_string());
            let count = |v: &Value| v.as_u64().unwrap_or(0).to_string();
            let row = |p: &Value| {
                vec![
                    text(p, "UsagePlanName").to_owned(),
                    text(p, "UsagePlanId").to_owned(),
                    limit(&p["MaxRequestNumPreSec"]),
                    limit(&p["MaxRequestNum"]),
                    count(&p["BindSecretIdTotalCount"]),
                    count(&p["BindEnvironmentTotalCount"]),
                ]
            };
            out.table(&["NAME", "PLAN", "PER SECOND", "IN ALL", "KEYS", "BOUND"], plans.iter().map(row).collect());
        }
        PlanCommand::Rm { id } => {
            for kind in ["SERVICE", "API"] {
                let bound = all(
                    context,
                    "DescribeUsagePlanEnvironments",
                    json!({ "UsagePlanId": id, "BindType": kind }),
                    "EnvironmentList",
                )?;
                for link in bound {
                    let apis: Vec<&Value> = Some(&link["ApiId"]).filter(|api| !api.is_null()).into_iter().collect();
                    let unbind = json!({
                        "UsagePlanIds": [id], "BindType": kind, "Environment": link["Environment"],
                        "ServiceId": link["ServiceId"], "ApiIds": apis,
                    });
                    context.client.apigw("UnBindEnvironment", &unbind)?;
                }
            }
            context.client.apigw("DeleteUsagePlan", &json!({ "UsagePlanId": id }))?;
            out.note(format_args!("deleted the usage plan {id}"));
        }
    }
    Ok(())
}
