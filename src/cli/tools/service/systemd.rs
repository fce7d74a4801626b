//! A user service of systemd.

use std::path::PathBuf;

use crate::cli::error::CliError;

use super::{
    definition::{Definition, config_home},
    manager::{RegisteredService, ServiceManager, call, call_ok, remove_file, write_file},
};

const UNIT: &str = "aiproxy.service";
const MARK: &str = "# Written by `aiproxy service install`";

/// Settings that need mounts of the unit's own, which some systems allow no user.
const OWN_MOUNTS: &str = "\
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
";

/// Settings that work for every user. The limit of core files is set by the program itself, which
/// needs `@resources`.
const RESTRICTIONS: &str = "\
NoNewPrivileges=yes
UMask=0077
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
";

/// The manager of this user's services.
pub(super) struct Systemd;

impl Systemd {
    fn unit_file() -> Result<PathBuf, CliError> {
        Ok(config_home()?.join("systemd/user").join(UNIT))
    }
}

impl ServiceManager for Systemd {
    fn render(&self, definition: &Definition) -> String {
        render_unit(definition, true)
    }

    fn file(&self) -> Result<Option<PathBuf>, CliError> {
        Self::unit_file().map(Some)
    }

    fn check(&self) -> Result<(), CliError> {
        let asked = call("systemctl", &["--user", "show", "--property=Version"]);
        if asked.is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        Err(CliError::failed("no systemd runs services for this user").hint(
            "run `aiproxy serve` yourself; `aiproxy service install --print` prints the unit for \
             another machine; in a session without a login, `loginctl enable-linger` starts systemd",
        ))
    }

    fn install(&self, definition: &Definition) -> Result<Option<String>, CliError> {
        let has_mounts = allows_own_mounts();
        write_file(&Self::unit_file()?, &render_unit(definition, has_mounts), MARK)?;
        call_ok("systemctl", &["--user", "daemon-reload"])?;
        call_ok("systemctl", &["--user", "--quiet", "enable", UNIT])?;
        let note = "this system gives no user service mounts of its own: the unit is installed \
                    without the protection that needs them";
        Ok((!has_mounts).then(|| note.to_owned()))
    }

    fn start(&self) -> Result<(), CliError> {
        call_ok("systemctl", &["--user", "start", UNIT]).map(drop)
    }

    fn stop(&self) -> Result<(), CliError> {
        call_ok("systemctl", &["--user", "stop", UNIT]).map(drop)
    }

    fn state(&self) -> Result<RegisteredService, CliError> {
        const FIELDS: &str = "--property=LoadState,ActiveState,UnitFileState,MainPID";
        let output = call_ok("systemctl", &["--user", "show", UNIT, FIELDS])?;
        let state = read_state(&String::from_utf8_lossy(&output.stdout));
        Ok(RegisteredService { installed: state.installed && Self::unit_file()?.exists(), ..state })
    }

    fn uninstall(&self) -> Result<(), CliError> {
        call_ok("systemctl", &["--user", "--quiet", "disable", "--now", UNIT])?;
        remove_file(&Self::unit_file()?)?;
        call_ok("systemctl", &["--user", "daemon-reload"])?;
        // Fails if the unit did not fail before.
        drop(call("systemctl", &["--user", "reset-failed", UNIT]));
        Ok(())
    }

    fn log_command(&self) -> &'static str {
        "journalctl --user -u aiproxy"
    }
}

/// Whether a service of this user can have mounts of its own.
fn allows_own_mounts() -> bool {
    let mut args = vec!["--user", "--wait", "--collect", "--quiet"];
    let properties: Vec<String> =
        OWN_MOUNTS.lines().map(|line| format!("--property={line}")).collect();
    args.extend(properties.iter().map(String::as_str));
    args.push("true");
    // Without the program to try it, systemd itself is believed.
    call("systemd-run", &args).is_ok_and(|output| output.status.success())
}

fn render_unit(definition: &Definition, has_mounts: bool) -> String {
    let command: Vec<String> = std::iter::once(definition.program.display().to_string())
        .chain(definition.args.iter().cloned())
        .map(|word| quote(&word.replace('$', "$$")))
        .collect();
    let mut lines = vec![
        format!("{MARK}; `aiproxy service uninstall` removes it."),
        "[Unit]".to_owned(),
        "Description=aiproxy, a proxy for AI providers".to_owned(),
        String::new(),
        "[Service]".to_owned(),
        "Type=notify".to_owned(),
        format!("ExecStart={}", command.join(" ")),
        "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
    ];
    for (name, value) in &definition.variables {
        lines.push(format!("Environment={}", quote(&format!("{name}={value}"))));
    }
    let variables = definition.variables_file.display().to_string();
    lines.push(
        "# Variables of the service, one NAME=value a line; mode 600 if keys are in it.".into(),
    );
    lines.push(format!("EnvironmentFile=-{}", escape(&variables)));
    lines.extend([
        "Restart=on-failure".to_owned(),
        "RestartSec=1s".to_owned(),
        "# Wrong arguments and a broken config do not get better.".to_owned(),
        "RestartPreventExitStatus=2 3".to_owned(),
        format!("TimeoutStopSec={}s", definition.stop_timeout.as_secs()),
        String::new(),
    ]);
    if has_mounts {
        let writable = definition.writable.iter().map(|folder| folder.display().to_string());
        let writable: Vec<String> = writable.map(|folder| quote(&format!("-{folder}"))).collect();
        lines.push(format!("ReadWritePaths={}", writable.join(" ")));
        lines.push(OWN_MOUNTS.trim_end().to_owned());
    }
    lines.push(RESTRICTIONS.trim_end().to_owned());
    lines.extend([String::new(), "[Install]".to_owned(), "WantedBy=default.target".to_owned()]);
    lines.join("\n") + "\n"
}

/// Escapes what systemd would replace.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

/// Quotes a word if it needs that.
fn quote(word: &str) -> String {
    let word = escape(word);
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@:,=%$".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Reads the lines of `systemctl show`.
fn read_state(text: &str) -> RegisteredService {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim()
    };
    let active = field("ActiveState");
    RegisteredService {
        installed: field("LoadState") == "loaded",
        enabled: field("UnitFileState") == "enabled",
        running: matches!(active, "active" | "reloading"),
        failed: active == "failed",
        pid: field("MainPID").parse().ok().filter(|pid| *pid > 0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn definition() -> Definition {
        Definition {
            program: "/usr/bin/aiproxy".into(),
            args: ["serve", "--config", "/a b/100%/$c.toml"].map(str::to_owned).into(),
            writable: vec!["/a b/data".into()],
            variables: vec![("A".to_owned(), "b c".to_owned())],
            variables_file: "/a b/env".into(),
            stop_timeout: Duration::from_secs(40),
            key_variables: vec!["BOX_KEY".to_owned()],
        }
    }

    #[test]
    fn paths_with_spaces_and_special_characters_are_quoted() {
        let unit = render_unit(&definition(), true);
        for line in [
            "ExecStart=/usr/bin/aiproxy serve --config \"/a b/100%%/$$c.toml\"",
            "Environment=\"A=b c\"",
            "EnvironmentFile=-/a b/env",
            "ReadWritePaths=\"-/a b/data\"",
            "TimeoutStopSec=40s",
            "ProtectSystem=strict",
            "WantedBy=default.target",
        ] {
            assert!(unit.lines().any(|known| known == line), "{line}\n{unit}");
        }
        assert!(!unit.contains("BOX_KEY"));
        let unit = render_unit(&definition(), false);
        assert!(!unit.contains("Protect") && unit.contains("NoNewPrivileges=yes"), "{unit}");
    }

    #[test]
    fn unit_state_is_parsed() {
        let state =
            read_state("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nMainPID=12\n");
        assert!(state.installed && state.enabled && state.running && !state.failed);
        assert_eq!(state.pid, Some(12));
        let state =
            read_state("LoadState=not-found\nActiveState=inactive\nUnitFileState=\nMainPID=0\n");
        assert_eq!(state, RegisteredService::default());
    }
}
