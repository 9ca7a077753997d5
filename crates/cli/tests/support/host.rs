//! What a platform has on its machine while it runs: control groups, links, rules and processes.

// Each test binary takes the part that it needs.
#![allow(dead_code)]

use mayfly_testkit::Platform;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A process, told from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
}

impl Process {
    /// The process with this number, if there is one and it has not ended.
    pub fn find(pid: i32) -> Option<Self> {
        let fields = stat(pid)?;
        // A zombie has ended; it is gone once its parent looks.
        let ended = matches!(fields.first().map(String::as_str), None | Some("Z" | "X"));
        // Counted from the third field, which is the state; see proc(5).
        (!ended).then_some(Self { pid, started: fields.get(19)?.parse().ok()? })
    }

    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Sends SIGKILL. False: it has ended already.
    pub fn kill(self) -> bool {
        // SAFETY: signals a process of a platform that this test started.
        self.is_alive() && unsafe { libc::kill(self.pid, libc::SIGKILL) } == 0
    }
}

/// Fields of `/proc/<pid>/stat` from the third on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// A platform as its machine sees it. It stays usable after the platform's end.
pub struct Host {
    id: String,
    pid: i32,
}

impl Host {
    pub fn of(platform: &Platform) -> Self {
        let data = fs::canonicalize(&platform.data).expect("the data directory is there");
        let id = hex::encode(Sha256::digest(data.as_os_str().as_bytes()))[..6].to_owned();
        let host = Self { id, pid: platform.pid() };
        assert!(!host.parents().is_empty(), "the groups of a running platform bear its id");
        host
    }

    /// The platform's group in each hierarchy.
    pub fn parents(&self) -> Vec<PathBuf> {
        let name = format!("mayfly-{}", self.id);
        let below = subdirectories(Path::new("/sys/fs/cgroup")).into_iter().map(|d| d.join(&name));
        below.chain([Path::new("/sys/fs/cgroup").join(&name)]).filter(|d| d.is_dir()).collect()
    }

    /// Names of the groups of its instances.
    pub fn groups(&self) -> BTreeSet<String> {
        let dirs = self.parents().into_iter().flat_map(|p| subdirectories(&p));
        dirs.filter_map(|d| Some(d.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Processes in one of these groups, or in all.
    pub fn members(&self, group: Option<&str>) -> BTreeSet<Process> {
        let dirs = self.parents().into_iter().flat_map(|p| subdirectories(&p));
        dirs.filter(|d| group.is_none_or(|g| d.ends_with(g)))
            .filter_map(|d| fs::read_to_string(d.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|l| Process::find(l.parse().ok()?)).collect::<Vec<_>>())
            .collect()
    }

    /// The group of the instance whose gateway this is.
    pub fn group_behind(&self, gateway: &str) -> Option<String> {
        let address: std::net::Ipv4Addr = gateway.parse().ok()?;
        let route = format!("\t00000000\t{:08X}\t", u32::from_le_bytes(address.octets()));
        let is_inside = |p: &Process| {
            fs::read_to_string(format!("/proc/{}/net/route", p.pid)).is_ok_and(|text| text.contains(&route))
        };
        self.groups().into_iter().find(|group| self.members(Some(group)).iter().any(is_inside))
    }

    /// True while the link with this address on the host's side exists.
    pub fn has_link(&self, gateway: &str) -> bool {
        let output = Command::new("ip").args(["-o", "-4", "addr"]).output().expect("`ip` runs");
        String::from_utf8_lossy(&output.stdout).contains(&format!(" {gateway}/31 "))
    }

    /// Names of its links.
    pub fn links(&self) -> BTreeSet<String> {
        let prefix = format!("mf{}", self.id);
        let all = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        all.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(&prefix)).collect()
    }

    /// How many tables of packet rules bear its id.
    pub fn tables(&self) -> usize {
        let output = Command::new("nft").args(["list", "tables"]).output().expect("`nft` runs");
        let name = format!("mayfly_{}", self.id);
        String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.ends_with(&name)).count()
    }

    /// Every process of it, except the platform's own.
    pub fn processes(&self) -> BTreeSet<Process> {
        self.descendants().into_iter().chain(self.members(None)).collect()
    }

    /// The processes that come from it by birth.
    pub fn descendants(&self) -> BTreeSet<Process> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|p| *p != self.pid && descends_from(*p, self.pid)).filter_map(Process::find).collect()
    }

    /// The spawner.
    pub fn spawner(&self) -> Process {
        let pid = self.pid;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let mut found = children.split_whitespace().filter_map(|c| {
            let command = fs::read(format!("/proc/{c}/cmdline")).ok()?;
            command.split(|b| *b == 0).any(|word| word == b"spawner").then(|| Process::find(c.parse().ok()?))?
        });
        found.next().expect("the spawner is a child of the platform")
    }

    /// Resident memory of the platform's own process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has a resident set");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") * 1024
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn descends_from(mut pid: i32, ancestor: i32) -> bool {
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        pid = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()).unwrap_or(0);
    }
    false
}
