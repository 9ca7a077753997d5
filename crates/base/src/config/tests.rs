use std::collections::HashMap;
use std::io::Write;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str) -> Result<PlatformOptions, ConfigError> {
    PlatformOptions::load(Some(file(text).path()))
}

fn says(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

#[test]
fn defaults_are_valid_and_documented_as_they_are() {
    let options = PlatformOptions::load(None).unwrap();
    assert_eq!(options, PlatformOptions::default());
    assert_eq!(options.listen.to_string(), "127.0.0.1:8700");
    assert_eq!(options.network.to_string(), "10.213.0.0/16");
    assert_eq!(load("").unwrap(), options);
}

#[test]
fn every_option_can_stand_in_a_file() {
    let options = load(
        r#"
        data = "/srv/mayfly"
        listen = "0.0.0.0:80"
        objects_listen = "127.0.0.1:81"
        log_level = "debug,hyper=warn"
        log_format = "json"
        memory_ceiling_mb = 2048
        keep_alive_s = 60
        region = "eu-frankfurt"
        app_id = 1
        uin = 2
        network = "172.20.0.0/16"
        network_allow = ["10.0.0.0/8", "fd00::/8"]
        precreate_python = 0
        precreate_node = 1
        functions_per_namespace = 5
        log_retention_hours = 1
        waiting_room = 0
        waiting_s = 1
        drain_s = 0
        streams_after_update_s = 0
        "#,
    )
    .unwrap();
    assert_eq!(options.listen.port(), 80);
    assert_eq!(options.network_allow.len(), 2);
    // What is written out is read in as the same, under the same names.
    // An option without a default is written when it is set.
    let options = PlatformOptions { tls_listen: Some(([127, 0, 0, 1], 8743).into()), ..options };
    let text = toml::to_string(&options).unwrap();
    assert_eq!(load(&text).unwrap(), options);
    let table: toml::Table = text.parse().unwrap();
    let mut names: Vec<_> = PlatformOptions::NAMES.to_vec();
    names.sort_unstable();
    let mut written: Vec<_> = table.keys().map(String::as_str).collect();
    written.sort_unstable();
    assert_eq!(written, names);
}

#[test]
fn unknown_keys_are_errors_with_a_hint() {
    assert_eq!(says("lisen = \"127.0.0.1:1\""), "unknown option `lisen`; did you mean `listen`?");
    assert_eq!(says("log-level = \"info\""), "unknown option `log-level`; did you mean `log_level`?");
    assert_eq!(says("keepalive_s = 1"), "unknown option `keepalive_s`; did you mean `keep_alive_s`?");
    assert!(says("colour = 1").contains("the options are data, listen,"));
    assert!(says("[server]\nlisten = \"x\"").contains("unknown option `server`"));
    assert!(toml::from_str::<PlatformOptions>("lisen = 1").is_err());
    assert!(toml::from_str::<PlatformOverlay>("lisen = 1").is_err());
}

#[test]
fn wrong_types_and_syntax_name_the_place() {
    assert!(says("keep_alive_s = \"long\"").starts_with("`keep_alive_s`: "));
    assert!(says("keep_alive_s = -1").starts_with("`keep_alive_s`: "));
    assert!(says("listen = \"localhost\"").starts_with("`listen`: "));
    assert!(says("log_format = \"xml\"").starts_with("`log_format`: "));
    assert!(says("network = \"10.0.0.1/8\"").contains("10.0.0.0/8"));
    assert!(says("network_allow = \"10.0.0.0/8\"").starts_with("`network_allow`: "));
    let text = says("listen = ");
    assert!(text.contains("is not TOML") && text.contains("line 1"), "{text}");
    let error = PlatformOptions::load(Some(Path::new("/nonexistent/mayfly.toml"))).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/mayfly.toml"));
    assert!(says(&format!("# {}", "x".repeat(1024 * 1024))).contains("larger than 1 MiB"));
}

#[test]
fn values_out_of_range_are_refused() {
    for (text, says_what) in [
        ("data = \"\"", "`data`: is empty"),
        ("log_level = \"inof\"", "`log_level`: "),
        ("memory_ceiling_mb = 1", "`memory_ceiling_mb`: 1 is not between 256 and"),
        ("keep_alive_s = 999999999", "`keep_alive_s`"),
        ("region = \"\"", "`region`"),
        ("region = \"AP GZ\"", "`region`"),
        ("app_id = 0", "`app_id`"),
        ("uin = 0", "`uin`"),
        ("network = \"10.0.0.0/30\"", "between /8 and /24"),
        ("network = \"fd00::/16\"", "`network`: fd00::/16 is not an IPv4"),
        ("network = \"127.0.0.0/16\"", "loopback"),
        ("network = \"169.254.0.0/16\"", "link-local"),
        ("network_allow = [\"0.0.0.0/0\"]", "loopback"),
        ("network_allow = [\"169.254.169.254/32\"]", "link-local"),
        ("network_allow = [\"::/0\"]", "loopback"),
        ("network_allow = [\"::ffff:127.0.0.1/128\"]", "disguise"),
        ("network_allow = [\"10.213.4.0/24\"]", "may not reach each other"),
        ("precreate_python = 1000", "`precreate_python`"),
        ("precreate_node = 1000", "`precreate_node`"),
        ("functions_per_namespace = 0", "`functions_per_namespace`"),
        ("log_retention_hours = 0", "`log_retention_hours`"),
        ("events = \"redis://h\"", "`events`: is neither empty nor"),
        ("events_credentials = \"/x\"", "`events`: is missing"),
        ("events_max = 0", "`events_max`"),
        ("events_mb = 1", "`events_mb`"),
        ("event_bytes_max = 10000000", "`event_bytes_max`: 10000000 is not between 1024 and 6291456"),
        ("failure_disk_mb = 1", "`failure_disk_mb`"),
        ("waiting_room = 10000000", "`waiting_room`"),
        ("waiting_s = 0", "`waiting_s`: 0 is not between 1 and 900"),
        ("drain_s = 86400", "`drain_s`"),
        ("streams_after_update_s = 100000000", "`streams_after_update_s`"),
    ] {
        let message = says(text);
        assert!(message.contains(says_what), "{text}: {message}");
    }
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = file("keep_alive_s = 1\nwaiting_s = 1\ndrain_s = 1");
    let variables: HashMap<&str, &str> = HashMap::from([
        ("MAYFLY_WAITING_S", "2"),
        ("MAYFLY_DRAIN_S", "2"),
        ("MAYFLY_REGION", ""),
        ("MAYFLY_NETWORK_ALLOW", "10.0.0.0/16, fd00::/8"),
        ("MAYFLY_SECRET_ID", "not an option"),
    ]);
    let environment = PlatformOverlay::from_env(|name| variables.get(name).map(|v| (*v).to_owned())).unwrap();
    let flags = PlatformOverlay { drain_s: Some(3), ..PlatformOverlay::default() };
    let options = PlatformOptions::resolve(Some(file.path()), environment, flags).unwrap();
    assert_eq!((options.keep_alive_s, options.waiting_s, options.drain_s), (1, 2, 3));
    assert_eq!(options.region, "ap-guangzhou");
    assert_eq!(options.network_allow.len(), 2);
    assert_eq!(options.waiting_room, PlatformOptions::default().waiting_room);
}

#[test]
fn bad_variables_are_named() {
    for (variable, value) in [
        ("MAYFLY_WAITING_S", "soon"),
        ("MAYFLY_LISTEN", "x"),
        ("MAYFLY_LOG_FORMAT", "xml"),
        ("MAYFLY_NETWORK_ALLOW", "x"),
    ] {
        let error = PlatformOverlay::from_env(|name| (name == variable).then(|| value.to_owned())).unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{variable}`: ")), "{error}");
    }
}

#[test]
fn tls_needs_an_address_a_certificate_and_its_key() {
    let wrong = |toml: &str| match PlatformOptions::default().with(PlatformOverlay::from_toml(toml).unwrap()).validate()
    {
        Err(ConfigError::Range { name, .. }) => name,
        other => panic!("{toml}: {other:?}"),
    };
    assert_eq!(wrong("tls_listen = '127.0.0.1:1'\ntls_cert = 'c'"), "tls_key");
    assert_eq!(wrong("tls_listen = '127.0.0.1:1'\ntls_key = 'k'"), "tls_cert");
    assert_eq!(wrong("tls_cert = 'c'\ntls_key = 'k'"), "tls_listen");
    assert_eq!(wrong("tls_listen = '127.0.0.1:8700'"), "tls_listen");
    assert_eq!(wrong("objects_listen = '127.0.0.1:8700'"), "objects_listen");
    assert_eq!(PlatformOptions::default().objects_listen.to_string(), "127.0.0.1:8701");
    let off = PlatformOverlay::from_toml("objects_listen = 'off'").unwrap();
    assert_eq!(off.objects_listen, Some(Listen(None)));
    for good in ["tls_listen = '127.0.0.1:1'", "tls_listen = '127.0.0.1:1'\ntls_cert = 'c'\ntls_key = 'c'"] {
        PlatformOptions::default().with(PlatformOverlay::from_toml(good).unwrap()).validate().unwrap();
    }
    let environment = |name: &str| (name == "MAYFLY_TLS_LISTEN").then(|| "127.0.0.1:1".to_owned());
    let overlay = PlatformOverlay::from_env(environment).unwrap();
    assert_eq!(overlay.tls_listen, Some(Some("127.0.0.1:1".parse().unwrap())));
}
