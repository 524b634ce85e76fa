//! Hostile programs, numbered. Numbers that are missing here are attacks on other parts of Rune,
//! which are tested there: 58-60, 62-64 and 72 with the judge, 43 and 67-69 with collected files,
//! 73 with work trees, 74 with the judge's values, 75-77 with the runner, 78 with the prompts.

use std::borrow::Cow;
use std::time::Duration;

use rune::sandbox::ExitKind;
use rune::sandbox::Limits;

/// A program and the required end of it.
#[derive(Debug, Clone)]
pub(super) struct Hostile {
    pub(super) name: &'static str,
    /// Python source. `PORT`, `SECRET`, `SOCKET` and `PID` are replaced by those of the host.
    pub(super) program: Cow<'static, str>,
    pub(super) ends: Ends,
}

/// The required end of a program.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ends {
    /// Its last line of output is this.
    Says(&'static str),
    /// It ends this way, with any output.
    With(ExitKind),
    /// It is stopped, or fails, within the limits.
    InVain,
}

use Ends::InVain;
use Ends::Says;
use Ends::With;

/// Start of every program: `tried(f, ...)` returns the name of the error, or `done`.
pub(super) const PRELUDE: &str = r"
import os, sys, time, errno, socket, signal
def tried(f, *args):
    try:
        f(*args)
    except OSError as e:
        return errno.errorcode.get(e.errno, type(e).__name__)
    except Exception as e:
        return type(e).__name__
    return 'done'
def fill(path, chunk=1 << 20):
    size = 0
    try:
        while True:
            with open(f'{path}/{size >> 20}', 'wb', 0) as f:
                f.write(bytes(chunk))
            size += chunk
    except OSError as e:
        return errno.errorcode[e.errno], size >> 20
";

/// Limits under which every program ends quickly, even on a busy machine.
pub(super) fn limits(ends: Ends) -> Limits {
    let wall = if let With(ExitKind::WallLimit) = ends { 2 } else { 40 };
    // Where another limit must stop a program, creating thousands of files may take seconds on a
    // slow disk.
    let stopped_otherwise = matches!(ends, Says(_) | With(ExitKind::OutputLimit));
    let cpu_ms = if stopped_otherwise { 10_000 } else { 1500 };
    Limits {
        cpu: Duration::from_millis(cpu_ms),
        wall: Duration::from_secs(wall),
        memory_bytes: 256 << 20,
        address_bytes: 256 << 20,
        ..Limits::default()
    }
}

/// A different end of a program in a jail without namespaces.
struct Differs {
    /// Number of the program.
    number: &'static str,
    ends: Ends,
    /// Name of the gap that explains the difference.
    gap: &'static str,
    /// A stricter program to run instead, if the original only detects that something exists.
    program: Option<&'static str>,
}

const fn differs(number: &'static str, ends: Ends, gap: &'static str) -> Differs {
    Differs { number, ends, gap, program: None }
}

impl Differs {
    const fn by(self, program: &'static str) -> Self {
        Self { program: Some(program), ..self }
    }
}

const WITHOUT_NAMESPACES: &[Differs] = &[
    differs("04", InVain, "processes"),
    differs("05", With(ExitKind::OutputLimit), "disk"),
    differs("08", With(ExitKind::OutputLimit), "disk"),
    differs("19", Says("EACCES"), "names"),
    differs("20", Says("EACCES"), "names"),
    differs("22", InVain, "folders"),
    differs("24", Says("EACCES"), "names"),
    differs("25", Says("EPERM"), "sockets"),
    differs("26", Says("EPERM"), "sockets"),
    differs("28", InVain, "sockets"),
    differs("29", InVain, "sockets"),
    differs("32", Says("EPERM"), "names"),
    differs("33", InVain, "folders"),
    differs("43", Says("EACCES EROFS"), "names"),
    differs("45", InVain, "folders"),
    differs("21", Says("refused"), "names").by(
        r"
found = {tried(os.listdir, p) for p in ['/', '/home', '/var', '/sys', '/root', '/mnt', '/opt', '/run', '/etc', '/tmp/', '/proc']}
found |= {tried(open, p) for p in ['/etc/shadow', '/etc/passwd', '/proc/PID/environ', '/proc/PID/cmdline', '/proc/cpuinfo']}
print('refused' if found <= {'EACCES', 'ENOENT'} else found)",
    ),
    differs("57", Says("EACCES"), "names").by("print(tried(os.listdir, '/sys/fs/cgroup'))"),
];

/// Attacks that are refused to a forked process, while a whole jail would be stopped for them.
const FORKED: &[(&str, Ends)] = &[
    ("01", InVain),
    ("02", Says("stopped")),
    ("03", Says("MemoryError")),
    ("65", Says("BlockingIOError")),
];

impl Hostile {
    /// The program with its required end in a process that a zygote forks.
    pub(super) fn forked(&self) -> Self {
        let differs = FORKED.iter().find(|(number, _)| self.name.starts_with(number));
        Self { ends: differs.map_or(self.ends, |(_, ends)| *ends), ..self.clone() }
    }

    /// The program with its required end in a jail without namespaces that has these `gaps`; its
    /// paths are changed to those of the scratch directory.
    pub(super) fn without_namespaces(&self, gaps: &[&str]) -> Self {
        let mut known = WITHOUT_NAMESPACES.iter().filter(|differs| gaps.contains(&differs.gap));
        let differs = known.find(|differs| self.name.starts_with(differs.number));
        let program = differs.and_then(|differs| differs.program).unwrap_or(&self.program);
        let mut program = program.to_owned();
        for (jail, folder) in [("'/box", "'."), ("'/in", "'../in"), ("'/tmp'", "'../tmp'")] {
            program = program.replace(jail, folder);
        }
        let ends = differs.map_or(self.ends, |differs| differs.ends);
        Self { name: self.name, program: program.into(), ends }
    }
}

const fn case(name: &'static str, ends: Ends, program: &'static str) -> Hostile {
    Hostile { name, program: Cow::Borrowed(program), ends }
}

pub(super) const HOSTILE: &[Hostile] = &[
    case(
        "01 fork bomb",
        With(ExitKind::ProcessLimit),
        r"
while True:
    try: os.fork()
    except OSError: pass",
    ),
    case(
        "02 thread bomb",
        With(ExitKind::ProcessLimit),
        r"
import threading
n = 0
try:
    while n < 500:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1
except RuntimeError: time.sleep(1)
print('stopped' if n < 200 else n, flush=True); os._exit(0)",
    ),
    case(
        "03 memory bomb in one process",
        With(ExitKind::MemoryLimit),
        r"
print(tried(lambda: [bytearray(1 << 24) for _ in range(10000)]))",
    ),
    case(
        "04 memory bomb in twenty processes",
        With(ExitKind::MemoryLimit),
        r"
for _ in range(20):
    if os.fork() == 0:
        held = bytearray(os.urandom(1 << 16)) * (100 << 4)
        time.sleep(60)
time.sleep(60)",
    ),
    case(
        "05 fill the disks",
        Says("ENOSPC ENOSPC ENOSPC"),
        r"
names = []
for folder in ['/box', '/tmp', '/dev/shm']:
    name, size = fill(folder)
    names.append(name if size <= 32 else size)
print(*names)",
    ),
    case(
        "06 memfd hoard",
        InVain,
        r"
held = []
while True:
    fd = os.memfd_create('x')
    for _ in range(8): os.write(fd, bytes(1 << 20))
    held.append(fd)
    assert len(held) < 100",
    ),
    case(
        "07 big file",
        Says("EFBIG"),
        r"
def grow():
    with open('/box/f', 'wb', 0) as f:
        for _ in range(40): f.write(bytes(1 << 20))
print(tried(grow))",
    ),
    case(
        "08 fill the inodes",
        Says("ENOSPC"),
        r"
def litter():
    for n in range(5000): os.close(os.open(f'/box/{n}', os.O_CREAT))
print(tried(litter))",
    ),
    case(
        "09 sparse file",
        Says("EFBIG"),
        r"print(tried(os.truncate, os.open('/box/f', os.O_CREAT | os.O_RDWR), 1 << 40))",
    ),
    case("10 spin", With(ExitKind::CpuLimit), "while True: pass"),
    case("11 sleep", With(ExitKind::WallLimit), "time.sleep(3600)"),
    case(
        "12 ignore all signals",
        With(ExitKind::WallLimit),
        r"
for n in range(1, 65):
    tried(signal.signal, n, signal.SIG_IGN)
while True: time.sleep(1)",
    ),
    case("13 stop itself", With(ExitKind::WallLimit), "os.kill(os.getpid(), signal.SIGSTOP)"),
    case(
        "14 daemon that holds stdout",
        Says("left"),
        r"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(3600)
    os._exit(0)
print('left')",
    ),
    case(
        "15 grandchild that holds the pipes",
        Says("left"),
        r"
import subprocess
subprocess.Popen(['/bin/sleep', '3600'])
print('left')",
    ),
    case(
        "16 flood of stdout",
        With(ExitKind::OutputLimit),
        "while True: os.write(1, bytes(1 << 16))",
    ),
    case(
        "17 flood of stderr",
        With(ExitKind::OutputLimit),
        "while True: os.write(2, bytes(1 << 16))",
    ),
    case("18 raw bytes", With(ExitKind::Code(0)), r"os.write(1, b'\x1b]0;x\x07\x00\xff\xfe')"),
    case("19 read a secret", Says("ENOENT"), "print(tried(open, 'SECRET'))"),
    case("20 write to a file of the host", Says("ENOENT"), "print(tried(open, 'SECRET', 'r+'))"),
    case(
        "21 look for the host",
        Says("[]"),
        r"
paths = ['/etc/shadow', '/home', '/var', '/sys', '/root/.ssh', '/root/.bashrc', '/old', '/mnt', '/opt', '/run']
print([p for p in paths if os.path.exists(p)])",
    ),
    case("22 users of the host", Says("2"), "print(len(open('/etc/passwd').readlines()))"),
    case(
        "23 secrets of the environment",
        Says("HOME LANG PATH PYTHONDONTWRITEBYTECODE PYTHONHASHSEED TMPDIR"),
        r"
print(*sorted(set(os.environ) - {'LC_CTYPE'}))",
    ),
    case("24 environment of pid 1", Says("ENOENT"), "print(tried(open, '/proc/1/environ'))"),
    case(
        "25 loopback of the host", // the host looks whether it was reached
        Says("refused"),
        r"
name = tried(socket.create_connection, ('127.0.0.1', PORT), 2)
print('refused' if name in ('ECONNREFUSED', 'ENETUNREACH', 'EACCES') else name)",
    ),
    case(
        "26 internet",
        Says("refused"),
        r"
name = tried(socket.create_connection, ('1.1.1.1', 443), 2)
print('refused' if name in ('ENETUNREACH', 'EACCES') else name)",
    ),
    case(
        "27 names of the internet",
        Says("gaierror"),
        r"
try: socket.getaddrinfo('example.com', 80)
except socket.gaierror: print('gaierror')",
    ),
    case(
        "28 abstract socket of the host",
        Says("refused"),
        r"
name = tried(socket.socket(socket.AF_UNIX).connect, '\0SOCKET')
print('refused' if name in ('ECONNREFUSED', 'EPERM', 'EACCES') else name)",
    ),
    case(
        "29 path of a socket of the host",
        Says("ENOENT"),
        r"
print(tried(socket.socket(socket.AF_UNIX).connect, 'SOCKET'))",
    ),
    case(
        "30 other families of sockets",
        Says("{'EPERM'}"),
        r"
kinds = [(17, 3), (16, 3), (40, 1), (38, 5), (15, 3), (44, 3), (2, 3), (10, 3)]
print({tried(socket.socket, family, kind, 1) for family, kind in kinds})",
    ),
    case(
        "31 kill pid 1, the parent, everybody",
        Says("alive"),
        r"
for pid in [1, os.getppid(), -1]: tried(os.kill, pid, 0 if pid == -1 else signal.SIGKILL)
print('alive')",
    ),
    case(
        "32 kill a process of the host",
        Says("ESRCH"),
        "print(tried(os.kill, PID, signal.SIGKILL))",
    ),
    case(
        "33 list the processes",
        Says("['2']"),
        r"
print([name for name in os.listdir('/proc') if name.isdigit()])",
    ),
    case(
        "34 trace and unshare",
        Says("{1}"),
        r"
import ctypes
libc, found = ctypes.CDLL(None, use_errno=True), set()
# ptrace, process_vm_readv, mount, unshare, setns, chroot, bpf, keyctl, io_uring_setup, userfaultfd
for number in [101, 310, 165, 272, 308, 161, 321, 250, 425, 323] if os.uname().machine == 'x86_64' else [117]:
    libc.syscall(number, 0x10000000, 0, 0, 0, 0); found.add(ctypes.get_errno())
print(found)",
    ),
    case(
        "35 read and write the memory of others",
        Says("{1}"),
        r"
import ctypes
libc, found = ctypes.CDLL(None, use_errno=True), set()
# process_vm_readv, process_vm_writev, pidfd_getfd, kcmp
for number in [310, 311, 438, 312] if os.uname().machine == 'x86_64' else [270, 271, 438, 272]:
    libc.syscall(number, 1, 0, 0, 0, 0, 0); found.add(ctypes.get_errno())
print(found)",
    ),
    case(
        "36 the kernel's files",
        Says("refused"),
        r"
paths = ['/proc/1/mem', '/proc/1/root/etc/shadow', '/proc/1/cwd/secret', '/proc/kcore', '/proc/kmsg', '/proc/sysrq-trigger', '/proc/kallsyms']
found = {tried(open, path, 'rb') for path in paths}
print('refused' if found <= {'EACCES', 'EPERM', 'ENOENT'} else found)",
    ),
    case(
        "37 the kernel's settings",
        Says("refused"),
        r"
found = {tried(lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000'))}
paths = ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/vm/drop_caches']
found |= {tried(os.open, path, os.O_WRONLY) for path in paths} | {tried(socket.sethostname, 'x')}
print('refused' if found <= {'EACCES', 'EPERM', 'ENOENT'} else found)",
    ),
    case(
        "38 mounts and namespaces",
        Says("{1}"),
        r"
import ctypes
libc, found = ctypes.CDLL(None, use_errno=True), set()
# mount, umount2, unshare, setns, pivot_root, chroot, open_tree, fsopen, mount_setattr
numbers = [165, 166, 272, 308, 155, 161, 428, 430, 442] if os.uname().machine == 'x86_64' else [40, 39, 97, 268, 41, 51, 428, 430, 442]
for number in numbers:
    libc.syscall(number, 0x10000000, 0, 0, 0, 0); found.add(ctypes.get_errno())
print(found)",
    ),
    case(
        "39 clone3 is not there",
        Says("38"),
        r"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(435, 0, 0); print(ctypes.get_errno())",
    ),
    case(
        "40 wide doors into the kernel",
        Says("{1}"),
        r"
import ctypes
libc, found = ctypes.CDLL(None, use_errno=True), set()
# io_uring_setup, bpf, perf_event_open, userfaultfd, keyctl, add_key
numbers = [425, 321, 298, 323, 250, 248] if os.uname().machine == 'x86_64' else [425, 280, 241, 282, 219, 217]
for number in numbers:
    libc.syscall(number, 0, 0, 0, 0, 0); found.add(ctypes.get_errno())
print(found)",
    ),
    case(
        "41 become root",
        Says("True 0000000000000000 1 EPERM"),
        r"
import subprocess
for program in ['/bin/su', '/bin/mount', '/usr/bin/passwd', '/usr/bin/sudo']:
    tried(lambda: subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=5))
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
print(os.geteuid() != 0, status['CapEff'].strip(), status['NoNewPrivs'].strip(), tried(os.setuid, 0) if tried(os.setuid, 0) == 'EPERM' else 'EPERM' if tried(os.setuid, 0) == 'EINVAL' else 'root')",
    ),
    case(
        "42 write to the system",
        Says("refused"),
        r"
found = {tried(open, p + '/x', 'w') for p in ['/usr', '/in', '', '/etc', '/bin', '/dev', '/proc/self']}
found |= {tried(open, p, 'w') for p in ['/in/input', '/etc/passwd', '/usr/bin/env', '/proc/self/oom_score_adj']}
print('refused' if found <= {'EROFS', 'EACCES', 'ENOENT'} else found)",
    ),
    case(
        "43 links out of the jail",
        Says("ENOENT EROFS"),
        r"
os.symlink('SECRET', '/box/link')
name = tried(os.link, '/etc/passwd', '/box/hard')
print(tried(open, '/box/link'), 'EROFS' if name in ('EROFS', 'EXDEV', 'EACCES', 'EPERM') else name)",
    ),
    case(
        "44 device nodes",
        Says("refused"),
        r"
import stat
found = {tried(os.mknod, '/box/d', kind, os.makedev(1, 5)) for kind in [stat.S_IFBLK, stat.S_IFCHR]}
print('refused' if found <= {'EPERM', 'EACCES'} else found)",
    ),
    case(
        "45 climb",
        Says("/ ['bin', 'box']"),
        r"
for _ in range(20): os.chdir('..')
print(os.getcwd(), sorted(os.listdir('.'))[:2])",
    ),
    case(
        "46 inherited descriptors",
        Says("[0, 1, 2]"),
        r"
print([fd for fd in range(256) if tried(os.fstat, fd) == 'done'])",
    ),
    case(
        "47 terminal",
        Says("EPERM ENOENT"),
        r"
import fcntl, termios
print(tried(fcntl.ioctl, 0, termios.TIOCSTI, b'x'), 'ENOENT' if tried(open, '/dev/tty') in ('ENOENT', 'ENXIO', 'EACCES') else 'tty')",
    ),
    case(
        "48 recursion without end",
        InVain,
        r"
sys.setrecursionlimit(1 << 30)
def f(x): return f([x])
f(0)",
    ),
    case("49 segmentation fault", With(ExitKind::Signal(11)), "import ctypes; ctypes.string_at(0)"),
    case("50 abort", With(ExitKind::Signal(6)), "os.abort()"),
    case(
        "51 core dump",
        Says("False []"),
        r"
pid = os.fork()
if pid == 0: os.abort()
print(os.WCOREDUMP(os.waitpid(pid, 0)[1]), [name for name in os.listdir('/box') if 'core' in name])",
    ),
    case(
        "52 raise the limits",
        Says("refused"),
        r"
import resource
found = {tried(resource.setrlimit, r, (-1, -1)) for r in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU)}
print('refused' if found <= {'EPERM', 'ValueError'} else found)",
    ),
    case(
        "53 priority",
        Says("EACCES EPERM"),
        r"
name = tried(os.nice, -20)
print('EACCES' if name == 'EPERM' else name, tried(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)))",
    ),
    case("54 a large power", InVain, "10 ** (10 ** 9)"),
    case(
        "55 a pattern without end",
        With(ExitKind::CpuLimit),
        r"
import re; re.match('(a+)+$', 'a' * 64 + 'b')",
    ),
    case(
        "56 shared memory of System V",
        Says("done"),
        r"
import ctypes
ctypes.CDLL(None).shmget(0x52554e45, 4096, 0o1666)
print('done')",
    ),
    case("57 control groups", Says("False"), "print(os.path.exists('/sys/fs/cgroup'))"),
    case(
        "61 calls of other architectures",
        With(ExitKind::Signal(31)),
        r"
import ctypes, mmap
if os.uname().machine != 'x86_64': os.kill(os.getpid(), 31)
if os.fork() == 0: ctypes.CDLL(None).syscall(0x40000000 + 39); os._exit(0)  # getpid of x32
status = os.wait()[1]
assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 31, status
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
    ),
    case(
        "62 replace what was given",
        Says("refused"),
        r"
found = {tried(os.rename, '/in/input', '/in/other'), tried(os.replace, '/in', '/box/in'), tried(os.unlink, '/in/input')}
print('refused' if found <= {'EROFS', 'EACCES', 'EXDEV', 'ENOENT', 'EBUSY'} else found)",
    ),
    case(
        "65 zombies",
        With(ExitKind::ProcessLimit),
        r"
def litter():
    for _ in range(1000):
        if os.fork() == 0: os._exit(0)
try: litter()
except BlockingIOError: print('BlockingIOError', flush=True); time.sleep(1); os._exit(0)",
    ),
    case(
        "66 arguments without end",
        Says("E2BIG"),
        r"
import subprocess
print(tried(subprocess.run, ['/bin/true'] + ['x' * 1000] * 20000))",
    ),
    case(
        "70 graphics cards",
        Says("[]"),
        r"
import glob
print(glob.glob('/dev/nvidia*') + glob.glob('/dev/dri*') + glob.glob('/dev/kfd'))",
    ),
    case(
        "71 clocks",
        Says("EPERM EPERM"),
        r"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
number = 272 if os.uname().machine == 'x86_64' else 97
libc.syscall(number, 0x80)  # unshare(CLONE_NEWTIME)
print(tried(time.clock_settime, time.CLOCK_REALTIME, 0), errno.errorcode[ctypes.get_errno()])",
    ),
    // Attacks on things that Landlock does not control.
    case(
        "79 change what can't be written", // the host looks whether it was
        Says("tried"),
        r"
for path in ['SECRET', '/usr/bin/env', sys.executable]:
    tried(os.chmod, path, 0o777); tried(os.utime, path, (0, 0)); tried(os.chown, path, 1000, 1000)
    tried(lambda: os.fchmod(os.open(path, os.O_RDONLY), 0o777))
    tried(os.setxattr, path, 'user.x', b'1')
print('tried')",
    ),
    case(
        "80 limits and priorities of others",
        Says("refused"),
        r"
import resource
found = {tried(resource.prlimit, PID, resource.RLIMIT_NOFILE, (3, 3)), tried(os.sched_setaffinity, PID, {0})}
found |= {tried(os.setpriority, os.PRIO_PROCESS, PID, 19), tried(os.sched_setparam, PID, os.sched_param(0))}
print('refused' if found <= {'EPERM', 'EACCES', 'ESRCH', 'ProcessLookupError', 'PermissionError'} else found)",
    ),
    case(
        "81 sockets by the back door",
        Says("refused"),
        r"
def pair():
    a, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.connect('SOCKET')
def stream():
    a, _ = socket.socketpair()
    a.connect('SOCKET')
def udp():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))
found = {tried(pair), tried(stream)}
tried(udp)  # the host looks whether it came
print('refused' if found <= {'EPERM', 'EACCES', 'ENOENT', 'EISCONN', 'EINVAL'} else found)",
    ),
    case(
        "82 watch the host's files",
        Says("refused"),
        r"
import ctypes
libc, found = ctypes.CDLL(None, use_errno=True), set()
for path in [b'SECRET', b'/home', b'/var']:
    fd = libc.inotify_init()
    if libc.inotify_add_watch(fd, path, 0xfff) >= 0: found.add('watched')
print(found or 'refused')",
    ),
    case(
        "83 signals by other ways",
        Says("refused"),
        r"
import ctypes
libc, found = ctypes.CDLL(None, use_errno=True), set()
def by_pidfd(): signal.pidfd_send_signal(os.pidfd_open(PID), 9)
def by_owner():
    import fcntl
    r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, PID); fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC); os.write(w, b'x')
tried(by_owner); found.add(tried(by_pidfd))
# tgkill, tkill, rt_sigqueueinfo
for number in [234, 200, 129] if os.uname().machine == 'x86_64' else [131, 130, 138]:
    libc.syscall(number, PID, PID if number in (234, 131) else 9, 9); found.add(errno.errorcode[ctypes.get_errno()])
print('refused' if found <= {'EPERM', 'ESRCH', 'EACCES', 'EFAULT', 'EINVAL'} else found)",
    ),
];
