//! An agent of launchd, on macOS.

use std::path::PathBuf;

use crate::{cli::error::CliError, config::Environment};

use super::{
    definition::Definition,
    manager::{RegisteredService, ServiceManager, call, call_ok, remove_file, write_file},
};

const LABEL: &str = "aiproxy";
const MARK: &str = "<!-- Written by `aiproxy service install`";

/// The agents of this user.
pub(super) struct Launchd;

impl Launchd {
    fn plist() -> Result<PathBuf, CliError> {
        let env = Environment::from_process();
        let home = env.get("HOME").filter(|home| !home.is_empty());
        let home = home.ok_or_else(|| CliError::failed("there is no home directory"))?;
        Ok(PathBuf::from(home).join("Library/LaunchAgents").join(format!("{LABEL}.plist")))
    }

    fn domain() -> String {
        #[cfg(unix)]
        let user = rustix::process::getuid().as_raw();
        #[cfg(not(unix))]
        let user = 0;
        format!("gui/{user}")
    }

    fn target() -> String {
        format!("{}/{LABEL}", Self::domain())
    }
}

impl ServiceManager for Launchd {
    fn render(&self, definition: &Definition) -> String {
        render_plist(definition)
    }

    fn file(&self) -> Result<Option<PathBuf>, CliError> {
        Self::plist().map(Some)
    }

    fn check(&self) -> Result<(), CliError> {
        let asked = call("launchctl", &["print", &Self::domain()]);
        if asked.is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        Err(CliError::failed("no launchd session of this user runs").hint(
            "run `aiproxy serve` yourself; `aiproxy service install --print` prints the agent",
        ))
    }

    fn install(&self, definition: &Definition) -> Result<Option<String>, CliError> {
        write_file(&Self::plist()?, &render_plist(definition), MARK)?;
        call_ok("launchctl", &["enable", &Self::target()])?;
        Ok(None)
    }

    fn start(&self) -> Result<(), CliError> {
        let path = Self::plist()?.display().to_string();
        // It refuses an agent that is loaded already.
        drop(call("launchctl", &["bootstrap", &Self::domain(), &path]));
        call_ok("launchctl", &["kickstart", &Self::target()]).map(drop)
    }

    fn stop(&self) -> Result<(), CliError> {
        call_ok("launchctl", &["bootout", &Self::target()]).map(drop)
    }

    fn state(&self) -> Result<RegisteredService, CliError> {
        let installed = Self::plist()?.exists();
        let output = call("launchctl", &["print", &Self::target()])?;
        let pid = read_pid(&String::from_utf8_lossy(&output.stdout));
        let running = output.status.success() && pid.is_some();
        Ok(RegisteredService { installed, enabled: installed, running, failed: false, pid })
    }

    fn uninstall(&self) -> Result<(), CliError> {
        // It refuses an agent that is not loaded.
        drop(call("launchctl", &["bootout", &Self::target()]));
        remove_file(&Self::plist()?)
    }

    fn log_command(&self) -> &'static str {
        "log show --last 10m --predicate 'process == \"aiproxy\"'"
    }
}

fn render_plist(definition: &Definition) -> String {
    let text = |word: &str| format!("<string>{}</string>", escape(word));
    let words = std::iter::once(definition.program.display().to_string())
        .chain(definition.args.iter().cloned());
    let words: String = words.map(|word| format!("        {}\n", text(&word))).collect();
    let variables = definition.variables.iter().map(|(name, value)| {
        format!("        <key>{}</key>\n        {}\n", escape(name), text(value))
    });
    let variables: String = variables.collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         {MARK}; `aiproxy service uninstall` removes it. -->\n\
         <plist version=\"1.0\">\n<dict>\n\
         \x20   <key>Label</key>\n    <string>{LABEL}</string>\n\
         \x20   <key>ProgramArguments</key>\n    <array>\n{words}    </array>\n\
         \x20   <key>EnvironmentVariables</key>\n    <dict>\n{variables}    </dict>\n\
         \x20   <key>RunAtLoad</key>\n    <true/>\n\
         \x20   <key>KeepAlive</key>\n    <dict>\n        <key>SuccessfulExit</key>\n        <false/>\n    \
         </dict>\n\
         \x20   <key>ExitTimeOut</key>\n    <integer>{}</integer>\n\
         \x20   <key>Umask</key>\n    <integer>63</integer>\n\
         </dict>\n</plist>\n",
        definition.stop_timeout.as_secs()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Reads the line `pid = N` of `launchctl print`.
fn read_pid(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.trim().strip_prefix("pid = ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launch_agent_escapes_each_argument() {
        let definition = Definition {
            program: "/opt/aiproxy".into(),
            args: ["serve", "--config", "/a & b/<c>.toml"].map(str::to_owned).into(),
            ..Definition::default()
        };
        let plist = render_plist(&definition);
        for line in ["<string>/opt/aiproxy</string>", "<string>/a &amp; b/&lt;c&gt;.toml</string>"]
        {
            assert!(plist.lines().any(|known| known.trim() == line), "{line}\n{plist}");
        }
        assert_eq!(plist.matches("<dict>").count(), plist.matches("</dict>").count());
        assert_eq!(read_pid("{\n\tstate = running\n\tpid = 41\n}"), Some(41));
    }
}
