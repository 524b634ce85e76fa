//! Builds the file system of a jail: an empty root to which only what a program needs is added.
//!
//! Runs in pid 1 of the jail, inside its mount namespace. The new root is mounted over `/tmp` and
//! becomes `/` at once, with the host's files at [`OLD`] until the end. So every path in this file
//! is unambiguous: either in the jail or, below [`OLD`], on the host.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;

use super::fault::JailFault;
use super::fault::NamedStep;
use super::identity::USER;
use super::job::ExecRequest;
use super::job::Limits;
use super::job::Mount;
use super::memory::MemoryCount;
use super::sys;

/// Mount point of the host's files while the jail is built.
const OLD: &str = "/old";
/// System folders: bind-mounted if the host has a folder, symbolic links if the host has a link.
pub(super) const SYSTEM: &[&str] = &["/usr", "/lib", "/lib64", "/bin", "/sbin"];
/// Files and folders of the host's `/etc` that hold no secrets and that programs need.
pub(super) const SETTINGS: &[&str] = &["/etc/ld.so.cache", "/etc/alternatives"];
/// Devices that programs may use; there are no others.
pub(super) const DEVICES: &[&str] =
    &["/dev/null", ZERO, "/dev/full", "/dev/random", "/dev/urandom"];
/// A device that provides shared memory when it is mapped.
pub(super) const ZERO: &str = "/dev/zero";
/// Folders that programs may write to; there are no others.
pub(super) const WRITABLE: &[&str] = &["/box", "/tmp", "/dev/shm"];

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

const PASSWD: &str = "root:x:0:0::/:/bin/false\nuser:x:1000:1000::/box:/bin/sh\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\n";
const HOSTS: &str = "127.0.0.1 localhost jail\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files\n";

/// Builds the file system for `job` and makes it the root. `mounts` are the job's mounts with
/// canonical host paths. Returns the folder that will hold everything that the program writes to
/// `/box`.
pub(super) fn build(
    job: &ExecRequest,
    mounts: &[Mount],
    memory: MemoryCount,
) -> Result<File, JailFault> {
    enter_new_root(job)?;
    for path in SYSTEM.iter().chain(SETTINGS) {
        show_system(path)?;
    }
    for device in DEVICES {
        let host = match memory {
            // `/dev/full` reads as zeros, too, but cannot be mapped: mapped memory would escape
            // the watchdog's count.
            MemoryCount::Watchdog if *device == ZERO => "/dev/full",
            _ => device,
        };
        show(&on_host(host), Path::new(device)).step(format!("show {device}"))?;
    }
    fake_settings().step("write /etc")?;
    for folder in WRITABLE {
        mount_writable(folder, &job.limits).step(format!("mount {folder}"))?;
    }
    let written = match &job.tree {
        Some(tree) => lay_over(&on_host(tree)).step(format!("mount {}", tree.display()))?,
        None => File::open("/box").step("open /box")?,
    };
    let covers = covers(mounts);
    for cover in &covers {
        mount_cover(cover).step(format!("mount {}", cover.display()))?;
    }
    for Mount { host, jail } in mounts {
        show_read_only(&on_host(host), jail).step(format!("show {}", host.display()))?;
    }
    // Only now: the mount points above had to be created in them.
    for cover in &covers {
        make_read_only(cover, false).step(format!("seal {}", cover.display()))?;
    }
    write_files(Path::new("/in"), &job.inputs).step("write /in")?;
    mount_proc().step("mount /proc")?;
    seal()?;
    Ok(written)
}

/// Mounts an overlay on `/box` with `tree` as its read-only lower layer. Writes go to the file
/// system that was `/box` so far, which the overlay hides from the program. Returns the upper
/// layer.
fn lay_over(tree: &Path) -> io::Result<File> {
    let [tree_shown, upper, work] = ["/box/tree", "/box/upper", "/box/work"].map(Path::new);
    show(tree, tree_shown)?;
    for folder in [upper, work] {
        fs::create_dir(folder)?;
        std::os::unix::fs::chown(folder, Some(USER), Some(USER))?;
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(0o700))?;
    // Opened before the overlay hides it.
    let written = File::open(upper)?;
    // In a user namespace overlays may only keep their markers in `user.*` attributes.
    let options = "lowerdir=/box/tree,upperdir=/box/upper,workdir=/box/work,userxattr";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("jail"), "/box", Some("overlay"), flags, Some(options))?;
    Ok(written)
}

fn enter_new_root(job: &ExecRequest) -> Result<(), JailFault> {
    let none = None::<&str>;
    // Or our mounts would propagate to the host, and the host's to us.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .step("make the mounts private")?;
    // The root holds `/in`: every file takes at most one page more than its content.
    let input_bytes: usize = job.inputs.iter().map(|(_, content)| content.len() + 4096).sum();
    let options = format!("size={},mode=0755", input_bytes + (1 << 20));
    mount(
        Some("jail"),
        "/tmp",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(&*options),
    )
    .step("mount the root of the jail")?;
    fs::create_dir("/tmp/old").step("make the mount point of the old root")?;
    nix::unistd::pivot_root("/tmp", "/tmp/old").step("change the root")?;
    nix::unistd::chdir("/").step("enter the new root")
}

fn on_host(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    Path::new(OLD).join(path.strip_prefix("/").unwrap_or(path))
}

fn show_system(path: &str) -> Result<(), JailFault> {
    let host = on_host(path);
    let Ok(metadata) = fs::symlink_metadata(&host) else { return Ok(()) };
    let shown = if metadata.is_symlink() {
        fs::read_link(&host).and_then(|target| symlink(target, path))
    } else {
        show_read_only(&host, Path::new(path))
    };
    shown.step(format!("show {path}"))
}

fn show_read_only(host: &Path, jail: &Path) -> io::Result<()> {
    show(host, jail)?;
    make_read_only(jail, true)
}

fn make_read_only(path: &Path, recursive: bool) -> io::Result<()> {
    let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    Ok(sys::set_mount_attributes(path, READ_ONLY, recursive)?)
}

/// Lists the folders directly below a writable one that lead to a mount. Each becomes a separate
/// file system: a mount point cannot be renamed, so the program cannot replace what is mounted
/// below it.
fn covers(mounts: &[Mount]) -> BTreeSet<PathBuf> {
    let cover = |mount: &Mount| {
        WRITABLE.iter().find_map(|folder| {
            let mut way = mount.jail.strip_prefix(folder).ok()?.components();
            let first = way.next()?;
            way.next().map(|_| Path::new(folder).join(first))
        })
    };
    mounts.iter().filter_map(cover).collect()
}

fn mount_cover(cover: &Path) -> io::Result<()> {
    fs::create_dir_all(cover)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("jail"), cover, Some("tmpfs"), flags, Some("size=1m,mode=0755"))?)
}

/// Bind-mounts `host` with all mounts below it: an unprivileged user must not reveal what a mount
/// hides, so the kernel refuses to bind a folder without its submounts.
fn show(host: &Path, jail: &Path) -> io::Result<()> {
    if fs::metadata(host)?.is_dir() {
        fs::create_dir_all(jail)?;
    } else {
        fs::create_dir_all(jail.parent().unwrap_or(Path::new("/")))?;
        fs::write(jail, "")?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(host), jail, None::<&str>, flags, None::<&str>)?)
}

fn fake_settings() -> io::Result<()> {
    let files =
        [("passwd", PASSWD), ("group", GROUP), ("hosts", HOSTS), ("nsswitch.conf", NSSWITCH)];
    fs::create_dir_all("/etc")?;
    files.iter().try_for_each(|(name, text)| fs::write(Path::new("/etc").join(name), text))
}

fn mount_writable(folder: &str, limits: &Limits) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // To tmpfs a size of 0 means no limit at all.
    let (size, files) = (limits.disk_bytes.max(4096), limits.files);
    let options = format!("size={size},nr_inodes={files},mode=0700,uid={USER},gid={USER}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("jail"), folder, Some("tmpfs"), flags, Some(&*options))?)
}

/// Mounts a `/proc` that shows each user only their own processes of this pid namespace, and
/// nothing about the machine.
fn mount_proc() -> io::Result<()> {
    fs::create_dir_all("/proc")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, Some("hidepid=2,subset=pid"))?)
}

/// Detaches the host's files and makes the root read-only.
fn seal() -> Result<(), JailFault> {
    umount2(OLD, MntFlags::MNT_DETACH).step("detach the old root")?;
    fs::remove_dir(OLD).step("remove the mount point of the old root")?;
    sys::set_mount_attributes("/", READ_ONLY, false).step("make the root read-only")
}

/// Writes `files` below `folder`. Their relative paths have been validated.
pub(super) fn write_files(folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_between_a_writable_one_and_a_mount_are_covered() {
        let check = |jail: &str| {
            covers(&[Mount { host: "/".into(), jail: jail.into() }]).into_iter().next()
        };
        assert_eq!(check("/tmp/a/b/c"), Some("/tmp/a".into()));
        assert_eq!(check("/dev/shm/a/b"), Some("/dev/shm/a".into()));
        assert_eq!((check("/tmp/a"), check("/opt/a/b")), (None, None));
    }
}
