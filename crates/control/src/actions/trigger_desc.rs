//! `TriggerDesc` of an `http` trigger: JSON in a text, read and written.

use crate::catalogue::clip;
use mayfly_model::{ApiError, CorsConfig, UrlAuth, UrlConfig};
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest `TriggerDesc`, in bytes. Ours.
const DESC_BYTES_MAX: usize = 16 * 1024;
/// Most entries of each list of a `CorsConfig`. Ours.
const CORS_LIST_MAX: usize = 50;
/// Longest entry of these lists, in bytes. Ours.
const CORS_ENTRY_BYTES_MAX: usize = 256;
/// Longest time that browsers may remember an answer, in seconds: a day, which is also what they cut longer ones to.
const CORS_MAX_AGE_S_MAX: u32 = 86_400;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Desc {
    auth_type: Option<String>,
    net_config: Option<Net>,
    cors_config: Option<Cors>,
}

/// The URLs are what ListTriggers shows: clients send back what they read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
#[allow(dead_code, reason = "the addresses are the platform's to give; they are declared so that they are known keys")]
struct Net {
    enable_intranet: Option<bool>,
    enable_extranet: Option<bool>,
    intranet_url: Option<String>,
    #[serde(rename = "IntranetHTTPUrl")]
    intranet_http_url: Option<String>,
    extranet_url: Option<String>,
    #[serde(rename = "ExtranetHTTPUrl")]
    extranet_http_url: Option<String>,
    wss_intranet_url: Option<String>,
    ws_intranet_url: Option<String>,
    wss_extranet_url: Option<String>,
    ws_extranet_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Cors {
    enable: Option<bool>,
    origins: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    headers: Option<Vec<String>>,
    expose_headers: Option<Vec<String>>,
    credentials: Option<bool>,
    max_age: Option<i64>,
}

/// What a `TriggerDesc` asks for.
#[derive(Debug, PartialEq)]
pub struct UrlTerms {
    /// Who may call.
    pub auth: UrlAuth,
    /// `NetConfig.EnableIntranet`.
    pub intranet: bool,
    /// Answers to other origins.
    pub cors: Option<CorsConfig>,
}

/// Reads a `TriggerDesc`. Errors: `MissingParameter` without one; `InvalidParameterValue.TriggerDesc`; `InvalidParameterValue.Cors`;
/// `UnsupportedOperation.Trigger` for a URL that is not to be reached from outside.
pub fn read(text: &str) -> Result<UrlTerms, ApiError> {
    let bad = |message: String| ApiError::new("InvalidParameterValue.TriggerDesc", message);
    if text.trim().is_empty() {
        return Err(ApiError::missing("TriggerDesc"));
    }
    if text.len() > DESC_BYTES_MAX {
        return Err(bad(format!("`TriggerDesc` has {} bytes; the limit is {DESC_BYTES_MAX}.", text.len())));
    }
    let desc: Desc = serde_json::from_str(text)
        .map_err(|e| bad(format!("`TriggerDesc` is not what an http trigger takes: {}.", clip(&e.to_string()))))?;
    let auth = match desc.auth_type.as_deref() {
        Some(t) if t.eq_ignore_ascii_case("none") => UrlAuth::Open,
        Some(t) if t.eq_ignore_ascii_case("cam") => UrlAuth::Signed,
        Some(other) => {
            return Err(bad(format!("`AuthType` in `TriggerDesc` is `{}`; it is NONE or CAM.", clip(other))));
        }
        None => return Err(bad("`TriggerDesc` has no `AuthType`: NONE (anybody may call) or CAM (signed).".into())),
    };
    let net = desc.net_config.unwrap_or_default();
    if net.enable_extranet == Some(false) {
        let message =
            "`NetConfig.EnableExtranet` false is not supported: the platform listens in one place for both networks.";
        return Err(ApiError::new("UnsupportedOperation.Trigger", message));
    }
    let cors = desc.cors_config.map(cors).transpose()?.flatten();
    Ok(UrlTerms { auth, intranet: net.enable_intranet.unwrap_or(false), cors })
}

/// `None`: switched off.
fn cors(cors: Cors) -> Result<Option<CorsConfig>, ApiError> {
    let given = cors.origins.is_some() || cors.methods.is_some() || cors.headers.is_some();
    if !cors.enable.unwrap_or(given) {
        return Ok(None);
    }
    let bad = |message: String| ApiError::new("InvalidParameterValue.Cors", message);
    let list = |name: &str, given: Option<Vec<String>>, good: fn(&str) -> bool| {
        let list = given.unwrap_or_default();
        if list.len() > CORS_LIST_MAX {
            return Err(bad(format!("`CorsConfig.{name}` has {} entries; the limit is {CORS_LIST_MAX}.", list.len())));
        }
        match list.iter().find(|item| item.len() > CORS_ENTRY_BYTES_MAX || (*item != "*" && !good(item))) {
            Some(item) => Err(bad(format!("`CorsConfig.{name}` has the entry `{}`, which is not valid.", clip(item)))),
            None => Ok(list),
        }
    };
    let config = CorsConfig {
        origins: list("Origins", cors.origins, is_origin)?,
        methods: list("Methods", cors.methods, is_token)?.into_iter().map(|m| m.to_ascii_uppercase()).collect(),
        headers: list("Headers", cors.headers, is_token)?,
        expose_headers: list("ExposeHeaders", cors.expose_headers, is_token)?,
        credentials: cors.credentials.unwrap_or(false),
        max_age_s: match cors.max_age.map_or(Ok(0), u32::try_from) {
            Ok(s) if s <= CORS_MAX_AGE_S_MAX => s,
            _ => {
                return Err(bad(format!("`CorsConfig.MaxAge` is a number of seconds from 0 to {CORS_MAX_AGE_S_MAX}.")));
            }
        },
    };
    if config.credentials && config.origins.iter().any(|o| o == "*") {
        let message =
            "`CorsConfig.Credentials` true goes with named origins, not with `*`: any page could act for your users.";
        return Err(bad(message.into()));
    }
    Ok(Some(config))
}

/// `scheme://host[:port]`, as browsers write it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let scheme_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    !scheme.is_empty() && scheme.bytes().all(scheme_good) && !host.is_empty() && host.bytes().all(plain)
}

/// A method or the name of a header (RFC 9110, token).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A `TriggerDesc` as the read actions show it. `address` is the URL without its scheme and `://`; services also have a WebSocket address.
pub fn show(config: &UrlConfig, address: &str, is_service: bool) -> String {
    let http = format!("http://{address}");
    let ws = if is_service { format!("ws://{address}") } else { String::new() };
    let inside = |url: &str| if config.intranet { url.to_owned() } else { String::new() };
    let none = CorsConfig::default();
    let cors = config.cors.as_ref().unwrap_or(&none);
    let desc: Value = json!({
        "AuthType": config.auth,
        "NetConfig": {
            "EnableIntranet": config.intranet,
            "EnableExtranet": true,
            "IntranetUrl": inside(&http),
            "IntranetHTTPUrl": inside(&http),
            "ExtranetUrl": http,
            "ExtranetHTTPUrl": http,
            "WssIntranetUrl": "",
            "WsIntranetUrl": inside(&ws),
            "WssExtranetUrl": "",
            "WsExtranetUrl": ws,
        },
        "CorsConfig": {
            "Enable": config.cors.is_some(),
            "Origins": cors.origins,
            "Methods": cors.methods,
            "Headers": cors.headers,
            "ExposeHeaders": cors.expose_headers,
            "Credentials": cors.credentials,
            "MaxAge": cors.max_age_s,
        },
    });
    desc.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_read() {
        let full = r#"{"AuthType":"CAM","NetConfig":{"EnableIntranet":true,"EnableExtranet":true},"CorsConfig":{"Enable":true,
            "Origins":["https://a.example","http://localhost:3000"],"Methods":["get","*"],"Headers":["X-A"],"ExposeHeaders":["X-B"],
            "Credentials":true,"MaxAge":600}}"#;
        let terms = read(full).unwrap();
        assert_eq!((terms.auth, terms.intranet), (UrlAuth::Signed, true));
        let cors = terms.cors.unwrap();
        assert_eq!((cors.methods, cors.max_age_s), (vec!["GET".to_owned(), "*".to_owned()], 600));
        let plain = read(r#"{"AuthType":"NONE"}"#).unwrap();
        assert_eq!(plain, UrlTerms { auth: UrlAuth::Open, intranet: false, cors: None });
        assert_eq!(read(r#"{"AuthType":"none","CorsConfig":{"Enable":false,"Origins":["?"]}}"#).unwrap().cors, None);
        assert_eq!(read(r#"{"AuthType":"none","CorsConfig":{}}"#).unwrap().cors, None);
        assert!(read(r#"{"AuthType":"none","CorsConfig":{"Origins":["*"]}}"#).unwrap().cors.is_some());
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let config = UrlConfig {
            trigger: "t".into(),
            qualifier: "$DEFAULT".into(),
            enabled: true,
            auth: UrlAuth::Signed,
            cors: Some(CorsConfig { origins: vec!["*".into()], max_age_s: 5, ..CorsConfig::default() }),
            intranet: true,
            description: String::new(),
            argument: String::new(),
            add_time_ms: 0,
            mod_time_ms: 0,
        };
        let terms = read(&show(&config, "h/fn/default/x/", true)).unwrap();
        assert_eq!((terms.auth, terms.intranet, terms.cors), (config.auth, config.intranet, config.cors));
    }

    #[test]
    fn bad_terms_are_named() {
        const DESC: &str = "InvalidParameterValue.TriggerDesc";
        const CORS: &str = "InvalidParameterValue.Cors";
        let cors = |fields: &str| format!(r#"{{"AuthType":"NONE","CorsConfig":{{"Enable":true,{fields}}}}}"#);
        for (text, code, word) in [
            (" ".to_owned(), "MissingParameter", "TriggerDesc"),
            ("0 */6 * * * * *".to_owned(), DESC, "TriggerDesc"),
            ("[]".to_owned(), DESC, "TriggerDesc"),
            ("{}".to_owned(), DESC, "AuthType"),
            (r#"{"AuthType":"JWT"}"#.to_owned(), DESC, "JWT"),
            (r#"{"AuthType":7}"#.to_owned(), DESC, "TriggerDesc"),
            (r#"{"AuthType":"NONE","IpAllowList":[]}"#.to_owned(), DESC, "IpAllowList"),
            (r#"{"AuthType":"NONE","NetConfig":{"Public":1}}"#.to_owned(), DESC, "Public"),
            (
                r#"{"AuthType":"NONE","NetConfig":{"EnableExtranet":false}}"#.to_owned(),
                "UnsupportedOperation.Trigger",
                "EnableExtranet",
            ),
            (format!(r#"{{"AuthType":"NONE"{}}}"#, " ".repeat(DESC_BYTES_MAX)), DESC, "bytes"),
            (cors(r#""Origin":["*"]"#), DESC, "Origin"),
            (cors(r#""Origins":["example.com"]"#), CORS, "example.com"),
            (cors(r#""Origins":["https://a/b"]"#), CORS, "https://a/b"),
            (cors(r#""Origins":["*"],"Credentials":true"#), CORS, "Credentials"),
            (cors(r#""Methods":["GET POST"]"#), CORS, "Methods"),
            (cors(r#""Headers":["X-A\r\nSet-Cookie"]"#), CORS, "Headers"),
            (cors(r#""ExposeHeaders":[""]"#), CORS, "ExposeHeaders"),
            (cors(r#""MaxAge":-1"#), CORS, "MaxAge"),
            (cors(r#""MaxAge":86401"#), CORS, "MaxAge"),
            (cors(&format!(r#""Headers":{}"#, json!(vec!["X"; 51]))), CORS, "Headers"),
            (cors(&format!(r#""Headers":["{}"]"#, "x".repeat(257))), CORS, "Headers"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.code, code, "{text}");
            assert!(error.message.contains(word), "{text}: {error}");
        }
    }
}
