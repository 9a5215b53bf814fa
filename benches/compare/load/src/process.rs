//! What `/proc` knows about a process: the CPU time it used and the memory it holds.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of all threads of a process, user and system, in clock ticks (10 ms on Linux): an error of
/// half a percent in a window of two seconds.
///
/// # Errors
/// If there is no such process.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat cannot be read"))?;
    let tick = Duration::from_secs(1)
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    Ok(tick * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// utime and stime: fields 14 and 15 of proc_pid_stat(5). The second field, the name, may contain
/// anything, so fields are counted from its closing parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of a process in bytes. `smaps_rollup` is exact; `status` can lag behind by some pages
/// per thread, and is for kernels without the former.
///
/// # Errors
/// If neither can be read.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let found = match &exact {
        Ok(text) => kibibytes(text, "Rss:"),
        Err(_) => kibibytes(
            &fs::read_to_string(format!("/proc/{pid}/status"))?,
            "VmRSS:",
        ),
    };
    found
        .map(|kib| kib << 10)
        .ok_or_else(|| io::Error::other("the resident size cannot be read"))
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            kibibytes("Pss:  1 kB\nRss:    2048 kB\n", "Rss:"),
            Some(2048)
        );
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }
}
