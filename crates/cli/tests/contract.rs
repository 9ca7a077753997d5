//! The runtime contract, case by case, of every runtime: `docs/runtime-contract.md` as tests. The same function in Python, in
//! Node.js, and as a program of its own that speaks SCF's runtime API, must behave the same.

use mayfly_testkit::{Platform, Setup, can_sandbox};
use serde_json::{Value, json};

/// Bytes of the largest event and the largest answer.
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

const PYTHON: &str = r"
import asyncio, os, sys, time
CALLS = []
def do(e):
    what = e['do']
    if what == 'throw': raise ValueError('on purpose')
    if what == 'exit': os._exit(3)
    if what == 'hang': time.sleep(60)
    if what == 'large': return 'x' * e['size']
    if what == 'count': CALLS.append(1); return len(CALLS)
    if what == 'print':
        print('to stdout', e['text'])
        print('to stderr', e['text'], file=sys.stderr)
    if what == 'environment': return dict(os.environ)
    if what == 'files':
        found = {'cwd': os.getcwd(), 'code': os.path.exists('/var/task/data.txt'), 'opt': open('/opt/both').read() + open('/opt/only').read()}
        for path in ('/var/user/x', '/opt/x', '/tmp/x'):
            try:
                open(path, 'w').close()
                found[path] = True
            except OSError:
                found[path] = False
        return found
    return e.get('value')
async def main_handler(event, context):
    await asyncio.sleep(0)
    return do(event)
def context_handler(event, context):
    return {k: context[k] for k in context}
";

const NODE: &str = r"
const fs = require('fs');
let calls = 0;
function doIt(e) {
  switch (e.do) {
    case 'throw': throw new RangeError('on purpose');
    case 'exit': process.exit(3);
    case 'hang': return new Promise(r => setTimeout(r, 60000));
    case 'large': return 'x'.repeat(e.size);
    case 'count': return ++calls;
    case 'print': console.log('to stdout', e.text); console.error('to stderr', e.text); return null;
    case 'environment': return process.env;
    case 'files': {
      const found = { cwd: process.cwd(), code: fs.existsSync('/var/task/data.txt'), opt: fs.readFileSync('/opt/both', 'utf8') + fs.readFileSync('/opt/only', 'utf8') };
      for (const path of ['/var/user/x', '/opt/x', '/tmp/x']) {
        try { fs.writeFileSync(path, ''); found[path] = true; } catch { found[path] = false; }
      }
      return found;
    }
    default: return e.value === undefined ? null : e.value;
  }
}
exports.main_handler = async (event, context) => doIt(event);
exports.callback_handler = (event, context, callback) => { try { callback(null, doIt(event)); } catch (error) { callback(error); } };
exports.context_handler = async (event, context) => context;
";

/// `bootstrap`: the same through the runtime API.
const CUSTOM: &str = r#"#!/usr/bin/python3 -S
import http.client, json, os, sys, traceback
os.environ.setdefault('PYTHONUNBUFFERED', '1')
sys.path.insert(0, '/var/user')
host, port = os.environ['SCF_RUNTIME_API'], int(os.environ['SCF_RUNTIME_API_PORT'])
line = http.client.HTTPConnection(host, port)
def ask(method, path, body=None):
    line.request(method, path, body)
    answer = line.getresponse()
    return answer.read(), answer.headers
from index import do
ask('POST', '/runtime/init/ready', b' ')
while True:
    event, headers = ask('GET', '/runtime/invocation/next')
    try:
        assert headers['request_id'] and headers['memory_limit_in_mb'] == '128' and headers['time_limit_in_ms'] == '2000', dict(headers)
        result = do(json.loads(event))
        sys.stdout.flush()
        sys.stderr.flush()
        ask('POST', '/runtime/invocation/response', json.dumps(result, ensure_ascii=False).encode())
    except Exception as error:
        told = {'errorType': type(error).__name__, 'errorMessage': str(error), 'stackTrace': traceback.format_exc()}
        ask('POST', '/runtime/invocation/error', json.dumps(told).encode())
"#;

struct Language {
    name: &'static str,
    runtime: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// What an uncaught error is called.
    error_type: &'static str,
    /// What its stack names.
    stack: &'static str,
    /// A package that cannot be loaded, the status that gives, and what the answer shows of it.
    broken: (&'static [(&'static str, &'static str)], u64, &'static str),
    /// A package that ends while it is loaded.
    ends: &'static [(&'static str, &'static str)],
    /// A package that never finishes loading.
    stuck: &'static [(&'static str, &'static str)],
    /// A package without the handler.
    empty: &'static [(&'static str, &'static str)],
}

const LANGUAGES: [Language; 3] = [
    Language {
        name: "py",
        runtime: "Python3.9",
        files: &[("index.py", PYTHON), ("data.txt", "data")],
        error_type: "ValueError",
        stack: "/var/user/index.py",
        broken: (&[("index.py", "import nonesuch\n")], 443, "nonesuch"),
        ends: &[("index.py", "import os\nos._exit(1)\n")],
        stuck: &[("index.py", "import time\ntime.sleep(60)\n")],
        empty: &[("index.py", "def other(e, c):\n    pass\n")],
    },
    Language {
        name: "js",
        runtime: "Nodejs18.15",
        files: &[("index.js", NODE), ("data.txt", "data")],
        error_type: "RangeError",
        stack: "/var/user/index.js",
        broken: (&[("index.js", "require('nonesuch');\n")], 443, "nonesuch"),
        ends: &[("index.js", "process.exit(1);\n")],
        stuck: &[("index.js", "while (true);\n")],
        empty: &[("index.js", "exports.other = () => 1;\n")],
    },
    Language {
        name: "own",
        runtime: "CustomRuntime",
        files: &[("bootstrap", CUSTOM), ("index.py", PYTHON), ("data.txt", "data")],
        error_type: "ValueError",
        stack: "on purpose",
        broken: (
            &[(
                "bootstrap",
                "#!/bin/bash\nexec 3<>/dev/tcp/$SCF_RUNTIME_API/$SCF_RUNTIME_API_PORT\nbody='{\"errorType\":\"Odd\",\"errorMessage\":\"nonesuch is missing\"}'\nprintf 'POST /runtime/init/error HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n%s' ${#body} \"$body\" >&3\nsleep 60\n",
            )],
            443,
            "nonesuch",
        ),
        ends: &[("bootstrap", "#!/bin/sh\necho last words\nexit 1\n")],
        stuck: &[("bootstrap", "#!/bin/sh\nsleep 60\n")],
        empty: &[("other", "#!/bin/sh\n")],
    },
];

fn platform() -> Option<Platform> {
    can_sandbox().then(|| Setup::new(env!("CARGO_BIN_EXE_mayfly")).start())
}

fn deploy(platform: &Platform, language: &Language, name: &str, files: &[(&str, &str)], more: &Value) {
    platform.create(name, language.runtime, "index.main_handler", files, more.clone());
}

#[test]
fn every_ending_has_its_status() {
    let Some(p) = platform() else { return };
    for language in &LANGUAGES {
        let name = language.name;
        deploy(&p, language, name, language.files, &json!({ "Timeout": 2 }));
        let call = |event: Value| p.invoke(name, &event);

        for value in [
            json!(null),
            json!(0),
            json!(""),
            json!("héllo 世界 🦟 \u{2028}\"\\"),
            json!([1.5, -0.25, { "a": [] }]),
            json!({ "k": true }),
        ] {
            let answer = call(json!({ "do": "echo", "value": value }));
            assert_eq!((answer.status(), answer.value()), (200, value), "{name}: {:?}", answer.result);
        }
        let before = call(json!({ "do": "count" })).value().as_u64().unwrap();
        let thrown = call(json!({ "do": "throw" }));
        assert_eq!(thrown.status(), 430, "{name}: {:?}", thrown.result);
        let told = thrown.value();
        assert_eq!(told["errorType"], language.error_type, "{name}: {told}");
        assert!(told["errorMessage"].as_str().unwrap().contains("on purpose"), "{name}: {told}");
        assert!(told["stackTrace"].as_str().unwrap().contains(language.stack), "{name}: {told}");
        assert_eq!(thrown.result["InvokeResult"], -1, "{name}");
        assert!(thrown.log().contains("ERROR RequestId"), "{name}: {}", thrown.log());
        assert_eq!(
            call(json!({ "do": "count" })).value(),
            json!(before + 1),
            "{name}: an exception keeps the instance"
        );

        for (what, status) in [("exit", 439), ("hang", 433)] {
            let ended = call(json!({ "do": what }));
            assert_eq!(ended.status(), status, "{name} {what}: {:?}", ended.result);
            assert_eq!(call(json!({ "do": "count" })).value(), json!(1), "{name}: another instance after {what}");
        }

        let printed = call(json!({ "do": "print", "text": "wörd" }));
        let lines =
            ["START RequestId:", "to stdout wörd", "Response RequestId:", "END RequestId:", "Report RequestId:"];
        let places: Vec<Option<usize>> = lines.iter().map(|l| printed.log().find(l)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{name}: {}", printed.log());
        assert!(printed.log().contains("to stderr wörd"), "{name}: {}", printed.log());
        assert!(!call(json!({ "do": "echo" })).log().contains("wörd"), "{name}: a log has its own call's lines only");
    }
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn every_failing_start_has_its_status() {
    let Some(p) = platform() else { return };
    for language in &LANGUAGES {
        let name = |what: &str| format!("{}-{what}", language.name);
        let quick = json!({ "InitTimeout": 1 });
        let patient = json!({ "InitTimeout": 10 });
        let cases = [
            ("broken", language.broken.0, &patient, language.broken.1),
            ("ends", language.ends, &patient, 445),
            ("stuck", language.stuck, &quick, 450),
            ("empty", language.empty, &patient, 437),
            ("nothing", &[("unrelated.txt", "x")], &patient, 437),
        ];
        for (what, files, more, status) in cases {
            deploy(&p, language, &name(what), files, more);
            // Each call tries anew, and says the same.
            for _ in 0..2 {
                let answer = p.invoke(&name(what), &json!({}));
                assert_eq!(answer.status(), status, "{}: {:?}", name(what), answer.result);
                let text = answer.value().to_string();
                assert!(what != "broken" || text.contains(language.broken.2), "{}: {text}", name(what));
                let data = p.data.to_str().unwrap();
                assert!(!text.contains(data) && !text.contains("zygote"), "{}: {text}", name(what));
            }
        }
        // Mended by an update, it works.
        let fixed = json!({ "FunctionName": name("broken"), "ZipFile": mayfly_testkit::zip_base64(language.files) });
        p.must("UpdateFunctionCode", fixed);
        p.must("UpdateFunctionConfiguration", json!({ "FunctionName": name("broken"), "Timeout": 2 }));
        let answer = p.invoke(&name("broken"), &json!({ "do": "echo", "value": "mended" }));
        assert_eq!(answer.value(), "mended", "{:?}", answer.result);
    }
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn six_megabytes_go_in_and_out_and_not_a_byte_more() {
    let Some(p) = platform() else { return };
    for language in &LANGUAGES {
        let name = language.name;
        deploy(&p, language, name, language.files, &json!({ "Timeout": 2 }));
        // The quotes of a JSON text count.
        let event = |bytes: usize| {
            let frame = json!({ "do": "echo", "value": "" }).to_string().len();
            json!({ "do": "echo", "value": "y".repeat(bytes - frame) })
        };
        let answer = p.invoke(name, &event(PAYLOAD_BYTES_MAX));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.result.to_string().chars().take(400).collect::<String>());
        assert!(answer.value().as_str().unwrap().len() > PAYLOAD_BYTES_MAX - 100, "{name}");
        let more = event(PAYLOAD_BYTES_MAX + 1).to_string();
        let refused = p.fails("Invoke", json!({ "FunctionName": name, "ClientContext": more }));
        assert_eq!(refused, "InvalidParameter.RequestTooLarge", "{name}");
        let out = |bytes: usize| p.invoke(name, &json!({ "do": "large", "size": bytes - 2 }));
        assert_eq!(out(PAYLOAD_BYTES_MAX).status(), 200, "{name}");
        let refused = out(PAYLOAD_BYTES_MAX + 1);
        assert_eq!(refused.status(), 407, "{name}: {}", refused.value());
        assert_eq!(p.invoke(name, &json!({ "do": "echo", "value": 1 })).value(), json!(1), "{name}: it goes on");
        let large = "z".repeat(128 * 1024);
        let event =
            json!({ "FunctionName": name, "InvocationType": "Event", "ClientContext": json!(large).to_string() });
        assert_eq!(p.fails("Invoke", event), "InvalidParameter.RequestTooLarge", "{name}");
    }
    let odd = p.fails("Invoke", json!({ "FunctionName": "py", "ClientContext": "{not json" }));
    assert!(odd.starts_with("InvalidParameter"), "{odd}");
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn files_layers_and_variables_are_where_the_contract_says() {
    let Some(p) = platform() else { return };
    let layer = |name: &str, files: &[(&str, &str)]| {
        let content = json!({ "ZipFile": mayfly_testkit::zip_base64(files) });
        let runtimes = json!(["Python3.9", "Nodejs18.15", "CustomRuntime"]);
        let request = json!({ "LayerName": name, "CompatibleRuntimes": runtimes, "Content": content });
        p.must("PublishLayerVersion", request)["LayerVersion"].clone()
    };
    let lower = layer("lower", &[("both", "lower "), ("only", "kept")]);
    let upper = layer("upper", &[("both", "upper "), ("python/in_layer.py", "VALUE = 7\n")]);
    let layers =
        json!([{ "LayerName": "lower", "LayerVersion": lower }, { "LayerName": "upper", "LayerVersion": upper }]);
    let turned = json!([layers[1], layers[0]]);
    for language in &LANGUAGES {
        let name = language.name;
        let variables = json!({ "Variables": [{ "Key": "MY_VALUE", "Value": "a=b;ü" }, { "Key": "TZ", "Value": "Asia/Shanghai" }] });
        deploy(
            &p,
            language,
            name,
            language.files,
            &json!({ "Timeout": 2, "Layers": layers, "Environment": variables }),
        );
        let files = p.invoke(name, &json!({ "do": "files" })).value();
        let expected = json!({
            "cwd": "/var/user", "code": true, "opt": "upper kept", "/var/user/x": false, "/opt/x": false, "/tmp/x": true
        });
        assert_eq!(files, expected, "{name}");
        p.must("UpdateFunctionConfiguration", json!({ "FunctionName": name, "Layers": turned }));
        assert_eq!(
            p.invoke(name, &json!({ "do": "files" })).value()["opt"],
            "lower kept",
            "{name}: later ones overwrite"
        );
        let environment = p.invoke(name, &json!({ "do": "environment" })).value();
        for (key, value) in [
            ("MY_VALUE", "a=b;ü"),
            ("TZ", "Asia/Shanghai"),
            ("SCF_RUNTIME", language.runtime),
            ("SCF_FUNCTIONNAME", name),
            ("SCF_FUNCTIONVERSION", "$LATEST"),
            ("SCF_NAMESPACE", "default"),
            ("TENCENTCLOUD_RUNENV", "SCF"),
            ("USER_CODE_ROOT", "/var/user/"),
            ("_SCF_SERVER_PORT", "28902"),
            ("HOME", "/home/qcloud"),
            ("USER", "qcloud"),
        ] {
            assert_eq!(environment[key], value, "{name}: {key} in {environment}");
        }
        let foreign: Vec<&String> = environment
            .as_object()
            .unwrap()
            .keys()
            .filter(|k| k.starts_with("MAYFLY") || k.contains("SECRET"))
            .collect();
        assert!(foreign.is_empty(), "{name}: {foreign:?}");
    }
    let import = "import in_layer\ndef main_handler(e, c):\n    return in_layer.VALUE\n";
    p.create("imports", "Python3.9", "index.main_handler", &[("index.py", import)], json!({ "Layers": layers }));
    assert_eq!(p.invoke("imports", &json!(1)).value(), json!(7), "a layer's modules can be imported");
    // Whoever is bound to a layer's version keeps it when it is deleted.
    p.must("DeleteLayerVersion", json!({ "LayerName": "upper", "LayerVersion": upper }));
    p.must("UpdateFunctionConfiguration", json!({ "FunctionName": "imports", "MemorySize": 256 }));
    assert_eq!(p.invoke("imports", &json!(1)).value(), json!(7), "a new instance still has it");
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn the_context_and_the_older_forms_of_handlers() {
    let Some(p) = platform() else { return };
    for language in &LANGUAGES[..2] {
        let name = language.name;
        let more = json!({ "Timeout": 7, "MemorySize": 256 });
        p.create(name, language.runtime, "index.context_handler", language.files, more);
        let answer = p.invoke(name, &json!({}));
        let context = answer.value();
        for (key, value) in [
            ("function_name", json!(name)),
            ("function_version", json!("$LATEST")),
            ("namespace", json!("default")),
            ("memory_limit_in_mb", json!(256)),
            ("time_limit_in_ms", json!(7000)),
            ("request_id", answer.result["FunctionRequestId"].clone()),
            ("tencentcloud_region", json!("ap-guangzhou")),
        ] {
            assert_eq!(context[key], value, "{name}: {key} in {context}");
        }
        let environment: Value = serde_json::from_str(context["environment"].as_str().unwrap()).unwrap();
        assert_eq!(environment["SCF_FUNCTIONNAME"], name, "{name}");
        assert!(context["environ"].as_str().unwrap().contains("SCF_NAMESPACE=default"), "{name}: {context}");
    }
    p.create("callback", "Nodejs18.15", "index.callback_handler", &[("index.js", NODE)], json!({}));
    assert_eq!(p.invoke("callback", &json!({ "do": "echo", "value": "called back" })).value(), "called back");
    assert_eq!(p.invoke("callback", &json!({ "do": "throw" })).status(), 430);
    let module = "let n = 0;\nexport const main_handler = async (e) => { if (e === 1) { Promise.reject(new Error('nobody waits')); await new Promise(r => setTimeout(r, 500)); } return ++n; };\n";
    p.create("module", "Nodejs18.15", "index.main_handler", &[("index.mjs", module)], json!({}));
    assert_eq!(p.invoke("module", &json!(0)).value(), json!(1));
    let unhandled = p.invoke("module", &json!(1));
    assert!(unhandled.status() == 430 || unhandled.status() == 439, "{:?}", unhandled.result);
    assert!(unhandled.value().to_string().contains("nobody waits") || unhandled.log().contains("nobody waits"));
    // What cannot be told in JSON, and what is not a function.
    let odd = "VALUE = 3\ndef main_handler(e, c):\n    return {'nan': float('nan')} if e else {1, 2}\n";
    p.create("odd", "Python3.9", "index.main_handler", &[("index.py", odd)], json!({}));
    for event in [json!(true), json!(false)] {
        let answer = p.invoke("odd", &event);
        assert_eq!(answer.status(), 430, "{:?}", answer.result);
        assert!(answer.value()["errorMessage"].as_str().unwrap().contains("JSON"), "{}", answer.value());
    }
    p.create("value", "Python3.9", "index.VALUE", &[("index.py", odd)], json!({}));
    assert_eq!(p.invoke("value", &json!(1)).status(), 437);
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn a_slow_import_is_paid_once_by_five_callers() {
    let Some(p) = platform() else { return };
    let code = "import time, uuid\nSTARTED = time.monotonic_ns()\ntime.sleep(0.3)\nLOADS = [uuid.uuid4().hex]\ndef main_handler(e, c):\n    time.sleep(0.4)\n    return [STARTED, LOADS, uuid.uuid4().hex]\n";
    let burst = |name: &str, more: Value| -> (Vec<Value>, std::time::Duration) {
        p.create(name, "Python3.9", "index.main_handler", &[("index.py", code)], more);
        let begun = std::time::Instant::now();
        let answers = std::thread::scope(|s| {
            let calls: Vec<_> = (0..5).map(|_| s.spawn(|| p.invoke(name, &json!(1)).value())).collect();
            calls.into_iter().map(|c| c.join().unwrap()).collect()
        });
        (answers, begun.elapsed())
    };
    let distinct = |answers: &[Value], i: usize| {
        answers.iter().map(|a| a[i].to_string()).collect::<std::collections::BTreeSet<_>>().len()
    };
    let (once, took) = burst("once", json!({}));
    assert_eq!((distinct(&once, 0), distinct(&once, 1), distinct(&once, 2)), (1, 1, 5), "{once:?}");
    println!("five callers of one import of 300 ms and 400 ms of work: {took:?}");
    let (each, took) = burst("each", json!({ "ForkMode": "off" }));
    assert_eq!((distinct(&each, 0), distinct(&each, 1), distinct(&each, 2)), (5, 5, 5), "{each:?}");
    println!("the same without forking: {took:?}");
    assert_eq!(p.stop(), Some(0));
}
