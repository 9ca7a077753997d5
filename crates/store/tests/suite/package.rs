//! Packages: what real tools make is unpacked faithfully, what attackers make is refused by name.

use crate::rawzip::{Raw, Shape, deflated, dir, file, link, zip, zip_shaped};
use mayfly_store::package::{check, unpack};
use mayfly_store::{PackageError, PackageLimits, PackageSummary};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const LIMITS: PackageLimits = PackageLimits { zip_bytes_max: 4 << 20, unpacked_bytes_max: 2 << 20, entries_max: 1000 };

/// Refused by `check` and by `unpack` alike, and nothing is written.
fn refused(bytes: &[u8]) -> PackageError {
    let error = check(bytes, &LIMITS).expect_err("the package must be refused");
    let temp = tempfile::tempdir().unwrap();
    let unpacked = unpack(bytes, &temp.path().join("out"), &LIMITS).expect_err("the package must be refused");
    assert_eq!(error.to_string(), unpacked.to_string());
    assert!(error.is_users_fault());
    error
}

fn accepted(bytes: &[u8]) -> (tempfile::TempDir, PackageSummary) {
    let summary = check(bytes, &LIMITS).unwrap();
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(unpack(bytes, &temp.path().join("out"), &LIMITS).unwrap(), summary);
    (temp, summary)
}

macro_rules! assert_refused {
    ($bytes:expr, $pattern:pat) => {{
        let error = refused(&$bytes);
        assert!(matches!(error, $pattern), "{error:?}");
    }};
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_common_tools_make_is_unpacked() {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    writer.add_directory("lib", options).unwrap();
    writer.start_file("index.py", options.unix_permissions(0o600)).unwrap();
    writer.write_all(b"def main_handler(event, context):\n    return event\n").unwrap();
    writer.start_file("lib/data.bin", options.large_file(true)).unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|i| (i * 7 % 251) as u8).collect();
    writer.write_all(&data).unwrap();
    writer.start_file("bin/tool", options.unix_permissions(0o700)).unwrap();
    writer.write_all(b"#!/bin/sh\n").unwrap();
    writer.add_symlink("bin/alias", "tool", options).unwrap();
    writer.start_file("空.txt", options).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let (temp, summary) = accepted(&bytes);
    let out = temp.path().join("out");
    assert_eq!(summary.entries, 7);
    assert_eq!(fs::read(out.join("lib/data.bin")).unwrap(), data);
    assert_eq!(fs::read(out.join("bin/alias")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(mode(&out), 0o755);
    assert_eq!(mode(&out.join("lib")), 0o755);
    assert_eq!(mode(&out.join("index.py")), 0o644);
    assert_eq!(mode(&out.join("bin/tool")), 0o755);
    assert!(out.join("空.txt").exists());
}

#[test]
fn the_forms_of_the_format_are_read() {
    let entries = [
        Raw { deflate: true, ..file("a.txt", &b"text ".repeat(1000)) },
        Raw { zip64: true, ..file("b/c.txt", b"wide") },
        dir("d/"),
        file("./e.txt", b""),
        file("f//g.txt", b""),
        dir("./"),
    ];
    let shapes = [
        Shape::default(),
        Shape { zip64: true, ..Shape::default() },
        Shape { prefix: b"#!/usr/bin/env python3\n".to_vec(), ..Shape::default() },
        Shape { prefix: b"prefix".to_vec(), zip64: true, ..Shape::default() },
        Shape { comment: b"PK\x05\x06 a comment that looks like an end record".to_vec(), ..Shape::default() },
    ];
    for shape in shapes {
        let (temp, summary) = accepted(&zip_shaped(&entries, &shape));
        assert_eq!(summary, PackageSummary { entries: 7, unpacked_bytes: 5004 });
        assert_eq!(fs::read(temp.path().join("out/b/c.txt")).unwrap(), b"wide");
        assert!(temp.path().join("out/f/g.txt").exists());
    }
}

#[test]
fn set_id_bits_are_dropped_and_bootstraps_of_windows_archives_may_run() {
    let dos = |name| Raw { system: 0, mode: 0, ..file(name, b"#!") };
    let entries = [
        Raw { mode: 0o106_755, ..file("setuid", b"x") },
        dos("bootstrap"),
        dos("scf_bootstrap"),
        dos("other"),
        dos("sub/bootstrap"),
        Raw { mode: 0o100_644, ..file("lib/scf_bootstrap", b"x") },
    ];
    let (temp, _) = accepted(&zip(&entries));
    let modes = ["setuid", "bootstrap", "scf_bootstrap", "other", "sub/bootstrap", "lib/scf_bootstrap"]
        .map(|name| mode(&temp.path().join("out").join(name)));
    assert_eq!(modes, [0o755, 0o755, 0o755, 0o644, 0o644, 0o644]);
}

#[test]
fn what_is_no_zip_is_refused() {
    assert_refused!(*b"", PackageError::Empty);
    assert_refused!(*b"hello", PackageError::NotAZip(_));
    assert_refused!([b'x'; 100_000], PackageError::NotAZip(_));
    assert_refused!(zip(&[]), PackageError::NoEntries);
    assert_refused!(zip(&[dir("./")]), PackageError::NoEntries);
    let whole = zip(&[file("a.txt", b"hello"), file("b.txt", b"hello")]);
    for length in 1..whole.len() {
        assert_refused!(whole[..length], PackageError::NotAZip(_));
    }
    let lying = |count| zip_shaped(&[file("a", b"x")], &Shape { count: Some(count), ..Shape::default() });
    assert_refused!(lying(2), PackageError::NotAZip(_));
    assert_refused!(lying(0), PackageError::NoEntries);
    let two = zip_shaped(&[file("a", b"x"), file("b", b"y")], &Shape { count: Some(1), ..Shape::default() });
    assert_refused!(two, PackageError::NotAZip(_));
    assert_refused!(vec![0; (4 << 20) + 1], PackageError::TooLarge { .. });
}

#[test]
fn names_that_lead_astray_are_refused() {
    for name in
        ["../a", "a/../b", "a/..", "..", "/etc/passwd", "//a", "C:\\a", "C:a", "c:/a", "a\\b", "..\\a", "a\0b", ""]
    {
        assert_refused!(zip(&[file(name, b"x")]), PackageError::BadName { .. });
    }
    assert_refused!(zip(&[Raw { name: b"\xff\xfe.txt".to_vec(), ..file("", b"x") }]), PackageError::BadName { .. });
    assert_refused!(zip(&[file(".", b"x")]), PackageError::BadName { .. });
    assert_refused!(zip(&[file(&"a".repeat(256), b"x")]), PackageError::BadName { .. });
    assert_refused!(zip(&[file(&"abc/".repeat(1000), b"")]), PackageError::BadName { .. });
    assert_refused!(zip(&[file(&format!("{}x", "a/".repeat(201)), b"")]), PackageError::BadName { .. });
    accepted(&zip(&[file(&"a".repeat(255), b"x"), file("...", b""), file("a..b/..c", b""), file("xy:z", b"")]));
    let error = refused(&zip(&[file("../\x1b[31m\n", b"x")])).to_string();
    assert!(!error.contains(['\x1b', '\n']), "{error:?}");
}

#[test]
fn names_that_meet_are_refused() {
    assert_refused!(zip(&[file("a", b"1"), file("a", b"2")]), PackageError::Duplicate { .. });
    assert_refused!(zip(&[file("a", b"1"), file("./a", b"2")]), PackageError::Duplicate { .. });
    assert_refused!(zip(&[dir("a/"), dir("a/")]), PackageError::Duplicate { .. });
    assert_refused!(zip(&[file("a", b"1"), link("a", "b")]), PackageError::Duplicate { .. });
    assert_refused!(zip(&[file("a/Readme", b"1"), file("a/README", b"2")]), PackageError::CaseClash { .. });
    assert_refused!(zip(&[file("Lib/a", b"1"), file("lib/b", b"2")]), PackageError::CaseClash { .. });
    assert_refused!(zip(&[file("É", b"1"), file("é", b"2")]), PackageError::CaseClash { .. });
    assert_refused!(zip(&[file("a", b"1"), file("a/b", b"2")]), PackageError::FileAndDirectory { .. });
    assert_refused!(zip(&[file("a/b", b"1"), file("a", b"2")]), PackageError::FileAndDirectory { .. });
    assert_refused!(zip(&[file("a", b""), dir("a/")]), PackageError::FileAndDirectory { .. });
    accepted(&zip(&[file("a/b", b"1"), dir("a/"), file("a/c", b"2")]));
}

#[test]
fn links_stay_inside() {
    let ok = [
        file("lib/real.so.1", b"elf"),
        link("lib/real.so", "real.so.1"),
        link("top", "lib/../lib/real.so"),
        link("sub/up", "../lib"),
        link("sub/dangling", "../nowhere/../x"),
        link("self", "."),
    ];
    let (temp, summary) = accepted(&zip(&ok));
    assert_eq!(summary.entries, 8);
    assert_eq!(fs::read(temp.path().join("out/sub/up/real.so")).unwrap(), b"elf");
    assert_eq!(fs::read(temp.path().join("out/top")).unwrap(), b"elf");

    for target in ["/etc/passwd", "../x", "a/../../x", "..", "", "nowhere/../..", "x\0y"] {
        assert_refused!(zip(&[link("l", target)]), PackageError::Symlink { .. });
    }
    assert_refused!(zip(&[link("a/b/l", "../../../x")]), PackageError::Symlink { .. });
    // Alone each of these looks harmless: `deep` leads to a directory, from where `..` leads elsewhere than it seems.
    let chain = [dir("a/"), dir("a/b/"), link("a/b/root", "../.."), link("out", "a/b/root/../x")];
    assert_refused!(zip(&chain), PackageError::Symlink { .. });
    assert_refused!(zip(&[link("a", "b"), link("b", "a")]), PackageError::Symlink { .. });
    assert_refused!(zip(&[link("a", "a")]), PackageError::Symlink { .. });
    assert_refused!(zip(&[Raw { data: vec![b'x'; 2000], ..link("a", "") }]), PackageError::Symlink { .. });
    assert_refused!(zip(&[Raw { data: vec![0xff; 20], ..link("a", "") }]), PackageError::Symlink { .. });
    assert_refused!(zip(&[link("a/", "b")]), PackageError::Malformed { .. });
}

#[test]
fn nothing_is_written_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    assert_refused!(zip(&[link("d", target), file("d/x", b"!")]), PackageError::FileAndDirectory { .. });
    assert_refused!(zip(&[file("d/x", b"!"), link("d", target)]), PackageError::FileAndDirectory { .. });
    assert_refused!(zip(&[link("d", "e"), dir("e/"), file("d/x", b"!")]), PackageError::FileAndDirectory { .. });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_destination_that_exists_is_not_touched() {
    let temp = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    std::os::unix::fs::symlink(outside.path(), &out).unwrap();
    let error = unpack(&zip(&[file("a", b"x")]), &out, &LIMITS).unwrap_err();
    assert!(matches!(error, PackageError::Io(_)));
    assert!(!error.is_users_fault());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn special_files_are_refused() {
    for kind in [0o010_644, 0o020_644, 0o060_644, 0o140_644, 0o150_644] {
        assert_refused!(zip(&[Raw { mode: kind, ..file("a", b"") }]), PackageError::SpecialFile { .. });
    }
    assert_refused!(zip(&[Raw { mode: 0o040_755, ..file("a", b"data") }]), PackageError::Malformed { .. });
    assert_refused!(zip(&[file("a/", b"data")]), PackageError::Malformed { .. });
}

#[test]
fn what_cannot_be_read_is_refused() {
    assert_refused!(zip(&[Raw { flags: 1, ..file("a", b"x") }]), PackageError::Encrypted { .. });
    assert_refused!(zip(&[Raw { flags: 1 << 6, ..file("a", b"x") }]), PackageError::Encrypted { .. });
    assert_refused!(
        zip(&[Raw { method: Some(14), ..file("a", b"x") }]),
        PackageError::UnsupportedCompression { method: 14, .. }
    );
    assert_refused!(zip(&[Raw { crc: Some(1), ..file("a", b"x") }]), PackageError::Checksum { .. });
    assert_refused!(zip(&[Raw { crc: Some(1), ..file("empty", b"") }]), PackageError::Checksum { .. });
    assert_refused!(zip(&[Raw { method: Some(8), ..file("a", b"\xff\xff\xff") }]), PackageError::Malformed { .. });
    assert_refused!(zip(&[Raw { local_name: Some(b"b".to_vec()), ..file("a", b"x") }]), PackageError::Malformed { .. });
    assert_refused!(zip(&[Raw { offset: Some(9999), ..file("a", b"x") }]), PackageError::Malformed { .. });
    assert_refused!(
        zip(&[Raw { zip64: true, offset: Some(u64::MAX), ..file("a", b"x") }]),
        PackageError::Malformed { .. }
    );
    assert_refused!(zip(&[Raw { packed: Some(9999), ..file("a", b"x") }]), PackageError::Malformed { .. });
}

#[test]
fn bombs_are_refused() {
    let zeros = vec![0; 3 << 20];
    // Honest about its size.
    let honest = Raw { deflate: true, ..file("a", &zeros) };
    assert_refused!(zip(&[honest]), PackageError::UnpackedTooLarge { .. });
    // Lies about its size: stopped at the size it stated.
    let lying = Raw { deflate: true, size: Some(10), ..file("a", &zeros) };
    assert_refused!(zip(&[lying]), PackageError::SizeMismatch { .. });
    assert_refused!(zip(&[Raw { size: Some(10), ..file("a", b"short") }]), PackageError::SizeMismatch { .. });
    assert_refused!(
        zip(&[Raw { zip64: true, size: Some(u64::MAX), ..file("a", b"x") }, file("b", b"y")]),
        PackageError::UnpackedTooLarge { .. }
    );
    // Two entries over the same data.
    let packed = deflated(&zeros[..1 << 20]).len() as u64;
    let first = Raw { deflate: true, ..file("a", &zeros[..1 << 20]) };
    let second = Raw { offset: Some(0), local_name: None, ..first.clone() };
    assert_refused!(zip(&[first.clone(), second]), PackageError::Overlap { .. });
    let swallows = Raw { packed: Some(packed + 20), ..first };
    assert_refused!(zip(&[swallows, file("b", b"y")]), PackageError::Overlap { .. });
}

#[test]
fn entries_are_counted_with_the_directories_they_imply() {
    let many: Vec<_> = (0..1000).map(|i| file(&format!("f{i}"), b"")).collect();
    assert_eq!(accepted(&zip(&many)).1.entries, 1000);
    let deep: Vec<_> = (0..501).map(|i| file(&format!("d{i}/f"), b"")).collect();
    assert_refused!(zip(&deep), PackageError::TooManyEntries { max: 1000 });
    let more: Vec<_> = (0..1001).map(|i| file(&format!("f{i}"), b"")).collect();
    assert_refused!(zip(&more), PackageError::TooManyEntries { max: 1000 });
    // The stated number alone is enough, and reserves nothing.
    let lying = Shape { count: Some(u64::MAX), zip64: true, ..Shape::default() };
    assert_refused!(zip_shaped(&[file("a", b"")], &lying), PackageError::TooManyEntries { .. });
}

#[test]
fn links_made_to_be_slow_are_cut_off() {
    let mut entries = vec![dir("d/")];
    // Chains as long as a link may lead, each step of them by a detour.
    entries.extend((0..900).map(|i| {
        let next = if i % 40 == 39 { "d".to_owned() } else { format!("l{}", i + 1) };
        link(&format!("l{i}"), &format!("{}{next}", "d/../".repeat(190)))
    }));
    let error = refused(&zip(&entries)).to_string();
    assert!(error.contains("too long to check"), "{error}");
}

/// Archives with a bit of everything, for the tests that break them.
fn sample() -> Vec<u8> {
    zip_shaped(
        &[
            Raw { deflate: true, ..file("index.js", &b"exports.main = async () => 1;\n".repeat(20)) },
            dir("lib/"),
            Raw { zip64: true, ..file("lib/x", b"data") },
            link("lib/y", "x"),
        ],
        &Shape { zip64: true, ..Shape::default() },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&bytes, &LIMITS);
    }

    #[test]
    fn no_damage_makes_it_panic_or_leave_its_directory(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        do_cut in prop::bool::weighted(0.2),
    ) {
        let mut bytes = sample();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if do_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(summary) = check(&bytes, &LIMITS) {
            let temp = tempfile::tempdir().unwrap();
            prop_assert_eq!(unpack(&bytes, &temp.path().join("out"), &LIMITS).unwrap(), summary);
            prop_assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        }
    }
}
