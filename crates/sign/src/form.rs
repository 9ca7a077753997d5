//! `application/x-www-form-urlencoded` text and the dotted field names of the v1 form.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::error::{SignError, shown};

/// Most fields of one form or query. Ours: Tencent bounds the request's bytes only.
pub const FIELDS_MAX: usize = 4096;
/// Longest field name, decoded, in bytes. Ours.
pub const KEY_BYTES_MAX: usize = 256;
/// Most parts of a dotted field name. Ours; the deepest field of the SCF model has 6.
pub const KEY_DEPTH_MAX: usize = 16;
/// Largest array index in a field name. Ours.
pub const INDEX_MAX: usize = 4095;

/// A decoded field: borrowed from the request where nothing was escaped.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Splits and decodes `a=1&b=2`. `+` is a space; empty parts are skipped; a part without `=` has an empty value.
///
/// # Errors
/// [`SignError::InvalidParameter`] for a bad escape, text that is not UTF-8, a repeated or overlong field name, and
/// more than [`FIELDS_MAX`] fields. Nothing is allocated in proportion to a number that the client merely states.
pub(crate) fn pairs(text: &[u8]) -> Result<Vec<Pair<'_>>, SignError> {
    let mut out: Vec<Pair<'_>> = Vec::new();
    for part in text.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
        if out.len() == FIELDS_MAX {
            return Err(SignError::InvalidParameter(format!("The request has more than {FIELDS_MAX} fields.")));
        }
        let cut = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
        let (key, value) = (&part[..cut], part.get(cut + 1..).unwrap_or_default());
        // An escape takes three bytes for one.
        if key.len() > 3 * KEY_BYTES_MAX {
            return Err(key_too_long());
        }
        let key = decode(key)?;
        if key.len() > KEY_BYTES_MAX {
            return Err(key_too_long());
        }
        out.push((key, decode(value)?));
    }
    let mut seen = HashSet::with_capacity(out.len());
    if let Some((twice, _)) = out.iter().find(|(key, _)| !seen.insert(key.as_ref())) {
        return Err(SignError::InvalidParameter(format!("The field `{}` is given twice.", shown(twice))));
    }
    Ok(out)
}

fn key_too_long() -> SignError {
    SignError::InvalidParameter(format!("A field name is longer than {KEY_BYTES_MAX} bytes."))
}

fn decode(text: &[u8]) -> Result<Cow<'_, str>, SignError> {
    let not_utf8 = |_| SignError::InvalidParameter("A field is not UTF-8 text.".into());
    let Some(first) = text.iter().position(|b| matches!(b, b'%' | b'+')) else {
        return std::str::from_utf8(text).map(Cow::Borrowed).map_err(not_utf8);
    };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = text[first..].iter();
    while let Some(&b) = rest.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|d| char::from(*d).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(SignError::InvalidParameter("A field has a broken percent escape.".into())),
                }
            }
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|e| not_utf8(e.utf8_error()))
}

enum Node {
    Leaf(String),
    Branch(BTreeMap<String, Node>),
}

/// Builds the tree of dotted names: `Filters.0.Name=a` is `{"Filters":[{"Name":"a"}]}`. Every leaf is a string.
///
/// A branch whose names are all array indices (no leading zeros, at most [`INDEX_MAX`]) becomes an array in the order
/// of the indices; gaps are closed, because clients that count from 1 exist.
///
/// # Errors
/// [`SignError::InvalidParameter`] for an empty or too deep name, and for a name that is a value and a branch at once.
pub(crate) fn tree<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Result<Value, SignError> {
    let mut root = BTreeMap::new();
    for (key, value) in pairs {
        put(&mut root, &key, value.into_owned())?;
    }
    // The top level is a set of fields even if their names are digits.
    let fields = root.into_iter().map(|(name, node)| Ok((name, into_value(node)?)));
    Ok(Value::Object(fields.collect::<Result<Map<_, _>, SignError>>()?))
}

fn put(root: &mut BTreeMap<String, Node>, key: &str, value: String) -> Result<(), SignError> {
    let bad = |why: &str| SignError::InvalidParameter(format!("The field name `{}` {why}.", shown(key)));
    if key.split('.').any(str::is_empty) {
        return Err(bad("has an empty part"));
    }
    if key.split('.').count() > KEY_DEPTH_MAX {
        return Err(bad(&format!("has more than {KEY_DEPTH_MAX} parts")));
    }
    let clash = || bad("is used both as a value and as a structure");
    let mut branch = root;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return match branch.insert(part.to_owned(), Node::Leaf(value)) {
                None => Ok(()),
                Some(_) => Err(clash()),
            };
        }
        match branch.entry(part.to_owned()).or_insert_with(|| Node::Branch(BTreeMap::new())) {
            Node::Branch(next) => branch = next,
            Node::Leaf(_) => return Err(clash()),
        }
    }
    Ok(())
}

fn into_value(node: Node) -> Result<Value, SignError> {
    let children = match node {
        Node::Leaf(text) => return Ok(Value::String(text)),
        Node::Branch(children) => children,
    };
    if children.keys().all(|name| is_number(name)) {
        let mut items = Vec::with_capacity(children.len());
        for (name, child) in children {
            let index = name.parse::<usize>().ok().filter(|i| *i <= INDEX_MAX).ok_or_else(|| {
                SignError::InvalidParameter(format!("The array index `{}` is above {INDEX_MAX}.", shown(&name)))
            })?;
            items.push((index, into_value(child)?));
        }
        items.sort_by_key(|(index, _)| *index);
        return Ok(Value::Array(items.into_iter().map(|(_, v)| v).collect()));
    }
    children
        .into_iter()
        .map(|(name, child)| Ok((name, into_value(child)?)))
        .collect::<Result<_, _>>()
        .map(Value::Object)
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'))
}

/// Decodes a whole form into the tree of its dotted fields (no signature involved).
///
/// # Errors
/// [`SignError::InvalidParameter`] when the form breaks one of the limits of this crate or cannot be read.
pub fn parse_form(text: &[u8]) -> Result<Value, SignError> {
    tree(pairs(text)?.into_iter())
}

/// The reverse of the tree: dotted names and texts of a JSON object, in the object's order. `null` is left out, as
/// the SDKs do.
pub fn flatten(value: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    flatten_into(String::new(), value, &mut out);
    out
}

fn flatten_into(prefix: String, value: &Value, out: &mut Vec<(String, String)>) {
    let under = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(name, child)| flatten_into(under(name), child, out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, child)| flatten_into(under(&i.to_string()), child, out));
        }
        Value::String(text) => out.push((prefix, text.clone())),
        other => out.push((prefix, other.to_string())),
    }
}

/// Percent-encodes like Python's `quote_plus`: letters, digits and `-_.~` as they are, space as `+`.
pub(crate) fn encode_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(b >> 4)]));
                out.push(char::from(HEX[usize::from(b & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refused(text: &str) -> String {
        match parse_form(text.as_bytes()) {
            Err(SignError::InvalidParameter(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn dotted_names_become_a_tree() {
        let text = b"FunctionName=a+b%2fc&Environment.Variables.1.Key=B&Environment.Variables.0.Key=A&\
            Environment.Variables.0.Value=%E6%9C%AA&Filters.0.Values.10=x&Filters.0.Values.9=y&Empty=&Bare&&MemorySize=128";
        assert_eq!(
            parse_form(text).unwrap(),
            json!({
                "FunctionName": "a b/c",
                "Environment": {"Variables": [{"Key": "A", "Value": "未"}, {"Key": "B"}]},
                "Filters": [{"Values": ["y", "x"]}],
                "Empty": "", "Bare": "", "MemorySize": "128",
            })
        );
        assert_eq!(parse_form(b"").unwrap(), json!({}));
        assert_eq!(parse_form(b"A.0=x&A.x=y").unwrap(), json!({"A": {"0": "x", "x": "y"}}), "mixed names: an object");
        assert_eq!(parse_form(b"A.00=x&A.1=y").unwrap(), json!({"A": {"00": "x", "1": "y"}}));
        assert_eq!(parse_form(b"0=x&1=y").unwrap(), json!({"0": "x", "1": "y"}));
        assert_eq!(parse_form(b"A.1=x&A.4095=y").unwrap(), json!({"A": ["x", "y"]}), "gaps are closed");
    }

    #[test]
    fn bad_forms_are_refused() {
        assert!(refused("A=1&A=2").contains("`A` is given twice"));
        assert!(refused("A=1&%41=2").contains("given twice"));
        assert!(refused("A=1&A.0=2").contains("both as a value and as a structure"));
        assert!(refused("A.0.B=1&A.0=2").contains("both"));
        assert!(refused("A..B=1").contains("empty part"));
        assert!(refused(".A=1").contains("empty part"));
        assert!(refused("A.=1").contains("empty part"));
        assert!(refused("=1").contains("empty part"));
        assert!(refused("A=%").contains("percent escape"));
        assert!(refused("A=%4").contains("percent escape"));
        assert!(refused("A=%zz").contains("percent escape"));
        assert!(refused("A=%+1").contains("percent escape"));
        assert!(refused("A=%ff").contains("UTF-8"));
        assert!(refused("A.4096=1").contains("above 4095"));
        assert!(refused("A.99999999999999999999999=1").contains("above 4095"));
        assert!(refused(&format!("{}=1", "k".repeat(257))).contains("longer than 256"));
        assert!(refused(&format!("{}=1", "%41".repeat(257))).contains("longer than 256"));
        assert!(refused(&format!("{}A=1", "A.".repeat(16))).contains("more than 16 parts"));
        assert!(parse_form(format!("{}A=1", "A.".repeat(15)).as_bytes()).is_ok());
        let many: String = (0..4097).map(|i| format!("k{i}=1&")).collect();
        assert!(refused(&many).contains("more than 4096 fields"));
    }

    fn json_tree() -> impl Strategy<Value = Value> {
        let leaf = any::<String>().prop_map(Value::String);
        let node = leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..6).prop_map(Value::Array),
                prop::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,8}", inner, 1..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,8}", node, 0..6)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_form(&text);
        }

        #[test]
        fn form_like_text_is_read_or_refused(text in "([A-C0-9.%&=+]|%[0-9a-f]{2}){0,60}") {
            let _ = parse_form(text.as_bytes());
        }

        #[test]
        fn flattened_trees_come_back(value in json_tree()) {
            let mut text = String::new();
            for (k, v) in flatten(&value) {
                encode_into(&mut text, &k);
                text.push('=');
                encode_into(&mut text, &v);
                text.push('&');
            }
            prop_assert_eq!(parse_form(text.as_bytes()).unwrap(), value);
        }
    }
}
