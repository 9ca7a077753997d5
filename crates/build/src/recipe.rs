//! What is run to install the dependencies of a package, and what the outcome depends on.

use crate::merge::Placement;
use crate::run::CONFIG_FILES;
use crate::{BuildError, Job, Options};
use mayfly_model::RuntimeId;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use zip::ZipArchive;

/// Changes when the same inputs give another result: older results are then not used any more.
const FORMAT: &str = "1";
/// Largest manifest or lock file, in bytes.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Follows every script: tells that it is done, under a name that only this install knows.
pub(crate) const END: &str = r#"printf '\n%s %d\n' "$0" "$?""#;

/// Variables of the platform's environment that installers get, without regard to case. A name that ends in `_` stands for all that begin so.
pub const PASSED: &[&str] = &[
    "PIP_",
    "NPM_CONFIG_",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GONOSUMCHECK",
    "GONOPROXY",
    "GOPRIVATE",
    "GOINSECURE",
    "GOFLAGS",
    "COMPOSER_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
];
/// Of those, the ones that name places of the host or would lead the result elsewhere.
const WITHHELD: &[&str] = &[
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_SRC",
    "PIP_CACHE_DIR",
    "PIP_LOG",
    "PIP_CONFIG_FILE",
    "PIP_REQUIREMENT",
    "PIP_PYTHON",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_BUILD",
    "PIP_QUIET",
    "PIP_DRY_RUN",
    "NPM_CONFIG_CACHE",
    "NPM_CONFIG_PREFIX",
    "NPM_CONFIG_USERCONFIG",
    "NPM_CONFIG_GLOBALCONFIG",
    "NPM_CONFIG_GLOBAL",
    "NPM_CONFIG_NODEDIR",
    "NPM_CONFIG_TMP",
    "NPM_CONFIG_LOGS_DIR",
    "NPM_CONFIG_LOCAL_PREFIX",
    "NPM_CONFIG_NPM_VERSION",
    "NPM_CONFIG_USER_AGENT",
    "NPM_CONFIG_DRY_RUN",
    "COMPOSER_HOME",
    "COMPOSER_CACHE_DIR",
    "COMPOSER_VENDOR_DIR",
    "COMPOSER_BIN_DIR",
    "COMPOSER",
];

/// The programs that install, and where they are looked for: sandboxes see the host's `/usr`.
const PYTHON: &[&str] = &["/usr/bin/python3", "/usr/local/bin/python3"];
const NPM: &[&str] = &["/usr/bin/npm", "/usr/local/bin/npm"];
const COMPOSER: &[&str] = &["/usr/bin/composer", "/usr/local/bin/composer"];
const GO: &[&str] = &["/usr/local/go/bin/go", "/usr/bin/go", "/usr/local/bin/go", "/usr/lib/go/bin/go"];

const PREPARE: &str =
    "set -e\numask 022\nmkdir -p /tmp/home /tmp/build /tmp/out /tmp/t\ncd /tmp/build\ncp -RP /var/user/. .\n";

/// What this machine has, as far as results depend on it. Looked at once: an interpreter that is replaced under a running platform
/// gives new results after the next start.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    tools: BTreeMap<&'static str, Tool>,
    environment: Vec<String>,
    /// The operator's configuration files, for the key.
    config: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Tool {
    path: String,
    /// Tells one build of it from another.
    stamp: String,
}

impl Tool {
    fn find(candidates: &[&str]) -> Option<Self> {
        let path = candidates.iter().find(|path| Path::new(path).exists())?;
        let real = std::fs::canonicalize(path).ok()?;
        let meta = std::fs::metadata(&real).ok()?;
        let stamp = format!("{} {} {:?}", real.display(), meta.len(), meta.modified().ok());
        Some(Self { path: (*path).to_owned(), stamp })
    }
}

impl Machine {
    /// Looks for the installers, and takes the settings that they are to have from `options`.
    pub fn look(options: &Options) -> Self {
        let all = [
            ("python", PYTHON),
            ("node", &["/usr/bin/node", "/usr/local/bin/node"]),
            ("npm", NPM),
            ("php", &["/usr/bin/php", "/usr/local/bin/php"]),
            ("composer", COMPOSER),
            ("go", GO),
        ];
        let tools = all.into_iter().filter_map(|(name, candidates)| Some((name, Tool::find(candidates)?))).collect();
        let mut environment: Vec<String> = options
            .environment
            .iter()
            .filter(|(name, value)| is_passed(name) && is_visible(value) && !value.contains('\0'))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut config = Vec::new();
        for name in CONFIG_FILES {
            let Some(bytes) = options.config.as_ref().and_then(|dir| std::fs::read(dir.join(name)).ok()) else {
                continue;
            };
            config.extend_from_slice(name.as_bytes());
            config.extend_from_slice(&Sha256::digest(&bytes));
            environment.push(match name {
                "pip.conf" => "PIP_CONFIG_FILE=/opt/pip.conf".to_owned(),
                "npmrc" => "NPM_CONFIG_USERCONFIG=/opt/npmrc".to_owned(),
                "go.env" => "GOENV=/opt/go.env".to_owned(),
                _ => format!("COMPOSER_AUTH={}", String::from_utf8_lossy(&bytes).replace(['\0', '\n'], " ")),
            });
        }
        environment.sort();
        Self { tools, environment, config }
    }

    fn tool(&self, name: &str, what: &str, package: &str) -> Result<&Tool, BuildError> {
        self.tools.get(name).ok_or_else(|| {
            BuildError::Failed(format!(
                "The package has a {what}, and the platform's machine has no `{name}` where sandboxes see it (/usr/bin, /usr/local/bin): \
                 install {package} there, or put the dependencies into the package and deploy with InstallDependency FALSE."
            ))
        })
    }
}

/// False for a path of the host that sandboxes do not see.
fn is_visible(value: &str) -> bool {
    const SEEN: [&str; 4] = ["/usr/", "/etc/ssl/certs", "/etc/ca-certificates", "/etc/pki/tls/certs"];
    !value.starts_with('/') || SEEN.iter().any(|seen| value.starts_with(seen))
}

fn is_passed(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let listed = PASSED.iter().any(|p| if p.ends_with('_') { upper.starts_with(p) } else { upper == *p });
    listed && !WITHHELD.contains(&upper.as_str())
}

/// The files in a package's root that tell the dependencies of a function of this family.
pub fn manifests(runtime: RuntimeId) -> &'static [&'static str] {
    match runtime {
        RuntimeId::Python => &["requirements.txt"],
        RuntimeId::Node => &["package.json"],
        RuntimeId::Php => &["composer.json"],
        RuntimeId::Go => &["go.mod"],
        RuntimeId::Custom => &["requirements.txt", "package.json", "composer.json", "go.mod"],
        RuntimeId::Java => &[],
    }
}

/// True when a package has a file in its root that names dependencies of this family.
pub fn names_dependencies(zip: &[u8], runtime: RuntimeId) -> bool {
    let archive = ZipArchive::new(Cursor::new(zip));
    archive.is_ok_and(|archive| manifests(runtime).iter().any(|name| archive.index_for_name(name).is_some()))
}

/// How to install the dependencies of one package.
#[derive(Debug)]
pub struct Recipe {
    /// The file that names them.
    pub manifest: &'static str,
    /// Under which the result is kept: everything that it depends on went into it.
    pub key: String,
    /// The shell script. It runs with the package at `/var/user`; `$1` is [`Self::argument`].
    pub script: String,
    /// See [`Self::script`].
    pub argument: String,
    /// Its environment, as `K=V`.
    pub environment: Vec<String>,
    /// The files of the package that the script sees; `None`: all.
    pub shown: Option<BTreeMap<String, Vec<u8>>>,
    /// Which directory below `/tmp` is the result.
    pub takes: Vec<&'static str>,
    /// Where in the package that goes.
    pub prefix: &'static str,
    /// How it goes with what is there.
    pub placement: Placement,
    /// What has to be fetched before; the script finds it at `/opt/fetched` and has no network then.
    pub needs: Option<Arc<Self>>,
}

impl Recipe {
    /// The recipe for a package; `None`: there is nothing to install. Blocks.
    ///
    /// # Errors
    /// [`BuildError::Failed`] when a manifest cannot be read, or what installs it is not on this machine.
    pub fn of(job: &Job, machine: &Machine) -> Result<Option<Self>, BuildError> {
        let mut package = Package::open(job)?;
        let Some(manifest) = manifests(job.runtime).iter().copied().find(|name| package.has(name)) else {
            return Ok(None);
        };
        let recipe = match manifest {
            "requirements.txt" => python(&mut package, machine)?,
            "package.json" => node(&mut package, machine)?,
            "composer.json" => php(machine)?,
            _ => go(&mut package, job, machine)?,
        };
        Ok(Some(recipe.finish(job, machine)))
    }

    fn finish(mut self, job: &Job, machine: &Machine) -> Self {
        let fixed = [
            "HOME=/tmp/home",
            "TMPDIR=/tmp/t",
            "LANG=C.UTF-8",
            "CI=true",
            "PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin",
        ];
        self.environment = machine.environment.clone();
        self.environment.extend(fixed.map(str::to_owned));
        let mut hash = Sha256::new();
        // Each part with its length, so that no two lists of parts look alike.
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(FORMAT.as_bytes());
        add(std::env::consts::ARCH.as_bytes());
        add(self.script.as_bytes());
        add(self.argument.as_bytes());
        machine.tools.values().for_each(|tool| add(tool.stamp.as_bytes()));
        self.environment.iter().for_each(|pair| add(pair.as_bytes()));
        add(&machine.config);
        match &self.shown {
            None => add(&job.digest.0),
            Some(files) => files.iter().for_each(|(name, bytes)| {
                add(name.as_bytes());
                add(bytes);
            }),
        }
        self.key = hex::encode(hash.finalize());
        self
    }
}

fn recipe(manifest: &'static str, body: &str) -> Recipe {
    Recipe {
        manifest,
        key: String::new(),
        script: format!("{PREPARE}{body}"),
        argument: String::new(),
        environment: Vec::new(),
        shown: None,
        takes: vec!["out"],
        prefix: "",
        placement: Placement::Beside,
        needs: None,
    }
}

fn python(package: &mut Package<'_>, machine: &Machine) -> Result<Recipe, BuildError> {
    let tool = machine.tool("python", "requirements.txt", "python3 with pip")?;
    let text = package.text("requirements.txt")?;
    let python = &tool.path;
    let body = format!(
        "{python} -m pip --version >/dev/null 2>&1 || {{ echo 'the platform has {python}, but not its pip: install it (python3-pip) or put the dependencies into the package'; exit 90; }}\n\
         {python} -m pip install --target /tmp/out --no-compile --no-cache-dir --disable-pip-version-check --no-input --progress-bar off --prefer-binary -r requirements.txt\n"
    );
    let mut recipe = recipe("requirements.txt", &body);
    if requirements_are_closed(&text) {
        recipe.shown = Some(BTreeMap::from([("requirements.txt".to_owned(), text.into_bytes())]));
    }
    Ok(recipe)
}

/// True when the requirements name nothing that lies in the package: no other file of requirements, no path.
fn requirements_are_closed(text: &str) -> bool {
    const OPTIONS: [&str; 12] = [
        "-i",
        "--index-url",
        "--extra-index-url",
        "--no-index",
        "--no-binary",
        "--only-binary",
        "--pre",
        "--prefer-binary",
        "--require-hashes",
        "--trusted-host",
        "--hash",
        "--use-feature",
    ];
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).all(|line| {
        let first = line.split([' ', '=']).next().unwrap_or_default();
        if line.starts_with('-') {
            return OPTIONS.contains(&first);
        }
        let line = line.split(" #").next().unwrap_or(line);
        let requirement = line.split(" --hash").next().unwrap_or(line);
        let named = requirement.split(';').next().unwrap_or(requirement).trim();
        // `name @ https://…` is elsewhere; a path, an archive or a file: URL may be here.
        match named.split_once('@') {
            Some((_, url)) => ["https://", "http://", "git+https://"].iter().any(|s| url.trim().starts_with(s)),
            None => {
                named.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && !named.contains(['/', '\\', ':', '$'])
                    && !is_archive(named)
            }
        }
    })
}

fn is_archive(name: &str) -> bool {
    [".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]
        .iter()
        .any(|ending| name.to_ascii_lowercase().ends_with(ending))
}

fn node(package: &mut Package<'_>, machine: &Machine) -> Result<Recipe, BuildError> {
    let npm = machine.tool("npm", "package.json", "Node.js with npm")?.path.clone();
    let mut files = BTreeMap::new();
    for name in ["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"] {
        if package.has(name) {
            files.insert(name.to_owned(), package.text(name)?.into_bytes());
        }
    }
    let locked = files.contains_key("package-lock.json") || files.contains_key("npm-shrinkwrap.json");
    let (verb, note) = match locked {
        true => ("ci", ""),
        false => ("install", "echo 'there is no package-lock.json: the newest versions that fit are installed'\n"),
    };
    let body = format!(
        "{note}{npm} {verb} --omit=dev --no-audit --no-fund --no-update-notifier --loglevel=http --cache=/tmp/npm\nrm -rf /tmp/out\n"
    );
    let mut recipe = recipe("package.json", &body);
    let parsed: Vec<Option<Value>> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".json"))
        .map(|(_, bytes)| serde_json::from_slice(bytes).ok())
        .collect();
    let Some(parsed) = parsed.into_iter().collect::<Option<Vec<Value>>>() else {
        return Err(BuildError::Failed(
            "package.json or its lock file is not valid JSON: correct it and deploy again.".into(),
        ));
    };
    if !package.has("binding.gyp") && parsed.iter().all(is_closed_node) {
        recipe.shown = Some(files);
        recipe.takes = vec!["build", "node_modules"];
        recipe.prefix = "node_modules";
        recipe.placement = Placement::Replacing("node_modules");
    } else {
        recipe.takes = vec!["build"];
        recipe.placement = Placement::Whole;
    }
    Ok(recipe)
}

/// True when a package.json or a lock file leads to nothing in the package: no scripts of its own that npm runs, no path.
fn is_closed_node(json: &Value) -> bool {
    const SCRIPTS: [&str; 7] =
        ["preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"];
    const LISTS: [&str; 4] = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    let path = |spec: &Value| {
        spec.as_str()
            .is_some_and(|s| s.starts_with(['.', '/', '~']) || s.starts_with("file:") || s.starts_with("link:"))
    };
    let lists_paths = |list: &str| json[list].as_object().is_some_and(|all| all.values().any(path));
    let locked = json["packages"].as_object();
    let links = locked.is_some_and(|all| all.values().any(|p| p["link"] == true || path(&p["resolved"])));
    !SCRIPTS.iter().any(|script| !json["scripts"][script].is_null())
        && json["workspaces"].is_null()
        && !LISTS.iter().any(|l| lists_paths(l))
        && !links
}

fn php(machine: &Machine) -> Result<Recipe, BuildError> {
    let php = machine.tool("php", "composer.json", "PHP")?.path.clone();
    let composer = machine.tool("composer", "composer.json", "Composer")?.path.clone();
    // Extensions are switched on by files of /etc/php, which sandboxes do not see: those that composer works with are named here, and what a
    // package requires may be there all the same.
    let body = format!(
        "dir=$({php} -n -r 'echo ini_get(\"extension_dir\");')\nwith=\n\
         for name in iconv mbstring phar tokenizer ctype curl zip posix fileinfo dom xml xmlwriter simplexml; do\n\
         if [ -e \"$dir/$name.so\" ]; then with=\"$with -d extension=$name\"; fi\ndone\n\
         export COMPOSER_HOME=/tmp/home/composer COMPOSER_CACHE_DIR=/tmp/home/cache COMPOSER_MIRROR_PATH_REPOS=1\n\
         {php} -n $with -d memory_limit=-1 {composer} install --no-dev --no-interaction --no-progress --prefer-dist --optimize-autoloader --ignore-platform-req='ext-*'\n"
    );
    let mut recipe = recipe("composer.json", &body);
    recipe.takes = vec!["build"];
    recipe.placement = Placement::Whole;
    Ok(recipe)
}

fn go(package: &mut Package<'_>, job: &Job, machine: &Machine) -> Result<Recipe, BuildError> {
    let go = machine.tool("go", "go.mod", "Go")?.path.clone();
    let fetch = modules(package, job, machine, &go)?;
    // Every module was checked against go.sum or the checksum database when it was fetched.
    let offline = "export GOPROXY=file:///opt/fetched GOSUMDB=off GOFLAGS=-modcacherw GONOPROXY= GOPRIVATE=\n";
    let body = format!(
        "{}export GOPATH=/tmp/home/go GOCACHE=/tmp/home/cache GOTOOLCHAIN=local CGO_ENABLED=0\n\
         mkdir -p \"$(dirname \"/tmp/out/$1\")\"\n{go} build -buildvcs=false -trimpath -ldflags='-s -w' -v -o \"/tmp/out/$1\" .\n",
        if fetch.is_some() { offline } else { "" }
    );
    let mut recipe = recipe("go.mod", &body);
    let own = (job.runtime == RuntimeId::Go && !job.handler.is_empty()).then(|| job.handler.clone());
    recipe.argument = own.unwrap_or_else(|| {
        if job.service {
            "main".into()
        } else if job.runtime == RuntimeId::Custom {
            "bootstrap".into()
        } else {
            "main".into()
        }
    });
    recipe.placement = Placement::Over;
    recipe.needs = fetch.map(Arc::new);
    Ok(recipe)
}

/// How to fetch the modules that go.sum names, apart from the code: other code with the same go.sum needs no network. `None`: there is no
/// go.sum, or the modules are in the package or depend on it.
fn modules(package: &mut Package<'_>, job: &Job, machine: &Machine, go: &str) -> Result<Option<Recipe>, BuildError> {
    if !package.has("go.sum") || package.has("vendor/modules.txt") || package.has("go.work") {
        return Ok(None);
    }
    let (module, sums) = (package.text("go.mod")?, package.text("go.sum")?);
    let local = |line: &str| line.split_once("=>").is_some_and(|(_, to)| to.trim_start().starts_with(['.', '/']));
    if module.lines().any(local) {
        return Ok(None);
    }
    let body = format!(
        "export GOPATH=/tmp/home/go GOTOOLCHAIN=local\n{go} mod download -x\n\
         mkdir -p /tmp/home/go/pkg/mod/cache/download\nrm -rf /tmp/out /tmp/home/go/pkg/mod/cache/download/sumdb\n\
         mv /tmp/home/go/pkg/mod/cache/download /tmp/out\n"
    );
    let mut recipe = recipe("go.sum", &body);
    recipe.shown =
        Some(BTreeMap::from([("go.mod".to_owned(), module.into_bytes()), ("go.sum".to_owned(), sums.into_bytes())]));
    Ok(Some(recipe.finish(job, machine)))
}

/// A package whose root is looked at.
struct Package<'a>(ZipArchive<Cursor<&'a [u8]>>);

impl<'a> Package<'a> {
    fn open(job: &'a Job) -> Result<Self, BuildError> {
        let archive = ZipArchive::new(Cursor::new(&job.zip[..]));
        archive.map(Self).map_err(|e| BuildError::internal("read a package that was accepted", &e))
    }

    fn has(&self, name: &str) -> bool {
        self.0.index_for_name(name).is_some()
    }

    fn text(&mut self, name: &str) -> Result<String, BuildError> {
        let unusable = |why: &str| BuildError::Failed(format!("`{name}` in the package {why}."));
        let file = self.0.by_name(name).map_err(|_| unusable("cannot be read"))?;
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|_| unusable("cannot be read"))?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(unusable("is larger than 16 MB"));
        }
        String::from_utf8(bytes).map_err(|_| unusable("is not UTF-8"))
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
