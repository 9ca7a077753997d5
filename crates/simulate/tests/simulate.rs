//! Simulations checked by hand, on synthetic workloads, and on a real trace where one is at hand.

use mayfly_plan::policy::Policy;
use mayfly_simulate::{App, Report, SimulateOptions, StartTimes, Trace, TraceLimits, quantile, simulate};
use proptest::prelude::*;

fn read(text: &str) -> Result<Trace, String> {
    Trace::read(text.as_bytes(), &TraceLimits::default()).map_err(|e| e.to_string())
}

fn run(trace: &Trace, policy: &str) -> Report {
    simulate(trace, policy.parse().expect("a policy"), &SimulateOptions::default()).expect("valid options")
}

const SMALL: &str = "\
app,memory_mb,invocations,m0,m1,m2,m3,m4,m5,m6,m7
a,1024,4,1,0,0,1,0,0,0,1
b,512,10,0,2,1,0,0,0,3,0
";

#[test]
fn a_fixed_keep_alive_by_hand() {
    let trace = read(SMALL).expect("valid");
    let report = run(&trace, "keepalive-2m");
    // a: minute 0 cold; minute 3: the two minutes before had none, cold; minute 7 cold. b: 2 in minute 1, 3 in minute 6.
    assert_eq!((report.cold_starts, report.restores, report.invocations), (3 + 5, 0, 14));
    assert_eq!(report.cold_rate, 8.0 / 14.0);
    // a is held in minutes 0-5 and 7, b 2, 2, 2 in minutes 1-3, 1 in minute 4, 3, 3 in minutes 6 and 7.
    assert_eq!(report.gb_seconds_held, 60.0 * (7.0 + 0.5 * (2.0 + 2.0 + 2.0 + 1.0 + 3.0 + 3.0)));
    assert_eq!(report.gb_seconds_used, 60.0 * (3.0 + 0.5 * 6.0));
    assert_eq!((report.app_cold_rate_p50, report.app_cold_rate_p75), (0.625, 0.6875), "between 5/10 and 3/4");
    assert_eq!((report.wait_ms_p50, report.wait_ms_max, report.long_waits), (330.0, 330.0, 8));
    let long = run(&trace, "keepalive-10m");
    assert_eq!(long.cold_starts, 1 + 3, "what was needed once is there");
    assert_eq!((long.wait_ms_p50, long.wait_ms_p99), (0.0, 330.0));
}

#[test]
fn parked_instances_turn_cold_starts_into_restores() {
    let trace = read(SMALL).expect("valid");
    let options = SimulateOptions {
        times: StartTimes { cold_ms: 500.0, restore_ms: 10.0, restore_step_ms: 1.0 },
        parked_mb: 16.0,
        ..SimulateOptions::default()
    };
    let parked = Policy::Forecast { budget: 0.0, parked: true };
    let report = simulate(&trace, parked, &options).expect("valid");
    assert_eq!((report.cold_starts, report.restores, report.starts_ahead), (0, 9, 0));
    assert_eq!((report.wait_ms_max, report.long_waits), (12.0, 0), "the third of three at once");
    assert_eq!(report.gb_seconds_parked, 2.0 * 8.0 * 60.0 * 16.0 / 1024.0);
    assert_eq!(report.gb_seconds_held, report.gb_seconds_used + report.gb_seconds_parked);
    let late = simulate(&trace, parked, &SimulateOptions { parked_at_deploy: false, ..options }).expect("valid");
    assert_eq!((late.cold_starts, late.restores, late.wait_ms_max), (2, 7, 500.0), "the first start of each is cold");
}

#[test]
fn waits_depend_on_the_runtime() {
    let trace = read("runtime,app,memory_mb,invocations,m0\nJava11,a,128,1,1\nGo1,b,128,1,1\n").expect("valid");
    let mut options = SimulateOptions::default();
    options.by_runtime.insert("Java11".into(), StartTimes { cold_ms: 900.0, ..options.times });
    let report = simulate(&trace, Policy::KeepAlive { minutes: 1 }, &options).expect("valid");
    assert_eq!((report.wait_ms_p50, report.wait_ms_p99, report.long_waits), (330.0, 900.0, 2));
    options.times.cold_ms = f64::NAN;
    assert!(simulate(&trace, Policy::EAGER, &options).is_err());
    options.times.cold_ms = 1.0;
    options.parked_mb = -1.0;
    assert!(simulate(&trace, Policy::EAGER, &options).is_err());
}

#[test]
fn both_forms_say_the_same() {
    let long = "\
minute,function,demand,memory_mb,invocations
29000001,b,2,512,3
29000000,a,1,1024,2
29000002,b,1,512,1
29000003,a,1,1024,1
29000006,b,3,512,6
29000007,a,1,1024,1
";
    assert_eq!(read(long), read(SMALL));
    let counted = read("minute,function,memory_mb,demand\n5,f,128,2\n6,f,128,0\n").expect("valid");
    assert_eq!(
        counted.apps()[0],
        App { name: "f".into(), runtime: String::new(), memory_mb: 128.0, invocations: 2, demand: vec![2, 0] }
    );
    assert_eq!(
        read("\u{feff}app, memory_mb ,invocations,m0\r\na,141.5,3.0, 1.0\r\n").map(|t| t.apps()[0].demand.clone()),
        Ok(vec![1])
    );
}

#[test]
fn bad_traces_are_refused_with_the_place() {
    let header = "app,memory_mb,invocations,m0,m1\n";
    let cases = [
        ("", "no column \"app\""),
        ("app,memory_mb,m0\na,1,1\n", "no column \"invocations\""),
        ("app,memory_mb,invocations\na,1,1\n", "no column \"m0\""),
        ("app,memory_mb,invocations,m0,m2\na,1,1,1,1\n", "no column \"m1\""),
        (header, "no rows"),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1\n", "cannot be read"),
        (
            "app,memory_mb,invocations,m0,m1\na,128,1,1,-1\n",
            "line 2, column \"m1\": \"-1\" is not a whole number from 0 to 100000",
        ),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1,NaN\n", "\"NaN\" is not"),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1,inf\n", "\"inf\" is not"),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1,1e300\n", "\"1e300\" is not"),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1,0.5\n", "\"0.5\" is not"),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1,100001\n", "is not a whole number"),
        ("app,memory_mb,invocations,m0,m1\na,0,1,1,1\n", "column \"memory_mb\""),
        ("app,memory_mb,invocations,m0,m1\na,nan,1,1,1\n", "column \"memory_mb\""),
        ("app,memory_mb,invocations,m0,m1\na,99999999,1,1,1\n", "column \"memory_mb\""),
        ("app,memory_mb,invocations,m0,m1\na,128,-3,1,1\n", "column \"invocations\""),
        ("app,memory_mb,invocations,m0,m1\n,128,3,1,1\n", "column \"app\""),
        ("app,memory_mb,invocations,m0,m1\na,128,1,1,1\na,128,1,1,1\n", "line 3: application \"a\" is there twice"),
        ("minute,function,demand\n1,f,1\n", "no column \"memory_mb\""),
        ("minute,function,memory_mb,demand\n", "no rows"),
        (
            "minute,function,memory_mb,demand\n1,f,128,1\n1,f,128,1\n",
            "line 3: minute 1 of function \"f\" is there twice",
        ),
        ("minute,function,memory_mb,demand\n1,f,128,1\n2,f,256,1\n", "line 3: function \"f\" had another memory_mb"),
        ("minute,function,memory_mb,demand\n0,f,128,1\n4000000000,f,128,1\n", "more than 527040 minutes"),
        ("minute,function,memory_mb,demand\n-1,f,128,1\n", "column \"minute\""),
    ];
    for (text, message) in cases {
        let error = read(text).expect_err(text);
        assert!(error.contains(message), "{text:?}: {error}");
    }
    assert!(Trace::read(&b"app,memory_mb,invocations,m0\n\xff\xfe,1,1,1\n"[..], &TraceLimits::default()).is_err());
}

#[test]
fn limits_hold() {
    let limits = TraceLimits { bytes: 60, apps: 2, minutes: 3, cells: 4, ..TraceLimits::default() };
    let check = |text: &str| Trace::read(text.as_bytes(), &limits).map(|_| ()).map_err(|e| e.to_string());
    let says =
        |text: &str, what: &str| assert!(check(text).is_err_and(|e| e.contains(what)), "{text}: {:?}", check(text));
    assert_eq!(check("app,memory_mb,invocations,m0\na,1,1,1\nb,1,1,1\n"), Ok(()));
    says("app,memory_mb,invocations,m0\na,1,1,1\nb,1,1,1\nc,1,1,1\n", "more than 2 applications");
    says("app,memory_mb,invocations,m0,m1,m2,m3\na,1,1,1,1,1,1\n", "more than 3 minutes");
    says("app,memory_mb,invocations,m0,m1,m2\na,1,1,1,1,1\nb,1,1,1,1,1\n", "more than 4 cells");
    says(&format!("app,memory_mb,invocations,m0\n{},1,1,1\n", "a".repeat(50)), "more than 60 bytes");
    says("minute,function,memory_mb,demand\n0,f,1,1\n9,f,1,1\n", "more than 3 minutes");
}

/// A workload with timers, rare calls with heavy-tailed gaps, and bursts: made by a small generator, the same each time.
fn synthetic(seed: u64, apps: usize, minutes: usize) -> Trace {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let app = |index: usize| {
        let mut demand = vec![0u32; minutes];
        match index % 4 {
            0 => {
                let period = [5, 7, 15, 20, 30, 60, 120][(random() * 7.0) as usize];
                let offset = (random() * period as f64) as usize;
                (offset..minutes).step_by(period).for_each(|m| demand[m] = 1);
            }
            1 | 2 => {
                let (shape, mut at) = (0.6 + random(), random() * 100.0);
                while at < minutes as f64 {
                    demand[at as usize] = 1;
                    at += 2.0 * random().max(1e-9).powf(-1.0 / shape);
                }
            }
            _ => {
                let (mut on, top) = (false, 1.0 + random() * 4.0);
                for cell in &mut demand {
                    on = random() < if on { 0.9 } else { 0.02 };
                    *cell = if on { 1 + (random() * top) as u32 } else { 0 };
                }
            }
        }
        let invocations = demand.iter().map(|d| u64::from(*d)).sum::<u64>().max(1);
        App {
            name: format!("a{index}"),
            runtime: String::new(),
            memory_mb: 64.0 + random() * 400.0,
            invocations,
            demand,
        }
    };
    Trace::new((0..apps).map(app).collect()).expect("all are as long")
}

#[test]
fn forecasts_beat_the_fixed_keep_alive_on_workloads_they_were_not_made_for() {
    for seed in 1..3 {
        let trace = synthetic(seed, 20, 1000);
        let (fixed, conservative, eager) =
            (run(&trace, "keepalive-10m"), run(&trace, "conservative"), run(&trace, "eager"));
        let cold = |report: &Report| report.cold_starts as f64 / fixed.cold_starts as f64;
        let held = |report: &Report| report.gb_seconds_held / fixed.gb_seconds_held;
        assert!(
            cold(&conservative) < 0.85 && held(&conservative) <= 1.0,
            "{seed}: {} {}",
            cold(&conservative),
            held(&conservative)
        );
        assert!(
            cold(&eager) < cold(&conservative) && held(&eager) <= 1.15,
            "{seed}: {} {}",
            cold(&eager),
            held(&eager)
        );
        assert_eq!(run(&trace, "eager"), eager, "the same each time");
        assert!(eager.recall > fixed.recall && eager.gb_seconds_held >= eager.gb_seconds_used);
    }
}

/// With `MAYFLY_TRACE_AZURE` naming the day of fifty applications of the Azure Functions trace of 2019: its known figures.
#[test]
fn the_azure_day() {
    let Some(path) = std::env::var_os("MAYFLY_TRACE_AZURE") else { return };
    let file = std::fs::File::open(path).expect("the trace is there");
    let trace = Trace::read(file, &TraceLimits::default()).expect("valid");
    let percent = |share: f64| (share * 1000.0).round() / 10.0;
    let known = [
        ("keepalive-5m", 1080, 1.74, 305, 8.7, 83.3),
        ("keepalive-10m", 609, 0.98, 336, 8.7, 61.3),
        ("keepalive-60m", 155, 0.25, 455, 1.8, 12.5),
        ("keepalive-240m", 86, 0.14, 572, 1.3, 7.5),
    ];
    for (policy, cold, rate, held, p50, p75) in known {
        let report = run(&trace, policy);
        assert_eq!(report.cold_starts, cold, "{policy}");
        assert_eq!((report.cold_rate * 10_000.0).round() / 100.0, rate, "{policy}");
        assert_eq!((report.gb_seconds_held / 1000.0).round() as u64, held, "{policy}");
        assert_eq!((percent(report.app_cold_rate_p50), percent(report.app_cold_rate_p75)), (p50, p75), "{policy}");
    }
    let fixed = run(&trace, "keepalive-10m");
    for (policy, cold, held) in [("conservative", 0.6, 1.0), ("eager", 0.35, 1.15), ("parked", 0.0, 0.6)] {
        let report = run(&trace, policy);
        assert!(report.cold_starts as f64 <= cold * fixed.cold_starts as f64, "{policy}: {report:?}");
        assert!(report.gb_seconds_held <= held * fixed.gb_seconds_held, "{policy}: {report:?}");
    }
    assert!(run(&trace, "parked").long_wait_rate <= 0.0001);
}

#[test]
fn quantiles_lie_between_numbers() {
    assert_eq!(quantile(&[], 0.5), 0.0);
    assert_eq!(quantile(&[3.0], 0.75), 3.0);
    assert_eq!(quantile(&[0.0, 1.0, 2.0, 10.0], 0.5), 1.5);
    assert_eq!(quantile(&[0.0, 1.0, 2.0, 10.0], 1.0), 10.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn sums_fit_together(seed in 1u64..1_000_000, policy in prop::sample::select(vec!["off", "keepalive-7m", "conservative", "parked"])) {
        let trace = synthetic(seed, 4, 120);
        let report = run(&trace, policy);
        let minute_gb = |app: &App| app.memory_mb / 1024.0 * 60.0;
        let used: f64 = trace.apps().iter().map(|a| minute_gb(a) * f64::from(a.demand.iter().sum::<u32>())).sum();
        prop_assert!((report.gb_seconds_used - used).abs() < 1e-6 * used.max(1.0));
        prop_assert!(report.gb_seconds_held >= report.gb_seconds_used + report.gb_seconds_parked - 1e-9);
        prop_assert!(report.wait_ms_p50 <= report.wait_ms_p99 && report.wait_ms_p99 <= report.wait_ms_p99_9);
        prop_assert!(report.wait_ms_p99_9 <= report.wait_ms_max);
        prop_assert!((0.0..=1.0).contains(&report.app_cold_rate_p75) && (0.0..=1.0).contains(&report.recall));
        prop_assert_eq!(report.cold_starts == 0, policy == "parked" || used == 0.0);
    }

    #[test]
    fn no_text_makes_the_reader_fail_badly(text in "[a-z0-9,.\n\"-]{0,300}", form in 0usize..3) {
        let header = ["", "app,memory_mb,invocations,m0,m1\n", "minute,function,memory_mb,demand\n"][form];
        if let Ok(trace) = read(&format!("{header}{text}")) {
            prop_assert!(trace.minutes() > 0 && !trace.apps().is_empty());
        }
    }
}
