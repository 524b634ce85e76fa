//! The network of a jail: only its own loopback interface.

use std::net::TcpListener;
use std::net::UdpSocket;

use rune::sandbox::ExitKind;
use rune::sandbox::Limits;
use rune::sandbox::Sandbox;

async fn says(sandbox: &Sandbox, program: &str) -> String {
    let interpreter = sandbox.interpreter(None).unwrap();
    let job = super::python(&interpreter, program.to_owned(), Limits::default());
    let outcome = sandbox.run(&job).await.unwrap();
    let stderr = super::text(&outcome.stderr.bytes);
    assert_eq!(outcome.exit, ExitKind::Code(0), "{stderr}");
    super::text(&outcome.stdout.bytes)
}

#[tokio::test]
async fn programs_reach_their_own_servers() {
    let program = r"
import threading, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'hi')
    def log_message(self, *args): pass
for name in ['127.0.0.1', 'localhost']:
    server = HTTPServer((name, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(urllib.request.urlopen(f'http://{name}:{server.server_port}/').read())
    server.shutdown()
";
    assert_eq!(says(&super::sandbox(), program).await, "b'hi'\nb'hi'\n");
}

#[tokio::test]
async fn two_jails_can_listen_on_the_same_port() {
    let program = "import socket, time\ns = socket.create_server(('127.0.0.1', 4242))\n\
                   time.sleep(0.5)\nprint('listened')";
    let sandbox = super::sandbox();
    let (first, second) = tokio::join!(says(&sandbox, program), says(&sandbox, program));
    assert_eq!((first.as_str(), second.as_str()), ("listened\n", "listened\n"));
}

#[tokio::test]
async fn host_and_internet_are_unreachable() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let program = r"
import errno, socket
def connect(address):
    try: socket.create_connection(address, 2); return 'connected'
    except OSError as error: return errno.errorcode[error.errno]
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))
print(connect(('127.0.0.1', TCP)), connect(('1.1.1.1', 443)), connect(('192.168.0.1', 80)))
";
    let port = |address: std::net::SocketAddr| address.port().to_string();
    let program = program.replace("TCP", &port(tcp.local_addr().unwrap()));
    let program = program.replace("UDP", &port(udp.local_addr().unwrap()));
    let stdout = says(&super::sandbox(), &program).await;
    assert_eq!(stdout, "ECONNREFUSED ENETUNREACH ENETUNREACH\n");
    tcp.accept().unwrap_err();
    udp.recv(&mut [0]).unwrap_err();
}

#[tokio::test]
async fn servers_cannot_start_without_namespaces() {
    let sandbox = super::without_namespaces();
    let program = "import socket\ntry: socket.create_server(('127.0.0.1', 0))\n\
                   except OSError as error: print(type(error).__name__)";
    assert_eq!(says(&sandbox, program).await, "PermissionError\n");
    assert!(super::gaps(&sandbox).contains(&"sockets"));
}
