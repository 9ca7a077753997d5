//! JSON text for people: indented as it came, so that long numbers, the order of keys and escapes stay what they are.

/// Deepest nesting that is indented further; deeper levels stay at this indentation.
const INDENT_MAX: usize = 64;

/// Indents JSON text by two spaces a level. The text must be valid JSON; other text comes out with spaces moved.
pub fn indent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    let mut depth = 0usize;
    let mut chars = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(INDENT_MAX)));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                let mut escaped = false;
                for c in chars.by_ref() {
                    out.push(c);
                    match c {
                        _ if escaped => escaped = false,
                        '\\' => escaped = true,
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                let close = if c == '{' { '}' } else { ']' };
                if chars.next_if_eq(&close).is_some() {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_indented_and_nothing_else_changes() {
        let text = r#"{"b":1.00,"a":[1,{"x":[]},{}],"s":"a, \"{b}: [c]\\","n":123456789012345678901234567890}"#;
        let shown = indent(text);
        assert_eq!(
            shown,
            "{\n  \"b\": 1.00,\n  \"a\": [\n    1,\n    {\n      \"x\": []\n    },\n    {}\n  ],\n  \"s\": \"a, \\\"{b}: [c]\\\\\",\n  \"n\": 123456789012345678901234567890\n}"
        );
        assert_eq!(indent(&shown), shown);
        assert_eq!(indent("\"x\""), "\"x\"");
        assert_eq!(indent(" { } "), "{}");
    }
}
