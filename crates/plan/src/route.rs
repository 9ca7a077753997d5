//! Which version an alias sends a request to: rules first, then weights, then the main version.

use mayfly_model::VersionMatch;

/// The part of a rule's key that names where the value is looked for; the rest is the name within `RoutingKey`.
pub const MATCH_KEY_PREFIX: &str = "invoke.headers.";

/// What an alias decided. The indices are those of the slices handed in, so that callers can keep ready-made targets
/// beside them and need no second look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The alias's main version.
    Main,
    /// The version of this weight.
    Weight(usize),
    /// The version of this rule.
    Match(usize),
}

/// An interval of integers: its bounds, and whether each belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    low: i64,
    low_in: bool,
    high: i64,
    high_in: bool,
}

fn parse_interval(text: &str) -> Option<Interval> {
    let text = text.trim();
    let low_in = match text.as_bytes().first()? {
        b'[' => true,
        b'(' => false,
        _ => return None,
    };
    let high_in = match text.as_bytes().last()? {
        b']' => true,
        b')' => false,
        _ => return None,
    };
    let (low, high) = text.get(1..text.len().checked_sub(1)?)?.split_once(',')?;
    let low: i64 = low.trim().parse().ok()?;
    let high: i64 = high.trim().parse().ok()?;
    (low <= high).then_some(Interval { low, low_in, high, high_in })
}

/// Says what is wrong with a rule, in words for the person who wrote it; `Ok` when it can be evaluated.
pub fn check_match(rule: &VersionMatch) -> Result<(), String> {
    let name = rule.key.strip_prefix(MATCH_KEY_PREFIX).unwrap_or("");
    if name.is_empty() {
        return Err(format!("the rule's Key is `{}`; write `{MATCH_KEY_PREFIX}<Name>`", rule.key));
    }
    match rule.method.as_str() {
        "exact" => Ok(()),
        "range" if parse_interval(&rule.expression).is_some() => Ok(()),
        "range" => Err(format!(
            "the rule's Expression is `{}`; a range is an interval of integers such as `[1,100)`",
            rule.expression
        )),
        other => Err(format!("the rule's Method is `{other}`; it is `exact` or `range`")),
    }
}

/// True when `rule` holds for a routing key (the pairs of the caller's `RoutingKey`). A rule that [`check_match`] refuses never holds.
pub fn matches(rule: &VersionMatch, routing_key: &[(String, String)]) -> bool {
    let Some(name) = rule.key.strip_prefix(MATCH_KEY_PREFIX) else { return false };
    let Some((_, value)) = routing_key.iter().find(|(key, _)| key == name) else { return false };
    match rule.method.as_str() {
        "exact" => *value == rule.expression,
        "range" => {
            let Some(Interval { low, low_in, high, high_in }) = parse_interval(&rule.expression) else {
                return false;
            };
            let Ok(value) = value.trim().parse::<i64>() else { return false };
            (if low_in { value >= low } else { value > low }) && (if high_in { value <= high } else { value < high })
        }
        _ => false,
    }
}

/// Decides for one request. `weights` are shares of all requests (each 0–1, together at most 1; the main version gets the rest);
/// `random` is uniform in [0, 1).
pub fn choose(
    rules: &[VersionMatch],
    weights: impl IntoIterator<Item = f64>,
    routing_key: &[(String, String)],
    random: f64,
) -> Choice {
    if !routing_key.is_empty()
        && let Some(i) = rules.iter().position(|rule| matches(rule, routing_key))
    {
        return Choice::Match(i);
    }
    let mut edge = 0.0;
    for (i, weight) in weights.into_iter().enumerate() {
        edge += weight;
        if random < edge {
            return Choice::Weight(i);
        }
    }
    Choice::Main
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(method: &str, expression: &str) -> VersionMatch {
        VersionMatch {
            version: "1".into(),
            key: "invoke.headers.User".into(),
            method: method.into(),
            expression: expression.into(),
        }
    }

    fn key(value: &str) -> Vec<(String, String)> {
        vec![("User".into(), value.into())]
    }

    #[test]
    fn exact_rules_compare_whole_values() {
        assert!(matches(&rule("exact", "Bob"), &key("Bob")));
        assert!(!matches(&rule("exact", "Bob"), &key("Bobby")));
        assert!(!matches(&rule("exact", "Bob"), &[("Other".into(), "Bob".into())]));
    }

    #[test]
    fn ranges_honour_their_brackets() {
        for (expression, inside, outside) in [
            ("[1,100]", vec!["1", "100", "50"], vec!["0", "101", "x", ""]),
            ("(1,100)", vec!["2", "99"], vec!["1", "100"]),
            ("[ -5 , 5 )", vec!["-5", "4"], vec!["5", "-6"]),
        ] {
            for value in inside {
                assert!(matches(&rule("range", expression), &key(value)), "{expression} {value}");
            }
            for value in outside {
                assert!(!matches(&rule("range", expression), &key(value)), "{expression} {value}");
            }
        }
    }

    #[test]
    fn bad_rules_are_named_and_never_hold() {
        for bad in
            [rule("range", "1,100"), rule("range", "[5,1]"), rule("like", "x"), rule("range", "["), rule("range", "")]
        {
            assert!(check_match(&bad).is_err(), "{bad:?}");
            assert!(!matches(&bad, &key("3")), "{bad:?}");
        }
        let mut no_prefix = rule("exact", "x");
        no_prefix.key = "User".into();
        assert!(check_match(&no_prefix).is_err());
        assert!(check_match(&rule("exact", "x")).is_ok());
        assert!(check_match(&rule("range", "[1,1]")).is_ok());
    }

    #[test]
    fn rules_come_before_weights() {
        let rules = [rule("exact", "Bob")];
        assert_eq!(choose(&rules, [1.0], &key("Bob"), 0.5), Choice::Match(0));
        assert_eq!(choose(&rules, [1.0], &key("Eve"), 0.5), Choice::Weight(0));
        assert_eq!(choose(&rules, [0.0], &key("Eve"), 0.0), Choice::Main);
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(a in 0.0f64..0.5, b in 0.0f64..0.5) {
            let n = 10_000;
            let mut counts = [0usize; 3];
            for i in 0..n {
                match choose(&[], [a, b], &[], (i as f64 + 0.5) / n as f64) {
                    Choice::Weight(i) => counts[i] += 1,
                    _ => counts[2] += 1,
                }
            }
            prop_assert!((counts[0] as f64 / n as f64 - a).abs() < 0.001);
            prop_assert!((counts[1] as f64 / n as f64 - b).abs() < 0.001);
        }

        #[test]
        fn any_text_is_a_rule_or_is_refused(method in "exact|range|\\PC{0,6}", expression in "\\PC{0,12}", value in "\\PC{0,8}") {
            let rule = rule(&method, &expression);
            if check_match(&rule).is_err() {
                prop_assert!(!matches(&rule, &key(&value)));
            }
        }
    }
}
