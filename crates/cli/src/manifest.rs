//! `mayfly.yml`: what a function is, next to its code.

use crate::api::{LayerRef, Variable};
use crate::error::CliError;
use mayfly_model::limits;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// The file's name.
pub const FILE: &str = "mayfly.yml";
/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// Whether instances are forked from an initialised template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fork {
    /// Where that is sound.
    Auto,
    /// Never.
    Off,
}

impl Fork {
    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

/// Whether the platform installs the dependencies that a package names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Install {
    /// When it names some that are not in it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never: they are in the package, or in a layer.
    Never,
}

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FunctionType {
    /// It handles events.
    Event,
    /// It is a server that answers HTTP requests.
    Http,
}

impl FunctionType {
    /// As the file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Http => "http",
        }
    }
}

/// Who may call a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Anybody.
    None,
    /// Who signs with a key pair of the platform.
    Signed,
}

impl Auth {
    /// As the API says it.
    pub fn as_api(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Signed => "CAM",
        }
    }
}

/// What pages of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cors {
    /// Origins such as `https://example.com`; `*` means all.
    pub origins: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Request headers.
    pub headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// Whether cookies may come along.
    pub credentials: bool,
    /// How long browsers may remember the answer, in seconds.
    pub max_age: u64,
}

impl Default for Cors {
    fn default() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            origins: all(),
            methods: all(),
            headers: all(),
            expose_headers: Vec::new(),
            credentials: false,
            max_age: 0,
        }
    }
}

/// The URL of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UrlSettings {
    /// Who may call.
    pub auth: Option<Auth>,
    /// What pages of other origins may do; absent: the function's own affair.
    pub cors: Option<Cors>,
}

/// The file. Everything may be absent; what is absent keeps the value it has, or gets the platform's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Manifest {
    /// Name of the function.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Runtime name.
    pub runtime: Option<String>,
    /// `file.function`.
    pub handler: Option<String>,
    /// Event function or HTTP service.
    #[serde(rename = "type")]
    pub kind: Option<FunctionType>,
    /// Requests that an instance of a service takes at a time.
    pub concurrency: Option<u64>,
    /// Who may call its URL.
    pub url: Option<UrlSettings>,
    /// Memory in MB.
    pub memory: Option<u64>,
    /// Longest run, in seconds.
    pub timeout: Option<u64>,
    /// Longest initialisation, in seconds.
    pub init_timeout: Option<u64>,
    /// Environment variables: all there shall be.
    pub environment: Option<BTreeMap<String, String>>,
    /// Layers as `name:version`: all there shall be, in order.
    pub layers: Option<Vec<String>>,
    /// Where dead letters go: `queue:NAME`, `topic:NAME` or `none`.
    pub dead_letter: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Role whose temporary keys the code has; empty: none.
    pub role: Option<String>,
    /// Whether it may open connections to outside.
    pub public_net: Option<bool>,
    /// Whether instances are forked.
    pub fork: Option<Fork>,
    /// Whether dependencies are installed on the platform.
    pub install: Option<Install>,
    /// Publish a version after each deployment that changed something.
    pub publish: Option<bool>,
    /// Files to leave out, as in `.gitignore`.
    pub exclude: Vec<String>,
}

impl Manifest {
    /// Reads `mayfly.yml` of a folder. `None`: there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, CliError> {
        let path = dir.join(FILE);
        let mut text = String::new();
        let read = std::fs::File::open(&path).and_then(|f| f.take(BYTES_MAX + 1).read_to_string(&mut text));
        match read {
            Ok(_) if text.len() as u64 > BYTES_MAX => {
                Err(CliError::local(format!("{} is larger than 1 MiB", path.display())))
            }
            Ok(_) => Self::parse(&text).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if dir.join("mayfly.yaml").exists() {
                    let hint = format!("mv {0}/mayfly.yaml {0}/{FILE}", dir.display());
                    return Err(CliError::local("the settings are called mayfly.yml, not mayfly.yaml").hint(hint));
                }
                Ok(None)
            }
            Err(e) => Err(CliError::local(format!("cannot read {}: {e}", path.display()))),
        }
    }

    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        // A file with nothing but comments sets nothing.
        if text.lines().all(|l| matches!(l.trim_start().chars().next(), None | Some('#')) || l.trim() == "---") {
            return Ok(Self::default());
        }
        serde_saphyr::from_str::<Self>(text).map_err(|error| {
            let line = error.location().map(|l| l.line()).filter(|l| *l > 0);
            let source =
                line.and_then(|l| text.lines().nth(usize::try_from(l).ok()?.checked_sub(1)?)).unwrap_or_default();
            let source: String = source.trim().chars().take(80).collect();
            let place = line.map_or(String::new(), |l| format!(" line {l} (`{source}`)"));
            let why = error.without_snippet().to_string();
            // The text repeats the place at its end.
            let why = why.split(" at line ").next().unwrap_or_default();
            // That part is advice to programmers.
            let why = why.split(", set DuplicateKeyPolicy").next().unwrap_or_default().trim_end_matches([':', ',']);
            let why = why.replace("invalid u64", "not a whole number");
            CliError::local(format!("{FILE}{place}: {why}"))
                .hint(format!("`mayfly help deploy` lists the fields of {FILE}"))
        })
    }
}

/// Reads `name:version`.
pub fn layer(text: &str) -> Result<LayerRef, CliError> {
    let version = |v: &str| v.parse::<u64>().ok().filter(|n| *n > 0);
    match text.rsplit_once(':').map(|(name, v)| (name, version(v))) {
        Some((name, Some(layer_version))) if !name.is_empty() => {
            Ok(LayerRef { layer_name: name.to_owned(), layer_version })
        }
        _ => Err(CliError::local(format!("`{text}` is not a layer"))
            .hint("a layer looks like `name:1`; see `mayfly layers ls`")),
    }
}

/// Reads `NAME=value`.
pub fn variable(text: &str) -> Result<Variable, CliError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Variable { key: key.to_owned(), value: value.to_owned() }),
        _ => Err(CliError::local(format!("`{text}` is not a variable")).hint("a variable looks like NAME=value")),
    }
}

/// Checks a memory size, in MB, before anything is sent.
pub fn check_memory(mb: u64) -> Result<u64, CliError> {
    match u32::try_from(mb) {
        Ok(small) if limits::memory_mb_is_valid(small) => Ok(mb),
        _ => Err(CliError::local(format!("memory cannot be {mb} MB"))
            .hint(format!("it is 64, or 128 to {} in steps of 128", limits::MEMORY_MB_MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file() {
        let manifest = Manifest::parse(
            "name: words\nruntime: Python3\nhandler: index.main_handler\nmemory: 256\ntimeout: 10\ninitTimeout: 20\n\
             environment:\n  LEVEL: debug\n  PORT: 80\n  ON: true\nlayers: [\"nlp:3\"]\ndescription: counts\n\
             publicNet: false\nfork: off\npublish: true\nexclude: [\"*.md\"]\nnamespace: dev\n",
        )
        .unwrap();
        assert_eq!((manifest.memory, manifest.init_timeout, manifest.public_net), (Some(256), Some(20), Some(false)));
        assert_eq!((manifest.fork, manifest.publish), (Some(Fork::Off), Some(true)));
        let environment = manifest.environment.unwrap();
        assert_eq!((environment["PORT"].as_str(), environment["ON"].as_str()), ("80", "true"));
        assert_eq!(manifest.exclude, ["*.md"]);
        assert_eq!(Manifest::parse("# nothing\n---\n").unwrap(), Manifest::default());
        assert_eq!(Manifest::parse("").unwrap(), Manifest::default());
    }

    #[test]
    fn a_service_and_its_url() {
        let manifest = Manifest::parse(
            "type: http\nconcurrency: 20\nurl:\n  auth: signed\n  cors: {origins: [\"https://a.example\"], maxAge: 60}\n",
        )
        .unwrap();
        assert_eq!((manifest.kind, manifest.concurrency), (Some(FunctionType::Http), Some(20)));
        let url = manifest.url.unwrap();
        let cors = url.cors.unwrap();
        assert_eq!((url.auth, cors.max_age, cors.methods), (Some(Auth::Signed), 60, vec!["*".to_owned()]));
        assert_eq!(cors.origins, ["https://a.example"]);
        let url = Manifest::parse("url: {auth: none, cors: {}}\n").unwrap().url.unwrap();
        assert_eq!((url.auth, url.cors), (Some(Auth::None), Some(Cors::default())));
        for bad in ["type: web\n", "url: {auth: maybe}\n", "url: {cors: {origin: x}}\n", "url: {autth: none}\n"] {
            assert!(Manifest::parse(bad).unwrap_err().message.starts_with("mayfly.yml line 1"), "{bad}");
        }
    }

    #[test]
    fn errors_name_the_line_and_the_field() {
        for (text, line, part) in [
            ("name: a\nmemry: 256\n", 2, "memry"),
            ("name: a\n\nmemory: lots\n", 3, "lots"),
            ("name: a\nfork: maybe\n", 2, "maybe"),
            ("name: a\nname: b\n", 2, "name"),
            ("name: a\nenvironment: [1]\n", 2, ""),
        ] {
            let error = Manifest::parse(text).unwrap_err();
            assert!(error.message.starts_with(&format!("mayfly.yml line {line} (`")), "{error}");
            assert!(error.message.contains(part), "{error}");
            assert!(!error.message.contains('\n') && error.exit_code() == 1);
        }
        assert!(Manifest::parse("name: [").unwrap_err().message.starts_with("mayfly.yml"));
    }

    #[test]
    fn layers_and_variables() {
        assert_eq!(layer("a-b:12").unwrap(), LayerRef { layer_name: "a-b".into(), layer_version: 12 });
        for bad in ["a", "a:", ":1", "a:0", "a:x", "a:-1"] {
            assert!(layer(bad).is_err(), "{bad}");
        }
        assert_eq!(variable("A=b=c").unwrap(), Variable { key: "A".into(), value: "b=c".into() });
        assert_eq!(variable("A=").unwrap().value, "");
        assert!(variable("A").is_err() && variable("=b").is_err());
        assert!(check_memory(128).is_ok() && check_memory(100).is_err() && check_memory(1 << 40).is_err());
    }
}
