//! Real servers that keep history: PostgreSQL and Redis, started here on loopback, killed, and started again over what is on their disk.

use std::io;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Pid;
use rustix::process::Signal;
use smg::base::secret::Secret;
use smg::history::config::Kind;

use crate::tls::Authority;

/// Where PostgreSQL's programs are. `cluster-tests/backends/run.sh` says it.
const POSTGRES_BIN: &str = "SMG_POSTGRES_BIN";
/// Under which it lies; a folder of the system's if it is not said.
const FOLDER: &str = "SMG_BACKENDS_DIR";
const PASSWORD: &str = "canary";
/// Who has nothing: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;

/// A server of this kind, over a folder that goes with it.
pub struct Server {
    kind: Kind,
    folder: tempfile::TempDir,
    authority: Authority,
    port: u16,
    tls_port: u16,
    child: Option<Child>,
}

impl Server {
    /// Makes one and starts it.
    ///
    /// # Panics
    /// When its programs are missing, or it does not start: a test that cannot run has failed.
    pub async fn start(kind: Kind) -> Self {
        let root = std::env::var(FOLDER).map_or_else(|_| std::env::temp_dir(), PathBuf::from);
        let folder = tempfile::tempdir_in(root).expect("a folder");
        let mut server =
            Self { kind, folder, authority: Authority::new(), port: free_port(), tls_port: free_port(), child: None };
        own(server.folder.path()).expect("the folder is given to who runs it");
        for (from, name) in
            [(server.authority.certificate_path(), "server.pem"), (server.authority.key_path(), "server.key")]
        {
            let to = server.path(name);
            std::fs::copy(from, &to).expect("copied");
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).expect("set");
            own(&to).expect("given");
        }
        if kind == Kind::Postgres {
            server.make_cluster();
        }
        server.start_again().await;
        server
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_cluster(&self) {
        let password = self.path("password");
        std::fs::write(&password, PASSWORD).expect("written");
        own(&password).expect("given");
        let mut command = unprivileged(&postgres("initdb"), self.folder.path());
        command.args(["-U", "smg", "-E", "UTF8", "--no-locale", "--auth=scram-sha-256", "--no-sync", "--pwfile"]);
        let made = command.arg(password).arg("-D").arg(self.path("data")).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts it over what is on its disk, and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start_again(&mut self) {
        let mut command = match self.kind {
            Kind::Postgres => self.postgres(),
            _ => self.redis(),
        };
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("the server's program is there: `make test-backends` installs it"));
        let port = self.port;
        crate::eventually("the server listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    fn postgres(&self) -> Command {
        let mut command = unprivileged(&postgres("postgres"), self.folder.path());
        command.arg("-D").arg(self.path("data")).arg("-p").arg(self.port.to_string());
        let socket = format!("unix_socket_directories={}", self.folder.path().display());
        let certificate = format!("ssl_cert_file={}", self.path("server.pem").display());
        let key = format!("ssl_key_file={}", self.path("server.key").display());
        for setting in ["listen_addresses=127.0.0.1", "ssl=on", &socket, &certificate, &key] {
            command.args(["-c", setting]);
        }
        command
    }

    fn redis(&self) -> Command {
        let mut command = unprivileged(Path::new("redis-server"), self.folder.path());
        command.args(["--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD, "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--tls-auth-clients", "no", "--port", &self.port.to_string()]);
        command.args(["--tls-port", &self.tls_port.to_string(), "--dir"]).arg(self.folder.path());
        command.arg("--tls-cert-file").arg(self.path("server.pem")).arg("--tls-key-file").arg(self.path("server.key"));
        command.arg("--tls-ca-cert-file").arg(self.authority.root_path());
        command
    }

    /// Without TLS.
    #[must_use]
    pub fn url(&self) -> Secret {
        let port = self.port;
        Secret::new(&match self.kind {
            Kind::Postgres => format!("postgres://smg:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable"),
            _ => format!("redis://:{PASSWORD}@127.0.0.1:{port}/0"),
        })
    }

    /// With TLS, and these options.
    #[must_use]
    pub fn tls_url(&self, options: &str) -> Secret {
        let (port, tls_port) = (self.port, self.tls_port);
        Secret::new(&match self.kind {
            Kind::Postgres => format!("postgres://smg:{PASSWORD}@127.0.0.1:{port}/postgres?{options}"),
            _ => format!("rediss://:{PASSWORD}@127.0.0.1:{tls_port}/0?{options}"),
        })
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.authority.root_path()
    }

    /// Carries out SQL or a Redis command as an operator would.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn order(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = Command::new(postgres("psql"));
                command.args(["-h", "127.0.0.1", "-U", "smg", "-d", "postgres", "-At", "-p", &port, "-c"]);
                command
            }
            _ => {
                let mut command = Command::new("redis-cli");
                command.args(["--no-auth-warning", "-a", PASSWORD, "-p", &port]);
                command
            }
        };
        let done = command.args(words).env("PGPASSWORD", PASSWORD).output().expect("runs");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// A client that says this and then keeps its connection, and says nothing more.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn hold(&self, sql: &str) -> Child {
        let mut command = Command::new(postgres("psql"));
        command.args(["-h", "127.0.0.1", "-U", "smg", "-d", "postgres", "-p", &self.port.to_string()]);
        command.env("PGPASSWORD", PASSWORD).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("psql runs");
        // It goes on for as long as its input does.
        writeln!(child.stdin.as_mut().expect("piped"), "{sql};").expect("written");
        child
    }

    /// `kill -9` to all of its processes at one time.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // ORDER: one that is stopped does not see its children die, and starts none.
        signal(child.id(), Signal::STOP);
        children(child.id()).into_iter().for_each(|it| signal(it, Signal::KILL));
        let _ = child.kill(); // it may have ended by itself
        let _ = child.wait();
    }

    /// Nothing of it runs until [`Server::resume`].
    pub fn pause(&self) {
        self.each(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.each(Signal::CONT);
    }

    fn each(&self, what: Signal) {
        let Some(id) = self.child.as_ref().map(Child::id) else { return };
        children(id).into_iter().chain([id]).for_each(|it| signal(it, what));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn postgres(program: &str) -> PathBuf {
    let folder = std::env::var(POSTGRES_BIN);
    PathBuf::from(folder.expect("`make test-backends` installs PostgreSQL and says where it is")).join(program)
}

/// As nobody, where this is root.
fn unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("LC_ALL", "C");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn own(path: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() { chown(path, Some(NOBODY), Some(NOBODY)) } else { Ok(()) }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("is bound").port()
}

fn signal(id: u32, what: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process has a number");
    let _ = rustix::process::kill_process(id, what); // it may have ended by itself
}

/// Those that a process started. They are in sessions of their own.
fn children(of: u32) -> Vec<u32> {
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name, in brackets, may contain spaces; the parent is the second after it.
        stat.rsplit(") ").next().and_then(|it| it.split(' ').nth(1)?.parse().ok()) == Some(of)
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|it| it.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}
