//! Putting what was installed into the package. Entries are copied as they are compressed; equal inputs give equal bytes.

use std::collections::HashSet;
use std::io::Cursor;
use zip::result::ZipResult;
use zip::{ZipArchive, ZipWriter};

/// How what was installed goes with what was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Beside it; where both have a file of one name, the uploaded one stays.
    Beside,
    /// As above, but a directory of this name is not taken from the package.
    Replacing(&'static str),
    /// Over it; where both have a file of one name, the made one wins.
    Over,
    /// In its place: the install had the whole package before it.
    Whole,
}

/// The files and directories of an archive, in lower case: the rules for packages do not let two names differ by case alone.
#[derive(Default)]
struct Names {
    files: HashSet<String>,
    directories: HashSet<String>,
}

impl Names {
    fn of(archive: &ZipArchive<Cursor<&[u8]>>, keep: impl Fn(&str) -> bool) -> ZipResult<Self> {
        let mut names = Self::default();
        for name in archive.file_names() {
            let name = name?;
            if !keep(&name) {
                continue;
            }
            let lower = name.to_lowercase();
            let mut parents = lower.trim_end_matches('/');
            while let Some((parent, _)) = parents.rsplit_once('/') {
                names.directories.insert(parent.to_owned());
                parents = parent;
            }
            match lower.strip_suffix('/') {
                Some(directory) => names.directories.insert(directory.to_owned()),
                None => names.files.insert(lower),
            };
        }
        Ok(names)
    }

    /// True when `name` cannot be there beside these.
    fn has(&self, name: &str) -> bool {
        let lower = name.to_lowercase();
        let Some(path) = lower.strip_suffix('/') else {
            return self.files.contains(&lower) || self.directories.contains(&lower) || self.is_below_file(&lower);
        };
        self.files.contains(path) || self.directories.contains(path) || self.is_below_file(path)
    }

    fn is_below_file(&self, path: &str) -> bool {
        path.match_indices('/').any(|(at, _)| self.files.contains(&path[..at]))
    }
}

fn copy(
    from: &mut ZipArchive<Cursor<&[u8]>>,
    to: &mut ZipWriter<Cursor<Vec<u8>>>,
    keep: impl Fn(&str) -> bool,
) -> ZipResult<()> {
    for index in 0..from.len() {
        let file = from.by_index_raw(index)?;
        if keep(&file.name()?) {
            to.raw_copy_file(file)?;
        }
    }
    Ok(())
}

/// The package with what was installed. Blocks.
///
/// # Errors
/// When one of them is no zip that can be read.
pub fn merge(package: &[u8], made: &[u8], placement: &Placement) -> ZipResult<Vec<u8>> {
    let mut package = ZipArchive::new(Cursor::new(package))?;
    let mut made = ZipArchive::new(Cursor::new(made))?;
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    let dropped = match placement {
        Placement::Replacing(directory) => format!("{directory}/"),
        _ => "/".to_owned(),
    };
    let kept = |name: &str| !name.starts_with(&dropped);
    match placement {
        Placement::Whole => copy(&mut made, &mut out, |_| true)?,
        Placement::Over => {
            let names = Names::of(&made, |_| true)?;
            copy(&mut package, &mut out, |name| !names.has(name))?;
            copy(&mut made, &mut out, |_| true)?;
        }
        Placement::Beside | Placement::Replacing(_) => {
            let names = Names::of(&package, kept)?;
            copy(&mut package, &mut out, kept)?;
            copy(&mut made, &mut out, |name| !names.has(name))?;
        }
    }
    Ok(out.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_store::{PackageLimits, package};
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use zip::write::SimpleFileOptions;

    /// Texts that begin with `->` are links, names that end in `/` directories.
    fn zip(files: &[(&str, &str)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().unix_permissions(0o755);
        for (name, text) in files {
            match (text.strip_prefix("->"), name.ends_with('/')) {
                (Some(target), _) => zip.add_symlink(*name, target, options).unwrap(),
                (None, true) => zip.add_directory(*name, options).unwrap(),
                (None, false) => {
                    zip.start_file(*name, options).unwrap();
                    zip.write_all(text.as_bytes()).unwrap();
                }
            }
        }
        zip.finish().unwrap().into_inner()
    }

    fn merged(package: &[(&str, &str)], made: &[(&str, &str)], placement: Placement) -> BTreeMap<String, String> {
        let bytes = merge(&zip(package), &zip(made), &placement).unwrap();
        assert_eq!(bytes, merge(&zip(package), &zip(made), &placement).unwrap());
        package::check(&bytes, &PackageLimits::default()).unwrap();
        let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
        let count = archive.len();
        let read = |index| {
            let mut file = archive.by_index(index).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            let text = if file.is_symlink() { format!("->{text}") } else { text };
            (file.name().unwrap().into_owned(), text)
        };
        (0..count).map(read).collect()
    }

    fn map(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn each_placement_decides_who_wins() {
        let code = [
            ("index.py", "mine"),
            ("six.py", "mine"),
            ("lib", "file"),
            ("pkg/a.py", "mine"),
            ("node_modules/old.js", "old"),
        ];
        let made = [
            ("six.py", "made"),
            ("lib/x.py", "made"),
            ("pkg/b.py", "made"),
            ("pkg/A.PY", "made"),
            ("bin/x", "->../pkg/b.py"),
        ];
        let beside = [
            ("index.py", "mine"),
            ("six.py", "mine"),
            ("lib", "file"),
            ("pkg/a.py", "mine"),
            ("pkg/b.py", "made"),
            ("bin/x", "->../pkg/b.py"),
            ("node_modules/old.js", "old"),
        ];
        assert_eq!(merged(&code, &made, Placement::Beside), map(&beside));
        let made = [("node_modules/new.js", "new"), ("node_modules/.bin/new", "->../new.js")];
        let replaced = [&code[..4], &made[..]].concat();
        assert_eq!(merged(&code, &made, Placement::Replacing("node_modules")), map(&replaced));
        assert_eq!(merged(&code, &[("six.py", "made")], Placement::Over)["six.py"], "made");
        assert_eq!(merged(&code, &[("six.py/x", "made")], Placement::Over).get("six.py"), None);
        assert_eq!(merged(&code, &made, Placement::Whole), map(&made));
    }
}
