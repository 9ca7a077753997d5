//! The declared requests: one structure per action, with the treatment of each field.

mod domains;
mod failures;
mod functions;
mod invocations;
mod layers;
mod namespaces;
mod quotas;
mod scaling;
mod triggers;
mod versions;

pub use domains::*;
pub use failures::*;
pub use functions::*;
pub use invocations::*;
pub use layers::*;
pub use namespaces::*;
pub use quotas::*;
pub use scaling::*;
pub use triggers::*;
pub use versions::*;

use super::schema::{Field, Treatment, Treatment::*, given, opaque, wire};
use serde_json::Value;

/// An action that is built: its name, its one line in the documentation, and its fields.
#[derive(Clone, Copy, Debug)]
pub struct ActionSpec {
    /// The action's name on the wire.
    pub name: &'static str,
    /// What it does here, one or two sentences.
    pub doc: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// The published actions of SCF 2018-04-16 that are not built: they answer `InvalidAction`.
pub const NOT_BUILT: &[(&str, &str)] =
    &[("PutTotalConcurrencyConfig", "the account's quota is a setting of the server")];

/// Actions that are Mayfly's own.
pub const OWN: &[&str] = &[
    "PutFunctionScaling",
    "GetTrigger",
    "GetForecast",
    "ListDemand",
    "GetInstallLog",
    "PutFunctionFailures",
    "GetFunctionFailures",
    "PutFunctionDestinations",
    "GetFunctionDestinations",
    "ListFailures",
    "GetFailure",
    "DeleteFailures",
    "ReplayFailures",
    "ListReplayJobs",
    "GetReplayJob",
    "CancelReplayJob",
    "PutCertificate",
    "ListCertificates",
    "DeleteCertificate",
];

/// Refuses any content: the whole field belongs to something that is not built.
const fn refused(code: &'static str, why: &'static str) -> Treatment {
    Refused { code, when: "not empty", test: given, why }
}

/// Refuses the switch when it is on.
const fn refused_on(code: &'static str, why: &'static str) -> Treatment {
    Refused { code, when: "TRUE or ENABLE", test: super::schema::is_on, why }
}

const NO_COS: &str = "there is no object store yet; send the package as a base64 zip in `ZipFile`";
const NO_GIT: &str = "code is not fetched from Git; send the package as a base64 zip in `ZipFile`";
const NO_DEMO: &str = "there are no template functions; send the package as a base64 zip in `ZipFile`";
const NO_IMAGE: &str = "functions from container images are not supported; deploy a zip package";
const NO_VPC: &str = "functions cannot be attached to a VPC";
const NO_CFS: &str = "network file systems cannot be mounted";
const NO_DYNAMIC: &str = "the number of requests in one instance is a fixed one, in `MaxConcurrency`";
const NO_ISOLATION: &str = "requests in one instance share it";
const NO_SESSIONS: &str = "instances are not bound to sessions";
const NO_INTRANET: &str = "fixed intranet addresses are not built";
const NO_EIP: &str = "fixed public addresses are not built";
const NO_NODE: &str = "there are no GPU nodes";

const ROLE: &str = "name of the role whose temporary keys, and with them the object store, the queues and Invoke, reach the code (docs/inside.md); empty: none. Roles have no policies of their own yet";
const CLS: &str = "logs are kept by this platform and read with GetFunctionLogs";
const INSTALL: &str = "`TRUE`: what requirements.txt, package.json, composer.json or go.mod names is installed on the server (SCF: Node.js only); default FALSE";
const INSTALL_AGAIN: &str = "as in CreateFunction; absent: as the function was told before";
const DNS: &str = "names are resolved by the host's resolver, cached or not";
const DISK: &str = "`/tmp` has 512 MB";

const FUNCTION_NAME: &str = "2–60 characters: letters, digits, `-`, `_`";
const NAMESPACE: &str = "default `default`";

/// True for a value other than the listed ones, in any case; an empty text is the default.
fn other_than(value: &Value, allowed: &[&str]) -> bool {
    match value {
        Value::String(text) => !text.is_empty() && !allowed.iter().any(|a| text.eq_ignore_ascii_case(a)),
        _ => true,
    }
}

wire! {
    /// Where the code comes from.
    struct Code {
        zip_file "ZipFile": Option<String> => Honoured, "the package: a zip in base64, at most 50 MB";
        cos_bucket_name "CosBucketName": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "bucket";
        cos_object_name "CosObjectName": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "object";
        cos_bucket_region "CosBucketRegion": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "region of the bucket";
        demo_id "DemoId": Option<String> => refused("UnsupportedOperation", NO_DEMO), "template";
        temp_cos_object_name "TempCosObjectName": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "object of the shared upload bucket";
        git_url "GitUrl": Option<String> => refused("UnsupportedOperation", NO_GIT), "repository";
        git_user_name "GitUserName": Option<String> => refused("UnsupportedOperation", NO_GIT), "user";
        git_password "GitPassword": Option<String> => refused("UnsupportedOperation", NO_GIT), "password";
        git_password_secret "GitPasswordSecret": Option<String> => refused("UnsupportedOperation", NO_GIT), "stored password";
        git_branch "GitBranch": Option<String> => refused("UnsupportedOperation", NO_GIT), "branch";
        git_directory "GitDirectory": Option<String> => refused("UnsupportedOperation", NO_GIT), "directory";
        git_commit_id "GitCommitId": Option<String> => refused("UnsupportedOperation", NO_GIT), "commit";
        git_user_name_secret "GitUserNameSecret": Option<String> => refused("UnsupportedOperation", NO_GIT), "stored user";
        image_config "ImageConfig": Option<ImageConfig> => refused("UnsupportedOperation", NO_IMAGE), "container image";
    }

    /// Environment variables.
    struct Environment {
        variables "Variables": Option<Vec<Variable>> => Honoured, "the variables; all together at most 4 KB";
    }

    /// One environment variable.
    struct Variable {
        key "Key": String => Honoured, "2–64 of letters, digits and `_`, a letter first; not `SCF_…`, `QCLOUD_…`, `TENCENTCLOUD_…`";
        value "Value": String => Honoured, "any text without NUL";
    }

    /// A layer version to bind.
    struct LayerVersionSimple {
        layer_name "LayerName": String => Honoured, "name of the layer";
        layer_version "LayerVersion": i64 => Honoured, "its version";
    }

    /// A tag.
    struct Tag {
        key "Key": String => Honoured, "1–127 characters";
        value "Value": String => Honoured, "at most 255 characters";
    }

    /// A filter of a list action: a value matches when it equals any of the listed ones.
    struct Filter {
        name "Name": String => Honoured, "what is looked at";
        values "Values": Vec<String> => Honoured, "any of these";
    }

    /// Access to the outside.
    struct PublicNetConfigIn {
        public_net_status "PublicNetStatus": Option<String> => Honoured, "`ENABLE` (default) or `DISABLE`: whether the code may open connections to outside";
        eip_config "EipConfig": Option<EipConfigIn> => ByFields, "fixed public address";
    }

    /// A fixed public address.
    struct EipConfigIn {
        eip_status "EipStatus": Option<String> => refused_on("UnsupportedOperation.EipFixed", NO_EIP), "`ENABLE` or `DISABLE`";
    }

    /// A fixed intranet address.
    struct IntranetConfigIn {
        ip_fixed "IpFixed": Option<String> => refused_on("UnsupportedOperation", NO_INTRANET), "`ENABLE` or `DISABLE`";
    }

    /// Several requests in one instance.
    struct InstanceConcurrencyConfig {
        dynamic_enabled "DynamicEnabled": Option<String> => refused_on("UnsupportedOperation", NO_DYNAMIC), "`FALSE`: `MaxConcurrency` requests at once; empty: one at a time, whatever stands beside it; absent: as `FALSE` when there is a number";
        max_concurrency "MaxConcurrency": Option<i64> => Honoured, "requests at once in one instance, 1–100; above 1 for HTTP functions only";
        instance_isolation_enabled "InstanceIsolationEnabled": Option<String> => refused_on("UnsupportedOperation", NO_ISOLATION), "isolation switch";
        kind "Type": Option<String> => Refused { code: "UnsupportedOperation", when: "other than `Request-Based`", test: not_request_based, why: NO_SESSIONS }, "`Request-Based` or `Session-Based`";
        mix_node_config "MixNodeConfig": Option<Vec<MixNodeConfig>> => refused("UnsupportedOperation", NO_NODE), "GPU mix";
        session_config "SessionConfig": Option<SessionConfig> => refused("UnsupportedOperation", NO_SESSIONS), "sessions";
    }

    /// Parameters of a ProtocolType.
    struct ProtocolParams {
        ws_params "WSParams": Option<WSParams> => ByFields, "of `WS`";
    }

    /// Parameters of WebSockets.
    struct WSParams {
        idle_time_out "IdleTimeOut": Option<i64> => Honoured, "seconds without traffic after which a WebSocket is closed, 1–1800; default 15";
    }
}

opaque!(CfsConfig, ImageConfig, LogSearchContext, MixNodeConfig, NamespaceResourceEnv, SessionConfig, VpcConfig,);

fn not_request_based(value: &Value) -> bool {
    other_than(value, &["Request-Based"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_52_published_actions_are_listed_once() {
        let built: Vec<_> = crate::actions::BUILT.iter().map(|a| a.name).filter(|name| !OWN.contains(name)).collect();
        assert_eq!(built.len() + OWN.len(), crate::actions::BUILT.len());
        let mut all: Vec<_> = built.iter().copied().chain(NOT_BUILT.iter().map(|(name, _)| *name)).collect();
        assert_eq!(all.len(), 52, "{all:?}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 52);
    }
}
