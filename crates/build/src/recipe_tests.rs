use super::*;
use bytes::Bytes;
use mayfly_store::blobs::digest_of;
use std::io::Write;

fn machine() -> Machine {
    let tool = |path: &str| Tool { path: path.into(), stamp: path.into() };
    let tools =
        ["python", "npm", "php", "composer", "go"].into_iter().map(|name| (name, tool(&format!("/usr/bin/{name}"))));
    Machine { tools: tools.collect(), environment: vec!["PIP_INDEX_URL=x".into()], config: Vec::new() }
}

fn job(runtime: RuntimeId, files: &[(&str, &str)]) -> Job {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    let zip = Bytes::from(zip.finish().unwrap().into_inner());
    Job { digest: digest_of(&zip), zip, runtime, handler: "main".into(), service: false }
}

fn of(runtime: RuntimeId, files: &[(&str, &str)]) -> Recipe {
    Recipe::of(&job(runtime, files), &machine()).unwrap().unwrap()
}

#[test]
fn keys_follow_what_the_result_depends_on_and_nothing_else() {
    let python = |code: &str, requirements: &str| {
        of(RuntimeId::Python, &[("index.py", code), ("requirements.txt", requirements)]).key
    };
    assert_eq!(python("a", "six==1.16.0\n"), python("b", "six==1.16.0\n"));
    assert_ne!(python("a", "six==1.16.0\n"), python("a", "six==1.17.0\n"));
    // With a path in it, the whole package counts.
    assert_ne!(python("a", "./lib\n"), python("b", "./lib\n"));
    let node = |code: &str, lock: &str| {
        of(RuntimeId::Node, &[("index.js", code), ("package.json", "{}"), ("package-lock.json", lock)])
    };
    assert_eq!(node("a", "{}").key, node("b", "{}").key);
    assert_ne!(node("a", "{}").key, node("a", "{ }").key);
    assert!(
        node("a", "{}").script.contains(" ci ") && node("a", "{}").placement == Placement::Replacing("node_modules")
    );
    let mut other = machine();
    other.environment[0] = "PIP_INDEX_URL=y".into();
    let files = [("requirements.txt", "six\n")];
    let keys = [machine(), other].map(|m| Recipe::of(&job(RuntimeId::Python, &files), &m).unwrap().unwrap().key);
    assert_ne!(keys[0], keys[1]);
    let go = |code: &str| of(RuntimeId::Go, &[("main.go", code), ("go.mod", "module x")]);
    assert_ne!(go("a").key, go("b").key);
    assert_eq!(go("a").argument, "main");
    // What is fetched depends on go.sum alone.
    let fetched = |code: &str, module: &str| {
        of(RuntimeId::Go, &[("main.go", code), ("go.mod", module), ("go.sum", "x")])
            .needs
            .map(|needs| needs.key.clone())
    };
    assert!(fetched("a", "module x").is_some() && fetched("a", "module x") == fetched("b", "module x"));
    assert_eq!(fetched("a", "module x\nreplace a/b => ../b"), None);
}

#[test]
fn requirements_that_reach_into_the_package_are_seen() {
    let closed = "# c\nsix\nrequests[socks]>=2.31,<3 ; python_version > '3.8'  # why\nx @ https://example.com/x-1.whl\n--index-url https://example.com/simple\nY==1 \\\n  --hash=sha256:ab\n";
    assert!(requirements_are_closed(closed));
    for open in [
        "-r more.txt",
        "-c c.txt",
        "-e .",
        ".",
        "./lib",
        "lib/x.whl",
        "x.whl",
        "x @ file:///var/user/x",
        "--find-links here",
        "file:x",
        "${HOME}/x",
    ] {
        assert!(!requirements_are_closed(&format!("six\n{open}\n")), "{open}");
    }
}

#[test]
fn node_manifests_that_need_the_package_are_seen() {
    let closed = |text: &str| is_closed_node(&serde_json::from_str(text).unwrap());
    assert!(closed(
        r#"{"scripts": {"test": "x", "build": "tsc"}, "dependencies": {"ms": "^2.1.3", "a": "github:x/y"}}"#
    ));
    assert!(closed(
        r#"{"lockfileVersion": 3, "packages": {"": {"dependencies": {"ms": "2"}}, "node_modules/ms": {"resolved": "https://example.com/ms.tgz", "hasInstallScript": true}}}"#
    ));
    for open in [
        r#"{"scripts": {"postinstall": "x"}}"#,
        r#"{"workspaces": ["a"]}"#,
        r#"{"dependencies": {"a": "file:lib"}}"#,
        r#"{"devDependencies": {"a": "./lib"}}"#,
        r#"{"packages": {"node_modules/a": {"resolved": "lib", "link": true}}}"#,
    ] {
        assert!(!closed(open), "{open}");
    }
    let whole = of(RuntimeId::Node, &[("package.json", r#"{"scripts": {"prepare": "tsc"}}"#)]);
    assert!(whole.shown.is_none() && whole.placement == Placement::Whole && whole.script.contains(" install "));
}

#[test]
fn what_cannot_be_installed_is_said() {
    assert!(Recipe::of(&job(RuntimeId::Python, &[("index.py", "")]), &machine()).unwrap().is_none());
    assert!(Recipe::of(&job(RuntimeId::Java, &[("package.json", "{}")]), &machine()).unwrap().is_none());
    let files = [("composer.json", "{}")];
    let error = Recipe::of(&job(RuntimeId::Php, &files), &Machine::default()).unwrap_err().to_string();
    assert!(error.contains("composer.json") && error.contains("InstallDependency"), "{error}");
    let error = Recipe::of(&job(RuntimeId::Node, &[("package.json", "{")]), &machine()).unwrap_err().to_string();
    assert!(error.contains("JSON"), "{error}");
    assert_eq!(of(RuntimeId::Custom, &[("go.mod", "module x")]).argument, "bootstrap");
}

#[test]
fn settings_pass_and_the_rest_of_the_environment_does_not() {
    for passed in [
        "PIP_INDEX_URL",
        "npm_config_registry",
        "NPM_CONFIG_REGISTRY",
        "GOPROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
    ] {
        assert!(is_passed(passed), "{passed}");
    }
    assert!(is_visible("https://example.com") && is_visible("/etc/ssl/certs/ca.crt") && !is_visible("/opt/wheels"));
    for withheld in [
        "PATH",
        "HOME",
        "MAYFLY_SECRET_KEY",
        "PIP_TARGET",
        "npm_config_prefix",
        "AWS_SECRET_ACCESS_KEY",
        "GOPATH",
        "LD_PRELOAD",
    ] {
        assert!(!is_passed(withheld), "{withheld}");
    }
}
