//! Child processes that do not outlive this process, no matter how it ends.
//!
//! The kernel signals a child when the *thread* that started it ends. All children are therefore
//! started by one thread that lives as long as the process.

use std::io;
use std::process::Child;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// A request to the spawning thread: the command, and the channel for the child.
type SpawnOrder = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command`, which is then dropped together with its file descriptors.
///
/// # Errors
/// The errors of [`Command::spawn`].
pub fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<SpawnOrder>> = OnceLock::new();
    let starter = if let Some(starter) = STARTER.get() {
        starter
    } else {
        let started = start()?;
        STARTER.get_or_init(|| started)
    };
    let (sender, receiver) = mpsc::channel();
    starter.send((command, sender)).map_err(io::Error::other)?;
    receiver.recv().map_err(io::Error::other)?
}

/// Starts the spawning thread. It ends when its sender is dropped; the one stored in the static
/// never is.
fn start() -> io::Result<mpsc::Sender<SpawnOrder>> {
    let (orders, receiver) = mpsc::channel::<SpawnOrder>();
    thread::Builder::new().name("children".into()).spawn(move || {
        for (mut command, answer) in receiver {
            let child = command.spawn();
            drop(command);
            // If the caller is gone, nobody would ever wait for the child: kill and reap it.
            if let Err(mpsc::SendError(Ok(mut child))) = answer.send(child) {
                let _killed = child.kill().and_then(|()| child.wait());
            }
        }
    })?;
    Ok(orders)
}

/// Has the kernel send `signal` to this process when the process `parent` ends, which must have
/// started it with [`spawn`].
///
/// # Errors
/// [`Errno::ESRCH`] when `parent` has already ended; the errors of `prctl`.
pub fn bind_to(parent: u32, signal: Signal) -> Result<(), Errno> {
    prctl::set_pdeathsig(signal)?;
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_outlive_the_thread_that_requested_them() {
        let mut bound = Command::new("python3");
        bound.arg("-c").arg(
            "import ctypes, time; ctypes.CDLL(None).prctl(1, 9); print('bound', flush=True); time.sleep(60)",
        );
        bound.stdout(std::process::Stdio::piped());
        let mut child = thread::spawn(move || {
            let mut child = spawn(bound).unwrap();
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).unwrap();
            assert_eq!(line, "bound\n");
            child
        })
        .join()
        .unwrap();
        thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
