//! Declared fields: their types, what the platform does with each, and the checks that follow from both.

use mayfly_model::ApiError;
use serde_json::{Map, Value};

/// The type of a field, as the API's published model has it.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// A list of one type.
    List(&'static Type),
    /// A structure.
    Object(&'static ObjectSchema),
    /// A structure of this name that belongs to something that is not built: its fields are not looked at, only whether it holds anything.
    Opaque(&'static str),
}

/// A structure: its name in the published model, and its fields.
#[derive(Debug)]
pub struct ObjectSchema {
    /// Name of the data type, or of the action.
    pub name: &'static str,
    /// Its fields in the published order.
    pub fields: &'static [Field],
}

/// One declared field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// True when a request without it is refused with `MissingParameter`.
    pub required: bool,
    /// What the platform does with it.
    pub treatment: Treatment,
    /// Its meaning, one line.
    pub doc: &'static str,
}

/// What the platform does with a field.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// It has the effect that the API documents.
    Honoured,
    /// It is a structure of switches: what becomes of it stands at its fields.
    ByFields,
    /// It is Mayfly's own: no SCF client sends it unless told to.
    Own,
    /// It is stored and shown again by the read actions, and has no other effect; the text says what that means.
    Shown(&'static str),
    /// It is refused when it asks for something that is not built, and accepted otherwise.
    Refused {
        /// The error code of the refusal.
        code: &'static str,
        /// The values that are refused, in words.
        when: &'static str,
        /// The same as a test on the value.
        test: fn(&Value) -> bool,
        /// What to do instead, or why not.
        why: &'static str,
    },
    /// The API documents no such field, real clients send it, and it is passed over.
    Ignored(&'static str),
}

/// A Rust type that stands for a declared type.
pub trait Wire {
    /// The declared type.
    const TYPE: Type;
    /// False for `Option`.
    const REQUIRED: bool = true;
}

impl Wire for String {
    const TYPE: Type = Type::Text;
}

impl Wire for i64 {
    const TYPE: Type = Type::Integer;
}

impl Wire for f64 {
    const TYPE: Type = Type::Float;
}

impl Wire for bool {
    const TYPE: Type = Type::Bool;
}

impl<T: Wire> Wire for Vec<T> {
    const TYPE: Type = Type::List(&T::TYPE);
}

impl<T: Wire> Wire for Option<T> {
    const TYPE: Type = T::TYPE;
    const REQUIRED: bool = false;
}

/// The fields of a declared structure.
pub const fn fields_of<T: Wire>() -> &'static [Field] {
    match T::TYPE {
        Type::Object(schema) => schema.fields,
        _ => &[],
    }
}

/// Declares a structure of the API: the Rust type, and the table row of each field.
macro_rules! wire {
    ($(
        $(#[doc = $text:literal])+
        struct $name:ident {
            $( $field:ident $wire:literal : $ty:ty => $treatment:expr, $doc:expr; )*
        }
    )*) => {$(
        $(#[doc = $text])+
        #[derive(Debug, Default, serde::Deserialize)]
        #[allow(dead_code, reason = "the request and its table are one list: a refused or only shown field is never read")]
        pub struct $name {
            $( #[doc = concat!("`", $wire, "`; its meaning stands in the declaration.")] #[serde(rename = $wire, default)] pub $field: $ty, )*
        }

        impl $name {
            /// What it is, as the documentation says it.
            #[allow(dead_code, reason = "only actions and data types of the table are documented")]
            pub const DOC: &'static str = concat!($($text),+);
        }

        impl $crate::api::schema::Wire for $name {
            const TYPE: $crate::api::schema::Type = $crate::api::schema::Type::Object(&$crate::api::schema::ObjectSchema {
                name: stringify!($name),
                fields: &[$(
                    $crate::api::schema::Field {
                        name: $wire,
                        ty: <$ty as $crate::api::schema::Wire>::TYPE,
                        required: <$ty as $crate::api::schema::Wire>::REQUIRED,
                        treatment: $treatment,
                        doc: $doc,
                    },
                )*],
            });
        }
    )*};
}
pub(crate) use wire;

/// Declares structures that are only ever refused.
macro_rules! opaque {
    ($($name:ident),* $(,)?) => {$(
        #[doc = concat!("`", stringify!($name), "`, as it came: it belongs to something that is not built.")]
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub serde_json::Value);

        impl $crate::api::schema::Wire for $name {
            const TYPE: $crate::api::schema::Type = $crate::api::schema::Type::Opaque(stringify!($name));
        }
    )*};
}
pub(crate) use opaque;

/// How strictly values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A JSON body: values have the declared type.
    Json,
    /// A v1 form or query: every value is text, lists may be objects with the keys `0`, `1`, …, and an empty text stands for an absent value.
    Text,
}

/// Brings `params` into the declared shape: converts text (for v1), drops `null`s and undeclared fields, and applies the refusals.
///
/// Errors: `InvalidParameter` naming the field when a value has the wrong type; `MissingParameter` when a required
/// field is absent; the declared code when a value asks for something that is not built.
pub fn check(fields: &'static [Field], params: Value, source: Source) -> Result<Map<String, Value>, ApiError> {
    let Value::Object(params) = params else {
        return Err(ApiError::new("InvalidParameter", "The request body must be a JSON object."));
    };
    check_object(fields, params, source, "")
}

fn check_object(
    fields: &'static [Field],
    mut params: Map<String, Value>,
    source: Source,
    path: &str,
) -> Result<Map<String, Value>, ApiError> {
    let mut checked = Map::new();
    for field in fields {
        let name = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        let value = match params.remove(field.name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text))
                if source == Source::Text && text.is_empty() && !matches!(field.ty, Type::Text) =>
            {
                None
            }
            Some(value) => Some(check_value(&field.ty, value, source, &name)?),
        };
        match value {
            Some(value) => {
                if let Treatment::Refused { code, test, why, .. } = field.treatment
                    && test(&value)
                {
                    return Err(ApiError::new(
                        code,
                        format!("`{name}` asks for something that is not supported here: {why}."),
                    ));
                }
                checked.insert(field.name.to_owned(), value);
            }
            None if field.required => {
                let code = match field.name {
                    "Code" => "MissingParameter.Code",
                    _ => "MissingParameter",
                };
                return Err(ApiError::new(code, format!("The request is missing a required parameter `{name}`.")));
            }
            None => {}
        }
    }
    for name in params.keys() {
        tracing::debug!(field = %format_args!("{path}.{name}"), "undeclared field passed over");
    }
    Ok(checked)
}

fn check_value(ty: &'static Type, value: Value, source: Source, path: &str) -> Result<Value, ApiError> {
    let wrong = |expected: &str| {
        Err(ApiError::new(
            "InvalidParameter",
            format!("The value type of parameter `{path}` is not valid: {expected} is expected."),
        ))
    };
    match (ty, value) {
        (Type::Text, Value::String(text)) => Ok(Value::String(text)),
        (Type::Text, _) => wrong("a string"),
        (Type::Integer, Value::Number(n)) if n.is_i64() => Ok(Value::Number(n)),
        (Type::Integer, Value::String(text)) if source == Source::Text => match text.trim().parse::<i64>() {
            Ok(n) => Ok(n.into()),
            Err(_) => wrong("an integer"),
        },
        (Type::Integer, _) => wrong("an integer"),
        (Type::Float, Value::Number(n)) => Ok(Value::Number(n)),
        (Type::Float, Value::String(text)) if source == Source::Text => {
            match text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                Some(n) => Ok(Value::Number(n)),
                None => wrong("a number"),
            }
        }
        (Type::Float, _) => wrong("a number"),
        (Type::Bool, Value::Bool(b)) => Ok(Value::Bool(b)),
        (Type::Bool, Value::String(text)) if source == Source::Text => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => wrong("true or false"),
        },
        (Type::Bool, _) => wrong("true or false"),
        (Type::List(item), Value::Array(values)) => check_list(item, values, source, path),
        (Type::List(item), Value::Object(map)) if source == Source::Text => match numbered(map) {
            Some(values) => check_list(item, values, source, path),
            None => wrong("a list"),
        },
        (Type::List(_), _) => wrong("a list"),
        (Type::Object(schema), Value::Object(map)) => check_object(schema.fields, map, source, path).map(Value::Object),
        (Type::Object(_), _) => wrong("an object"),
        (Type::Opaque(_), value) => Ok(value),
    }
}

fn check_list(item: &'static Type, values: Vec<Value>, source: Source, path: &str) -> Result<Value, ApiError> {
    let values = values.into_iter().enumerate().map(|(i, v)| check_value(item, v, source, &format!("{path}.{i}")));
    values.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// A list written as an object with the keys 0, 1, …; `None` when they are not just that.
fn numbered(map: Map<String, Value>) -> Option<Vec<Value>> {
    let mut values = map
        .into_iter()
        .map(|(key, value)| key.parse::<usize>().ok().map(|i| (i, value)))
        .collect::<Option<Vec<_>>>()?;
    values.sort_by_key(|(i, _)| *i);
    values.iter().enumerate().all(|(i, (n, _))| i == *n).then(|| values.into_iter().map(|(_, v)| v).collect())
}

/// Takes the fields out of `params` that are only stored and shown.
pub fn take_shown(fields: &'static [Field], params: &mut Map<String, Value>) -> Map<String, Value> {
    let mut shown = Map::new();
    for field in fields.iter().filter(|f| matches!(f.treatment, Treatment::Shown(_))) {
        if let Some(value) = params.remove(field.name) {
            shown.insert(field.name.to_owned(), value);
        }
    }
    shown
}

/// A test for refusals: the value holds anything but empty texts, empty lists, `false` and structures of those.
pub fn given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(map) => map.values().any(given),
    }
}

/// A test for refusals: the switch is on (`TRUE`, `ENABLE`, `true`, in any case).
pub fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(b) => *b,
        Value::String(text) => ["true", "enable", "open"].iter().any(|on| text.eq_ignore_ascii_case(on)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    wire! {
        /// An inner structure.
        struct Inner {
            flag "Flag": Option<bool> => Treatment::Honoured, "a switch";
            mode "Mode": Option<String> => Treatment::Refused { code: "UnsupportedOperation", when: "ENABLE", test: is_on, why: "not built" }, "a mode";
        }

        /// An outer structure.
        struct Outer {
            name "Name": String => Treatment::Honoured, "a name";
            size "Size": Option<i64> => Treatment::Honoured, "a size";
            share "Share": Option<f64> => Treatment::Honoured, "a share";
            items "Items": Option<Vec<Inner>> => Treatment::Honoured, "items";
            role "Role": Option<String> => Treatment::Shown("no effect"), "a role";
        }
    }

    fn outer(value: Value, source: Source) -> Result<Map<String, Value>, ApiError> {
        check(fields_of::<Outer>(), value, source)
    }

    #[test]
    fn text_is_coerced_by_the_declared_type() {
        let checked = outer(
            json!({"Name": "7", "Size": "128", "Share": "0.5", "Items": {"1": {"Flag": "False"}, "0": {"Flag": "true"}}, "Other": "x"}),
            Source::Text,
        )
        .unwrap();
        assert_eq!(
            Value::Object(checked.clone()),
            json!({"Name": "7", "Size": 128, "Share": 0.5, "Items": [{"Flag": true}, {"Flag": false}]})
        );
        let typed: Outer = serde_json::from_value(Value::Object(checked)).unwrap();
        assert_eq!((typed.name.as_str(), typed.size, typed.items.unwrap()[1].flag), ("7", Some(128), Some(false)));
        let empty = outer(json!({"Name": "", "Size": "", "Items": ""}), Source::Text).unwrap();
        assert_eq!(Value::Object(empty), json!({"Name": ""}));
    }

    #[test]
    fn wrong_types_are_named_by_their_path() {
        for (value, source, path) in [
            (json!({"Name": 7}), Source::Json, "`Name`"),
            (json!({"Name": "a", "Size": "128"}), Source::Json, "`Size`"),
            (json!({"Name": "a", "Size": 1.5}), Source::Json, "`Size`"),
            (json!({"Name": "a", "Size": 18446744073709551615u64}), Source::Json, "`Size`"),
            (json!({"Name": "a", "Size": "x"}), Source::Text, "`Size`"),
            (json!({"Name": "a", "Share": "NaN"}), Source::Text, "`Share`"),
            (json!({"Name": "a", "Items": {"0": {}}}), Source::Json, "`Items`"),
            (json!({"Name": "a", "Items": [{}, {"Flag": "yes"}]}), Source::Text, "`Items.1.Flag`"),
            (json!({"Name": "a", "Items": {"0": {}, "2": {}}}), Source::Text, "`Items`"),
            (json!({"Name": "a", "Items": [3]}), Source::Json, "`Items.0`"),
        ] {
            let error = outer(value.clone(), source).unwrap_err();
            assert_eq!(error.code, "InvalidParameter", "{value}");
            assert!(error.message.contains(path), "{value}: {error}");
        }
        assert_eq!(outer(json!([]), Source::Json).unwrap_err().code, "InvalidParameter");
        assert_eq!(outer(json!({"Name": null}), Source::Json).unwrap_err().code, "MissingParameter");
    }

    #[test]
    fn refusals_name_the_nested_field() {
        let error = outer(json!({"Name": "a", "Items": [{"Mode": "enable"}]}), Source::Json).unwrap_err();
        assert_eq!(error.code, "UnsupportedOperation");
        assert!(error.message.contains("`Items.0.Mode`"), "{error}");
        assert!(outer(json!({"Name": "a", "Items": [{"Mode": "DISABLE"}]}), Source::Json).is_ok());
    }

    #[test]
    fn shown_fields_leave_the_request() {
        let mut checked = outer(json!({"Name": "a", "Role": "r"}), Source::Json).unwrap();
        let shown = take_shown(fields_of::<Outer>(), &mut checked);
        assert_eq!(Value::Object(shown), json!({"Role": "r"}));
        assert_eq!(Value::Object(checked), json!({"Name": "a"}));
    }

    #[test]
    fn given_sees_through_empty_structures() {
        for empty in [json!(null), json!(""), json!([]), json!({}), json!({"VpcId": "", "SubnetId": ""}), json!(false)]
        {
            assert!(!given(&empty), "{empty}");
        }
        for full in [json!("x"), json!(0), json!([""]), json!({"VpcId": "vpc-1"})] {
            assert!(given(&full), "{full}");
        }
    }
}
