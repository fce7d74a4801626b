//! A real Secret Service on its own bus and in its own home.
//!
//! A process uses only the bus that it was started with. A test that uses the keyring inside its
//! process therefore runs its own binary again on the bus ([`run_on_bus`]). Other tests pass
//! [`TestKeyring::env`] to the programs that they start.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The service on the bus.
#[derive(Clone, Copy, PartialEq)]
pub enum Service {
    /// A daemon whose collection was never created: it answers, but cannot store anything.
    NeverUnlocked,
    /// A bus without a service.
    Absent,
    /// No bus.
    NoBus,
    /// A service that the bus starts and that never answers.
    Silent,
    Unlocked,
}

/// A bus and its service, until dropped.
pub struct TestKeyring {
    home: tempfile::TempDir,
    address: String,
    bus: Option<Child>,
}

impl TestKeyring {
    /// Starts the service; prints a line and returns `None` if its programs are not installed.
    pub fn start(service: Service) -> Option<Self> {
        let home = tempfile::Builder::new().prefix("aiproxy-ring-").tempdir().expect("a home");
        if service == Service::NoBus {
            return Some(Self { home, address: String::new(), bus: None });
        }
        for program in ["dbus-run-session", "dbus-send", "gnome-keyring-daemon", "secret-tool"] {
            if !is_installed(program) {
                println!(
                    "skipped: {program} is not installed (apt-get install gnome-keyring dbus libsecret-tools)"
                );
                return None;
            }
        }
        let mut ring = Self { home, address: String::new(), bus: None };
        let daemon = match service {
            Service::Unlocked => UNLOCK_COMMAND,
            Service::NeverUnlocked => {
                "gnome-keyring-daemon --start --components=secrets >/dev/null 2>&1"
            }
            Service::Absent | Service::NoBus | Service::Silent => "true",
        };
        let script = format!("echo \"$DBUS_SESSION_BUS_ADDRESS\"; {daemon}; echo up; exec cat");
        let mut command = Command::new("dbus-run-session");
        // With the system configuration the bus would start a daemon by itself.
        if matches!(service, Service::Absent | Service::Silent) {
            command.arg(format!("--config-file={}", ring.write_config(service).display()));
        }
        command
            .args(["--", "sh", "-c", &script])
            .envs(ring.env())
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY");
        let mut bus = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a bus");
        let mut printed = BufReader::new(bus.stdout.take().expect("piped")).lines();
        ring.address = printed.next().expect("an address").expect("readable");
        assert_eq!(
            printed.next().expect("a word").expect("readable"),
            "up",
            "the Secret Service did not start"
        );
        ring.bus = Some(bus);
        Some(ring)
    }

    /// Returns the variables that point a program to this bus.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let home = self.home.path().display().to_string();
        vec![
            ("DBUS_SESSION_BUS_ADDRESS", self.address.clone()),
            ("HOME", home.clone()),
            ("XDG_DATA_HOME", format!("{home}/data")),
            ("XDG_RUNTIME_DIR", home),
        ]
    }

    /// Locks the collection.
    pub fn lock(&self) {
        let done = lock_command().envs(self.env()).output().expect("dbus-send");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Unlocks the collection, by a new daemon on the same folder.
    pub fn unlock(&self) {
        let script = UNLOCK_COMMAND.replace("--unlock", "--replace --unlock");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).envs(self.env()).env_remove("DISPLAY");
        assert!(shell.status().expect("a shell").success());
    }

    /// Stores an entry of aiproxy.
    pub fn store(&self, label: &str, secret: &str) {
        let script = format!("printf %s {secret} | secret-tool store --label=t {ENTRY} {label}");
        let mut shell = Command::new("sh");
        assert!(shell.args(["-c", &script]).envs(self.env()).status().expect("a shell").success());
    }

    /// Returns an entry of aiproxy.
    pub fn load(&self, label: &str) -> Option<String> {
        let script = format!("secret-tool lookup {ENTRY} {label}");
        let mut shell = Command::new("sh");
        let done = shell.args(["-c", &script]).envs(self.env()).output().expect("a shell");
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn write_config(&self, service: Service) -> PathBuf {
        let services = self.home.path().join("services");
        fs::create_dir(&services).expect("a folder");
        if service == Service::Silent {
            // The process ends by itself, because the bus does not stop it.
            let unit = "[D-BUS Service]\nName=org.freedesktop.secrets\nExec=/bin/sleep 60\n";
            write_file(&services.join("org.freedesktop.secrets.service"), unit);
        }
        let path = self.home.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>session</type>\
             <listen>unix:dir={}</listen><servicedir>{}</servicedir><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>\n",
            self.home.path().display(),
            services.display()
        );
        write_file(&path, &text);
        path
    }
}

impl Drop for TestKeyring {
    fn drop(&mut self) {
        if let Some(mut bus) = self.bus.take() {
            // When its input closes, `cat` ends, then the session, then the daemon.
            drop(bus.stdin.take());
            drop(bus.wait());
        }
    }
}

/// Runs the body of a test on its own bus. `name` is the full name of the test.
pub fn run_on_bus(service: Service, name: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(BUS_MARKER).is_some() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(body);
    }
    let Some(ring) = TestKeyring::start(service) else { return };
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", name, "--nocapture"])
        .env(BUS_MARKER, "1")
        .envs(ring.env())
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY");
    let done = command.output().expect("started again");
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(done.status.success() && printed.contains("1 passed"), "{printed}");
}

/// Locks the collection on the current bus.
pub fn lock_collection() {
    let done = lock_command().output().expect("dbus-send");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn lock_command() -> Command {
    let target = [
        "--session",
        "--print-reply",
        "--dest=org.freedesktop.secrets",
        "/org/freedesktop/secrets",
    ];
    let call = [
        "org.freedesktop.Secret.Service.Lock",
        "array:objpath:/org/freedesktop/secrets/collection/login",
    ];
    let mut command = Command::new("dbus-send");
    command.args(target).args(call);
    command
}

/// Replaces the daemon on the current bus; the new one opens the same folder.
pub fn restart_daemon() {
    let done = Command::new("sh")
        .args(["-c", &UNLOCK_COMMAND.replace("--unlock", "--replace --unlock")])
        .status()
        .expect("a shell");
    assert!(done.success());
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

fn write_file(path: &std::path::Path, text: &str) {
    fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
}

const BUS_MARKER: &str = "AIPROXY_TEST_ON_THE_BUS";
/// The attributes of aiproxy's entries, up to the label.
const ENTRY: &str = "service aiproxy username";
/// The passphrase is sent without a line end.
const UNLOCK_COMMAND: &str =
    "printf test-pass | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1";
