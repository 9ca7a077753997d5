//! The tree of files that a list of entries describes, and the proof that it is one: names are clean, nothing is there
//! twice, and links stay inside.

use super::archive::Entry;
use super::error::{PackageError, shown};
use super::{COMPONENT_BYTES_MAX, DEPTH_MAX, PATH_BYTES_MAX, PackageLimits};
use std::collections::{BTreeMap, HashMap};

/// Links that one path may lead through, as in the kernel.
const LINK_HOPS_MAX: usize = 40;
/// Steps that checking all links together may take; a package of links made to be slow is refused.
const LINK_STEPS_MAX: usize = 5_000_000;

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// Index of the root in [`Tree::nodes`].
const ROOT: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// A directory; `listed` when an entry names it.
    Directory { listed: bool },
    /// A file: index of its entry, and whether it may be executed.
    File { entry: usize, executable: bool },
    /// A symbolic link: index of its entry.
    Symlink { entry: usize },
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    pub parent: usize,
    pub name: &'a str,
    pub kind: NodeKind,
}

/// Files, links and directories of a package. A parent always comes before its children.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    pub nodes: Vec<Node<'a>>,
    /// By parent and name in lower case: file systems that ignore case must not merge what is two files here.
    children: HashMap<(usize, String), usize>,
    entries_max: usize,
}

impl<'a> Tree<'a> {
    /// Places all entries. Link targets are not known yet: see [`Self::check_links`].
    pub fn build(entries: &[Entry<'a>], limits: &PackageLimits) -> Result<Self, PackageError> {
        let root = Node { parent: ROOT, name: "", kind: NodeKind::Directory { listed: true } };
        let mut tree = Self { nodes: vec![root], children: HashMap::new(), entries_max: limits.entries_max };
        for (index, entry) in entries.iter().enumerate() {
            tree.place(index, entry)?;
        }
        if tree.nodes.len() == 1 {
            return Err(PackageError::NoEntries);
        }
        Ok(tree)
    }

    /// The path of a node from the root, with `/` between names.
    pub fn path(&self, mut node: usize) -> String {
        let mut names = Vec::new();
        while node != ROOT {
            names.push(self.nodes[node].name);
            node = self.nodes[node].parent;
        }
        names.reverse();
        names.join("/")
    }

    fn place(&mut self, index: usize, entry: &Entry<'a>) -> Result<(), PackageError> {
        let name = clean_name(entry.name)?;
        let kind = entry_kind(index, entry, name)?;
        let mut names = name.split('/').filter(|n| !matches!(*n, "" | ".")).peekable();
        if names.peek().is_none() {
            // "./" is how some tools list the directory that was packed.
            return match kind {
                NodeKind::Directory { .. } => Ok(()),
                _ => Err(PackageError::BadName { entry: shown(entry.name), why: "it is empty" }),
            };
        }
        let mut at = ROOT;
        while let Some(component) = names.next() {
            let is_last = names.peek().is_none();
            at = self.child(at, component, if is_last { kind } else { NodeKind::Directory { listed: false } })?;
        }
        Ok(())
    }

    fn child(&mut self, parent: usize, name: &'a str, kind: NodeKind) -> Result<usize, PackageError> {
        let key = (parent, name.to_lowercase());
        let Some(&found) = self.children.get(&key) else {
            let index = self.nodes.len();
            if index > self.entries_max {
                return Err(PackageError::TooManyEntries { max: self.entries_max });
            }
            self.nodes.push(Node { parent, name, kind });
            self.children.insert(key, index);
            return Ok(index);
        };
        if self.nodes[found].name != name {
            let first = self.path(found);
            let second = match parent {
                ROOT => name.to_owned(),
                _ => format!("{}/{name}", self.path(parent)),
            };
            return Err(PackageError::CaseClash { first: shown(first.as_bytes()), second: shown(second.as_bytes()) });
        }
        let entry = || shown(self.path(found).as_bytes());
        match (self.nodes[found].kind, kind) {
            (NodeKind::Directory { listed: true }, NodeKind::Directory { listed: true }) => {
                return Err(PackageError::Duplicate { entry: entry() });
            }
            (NodeKind::Directory { listed: a }, NodeKind::Directory { listed: b }) => {
                self.nodes[found].kind = NodeKind::Directory { listed: a || b };
            }
            (NodeKind::Directory { .. }, _) | (_, NodeKind::Directory { .. }) => {
                return Err(PackageError::FileAndDirectory { entry: entry() });
            }
            _ => return Err(PackageError::Duplicate { entry: entry() }),
        }
        Ok(found)
    }

    /// Proves that no link leads out of the package, whatever other links it leads through. `targets` holds the target
    /// of each link, by node.
    pub fn check_links(&self, targets: &BTreeMap<usize, String>) -> Result<(), PackageError> {
        let mut steps = LINK_STEPS_MAX;
        for (&node, target) in targets {
            let refuse = |why| PackageError::Symlink { entry: shown(self.path(node).as_bytes()), why };
            if target.is_empty() || target.contains('\0') {
                return Err(refuse("its target is empty or holds NUL"));
            }
            self.follow(self.nodes[node].parent, target, targets, &mut steps).map_err(refuse)?;
        }
        Ok(())
    }

    /// Walks `target` from the directory `start` as the kernel would.
    fn follow(
        &self,
        start: usize,
        target: &str,
        targets: &BTreeMap<usize, String>,
        steps: &mut usize,
    ) -> Result<(), &'static str> {
        let mut at = start;
        // Names below the last one that exists: the kernel stops there, but a layer may fill the gap later.
        let mut missing = 0usize;
        let mut hops = 0;
        let mut pending: Vec<std::str::Split<'_, char>> = vec![target.split('/')];
        if target.starts_with('/') {
            return Err("it is absolute");
        }
        while let Some(names) = pending.last_mut() {
            let Some(name) = names.next() else {
                pending.pop();
                continue;
            };
            *steps = steps.checked_sub(1).ok_or("the links of this package take too long to check")?;
            match name {
                "" | "." => {}
                ".." if missing > 0 => missing -= 1,
                ".." if at == ROOT => return Err("it leads out of the package"),
                ".." => at = self.nodes[at].parent,
                _ if missing > 0 => missing += 1,
                _ => match self.exact_child(at, name) {
                    None => missing += 1,
                    Some(child) => match targets.get(&child) {
                        None => at = child,
                        Some(next) => {
                            hops += 1;
                            if hops > LINK_HOPS_MAX {
                                return Err("it runs in a circle, or through too many links");
                            }
                            if next.starts_with('/') {
                                return Err("it leads to a link that is absolute");
                            }
                            pending.push(next.split('/'));
                        }
                    },
                },
            }
        }
        Ok(())
    }

    fn exact_child(&self, parent: usize, name: &str) -> Option<usize> {
        let index = *self.children.get(&(parent, name.to_lowercase()))?;
        (self.nodes[index].name == name).then_some(index)
    }
}

fn clean_name(name: &[u8]) -> Result<&str, PackageError> {
    let bad = |why| PackageError::BadName { entry: shown(name), why };
    let text = std::str::from_utf8(name).map_err(|_| bad("it is not UTF-8"))?;
    let bytes = text.as_bytes();
    if text.is_empty() {
        return Err(bad("it is empty"));
    }
    if text.contains('\0') {
        return Err(bad("it holds a NUL character"));
    }
    if text.contains('\\') {
        return Err(bad("it holds a backslash"));
    }
    if text.starts_with('/') {
        return Err(bad("it is absolute"));
    }
    if bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' {
        return Err(bad("it begins with a drive letter"));
    }
    if bytes.len() > PATH_BYTES_MAX {
        return Err(bad("its path is too long"));
    }
    let mut depth = 0;
    for component in text.split('/') {
        if component == ".." {
            return Err(bad("it leads out of the package"));
        }
        if component.len() > COMPONENT_BYTES_MAX {
            return Err(bad("a part of it is longer than 255 bytes"));
        }
        depth += usize::from(!matches!(component, "" | "."));
    }
    if depth > DEPTH_MAX {
        return Err(bad("it is nested too deep"));
    }
    Ok(text)
}

fn entry_kind(index: usize, entry: &Entry<'_>, name: &str) -> Result<NodeKind, PackageError> {
    let malformed = |why| PackageError::Malformed { entry: shown(entry.name), why };
    let directory = || match entry.size {
        0 => Ok(NodeKind::Directory { listed: true }),
        _ => Err(malformed("it is a directory with data")),
    };
    let is_directory_name = name.ends_with('/');
    match entry.unix_mode.map(|mode| mode & S_IFMT) {
        Some(S_IFLNK) if is_directory_name => Err(malformed("it is a link with the name of a directory")),
        Some(S_IFLNK) => Ok(NodeKind::Symlink { entry: index }),
        Some(S_IFDIR) => directory(),
        Some(0 | S_IFREG) | None if is_directory_name => directory(),
        Some(0 | S_IFREG) | None => Ok(NodeKind::File { entry: index, executable: is_executable(entry, name) }),
        Some(_) => Err(PackageError::SpecialFile { entry: shown(entry.name) }),
    }
}

/// Archives made on Windows have no such bit, and the program that starts a custom runtime must have it.
fn is_executable(entry: &Entry<'_>, name: &str) -> bool {
    match entry.unix_mode {
        Some(mode) => mode & 0o111 != 0,
        None => matches!(name.trim_start_matches("./"), "bootstrap" | "scf_bootstrap"),
    }
}
