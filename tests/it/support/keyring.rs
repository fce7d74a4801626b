//! A real Secret Service on a bus of its own, in a home of its own.
//!
//! A process talks to one bus, the one it was started with: a test that uses the keyring inside the
//! process runs its own binary again, on the bus ([`on_the_bus`]); others give [`Ring::env`] to the
//! programs they start.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// What answers on the bus.
#[derive(Clone, Copy, PartialEq)]
pub enum Service {
    /// A daemon whose collection was never made: it answers, and has nowhere to keep anything.
    NeverUnlocked,
    /// There is a bus, and nobody on it.
    Absent,
    /// There is no bus.
    NoBus,
    /// A service that the bus starts and that never says anything.
    Silent,
    Unlocked,
}

/// A bus and what answers on it, until dropped.
pub struct TestKeyring {
    home: tempfile::TempDir,
    address: String,
    bus: Option<Child>,
}

impl TestKeyring {
    /// `None`, and a line that says so, where the programs for it are not installed.
    pub fn start(service: Service) -> Option<Self> {
        let home = tempfile::Builder::new().prefix("aiproxy-ring-").tempdir().expect("a home");
        if service == Service::NoBus {
            return Some(Self { home, address: String::new(), bus: None });
        }
        for program in ["dbus-run-session", "dbus-send", "gnome-keyring-daemon"] {
            if !is_installed(program) {
                println!(
                    "skipped: {program} is not installed (apt-get install gnome-keyring dbus)"
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
        // With the system's own configuration the bus would start a daemon by itself.
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
        let mut said = BufReader::new(bus.stdout.take().expect("piped")).lines();
        ring.address = said.next().expect("an address").expect("readable");
        assert_eq!(
            said.next().expect("a word").expect("readable"),
            "up",
            "the Secret Service did not start"
        );
        ring.bus = Some(bus);
        Some(ring)
    }

    /// The variables that lead a program here.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let home = self.home.path().display().to_string();
        vec![
            ("DBUS_SESSION_BUS_ADDRESS", self.address.clone()),
            ("HOME", home.clone()),
            ("XDG_DATA_HOME", format!("{home}/data")),
            ("XDG_RUNTIME_DIR", home),
        ]
    }

    fn write_config(&self, service: Service) -> PathBuf {
        let services = self.home.path().join("services");
        fs::create_dir(&services).expect("a folder");
        if service == Service::Silent {
            // It goes by itself: the bus does not take it along.
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
            // Without its input `cat` ends, with it the session, with that the daemon.
            drop(bus.stdin.take());
            drop(bus.wait());
        }
    }
}

/// Runs the body of a test on a bus of its own. `name` is the test's own full name.
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
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

/// Locks the collection of the bus we are on.
pub fn lock_collection() {
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
    let done = Command::new("dbus-send").args(target).args(call).output().expect("dbus-send");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Puts a new daemon in the place of the one on our bus; it opens the same folder.
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
/// The passphrase goes in without a line end.
const UNLOCK_COMMAND: &str =
    "printf test-pass | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1";
