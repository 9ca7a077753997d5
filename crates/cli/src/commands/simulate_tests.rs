use super::*;
use crate::cli::{Cli, Command};
use crate::output::table;
use clap::Parser;

fn parse(line: &str) -> SimulateArgs {
    match Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}")).command {
        Command::Simulate(args) => args,
        other => panic!("{other:?}"),
    }
}

/// Two applications of eight minutes: one busy every third minute, one twice in the fourth minute.
const TRACE: &str = "\
app,memory_mb,invocations,m0,m1,m2,m3,m4,m5,m6,m7
a,1024,3,1,0,0,1,0,0,1,0
b,512,2,0,0,0,2,0,0,0,0
";

#[test]
fn options_are_of_all_runtimes_or_of_one() {
    let args = parse(
        "mayfly simulate --trace x --cold-ms Java11=900 --cold-ms 250 --restore-ms Java11=80 --parked-from first-start -o table",
    );
    let options = options(&args);
    let java = options.by_runtime["Java11"];
    assert_eq!((options.times.cold_ms, options.times.restore_ms), (250.0, 15.0));
    assert_eq!((java.cold_ms, java.restore_ms), (900.0, 80.0));
    assert!(!options.parked_at_deploy);
    for line in [
        "mayfly simulate",
        "mayfly simulate --trace x --policy best",
        "mayfly simulate --trace x --cold-ms soon",
        "mayfly simulate --trace x --policy keepalive-99999999m",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn fixed_ones_are_always_shown_and_none_twice() {
    let args = parse("mayfly simulate --trace x --policy keepalive-10m,eager,keepalive-10m");
    let names: Vec<String> = policies(&args.policies).unwrap().iter().map(Policy::to_string).collect();
    assert_eq!(names, ["keepalive-10m", "eager", "keepalive-5m", "keepalive-60m", "keepalive-240m"]);
    assert!(policies(&[]).unwrap().starts_with(&POLICIES));
    let many: Vec<Policy> = (100..140).map(|minutes| Policy::KeepAlive { minutes }).collect();
    assert!(policies(&many).is_err());
}

#[test]
fn the_table() {
    let trace = Trace::read(TRACE.as_bytes(), &TraceLimits::default()).unwrap();
    let options = SimulateOptions::default();
    let asked: Vec<Policy> = ["off", "keepalive-2m", "keepalive-10m", "parked-0"].map(|p| p.parse().unwrap()).into();
    let reports: Vec<Report> = asked.iter().map(|p| simulate(&trace, *p, &options).unwrap()).collect();
    insta::assert_snapshot!(table(&HEADER, rows(&reports), None), @r"
    POLICY         COLD  RATE      x10m  APP P50  APP P75  RESTORES  AHEAD  WAIT P50  P99     P99.9   > 200 ms   GB·s HELD  x10m
    off            5     100.00 %  1.67  100.0 %  100.0 %  0         0      330 ms    330 ms  330 ms  100.000 %  240        0.31
    keepalive-2m   5     100.00 %  1.67  100.0 %  100.0 %  0         0      330 ms    330 ms  330 ms  100.000 %  660        0.85
    keepalive-10m  3     60.00 %   1.00  66.7 %   83.3 %   0         0      330 ms    330 ms  330 ms  60.000 %   780        1.00
    parked-0       0     0.00 %    0.00  0.0 %    0.0 %    5         0      15 ms     19 ms   19 ms   0.000 %    245        0.31
    (used)                                                                                                       240        0.31
    ");
}

#[test]
fn errors_name_the_file_and_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.csv");
    std::fs::write(&file, TRACE.replace("b,512", "b,-512")).unwrap();
    let out = Output {
        format: crate::output::Format::Text,
        quiet: true,
        stdout_is_terminal: false,
        stderr_is_terminal: false,
    };
    let mut args = parse("mayfly simulate --trace x");
    args.trace = file;
    let message = run(&args, out).unwrap_err().to_string();
    assert!(message.contains("bad.csv: line 3, column \"memory_mb\": \"-512\" is not a number of MB"), "{message}");
    args.trace = folder.path().join("none.csv");
    assert!(run(&args, out).unwrap_err().to_string().contains("cannot be read"));
}
