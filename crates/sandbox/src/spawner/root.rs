//! The root that every sandbox sees: the host's `/usr`, read-only, and the least of everything else.

use crate::wire::{SERVICES, SERVICES_ADDRESS, SERVICES_DOMAIN, SpawnerConfig};
use crate::{net, sys};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Files of `/etc` that programs look up, copied as they are where the host has them.
const ETC_FILES: &[&str] = &[
    "ld.so.cache",
    "ld.so.conf",
    "localtime",
    "timezone",
    "mime.types",
    "protocols",
    "services",
    "os-release",
    "debian_version",
    "gai.conf",
    "host.conf",
    "networks",
    "rpc",
    "locale.conf",
    "ethertypes",
];
/// Directories of `/etc` that hold public data only: certificates' public halves, and links into `/usr`.
const ETC_DIRS: &[&str] = &[
    "ssl/certs",
    "ca-certificates",
    "pki/tls/certs",
    "alternatives",
    "ld.so.conf.d",
    "python3",
    "python3.11",
    "fonts",
];

/// Where SCF has its interpreters, and what stands there here. Start files of web functions name them by these paths.
const LANG: &[(&str, &[&str])] = &[
    ("python3", &["python3", "python36", "python37", "python39", "python310", "python311", "python312"]),
    ("python", &["python3", "python36", "python37", "python39", "python310", "python311", "python312"]),
    ("pip3", &["python3", "python36", "python37", "python39", "python310", "python311", "python312"]),
    ("node", &["node", "node10", "node12", "node14", "node16", "node18", "node20", "node22"]),
    ("npm", &["node", "node10", "node12", "node14", "node16", "node18", "node20", "node22"]),
    ("npx", &["node", "node10", "node12", "node14", "node16", "node18", "node20", "node22"]),
    ("php", &["php", "php7", "php74", "php80", "php81", "php82"]),
    ("java", &["java", "java8", "java11", "java17"]),
    ("go", &["go", "go1"]),
];

/// Builds the root in `config.run_dir` in a mount namespace that the caller has made its own. Returns its path.
pub fn build(config: &SpawnerConfig) -> io::Result<PathBuf> {
    let root = config.run_dir.join("root");
    fs::create_dir_all(&root)?;
    sys::mount(c"tmpfs", &root, c"tmpfs", libc::MS_NOSUID, c"size=4m,mode=755")?;

    for dir in [
        "usr",
        "etc",
        "dev/shm",
        "proc",
        "sys",
        "tmp",
        "var/user",
        "var/runtime",
        "var/tmp",
        "opt",
        "home/qcloud",
        "run",
        "root",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("root"), Permissions::from_mode(0o700))?;
    // Lambda's programs look for their code here.
    symlink("user", root.join("var/task"))?;
    read_only(Path::new("/usr"), &root.join("usr"))?;
    for dir in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        same_as_host(dir, &root)?;
    }
    languages(&root)?;
    read_only(&config.runtimes_dir, &root.join("var/runtime"))?;
    etc(&root)?;
    devices(&root)?;

    let here = fs::File::open(&root)?;
    sys::set_read_only_here(here.as_fd())?;
    Ok(root)
}

fn read_only(source: &Path, target: &Path) -> io::Result<()> {
    sys::bind_mount(source, target)?;
    let here = fs::File::open(target)?;
    sys::set_read_only(here.as_fd(), c"", false)
}

/// `/bin` and its like: links into `/usr` on most systems, directories of their own on some.
fn same_as_host(dir: &str, root: &Path) -> io::Result<()> {
    let host = Path::new("/").join(dir);
    match fs::symlink_metadata(&host) {
        Ok(meta) if meta.file_type().is_symlink() => symlink(fs::read_link(&host)?, root.join(dir)),
        Ok(meta) if meta.is_dir() => {
            fs::create_dir_all(root.join(dir))?;
            read_only(&host, &root.join(dir))
        }
        _ => Ok(()),
    }
}

fn languages(root: &Path) -> io::Result<()> {
    for (program, folders) in LANG {
        let places = ["/usr/bin", "/usr/local/bin"];
        let Some(found) = places.iter().map(|p| Path::new(p).join(program)).find(|p| p.exists()) else { continue };
        for folder in *folders {
            let bin = root.join("var/lang").join(folder).join("bin");
            fs::create_dir_all(&bin)?;
            // `python3/bin/python` and the like: names that two rows share are made once.
            match symlink(&found, bin.join(program)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
    }
    // Debian has no plain `python`.
    for folder in LANG[0].1 {
        let bin = root.join("var/lang").join(folder).join("bin");
        if bin.join("python3").is_symlink() && !bin.join("python").is_symlink() {
            symlink("python3", bin.join("python"))?;
        }
    }
    Ok(())
}

fn etc(root: &Path) -> io::Result<()> {
    let etc = root.join("etc");
    for file in ETC_FILES {
        if let Ok(bytes) = fs::read(Path::new("/etc").join(file)) {
            fs::write(etc.join(file), bytes)?;
        }
    }
    let jdks = fs::read_dir("/etc")?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // A JVM of Debian's has its settings there and does not start without them.
    let jdks = jdks.filter(|name| name.starts_with("java-") && name.ends_with("-openjdk"));
    for dir in ETC_DIRS.iter().map(|dir| (*dir).to_owned()).chain(jdks) {
        let host = Path::new("/etc").join(&dir);
        if host.is_dir() {
            fs::create_dir_all(etc.join(&dir))?;
            read_only(&host, &etc.join(&dir))?;
        }
    }
    // The platform's own names come first: where nobody answers for them the refusal is immediate, and the next is asked. Programs look at
    // three at most.
    let resolvers = std::iter::once(SERVICES_ADDRESS).chain(net::resolvers().into_iter().take(2));
    let resolvers: String = resolvers.map(|r| format!("nameserver {r}\n")).collect();
    let services: String = SERVICES.iter().map(|s| format!(" {s}.{SERVICES_DOMAIN}")).collect();
    let hosts = format!(
        "127.0.0.1 localhost sandbox.localdomain sandbox\n::1 localhost ip6-localhost\n{SERVICES_ADDRESS}{services}\n"
    );
    for (file, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/usr/sbin/nologin\nqcloud:x:1000:1000:qcloud:/home/qcloud:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\nqcloud:x:1000:\nnogroup:x:65534:\n"),
        ("hosts", hosts.as_str()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n",
        ),
        ("resolv.conf", resolvers.as_str()),
        ("machine-id", ""),
    ] {
        fs::write(etc.join(file), text)?;
    }
    Ok(())
}

fn devices(root: &Path) -> io::Result<()> {
    let dev = root.join("dev");
    for name in ["null", "zero", "full", "random", "urandom"] {
        fs::write(dev.join(name), "")?;
        sys::bind_mount(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}
