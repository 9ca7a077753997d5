//! As much of Go's `encoding/gob` as `net/rpc` needs: any message is read, and messages of structs are written.
//!
//! What is read comes from user code: every length is checked against the bytes that are there, and depth and number of types are
//! bounded. Source: the documentation of Go's package `encoding/gob`.

use std::collections::HashMap;

/// Longest message that is read, in bytes: a return value of 6 MB with room around it.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Types that one stream may define.
const TYPES_MAX: usize = 1024;
/// How deep values may be nested.
const DEPTH_MAX: u32 = 64;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GobError {
    /// A value or message ends too early, or goes on too long.
    #[error("a gob message has the wrong length")]
    Length,
    /// A message is longer than [`MESSAGE_BYTES_MAX`]. It can be left out: so many bytes follow.
    #[error("a gob message of {0} bytes is over the limit")]
    TooLong(u64),
    /// A type that was not defined, or cannot be.
    #[error("a gob type is not known")]
    Type,
    /// Too many types, or values nested too deep.
    #[error("a gob stream is too complicated")]
    Bound,
    /// Interface values, which `net/rpc`'s messages do not have.
    #[error("a gob interface value")]
    Interface,
}

// --- writing ---------------------------------------------------------------------------------------------------------

/// Ids of types that every stream knows.
pub mod id {
    /// `uint` of any width.
    pub const UINT: i64 = 3;
    /// `int` of any width.
    pub const INT: i64 = 2;
    /// `[]byte`.
    pub const BYTES: i64 = 5;
    /// `string`.
    pub const STRING: i64 = 6;
    /// Ids below belong to Go.
    pub const FIRST_FREE: i64 = 64;
}

/// Appends an unsigned number.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let bytes = value.to_be_bytes();
    let skip = value.leading_zeros() as usize / 8;
    // The negated number of bytes that follow.
    out.push((8 - skip as u8).wrapping_neg());
    out.extend_from_slice(&bytes[skip..]);
}

/// Appends a signed number.
pub fn put_int(out: &mut Vec<u8>, value: i64) {
    put_uint(out, if value < 0 { (!(value as u64) << 1) | 1 } else { (value as u64) << 1 });
}

/// Appends bytes or a string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes the fields of one struct: each field is preceded by how many it lies behind the one before; zero values are left out.
pub struct StructWriter<'a> {
    out: &'a mut Vec<u8>,
    last: i64,
}

impl<'a> StructWriter<'a> {
    /// Begins a struct.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, last: -1 }
    }

    fn field(&mut self, index: i64) -> &mut Vec<u8> {
        put_uint(self.out, (index - self.last) as u64);
        self.last = index;
        self.out
    }

    /// An unsigned field.
    pub fn uint(&mut self, index: i64, value: u64) -> &mut Self {
        if value != 0 {
            put_uint(self.field(index), value);
        }
        self
    }

    /// A signed field.
    pub fn int(&mut self, index: i64, value: i64) -> &mut Self {
        if value != 0 {
            put_int(self.field(index), value);
        }
        self
    }

    /// A field of bytes or text.
    pub fn bytes(&mut self, index: i64, value: &[u8]) -> &mut Self {
        if !value.is_empty() {
            put_bytes(self.field(index), value);
        }
        self
    }

    /// A field that is a struct itself.
    pub fn nested(&mut self, index: i64, write: impl FnOnce(&mut StructWriter<'_>)) -> &mut Self {
        let mut inner = StructWriter::new(self.field(index));
        write(&mut inner);
        inner.end();
        self
    }

    /// Ends the struct.
    pub fn end(&mut self) {
        self.out.push(0);
    }
}

/// Appends a message: its length, then what `write` writes.
pub fn put_message(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    write(out);
    let length = out.len() - at;
    let mut prefix = Vec::with_capacity(9);
    put_uint(&mut prefix, length as u64);
    out.extend_from_slice(&prefix);
    // The length stands first; large messages are moved once, by a few bytes.
    out[at..].rotate_right(prefix.len());
}

/// Appends the definition of a struct type: name, id, and its fields' names and types.
pub fn put_struct_type(out: &mut Vec<u8>, name: &str, type_id: i64, fields: &[(&str, i64)]) {
    put_message(out, |out| {
        put_int(out, -type_id);
        let mut wire_type = StructWriter::new(out);
        wire_type.nested(2, |struct_type| {
            struct_type.nested(0, |common| {
                common.bytes(0, name.as_bytes()).int(1, type_id);
            });
            if !fields.is_empty() {
                let out = struct_type.field(1);
                put_uint(out, fields.len() as u64);
                for (name, type_id) in fields {
                    let mut field = StructWriter::new(out);
                    field.bytes(0, name.as_bytes()).int(1, *type_id);
                    field.end();
                }
            }
        });
        wire_type.end();
    });
}

/// Appends a struct value of a type that was defined.
pub fn put_struct(out: &mut Vec<u8>, type_id: i64, write: impl FnOnce(&mut StructWriter<'_>)) {
    put_message(out, |out| {
        put_int(out, type_id);
        let mut value = StructWriter::new(out);
        write(&mut value);
        value.end();
    });
}

// --- reading ---------------------------------------------------------------------------------------------------------

/// A value, of whatever type the stream said.
#[derive(Debug, PartialEq)]
pub enum Value<'t, 'b> {
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A number with a fraction.
    Float(f64),
    /// `complex`: real and imaginary part.
    Complex(f64, f64),
    /// Bytes, text, or what a type encodes itself as.
    Bytes(&'b [u8]),
    /// The fields that are not zero.
    Struct(Vec<(&'t str, Value<'t, 'b>)>),
    /// A slice or an array.
    List(Vec<Value<'t, 'b>>),
    /// A map.
    Map(Vec<(Value<'t, 'b>, Value<'t, 'b>)>),
}

impl<'t, 'b> Value<'t, 'b> {
    /// A struct's field; `None` when it is zero, or this is no struct.
    pub fn get(&self, name: &str) -> Option<&Value<'t, 'b>> {
        let Self::Struct(fields) = self else { return None };
        fields.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// A struct's field of bytes or text; empty when it is zero.
    pub fn bytes(&self, name: &str) -> &'b [u8] {
        match self.get(name) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => b"",
        }
    }

    /// The same as text; what is not UTF-8 is replaced.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }
}

#[derive(Clone, Debug)]
enum Type {
    Struct(Vec<(String, i64)>),
    List(i64),
    Map(i64, i64),
    /// A type that encodes itself.
    Opaque,
}

// Types of the language of types, with the ids that Go gives them (the last two are ours: they stand on no wire).
const WIRE_TYPE: i64 = 16;
const ARRAY_TYPE: i64 = 17;
const COMMON_TYPE: i64 = 18;
const SLICE_TYPE: i64 = 19;
const STRUCT_TYPE: i64 = 20;
const FIELD_TYPE: i64 = 21;
const FIELD_TYPES: i64 = 22;
const MAP_TYPE: i64 = 23;
const OPAQUE_TYPE: i64 = 63;

/// Reads one stream. It keeps the types that the stream has defined.
#[derive(Debug)]
pub struct Decoder {
    types: HashMap<i64, Type>,
}

impl Default for Decoder {
    fn default() -> Self {
        let fields = |list: &[(&str, i64)]| Type::Struct(list.iter().map(|(n, t)| ((*n).to_owned(), *t)).collect());
        let common = ("CommonType", COMMON_TYPE);
        let types = HashMap::from([
            (
                WIRE_TYPE,
                fields(&[
                    ("ArrayT", ARRAY_TYPE),
                    ("SliceT", SLICE_TYPE),
                    ("StructT", STRUCT_TYPE),
                    ("MapT", MAP_TYPE),
                    ("GobEncoderT", OPAQUE_TYPE),
                    ("BinaryMarshalerT", OPAQUE_TYPE),
                    ("TextMarshalerT", OPAQUE_TYPE),
                ]),
            ),
            (ARRAY_TYPE, fields(&[common, ("Elem", id::INT), ("Len", id::INT)])),
            (COMMON_TYPE, fields(&[("Name", id::STRING), ("Id", id::INT)])),
            (SLICE_TYPE, fields(&[common, ("Elem", id::INT)])),
            (STRUCT_TYPE, fields(&[common, ("Field", FIELD_TYPES)])),
            (FIELD_TYPE, fields(&[("Name", id::STRING), ("Id", id::INT)])),
            (FIELD_TYPES, Type::List(FIELD_TYPE)),
            (MAP_TYPE, fields(&[common, ("Key", id::INT), ("Elem", id::INT)])),
            (OPAQUE_TYPE, fields(&[common])),
        ]);
        Self { types }
    }
}

/// The length of the message at the front of `buffer`: of its prefix, and of what follows. `None`: more bytes are needed.
fn frame(buffer: &[u8]) -> Result<Option<(usize, usize)>, GobError> {
    let mut reader = Reader { bytes: buffer };
    let length = match reader.uint() {
        Ok(length) => length,
        // The prefix is not all there yet, unless no prefix begins like this.
        Err(_) if buffer.first().is_none_or(|first| first.wrapping_neg() <= 8) => return Ok(None),
        Err(e) => return Err(e),
    };
    let prefix = buffer.len() - reader.bytes.len();
    match usize::try_from(length) {
        Ok(length) if length <= MESSAGE_BYTES_MAX => Ok(Some((prefix, length))),
        _ => Err(GobError::TooLong(prefix as u64 + length)),
    }
}

/// One message.
#[derive(Debug)]
pub struct Message<'t, 'b> {
    /// Bytes that it took.
    pub length: usize,
    /// Its value; `None`: it defined a type.
    pub value: Option<Value<'t, 'b>>,
}

impl Decoder {
    /// Takes the message at the front of `buffer`. `None`: it is not all there yet.
    ///
    /// # Errors
    /// When the stream cannot be read any further; after [`GobError::TooLong`] it can, behind the message.
    pub fn next<'t, 'b>(&'t mut self, buffer: &'b [u8]) -> Result<Option<Message<'t, 'b>>, GobError> {
        let Some((prefix, length)) = frame(buffer)? else { return Ok(None) };
        let Some(body) = buffer.get(prefix..prefix + length) else { return Ok(None) };
        let length = prefix + length;
        let mut reader = Reader { bytes: body };
        let type_id = reader.int()?;
        if type_id < 0 {
            let defined = self.definition(&mut reader)?;
            if self.types.len() >= TYPES_MAX || !reader.bytes.is_empty() {
                return Err(if reader.bytes.is_empty() { GobError::Bound } else { GobError::Length });
            }
            // Nobody redefines a type, least of all one of ours.
            if type_id > -id::FIRST_FREE || self.types.insert(-type_id, defined).is_some() {
                return Err(GobError::Type);
            }
            return Ok(Some(Message { length, value: None }));
        }
        let of_gos_own = type_id < WIRE_TYPE;
        match self.types.get(&type_id) {
            None if !of_gos_own => return Err(GobError::Type),
            Some(Type::Struct(_)) => {}
            // Whatever is no struct has a zero byte before it.
            _ if reader.uint()? != 0 => return Err(GobError::Length),
            _ => {}
        }
        let value = self.value(&mut reader, type_id, 0)?;
        if !reader.bytes.is_empty() {
            return Err(GobError::Length);
        }
        Ok(Some(Message { length, value: Some(value) }))
    }

    /// Reads what a type is.
    fn definition(&self, reader: &mut Reader<'_>) -> Result<Type, GobError> {
        let wire = self.value(reader, WIRE_TYPE, 0)?;
        let Value::Struct(kinds) = &wire else { return Err(GobError::Type) };
        let Some((kind, what)) = kinds.first() else { return Err(GobError::Type) };
        let number = |name: &str| match what.get(name) {
            Some(Value::Int(n)) => *n,
            _ => 0,
        };
        Ok(match *kind {
            "ArrayT" | "SliceT" => Type::List(number("Elem")),
            "MapT" => Type::Map(number("Key"), number("Elem")),
            "StructT" => {
                let fields = match what.get("Field") {
                    Some(Value::List(fields)) => fields.as_slice(),
                    _ => &[],
                };
                let field = |f: &Value<'_, '_>| match f.get("Id") {
                    Some(Value::Int(type_id)) => Ok((f.text("Name"), *type_id)),
                    _ => Err(GobError::Type),
                };
                Type::Struct(fields.iter().map(field).collect::<Result<_, _>>()?)
            }
            _ => Type::Opaque,
        })
    }

    fn value<'t, 'b>(&'t self, reader: &mut Reader<'b>, type_id: i64, depth: u32) -> Result<Value<'t, 'b>, GobError> {
        if depth > DEPTH_MAX {
            return Err(GobError::Bound);
        }
        match type_id {
            1 => return Ok(Value::Bool(reader.uint()? != 0)),
            id::INT => return reader.int().map(Value::Int),
            id::UINT => return reader.uint().map(Value::Uint),
            4 => return reader.float().map(Value::Float),
            id::BYTES | id::STRING => return reader.bytes().map(Value::Bytes),
            7 => return Ok(Value::Complex(reader.float()?, reader.float()?)),
            8 => return Err(GobError::Interface),
            _ => {}
        }
        match self.types.get(&type_id).ok_or(GobError::Type)? {
            Type::Opaque => reader.bytes().map(Value::Bytes),
            Type::Struct(types) => {
                let mut fields = Vec::new();
                let mut next = 0;
                loop {
                    let delta = usize::try_from(reader.uint()?).map_err(|_| GobError::Length)?;
                    if delta == 0 {
                        return Ok(Value::Struct(fields));
                    }
                    let index = delta.checked_add(next).ok_or(GobError::Length)? - 1;
                    let (name, type_id) = types.get(index).ok_or(GobError::Type)?;
                    fields.push((name.as_str(), self.value(reader, *type_id, depth + 1)?));
                    next = index + 1;
                }
            }
            Type::List(elem) => {
                let count = reader.count()?;
                let items = (0..count).map(|_| self.value(reader, *elem, depth + 1));
                Ok(Value::List(items.collect::<Result<_, _>>()?))
            }
            Type::Map(key, elem) => {
                let count = reader.count()?;
                let pair = |reader: &mut Reader<'b>| {
                    Ok((self.value(reader, *key, depth + 1)?, self.value(reader, *elem, depth + 1)?))
                };
                Ok(Value::Map((0..count).map(|_| pair(reader)).collect::<Result<_, _>>()?))
            }
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], GobError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(GobError::Length)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn uint(&mut self) -> Result<u64, GobError> {
        let first = self.take(1)?[0];
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let count = usize::from(first.wrapping_neg());
        if count > 8 {
            return Err(GobError::Length);
        }
        Ok(self.take(count)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn int(&mut self) -> Result<i64, GobError> {
        let value = self.uint()?;
        Ok(if value & 1 == 1 { !(value >> 1) as i64 } else { (value >> 1) as i64 })
    }

    fn float(&mut self) -> Result<f64, GobError> {
        self.uint().map(|bits| f64::from_bits(bits.swap_bytes()))
    }

    fn bytes(&mut self) -> Result<&'b [u8], GobError> {
        let count = self.count()?;
        self.take(count)
    }

    /// A number of things that take a byte each at least.
    fn count(&mut self) -> Result<usize, GobError> {
        let count = usize::try_from(self.uint()?).map_err(|_| GobError::Length)?;
        if count > self.bytes.len() {
            return Err(GobError::Length);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's documentation: `type Point struct { X, Y int }`, `Point{22, 33}`.
    const POINT: &str = "1fff8103010105506f696e7401ff820001020101580104000101590104000000 07ff82012c014200";

    fn hex_of(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn numbers_are_as_documented() {
        for (value, bytes) in [(0u64, "00"), (7, "07"), (127, "7f"), (256, "fe0100"), (u64::MAX, "f8ffffffffffffffff")]
        {
            let mut out = Vec::new();
            put_uint(&mut out, value);
            assert_eq!(out, hex_of(bytes));
            assert_eq!(Reader { bytes: &out }.uint(), Ok(value));
        }
        for (value, bytes) in
            [(0i64, "00"), (-129, "fe0101"), (64, "ff80"), (-1, "01"), (i64::MIN, "f8ffffffffffffffff")]
        {
            let mut out = Vec::new();
            put_int(&mut out, value);
            assert_eq!(out, hex_of(bytes), "{value}");
            assert_eq!(Reader { bytes: &out }.int(), Ok(value));
        }
        assert_eq!(Reader { bytes: &hex_of("fe3140") }.float(), Ok(17.0));
    }

    #[test]
    fn the_documented_example_is_read_and_written() {
        let wire = hex_of(POINT);
        let mut decoder = Decoder::default();
        let defined = decoder.next(&wire).unwrap().unwrap();
        assert!(defined.value.is_none());
        let at = defined.length;
        assert!(decoder.next(&wire[at..wire.len() - 1]).unwrap().is_none());
        let message = decoder.next(&wire[at..]).unwrap().unwrap();
        assert_eq!(at + message.length, wire.len());
        let value = message.value.unwrap();
        assert_eq!((value.get("X"), value.get("Y")), (Some(&Value::Int(22)), Some(&Value::Int(33))));

        let mut out = Vec::new();
        put_struct_type(&mut out, "Point", 65, &[("X", id::INT), ("Y", id::INT)]);
        put_struct(&mut out, 65, |s| {
            s.int(0, 22).int(1, 33);
        });
        // The example has its type's name with the first free id of its time in it.
        assert_eq!(out, hex_of(POINT));
    }

    #[test]
    fn nested_and_large_values_round_trip() {
        let mut out = Vec::new();
        put_struct_type(&mut out, "Inner", 66, &[("S", id::INT)]);
        put_struct_type(&mut out, "Outer", 65, &[("A", id::BYTES), ("I", 66), ("U", id::UINT)]);
        let large = vec![7; 70_000];
        put_struct(&mut out, 65, |s| {
            s.bytes(0, &large)
                .nested(1, |i| {
                    i.int(0, -5);
                })
                .uint(2, 0);
        });
        let mut decoder = Decoder::default();
        let mut rest = out.as_slice();
        for _ in 0..2 {
            let length = decoder.next(rest).unwrap().unwrap().length;
            rest = &rest[length..];
        }
        let value = decoder.next(rest).unwrap().unwrap().value.unwrap();
        assert_eq!((value.bytes("A"), value.get("U")), (large.as_slice(), None));
        assert_eq!(value.get("I").unwrap().get("S"), Some(&Value::Int(-5)));
    }

    #[test]
    fn hostile_streams_are_refused() {
        let fails = |text: &str| Decoder::default().next(&hex_of(text)).map(|m| m.is_some()).unwrap_err();
        assert_eq!(fails("02 0c 01"), GobError::Length); // A string without its zero byte.
        assert_eq!(fails("04 ff82 0100"), GobError::Type); // A type that nobody defined.
        assert_eq!(fails("03 0a 00 7f"), GobError::Length); // Bytes that are not there.
        assert_eq!(fails("87 00"), GobError::Length); // A length of 121 bytes. (A longer buffer than a prefix can be.)
        let endless = hex_of("fc 7fffffff 0c");
        assert_eq!(Decoder::default().next(&endless).unwrap_err(), GobError::TooLong(5 + 0x7fff_ffff));
        // A list of lists of itself.
        let mut out = Vec::new();
        put_message(&mut out, |out| {
            put_int(out, -65);
            let mut wire = StructWriter::new(out);
            wire.nested(1, |s| {
                s.nested(0, |c| {
                    c.int(1, 65);
                })
                .int(1, 65);
            });
            wire.end();
        });
        let mut decoder = Decoder::default();
        assert!(decoder.next(&out).unwrap().unwrap().value.is_none());
        assert_eq!(decoder.next(&out).unwrap_err(), GobError::Type, "a type is defined once");
        let mut deep = Vec::new();
        put_message(&mut deep, |out| {
            put_int(out, 65);
            out.push(0);
            out.extend_from_slice(&[1; 5000]);
        });
        assert_eq!(decoder.next(&deep).unwrap_err(), GobError::Bound);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..96)) {
            let mut decoder = Decoder::default();
            let mut rest = bytes.as_slice();
            while let Ok(Some(message)) = decoder.next(rest) {
                let length = message.length;
                rest = &rest[length..];
            }
        }
    }
}
