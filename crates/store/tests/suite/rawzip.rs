//! Zip archives made by hand, so that every field can lie.

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::io::Write;

/// One entry. `Default` plus a name is an honest empty file made on Unix with mode 0644.
#[derive(Clone)]
pub struct Raw {
    pub name: Vec<u8>,
    /// Name in the local header, when it is to differ.
    pub local_name: Option<Vec<u8>>,
    pub data: Vec<u8>,
    pub deflate: bool,
    pub method: Option<u16>,
    pub flags: u16,
    pub system: u8,
    pub mode: u32,
    pub crc: Option<u32>,
    pub size: Option<u64>,
    pub packed: Option<u64>,
    /// Offset of the local header, when it is to lie.
    pub offset: Option<u64>,
    pub zip64: bool,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            name: Vec::new(),
            local_name: None,
            data: Vec::new(),
            deflate: false,
            method: None,
            flags: 0,
            system: 3,
            mode: 0o100_644,
            crc: None,
            size: None,
            packed: None,
            offset: None,
            zip64: false,
        }
    }
}

pub fn file(name: &str, data: &[u8]) -> Raw {
    Raw { name: name.into(), data: data.to_vec(), ..Raw::default() }
}

pub fn dir(name: &str) -> Raw {
    Raw { name: name.into(), mode: 0o040_755, ..Raw::default() }
}

pub fn link(name: &str, target: &str) -> Raw {
    Raw { name: name.into(), data: target.into(), mode: 0o120_777, ..Raw::default() }
}

pub fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// What the end record says, where it is to lie; and what stands before and behind.
#[derive(Default)]
pub struct Shape {
    pub count: Option<u64>,
    pub zip64: bool,
    pub prefix: Vec<u8>,
    pub comment: Vec<u8>,
}

pub fn zip(entries: &[Raw]) -> Vec<u8> {
    zip_shaped(entries, &Shape::default())
}

pub fn zip_shaped(entries: &[Raw], shape: &Shape) -> Vec<u8> {
    let mut out = Vec::new();
    let mut central = Vec::new();
    for entry in entries {
        let offset = entry.offset.unwrap_or(out.len() as u64);
        let packed = if entry.deflate { deflated(&entry.data) } else { entry.data.clone() };
        let mut crc = Crc::new();
        crc.update(&entry.data);
        let crc = entry.crc.unwrap_or(crc.sum());
        let method = entry.method.unwrap_or(if entry.deflate { 8 } else { 0 });
        let size = entry.size.unwrap_or(entry.data.len() as u64);
        let packed_size = entry.packed.unwrap_or(packed.len() as u64);
        let narrow = |v: u64| if entry.zip64 { u32::MAX } else { u32::try_from(v).unwrap() };
        let local_name = entry.local_name.as_ref().unwrap_or(&entry.name);
        out.extend(0x0403_4b50u32.to_le_bytes());
        for v in [20, entry.flags, method, 0, 0x21] {
            out.extend(v.to_le_bytes());
        }
        for v in [crc, narrow(packed_size), narrow(size)] {
            out.extend(v.to_le_bytes());
        }
        out.extend(u16::try_from(local_name.len()).unwrap().to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend(local_name);
        out.extend(&packed);

        let mut extra = Vec::new();
        if entry.zip64 {
            extra.extend([0x99, 0x99, 2, 0, 7, 7]);
            extra.extend([1, 0, 24, 0]);
            for v in [size, packed_size, offset] {
                extra.extend(v.to_le_bytes());
            }
        }
        central.extend(0x0201_4b50u32.to_le_bytes());
        for v in [u16::from(entry.system) << 8 | 20, 20, entry.flags, method, 0, 0x21] {
            central.extend(v.to_le_bytes());
        }
        for v in [crc, narrow(packed_size), narrow(size)] {
            central.extend(v.to_le_bytes());
        }
        for v in [u16::try_from(entry.name.len()).unwrap(), u16::try_from(extra.len()).unwrap(), 0, 0, 0] {
            central.extend(v.to_le_bytes());
        }
        central.extend((entry.mode << 16).to_le_bytes());
        central.extend(narrow(offset).to_le_bytes());
        central.extend(&entry.name);
        central.extend(&extra);
    }
    let start = out.len() as u64;
    let size = central.len() as u64;
    let count = shape.count.unwrap_or(entries.len() as u64);
    out.extend(central);
    if shape.zip64 {
        let at = out.len() as u64;
        out.extend(0x0606_4b50u32.to_le_bytes());
        out.extend(44u64.to_le_bytes());
        out.extend([45, 3, 45, 0]);
        out.extend([0; 8]);
        for v in [count, count, size, start] {
            out.extend(v.to_le_bytes());
        }
        out.extend(0x0706_4b50u32.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(at.to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    let narrow16 = |v: u64| if shape.zip64 { u16::MAX } else { u16::try_from(v).unwrap() };
    let narrow32 = |v: u64| if shape.zip64 { u32::MAX } else { u32::try_from(v).unwrap() };
    out.extend(0x0605_4b50u32.to_le_bytes());
    out.extend([0; 4]);
    out.extend(narrow16(count).to_le_bytes());
    out.extend(narrow16(count).to_le_bytes());
    out.extend(narrow32(size).to_le_bytes());
    out.extend(narrow32(start).to_le_bytes());
    out.extend(u16::try_from(shape.comment.len()).unwrap().to_le_bytes());
    out.extend(&shape.comment);
    [shape.prefix.clone(), out].concat()
}
