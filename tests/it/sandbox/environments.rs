//! The Python of a virtual environment, and its packages inside the jail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use rune::sandbox::ExecRequest;
use rune::sandbox::ExitKind;
use rune::sandbox::Interpreter;
use rune::sandbox::Limits;

/// A virtual environment with a package of its own, a folder of sources on its search path, and a
/// package that is installed as a link to its sources.
struct Environment {
    folder: tempfile::TempDir,
}

impl Environment {
    fn make() -> Self {
        let environment = Self { folder: tempfile::tempdir().unwrap() };
        let base = Interpreter::find(None).unwrap();
        let mut command = Command::new(base.executable());
        command.args(["-I", "-m", "venv", "--without-pip"]).arg(environment.path("venv"));
        assert!(command.status().unwrap().success());
        let folder = environment.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let site = environment.site();
        let finder = format!(
            "MAPPING = {{'linked': '{}'}}\ndef install():\n    import sys\n    class Finder:\n        \
             @staticmethod\n        def find_spec(name, path=None, target=None):\n            \
             from importlib.util import spec_from_file_location as spec\n            \
             return spec(name, MAPPING[name] + '/__init__.py') if name in MAPPING else None\n    \
             sys.meta_path.append(Finder)\n",
            environment.path("sources/linked").display()
        );
        let project = environment.path("project").display().to_string();
        for (path, text) in [
            (site.join("greeting/__init__.py"), "TEXT = 'installed'\n"),
            (site.join("greeting-1.0.dist-info/METADATA"), "Name: greeting\nVersion: 1.0\n"),
            (site.join("project.pth"), project.as_str()),
            (site.join("__editable___linked_finder.py"), finder.as_str()),
            (
                site.join("__editable__.linked.pth"),
                "import __editable___linked_finder; __editable___linked_finder.install()",
            ),
            (environment.path("project/plain.py"), "TEXT = 'on the path'\n"),
            (environment.path("project/test_plain.py"), "SECRET = 1\n"),
            (environment.path("project/.env"), "SECRET=1\n"),
            (environment.path("sources/linked/__init__.py"), "TEXT = 'linked'\n"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        environment
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn site(&self) -> PathBuf {
        let lib = fs::read_dir(self.path("venv/lib")).unwrap().next().unwrap().unwrap();
        lib.path().join("site-packages")
    }
}

async fn says(interpreter: &Interpreter, program: &str) -> String {
    let job = super::python(interpreter, program.to_owned(), Limits::default());
    let job = ExecRequest { args: ["-I", "-B", "/in/input"].map(str::to_owned).into(), ..job };
    let outcome = super::sandbox().run(&job).await.unwrap();
    assert_eq!(outcome.exit, ExitKind::Code(0), "{}", super::text(&outcome.stderr.bytes));
    super::text(&outcome.stdout.bytes)
}

#[tokio::test]
async fn environment_packages_are_importable_in_the_jail() {
    let environment = Environment::make();
    let found = Interpreter::find(Some(&environment.path("venv/bin/python"))).unwrap();
    assert_eq!(found.environment(), Some(environment.path("venv").as_path()));
    let program = "import greeting, linked, plain, sys\n\
                   print(greeting.TEXT, linked.TEXT, plain.TEXT, sys.prefix, sep='\\n')";
    let prefix = environment.path("venv").display().to_string();
    let expected = format!("installed\nlinked\non the path\n{prefix}\n");
    assert_eq!(says(&found, program).await, expected);
}

#[tokio::test]
async fn environments_are_read_only_and_isolated() {
    let environment = Environment::make();
    let found = Interpreter::find(Some(&environment.path("venv/bin/python"))).unwrap();
    let program = r"
import errno, os
def tried(f, *args):
    try: f(*args)
    except OSError as error: return errno.errorcode[error.errno]
    return 'done'
print(tried(open, 'SITE/evil.py', 'w'), tried(os.rename, 'FOLDER', 'FOLDER-away'), os.listdir('FOLDER/project'))
";
    let program = program.replace("SITE", environment.site().to_str().unwrap());
    let program = program.replace("FOLDER", environment.folder.path().to_str().unwrap());
    assert_eq!(says(&found, &program).await, "EROFS EBUSY ['plain.py']\n");
}

#[test]
fn interpreter_lists_installed_modules() {
    let environment = Environment::make();
    let found = Interpreter::find(Some(&environment.path("venv/bin/python"))).unwrap();
    for name in ["json", "sys", "greeting", "greeting.inner", "linked", "plain"] {
        assert!(found.has_module(name), "{name}");
    }
    for name in ["nothing_of_this_name", "test_plain", "inner"] {
        assert!(!found.has_module(name), "{name}");
    }
    let expected = [environment.site(), environment.path("project")];
    assert_eq!(found.site_packages(), expected);
    assert_eq!((found.n_packages(), found.left_out()), (1, &[][..]));
    let base = Interpreter::find(None).unwrap();
    assert!(base.has_module("json") && !base.has_module("greeting"));
}

#[test]
fn doctor_names_the_environment() {
    let environment = Environment::make();
    let (folder, rune) = super::readable_copy();
    let mut command = Command::new(rune);
    command.args(["--json", "doctor"]).env("RUNE_HOME", folder.path().join("home"));
    command.env("RUNE_SANDBOX_PYTHON", environment.path("venv/bin/python"));
    command.env_remove(super::BINARY).env_remove(super::ALONE);
    let stdout = super::text(&command.current_dir("/").output().unwrap().stdout);
    let line = stdout.lines().find(|line| line.contains("\"interpreter\"")).unwrap_or_default();
    let shown = format!("of the virtual environment {}", environment.path("venv").display());
    assert!(line.contains(&shown) && line.contains("packages installed: 1"), "{stdout}");
    let judged = stdout.lines().find(|line| line.contains("\"forked jails\"")).unwrap_or_default();
    assert!(judged.contains("a cheat is detected"), "{stdout}");
}

/// Like those of pyenv: the program at the path is not Python, but starts it.
#[test]
fn shims_are_replaced_by_the_real_interpreter() {
    let environment = Environment::make();
    let (shim, python) = (environment.path("shim"), environment.path("venv/bin/python3"));
    let script = format!("#!/bin/sh\necho starting\nexec {} \"$@\"\n", python.display());
    write_program(&shim, &script);
    let found = Interpreter::find(Some(&shim)).unwrap();
    assert_eq!(found.executable(), python);
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
