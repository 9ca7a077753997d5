//! The environment of a function's processes. Source: SCF's "Environment Variables" page; for Lambda's names, its runtime reference.

use mayfly_model::{RuntimeId, VersionSpec};
use mayfly_sandbox::wire::RUNTIME_API_PORT;
use std::collections::BTreeMap;

use crate::NodeOptions;
use crate::inside::{self, Inside};

/// All variables of an instance: the platform's, those of its role, then the user's.
pub(crate) fn build(spec: &VersionSpec, options: &NodeOptions, inside: Option<&Inside>) -> BTreeMap<String, String> {
    let config = &spec.config;
    let mut env = BTreeMap::new();
    let mut set = |key: &str, value: &str| {
        env.insert(key.to_owned(), value.to_owned());
    };
    let api = format!("127.0.0.1:{RUNTIME_API_PORT}");
    let port = RUNTIME_API_PORT.to_string();
    let memory = config.memory_mb.to_string();
    for (key, value) in [
        ("SCF_RUNTIME", config.runtime_name.as_str()),
        ("SCF_FUNCTIONNAME", spec.function.as_str()),
        ("SCF_FUNCTIONVERSION", &spec.key.version),
        ("SCF_NAMESPACE", spec.namespace.as_str()),
        ("TENCENTCLOUD_REGION", &options.region),
        ("TENCENTCLOUD_APPID", &options.app_id),
        ("TENCENTCLOUD_UIN", &options.uin),
        ("TENCENTCLOUD_TZ", "UTC"),
        ("TENCENTCLOUD_RUNENV", "SCF"),
        ("_SCF_SERVER_PORT", &port),
        ("USER_CODE_ROOT", "/var/user/"),
        ("TRIGGER_SRC", ""),
        ("_HANDLER", &config.handler),
        ("TZ", "UTC"),
        ("PWD", "/var/user"),
        ("HOME", "/home/qcloud"),
        ("USER", "qcloud"),
        ("LOGNAME", "qcloud"),
        ("SHELL", "/bin/sh"),
        ("TMPDIR", "/tmp"),
        // SCF says en_US.UTF8, which a plain Debian does not have; every program would complain.
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("PATH", "/var/user/bin:/opt/bin:/usr/local/bin:/usr/bin:/bin"),
        ("LD_LIBRARY_PATH", "/var/user:/var/user/lib:/opt:/opt/lib"),
    ] {
        set(key, value);
    }
    match config.runtime {
        RuntimeId::Python => {
            set("PYTHONPATH", "/var/user:/opt");
            set("PYTHONDONTWRITEBYTECODE", "x");
            set("PYTHONUNBUFFERED", "1");
        }
        RuntimeId::Node => {
            set("NODE_PATH", "/var/user:/var/user/node_modules:/opt:/opt/node_modules:/opt/nodejs/node_modules");
        }
        RuntimeId::Php => {}
        RuntimeId::Go => {
            let port = crate::go::PROGRAM_PORT.to_string();
            for (key, value) in [
                // The name that SCF's library reads; it is AWS's, whose library is served as well.
                ("_LAMBDA_SERVER_PORT", port.as_str()),
                ("FUNCTION_NAME", spec.function.as_str()),
                ("FUNCTION_VERSION", &spec.key.version),
                ("FUNCTION_MEMORY_SIZE", &memory),
                ("AWS_LAMBDA_FUNCTION_NAME", spec.function.as_str()),
                ("AWS_LAMBDA_FUNCTION_VERSION", &spec.key.version),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
            ] {
                set(key, value);
            }
        }
        RuntimeId::Java => {
            set("SCF_RUNTIME_API", "127.0.0.1");
            set("SCF_RUNTIME_API_PORT", &port);
        }
        RuntimeId::Custom => {
            for (key, value) in [
                ("SCF_RUNTIME_API", "127.0.0.1"),
                ("SCF_RUNTIME_API_PORT", &port),
                ("AWS_LAMBDA_RUNTIME_API", &api),
                ("AWS_LAMBDA_FUNCTION_NAME", spec.function.as_str()),
                ("AWS_LAMBDA_FUNCTION_VERSION", &spec.key.version),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
                ("AWS_LAMBDA_LOG_GROUP_NAME", spec.namespace.as_str()),
                ("AWS_LAMBDA_LOG_STREAM_NAME", spec.function.as_str()),
                ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
                ("AWS_REGION", &options.region),
                ("AWS_DEFAULT_REGION", &options.region),
                ("LAMBDA_TASK_ROOT", "/var/task"),
                ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
                ("PYTHONPATH", "/var/user:/opt"),
                ("PYTHONDONTWRITEBYTECODE", "x"),
                ("NODE_PATH", "/var/user:/var/user/node_modules:/opt:/opt/node_modules:/opt/nodejs/node_modules"),
            ] {
                set(key, value);
            }
        }
    }
    if let Some(inside) = inside {
        inside::environment(&mut env, inside.caller().badge(), &options.region, &config.environment);
    }
    for (key, value) in &config.environment {
        env.insert(key.clone(), value.clone());
    }
    env
}
