//! A clock that rings at even intervals, to the microsecond: a poll's own timeout has milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

#[derive(Debug)]
pub(crate) struct Metronome {
    timer: OwnedFd,
    began: Instant,
    interval: Duration,
    rung: u32,
}

impl Metronome {
    /// Rings `rate` times a second from now on.
    ///
    /// # Errors
    /// If the kernel gives no timer.
    pub(crate) fn new(rate: u32) -> io::Result<Self> {
        let interval = Duration::from_secs(1) / rate;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let every = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(interval.subsec_nanos().max(1)),
        };
        let times = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        let began = Instant::now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(Self {
            timer,
            began,
            interval,
            rung: 0,
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// The times that have come since the last call, in order: also those that were slept through.
    ///
    /// # Errors
    /// If the timer cannot be read.
    pub(crate) fn due(&mut self) -> io::Result<impl Iterator<Item = Instant> + use<>> {
        let mut expirations = [0; 8];
        // Reading only takes the ringing down; what is due the clock says.
        match rustix::io::read(&self.timer, &mut expirations) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let passed = self.began.elapsed().as_nanos() / self.interval.as_nanos();
        let (from, to) = (self.rung, u32::try_from(passed).unwrap_or(u32::MAX));
        self.rung = to;
        let (began, interval) = (self.began, self.interval);
        Ok((from..to).map(move |number| began + interval * (number + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_at_even_times_and_never_ahead_of_them() {
        let mut metronome = Metronome::new(1_000).unwrap();
        let (began, mut times) = (metronome.began, Vec::new());
        while times.len() < 20 {
            times.extend(metronome.due().unwrap());
            assert!(times.last().is_none_or(|last| *last <= Instant::now()));
        }
        for (number, time) in (1..).zip(&times) {
            assert_eq!(*time - began, Duration::from_millis(1) * number);
        }
    }
}
