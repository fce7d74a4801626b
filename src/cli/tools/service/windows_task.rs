//! A task that Windows starts at logon.

use std::path::PathBuf;

use crate::cli::error::CliError;

use super::{
    definition::Definition,
    manager::{RegisteredService, ServiceManager, call, call_ok},
};

const TASK: &str = "aiproxy";

/// The tasks of this user.
pub(super) struct WindowsTask;

impl ServiceManager for WindowsTask {
    fn render(&self, definition: &Definition) -> String {
        format!(
            "schtasks /Create /F /SC ONLOGON /RL LIMITED /TN {TASK} /TR \"{}\"\n",
            command_line(definition).replace('"', "\\\"")
        )
    }

    fn file(&self) -> Result<Option<PathBuf>, CliError> {
        Ok(None)
    }

    fn check(&self) -> Result<(), CliError> {
        let asked = call("schtasks", &["/Query", "/FO", "LIST", "/TN", "\\"]);
        if asked.is_ok() {
            return Ok(());
        }
        Err(CliError::failed("no task scheduler answers").hint("run `aiproxy serve` yourself"))
    }

    fn install(&self, definition: &Definition) -> Result<Option<String>, CliError> {
        let line = command_line(definition);
        let mut args = vec!["/Create", "/F", "/SC", "ONLOGON", "/RL", "LIMITED", "/TN", TASK];
        args.extend(["/TR", &line]);
        call_ok("schtasks", &args)?;
        Ok(None)
    }

    fn start(&self) -> Result<(), CliError> {
        call_ok("schtasks", &["/Run", "/TN", TASK]).map(drop)
    }

    fn stop(&self) -> Result<(), CliError> {
        call_ok("schtasks", &["/End", "/TN", TASK]).map(drop)
    }

    fn state(&self) -> Result<RegisteredService, CliError> {
        let output = call("schtasks", &["/Query", "/FO", "LIST", "/TN", TASK])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let installed = output.status.success();
        let running = text.lines().any(|line| line.ends_with("Running"));
        Ok(RegisteredService { installed, enabled: installed, running, failed: false, pid: None })
    }

    fn uninstall(&self) -> Result<(), CliError> {
        // It refuses a task that does not run.
        drop(call("schtasks", &["/End", "/TN", TASK]));
        call_ok("schtasks", &["/Delete", "/F", "/TN", TASK]).map(drop)
    }

    fn log_command(&self) -> &'static str {
        "schtasks /Query /V /FO LIST /TN aiproxy"
    }
}

/// The command line, with quotes where Windows needs them.
fn command_line(definition: &Definition) -> String {
    let words = std::iter::once(definition.program.display().to_string())
        .chain(definition.args.iter().cloned());
    let quoted = words.map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_quotes_paths_with_spaces() {
        let definition = Definition {
            program: r"C:\Program Files\aiproxy.exe".into(),
            args: ["serve", "--data-dir", r"D:\data"].map(str::to_owned).into(),
            ..Definition::default()
        };
        let line = command_line(&definition);
        assert_eq!(line, "\"C:\\Program Files\\aiproxy.exe\" serve --data-dir D:\\data");
        assert!(WindowsTask.render(&definition).starts_with("schtasks /Create"));
    }
}
