//! `mayfly up`: the platform itself.

use crate::cli::Common;
use crate::error::CliError;
use crate::settings::data_default_here;
use clap::Args;
use mayfly_base::{Cidr, Forecast, Kafka, Listen, LogFormat, PlatformOptions, PlatformOverlay, telemetry};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Start the platform: API, gateway and node in one process tree. Runs until SIGTERM or SIGINT, then lets running calls finish.
///
/// Each option may also stand in the configuration file (`keep_alive_s = 300`) and in the environment
/// (MAYFLY_KEEP_ALIVE_S=300); a flag wins over the environment, the environment over the file.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// TOML file with the names of these options, `_` for `-`; unknown names are errors
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address that the API listens on [default: 127.0.0.1:8700]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Address to listen on for TLS too, with the same API and URLs (HTTP/1.1 and HTTP/2)
    #[arg(long, value_name = "ADDR")]
    pub tls_listen: Option<SocketAddr>,
    /// Address that the object store listens on, for the COS XML API and S3, or off [default: 127.0.0.1:8701]
    #[arg(long, value_name = "ADDR")]
    pub objects_listen: Option<Listen>,
    /// Certificate chain for the platform's own names, in PEM; read again when it changes. Custom domains bring their own
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, in PEM, not encrypted
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Functions also have URLs by host, http://<function>.<namespace>.<domain>/ [default: fn.localhost]
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Services of the API gateway have addresses by host, http://<service>.<domain>/<environment>/ [default: apigw.localhost]
    #[arg(long, value_name = "DOMAIN")]
    pub apigw_domain: Option<String>,
    /// Seconds without traffic after which a WebSocket of the API gateway is closed [default: 900]
    #[arg(long, value_name = "SECONDS")]
    pub apigw_idle_s: Option<u64>,
    /// WebSockets that the API gateway holds at once [default: 10000]
    #[arg(long, value_name = "NUMBER")]
    pub apigw_connections: Option<usize>,
    /// Level of the platform's own log lines: error, warn, info, debug, trace, off, or directives [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Form of the platform's own log lines: plain or json [default: plain]
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<LogFormat>,
    /// Memory that all instances together may be promised, in MB [default: 128000]
    #[arg(long, value_name = "MB")]
    pub memory_ceiling_mb: Option<u64>,
    /// What instances of one namespace may hold of that together, in MB [default: as much as there is]
    #[arg(long, value_name = "MB")]
    pub namespace_ceiling_mb: Option<u64>,
    /// How long an instance without calls is kept, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub keep_alive_s: Option<u64>,
    /// Whether instances are made and kept ahead of demand: off, conservative or eager [default: off]
    #[arg(long, value_name = "MODE")]
    pub forecast: Option<Forecast>,
    /// Versions that have an instance initialised and parked from their deployment on [default: 0]
    #[arg(long, value_name = "N")]
    pub park: Option<usize>,
    /// Region that the platform says it is [default: ap-guangzhou]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Account number (APPID) that functions and clients see
    #[arg(long, value_name = "NUMBER")]
    pub app_id: Option<u64>,
    /// Account id (UIN) that functions and clients see
    #[arg(long, value_name = "NUMBER")]
    pub uin: Option<u64>,
    /// Addresses that instances get theirs from [default: 10.213.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub network: Option<Cidr>,
    /// Private ranges that functions may reach all the same, with commas between
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    pub network_allow: Option<Vec<Cidr>>,
    /// Python instances kept ready for functions that have none yet [default: 4]
    #[arg(long, value_name = "N")]
    pub precreate_python: Option<usize>,
    /// Node.js instances kept ready for functions that have none yet [default: 2]
    #[arg(long, value_name = "N")]
    pub precreate_node: Option<usize>,
    /// PHP processes kept ready, once a PHP function has run [default: 1]
    #[arg(long, value_name = "N")]
    pub precreate_php: Option<usize>,
    /// Sandboxes kept ready for Java, once a Java function has run [default: 1]
    #[arg(long, value_name = "N")]
    pub precreate_java: Option<usize>,
    /// Most functions in one namespace [default: 10000]
    #[arg(long, value_name = "N")]
    pub functions_per_namespace: Option<usize>,
    /// How long logs of functions are kept, in hours [default: 168]
    #[arg(long, value_name = "HOURS")]
    pub log_retention_hours: Option<u64>,
    /// Where asynchronous events are kept: nats://host:port[/STREAM] [default: a file in the data directory]
    #[arg(long, value_name = "URL")]
    pub events: Option<String>,
    /// File with credentials for that NATS server (.creds)
    #[arg(long, value_name = "FILE")]
    pub events_credentials: Option<PathBuf>,
    /// Most asynchronous events that are pending [default: 100000]
    #[arg(long, value_name = "N")]
    pub events_max: Option<u64>,
    /// Most space that pending asynchronous events take, in MB [default: 1024]
    #[arg(long, value_name = "MB")]
    pub events_mb: Option<u64>,
    /// Largest asynchronous event, in bytes [default: 131072]
    #[arg(long, value_name = "BYTES")]
    pub event_bytes_max: Option<usize>,
    /// Invocations that may call each other in a row; the next is not run; 0: any number [default: 16]
    #[arg(long, value_name = "COUNT")]
    pub call_depth_max: Option<u32>,
    /// What kept failures may take, in MB; beyond it the oldest go [default: 1024]
    #[arg(long, value_name = "MB")]
    pub failure_disk_mb: Option<u64>,
    /// Most calls of one function that wait for an instance [default: 1000]
    #[arg(long, value_name = "N")]
    pub waiting_room: Option<usize>,
    /// How long a call waits for an instance, in seconds [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub waiting_s: Option<u64>,
    /// How long calls may go on after the platform was told to stop, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub drain_s: Option<u64>,
    /// How long streams and WebSockets on a service's old version may go on after an update, in seconds [default: 900]
    #[arg(long, value_name = "SECONDS")]
    pub streams_after_update_s: Option<u64>,
    /// Installs of dependencies at a time; 0: none are installed on the platform [default: 2]
    #[arg(long, value_name = "N")]
    pub install_concurrency: Option<usize>,
    /// Memory of what runs in an install, in MB [default: 1024]
    #[arg(long, value_name = "MB")]
    pub install_memory_mb: Option<u64>,
    /// What an install may write, in MB; held in memory besides [default: 2048]
    #[arg(long, value_name = "MB")]
    pub install_disk_mb: Option<u64>,
    /// Longest install, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub install_time_s: Option<u64>,
    /// What the cache of installed dependencies may hold, in MB [default: 4096]
    #[arg(long, value_name = "MB")]
    pub install_cache_mb: Option<u64>,
    /// Directory with pip.conf, npmrc, go.env and composer-auth.json for the installers
    #[arg(long, value_name = "DIR")]
    pub install_config: Option<PathBuf>,
    /// Private ranges that installs may reach and functions may not, with commas between
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    pub install_allow: Option<Vec<Cidr>>,
    /// Address that the message queues listen on, or off [default: 127.0.0.1:8702]
    #[arg(long, value_name = "ADDR")]
    pub queues_listen: Option<Listen>,
    /// Ranges that are not public and that topics may push messages to, with commas between
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    pub queues_push_allow: Option<Vec<Cidr>>,
    /// Kafka clusters that triggers may listen to; with a login or TLS they stand in the configuration file
    #[arg(long, value_name = "NAME=HOST:PORT,…;…")]
    pub kafka: Option<Kafka>,
}

impl UpArgs {
    fn overlay(self, data: Option<PathBuf>) -> PlatformOverlay {
        PlatformOverlay {
            data,
            listen: self.listen,
            tls_listen: self.tls_listen.map(Some),
            objects_listen: self.objects_listen,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            domain: self.domain,
            apigw_domain: self.apigw_domain,
            apigw_idle_s: self.apigw_idle_s,
            apigw_connections: self.apigw_connections,
            log_level: self.log_level,
            log_format: self.log_format,
            memory_ceiling_mb: self.memory_ceiling_mb,
            namespace_ceiling_mb: self.namespace_ceiling_mb,
            keep_alive_s: self.keep_alive_s,
            forecast: self.forecast,
            park: self.park,
            region: self.region,
            app_id: self.app_id,
            uin: self.uin,
            network: self.network,
            network_allow: self.network_allow,
            precreate_python: self.precreate_python,
            precreate_node: self.precreate_node,
            precreate_php: self.precreate_php,
            precreate_java: self.precreate_java,
            functions_per_namespace: self.functions_per_namespace,
            log_retention_hours: self.log_retention_hours,
            events: self.events,
            events_credentials: self.events_credentials,
            events_max: self.events_max,
            events_mb: self.events_mb,
            event_bytes_max: self.event_bytes_max,
            call_depth_max: self.call_depth_max,
            failure_disk_mb: self.failure_disk_mb,
            waiting_room: self.waiting_room,
            waiting_s: self.waiting_s,
            drain_s: self.drain_s,
            streams_after_update_s: self.streams_after_update_s,
            install_concurrency: self.install_concurrency,
            install_memory_mb: self.install_memory_mb,
            install_disk_mb: self.install_disk_mb,
            install_time_s: self.install_time_s,
            install_cache_mb: self.install_cache_mb,
            install_config: self.install_config,
            install_allow: self.install_allow,
            queues_listen: self.queues_listen,
            queues_push_allow: self.queues_push_allow,
            kafka: self.kafka,
        }
    }
}

/// The options of all sources: flags over environment over file over defaults.
fn options(
    args: UpArgs,
    data: Option<PathBuf>,
    environment: &dyn Fn(&str) -> Option<String>,
    data_default: PathBuf,
) -> Result<PlatformOptions, CliError> {
    let bad = |e: mayfly_base::ConfigError| {
        CliError::local(e.to_string()).hint("`mayfly help up` lists the options and what they mean")
    };
    let file = args.config.as_deref().map(PlatformOverlay::from_file).transpose().map_err(bad)?.unwrap_or_default();
    let environment = PlatformOverlay::from_env(environment).map_err(bad)?;
    let defaults = PlatformOptions { data: data_default, ..Default::default() };
    let options = defaults.with(file).with(environment).with(args.overlay(data));
    options.validate().map_err(bad)?;
    Ok(options)
}

/// Runs the platform until it is told to stop.
pub fn run(args: UpArgs, common: &Common) -> Result<(), CliError> {
    let client_flags = [("--endpoint", common.endpoint.is_some()), ("--secret-id", common.secret_id.is_some())];
    if let Some((flag, _)) = client_flags.iter().find(|(_, given)| *given) {
        return Err(CliError::local(format!("`up` takes no {flag}")).hint(
            "it listens at --listen; to choose the key pair, set MAYFLY_SECRET_ID and MAYFLY_SECRET_KEY at its first start",
        ));
    }
    let options = options(args, common.data.clone(), &|name| std::env::var(name).ok(), data_default_here())?;
    telemetry::init(&options.log_level, options.log_format).map_err(|e| CliError::local(e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::local(format!("cannot start threads: {e}")))?;
    // `{:#}` shows the causes too.
    runtime
        .block_on(mayfly_server::run(options))
        .map_err(|e| CliError::local(format!("{e:#}")).hint("`mayfly doctor` says what this machine lacks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::{CommandFactory, Parser};

    fn args(line: &str) -> (UpArgs, Common) {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Up(args) = cli.command else { panic!("not up") };
        (*args, cli.common)
    }

    #[test]
    fn every_option_of_the_platform_is_a_flag() {
        let command = Cli::command();
        let up = command.find_subcommand("up").unwrap();
        let flags: Vec<String> =
            up.get_arguments().chain(command.get_arguments()).filter_map(|a| a.get_long()).map(Into::into).collect();
        for name in PlatformOptions::NAMES {
            assert!(flags.contains(&name.replace('_', "-")), "--{name} is missing");
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "keep_alive_s = 1\nwaiting_s = 2\ndrain_s = 3\n").unwrap();
        let (up, common) = args(&format!("mayfly up --keep-alive-s 10 --config {}", file.display()));
        let env = |n: &str| match n {
            "MAYFLY_KEEP_ALIVE_S" | "MAYFLY_WAITING_S" => Some("20".to_owned()),
            _ => None,
        };
        let found = options(up, common.data, &env, "/default".into()).unwrap();
        assert_eq!((found.keep_alive_s, found.waiting_s, found.drain_s), (10, 20, 3));
        assert_eq!(found.data, PathBuf::from("/default"));
        let (up, common) = args("mayfly --data /d up");
        assert_eq!(options(up, common.data, &|_| None, "/default".into()).unwrap().data, PathBuf::from("/d"));
        std::fs::write(&file, "keep_alive = 1\n").unwrap();
        let (up, common) = args(&format!("mayfly up --config {}", file.display()));
        let error = options(up, common.data, &|_| None, "/default".into()).unwrap_err();
        assert!(error.message.contains("keep_alive_s"), "{error}");
    }
}
