//! The runtimes that not every machine has (PHP, Go, Java), by the same contract as Python and Node.js: `docs/runtime-contract.md`.

use mayfly_testkit::{Platform, Setup, can_sandbox};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Bytes of the largest event and the largest answer.
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

type Files = Vec<(String, Vec<u8>)>;

/// One language, and functions written in it that do the same as those of the others.
struct Language {
    runtime: &'static str,
    handler: &'static str,
    /// Does what the event's `do` says.
    files: Files,
    memory_mb: u32,
    /// What an uncaught error is called, and what its stack names.
    error: (&'static str, &'static str),
    /// A package that cannot be loaded, the status that gives, and what the answer shows of it.
    broken: (Files, u64, &'static str),
    /// A package that ends while it is loaded.
    ends: Files,
    /// A package that never finishes loading.
    stuck: Files,
    /// A package without the handler.
    empty: Files,
}

fn text(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// True when `program` is there. Says loudly when not; where `CI` is set that is a failure.
fn has(program: &str, language: &str) -> bool {
    let found = Path::new(program).exists();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing: tests of {language} need it, and CI has it");
        eprintln!("SKIPPED: tests of {language} need {program}");
    }
    found
}

const PHP: &str = r#"<?php
$calls = 0;
function deeper() { throw new RangeException('on purpose'); }
function main_handler($event, $context) {
    global $calls;
    switch ($event->do) {
        case 'throw': deeper();
        case 'exit': die('last words');
        case 'hang': sleep(60); return;
        case 'large': return str_repeat('x', $event->size);
        case 'count': return ++$calls;
        case 'print':
            echo "to stdout {$event->text}\n";
            fwrite(STDERR, "to stderr {$event->text}\n");
            ob_start();
            print_r(['held' => 'back']);
            return null;
        case 'environment': return getenv();
        case 'files':
            $found = ['cwd' => getcwd(), 'code' => file_exists('/var/task/data.txt')];
            foreach (['/var/user/x', '/tmp/x'] as $path) $found[$path] = @file_put_contents($path, '') !== false;
            return $found;
        case 'context': return $context;
        default: return $event->value ?? null;
    }
}
"#;

fn php() -> Option<Language> {
    has("/usr/bin/php", "PHP").then(|| Language {
        runtime: "Php7.4",
        handler: "index.main_handler",
        files: text(&[("index.php", PHP), ("data.txt", "data")]),
        memory_mb: 128,
        error: ("RangeException", "/var/user/index.php:3"),
        broken: (text(&[("index.php", "<?php\nrequire 'nonesuch.php';\n")]), 443, "nonesuch"),
        ends: text(&[("index.php", "<?php\nexit(1);\n")]),
        stuck: text(&[("index.php", "<?php\nsleep(60);\n")]),
        empty: text(&[("index.php", "<?php\nfunction other() {}\n")]),
    })
}

/// Builds the Go program in `folder` of the tests' support, as `main` or whatever `name` says. `None`: it cannot be, and that was said.
fn go_program(folder: &str, name: &str) -> Option<(String, Vec<u8>)> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/go").join(folder);
    let found = ["/usr/local/go/bin/go", "/usr/bin/go"].into_iter().find(|p| Path::new(p).exists());
    if !has(found.unwrap_or("/usr/bin/go"), "Go") {
        return None;
    }
    // Go's own cache makes the second build of a program quick; two at a time would do it twice.
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("main");
    let output = Command::new(found?)
        .args(["build", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(&folder)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .output()
        .unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let offline = said.contains("dial tcp") || said.contains("proxy") || said.contains("lookup");
        assert!(offline && std::env::var_os("CI").is_none(), "{}: {said}", folder.display());
        eprintln!("SKIPPED: {} needs packages that cannot be had: {said}", folder.display());
        return None;
    }
    Some((name.to_owned(), std::fs::read(&program).unwrap()))
}

fn go() -> Option<Language> {
    let data = || ("data.txt".to_owned(), b"data".to_vec());
    let script = |text: &str| vec![("main".to_owned(), format!("#!/bin/sh\n{text}\n").into_bytes())];
    Some(Language {
        runtime: "Go1",
        handler: "main",
        files: vec![go_program("rpc", "main")?, data()],
        memory_mb: 128,
        error: ("RangeError", ""),
        broken: (script("echo no nonesuch here\nexit 1"), 445, "nonesuch"),
        ends: script("exit 1"),
        stuck: script("sleep 60"),
        empty: vec![("other".to_owned(), b"#!/bin/sh\n".to_vec())],
    })
}

const JAVA: &str = r#"
package example;
import java.nio.file.*;
import java.util.*;
import com.qcloud.scf.runtime.Context;
public class Hello {
    private int calls;
    static void deeper() { throw new IllegalStateException("on purpose"); }
    public Object mainHandler(Event e, Context context) throws Exception {
        switch (e.getDo()) {
            case "throw": deeper();
            case "exit": System.out.println("last words"); System.exit(3);
            case "hang": Thread.sleep(60000); return null;
            case "large": { char[] all = new char[e.getSize()]; Arrays.fill(all, 'x'); return new String(all); }
            case "count": return ++calls;
            case "print": System.out.println("to stdout " + e.getText()); System.err.print("to stderr " + e.getText() + "\n"); return null;
            case "environment": return System.getenv();
            case "files": {
                Map<String, Object> found = new LinkedHashMap<>();
                found.put("cwd", System.getProperty("user.dir"));
                found.put("code", new java.io.File("data.txt").exists() && Files.exists(Path.of("/var/task/data.txt")));
                for (String path : List.of("/var/user/x", "/tmp/x")) {
                    boolean done = true;
                    try { Files.writeString(Path.of(path), ""); } catch (java.io.IOException x) { done = false; }
                    found.put(path, done);
                }
                return found;
            }
            case "context": {
                Map<String, Object> all = new HashMap<>();
                all.put("request_id", context.getRequestId());
                all.put("memory_limit_in_mb", context.getMemoryLimitInMb());
                all.put("time_limit_in_ms", context.getTimeLimitInMs());
                all.put("function_name", System.getenv("SCF_FUNCTIONNAME"));
                all.put("function_version", System.getenv("SCF_FUNCTIONVERSION"));
                all.put("namespace", System.getenv("SCF_NAMESPACE"));
                return all;
            }
            default: return e.getValue();
        }
    }
    // The forms of handlers.
    public String greet(String name) { return String.format("Hello %s.", name); }
    public static int twice(int n) { return 2 * n; }
    public void nothing() {}
    public String id(Context context) { return context.getRequestId(); }
    public Map<String, List<Point>> points(Map<String, List<Point>> all) { all.get("a").get(0).x++; return all; }
    public Reply pojo(Request request) { return new Reply("Hello " + request.person.firstName + " from " + request.city); }
    public Object odd(String what) {
        if (what.equals("itself")) { List<Object> list = new ArrayList<>(); list.add(list); return list; }
        if (what.equals("nan")) return Double.NaN;
        if (what.equals("memory")) { List<byte[]> all = new ArrayList<>(); while (true) all.add(new byte[1 << 20]); }
        if (what.equals("cause")) try { deeper(); } catch (RuntimeException e) { throw new RuntimeException("outside", e); }
        if (what.equals("deep")) return odd("deep");
        return what;
    }
    public static class Event {
        private String what, text; private int size; private Object value;
        public String getDo() { return what; } public void setDo(String s) { what = s; }
        public String getText() { return text; } public void setText(String s) { text = s; }
        public int getSize() { return size; } public void setSize(int n) { size = n; }
        public Object getValue() { return value; } public void setValue(Object v) { value = v; }
    }
    public static class Point { public int x; public long y; public Double z; }
    public static class Person { String firstName; public void setFirstName(String s) { firstName = s; } }
    public static class Request { Person person; String city; public void setPerson(Person p) { person = p; } }
    public static class Reply {
        private final String greetings; private String unset;
        Reply(String s) { greetings = s; } public String getGreetings() { return greetings; } public String getUnset() { return unset; }
    }
}
"#;

/// Compiles Java sources, given by their paths, against SCF's interface, and returns the classes. `None`: there is no JDK, and that was said.
fn java_classes(sources: &[(&str, &str)]) -> Option<Files> {
    if !has("/usr/bin/javac", "Java") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let interface = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/java/api");
    let mut javac = Command::new("/usr/bin/javac");
    javac
        .args(["-nowarn", "-implicit:none", "--release", "11", "-sourcepath"])
        .arg(interface)
        .arg("-d")
        .arg(dir.path().join("out"));
    for (name, code) in sources {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, code).unwrap();
        javac.arg(path);
    }
    let output = javac.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = dir.path().join("out/example");
    let classes = std::fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (format!("example/{}", entry.file_name().to_str().unwrap()), std::fs::read(entry.path()).unwrap())
    });
    Some(classes.collect())
}

fn java() -> Option<Language> {
    let one = |body: &str| {
        let code = format!("package example;\npublic class Hello {{\n{body}\n}}\n");
        java_classes(&[("example/Hello.java", &code)])
    };
    let handler = "public String mainHandler(String s) { return s; }";
    let mut files = java_classes(&[("example/Hello.java", JAVA)])?;
    files.push(("data.txt".to_owned(), b"data".to_vec()));
    Some(Language {
        runtime: "Java8",
        handler: "example.Hello::mainHandler",
        files,
        memory_mb: 256,
        error: (
            "java.lang.IllegalStateException",
            "\tat example.Hello.deeper(Hello.java:8)\n\tat example.Hello.mainHandler",
        ),
        broken: (one(&format!("static int x = Integer.parseInt(\"nonesuch\"); {handler}"))?, 443, "nonesuch"),
        ends: one(&format!("static {{ Runtime.getRuntime().halt(1); }} {handler}"))?,
        stuck: one(&format!(
            "static {{ try {{ Thread.sleep(60000); }} catch (InterruptedException e) {{}} }} {handler}"
        ))?,
        empty: one("public void other() {}")?,
    })
}

fn platform() -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).start()
}

fn deploy(p: &Platform, language: &Language, name: &str, files: &Files, more: &Value) {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let mut request = json!({
        "FunctionName": name, "Runtime": language.runtime, "Handler": language.handler, "MemorySize": language.memory_mb,
        "Code": { "ZipFile": mayfly_testkit::zip_base64(&files) }
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    p.must("CreateFunction", request);
}

/// Everything that the contract says of one language.
fn keeps_the_contract(language: Option<Language>) {
    if !can_sandbox() {
        return;
    }
    let Some(language) = language else { return };
    let p = platform();
    endings(&p, &language);
    failing_starts(&p, &language);
    payloads(&p, &language);
    surroundings(&p, &language);
    assert_eq!(p.stop(), Some(0));
}

fn endings(p: &Platform, language: &Language) {
    deploy(p, language, "endings", &language.files, &json!({ "Timeout": 2 }));
    let call = |event: Value| p.invoke("endings", &event);
    let texts = [json!(""), json!("héllo 世界 🦟 \u{2028}\"\\\u{1}"), json!("a/b")];
    let values = [json!(null), json!(0), json!(-7), json!([1.5, -0.25, { "a": [], "b": {} }]), json!({ "k": true })];
    for value in texts.into_iter().chain(values) {
        let answer = call(json!({ "do": "echo", "value": value }));
        assert_eq!((answer.status(), answer.value()), (200, value), "{:?}", answer.result);
    }
    let before = call(json!({ "do": "count" })).value().as_u64().unwrap();
    let thrown = call(json!({ "do": "throw" }));
    assert_eq!(thrown.status(), 430, "{:?}", thrown.result);
    let told = thrown.value();
    assert_eq!(told["errorType"], language.error.0, "{told}");
    assert!(told["errorMessage"].as_str().unwrap().contains("on purpose"), "{told}");
    let stack = told["stackTrace"].as_str().unwrap_or("");
    assert!(stack.contains(language.error.1), "{told}");
    assert!(!stack.contains("/var/runtime") && !stack.to_lowercase().contains("mayfly"), "frames of ours: {told}");
    assert!(thrown.log().contains("ERROR RequestId"), "{}", thrown.log());
    assert_eq!(call(json!({ "do": "count" })).value(), json!(before + 1), "an exception keeps the instance");

    for (what, status) in [("exit", 439), ("hang", 433)] {
        let ended = call(json!({ "do": what }));
        assert_eq!(ended.status(), status, "{what}: {:?}", ended.result);
        assert!(what != "exit" || ended.log().contains("last words"), "{}", ended.log());
        assert_eq!(call(json!({ "do": "count" })).value(), json!(1), "another instance after {what}");
    }

    let printed = call(json!({ "do": "print", "text": "wörd" }));
    let lines = ["START RequestId:", "to stdout wörd", "Response RequestId:", "END RequestId:", "Report RequestId:"];
    let places: Vec<Option<usize>> = lines.iter().map(|l| printed.log().find(l)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", printed.log());
    assert!(printed.log().contains("to stderr wörd"), "{}", printed.log());
    assert!(!call(json!({ "do": "echo" })).log().contains("wörd"), "a log has its own call's lines only");
}

fn failing_starts(p: &Platform, language: &Language) {
    let (quick, patient) = (json!({ "InitTimeout": 1 }), json!({ "InitTimeout": 20 }));
    let nothing = text(&[("unrelated.txt", "x")]);
    let cases = [
        ("broken", &language.broken.0, &patient, language.broken.1),
        ("ends", &language.ends, &patient, 445),
        ("stuck", &language.stuck, &quick, 450),
        ("empty", &language.empty, &patient, 437),
        ("nothing", &nothing, &patient, 437),
    ];
    for (what, files, more, status) in cases {
        deploy(p, language, what, files, more);
        // Each call tries anew, and says the same.
        for _ in 0..2 {
            let answer = p.invoke(what, &json!({}));
            assert_eq!(answer.status(), status, "{what}: {:?}", answer.result);
            let text = answer.value().to_string();
            assert!(what != "broken" || text.contains(language.broken.2), "{what}: {text}");
            assert!(!text.contains(p.data.to_str().unwrap()), "{what}: {text}");
        }
    }
}

fn payloads(p: &Platform, language: &Language) {
    deploy(p, language, "payloads", &language.files, &json!({ "Timeout": 10 }));
    // The quotes of a JSON text count.
    let frame = json!({ "do": "echo", "value": "" }).to_string().len();
    let answer = p.invoke("payloads", &json!({ "do": "echo", "value": "y".repeat(PAYLOAD_BYTES_MAX - frame) }));
    assert_eq!(answer.status(), 200, "{}", answer.result.to_string().chars().take(400).collect::<String>());
    assert!(answer.value().as_str().unwrap().len() > PAYLOAD_BYTES_MAX - 100);
    let out = |bytes: usize| p.invoke("payloads", &json!({ "do": "large", "size": bytes - 2 }));
    assert_eq!(out(PAYLOAD_BYTES_MAX).status(), 200);
    let refused = out(PAYLOAD_BYTES_MAX + 1);
    assert_eq!(refused.status(), 407, "{}", refused.value().to_string().chars().take(400).collect::<String>());
    assert_eq!(p.invoke("payloads", &json!({ "do": "echo", "value": 1 })).value(), json!(1), "it goes on");
}

fn surroundings(p: &Platform, language: &Language) {
    let variables =
        json!({ "Variables": [{ "Key": "MY_VALUE", "Value": "a=b;ü" }, { "Key": "TZ", "Value": "Asia/Shanghai" }] });
    deploy(p, language, "around", &language.files, &json!({ "Timeout": 7, "Environment": variables }));
    let files = p.invoke("around", &json!({ "do": "files" })).value();
    assert_eq!(files, json!({ "cwd": "/var/user", "code": true, "/var/user/x": false, "/tmp/x": true }));
    let environment = p.invoke("around", &json!({ "do": "environment" })).value();
    for (key, value) in [
        ("MY_VALUE", "a=b;ü"),
        ("TZ", "Asia/Shanghai"),
        ("SCF_RUNTIME", language.runtime),
        ("SCF_FUNCTIONNAME", "around"),
        ("SCF_FUNCTIONVERSION", "$LATEST"),
        ("SCF_NAMESPACE", "default"),
        ("TENCENTCLOUD_RUNENV", "SCF"),
        ("USER_CODE_ROOT", "/var/user/"),
        ("HOME", "/home/qcloud"),
    ] {
        assert_eq!(environment[key], value, "{key} in {environment}");
    }
    let keys = environment.as_object().unwrap().keys();
    let foreign: Vec<&String> = keys.filter(|k| k.starts_with("MAYFLY") || k.contains("SECRET")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    let answer = p.invoke("around", &json!({ "do": "context" }));
    let context = answer.value();
    for (key, value) in [
        ("function_name", json!("around")),
        ("function_version", json!("$LATEST")),
        ("namespace", json!("default")),
        ("memory_limit_in_mb", json!(language.memory_mb)),
        ("time_limit_in_ms", json!(7000)),
        ("request_id", answer.result["FunctionRequestId"].clone()),
    ] {
        assert_eq!(context[key], value, "{key} in {context}");
    }
}

#[test]
fn php_keeps_the_contract() {
    keeps_the_contract(php());
}

#[test]
fn php_tells_what_it_cannot_catch_and_leaves_nothing_behind() {
    if !can_sandbox() || !has("/usr/bin/php", "PHP") {
        return;
    }
    let p = platform();
    let code = r#"<?php
register_shutdown_function(function () { echo "shut down\n"; });
function main_handler($event, $context) {
    switch ($event->do) {
        case 'fatal': eval('function main_handler() {}'); return;
        case 'undefined': return nonesuch();
        case 'warning': return [1][7];
        case 'bytes': return "\xff";
        case 'nan': return NAN;
        case 'closure': return function () {};
        case 'child':
            $pid = pcntl_fork();
            if ($pid === 0) return 'from the child';
            pcntl_waitpid($pid, $status);
            return 'from the parent';
        case 'globals': return [$_SERVER['argv'], $_ENV['SCF_RUNTIME'], isset($GLOBALS['thrown']), ini_get('memory_limit')];
        case 'extensions': return [ctype_digit('12'), date_default_timezone_get(), get_include_path()];
        case 'memory': $all = []; while (true) $all[] = str_repeat('x', 1 << 20);
    }
}
"#;
    p.create("odd", "Php8.0", "index.main_handler", &[("index.php", code)], json!({ "Timeout": 5, "MemorySize": 128 }));
    let call = |what: &str| p.invoke("odd", &json!({ "do": what }));
    let fatal = call("fatal");
    let told = fatal.value();
    assert_eq!((fatal.status(), told["errorType"].as_str()), (430, Some("FatalError")), "{told}");
    assert!(told["errorMessage"].as_str().unwrap().contains("Cannot redeclare"), "{told}");
    assert!(fatal.log().contains("shut down"), "{}", fatal.log());
    let undefined = call("undefined").value();
    assert_eq!((undefined["statusCode"].as_u64(), undefined["errorType"].as_str()), (Some(430), Some("Error")));
    let warned = call("warning");
    assert_eq!((warned.status(), warned.value()), (200, json!(null)));
    assert!(
        warned.log().contains("Warning: Undefined array key 7 in /var/user/index.php on line 7"),
        "{}",
        warned.log()
    );
    for what in ["bytes", "nan"] {
        let answer = call(what);
        assert_eq!(answer.status(), 430, "{what}: {:?}", answer.result);
        assert!(answer.value()["errorMessage"].as_str().unwrap().contains("JSON"), "{what}: {}", answer.value());
    }
    assert_eq!(call("closure").value(), json!({}));
    assert_eq!(call("child").value(), "from the parent");
    assert_eq!(call("globals").value(), json!([["/var/user/index.php"], "Php8.0", false, "-1"]));
    assert_eq!(call("extensions").value(), json!([true, "UTC", ".:/var/user:/opt"]));
    assert_eq!(call("memory").status(), 434);
    assert_eq!(call("child").value(), "from the parent", "it starts anew");

    let load = |name: &str, code: &str| {
        p.create(name, "Php7", "index.main_handler", &[("index.php", code)], json!({}));
        p.invoke(name, &json!({})).value()
    };
    let parse = load("parse", "<?php\nfunction main_handler( {\n");
    assert_eq!((parse["statusCode"].as_u64(), parse["errorType"].as_str()), (Some(443), Some("ParseError")), "{parse}");
    let twice = load("twice", "<?php\neval('function f() {}');\neval('function f() {}');\n");
    assert_eq!((twice["statusCode"].as_u64(), twice["errorType"].as_str()), (Some(443), Some("FatalError")), "{twice}");
    assert_eq!(
        p.fails(
            "CreateFunction",
            json!({
                "FunctionName": "old", "Runtime": "Php5.6", "Handler": "index.main_handler",
                "Code": { "ZipFile": mayfly_testkit::zip_base64(&[("index.php", code)]) }
            })
        ),
        "InvalidParameterValue.Runtime"
    );
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn go_keeps_the_contract() {
    keeps_the_contract(go());
}

#[test]
fn go_programs_tell_panics_and_what_cannot_be_served() {
    if !can_sandbox() {
        return;
    }
    let Some(language) = go() else { return };
    let p = platform();
    deploy(&p, &language, "odd", &language.files, &json!({ "Timeout": 5, "MemorySize": 512 }));
    let call = |event: Value| p.invoke("odd", &event);
    assert_eq!(call(json!({ "do": "count" })).value(), json!(1));
    let panicked = call(json!({ "do": "panic" }));
    let told = panicked.value();
    assert_eq!((panicked.status(), told["errorMessage"].as_str()), (430, Some("in panic")), "{told}");
    let stack = told["stackTrace"].as_str().unwrap();
    let (first, rest) = stack.split_once("\n\n").unwrap();
    assert_eq!(first, "panic: in panic");
    let frames: Vec<&str> = rest.lines().filter(|l| !l.starts_with('\t')).collect();
    assert_eq!(frames, ["mayfly.example/contract/do.deeper(...)", "mayfly.example/contract/do.Do(...)"], "{stack}");
    assert!(rest.contains("do/do.go:26"), "{stack}");
    assert_eq!(call(json!({ "do": "count" })).value(), json!(1), "a program that panicked is not used again");
    // An event that the handler's types refuse.
    let refused = call(json!({ "do": 7 }));
    assert_eq!((refused.status(), refused.value()["errorType"].as_str()), (430, Some("UnmarshalTypeError")));
    // Longer than any frame: it is left out on the way, and the program goes on.
    let large = call(json!({ "do": "large", "size": 40 << 20 }));
    assert_eq!(large.status(), 407, "{}", large.value().to_string().chars().take(300).collect::<String>());
    assert_eq!(call(json!({ "do": "count" })).value(), json!(2));
    let context = call(json!({ "do": "context" })).value();
    assert!(context["deadline"].as_u64().unwrap() > 1_600_000_000, "{context}");
    assert!(context["environment"].as_str().unwrap().contains("\"SCF_NAMESPACE\":\"default\""), "{context}");
    assert_eq!(context["region"], "ap-guangzhou");
    let memory = "#!/usr/bin/python3\nx = bytearray(1 << 30)\n";
    let server = "#!/usr/bin/python3\nimport os, socket\ns = socket.create_server(('', int(os.environ['_LAMBDA_SERVER_PORT'])))\nc, _ = s.accept()\nc.sendall(b'SSH-2.0-x\\r\\n' * 20)\nc.recv(1 << 20)\ns.accept()\n";
    for (name, code, status) in [("memory", memory, 434), ("server", server, 445)] {
        deploy(&p, &language, name, &text(&[("main", code)]), &json!({ "InitTimeout": 5 }));
        let answer = p.invoke(name, &json!({}));
        assert_eq!(answer.status(), status, "{name}: {:?}", answer.result);
    }
    assert_eq!(p.stop(), Some(0));
}

/// AWS's library speaks both the protocol of SCF's and the Lambda Runtime API.
#[test]
fn go_programs_on_awss_library_run_both_ways() {
    if !can_sandbox() {
        return;
    }
    let Some((_, program)) = go_program("lambda", "main") else { return };
    let p = platform();
    for (name, runtime, file) in [("rpc", "Go1", "main"), ("api", "CustomRuntime", "bootstrap")] {
        let code = mayfly_testkit::zip_base64(&[(file, program.as_slice())]);
        let request = json!({ "FunctionName": name, "Runtime": runtime, "Handler": "main", "Timeout": 5, "Code": { "ZipFile": code } });
        p.must("CreateFunction", request);
        let call = |event: Value| p.invoke(name, &event);
        let value = json!({ "deep": ["ü", 1.5, null] });
        let answer = call(json!({ "do": "echo", "value": value }));
        assert_eq!((answer.status(), answer.value()), (200, value), "{name}: {:?}", answer.result);
        assert_eq!(call(json!({ "do": "count" })).value(), json!(1), "{name}");
        let thrown = call(json!({ "do": "throw" })).value();
        assert_eq!(
            (thrown["errorType"].as_str(), thrown["errorMessage"].as_str()),
            (Some("RangeError"), Some("on purpose"))
        );
        let panicked = call(json!({ "do": "panic" }));
        assert_eq!((panicked.status(), panicked.value()["errorMessage"].as_str()), (430, Some("in panic")), "{name}");
        assert!(panicked.value()["stackTrace"].to_string().contains("deeper"), "{name}: {}", panicked.value());
        assert_eq!(call(json!({ "do": "count" })).value(), json!(1), "{name}: another instance after a panic");
        let answer = call(json!({ "do": "context" }));
        let context = answer.value();
        assert_eq!(context["request_id"], answer.result["FunctionRequestId"], "{name}");
        assert_eq!((&context["function_name"], &context["memory_limit_in_mb"]), (&json!(name), &json!(128)), "{name}");
    }
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn java_keeps_the_contract() {
    keeps_the_contract(java());
}

#[test]
fn java_handlers_take_and_give_what_they_declare() {
    if !can_sandbox() {
        return;
    }
    let Some(language) = java() else { return };
    let p = platform();
    let mut jar = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in &language.files {
        jar.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut jar, bytes).unwrap();
    }
    let jar = jar.finish().unwrap().into_inner();
    // As it is, or in a jar beside others.
    let packed = vec![("lib/hello-1.0.jar".to_owned(), jar)];
    let call = |method: &str, event: Value| {
        let name = method.to_lowercase();
        if p.call("GetFunction", &json!({ "FunctionName": name })).get("Error").is_some() {
            let files = if method == "greet" { &packed } else { &language.files };
            let handler = format!("example.Hello::{method}");
            deploy(&p, &language, &name, files, &json!({ "Handler": handler, "Runtime": "Java11", "Timeout": 5 }));
        }
        p.invoke(&name, &event)
    };
    for (method, event, value) in [
        ("greet", json!("Ada"), json!("Hello Ada.")),
        ("greet", json!({ "no": ["text"] }), json!("Hello {\"no\":[\"text\"]}.")),
        ("twice", json!(21), json!(42)),
        ("nothing", json!({}), json!(null)),
        (
            "points",
            json!({ "a": [{ "x": 1, "y": 1_000_000_000_000_u64, "Z": 0.5, "w": 1 }], "b": [] }),
            json!({ "a": [{ "x": 2, "y": 1_000_000_000_000_u64, "z": 0.5 }], "b": [] }),
        ),
        (
            "pojo",
            json!({ "person": { "firstName": "bob" }, "city": "shenzhen" }),
            json!({ "greetings": "Hello bob from shenzhen" }),
        ),
        ("odd", json!("\u{1f99f}\u{7}"), json!("\u{1f99f}\u{7}")),
    ] {
        let answer = call(method, event);
        assert_eq!((answer.status(), answer.value()), (200, value), "{method}: {:?}", answer.result);
    }
    let id = call("id", json!(null));
    assert_eq!(id.value(), id.result["FunctionRequestId"]);
    for (method, event, part) in [
        ("twice", json!("x"), "cannot be made a int"),
        ("twice", json!(1.5), "cannot be made a int"),
        ("twice", json!(null), "cannot be made a int"),
        ("points", json!([]), "an array cannot be made a java.util.Map"),
        ("odd", json!("nan"), "cannot be expressed in JSON"),
        ("odd", json!("itself"), "cannot be expressed in JSON"),
    ] {
        let refused = call(method, event);
        assert_eq!(refused.status(), 430, "{method}: {:?}", refused.result);
        assert!(refused.value()["errorMessage"].as_str().unwrap().contains(part), "{method}: {}", refused.value());
    }
    let cause = call("odd", json!("cause")).value();
    let stack = cause["stackTrace"].as_str().unwrap();
    assert!(stack.starts_with("java.lang.RuntimeException: outside\n\tat example.Hello.odd"), "{stack}");
    assert!(
        stack.contains("Caused by: java.lang.IllegalStateException: on purpose\n\tat example.Hello.deeper"),
        "{stack}"
    );
    let deep = call("odd", json!("deep")).value();
    assert_eq!(
        (deep["statusCode"].as_u64(), deep["errorType"].as_str()),
        (Some(430), Some("java.lang.StackOverflowError"))
    );
    let memory = call("odd", json!("memory"));
    assert_eq!(memory.status(), 434, "{}", memory.value());
    assert_eq!(call("odd", json!("again")).value(), "again", "in another instance");
    assert_eq!(p.stop(), Some(0));
}
