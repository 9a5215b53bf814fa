//! What the kernel says of the process, the host and the control group, read from `/proc` and `/sys`.
//!
//! What is not there (another kernel, a container that hides it) is left out, never shown as zero. Reading
//! takes a fraction of a millisecond, and the files do not grow with the number of connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::{Resource, getrlimit};

use crate::metrics::figures::{KernelFigures, ProcessFigures};

/// Where the files are.
#[derive(Debug)]
pub(super) struct Kernel {
    page_bytes: u64,
    ticks_per_second: f64,
    /// Seconds since 1970 when the process began.
    start_time: Option<f64>,
    cgroup: Option<Cgroup>,
}

#[derive(Debug)]
enum Cgroup {
    /// The one hierarchy.
    V2(PathBuf),
    /// One hierarchy for memory, one for processor time.
    V1 {
        memory: Option<PathBuf>,
        cpu: Option<PathBuf>,
    },
}

impl Kernel {
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are some hundred ticks in a second"
    )]
    pub(super) fn new() -> Self {
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let boot = read("/proc/stat").and_then(|text| word_after(&text, "btime "));
        let began = read("/proc/self/stat").and_then(|text| stat_field(&text, START_TIME));
        Self {
            page_bytes: rustix::param::page_size() as u64,
            ticks_per_second,
            start_time: boot
                .zip(began)
                .map(|(boot, began): (f64, f64)| boot + began / ticks_per_second),
            cgroup: read("/proc/self/cgroup").and_then(|text| {
                find_cgroup(&text, Path::new("/sys/fs/cgroup"), &|path| path.exists())
            }),
        }
    }

    /// What it says of the process now.
    pub(super) fn process(&self) -> ProcessFigures {
        let stat = read("/proc/self/stat");
        let ticks = |field| stat.as_deref().and_then(|text| stat_field(text, field));
        let cpu = ticks(USER_TIME).zip(ticks(SYSTEM_TIME));
        let statm = read("/proc/self/statm");
        let pages = |number| {
            let text = statm.as_deref()?;
            let pages: u64 = text.split(' ').nth(number)?.trim_end().parse().ok()?;
            Some(pages * self.page_bytes)
        };
        ProcessFigures {
            cpu_seconds: cpu
                .map(|(user, system): (f64, f64)| (user + system) / self.ticks_per_second),
            resident_bytes: pages(1),
            virtual_bytes: pages(0),
            open_fds: open_descriptors(),
            max_fds: getrlimit(Resource::Nofile).current,
            start_time_seconds: self.start_time,
        }
    }

    /// What it says of the host and the control group now.
    pub(super) fn host(&self) -> KernelFigures {
        let netstat = read("/proc/net/netstat");
        let extended = |name| {
            netstat
                .as_deref()
                .and_then(|text| netstat_value(text, "TcpExt:", name))
        };
        let sockets = read("/proc/net/sockstat");
        let tcp = |name| {
            sockets
                .as_deref()
                .and_then(|text| sockstat_value(text, "TCP:", name))
        };
        let pages = |pages: u64| pages * self.page_bytes;
        let limits = read("/proc/sys/net/ipv4/tcp_mem");
        let limit: Option<u64> = limits
            .as_deref()
            .and_then(|text| text.split_whitespace().nth(2)?.parse().ok());
        let figures = KernelFigures {
            listen_overflows: extended("ListenOverflows"),
            listen_drops: extended("ListenDrops"),
            syn_drops: extended("TCPReqQFullDrop"),
            tcp_memory_bytes: tcp("mem").map(pages),
            tcp_memory_limit_bytes: limit.map(pages),
            tcp_orphans: tcp("orphan"),
            conntrack_entries: number("/proc/sys/net/netfilter/nf_conntrack_count"),
            conntrack_limit: number("/proc/sys/net/netfilter/nf_conntrack_max"),
            ..KernelFigures::default()
        };
        match &self.cgroup {
            Some(cgroup) => cgroup.add_to(figures),
            None => figures,
        }
    }
}

impl Cgroup {
    fn add_to(&self, figures: KernelFigures) -> KernelFigures {
        let (memory, limit, throttled) = match self {
            Self::V2(folder) => {
                let stat = read(folder.join("cpu.stat"));
                let micros: Option<f64> =
                    stat.and_then(|text| word_after(&text, "throttled_usec "));
                (
                    number(folder.join("memory.current")),
                    // `max` is no number: there is no limit then.
                    number(folder.join("memory.max")),
                    micros.map(|micros| micros / 1e6),
                )
            }
            Self::V1 { memory, cpu } => {
                let of = |name| memory.as_ref().and_then(|folder| number(folder.join(name)));
                let stat = cpu
                    .as_ref()
                    .and_then(|folder| read(folder.join("cpu.stat")));
                let nanos: Option<f64> = stat.and_then(|text| word_after(&text, "throttled_time "));
                (
                    of("memory.usage_in_bytes"),
                    of("memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_V1),
                    nanos.map(|nanos| nanos / 1e9),
                )
            }
        };
        KernelFigures {
            cgroup_memory_bytes: memory,
            cgroup_memory_limit_bytes: limit,
            cgroup_throttled_seconds: throttled,
            ..figures
        }
    }
}

/// What version 1 says where there is no limit: the largest number of pages, in bytes.
const UNLIMITED_V1: u64 = 1 << 62;

/// Fields of `/proc/PID/stat`, counted from the one behind the name.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    read(path)?.trim_end().parse().ok()
}

/// How many descriptors the process has open. Since Linux 6.2 the directory's size says it; before, they
/// are counted.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count() as u64),
        known => Some(known),
    }
}

/// The number behind a word that begins a line.
fn word_after<T: FromStr>(text: &str, word: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.trim().parse().ok()
}

/// A field of `/proc/PID/stat`. The name in the second one may hold anything; the rest begins behind its
/// bracket.
fn stat_field(text: &str, number: usize) -> Option<f64> {
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(number)?.trim_end().parse().ok()
}

/// A value of `/proc/net/netstat`: a line of names, and below it one of values.
fn netstat_value(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|known| known == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// A value of `/proc/net/sockstat`: names and values take turns.
fn sockstat_value(text: &str, group: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(group))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

/// The control group's folder below `root`, from `/proc/self/cgroup`. In a container the path may be the
/// host's, and what is mounted is the container's own.
fn find_cgroup(text: &str, root: &Path, exists: &dyn Fn(&Path) -> bool) -> Option<Cgroup> {
    let below = |hierarchy: &Path, path: &str, file: &str| {
        let folders = [
            hierarchy.join(path.trim_start_matches('/')),
            hierarchy.to_owned(),
        ];
        folders
            .into_iter()
            .find(|folder| exists(&folder.join(file)))
    };
    let (mut memory, mut cpu) = (None, None);
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty()
            && let Some(folder) = below(root, path, "memory.current")
        {
            return Some(Cgroup::V2(folder));
        }
        let mut names = controllers.split(',');
        if names.clone().any(|name| name == "memory") {
            memory = below(&root.join("memory"), path, "memory.usage_in_bytes");
        }
        if names.any(|name| name == "cpu") {
            cpu = below(&root.join("cpu"), path, "cpu.stat");
        }
    }
    (memory.is_some() || cpu.is_some()).then_some(Cgroup::V1 { memory, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDrop\n\
                       TcpExt: 0 7 9 2\nIpExt: InNoRoutes ListenDrops\nIpExt: 1 5\n";
        assert_eq!(
            netstat_value(netstat, "TcpExt:", "ListenOverflows"),
            Some(7)
        );
        assert_eq!(netstat_value(netstat, "TcpExt:", "ListenDrops"), Some(9));
        assert_eq!(netstat_value(netstat, "TcpExt:", "Listen"), None);
        assert_eq!(
            netstat_value("TcpExt: A B\nTcpExt: 1\n", "TcpExt:", "B"),
            None
        );
        let sockstat =
            "sockets: used 300\nTCP: inuse 12 orphan 3 tw 4 alloc 15 mem 6\nUDP: inuse 1 mem 0\n";
        assert_eq!(sockstat_value(sockstat, "TCP:", "orphan"), Some(3));
        assert_eq!(sockstat_value(sockstat, "TCP:", "mem"), Some(6));
        assert_eq!(sockstat_value(sockstat, "TCP:", "none"), None);
    }

    #[test]
    fn a_process_may_be_called_anything() {
        let tail = (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["tidegate", "a) b", ")", ") R 1"] {
            let text = format!("1 ({name}) {tail}");
            assert_eq!(stat_field(&text, USER_TIME), Some(11.0), "{name}");
            assert_eq!(stat_field(&text, START_TIME), Some(19.0), "{name}");
        }
        assert_eq!(stat_field("1 tidegate", USER_TIME), None);
    }

    #[test]
    fn the_control_group_is_found_also_from_inside_a_container() {
        let root = Path::new("/cg");
        let found = |text: &str, files: &[&str]| {
            let exists = |path: &Path| files.iter().any(|file| Path::new(file) == path);
            find_cgroup(text, root, &exists).map(|found| format!("{found:?}"))
        };
        let v2 = "0::/system.slice/tidegate.service\n";
        assert_eq!(
            found(v2, &["/cg/system.slice/tidegate.service/memory.current"]).unwrap(),
            r#"V2("/cg/system.slice/tidegate.service")"#
        );
        assert_eq!(
            found(v2, &["/cg/memory.current"]).unwrap(),
            r#"V2("/cg/")"#.replace("cg/\"", "cg\"")
        );
        assert_eq!(found(v2, &[]), None);
        let v1 = "5:cpu,cpuacct:/a\n4:memory:/b\n0::/\n";
        assert_eq!(
            found(
                v1,
                &["/cg/memory/b/memory.usage_in_bytes", "/cg/cpu/cpu.stat"]
            )
            .unwrap(),
            r#"V1 { memory: Some("/cg/memory/b"), cpu: Some("/cg/cpu") }"#
        );
    }

    #[test]
    fn this_process_is_known_to_this_kernel() {
        let kernel = Kernel::new();
        let process = kernel.process();
        assert!(process.resident_bytes.unwrap() > 100_000, "{process:?}");
        assert!(
            process.virtual_bytes > process.resident_bytes,
            "{process:?}"
        );
        assert!(process.open_fds.unwrap() >= 3, "{process:?}");
        assert!(process.start_time_seconds.unwrap() > 1.6e9, "{process:?}");
        assert!(process.cpu_seconds.is_some(), "{process:?}");
        let opened: Vec<_> = (0..10)
            .map(|_| fs::File::open("/proc/self/stat").unwrap())
            .collect();
        // Other tests open and close files meanwhile, ten at once they do not.
        assert!(kernel.process().open_fds.unwrap() >= 13, "{}", opened.len());
        let host = kernel.host();
        assert!(host.tcp_memory_limit_bytes.is_some(), "{host:?}");
        assert!(host.listen_overflows.is_some(), "{host:?}");
        assert!(host.tcp_orphans.is_some(), "{host:?}");
    }
}
