//! `mayfly ls`, `get`, `env` and `rm`.

use super::{Context, confirm, namespace_flag, pages, raw_items, url};
use crate::api::{
    DeleteFunction, Environment, Function, GetFunction, ListFunctions, ListNamespaces, UpdateFunctionConfiguration,
    Variable,
};
use crate::cli::InNamespace;
use crate::error::CliError;
use crate::manifest;
use crate::output::bytes;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;

/// List functions.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    pub place: InNamespace,
    /// Those of all namespaces
    #[arg(long, short = 'a', conflicts_with = "namespace")]
    pub all: bool,
}

/// Lists functions by name.
pub fn ls(args: &LsArgs, context: &Context) -> Result<(), CliError> {
    let namespaces = match args.all {
        true => namespace_names(context)?,
        false => vec![args.place.namespace.clone()],
    };
    let mut rows = Vec::new();
    let mut raw = Vec::new();
    for namespace in namespaces {
        let found = pages(|offset, limit| {
            let answer = context.client.call(&ListFunctions {
                namespace: namespace.clone(),
                offset,
                limit,
                order: "ASC".into(),
                order_by: "FunctionName".into(),
            })?;
            raw.extend(raw_items(&answer, "Functions")?);
            Ok((answer.body.functions, answer.body.total_count))
        })?;
        rows.extend(found.into_iter().map(|f| {
            let mut row = vec![f.function_name, f.runtime, f.status, f.mod_time, f.description];
            if args.all {
                row.insert(0, f.namespace);
            }
            row
        }));
    }
    if context.out.is_json() {
        let total = raw.len();
        context.out.json(&json!({"Functions": raw, "TotalCount": total}).to_string());
        return Ok(());
    }
    if rows.is_empty() {
        context.out.note("no functions here; `mayfly deploy DIR` makes one");
        return Ok(());
    }
    let mut header = vec!["NAME", "RUNTIME", "STATUS", "MODIFIED", "DESCRIPTION"];
    if args.all {
        header.insert(0, "NAMESPACE");
    }
    context.out.table(&header, rows);
    Ok(())
}

fn namespace_names(context: &Context) -> Result<Vec<String>, CliError> {
    let all = pages(|offset, limit| {
        let request = ListNamespaces { offset, limit, order: "ASC".into(), order_by: "Name".into() };
        let answer = context.client.call(&request)?.body;
        Ok((answer.namespaces, answer.total_count))
    })?;
    Ok(all.into_iter().map(|n| n.name).collect())
}

/// Show a function: code, settings, state.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The function
    pub name: String,
    /// Version or alias
    #[arg(long, value_name = "QUALIFIER", default_value = "$LATEST")]
    pub qualifier: String,
    #[command(flatten)]
    pub place: InNamespace,
}

/// Shows a function.
pub fn get(args: &GetArgs, context: &Context) -> Result<(), CliError> {
    let answer = context.client.call(&GetFunction {
        function_name: args.name.clone(),
        namespace: args.place.namespace.clone(),
        // Without a qualifier, which means `$LATEST`, the triggers of all of them come back.
        qualifier: Some(args.qualifier.clone()).filter(|q| q != "$LATEST"),
    })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
        return Ok(());
    }
    let url = match args.qualifier.as_str() {
        "$LATEST" => url::summary(context, &answer.body, url::DEFAULT),
        qualifier => {
            let (function_name, namespace) = (args.name.clone(), args.place.namespace.clone());
            let get = GetFunction { function_name, namespace, qualifier: None };
            url::summary(context, &context.client.call(&get)?.body, qualifier)
        }
    };
    context.out.table(&[], details(&answer.body, url));
    Ok(())
}

fn details(f: &Function, url: Option<String>) -> Vec<Vec<String>> {
    let mut rows = vec![
        ("function", f.function_name.clone()),
        ("namespace", f.namespace.clone()),
        ("version", f.function_version.clone()),
        ("status", f.status.clone()),
        ("type", kind(f)),
        ("url", url.unwrap_or_default()),
        ("runtime", f.runtime.clone()),
        ("handler", f.handler.clone()),
        ("memory", format!("{} MB", f.memory_size)),
        ("timeout", format!("{} s", f.timeout)),
        ("init timeout", format!("{} s", f.init_timeout)),
        ("package", bytes(f.code_size)),
        ("public net", f.public_net_config.public_net_status.to_lowercase()),
        ("fork", f.fork_mode.clone()),
    ];
    let layers: Vec<_> = f.layers.iter().map(|l| format!("{}:{}", l.layer_name, l.layer_version)).collect();
    rows.push(("layers", layers.join(", ")));
    // Values may be secrets: names are enough here, `mayfly env` shows them.
    let variables: Vec<_> = f.environment.variables.iter().map(|v| v.key.as_str()).collect();
    rows.push(("environment", variables.join(", ")));
    if f.failures.retention_hours > 0 {
        let which = if f.failures.capture { "all" } else { "asynchronous ones" };
        rows.push(("failures", format!("{which} kept for {} hours", f.failures.retention_hours)));
    }
    let dead = &f.dead_letter_config;
    if !dead.name.is_empty() {
        rows.push(("dead letters", format!("{} {}", dead.kind, dead.name)));
    }
    rows.push(("description", f.description.clone()));
    rows.push(("created", f.add_time.clone()));
    rows.push(("modified", f.mod_time.clone()));
    rows.into_iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| vec![k.to_owned(), v]).collect()
}

fn kind(f: &Function) -> String {
    match (url::is_service(f), f.instance_concurrency_config.max_concurrency) {
        (false, _) => f.kind.to_lowercase(),
        (true, 0 | 1) => "http, 1 request at a time in an instance".into(),
        (true, n) => format!("http, {n} requests at a time in an instance"),
    }
}

/// Show or change a function's environment variables.
///
/// Variables that are not named stay as they are.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// The function
    pub name: String,
    /// Variables to set
    #[arg(value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Variable to remove; may be repeated
    #[arg(long, value_name = "NAME")]
    pub unset: Vec<String>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// Shows or changes variables.
pub fn env(args: &EnvArgs, context: &Context) -> Result<(), CliError> {
    let set = args.set.iter().map(|v| manifest::variable(v)).collect::<Result<Vec<_>, _>>()?;
    let get =
        GetFunction { function_name: args.name.clone(), namespace: args.place.namespace.clone(), qualifier: None };
    let mut variables = context.client.call(&get)?.body.environment.variables;
    if !set.is_empty() || !args.unset.is_empty() {
        variables = changed(&variables, set, &args.unset)?;
        context.client.call(&UpdateFunctionConfiguration {
            function_name: args.name.clone(),
            namespace: args.place.namespace.clone(),
            environment: Some(Environment { variables: variables.clone() }),
            ..Default::default()
        })?;
        context.out.note(format_args!("{} has {} variables now", args.name, variables.len()));
    }
    if context.out.is_json() {
        context.out.json(&json!({"Environment": {"Variables": variables}}).to_string());
    } else {
        for v in &variables {
            context.out.line(format_args!("{}={}", v.key, v.value));
        }
    }
    Ok(())
}

fn changed(present: &[Variable], set: Vec<Variable>, unset: &[String]) -> Result<Vec<Variable>, CliError> {
    let mut all: BTreeMap<String, String> = present.iter().map(|v| (v.key.clone(), v.value.clone())).collect();
    for name in unset {
        if all.remove(name).is_none() {
            return Err(CliError::local(format!("there is no variable `{name}` to remove"))
                .hint("without arguments this command shows what there is"));
        }
    }
    all.extend(set.into_iter().map(|v| (v.key, v.value)));
    Ok(all.into_iter().map(|(key, value)| Variable { key, value }).collect())
}

/// Delete a function with its versions and aliases, or one version of it.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The function
    pub name: String,
    /// Only this version
    #[arg(long = "version", value_name = "VERSION")]
    pub only_version: Option<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub place: InNamespace,
}

/// Deletes a function or a version.
pub fn rm(args: &RmArgs, context: &Context) -> Result<(), CliError> {
    let namespace = &args.place.namespace;
    let what = match &args.only_version {
        Some(version) => format!("version {version} of {}", args.name),
        None => format!("the function {} with all its versions and aliases", args.name),
    };
    if !args.yes && !confirm(&format!("delete {what}{}?", namespace_flag(namespace)), context.out)? {
        return Err(CliError::local("nothing was deleted"));
    }
    let answer = context.client.call(&DeleteFunction {
        function_name: args.name.clone(),
        namespace: namespace.clone(),
        qualifier: args.only_version.clone(),
    })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
    }
    context.out.note(format_args!("deleted {what}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LayerRef;
    use crate::output::table;

    fn variable(key: &str, value: &str) -> Variable {
        Variable { key: key.into(), value: value.into() }
    }

    #[test]
    fn variables_are_merged() {
        let present = [variable("A", "1"), variable("B", "2")];
        let all = changed(&present, vec![variable("C", "3"), variable("B", "")], &["A".into()]).unwrap();
        assert_eq!(all, [variable("B", ""), variable("C", "3")]);
        assert!(changed(&present, vec![], &["Z".into()]).unwrap_err().message.contains("`Z`"));
    }

    #[test]
    fn a_function_is_shown_without_the_values_of_its_variables() {
        let function = Function {
            function_name: "words".into(),
            namespace: "default".into(),
            function_version: "$LATEST".into(),
            status: "Active".into(),
            runtime: "Python3".into(),
            handler: "index.main_handler".into(),
            memory_size: 128,
            timeout: 3,
            init_timeout: 65,
            code_size: 2048,
            layers: vec![LayerRef { layer_name: "nlp".into(), layer_version: 2 }],
            environment: Environment { variables: vec![variable("TOKEN", "hidden")] },
            ..Default::default()
        };
        insta::assert_snapshot!(table(&[], details(&function, None), None), @r"
        function      words
        namespace     default
        version       $LATEST
        status        Active
        runtime       Python3
        handler       index.main_handler
        memory        128 MB
        timeout       3 s
        init timeout  65 s
        package       2.0 KB
        layers        nlp:2
        environment   TOKEN
        ");
    }
}
