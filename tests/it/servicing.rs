//! `aiproxy service`, as far as it goes without a service manager.

use std::process::Output;

use crate::support::home::Home;

fn run(home: &Home, args: &[&str]) -> Output {
    home.command().arg("service").args(args).output().expect("aiproxy service")
}

fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

const KEYS: &str = "[[upstream]]\nname = \"box\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                    dialect = \"openai\"\nkeys = [\"env:BOX_KEY\"]\n";

#[test]
fn unit_has_the_config_path_and_no_key() {
    let mut home = Home::new();
    home.set("BOX_KEY", "sk-service-0123456789");
    home.write_config(KEYS);
    let output = run(&home, &["install", "--print"]);
    let unit = printed(&output);
    assert!(output.status.success(), "{unit}");
    let start = unit.lines().find(|line| line.starts_with("ExecStart=/")).expect("a command");
    for path in [home.config(), home.data()] {
        assert!(start.contains(&path.display().to_string()), "{start}");
    }
    for line in ["Type=notify", "Restart=on-failure", "TimeoutStopSec=40s", "NoNewPrivileges=yes"] {
        assert!(unit.lines().any(|known| known == line), "{line}\n{unit}");
    }
    assert!(!unit.contains("sk-service") && !unit.contains("BOX_KEY"), "{unit}");
    assert!(!home.data().exists() && !home.path().join(".config").exists());
}

#[test]
fn nothing_is_written_without_a_service_manager() {
    let home = Home::new();
    home.write_config(KEYS);
    for verb in ["install", "start", "stop", "status", "uninstall"] {
        let output = run(&home, &[verb, "--yes"]);
        assert_eq!(output.status.code(), Some(1), "{verb}: {}", printed(&output));
        let text = printed(&output);
        assert!(text.contains("systemd") && text.contains("aiproxy serve"), "{text}");
        assert!(!home.path().join(".config").exists() && !home.data().exists(), "{verb}");
    }
}
