//! Limits are distinguished from the program's own failures, are wide enough for ordinary suites,
//! and cannot be evaded.

use std::time::Duration;

use rune::sandbox::ExecOutcome;
use rune::sandbox::ExecRequest;
use rune::sandbox::ExitKind;
use rune::sandbox::Limits;
use rune::sandbox::Sandbox;

/// Limits that are reached quickly.
fn small() -> Limits {
    Limits { memory_bytes: 256 << 20, wall: Duration::from_secs(30), ..Limits::default() }
}

async fn run(sandbox: &Sandbox, program: &str, limits: Limits) -> ExecOutcome {
    let interpreter = sandbox.interpreter(None).unwrap();
    let job = super::python(&interpreter, program.to_owned(), limits);
    sandbox.run(&job).await.unwrap()
}

/// Runs `program` with and without namespaces and returns how it ended.
async fn exits(program: &str) -> [ExitKind; 2] {
    let (first, second) = (super::sandbox(), super::without_namespaces());
    [run(&first, program, small()).await.exit, run(&second, program, small()).await.exit]
}

async fn says(program: &str) -> String {
    let outcome = run(&super::sandbox(), program, Limits::default()).await;
    assert_eq!(outcome.exit, ExitKind::Code(0), "{}", super::text(&outcome.stderr.bytes));
    super::text(&outcome.stdout.bytes)
}

#[tokio::test]
async fn pools_of_ordinary_suites_fit_the_limits() {
    let program = r"
import concurrent.futures, multiprocessing, threading
def square(n): return n * n
all_there = threading.Barrier(64)
def wait(n):
    all_there.wait(20)
    return len([bytes(1000) for _ in range(100)])
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print(sum(pool.map(wait, range(64))))
with multiprocessing.get_context('fork').Pool(8) as pool:
    print(sum(pool.map(square, range(100))))
";
    assert_eq!(says(program).await, "6400\n328350\n");
}

#[tokio::test]
async fn deep_recursion_fits_the_stack() {
    let program = r"
import sys, threading
sys.setrecursionlimit(1 << 20)
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
print(depth(50_000))
def compare(n): return sorted([n, 0], key=lambda x: x and compare(x - 1) and 0 or 0)
print(compare(10_000)[0])
threading.stack_size(512 << 20)
thread = threading.Thread(target=lambda: print(depth(100_000))); thread.start(); thread.join()
";
    assert_eq!(says(program).await, "50000\n10000\n100000\n");
}

#[tokio::test]
async fn process_limit_is_reported() {
    let forks = "import os, time\nfor _ in range(300):\n    if os.fork() == 0: time.sleep(9); os._exit(0)\ntime.sleep(9)";
    assert_eq!(exits(forks).await, [ExitKind::ProcessLimit; 2]);
    let threads = "import threading, time\n\
                   for _ in range(400): threading.Thread(target=time.sleep, args=(9,)).start()";
    assert_eq!(exits(threads).await, [ExitKind::ProcessLimit; 2]);
}

#[tokio::test]
async fn memory_limit_is_reported() {
    let program = "held = []\nwhile True: held.append(bytearray(1 << 20))";
    assert_eq!(exits(program).await, [ExitKind::MemoryLimit; 2]);
}

/// The process then is a zombie, which shows no memory.
#[tokio::test]
async fn memory_is_counted_after_the_main_thread_ends() {
    let program = r"
import ctypes, os, threading, time
held = []
def grow():
    time.sleep(0.3)
    while True: held.append(bytearray(1 << 20))
threading.Thread(target=grow).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)
";
    assert_eq!(exits(program).await, [ExitKind::MemoryLimit; 2]);
}

/// Programs that fork often leave zombies, which show no memory.
#[tokio::test]
async fn zombies_do_not_count_as_hidden_memory() {
    let program = "import os, time\nfor _ in range(20):\n    if os.fork() == 0: os._exit(0)\n\
                   time.sleep(1.5)\nprint('slept')";
    assert_eq!(says(program).await, "slept\n");
}

#[tokio::test]
async fn stack_overflow_is_reported() {
    // Machine code of a function that only calls itself.
    let program = r"
import ctypes, mmap, os
code = {'x86_64': 'e8fbffffff', 'aarch64': 'fd7bbfa9ffffff97'}[os.uname().machine]
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex(code))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
";
    assert_eq!(exits(program).await, [ExitKind::StackLimit; 2]);
}

#[tokio::test]
async fn faults_outside_the_stack_are_signals() {
    let program = "import ctypes; ctypes.string_at(8)";
    assert_eq!(exits(program).await, [ExitKind::Signal(11); 2]);
    let forged = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)";
    assert_eq!(exits(forged).await, [ExitKind::Signal(11); 2]);
}

#[tokio::test]
async fn signals_reach_traced_programs() {
    let program = r"
import os, signal, threading, time
got = []
for number in (signal.SIGUSR1, signal.SIGRTMIN, signal.SIGTRAP, signal.SIGCONT):
    signal.signal(number, lambda number, frame: got.append(number))
    os.kill(os.getpid(), number)
if os.fork() == 0:
    time.sleep(0.3); os.kill(os.getppid(), signal.SIGCONT); os._exit(0)
os.kill(os.getpid(), signal.SIGSTOP)
os.wait()
print(len(got))
";
    assert_eq!(says(program).await, "5\n");
    let real_time = "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)";
    assert_eq!(exits(real_time).await, [ExitKind::Signal(35); 2]);
}

#[tokio::test]
async fn unmapped_shared_memory_is_counted() {
    // Without a control group that counts memory, a large piece is refused.
    let large = r"
import mmap, os, time
def hold():
    m = mmap.mmap(-1, 400 << 20)
    for at in range(0, len(m), 8 << 20):
        m[at:at + (8 << 20)] = b'x' * (8 << 20)
        m.madvise(mmap.MADV_DONTNEED, at, 8 << 20)
    time.sleep(3)
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0: hold(); os._exit(0)
    pids.append(pid)
os._exit(sum(os.waitpid(pid, 0)[1] for pid in pids) != 0)
";
    for exit in exits(large).await {
        assert!([ExitKind::MemoryLimit, ExitKind::Code(1)].contains(&exit), "{exit:?}");
    }
    let small = r"
import mmap, time
held = []
for _ in range(600):
    m = mmap.mmap(-1, 1 << 20)
    m[:] = b'x' * len(m)
    m.madvise(mmap.MADV_DONTNEED)
    held.append(m)
time.sleep(3)
";
    assert_eq!(exits(small).await, [ExitKind::MemoryLimit; 2]);
    // Unmapping all but one page of a shared mapping keeps all its memory.
    let partial = r"
import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p] + [ctypes.c_long] * 5
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_long]
for _ in range(600):
    at = libc.mmap(None, 1 << 20, 3, 0x21, -1, 0)
    ctypes.memset(at, 1, 1 << 20)
    libc.munmap(at + 4096, (1 << 20) - 4096)
time.sleep(3)
";
    assert_eq!(exits(partial).await, [ExitKind::MemoryLimit; 2]);
}

#[tokio::test]
async fn memory_mapped_from_devices_is_counted() {
    let program = r"
import mmap, os, time
held = []
for _ in range(3):
    m = mmap.mmap(os.open('/dev/zero', os.O_RDWR), 200 << 20)
    for at in range(0, len(m), 8 << 20):
        m[at:at + (8 << 20)] = b'x' * (8 << 20)
        m.madvise(mmap.MADV_DONTNEED, at, 8 << 20)
    held.append(m)
time.sleep(3)
";
    for exit in exits(program).await {
        assert!([ExitKind::MemoryLimit, ExitKind::Code(1)].contains(&exit), "{exit:?}");
    }
}

#[tokio::test]
async fn socket_and_pipe_buffers_are_counted() {
    let sockets = r"
import os, socket, time
for _ in range(3):
    if os.fork(): continue
    held = []
    for _ in range(480):
        pair = socket.socketpair()
        for end in pair:
            end.setblocking(False)
            try:
                while True: end.send(bytes(1 << 14))
            except BlockingIOError: pass
        held.append(pair)
    time.sleep(6); os._exit(0)
time.sleep(6)
";
    assert_eq!(exits(sockets).await, [ExitKind::MemoryLimit; 2]);
}

/// Programs that copy files fall back to plain reads and writes if the calls that can hold pages
/// are denied.
#[tokio::test]
async fn file_copies_work_under_the_filters() {
    let program = "import shutil\nopen('a', 'w').write('x' * 100000)\nshutil.copyfile('a', 'b')\n\
                   print(len(open('b').read()))";
    assert_eq!(says(program).await, "100000\n");
    let job = ExecRequest {
        args: vec!["-c".into(), "echo hi > a; cp a b; cat b".into()],
        ..super::shell("")
    };
    let outcome = super::sandbox().run(&job).await.unwrap();
    assert_eq!(super::text(&outcome.stdout.bytes), "hi\n");
}
