//! The jail contains programs of root and of plain users, and leaves nothing behind.

mod environments;
mod hostile;
mod limits;
mod loopback;

use std::borrow::Cow;
use std::fs;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use rune::config::ProgramProfile;
use rune::sandbox::ExecOutcome;
use rune::sandbox::ExecRequest;
use rune::sandbox::ExitKind;
use rune::sandbox::ForkEnd;
use rune::sandbox::Interpreter;
use rune::sandbox::JailTier;
use rune::sandbox::Limits;
use rune::sandbox::RepositorySnapshot;
use rune::sandbox::Sandbox;
use rune::sandbox::SandboxError;
use rune::sandbox::Zygote;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use hostile::Ends;
use hostile::HOSTILE;
use hostile::Hostile;

/// Variable with the path of the `rune` binary, for tests that run as another user, who may not
/// read the build folder.
const BINARY: &str = "RUNE_TEST_BINARY";
/// Variable with the name of the only test to run in this process.
const ALONE: &str = "RUNE_TEST_ALONE";
/// A user without any privileges.
const PLAIN_USER: u32 = 12345;

pub(super) fn binary() -> PathBuf {
    std::env::var_os(BINARY).map_or_else(|| env!("CARGO_BIN_EXE_rune").into(), PathBuf::from)
}

fn sandbox() -> Arc<Sandbox> {
    Arc::new(Sandbox::start(&binary()).unwrap())
}

fn without_namespaces() -> Arc<Sandbox> {
    Arc::new(Sandbox::without_namespaces(&binary()).unwrap())
}

fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        args: vec!["-c".into(), script.into()],
        limits: Limits { wall: Duration::from_mins(1), ..Limits::default() },
        ..ExecRequest::new("/bin/sh")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that runs the test `name` in a separate process.
fn myself(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(ALONE, name);
    command
}

fn is_alone(name: &str) -> bool {
    std::env::var_os(ALONE).is_some_and(|alone| alone == name)
}

/// Ids of processes whose command line contains `needle`.
fn processes(needle: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| text(&line).contains(needle))
    });
    found.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "never came true: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Files and sockets of the host that the hostile programs try to reach.
struct Host {
    tcp: TcpListener,
    udp: UdpSocket,
    _abstract_socket: UnixListener,
    _socket: UnixListener,
    folder: tempfile::TempDir,
}

impl Host {
    fn open() -> Self {
        use std::os::linux::net::SocketAddrExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
        udp.set_nonblocking(true).unwrap();
        let socket = folder.path().join("socket");
        let name = std::os::unix::net::SocketAddr::from_abstract_name(socket.to_str().unwrap());
        Self {
            tcp,
            udp,
            _abstract_socket: UnixListener::bind_addr(&name.unwrap()).unwrap(),
            _socket: UnixListener::bind(&socket).unwrap(),
            folder,
        }
    }

    /// Asserts that no attempt of a program has reached the host.
    fn is_untouched(&self) {
        self.tcp.accept().unwrap_err(); // nobody has connected
        self.udp.recv(&mut [0]).unwrap_err(); // or sent anything
        let secret = self.folder.path().join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        let metadata = fs::metadata(secret).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(metadata.modified().unwrap().elapsed().unwrap() < Duration::from_hours(1));
        let shared = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        assert!(!shared.contains(&0x5255_4e45.to_string()), "{shared}");
    }

    fn program(&self, hostile: &Hostile) -> String {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let text =
            hostile.program.replace("PORT", &self.tcp.local_addr().unwrap().port().to_string());
        let text = text.replace("SECRET", &path("secret")).replace("SOCKET", &path("socket"));
        format!("{}{}\n", hostile::PRELUDE, text.replace("PID", &std::process::id().to_string()))
    }
}

fn python(interpreter: &Interpreter, program: String, limits: Limits) -> ExecRequest {
    ExecRequest {
        program: interpreter.executable().to_owned(),
        args: ["-I", "-S", "/in/input"].map(str::to_owned).into(),
        inputs: vec![("input".to_owned(), program.into_bytes())],
        mounts: interpreter.mounts(),
        limits,
        ..shell("")
    }
}

/// Describes how a hostile program escaped; `None` if it was contained.
fn escape(hostile: &Hostile, outcome: &ExecOutcome) -> Option<String> {
    let stdout = text(&outcome.stdout.bytes);
    let held = match hostile.ends {
        Ends::Says(word) => stdout.lines().last() == Some(word),
        Ends::With(exit) => outcome.exit == exit,
        Ends::InVain => outcome.exit != ExitKind::Code(0),
    };
    let last =
        |text: &str| text.chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
    let (stdout, stderr): (String, String) = (last(&stdout), last(&text(&outcome.stderr.bytes)));
    (!held).then(|| {
        let ExecOutcome { exit, cpu, wall, .. } = outcome;
        format!("{}: {exit:?}, cpu {cpu:?}, wall {wall:?}\n{stdout}\n{stderr}", hostile.name)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_are_contained() {
    contain(sandbox(), HOSTILE.iter().map(Cow::Borrowed), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_are_contained_without_namespaces() {
    let sandbox = without_namespaces();
    let gaps = gaps(&sandbox);
    let hostile = HOSTILE.iter().map(|hostile| hostile.without_namespaces(&gaps));
    // Programs of a plain user share the kernel's limit on processes: a fork bomb runs alone.
    let (bombs, others): (Vec<_>, Vec<_>) = hostile
        .map(Cow::<Hostile>::Owned)
        .partition(|hostile| matches!(hostile.ends, Ends::With(ExitKind::ProcessLimit)));
    assert!(bombs.len() >= 3);
    contain(Arc::clone(&sandbox), bombs, 1).await;
    contain(sandbox, others, 4).await;
}

fn gaps(sandbox: &Sandbox) -> Vec<&'static str> {
    sandbox.facilities().gaps().iter().map(|gap| gap.name).collect()
}

/// Runs hostile programs, up to `n_parallel` at a time, each of which must end as specified.
async fn contain(
    sandbox: Arc<Sandbox>,
    programs: impl IntoIterator<Item = Cow<'static, Hostile>>,
    n_parallel: usize,
) {
    let host = Host::open();
    let interpreter = sandbox.interpreter(None).unwrap();
    let (seats, mut runs) = (Arc::new(Semaphore::new(n_parallel)), JoinSet::new());
    for hostile in programs {
        let job = python(&interpreter, host.program(&hostile), hostile::limits(hostile.ends));
        let (sandbox, seats) = (Arc::clone(&sandbox), Arc::clone(&seats));
        runs.spawn(async move {
            let _seat = seats.acquire().await.unwrap();
            match sandbox.run(&job).await {
                Ok(outcome) => escape(&hostile, &outcome),
                Err(error) => Some(format!("{}: {error}", hostile.name)),
            }
        });
    }
    let escapes: Vec<String> = runs.join_all().await.into_iter().flatten().collect();
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
    host.is_untouched();
}

/// Programs that do not apply to the child of a zygote, with the reason.
const NOT_FORKED: &[(&str, &str)] = &[
    ("04", "memory is capped for each process, and for all children together"),
    ("16", "its output goes nowhere"),
    ("17", "likewise"),
    ("24", "the program is pid 1 itself, and may read its own environment"),
    ("36", "likewise"),
    ("46", "its conversation is descriptor 3"),
];

/// The program of the zygote: runs a hostile program and sends its output.
const FORKED: &str = r"
import io, sys
def main(stream):
    sys.stdout = io.StringIO()
    try:
        exec(compile(stream.recv(1 << 20), '/in/input', 'exec'), {'__name__': 'hostile'})
    finally:
        stream.sendall(sys.stdout.getvalue().encode())
";

/// `program`, which ends by returning to [`FORKED`] instead of leaving at once.
fn returning(program: &str) -> String {
    program.trim_end().strip_suffix("; os._exit(0)").unwrap_or(program).to_owned()
}

async fn fork(zygote: &Zygote, program: &str, limits: &Limits) -> (String, ForkEnd) {
    let mut forked = zygote.fork("hostile", limits).await.unwrap();
    forked.stream().unwrap().write_all(program.as_bytes()).await.unwrap();
    let mut stdout = Vec::new();
    let _it_was_killed = forked.stream().unwrap().read_to_end(&mut stdout).await;
    (text(&stdout), forked.ended().await.unwrap())
}

/// Here an exception also counts as containment: a process may not even fork.
#[tokio::test]
async fn forked_hostile_programs_are_contained_without_namespaces() {
    let (sandbox, host) = (without_namespaces(), Host::open());
    let interpreter = sandbox.interpreter(None).unwrap();
    let zygote = Zygote::start(&sandbox, &interpreter, &[], &[("hostile", FORKED)]).await.unwrap();
    let (gaps, mut escapes) = (gaps(&sandbox), Vec::new());
    for hostile in HOSTILE.iter().map(|hostile| hostile.forked().without_namespaces(&gaps)) {
        if NOT_FORKED.iter().any(|(except, _)| hostile.name.starts_with(except)) {
            continue;
        }
        let limits = hostile::limits(hostile.ends);
        let program = returning(&host.program(&hostile));
        let (stdout, ended) = fork(&zygote, &program, &limits).await;
        let last = stdout.lines().last().unwrap_or_default();
        let is_refused = last.split(' ').all(|word| ["EACCES", "EPERM"].contains(&word));
        let held = match hostile.ends {
            Ends::Says(word) => last == word,
            Ends::With(exit) => ended.exit == exit,
            Ends::InVain => false,
        };
        if !held && !is_refused && ended.exit == ExitKind::Code(0) {
            escapes.push(format!("{}: {ended:?}\n{stdout}", hostile.name));
        }
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
    host.is_untouched();
}

#[tokio::test]
async fn forked_hostile_programs_are_contained() {
    let (sandbox, host) = (sandbox(), Host::open());
    let interpreter = Interpreter::find(None).unwrap();
    let zygote = Zygote::start(&sandbox, &interpreter, &[], &[("hostile", FORKED)]).await.unwrap();
    let mut escapes = Vec::new();
    for hostile in HOSTILE.iter().map(Hostile::forked) {
        let number = &hostile.name[..2];
        if NOT_FORKED.iter().any(|(except, _)| *except == number) {
            continue;
        }
        let limits = hostile::limits(hostile.ends);
        // The first process of a pid namespace ignores signals that it sends to itself and does not
        // handle.
        let ends = match (number, hostile.ends) {
            ("13", _) => Ends::Says(""),
            ("50", _) => Ends::With(ExitKind::Signal(11)),
            ("33", _) => Ends::Says("['1']"),
            (_, ends) => ends,
        };
        let program = returning(&host.program(&hostile));
        let (stdout, ended) = fork(&zygote, &program, &limits).await;
        let held = match ends {
            Ends::Says(word) => stdout.lines().last().unwrap_or_default() == word,
            Ends::With(exit) => ended.exit == exit,
            Ends::InVain => ended.exit != ExitKind::Code(0),
        };
        if !held {
            escapes.push(format!("{}: {ended:?}\n{stdout}", hostile.name));
        }
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
    host.is_untouched();
}

#[tokio::test]
async fn siblings_of_a_zygote_do_not_see_each_other() {
    let sandbox = sandbox();
    let interpreter = Interpreter::find(None).unwrap();
    let zygote = Zygote::start(&sandbox, &interpreter, &[], &[("hostile", FORKED)]).await.unwrap();
    let limits = Limits { wall: Duration::from_secs(20), ..Limits::default() };
    let leave = "import os, socket, time\nopen('/tmp/mine', 'w'); open('/box/mine', 'w'); open('/dev/shm/mine', 'w')\n\
                 s = socket.socket(socket.AF_UNIX); s.bind('\\0mine'); s.listen()\ntime.sleep(2)\nprint('slept')";
    let look = "import os, socket, time\ntime.sleep(0.7)\n\
                found = [p for p in ('/tmp/mine', '/box/mine', '/dev/shm/mine') if os.path.exists(p)]\n\
                try: socket.socket(socket.AF_UNIX).connect('\\0mine'); found.append('socket')\nexcept OSError: pass\n\
                print([p for p in os.listdir('/proc') if p.isdigit()], found)";
    let (first, second) = tokio::join!(fork(&zygote, leave, &limits), fork(&zygote, look, &limits));
    assert_eq!((first.0.as_str(), second.0.as_str()), ("slept\n", "['1'] []\n"));
}

/// Ids of the descendants of this process.
fn descendants() -> Vec<i32> {
    let children = |pid: i32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let all: Vec<i32> = texts
            .flat_map(|text| {
                text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        all
    };
    let mut found = vec![std::process::id().cast_signed()];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children(*pid));
        next += 1;
    }
    found.split_off(1)
}

#[tokio::test]
async fn dropped_forks_are_killed_and_dead_zygotes_are_errors() {
    let name = "sandbox::dropped_forks_are_killed_and_dead_zygotes_are_errors";
    if !is_alone(name) {
        return assert!(myself(name).status().unwrap().success());
    }
    let sandbox = sandbox();
    let without = descendants().len();
    let interpreter = Interpreter::find(None).unwrap();
    let zygote = Zygote::start(&sandbox, &interpreter, &[], &[("hostile", FORKED)]).await.unwrap();
    let alone = descendants().len();
    let mut forked = zygote.fork("hostile", &Limits::default()).await.unwrap();
    forked.stream().unwrap().write_all(b"while True: pass").await.unwrap();
    eventually("it runs", || descendants().len() > alone);
    drop(forked);
    eventually("it is gone", || descendants().len() == alone);
    let (stdout, _) = fork(&zygote, "print(1)", &Limits::default()).await;
    assert_eq!(stdout, "1\n");
    let impossible = Limits { cpu: Duration::MAX, ..Limits::default() };
    let unbuilt = zygote.fork("hostile", &impossible).await.unwrap_err();
    assert!(matches!(unbuilt, SandboxError::Zygote(_)), "{unbuilt}");
    let broken = Zygote::start(&sandbox, &interpreter, &["no_such_module"], &[]).await.unwrap_err();
    assert!(broken.to_string().contains("no_such_module"), "{broken}");
    drop(zygote);
    tokio::time::sleep(Duration::from_millis(1)).await; // until its task is dropped
    eventually("the zygote is gone", || descendants().len() == without);
}

/// A folder that every user may use, with a copy of the `rune` binary.
fn readable_copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let rune = folder.path().join("rune");
    fs::copy(binary(), &rune).unwrap();
    (folder, rune)
}

#[test]
fn programs_of_plain_users_are_contained() {
    if !nix::unistd::geteuid().is_root() {
        return; // then all other tests run as a plain user
    }
    let (folder, rune) = readable_copy();
    let tests = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    let hold = |filters: &[&str], bare: Option<&str>, required_test: &str| {
        let mut command = Command::new(&tests);
        // One test at a time: the kernel's limit on processes is shared by all jails of a user.
        command.args(filters).args(["--test-threads=1"]).env(BINARY, &rune).current_dir("/");
        command.env(crate::judge::PYTEST, crate::judge::pytest_for_all());
        command.envs(bare.map(|variable| (variable, "1"))).uid(PLAIN_USER).gid(PLAIN_USER);
        let output = command.output().unwrap();
        let stdout = text(&output.stdout);
        assert!(output.status.success(), "{stdout}{}", text(&output.stderr));
        assert!(stdout.contains(&format!("{required_test} ... ok")), "{stdout}");
    };
    hold(&["sandbox::", "judge::cheats"], None, "sandbox::hostile_programs_are_contained");
    hold(&["judge::cheats"], Some(crate::judge::BARE), "no_cheat_passes_questions");
}

#[tokio::test]
async fn canaries_are_contained() {
    let interpreter = Interpreter::find(None).unwrap();
    let canaries = rune::sandbox::probe(&sandbox(), &interpreter).await.unwrap();
    let escaped: Vec<_> = canaries.iter().filter(|canary| !canary.contained).collect();
    assert!(escaped.is_empty(), "{escaped:#?}");
}

#[tokio::test]
async fn programs_receive_files_and_return_streams() {
    let script = "cat; cat /in/a/b c; echo \"$KEY\" >&3; printf '\\033[1m\\000\\377' >&2; exit 7";
    let job = ExecRequest {
        stdin: b"stdin ".into(),
        inputs: vec![("a/b".into(), b"input ".into())],
        work: vec![("c".into(), b"work".into())],
        env: vec![("KEY".into(), "value".into())],
        channel: true,
        ..shell(script)
    };
    let outcome = sandbox().run(&job).await.unwrap();
    assert_eq!(outcome.exit, ExitKind::Code(7));
    assert_eq!(text(&outcome.stdout.bytes), "stdin input work");
    assert_eq!(outcome.stderr.bytes, b"\x1b[1m\0\xff");
    assert_eq!(text(&outcome.channel), "value\n");
    assert_eq!(outcome.tier, JailTier::Namespaces);
}

#[tokio::test]
async fn only_regular_files_are_collected() {
    let program = r"
import os, socket
os.makedirs('/box/deep/er')
for name in ['a.py', 'deep/er/b.txt', '-rf', '\u00e9 \u4e2d']:
    open(f'/box/{name}', 'w').write(name)
os.symlink('/etc/passwd', '/box/link')
os.symlink('/proc/self/fd/0', '/box/magic')
os.link('/box/a.py', '/box/twin')
open('/box/new\nline', 'w'); open(b'/box/\xff', 'w')
os.mkfifo('/box/fifo'); socket.socket(socket.AF_UNIX).bind('/box/socket')
open('/box/secret', 'w').write('x'); os.chmod('/box/secret', 0)
os.truncate(os.open('/box/sparse', os.O_CREAT | os.O_RDWR), 1 << 20)
path = '/box/d'
for _ in range(40):
    os.mkdir(path); os.chdir(path); path = 'd'
open('bottom', 'w')
os.chdir('/box')
if os.fork() == 0:
    while True: open('/box/growing', 'a').write('x' * 1000)  # until it is killed
";
    let interpreter = Interpreter::find(None).unwrap();
    let job = ExecRequest {
        collect: true,
        ..python(&interpreter, program.to_owned(), Limits::default())
    };
    let outcome = sandbox().run(&job).await.unwrap();
    assert_eq!(outcome.exit, ExitKind::Code(0), "{}", text(&outcome.stderr.bytes));
    let mut files: Vec<_> =
        outcome.files.iter().map(|(name, content)| (name.as_str(), content.len())).collect();
    files.retain(|(name, _)| *name != "growing" && *name != "secret"); // root may read the last one
    let expected = [("-rf", 3), ("deep/er/b.txt", 13), ("sparse", 1 << 20), ("\u{e9} \u{4e2d}", 6)];
    assert_eq!(files, expected);
    let mut refused: Vec<&str> = outcome.refused.iter().map(String::as_str).collect();
    refused.retain(|reason| !reason.starts_with("`secret`") && !reason.contains("d/d/d"));
    let expected = [
        "`a.py` is a hard link",
        "`fifo` is not a regular file",
        "`link` is not a regular file",
        "`magic` is not a regular file",
        "`new\\nline` has an unprintable name",
        "`socket` is not a regular file",
        "`twin` is a hard link",
        "`\u{fffd}` has an unprintable name",
    ];
    assert_eq!(refused, expected);
    assert!(outcome.refused.iter().any(|reason| reason.ends_with("is nested too deeply")));
}

/// Threads and libraries such as numpy reserve far more memory than they use.
#[tokio::test]
async fn reserved_memory_is_not_counted_until_used() {
    let program = "import mmap\nm = mmap.mmap(-1, 2 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
                   print('reserved', flush=True)\n\
                   for at in range(0, len(m), 4096): m[at] = 1\nprint('used')";
    let (sandbox, interpreter) = (sandbox(), Interpreter::find(None).unwrap());
    let mut found = Vec::new();
    for profile in [ProgramProfile::Python, ProgramProfile::Numeric, ProgramProfile::Shell] {
        let limits = Limits { memory_bytes: 256 << 20, ..Limits::of(profile) };
        let outcome = sandbox.run(&python(&interpreter, program.to_owned(), limits)).await.unwrap();
        found.push((text(&outcome.stdout.bytes), outcome.exit));
    }
    let held = ("reserved\n".to_owned(), ExitKind::MemoryLimit);
    assert_eq!(found, [held.clone(), held.clone(), held]);
}

/// A git repository with some files and links.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (path, text) in [
        ("src/a.py", "a = 1\n"),
        ("src/b.py", "b = 1\n"),
        ("src/old/one.py", "1\n"),
        ("src/old/two.py", "2\n"),
        ("names/-rf, x:y", "odd\n"),
        ("README", "read\n"),
        (".gitignore", "built\n"),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink("src/a.py", folder.path().join("link")).unwrap();
    // A program replaces this link; the replacement must never be compared with the link's target.
    std::os::unix::fs::symlink(folder.path().join("built"), folder.path().join("outside")).unwrap();
    fs::create_dir(folder.path().join("built")).unwrap();
    fs::write(folder.path().join("built/file"), "secret\n").unwrap();
    let git = |args: &[&str]| {
        let status = Command::new("git").arg("-C").arg(folder.path()).args(args).status().unwrap();
        assert!(status.success());
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    folder
}

async fn candidates_share_a_repository(sandbox: Arc<Sandbox>) {
    let repository = repository();
    let snapshot = Arc::new(RepositorySnapshot::take(repository.path()).unwrap());
    let before = tree(snapshot.path());
    assert_eq!(before.len(), 9, "{before:?}"); // without ignored files and `.git`
    let sandbox = Arc::new(sandbox);
    let mut runs = JoinSet::new();
    for number in 2..10 {
        let script = format!(
            "test -e .git && echo git; cat src/a.py 'names/-rf, x:y' link; echo 'a = {number}' > src/a.py; rm src/b.py; \
             rm -r src/old; mkdir src/old; echo new > src/old/three.py; mv README READ; chmod 600 names/*; \
             mkdir .git .git/hooks; echo '[core] fsmonitor = touch /tmp/x' > .git/config; \
             echo '* filter=evil' > .gitattributes; echo x > src/.GIT; \
             rm outside; mkdir outside; echo secret > outside/file"
        );
        let job =
            ExecRequest { tree: Some(snapshot.path().to_owned()), collect: true, ..shell(&script) };
        let sandbox = Arc::clone(&sandbox);
        runs.spawn(async move { (number, sandbox.run(&job).await.unwrap()) });
    }
    for (number, outcome) in runs.join_all().await {
        assert_eq!(outcome.exit, ExitKind::Code(0), "{}", text(&outcome.stderr.bytes));
        assert_eq!(text(&outcome.stdout.bytes), "a = 1\nodd\na = 1\n");
        let changed: Vec<(&str, String)> =
            outcome.files.iter().map(|(path, content)| (path.as_str(), text(content))).collect();
        let mine = format!("a = {number}\n");
        let expected = [
            (".gitattributes", "* filter=evil\n"),
            ("READ", "read\n"),
            ("outside/file", "secret\n"),
            ("src/a.py", &mine),
            ("src/old/three.py", "new\n"),
        ];
        assert_eq!(changed, expected.map(|(path, text)| (path, text.to_owned())));
        let whole = ["README", "outside/", "src/b.py", "src/old/"];
        let each = ["README", "src/b.py", "src/old/one.py", "src/old/two.py"];
        assert!(outcome.removed == whole || outcome.removed == each, "{:?}", outcome.removed);
        assert_eq!(outcome.refused, ["`.git` belongs to git", "`src/.GIT` belongs to git"]);
    }
    assert_eq!(tree(snapshot.path()), before);
    let path = snapshot.path().to_owned();
    drop(snapshot);
    assert!(!path.exists());
}

/// Lists every file below `folder` with its content.
fn tree(folder: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                let link =
                    fs::read_link(&path).map(|link| link.into_os_string().into_encoded_bytes());
                let content = link.unwrap_or_else(|_| fs::read(&path).unwrap());
                found.push((path, content));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn many_candidates_share_a_repository() {
    candidates_share_a_repository(sandbox()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_candidates_share_a_repository_without_namespaces() {
    candidates_share_a_repository(without_namespaces()).await;
}

#[tokio::test]
async fn long_output_keeps_head_and_tail() {
    let job = shell("echo first; head -c 1000000 /dev/zero; echo last");
    let outcome = sandbox().run(&job).await.unwrap();
    let captured = &outcome.stdout.bytes;
    assert!(captured.starts_with(b"first\n\0") && captured.ends_with(b"\0last\n"));
    assert_eq!(captured.len(), job.limits.output_bytes);
    assert_eq!(captured.len() as u64 + outcome.stdout.dropped, 1_000_011);
}

#[tokio::test]
async fn invalid_jobs_are_errors_not_outcomes() {
    let sandbox = sandbox();
    let absent = ExecRequest { program: "/usr/bin/absent".into(), ..shell("") };
    let error = sandbox.run(&absent).await.unwrap_err().to_string();
    assert_eq!(error, "sandbox: can't start /usr/bin/absent: No such file or directory");
    let climbing = ExecRequest { inputs: vec![("../x".into(), Vec::new())], ..shell("") };
    let error = sandbox.run(&climbing).await.unwrap_err().to_string();
    assert_eq!(error, "invalid job: `../x` is not a plain relative path");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_runs_are_isolated() {
    let sandbox = Arc::new(sandbox());
    let mut runs = JoinSet::new();
    for number in 0..24 {
        let sandbox = Arc::clone(&sandbox);
        runs.spawn(async move {
            let job = shell(&format!("echo {number} > mine; sleep 0.1; cat *; echo /proc/[0-9]*"));
            let outcome = sandbox.run(&job).await.unwrap();
            (number, text(&outcome.stdout.bytes))
        });
    }
    for (number, stdout) in runs.join_all().await {
        assert_eq!(stdout, format!("{number}\n/proc/2\n"));
    }
}

/// The process that the next tests kill.
#[tokio::test]
async fn owner_of_a_jail() {
    if is_alone("sandbox::owner_of_a_jail") {
        let marker = std::env::var("RUNE_TEST_MARKER").unwrap();
        let bare = std::env::var_os(crate::judge::BARE).is_some();
        let sandbox = if bare { without_namespaces() } else { sandbox() };
        sandbox.run(&clinging(&marker)).await.unwrap();
    }
}

/// A program that detaches from its parent in every way (new sessions, orphans, no parent death
/// signal) and never ends.
fn clinging(marker: &str) -> ExecRequest {
    let letting_go = "import ctypes, os, time; ctypes.CDLL(None).prctl(1, 0)";
    let python = format!("exec /usr/bin/python3 -c '{letting_go}; time.sleep(3600)' {marker}");
    let job = format!("(setsid sh -c \"{python}\" &) & (setsid sleep 3600 &); {python}");
    ExecRequest { args: vec!["-c".into(), job], ..shell("") }
}

/// Parent of a process, as `/proc` shows it.
fn parent(pid: i32) -> nix::unistd::Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    nix::unistd::Pid::from_raw(parent.trim().parse().unwrap())
}

fn everything_dies_with_the_owner(bare: bool) {
    let marker = format!("rune-test-{}-{bare}", std::process::id());
    let mut owner = myself("sandbox::owner_of_a_jail");
    owner.env("RUNE_TEST_MARKER", &marker);
    if bare {
        owner.env(crate::judge::BARE, "1");
    }
    let mut owner = owner.spawn().unwrap();
    let helper = format!("jail-helper\0{}\0", owner.id());
    eventually("the jail runs", || processes(&marker).len() == 2);
    sleep(Duration::from_millis(300)); // until they have detached
    // As the supervisor may just have done when its owner dies: the kernel hangs up an orphaned
    // process group in which a process is stopped.
    let init = parent(processes(&marker)[0]);
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGSTOP).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the program is gone", || processes(&marker).is_empty());
    eventually("helper, supervisor and pid 1 are gone", || processes(&helper).is_empty());
}

#[test]
fn everything_dies_with_the_owner_of_the_sandbox() {
    everything_dies_with_the_owner(false);
}

#[test]
fn everything_dies_with_the_owner_without_namespaces() {
    everything_dies_with_the_owner(true);
}

/// Names of the scratch directories of `helpers`.
fn scratch_directories(helpers: &[i32]) -> Vec<String> {
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ours = |name: &String| {
        helpers.iter().any(|helper| name.starts_with(&format!("rune-jail-{helper}-")))
    };
    names.filter(ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_supervisor_leaves_nothing_without_namespaces() {
    let name = "sandbox::killed_supervisor_leaves_nothing_without_namespaces";
    if !is_alone(name) {
        return assert!(myself(name).status().unwrap().success());
    }
    let sandbox = Arc::new(without_namespaces());
    let needle = format!("jail-helper\0{}\0", std::process::id());
    let helpers = processes(&needle);
    assert_eq!(helpers.len(), 2, "the reaper and the helper");
    let marker = format!("rune-killed-{}", std::process::id());
    let running = tokio::spawn({
        let (sandbox, job) = (Arc::clone(&sandbox), clinging(&marker));
        async move { sandbox.run(&job).await }
    });
    eventually("it runs", || processes(&marker).len() == 2);
    sleep(Duration::from_millis(300)); // until they have detached
    assert_eq!(scratch_directories(&helpers).len(), 1);
    let supervisor = processes(&needle).into_iter().find(|pid| !helpers.contains(pid)).unwrap();
    let supervisor = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(matches!(running.await.unwrap(), Err(SandboxError::HelperGone)));
    eventually("the program is gone", || processes(&marker).is_empty());
    eventually("the folder is gone", || scratch_directories(&helpers).is_empty());
    let outcome = sandbox.run(&shell("exit 3")).await.unwrap();
    assert_eq!((outcome.exit, outcome.tier), (ExitKind::Code(3), JailTier::Landlock));
}

#[tokio::test]
async fn runs_without_namespaces_are_isolated_and_leave_nothing() {
    let name = "sandbox::runs_without_namespaces_are_isolated_and_leave_nothing";
    if !is_alone(name) {
        return assert!(myself(name).status().unwrap().success());
    }
    let sandbox = without_namespaces();
    let needle = format!("jail-helper\0{}\0", std::process::id());
    let helpers = processes(&needle);
    let counted = || {
        let fds = helpers
            .iter()
            .map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count));
        (fds.collect::<Vec<_>>(), processes(&needle).len(), scratch_directories(&helpers).len())
    };
    sandbox.run(&shell("")).await.unwrap();
    eventually("the helper is alone again", || processes(&needle).len() == 2);
    let before = counted();
    let interpreter = sandbox.interpreter(None).unwrap();
    let deep = "import os\nfor n in range(2000): os.mkdir('d' * 200); os.chdir('d' * 200)\nos.mkdir('x', 0)";
    let limits = Limits { wall: Duration::from_mins(1), ..Limits::default() };
    let outcome = sandbox.run(&python(&interpreter, deep.to_owned(), limits)).await.unwrap();
    assert_eq!(outcome.exit, ExitKind::OutputLimit);
    let sibling = shell("echo secret > mine; sleep 2; cat mine");
    let intruder = async {
        while scratch_directories(&helpers).is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path =
            std::env::temp_dir().join(&scratch_directories(&helpers)[0]).display().to_string();
        let script = format!(
            "cat {path}/box/mine; ls {path}; echo x > {path}/box/mine; rm -rf {path}; kill -9 -1"
        );
        text(&sandbox.run(&shell(&script)).await.unwrap().stdout.bytes)
    };
    let (sibling, intruder) = tokio::join!(sandbox.run(&sibling), intruder);
    assert_eq!(
        (text(&sibling.unwrap().stdout.bytes).as_str(), intruder.as_str()),
        ("secret\n", "")
    );
    for number in 0..n_runs() {
        let script =
            format!("echo {number} > mine; (setsid sleep 60 &); cat *; exit {}", number % 100);
        let outcome = sandbox.run(&shell(&script)).await.unwrap();
        assert_eq!(outcome.exit, ExitKind::Code(number % 100));
        assert_eq!(text(&outcome.stdout.bytes), format!("{number}\n"));
    }
    eventually("the helper is alone again", || processes(&needle).len() == 2);
    assert_eq!(counted(), before);
    drop(sandbox);
    eventually("helper and reaper are gone", || processes(&needle).is_empty());
}

/// On a machine that forbids namespaces, `rune doctor` reports the weaker jail and its gaps.
#[test]
fn machines_without_namespaces_are_detected() {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --json doctor";
    // As a plain user: root in a namespace with a single id has no limit on processes, which makes
    // a fork bomb slow.
    let (folder, rune) = readable_copy();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(&rune);
    if nix::unistd::geteuid().is_root() {
        command.uid(PLAIN_USER).gid(PLAIN_USER);
    }
    command.env("RUNE_HOME", folder.path().join("home")).env_remove(BINARY);
    let output = command.current_dir("/").output().unwrap();
    let stdout = text(&output.stdout);
    assert!(!stdout.is_empty(), "{}", text(&output.stderr));
    let about = |name: &str| {
        stdout.lines().find(|line| line.contains(&format!("\"{name}\""))).unwrap_or_default()
    };
    assert!(about("sandbox").contains("no namespaces (can't make the namespaces"), "{stdout}");
    assert!(about("sandbox").contains("user.max_user_namespaces"), "{stdout}");
    for gap in ["names", "disk", "sockets", "processes"] {
        assert!(about(&format!("gap: {gap}")).contains("warn"), "{stdout}");
    }
    assert!(about("hostile programs").contains("9 of 9 contained"), "{stdout}");
    assert!(about("forked jails").contains("a cheat is detected"), "{stdout}");
}

#[tokio::test]
async fn dropping_the_future_kills_the_jail() {
    let sandbox = sandbox();
    let marker = format!("rune-drop-{}", std::process::id());
    let job = shell(&format!("while :; do :; done # {marker}"));
    let impatient = tokio::time::timeout(Duration::from_secs(2), sandbox.run(&job));
    impatient.await.unwrap_err();
    eventually("the program is gone", || processes(&marker).is_empty());
    assert_eq!(sandbox.run(&shell("exit 3")).await.unwrap().exit, ExitKind::Code(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_helper_is_an_error_and_leaves_nothing() {
    let name = "sandbox::killed_helper_is_an_error_and_leaves_nothing";
    if !is_alone(name) {
        return assert!(myself(name).status().unwrap().success());
    }
    let sandbox = Arc::new(sandbox());
    let helper = processes(&format!("jail-helper\0{}\0", std::process::id()));
    let marker = format!("rune-kill-{}", std::process::id());
    let job = shell(&format!("while :; do :; done # {marker}"));
    let running = tokio::spawn({
        let sandbox = Arc::clone(&sandbox);
        async move { sandbox.run(&job).await }
    });
    eventually("the jail runs", || !processes(&marker).is_empty());
    let helper = nix::unistd::Pid::from_raw(helper[0]);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(matches!(running.await.unwrap(), Err(SandboxError::HelperGone)));
    assert!(matches!(sandbox.run(&shell("")).await, Err(SandboxError::HelperGone)));
    eventually("the program is gone", || processes(&marker).is_empty());
}

/// Number of repetitions in tests for leaks: 200, unless the variable is set.
fn n_runs() -> i32 {
    std::env::var("RUNE_TEST_RUNS").map_or(200, |text| text.parse().unwrap())
}

/// Counts descriptors of this process and of its helper, processes, mounts and control groups.
fn belongings(helper: i32) -> [usize; 5] {
    let count = |path: String| fs::read_dir(path).map_or(0, Iterator::count);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = groups.lines().find_map(|line| Some(line.split_once(":memory:")?.1));
    let groups = fs::read_dir(format!("/sys/fs/cgroup/memory{}", group.unwrap_or_default()));
    let own = format!("rune-{helper}-");
    [
        count("/proc/self/fd".to_owned()),
        count(format!("/proc/{helper}/fd")),
        processes(&format!("jail-helper\0{}\0", std::process::id())).len(),
        mounts.lines().count(),
        groups
            .into_iter()
            .flatten()
            .flatten()
            .filter(|group| text(group.file_name().as_encoded_bytes()).starts_with(&own))
            .count(),
    ]
}

#[tokio::test]
async fn many_runs_leave_nothing_behind() {
    let name = "sandbox::many_runs_leave_nothing_behind";
    if !is_alone(name) {
        return assert!(myself(name).status().unwrap().success());
    }
    let sandbox = sandbox();
    let needle = format!("jail-helper\0{}\0", std::process::id());
    let helper = processes(&needle)[0];
    sandbox.run(&shell("")).await.unwrap();
    eventually("the helper is alone again", || processes(&needle) == [helper]);
    let before = belongings(helper);
    for number in 0..n_runs() {
        let outcome =
            sandbox.run(&shell(&format!("sleep 60 & exit {}", number % 100))).await.unwrap();
        assert_eq!(outcome.exit, ExitKind::Code(number % 100));
    }
    eventually("the helper is alone again", || processes(&needle) == [helper]);
    assert_eq!(belongings(helper), before);
}

#[tokio::test]
async fn many_forks_leave_nothing_behind() {
    let name = "sandbox::many_forks_leave_nothing_behind";
    if !is_alone(name) {
        return assert!(myself(name).status().unwrap().success());
    }
    let sandbox = sandbox();
    let interpreter = Interpreter::find(None).unwrap();
    let zygote = Zygote::start(&sandbox, &interpreter, &[], &[("hostile", FORKED)]).await.unwrap();
    let pid = descendants().into_iter().max().unwrap(); // the last one started
    let limits = Limits { wall: Duration::from_secs(20), ..Limits::default() };
    let program =
        "import os, time\nopen('/tmp/x', 'w')\nif os.fork() == 0: time.sleep(60)\nprint(1)";
    let belongings = || {
        let count = |path: String| fs::read_dir(path).map_or(0, Iterator::count);
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap().lines().count();
        (
            count("/proc/self/fd".to_owned()),
            count(format!("/proc/{pid}/fd")),
            descendants().len(),
            mounts,
        )
    };
    fork(&zygote, program, &limits).await;
    let before = belongings();
    for _ in 0..n_runs() {
        let (stdout, ended) = fork(&zygote, program, &limits).await;
        assert_eq!((stdout.as_str(), ended.exit), ("1\n", ExitKind::Code(0)));
    }
    assert_eq!(belongings(), before);
}

#[tokio::test]
async fn time_and_output_are_limited_without_a_jail() {
    let sandbox = Sandbox::unconfined(&binary()).unwrap();
    let files = ExecRequest {
        args: vec!["/in/script".into()],
        inputs: vec![("script".into(), b"cat data; pwd; exit 5".into())],
        work: vec![("data".into(), b"data ".into())],
        ..shell("")
    };
    let outcome = sandbox.run(&files).await.unwrap();
    assert_eq!((outcome.exit, outcome.tier), (ExitKind::Code(5), JailTier::None));
    assert!(text(&outcome.stdout.bytes).starts_with("data /"));
    let marker = format!("rune-free-{}", std::process::id());
    let script = format!("setsid sh -c 'sleep 3600 # {marker}' & sleep 3600 # {marker}");
    let limits = Limits { wall: Duration::from_secs(1), ..Limits::default() };
    let outcome = sandbox.run(&ExecRequest { limits, ..shell(&script) }).await.unwrap();
    assert_eq!(outcome.exit, ExitKind::WallLimit);
    eventually("the orphans are gone", || processes(&marker).is_empty());
    let flood = sandbox.run(&shell("yes")).await.unwrap();
    assert_eq!(flood.exit, ExitKind::OutputLimit);
}
