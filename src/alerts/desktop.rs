//! Shows desktop notifications with the programs of each system. The text is never part of a
//! script.

use std::{collections::HashMap, io, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// Limit for the run time of these programs.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// The environment variables that these programs need to reach the desktop. They get no others,
/// because some variables contain keys.
const PASSED_VARIABLES: [&str; 18] = [
    "APPDATA",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOCALAPPDATA",
    "LOGNAME",
    "PATH",
    "PATHEXT",
    "PSModulePath",
    "SystemRoot",
    "TEMP",
    "TMP",
    "USER",
    "USERPROFILE",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
];

/// One way to show a notification: a program, its arguments and its environment variables.
struct Notifier {
    program: &'static str,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

/// Shows a notification.
///
/// # Errors
///
/// A sentence: no program is installed, or it failed.
pub async fn show_notification(
    title: &str,
    text: &str,
    urgent: bool,
    env: &HashMap<String, String>,
) -> Result<&'static str, String> {
    let notifiers = notifiers(title, text, urgent);
    let names: Vec<&str> = notifiers.iter().map(|notifier| notifier.program).collect();
    for notifier in notifiers {
        let mut command = Command::new(notifier.program);
        command
            .args(&notifier.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command.envs(PASSED_VARIABLES.iter().filter_map(|name| Some((*name, env.get(*name)?))));
        command.envs(notifier.variables.iter().map(|(name, value)| (*name, value)));
        match timeout(COMMAND_TIMEOUT, command.status()).await {
            Ok(Ok(status)) if status.success() => return Ok(notifier.program),
            Ok(Ok(status)) => {
                return Err(format!(
                    "{} ended with {status}; is there a desktop session?",
                    notifier.program
                ));
            }
            // Try the next program.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) => {
                return Err(format!("{} cannot be started: {error}", notifier.program));
            }
            Err(_) => {
                return Err(format!(
                    "{} did not end within {} s",
                    notifier.program,
                    COMMAND_TIMEOUT.as_secs()
                ));
            }
        }
    }
    Err(format!("there is no {} here", names.join(" and no ")))
}

#[cfg(not(any(target_os = "macos", windows)))]
fn notifiers(title: &str, text: &str, urgent: bool) -> Vec<Notifier> {
    let urgency = if urgent { "critical" } else { "normal" };
    let to_strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    // Some desktops interpret markup in the text.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let hints = format!("{{'urgency': <byte {}>}}", if urgent { 2 } else { 1 });
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    vec![
        Notifier {
            program: "notify-send",
            arguments: to_strings(&[
                "--app-name=aiproxy",
                &format!("--urgency={urgency}"),
                "--",
                title,
                &text,
            ]),
            variables: Vec::new(),
        },
        // This program comes with the desktop's own libraries, while the other must be installed.
        // It reads its arguments as values.
        Notifier {
            program: "gdbus",
            arguments: to_strings(&[
                "call",
                "--session",
                "--timeout=5",
                "--dest=org.freedesktop.Notifications",
                "--object-path=/org/freedesktop/Notifications",
                "--method=org.freedesktop.Notifications.Notify",
                "--",
                "\"aiproxy\"",
                "0",
                "\"\"",
                &quoted(title),
                &quoted(&text),
                "[]",
                &hints,
                "-1",
            ]),
            variables: Vec::new(),
        },
    ]
}

#[cfg(target_os = "macos")]
fn notifiers(title: &str, text: &str, _urgent: bool) -> Vec<Notifier> {
    let script = [
        "on run argv",
        "display notification (item 2 of argv) with title (item 1 of argv)",
        "end run",
    ];
    let mut arguments: Vec<String> =
        script.iter().flat_map(|line| ["-e".to_owned(), (*line).to_owned()]).collect();
    arguments.extend(["--", title, text].map(str::to_owned));
    vec![Notifier { program: "osascript", arguments, variables: Vec::new() }]
}

#[cfg(windows)]
fn notifiers(title: &str, text: &str, _urgent: bool) -> Vec<Notifier> {
    const SCRIPT: &str = "\
$null = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType = WindowsRuntime];\
$t = [Windows.UI.Notifications.ToastNotificationManager]::GetTemplateContent([Windows.UI.Notifications.ToastTemplateType]::ToastText02);\
$n = $t.GetElementsByTagName('text');\
$null = $n.Item(0).AppendChild($t.CreateTextNode($env:AIPROXY_TITLE));\
$null = $n.Item(1).AppendChild($t.CreateTextNode($env:AIPROXY_TEXT));\
$id = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\\WindowsPowerShell\\v1.0\\powershell.exe';\
[Windows.UI.Notifications.ToastNotificationManager]::CreateToastNotifier($id).Show([Windows.UI.Notifications.ToastNotification]::new($t))";
    let arguments =
        ["-NoProfile", "-NonInteractive", "-Command", SCRIPT].map(str::to_owned).to_vec();
    let variables = vec![("AIPROXY_TITLE", title.to_owned()), ("AIPROXY_TEXT", text.to_owned())];
    vec![Notifier { program: "powershell", arguments, variables }]
}

#[cfg(all(unix, not(target_os = "macos")))]
#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &std::path::Path, name: &str, script: &str) {
        let path = folder.join(name);
        crate::base::fs::write_atomic(&path, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755)
            .unwrap();
    }

    #[tokio::test]
    async fn notifier_gets_the_text_unchanged_and_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        program(
            folder.path(),
            "notify-send",
            &format!(
                "/usr/bin/env > {0}; for a in \"$@\"; do echo \"[$a]\" >> {0}; done",
                out.display()
            ),
        );
        let env = [
            ("PATH", folder.path().display().to_string()),
            ("OPENAI_API_KEY", "sk-secret".to_owned()),
            ("DISPLAY", ":7".to_owned()),
        ];
        let env: HashMap<String, String> =
            env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let shown =
            show_notification("aiproxy: key rejected", "$(rm -rf ~) <b>`x`", true, &env).await;

        assert_eq!(shown, Ok("notify-send"));
        let seen = std::fs::read_to_string(out).unwrap();
        assert!(
            seen.contains("[$(rm -rf ~) &lt;b&gt;`x`]") && seen.contains("[aiproxy: key rejected]"),
            "{seen}"
        );
        assert!(seen.contains("DISPLAY=:7") && !seen.contains("sk-secret"), "{seen}");
    }
}
