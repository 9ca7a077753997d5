//! `mayfly destinations`: who hears of the ends of a function's asynchronous events.

use super::Context;
use crate::api::{
    DeadLetter, Destination, GetFunctionDestinations, PutFunctionDestinations, UpdateFunctionConfiguration,
};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::Args;

/// Show or set who hears of the ends of a function's asynchronous events.
///
/// WHERE is `function:NAME`, `function:NAME:QUALIFIER`, `function:NAMESPACE/NAME:QUALIFIER`, `queue:NAME`, `topic:NAME`, or `none`. What is not named
/// stays as it is.
#[derive(Debug, Args)]
pub struct DestinationsArgs {
    /// The function
    pub name: String,
    /// Gets the result of each event that succeeded
    #[arg(long, value_name = "WHERE", value_parser = destination)]
    pub on_success: Option<Destination>,
    /// Gets the error of each event that failed for good
    #[arg(long, value_name = "WHERE", value_parser = destination)]
    pub on_failure: Option<Destination>,
    /// Gets the dead letter of each event that failed for good, in SCF's form: a queue or a topic
    #[arg(long, value_name = "WHERE", value_parser = dead_letter)]
    pub dead_letter: Option<DeadLetter>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// Reads `WHERE`.
pub fn destination(text: &str) -> Result<Destination, String> {
    if text == "none" {
        return Ok(Destination::default());
    }
    let (kind, name) = text.split_once(':').unwrap_or(("", text));
    let plain = |kind: &str, name: &str| Destination { kind: kind.into(), name: name.into(), ..Destination::default() };
    match kind {
        _ if name.is_empty() => Err("a name is missing after the `:`".into()),
        "queue" | "topic" => Ok(plain(kind, name)),
        "function" => {
            let (namespace, name) = name.split_once('/').map_or((None, name), |(space, name)| (Some(space), name));
            let (name, qualifier) = name.split_once(':').map_or((name, None), |(name, q)| (name, Some(q)));
            let own = |text: Option<&str>| text.map(str::to_owned);
            Ok(Destination { namespace: own(namespace), qualifier: own(qualifier), ..plain(kind, name) })
        }
        _ => Err("it is function:NAME, queue:NAME, topic:NAME or none".into()),
    }
}

/// Reads `WHERE` of dead letters.
pub fn dead_letter(text: &str) -> Result<DeadLetter, String> {
    let Destination { kind, name, .. } = destination(text)?;
    match kind.as_str() {
        "" => Ok(DeadLetter::default()),
        "queue" => Ok(DeadLetter { kind: "CMQ-QUEUE".into(), name, filter_type: String::new() }),
        "topic" => Ok(DeadLetter { kind: "CMQ-TOPIC".into(), name, filter_type: String::new() }),
        _ => Err("dead letters go to queue:NAME, topic:NAME or none".into()),
    }
}

fn shown(kind: &str, name: &str, namespace: &Option<String>, qualifier: &Option<String>) -> String {
    let kind = kind.trim_start_matches("CMQ-").to_lowercase();
    match (kind.as_str(), namespace, qualifier) {
        ("", ..) => "none".to_owned(),
        (kind, Some(namespace), Some(qualifier)) => format!("{kind}:{namespace}/{name}:{qualifier}"),
        (kind, ..) => format!("{kind}:{name}"),
    }
}

/// Runs the command.
pub fn run(args: &DestinationsArgs, context: &Context) -> Result<(), CliError> {
    let (function_name, namespace) = (args.name.clone(), args.place.namespace.clone());
    if args.on_success.is_some() || args.on_failure.is_some() {
        context.client.call(&PutFunctionDestinations {
            function_name: function_name.clone(),
            namespace: namespace.clone(),
            on_success: args.on_success.clone(),
            on_failure: args.on_failure.clone(),
        })?;
    }
    if args.dead_letter.is_some() {
        context.client.call(&UpdateFunctionConfiguration {
            function_name: function_name.clone(),
            namespace: namespace.clone(),
            dead_letter_config: args.dead_letter.clone(),
            ..UpdateFunctionConfiguration::default()
        })?;
    }
    let answer = context.client.call(&GetFunctionDestinations { function_name, namespace })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
        return Ok(());
    }
    let found = &answer.body;
    let of = |d: &Destination| shown(&d.kind, &d.name, &d.namespace, &d.qualifier);
    let dead = &found.dead_letter_config;
    let rows = vec![
        vec!["on success".to_owned(), of(&found.on_success)],
        vec!["on failure".to_owned(), of(&found.on_failure)],
        vec!["dead letters".to_owned(), shown(&dead.kind, &dead.name, &None, &None)],
    ];
    context.out.table(&[], rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let function = destination("function:dev/next:3").unwrap();
        assert_eq!((function.kind.as_str(), function.name.as_str()), ("function", "next"));
        assert_eq!((function.namespace.as_deref(), function.qualifier.as_deref()), (Some("dev"), Some("3")));
        assert_eq!(destination("function:next").unwrap().qualifier, None);
        assert_eq!(destination("none").unwrap(), Destination::default());
        assert_eq!(dead_letter("queue:q").unwrap().kind, "CMQ-QUEUE");
        for bad in ["", "next", "queue:", "mail:x"] {
            assert!(destination(bad).is_err(), "{bad}");
        }
        assert!(dead_letter("function:f").is_err());
    }
}
