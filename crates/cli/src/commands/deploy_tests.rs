use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;

fn wanted(manifest: &str, flags: &str) -> Result<(Wanted, Vec<String>), CliError> {
    let dir = tempfile::tempdir().unwrap();
    let code = dir.path().join("my-function");
    std::fs::create_dir(&code).unwrap();
    std::fs::write(code.join("mayfly.yml"), manifest).unwrap();
    let line = format!("mayfly deploy {} {flags}", code.display());
    let Command::Deploy(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
        panic!("not deploy")
    };
    Wanted::read(&args)
}

fn variable(key: &str, value: &str) -> Variable {
    Variable { key: key.into(), value: value.into() }
}

#[test]
fn flags_win_over_the_file() {
    let (found, notes) = wanted(
        "memory: 256\ntimeout: 5\nlayers: [\"a:1\"]\nenvironment: {A: 1, B: 2}\n",
        "--memory 512 --layer b:2 --env B=3 --env C=4",
    )
    .unwrap();
    assert_eq!((found.memory, found.timeout), (Some(512), Some(5)));
    assert_eq!(found.layers.clone().unwrap()[0].layer_name, "b");
    let variables = found.variables(&[variable("OLD", "x")]).unwrap().variables;
    assert_eq!(variables, [variable("A", "1"), variable("B", "3"), variable("C", "4")]);
    assert_eq!((found.name.as_str(), notes.len()), ("my-function", 1));
    assert!(wanted("", "--name 1x").unwrap_err().hint.contains("--name"));
    assert!(wanted("memory: 100", "").unwrap_err().hint.contains("128"));
    assert!(wanted("layers: [x]", "").is_err());
}

#[test]
fn variables_of_flags_alone_join_those_there_are() {
    let (found, _) = wanted("", "--env B=2").unwrap();
    let variables = found.variables(&[variable("A", "1"), variable("B", "1")]).unwrap().variables;
    assert_eq!(variables, [variable("A", "1"), variable("B", "2")]);
    assert!(wanted("", "").unwrap().0.variables(&[variable("A", "1")]).is_none());
}

#[test]
fn only_differences_are_sent() {
    let now = Function {
        memory_size: 128,
        timeout: 3,
        environment: Environment { variables: vec![variable("B", "2"), variable("A", "1")] },
        public_net_config: public_net(true),
        ..Default::default()
    };
    let same = "memory: 128\ntimeout: 3\nenvironment: {A: 1, B: 2}\npublicNet: true\nfork: auto\n";
    let (update, names) = wanted(same, "").unwrap().0.changes(&now);
    assert_eq!(names, Vec::<&str>::new());
    assert_eq!(serde_json::to_string(&update).unwrap(), r#"{"FunctionName":"my-function","Namespace":"default"}"#);
    let other = "memory: 256\nenvironment: {A: 1}\npublicNet: false\nfork: off\ndescription: d\nrole: r\n";
    let (update, names) = wanted(other, "").unwrap().0.changes(&now);
    assert_eq!(names, ["Description", "Role", "MemorySize", "Environment", "PublicNetConfig", "ForkMode"]);
    assert_eq!(update.public_net_config.unwrap().public_net_status, "DISABLE");
    let (_, names) = wanted("description: d\npublish: true\n", "").unwrap().0.changes(&now);
    assert_eq!(names, Vec::<&str>::new());
}

#[test]
fn versions_are_compared_by_what_matters() {
    let one = Function { handler: "index.handler".into(), description: "x".into(), ..Default::default() };
    let two = Function { fork_mode: "auto".into(), description: "y".into(), ..one.clone() };
    assert!(same_settings(&one, &two));
    assert!(!same_settings(&one, &Function { timeout: 9, ..one.clone() }));
    assert!(!same_settings(&one, &Function { fork_mode: "off".into(), ..one.clone() }));
}
