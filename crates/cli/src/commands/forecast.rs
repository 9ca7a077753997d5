//! `mayfly forecast`: what is foreseen, how good that was, and what other modes would have cost.

use super::{Context, pages, raw_items};
use crate::api::{Forecast, GetForecast};
use crate::error::CliError;
use clap::Args;
use serde_json::json;

/// Say what is foreseen of functions, and what each mode of pre-creation cost or would have cost over the demand that is known.
///
/// A row for each version and mode; the mode in force is marked with *. COLD are instances that were needed and not warm; IDLE is
/// memory-time that was held for nothing.
#[derive(Debug, Args)]
pub struct ForecastArgs {
    /// The function; without it, all functions
    pub name: Option<String>,
    /// Namespace of the function [default: default; without a function: all]
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// Runs the command.
pub fn run(args: &ForecastArgs, context: &Context) -> Result<(), CliError> {
    let mut raw = Vec::new();
    let all: Vec<Forecast> = pages(|offset, limit| {
        let request =
            GetForecast { function_name: args.name.clone(), namespace: args.namespace.clone(), offset, limit };
        let answer = context.client.call(&request)?;
        raw.extend(raw_items(&answer, "Forecasts")?);
        Ok((answer.body.forecasts, answer.body.total_count))
    })?;
    if context.out.is_json() {
        context.out.json(&json!({"Forecasts": raw, "TotalCount": raw.len()}).to_string());
        return Ok(());
    }
    if all.is_empty() {
        context.out.note("nothing is known yet: demand is looked at once a minute");
        return Ok(());
    }
    let header = ["FUNCTION", "VERSION", "WATCHED", "WARM", "MODE", "COLD", "WARM HITS", "IDLE GB·s", "USED GB·s"];
    context.out.table(&header, all.iter().flat_map(rows).collect());
    Ok(())
}

fn rows(forecast: &Forecast) -> Vec<Vec<String>> {
    let rows = forecast.costs.iter().enumerate().map(|(at, cost)| {
        let first = |text: String| if at == 0 { text } else { String::new() };
        let in_force = if cost.mode == forecast.mode { "*" } else { "" };
        vec![
            first(format!("{}/{}", forecast.namespace, forecast.function_name)),
            first(forecast.version.clone()),
            first(watched(forecast.minutes)),
            first(forecast.warm_target.map_or_else(|| "-".to_owned(), |warm| warm.to_string())),
            format!("{}{in_force}", cost.mode),
            cost.misses.to_string(),
            cost.hits.to_string(),
            format!("{:.1}", cost.idle_gb_seconds),
            format!("{:.1}", cost.used_gb_seconds),
        ]
    });
    rows.collect()
}

/// Minutes for people.
fn watched(minutes: u64) -> String {
    match minutes {
        0..120 => format!("{minutes}m"),
        120..2880 => format!("{}h", minutes / 60),
        _ => format!("{}d", minutes / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ForecastCost;

    #[test]
    fn the_mode_in_force_is_marked() {
        let cost = |mode: &str, misses| ForecastCost { mode: mode.into(), misses, hits: 2, ..ForecastCost::default() };
        let forecast = Forecast {
            namespace: "default".into(),
            function_name: "f".into(),
            version: "1".into(),
            mode: "eager".into(),
            warm_target: Some(1),
            minutes: 180,
            costs: vec![cost("off", 5), cost("eager", 1)],
            ..Forecast::default()
        };
        let rows = rows(&forecast);
        assert_eq!(rows[0][..6], ["default/f", "1", "3h", "1", "off", "5"]);
        assert_eq!(rows[1][..6], ["", "", "", "", "eager*", "1"]);
        assert_eq!((watched(5), watched(10_000)), ("5m".into(), "6d".into()));
    }
}
