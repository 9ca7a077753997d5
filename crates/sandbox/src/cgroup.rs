//! Control groups, version 1 and 2, behind one type: a group for each instance below one parent for the platform.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where the controllers are, found once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Version 1: one hierarchy for each controller, mounted at these places.
    V1 {
        /// Mount point of the memory controller.
        memory: PathBuf,
        /// Mount point of the CPU controller.
        cpu: PathBuf,
        /// Mount point of the pids controller.
        pids: PathBuf,
    },
    /// Version 2: one hierarchy.
    V2 {
        /// Its mount point.
        root: PathBuf,
    },
}

impl Layout {
    /// Finds the controllers from the text of `/proc/self/mountinfo`. `None`: memory, CPU and pids are not all there.
    pub fn find(mountinfo: &str) -> Option<Self> {
        let (mut memory, mut cpu, mut pids, mut v2) = (None, None, None, None);
        for line in mountinfo.lines() {
            let mut halves = line.splitn(2, " - ");
            let (Some(left), Some(right)) = (halves.next(), halves.next()) else { continue };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => v2 = v2.or(Some(point)),
                Some("cgroup") => {
                    for option in right.nth(1).unwrap_or("").split(',') {
                        match option {
                            "memory" => memory = Some(point.clone()),
                            "cpu" => cpu = Some(point.clone()),
                            "pids" => pids = Some(point.clone()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if let (Some(memory), Some(cpu), Some(pids)) = (memory, cpu, pids) {
            return Some(Self::V1 { memory, cpu, pids });
        }
        let root = v2?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        let has = |name| controllers.split_whitespace().any(|c| c == name);
        (has("memory") && has("cpu") && has("pids")).then_some(Self::V2 { root })
    }

    /// Finds the controllers of this machine.
    pub fn detect() -> Option<Self> {
        Self::find(&fs::read_to_string("/proc/self/mountinfo").ok()?)
    }

    /// The version's number.
    pub fn version(&self) -> u8 {
        match self {
            Self::V1 { .. } => 1,
            Self::V2 { .. } => 2,
        }
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1 { memory, cpu, pids } => {
                // `cpu` and `memory` may be mounted together; the same directory must not be made twice.
                let mut roots: Vec<&Path> = vec![memory];
                for other in [cpu, pids] {
                    if !roots.contains(&other.as_path()) {
                        roots.push(other);
                    }
                }
                roots
            }
            Self::V2 { root } => vec![root],
        }
    }
}

/// The platform's parent group.
#[derive(Clone, Debug)]
pub struct Parent {
    layout: Layout,
    name: String,
}

fn write(path: &Path, value: impl std::fmt::Display) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.to_string().as_bytes())
}

/// Memory of the machine, in bytes.
fn total_memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn ignore_exists(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What all instances of the platform `id` hold now, page cache included, in bytes. `None`: nobody counts it.
pub fn used_memory(id: &str) -> Option<u64> {
    let file = match Layout::detect()? {
        Layout::V1 { memory, .. } => memory.join(parent_name(id)).join("memory.usage_in_bytes"),
        Layout::V2 { root } => root.join(parent_name(id)).join("memory.current"),
    };
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The name of a platform's parent group.
pub fn parent_name(id: &str) -> String {
    format!("mayfly-{id}")
}

impl Parent {
    /// Makes the group `name`, or takes it over when it is there.
    pub fn create(layout: Layout, name: &str) -> io::Result<Self> {
        let parent = Self { layout, name: name.to_owned() };
        for dir in parent.dirs() {
            ignore_exists(fs::create_dir(&dir))?;
        }
        if let Layout::V2 { root } = &parent.layout {
            write(&root.join("cgroup.subtree_control"), "+memory +cpu +pids")?;
            write(&root.join(&parent.name).join("cgroup.subtree_control"), "+memory +cpu +pids")?;
        }
        // All instances together weigh as much as two ordinary processes on each core: a busy function is not starved by whatever else
        // runs on the host, and the host (this platform's own processes first) keeps a third of each core when functions want all of it.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        match &parent.layout {
            Layout::V1 { cpu, .. } => write(&cpu.join(&parent.name).join("cpu.shares"), 2048 * cores)?,
            Layout::V2 { root } => write(&root.join(&parent.name).join("cpu.weight"), (200 * cores).min(10_000))?,
        }
        if let Some(total) = total_memory_bytes() {
            // Instances may be promised more than there is. Should they all use it, one of them dies, not the host.
            let (root, file) = match &parent.layout {
                Layout::V1 { memory, .. } => (memory, "memory.limit_in_bytes"),
                Layout::V2 { root } => (root, "memory.max"),
            };
            write(&root.join(&parent.name).join(file), total / 10 * 9)?;
        }
        Ok(parent)
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.layout.roots().into_iter().map(|r| r.join(&self.name)).collect()
    }

    /// Makes a group for one instance with the limits every instance has from its start.
    pub fn group(&self, name: &str, pids_max: u32) -> io::Result<Group> {
        let dirs: Vec<PathBuf> = self.dirs().into_iter().map(|d| d.join(name)).collect();
        for dir in &dirs {
            ignore_exists(fs::create_dir(dir))?;
        }
        let group = Group { layout: self.layout.clone(), dirs };
        write(&group.file("pids", "pids.max"), pids_max)?;
        Ok(group)
    }

    /// Kills everything in the groups below this parent and removes them: what an earlier, killed platform left behind.
    /// Returns how many groups were removed.
    pub fn sweep(&self, deadline: std::time::Instant) -> io::Result<usize> {
        let mut removed = 0;
        for dir in self.dirs() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                loop {
                    kill_all(&entry.path());
                    match fs::remove_dir(entry.path()) {
                        Ok(()) => {
                            removed += 1;
                            break;
                        }
                        Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                        Err(e) if std::time::Instant::now() >= deadline => return Err(e),
                        Err(_) => std::thread::sleep(std::time::Duration::from_millis(2)),
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Removes the parent itself. It must be empty.
    pub fn remove(&self) {
        for dir in self.dirs() {
            let _ = fs::remove_dir(dir);
        }
    }

    /// Directories of all groups below this parent, in every hierarchy: for checks that nothing is left.
    pub fn children(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for dir in self.dirs() {
            if let Ok(entries) = fs::read_dir(&dir) {
                all.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
            }
        }
        all
    }
}

fn kill_all(dir: &Path) {
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse::<i32>() {
            // SAFETY: sends a signal; the pid is a member of a group that only this platform fills.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

/// The group of one instance.
#[derive(Debug)]
pub struct Group {
    layout: Layout,
    dirs: Vec<PathBuf>,
}

impl Group {
    fn file(&self, controller: &str, name: &str) -> PathBuf {
        let dir = match (&self.layout, controller) {
            (Layout::V2 { .. }, _) => &self.dirs[0],
            (Layout::V1 { memory, .. }, "memory") => self.dir_under(memory),
            (Layout::V1 { cpu, .. }, "cpu") => self.dir_under(cpu),
            (Layout::V1 { pids, .. }, _) => self.dir_under(pids),
        };
        dir.join(name)
    }

    fn dir_under(&self, root: &Path) -> &PathBuf {
        self.dirs.iter().find(|d| d.starts_with(root)).expect("a group has a directory in each hierarchy")
    }

    /// Sets how many processes and threads there may be.
    pub fn limit_pids(&self, pids_max: u32) -> io::Result<()> {
        write(&self.file("pids", "pids.max"), pids_max)
    }

    /// Sets the memory limit, and the CPU share that goes with the size: shares grow in step with memory, as SCF sells them.
    pub fn limit(&self, memory_bytes: u64, memory_mb: u32) -> io::Result<()> {
        match &self.layout {
            Layout::V1 { .. } => {
                let limit = self.file("memory", "memory.limit_in_bytes");
                let with_swap = self.file("memory", "memory.memsw.limit_in_bytes");
                // The limit with swap must never be below the one without: raise it first, or lower it last.
                let swap_exists = with_swap.exists();
                if swap_exists {
                    let _ = write(&with_swap, memory_bytes);
                }
                write(&limit, memory_bytes)?;
                if swap_exists {
                    write(&with_swap, memory_bytes)?;
                }
                write(&self.file("cpu", "cpu.shares"), memory_mb.max(2))
            }
            Layout::V2 { .. } => {
                write(&self.file("memory", "memory.max"), memory_bytes)?;
                let swap = self.file("memory", "memory.swap.max");
                if swap.exists() {
                    write(&swap, 0)?;
                }
                let group_kill = self.file("memory", "memory.oom.group");
                if group_kill.exists() {
                    write(&group_kill, 1)?;
                }
                // Version 2 counts shares from 1 to 10,000 with 100 as the default, which version 1 calls 1024.
                write(&self.file("cpu", "cpu.weight"), (u64::from(memory_mb) * 100 / 1024).clamp(1, 10_000))
            }
        }
    }

    /// Moves a process of this pid namespace into the group.
    pub fn attach(&self, pid: i32) -> io::Result<()> {
        self.dirs.iter().try_for_each(|d| write(&d.join("cgroup.procs"), pid))
    }

    /// The files to which a process writes `0` to move itself into the group.
    pub fn procs_files(&self) -> io::Result<Vec<OwnedFd>> {
        self.dirs
            .iter()
            .map(|d| Ok(OwnedFd::from(OpenOptions::new().write(true).open(d.join("cgroup.procs"))?)))
            .collect()
    }

    /// The file that tells the peak of memory, in bytes; on version 2 before Linux 5.19 the current use instead.
    pub fn memory_peak_file(&self) -> io::Result<File> {
        match &self.layout {
            Layout::V1 { .. } => File::open(self.file("memory", "memory.max_usage_in_bytes")),
            Layout::V2 { .. } => File::open(self.file("memory", "memory.peak"))
                .or_else(|_| File::open(self.file("memory", "memory.current"))),
        }
    }

    /// The file that counts kills for want of memory.
    pub fn oom_file(&self) -> io::Result<File> {
        match &self.layout {
            Layout::V1 { .. } => File::open(self.file("memory", "memory.oom_control")),
            Layout::V2 { .. } => File::open(self.file("memory", "memory.events")),
        }
    }

    /// Tries to remove the group. False: something is still in it.
    pub fn remove(&self) -> bool {
        let mut gone = true;
        for dir in &self.dirs {
            match fs::remove_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    kill_all(dir);
                    gone = false;
                }
                _ => {}
            }
        }
        gone
    }
}

/// Reads the count of kills for want of memory from the text of [`Group::oom_file`].
pub fn oom_kills(text: &str) -> u64 {
    text.lines().filter_map(|l| l.strip_prefix("oom_kill ")).find_map(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        33 30 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_1_hierarchies_are_found_beside_an_empty_version_2() {
        assert_eq!(
            Layout::find(V1),
            Some(Layout::V1 {
                memory: "/sys/fs/cgroup/memory".into(),
                cpu: "/sys/fs/cgroup/cpu,cpuacct".into(),
                pids: "/sys/fs/cgroup/pids".into(),
            })
        );
    }

    /// A directory that stands for a version-2 file system, with the files that the kernel would make.
    fn fake_v2() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "cgroup.subtree_control",
            "p/cgroup.subtree_control",
            "p/memory.max",
            "p/cpu.weight",
            "p/a/pids.max",
            "p/a/memory.max",
        ];
        let more =
            ["p/a/memory.swap.max", "p/a/memory.oom.group", "p/a/cpu.weight", "p/a/cgroup.procs", "p/a/memory.peak"];
        fs::create_dir_all(dir.path().join("p/a")).unwrap();
        for f in files.iter().chain(&more) {
            fs::write(dir.path().join(f), "").unwrap();
        }
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let info = format!("29 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
        let layout = Layout::find(&info).unwrap();
        (dir, layout)
    }

    #[test]
    fn version_2_gets_the_same_limits_in_its_own_words() {
        let (dir, layout) = fake_v2();
        assert_eq!(layout.version(), 2);
        let group = Parent::create(layout, "p").unwrap().group("a", 77).unwrap();
        group.limit(256 << 20, 256).unwrap();
        group.attach(41).unwrap();
        let read = |f: &str| fs::read_to_string(dir.path().join(f)).unwrap();
        assert_eq!(read("p/cgroup.subtree_control"), "+memory +cpu +pids");
        assert_eq!(read("p/a/pids.max"), "77");
        assert_eq!(read("p/a/memory.max"), (256u64 << 20).to_string());
        assert_eq!(read("p/a/memory.swap.max"), "0");
        assert_eq!(read("p/a/memory.oom.group"), "1");
        assert_eq!(read("p/a/cpu.weight"), "25");
        assert_eq!(read("p/a/cgroup.procs"), "41");
        assert_eq!(group.procs_files().unwrap().len(), 1);
    }

    #[test]
    fn version_2_without_controllers_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpuset\n").unwrap();
        assert_eq!(Layout::find(&format!("29 23 0:26 / {} rw - cgroup2 c rw\n", dir.path().display())), None);
    }

    #[test]
    fn oom_counts_are_read_from_both_forms() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills(""), 0);
    }
}
