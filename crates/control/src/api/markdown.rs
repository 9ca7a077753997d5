//! `docs/scf-compatibility.md`, made of the declarations.

use super::requests::{ActionSpec, NOT_BUILT, OWN};
use super::schema::{Field, ObjectSchema, Treatment, Type};
use crate::actions::BUILT;
use mayfly_model::runtime::RUNTIME_NAMES;
use std::collections::BTreeMap;
use std::fmt::Write;

const INTRODUCTION: &str = "# What of the SCF API works here

The API of SCF, version 2018-04-16, action by action and field by field. This file is generated from the declarations that check each
request, so it says what the server does.

How a field is treated:

| | |
|---|---|
| honoured | it has the effect that SCF documents |
| shown | it is stored and shown again by the read actions, and has no other effect |
| refused | a value that asks for something that is not built is an error with the code given; other values are accepted |
| Mayfly's own | not a field of SCF |
| passed over | SCF documents no such field; real clients send it, and it changes nothing |

A field that is not listed is passed over. A value of the wrong type is `InvalidParameter` and names the field; with a v1 signature, where every value is
text, texts are converted by the field's type. `*` marks required fields.

Functions are `Active` when the answer to a change arrives: changes take effect at once, running requests finish on the old code, and the
next ones get the new. Only where dependencies are installed (`InstallDependency`, see [dependencies.md](dependencies.md)) is a function `Creating` or
`Updating` for a while, and `CreateFailed` or `UpdateFailed` when that does not succeed: then `StatusReasons` has the end of what the installer printed.
Calls of a function that is being created, and changes of one that is being changed, are `FailedOperation.FunctionStatusError` meanwhile. Times are in the time zone of the server.
";

/// The text of `docs/scf-compatibility.md`.
pub fn compatibility_markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str("\n## Actions\n\n| Action | |\n|---|---|\n");
    let mut actions: BTreeMap<&str, String> = BTreeMap::new();
    for spec in BUILT {
        let works = if OWN.contains(&spec.name) { "Mayfly's own" } else { "works" };
        actions.insert(spec.name, format!("[{works}](#{})", spec.name.to_lowercase()));
    }
    for (name, what) in NOT_BUILT {
        actions.insert(name, format!("not built, answers `InvalidAction`: {what}"));
    }
    for (name, text) in actions {
        let _ = writeln!(out, "| {name} | {text} |");
    }
    let mut objects = BTreeMap::new();
    for spec in BUILT {
        action(&mut out, spec);
        collect(spec.fields, &mut objects);
    }
    out.push_str("\n## Data types\n");
    for (name, schema) in objects {
        let _ = writeln!(out, "\n### {name}\n");
        table(&mut out, schema.fields);
    }
    out.push_str("\n## Runtimes\n\nNames are accepted in any case.\n\n| Runtime | |\n|---|---|\n");
    for runtime in RUNTIME_NAMES {
        let _ = match runtime.family {
            Ok(family) => writeln!(out, "| {} | runs on `{family}` |", runtime.name),
            Err(why) => writeln!(out, "| {} | refused with `InvalidParameterValue.Runtime`: {why} |", runtime.name),
        };
    }
    out
}

fn action(out: &mut String, spec: &ActionSpec) {
    let _ = writeln!(out, "\n### {}\n\n{}\n", spec.name, spec.doc.trim());
    if spec.fields.is_empty() {
        out.push_str("No fields.\n");
    } else {
        table(out, spec.fields);
    }
}

fn table(out: &mut String, fields: &[Field]) {
    out.push_str("| Field | Type | Treatment | Meaning |\n|---|---|---|---|\n");
    for field in fields {
        let star = if field.required { "*" } else { "" };
        let (ty, doc) = (type_name(&field.ty), field.doc);
        let _ = writeln!(out, "| `{}`{star} | {ty} | {} | {doc} |", field.name, treatment(&field.treatment));
    }
}

fn treatment(treatment: &Treatment) -> String {
    match treatment {
        Treatment::Honoured => "honoured".into(),
        Treatment::ByFields => "see its fields".into(),
        Treatment::Own => "Mayfly's own".into(),
        Treatment::Shown(note) => format!("shown: {note}"),
        Treatment::Refused { code, when, why, .. } => format!("refused with `{code}` when {when}: {why}"),
        Treatment::Ignored(note) => format!("passed over: {note}"),
    }
}

fn type_name(ty: &Type) -> String {
    match ty {
        Type::Text => "string".into(),
        Type::Integer => "integer".into(),
        Type::Float => "number".into(),
        Type::Bool => "boolean".into(),
        Type::List(item) => format!("list of {}", type_name(item)),
        Type::Object(schema) => format!("[{0}](#{1})", schema.name, schema.name.to_lowercase()),
        Type::Opaque(name) => (*name).into(),
    }
}

fn collect(fields: &'static [Field], objects: &mut BTreeMap<&'static str, &'static ObjectSchema>) {
    for field in fields {
        let mut ty = &field.ty;
        while let Type::List(item) = ty {
            ty = item;
        }
        if let Type::Object(schema) = ty
            && objects.insert(schema.name, schema).is_none()
        {
            collect(schema.fields, objects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scf-compatibility.md");

    #[test]
    fn the_document_is_what_the_declarations_say() {
        let committed = std::fs::read_to_string(FILE).unwrap_or_default();
        let generated = compatibility_markdown();
        let line = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
        assert!(
            committed == generated,
            "docs/scf-compatibility.md is out of date (first difference: line {:?}); \
             run `cargo test -p mayfly-control write_the_document -- --ignored`",
            line.map(|n| n + 1)
        );
    }

    #[test]
    #[ignore = "writes docs/scf-compatibility.md"]
    fn write_the_document() {
        std::fs::write(Path::new(FILE), compatibility_markdown()).unwrap();
    }

    #[test]
    fn every_action_and_no_cell_break_is_in_it() {
        let text = compatibility_markdown();
        for name in BUILT.iter().map(|s| s.name).chain(NOT_BUILT.iter().map(|(n, _)| *n)) {
            assert!(text.contains(&format!("| {name} |")), "{name}");
        }
        for line in text.lines().filter(|l| l.starts_with("| `")) {
            assert_eq!(line.matches(" | ").count(), 3, "{line}");
        }
    }
}
