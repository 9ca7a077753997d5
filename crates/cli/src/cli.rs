//! The command line: what there is to say. What it does is in [`crate::commands`].

use crate::commands::{
    alias, apis, cert, demand, deploy, destinations, doctor, domain, failures, forecast, functions, invoke, layers,
    logs, namespaces, objects, queue, scale, simulate, trigger, up, url, versions, why,
};
use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  usage or local error
  2  the platform refused the call (API error)
  3  the function failed
  4  the platform cannot be reached

Environment:
  MAYFLY_ENDPOINT                                  as --endpoint
  MAYFLY_OBJECTS_ENDPOINT                          as --objects-endpoint
  MAYFLY_QUEUES_ENDPOINT                           as --queues-endpoint
  MAYFLY_DATA                                      as --data
  MAYFLY_SECRET_ID, MAYFLY_SECRET_KEY              credentials, before
  TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY  these, before credentials.json in the data directory
";

/// A serverless platform of your own that speaks the API of Tencent Cloud SCF.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, after_help = AFTER_HELP, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Where the platform is [default: http://127.0.0.1:8700]
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The platform's data directory (for `up`, and for its credentials.json) [default: /var/lib/mayfly for root, else ~/.local/share/mayfly]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Id of the key pair that signs
    #[arg(long, global = true, value_name = "ID")]
    pub secret_id: Option<String>,
    /// The key; others on this machine can see it in the list of processes, so prefer MAYFLY_SECRET_KEY
    #[arg(long, global = true, value_name = "KEY")]
    pub secret_key: Option<String>,
    /// How results are printed
    #[arg(long, short = 'o', global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
    /// Print results and errors only
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
}

/// The namespace that a command works in.
#[derive(Clone, Debug, Args)]
pub struct InNamespace {
    /// Namespace of the function
    #[arg(long, short = 'n', value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the platform on this machine
    Up(Box<up::UpArgs>),
    /// Say which guarantees hold on this machine, and how to get the missing ones
    Doctor(doctor::DoctorArgs),
    /// Create or update a function from a folder
    Deploy(deploy::DeployArgs),
    /// Run a function and print its result
    Invoke(invoke::InvokeArgs),
    /// Show what functions printed
    Logs(logs::LogsArgs),
    /// Say why a call took as long as it did
    Why(why::WhyArgs),
    /// List functions
    Ls(functions::LsArgs),
    /// Show a function
    Get(functions::GetArgs),
    /// Show a function's URL, or change who may call it
    Url(url::UrlArgs),
    /// What hands events to functions: timers, buckets, topics
    Trigger(trigger::TriggerArgs),
    /// Buckets and objects
    Objects(objects::ObjectsArgs),
    /// Message queues
    Queue(queue::QueueArgs),
    /// Topics: messages for many
    Topic(queue::TopicArgs),
    /// APIs of the gateway: routes, keys, tokens, limits, WebSockets
    Api(apis::ApiArgs),
    /// Hosts of your own that lead to functions
    Domain(domain::DomainArgs),
    /// Certificates for domains
    Cert(cert::CertArgs),
    /// Show or change a function's environment variables
    Env(functions::EnvArgs),
    /// Delete a function, or one version of it
    Rm(functions::RmArgs),
    /// List the versions of a function
    Versions(versions::VersionsArgs),
    /// Publish $LATEST as a version that never changes
    Publish(versions::PublishArgs),
    /// Send requests back to the previous published version
    Rollback(versions::RollbackArgs),
    /// Names for versions, and how requests are split between them
    Alias(alias::AliasArgs),
    /// Show or set how many instances a function has at least and at most
    Scale(scale::ScaleArgs),
    /// What failed, with its scene, and running it again
    Failures(failures::FailuresArgs),
    /// Show or set who hears of the ends of a function's asynchronous events
    Destinations(destinations::DestinationsArgs),
    /// Say what is foreseen of functions, and what each mode of pre-creation cost or would have cost
    Forecast(forecast::ForecastArgs),
    /// The history of demand
    Demand(demand::DemandArgs),
    /// Namespaces
    Namespaces(namespaces::NamespacesArgs),
    /// Layers: content shared by functions, at /opt
    Layers(layers::LayersArgs),
    /// Say what scaling policies would have cost on a trace of demand
    Simulate(simulate::SimulateArgs),
    /// Run as the process that makes sandboxes; started by `up`
    #[command(hide = true)]
    Spawner,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_may_stand_anywhere() {
        for line in [
            "mayfly --endpoint http://x:1 -o json ls --all",
            "mayfly ls --all -o json --endpoint http://x:1",
            "mayfly alias ls f -n dev -q",
            "mayfly deploy . --env A=b --env C=d --layer l:1 --memory 256 --fork off",
            "mayfly invoke f -d {} --log --qualifier $LATEST",
            "mayfly logs f -f --since 10m --errors --grep x",
            "mayfly rollback f --to 3",
            "mayfly trigger timer f nightly --cron 0,0,0,*,*,*,* --message m --time-zone UTC --qualifier prod",
            "mayfly trigger bucket f b-125 --event created --prefix in/ --suffix .png",
            "mayfly trigger topic f t --tag a --tag b",
            "mayfly trigger kafka f main orders --batch 5 --wait 1 --from earliest --retries 3 --group g",
            "mayfly api add /users/{id} users@prod --method GET --service shop --auth key",
            "mayfly api socket /ws --transport t --register r --cleanup c",
            "mayfly api issuer /login login --keys jwks.json",
            "mayfly api plan add gold --per-second 10 --service shop --key AKID",
            "mayfly api limit shop --per-second 100",
            "mayfly trigger api f --method GET --path /x --service shop --key",
            "mayfly failures ls -F f --since 1h --open",
            "mayfly failures replay --all --to 3 --rate 10 --wait",
            "mayfly failures replay 1 2 --dry-run",
            "mayfly failures keep f --capture on --retention 24",
            "mayfly destinations f --on-success function:g --dead-letter none",
            "mayfly objects buckets mb b-125 --versions",
            "mayfly objects put - b-125/k --meta a=b --objects-endpoint http://x:1 -q",
            "mayfly objects rm -r b-125/in/ --versions -y",
            "mayfly objects presign b-125/k --expires 2h --put",
            "mayfly queue create q --visibility 60 --dead-letter d --receives 5",
            "mayfly queue send q -f -",
            "mayfly queue receive q --max 16 --wait 20 --delete -o json",
            "mayfly topic publish t text --tag a --tag b",
            "mayfly topic subscribe t s --queue q --tag a",
            "mayfly up --data /x --listen 127.0.0.1:0 --network-allow 10.0.0.0/8,192.168.0.0/16",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in ["mayfly", "mayfly deploy", "mayfly invoke f -d 1 -f x", "mayfly rm", "mayfly alias set f a"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
