use super::*;
use crate::test_folder::folder;
use std::os::unix::fs::symlink;

fn paths(package: &Package) -> Vec<&str> {
    package.paths.iter().map(String::as_str).collect()
}

#[test]
fn equal_content_gives_an_equal_zip() {
    let files = [("b/z.py", "z"), ("a.py", "print(1)"), ("bootstrap", "#!/bin/bash")];
    let one = folder(&files);
    let two = folder(&[files[2], files[1], files[0], (".git/HEAD", "x"), ("__pycache__/a.pyc", "123")]);
    for dir in [&one, &two] {
        fs::set_permissions(dir.path().join("bootstrap"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("b/z.py", dir.path().join("link.py")).unwrap();
    }
    // Neither times nor those parts of the mode that packages do not have make a difference.
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    File::options().write(true).open(one.path().join("a.py")).unwrap().set_times(old).unwrap();
    fs::set_permissions(two.path().join("a.py"), fs::Permissions::from_mode(0o600)).unwrap();
    let (one, two) = (pack(one.path(), &[]).unwrap(), pack(two.path(), &[]).unwrap());
    assert_eq!(one.sha256, two.sha256);
    assert_eq!(one.zip, two.zip);
    assert_eq!(paths(&one), ["a.py", "b/z.py", "bootstrap", "link.py"]);
    let changed = pack(folder(&[("a.py", "print(2)")]).path(), &[]).unwrap();
    assert_ne!(changed.sha256, one.sha256);
    let mut archive = zip::ZipArchive::new(Cursor::new(one.zip)).unwrap();
    assert_eq!(archive.by_name("bootstrap").unwrap().unix_mode().unwrap() & 0o777, 0o755);
    assert_eq!(archive.by_name("a.py").unwrap().unix_mode().unwrap() & 0o777, 0o644);
    let mut link = archive.by_name("link.py").unwrap();
    assert!(link.is_symlink());
    let mut target = String::new();
    link.read_to_string(&mut target).unwrap();
    assert_eq!(target, "b/z.py");
}

#[test]
fn rules_leave_files_out_and_bring_them_back() {
    let dir = folder(&[
        ("index.js", ""),
        (".env.js", ""),
        ("README.md", ""),
        ("docs/a.md", ""),
        ("debug.log", ""),
        ("node_modules/x/index.js", ""),
        ("mayfly.yml", ""),
        (".gitignore", "node_modules/\n*.log\n"),
        (".mayflyignore", "!node_modules/\n"),
    ]);
    let package = pack(dir.path(), &["*.md".into()]).unwrap();
    assert_eq!(paths(&package), [".env.js", "index.js", "node_modules/x/index.js"]);
    // What the patterns name was meant to be left out; `docs/` only turned out empty.
    assert_eq!(package.left_out, ["debug.log", "docs/"]);
    fs::remove_file(dir.path().join(".mayflyignore")).unwrap();
    let package = pack(dir.path(), &[]).unwrap();
    assert_eq!(package.left_out, ["debug.log", "node_modules/"]);
    assert!(pack(dir.path(), &["!x".into()]).unwrap_err().hint.contains(".mayflyignore"));
    assert!(pack(dir.path(), &["a{".into()]).is_err());
}

#[test]
fn links_that_lead_out_are_refused() {
    let outside = folder(&[("secret", "s")]);
    let cases = [
        ("/etc/hostname".to_owned(), "is absolute"),
        (outside.path().join("secret").to_str().unwrap().to_owned(), "is absolute"),
        ("../other".into(), "leads out of the folder"),
        ("nothing".into(), "leads nowhere"),
        ("skipped/file".into(), "left out of the package"),
    ];
    for (target, why) in cases {
        let dir = folder(&[("index.py", "x"), ("skipped/file", "x")]);
        symlink(&target, dir.path().join("link")).unwrap();
        let error = pack(dir.path(), &["skipped".into()]).unwrap_err();
        assert!(error.message.contains("link") && error.message.contains(why), "{error}");
    }
    let dir = folder(&[("lib/a.py", "x"), ("lib2", "")]);
    symlink("lib", dir.path().join("alias")).unwrap();
    assert_eq!(paths(&pack(dir.path(), &[]).unwrap()), ["alias", "lib/a.py", "lib2"]);
}

#[test]
fn limits_are_explained() {
    let empty = folder(&[("debug.log", ""), (".gitignore", "*.log")]);
    let error = pack(empty.path(), &[]).unwrap_err();
    assert!(error.message.contains("nothing to deploy") && error.hint.contains("debug.log"), "{error}");
    let sparse = folder(&[("index.py", "")]);
    fs::create_dir(sparse.path().join("data")).unwrap();
    File::create(sparse.path().join("data/big")).unwrap().set_len(PACKAGE_UNPACKED_BYTES_MAX + 1).unwrap();
    let error = pack(sparse.path(), &[]).unwrap_err();
    assert!(error.message.contains("500.0 MB") && error.details.contains("data/"), "{error}");
    assert!(error.hint.contains("layer"));
    assert!(pack(&sparse.path().join("index.py"), &[]).unwrap_err().message.contains("not a folder"));
    assert!(pack(&sparse.path().join("lost"), &[]).unwrap_err().message.contains("cannot open"));
}

#[test]
fn a_zip_over_the_limit_is_noticed_while_it_is_made() {
    // Text that deflate cannot make smaller: a xorshift stream.
    let dir = folder(&[("index.py", "")]);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = Vec::with_capacity(PACKAGE_ZIP_BYTES_MAX + 4096);
    while noise.len() < PACKAGE_ZIP_BYTES_MAX + 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    fs::write(dir.path().join("noise.bin"), noise).unwrap();
    let error = pack(dir.path(), &[]).unwrap_err();
    assert!(error.message.contains("larger than 50.0 MB"), "{error}");
    assert!(error.details.contains("noise.bin"), "{error}");
}
