//! `mayfly objects`: buckets and objects.

mod list;
mod transfer;

use crate::cli::Common;
use crate::error::CliError;
use crate::output::Output;
use crate::store_client::{Ask, StoreClient};
use clap::{Args, Subcommand};
use std::path::Path;

/// Port of the object store when nothing else is said.
const PORT: u16 = 8701;

/// Buckets and objects.
#[derive(Debug, Args)]
pub struct ObjectsArgs {
    /// Where the object store is [default: the host of --endpoint, port 8701]
    #[arg(long, global = true, value_name = "URL")]
    pub objects_endpoint: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: ObjectsCommand,
}

const EXAMPLES: &str = "\
Objects are named BUCKET/KEY.

Examples:
  mayfly objects buckets mb photos-1250000000
  mayfly objects put cat.jpg photos-1250000000/in/
  tar c src | mayfly objects put - photos-1250000000/src.tar
  mayfly objects get photos-1250000000/in/cat.jpg - | file -
  mayfly objects presign photos-1250000000/in/cat.jpg --expires 2h
";

/// What can be done with objects.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum ObjectsCommand {
    /// Buckets
    #[command(subcommand)]
    Buckets(BucketsCommand),
    /// List objects
    Ls(list::LsArgs),
    /// Put a file, or standard input
    Put(transfer::PutArgs),
    /// Get an object into a file, or to standard output
    Get(transfer::GetArgs),
    /// Copy an object within the store; its bytes are shared, not copied
    Cp {
        /// BUCKET/KEY
        from: String,
        /// BUCKET/KEY; one that ends in / gets the name of the source
        to: String,
        /// A version of the source instead of the current one
        #[arg(long, value_name = "ID")]
        version: Option<String>,
    },
    /// Remove objects
    Rm(list::RmArgs),
    /// Print a URL that opens an object to whoever has it
    Presign {
        /// BUCKET/KEY
        object: String,
        /// For how long: 90s, 15m, 2h, 7d
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: String,
        /// A URL to put the object with, not to get it
        #[arg(long)]
        put: bool,
    },
}

/// What can be done with buckets.
#[derive(Debug, Subcommand)]
pub enum BucketsCommand {
    /// List buckets
    Ls,
    /// Make a bucket
    Mb {
        /// Its name; for COS's SDKs it ends in the account number: photos-1250000000
        bucket: String,
        /// Keep what is replaced and deleted
        #[arg(long)]
        versions: bool,
    },
    /// Remove an empty bucket
    Rb {
        /// The bucket
        bucket: String,
    },
    /// Show whether a bucket keeps versions, or change it
    Versions {
        /// The bucket
        bucket: String,
        /// Keep what is replaced and deleted from now on, or make no more versions
        #[arg(value_parser = ["on", "off"])]
        state: Option<String>,
    },
}

/// `BUCKET/KEY`, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

impl Place {
    /// A bucket, and what is after the first `/`.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if bucket.is_empty() || !bucket.bytes().all(plain) {
            return Err(CliError::local(format!("`{text}` is not BUCKET/KEY"))
                .hint("objects are named as photos-1250000000/in/cat.jpg; files as ./cat.jpg"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The same, of one object.
    pub(crate) fn object(text: &str) -> Result<Self, CliError> {
        let place = Self::parse(text)?;
        if place.key.is_empty() {
            return Err(CliError::local(format!("`{text}` names no object"))
                .hint("name it as BUCKET/KEY; `mayfly objects ls BUCKET` shows what there is"));
        }
        Ok(place)
    }

    /// The same; where it ends in `/`, or is a bucket alone, with `name` at its end.
    pub(crate) fn target(text: &str, name: Option<&str>) -> Result<Self, CliError> {
        let mut place = Self::parse(text)?;
        if place.key.is_empty() || place.key.ends_with('/') {
            let name = name.ok_or_else(|| {
                CliError::local(format!("`{text}` names no object")).hint("standard input has no name: give BUCKET/KEY")
            })?;
            place.key.push_str(name);
        }
        Ok(place)
    }

    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.bucket, self.key)
    }
}

/// What a command works with.
pub(crate) struct Objects {
    pub(crate) client: StoreClient,
    pub(crate) out: Output,
}

/// Runs a command.
///
/// # Errors
/// Whatever went wrong.
pub fn run(args: ObjectsArgs, common: &Common, out: Output) -> Result<(), CliError> {
    let (endpoint, credentials) =
        super::beside(common, args.objects_endpoint.as_deref(), "MAYFLY_OBJECTS_ENDPOINT", PORT)?;
    let objects = Objects { client: StoreClient::new(endpoint, credentials), out };
    match args.command {
        ObjectsCommand::Buckets(command) => objects.buckets(command),
        ObjectsCommand::Ls(args) => objects.ls(&args),
        ObjectsCommand::Put(args) => objects.put(&args),
        ObjectsCommand::Get(args) => objects.get(&args),
        ObjectsCommand::Cp { from, to, version } => objects.cp(&from, &to, version.as_deref()),
        ObjectsCommand::Rm(args) => objects.rm(&args),
        ObjectsCommand::Presign { object, expires, put } => {
            let (place, seconds) = (Place::object(&object)?, span(&expires)?);
            let ask = Ask::new(if put { "PUT" } else { "GET" }, &place.bucket, &place.key);
            let url = objects.client.presigned(&ask, seconds);
            if out.is_json() {
                out.json(&serde_json::json!({ "Url": url }).to_string())
            } else {
                out.line(url)
            }
            Ok(())
        }
    }
}

/// Seconds in `90s`, `15m`, `2h`, `7d`.
fn span(text: &str) -> Result<u64, CliError> {
    let bad = || CliError::local(format!("`{text}` is not a time")).hint("write 90s, 15m, 2h or 7d; 7d is the most");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|s| (1..=7 * 86_400).contains(s)).ok_or_else(bad)
}

impl Objects {
    fn buckets(&self, command: BucketsCommand) -> Result<(), CliError> {
        let none = |ask: &Ask<'_>| self.client.send(ask, &mut std::io::empty(), 0).map(|_| ());
        match command {
            BucketsCommand::Ls => return self.list_buckets(),
            BucketsCommand::Mb { bucket, versions } => {
                let place = Place::parse(&bucket)?;
                none(&Ask::new("PUT", &place.bucket, ""))?;
                if versions {
                    self.set_versions(&place.bucket, true)?;
                }
                self.done("created", &place.bucket);
            }
            BucketsCommand::Rb { bucket } => {
                let place = Place::parse(&bucket)?;
                none(&Ask::new("DELETE", &place.bucket, ""))?;
                self.done("removed", &place.bucket);
            }
            BucketsCommand::Versions { bucket, state } => {
                let place = Place::parse(&bucket)?;
                if let Some(state) = state {
                    self.set_versions(&place.bucket, state == "on")?;
                }
                let ask = Ask::new("GET", &place.bucket, "").query(&[("versioning", "")]);
                let found = match self.client.document(&ask)?.text("Status").as_str() {
                    "Enabled" => "on",
                    "Suspended" => "suspended",
                    _ => "off",
                };
                match self.out.is_json() {
                    true => {
                        self.out.json(&serde_json::json!({ "Bucket": place.bucket, "Versions": found }).to_string())
                    }
                    false => self.out.line(found),
                }
            }
        }
        Ok(())
    }

    fn set_versions(&self, bucket: &str, on: bool) -> Result<(), CliError> {
        let status = if on { "Enabled" } else { "Suspended" };
        let body = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
        let ask = Ask::new("PUT", bucket, "").query(&[("versioning", "")]);
        self.client.send(&ask, &mut body.as_bytes(), body.len() as u64).map(|_| ())
    }

    /// Says what was done: a line for people, an object for programs.
    pub(crate) fn done(&self, what: &str, name: &str) {
        match self.out.is_json() {
            true => self.out.json(&serde_json::json!({ "Action": what, "Name": name }).to_string()),
            false => self.out.note(format!("{what} {name}")),
        }
    }
}

/// Where a file lands.
pub(crate) fn file_name(path: &std::path::Path) -> Option<&str> {
    path.file_name().and_then(|n| n.to_str())
}

/// Standard input or output, or a file.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_buckets_and_keys() {
        let place = |bucket: &str, key: &str| Place { bucket: bucket.into(), key: key.into() };
        assert_eq!(Place::parse("b-1/a/b").unwrap(), place("b-1", "a/b"));
        assert_eq!(Place::parse("b-1").unwrap(), place("b-1", ""));
        assert_eq!(Place::target("b-1/a/", Some("f")).unwrap(), place("b-1", "a/f"));
        assert_eq!(Place::target("b-1", Some("f")).unwrap(), place("b-1", "f"));
        assert_eq!(Place::target("b-1/k", Some("f")).unwrap(), place("b-1", "k"));
        for bad in ["", "/k", "./file", "B/k", "a b/k"] {
            let error = Place::parse(bad);
            assert!(bad == "./file" || error.is_err(), "{bad}");
        }
        assert!(Place::object("b-1/").is_err() && Place::target("b-1/", None).is_err());
    }

    #[test]
    fn times_have_a_unit_and_a_limit() {
        assert_eq!((span("90s").unwrap(), span("2h").unwrap(), span("7d").unwrap()), (90, 7200, 604_800));
        for bad in ["", "5", "h", "0s", "8d", "-1m", "1w", "99999999999999999999s"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
