//! Which messages of a topic a subscription gets.

use crate::error::{ErrorKind, QueueError};
use crate::spec::{FILTERS_MAX, FilterType, KEY_BYTES_MAX, KEY_WORDS_MAX, TAG_CHARS_MAX};

/// True when a subscription with these filters (tags or binding keys, by `filter`) gets a message with these tags and this routing key.
pub fn matches(filter: FilterType, filters: &[String], tags: &[String], routing_key: &str) -> bool {
    if filters.is_empty() {
        return true;
    }
    match filter {
        FilterType::Tag => filters.iter().any(|f| tags.contains(f)),
        FilterType::Routing => {
            let words: Vec<&str> = words(routing_key);
            filters.iter().any(|f| fits(&self::words(f), &words))
        }
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// Whether a binding key fits a routing key, word by word: `*` is any one word, `#` any number of words, none among them.
///
/// Takes at most (words of the one) × (words of the other) steps, whatever the keys are.
fn fits(binding: &[&str], routing: &[&str]) -> bool {
    // reached[j]: what of the binding key has been read fits the first j words.
    let mut reached = vec![false; routing.len() + 1];
    reached[0] = true;
    for part in binding {
        if *part == "#" {
            let first = reached.iter().position(|r| *r).unwrap_or(reached.len());
            reached[first..].fill(true);
            continue;
        }
        for j in (0..routing.len()).rev() {
            reached[j + 1] = reached[j] && (*part == "*" || *part == routing[j]);
        }
        reached[0] = false;
    }
    reached[routing.len()]
}

/// Checks a subscription's filters.
///
/// # Errors
/// [`ErrorKind::TooManyTags`], [`ErrorKind::TooManyKeys`], [`ErrorKind::Invalid`].
pub fn check(filter: FilterType, filters: &[String]) -> Result<(), QueueError> {
    match filter {
        FilterType::Tag => check_tags("filterTag", filters),
        FilterType::Routing => {
            if filters.len() > FILTERS_MAX {
                return Err(
                    ErrorKind::TooManyKeys.says(format!("A subscription has at most {FILTERS_MAX} binding keys."))
                );
            }
            filters.iter().try_for_each(|k| check_key("bindingKey", k))
        }
    }
}

/// Checks tags. `name` is the field's.
///
/// # Errors
/// [`ErrorKind::TooManyTags`], [`ErrorKind::Invalid`].
pub fn check_tags(name: &str, tags: &[String]) -> Result<(), QueueError> {
    if tags.len() > FILTERS_MAX {
        return Err(ErrorKind::TooManyTags.says(format!("`{name}`: at most {FILTERS_MAX} tags.")));
    }
    // They are sent on in a header.
    let good =
        |t: &String| (1..=TAG_CHARS_MAX).contains(&t.chars().count()) && !t.chars().any(|c| c.is_control() || c == ',');
    if tags.iter().all(good) {
        return Ok(());
    }
    Err(ErrorKind::Invalid
        .says(format!("`{name}`: a tag has 1 to {TAG_CHARS_MAX} characters, without control characters and commas.")))
}

/// Checks a routing or binding key. `name` is the field's.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub fn check_key(name: &str, key: &str) -> Result<(), QueueError> {
    let long = key.len() > KEY_BYTES_MAX || key.split('.').count() > KEY_WORDS_MAX;
    if long || key.chars().any(char::is_control) {
        return Err(ErrorKind::Invalid.says(format!(
            "`{name}` has at most {KEY_BYTES_MAX} bytes and {KEY_WORDS_MAX} words with dots between, and no control characters."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routed(binding: &str, routing: &str) -> bool {
        matches(FilterType::Routing, &[binding.to_owned()], &[], routing)
    }

    #[test]
    fn tags_meet_or_do_not() {
        let tags = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let tagged = |f: &[&str], t: &[&str]| matches(FilterType::Tag, &tags(f), &tags(t), "");
        assert!(tagged(&[], &[]) && tagged(&[], &["a"]) && tagged(&["a", "b"], &["c", "b"]));
        assert!(!tagged(&["a"], &[]) && !tagged(&["a"], &["b", "A"]));
    }

    #[test]
    fn binding_keys_have_wildcards_for_words() {
        for (binding, routing) in [
            ("a.b", "a.b"),
            ("a.*", "a.b"),
            ("*.*", "a.b"),
            ("#", ""),
            ("#", "a.b.c"),
            ("a.#", "a"),
            ("a.#", "a.b.c"),
            ("#.c", "c"),
            ("#.c", "a.b.c"),
            ("a.#.c", "a.c"),
            ("a.#.*.c", "a.x.y.c"),
            ("#.#", "a"),
        ] {
            assert!(routed(binding, routing), "{binding} {routing}");
        }
        for (binding, routing) in [
            ("a.b", "a"),
            ("a", "a.b"),
            ("*", ""),
            ("*", "a.b"),
            ("a.*", "a"),
            ("a.#.c", "a.b"),
            ("a*", "ab"),
            ("a#", "a"),
        ] {
            assert!(!routed(binding, routing), "{binding} {routing}");
        }
    }

    /// The plain definition, which may take very long.
    fn by_definition(binding: &[&str], routing: &[&str]) -> bool {
        match (binding, routing) {
            ([], rest) => rest.is_empty(),
            (["#", more @ ..], _) => (0..=routing.len()).any(|n| by_definition(more, &routing[n..])),
            ([word, more @ ..], [first, rest @ ..]) => (*word == "*" || word == first) && by_definition(more, rest),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(binding in "([ab*#]\\.){0,5}[ab*#]", routing in "([ab]\\.){0,5}[ab]") {
            let (b, r) = (words(&binding), words(&routing));
            prop_assert_eq!(fits(&b, &r), by_definition(&b, &r));
        }
    }

    #[test]
    fn filters_are_bounded() {
        let five: Vec<String> = (0..5).map(|i| format!("t{i}")).collect();
        assert!(check(FilterType::Tag, &five).is_ok() && check(FilterType::Routing, &five).is_ok());
        let six: Vec<String> = (0..6).map(|i| format!("t{i}")).collect();
        assert_eq!(check(FilterType::Tag, &six).unwrap_err().kind, ErrorKind::TooManyTags);
        assert_eq!(check(FilterType::Routing, &six).unwrap_err().kind, ErrorKind::TooManyKeys);
        for bad in ["", "a\r\nb", "a,b", &"x".repeat(65)] {
            assert!(check(FilterType::Tag, &[bad.to_owned()]).is_err(), "{bad:?}");
        }
        for bad in [&"x".repeat(65), &"a.".repeat(16), "a\nb"] {
            assert!(check(FilterType::Routing, &[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
