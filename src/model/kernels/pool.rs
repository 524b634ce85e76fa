//! A small thread pool for parallel loops of a few microseconds.
//!
//! One loop is published at a time; the publishing thread takes part, and workers join while units
//! are left. A worker that the operating system has descheduled is never waited for, so a busy
//! machine slows a loop down but does not stall it. Idle workers spin briefly, then park.
//!
//! ```text
//! PoolState::state, 64 bits:  [ loop number : 32 ][ CLOSED : 1 ][ joined workers : 31 ]
//!
//! publisher  write body, open loop n + 1, unpark | take units | close, wait until joined = 0
//! worker     see an open, new loop, joined += 1  | take units | joined -= 1
//! ```

#![expect(
    unsafe_code,
    reason = "hands a borrowed closure to other threads for the time of one loop"
)]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;

/// Bit of [`PoolState::state`]: workers may not join the loop any more.
const CLOSED: u64 = 1 << 31;
/// Bits of [`PoolState::state`] that count the workers inside the loop. The bits above [`CLOSED`]
/// number the loops.
const JOINED: u64 = CLOSED - 1;
/// Spins of an idle worker before it parks: some tens of microseconds.
const SPINS: u32 = 20_000;

type LoopBody<'a> = dyn Fn(usize) + Sync + 'a;

struct PoolState {
    state: AtomicU64,
    next: AtomicUsize,
    n_units: AtomicUsize,
    body: UnsafeCell<*const LoopBody<'static>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    parked: Vec<AtomicBool>,
}

// SAFETY: `body` is written only by the publisher while the state is closed with nobody joined, and
// read only by workers that have joined an open loop.
unsafe impl Sync for PoolState {}
// SAFETY: as above; the pointer itself is never freed through `PoolState`.
unsafe impl Send for PoolState {}

/// The thread pool. Dropping it joins its threads.
pub(in crate::model) struct ThreadPool {
    shared: Arc<PoolState>,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    /// Creates a pool of `n_threads`, including the caller's.
    pub(in crate::model) fn new(n_threads: usize) -> Self {
        let n_workers = n_threads.saturating_sub(1);
        let shared = Arc::new(PoolState {
            state: AtomicU64::new(CLOSED),
            next: AtomicUsize::new(0),
            n_units: AtomicUsize::new(0),
            body: UnsafeCell::new(std::ptr::null::<fn(usize)>() as *const LoopBody<'static>),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            parked: (0..n_workers).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers = (0..n_workers)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("rune-kernel-{index}"))
                    .spawn(move || shared.work(index))
                    .expect("the system grants a thread")
            })
            .collect();
        Self { shared, workers }
    }

    /// Number of threads, including the caller's.
    pub(in crate::model) fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` with each of `0..n_units` and returns when all are done. Units start in order,
    /// on any thread.
    ///
    /// # Panics
    /// When `body` panicked on another thread.
    pub(in crate::model) fn run(&mut self, n_units: usize, body: &LoopBody<'_>) {
        if self.workers.is_empty() || n_units < 2 {
            (0..n_units).for_each(body);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: the state is closed with nobody joined (the end of this function saw to it, and
        // `&mut self` keeps other publishers out), so no worker reads these fields now. The
        // lifetime is erased only until the end of this function, which waits for all who joined.
        #[expect(clippy::transmute_ptr_to_ptr, reason = "no cast lengthens a lifetime")]
        unsafe {
            *shared.body.get() =
                std::mem::transmute::<*const LoopBody<'_>, *const LoopBody<'static>>(body);
        };
        shared.n_units.store(n_units, Relaxed);
        shared.next.store(0, Relaxed);
        // Opening the loop releases the writes above to workers that join.
        let loop_number = (shared.state.load(Relaxed) >> 32).wrapping_add(1);
        shared.state.store(loop_number << 32, SeqCst);
        // Sequentially consistent, against a lost wakeup: either this thread sees `parked`, or the
        // worker sees the open loop before it parks.
        for (worker, parked) in self.workers.iter().zip(&shared.parked) {
            if parked.load(SeqCst) {
                worker.thread().unpark();
            }
        }
        let closing = CloseOnDrop(shared);
        shared.take_units();
        drop(closing);
        assert!(!shared.panicked.load(Relaxed), "a kernel panicked on a worker thread");
    }
}

/// Closes the loop and waits for the joined workers, even when a unit panics on this thread: they
/// still borrow the body.
struct CloseOnDrop<'a>(&'a PoolState);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        if std::thread::panicking() {
            // No further units; half of the range leaves space for the increments of the others.
            shared.next.store(usize::MAX / 2, Relaxed);
        }
        shared.state.fetch_or(CLOSED, AcqRel);
        let mut spins = 0_u32;
        while shared.state.load(Acquire) & JOINED != 0 {
            spins += 1;
            if spins.is_multiple_of(1024) {
                // A joined worker may have been descheduled: let it run.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

impl PoolState {
    /// Takes units of the open loop until none is left.
    fn take_units(&self) {
        // SAFETY: called by the publisher, or by a worker that has joined: the body is alive.
        let body = unsafe { &**self.body.get() };
        let n_units = self.n_units.load(Relaxed);
        loop {
            let unit = self.next.fetch_add(1, Relaxed);
            if unit >= n_units {
                return;
            }
            body(unit);
        }
    }

    /// Waits for an open loop other than `seen` and joins it. Returns its number, or `None` when
    /// the pool ends.
    fn join(&self, index: usize, seen: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            let state = self.state.load(SeqCst);
            if self.stop.load(Relaxed) {
                return None;
            }
            if state >> 32 != seen && state & CLOSED == 0 {
                // Fails if the loop was closed in the meantime, so nobody joins a loop that the
                // publisher has left.
                if self.state.compare_exchange_weak(state, state + 1, SeqCst, Relaxed).is_ok() {
                    return Some(state >> 32);
                }
                continue;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // Announce parking first, then look again: the other half of the handshake in `run`.
            self.parked[index].store(true, SeqCst);
            let state = self.state.load(SeqCst);
            if (state >> 32 == seen || state & CLOSED != 0) && !self.stop.load(SeqCst) {
                std::thread::park();
            }
            self.parked[index].store(false, SeqCst);
            spins = 0;
        }
    }

    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(number) = self.join(index, seen) {
            seen = number;
            let result =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.take_units()));
            if result.is_err() {
                self.panicked.store(true, Relaxed);
            }
            self.state.fetch_sub(1, Release);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _panicked_already_reported = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::ThreadPool;

    #[test]
    fn panic_on_any_thread_propagates_and_the_pool_still_ends() {
        for n_threads in [1, 3] {
            let mut pool = ThreadPool::new(n_threads);
            let run = std::panic::AssertUnwindSafe(|| {
                pool.run(100, &|unit| assert!(unit < 50, "unit {unit}"));
            });
            assert!(std::panic::catch_unwind(run).is_err());
        }
    }

    #[test]
    fn every_unit_runs_exactly_once_in_each_of_many_loops() {
        let mut pool = ThreadPool::new(3);
        for round in 0..2000 {
            let n_units = round % 37;
            let done: Vec<AtomicUsize> = (0..n_units).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n_units, &|unit| {
                done[unit].fetch_add(1, Relaxed);
            });
            assert!(done.iter().all(|n| n.load(Relaxed) == 1), "round {round}");
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}
