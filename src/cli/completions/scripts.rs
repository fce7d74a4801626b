//! The completion scripts. Those for bash, zsh and fish call the program, and contain a generated
//! script for the case that it cannot be called.

use clap::Command;
use clap_complete::Shell;

/// Returns the script of a shell.
pub(super) fn script(shell: Shell, mut command: Command) -> String {
    let mut generated = Vec::new();
    clap_complete::generate(shell, &mut command, "aiproxy", &mut generated);
    let generated = String::from_utf8_lossy(&generated);
    match shell {
        Shell::Bash => {
            let fallback = before(&generated, "\nif [[ \"${BASH_VERSINFO[0]}\" -eq 4");
            format!("{}{}", as_fallback(fallback), include_str!("aiproxy.bash"))
        }
        // Fish loads the script at the first Tab, when the program is usually there.
        Shell::Fish => {
            format!("if command -q aiproxy\n{}else\n{generated}end\n", include_str!("aiproxy.fish"))
        }
        Shell::Zsh => {
            let fallback = before(&generated, "\nif [ \"$funcstack[1]\" = \"_aiproxy\" ]");
            format!("{}{}", as_fallback(fallback), include_str!("aiproxy.zsh"))
        }
        _ => generated.into_owned(),
    }
}

/// The generated script without its last lines, which register its function.
fn before<'a>(generated: &'a str, registration: &str) -> &'a str {
    generated.split(registration).next().unwrap_or_default()
}

/// The generated script with another name for its function.
fn as_fallback(generated: &str) -> String {
    generated.replacen("\n_aiproxy() {", "\n_aiproxy_static() {", 1).replacen(
        // In bash, it is the first line.
        "_aiproxy() {\n    local i",
        "_aiproxy_static() {\n    local i",
        1,
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_script_registers_one_function_and_has_a_fallback() {
        for (shell, registration) in [
            (Shell::Bash, "\ncomplete -F _aiproxy aiproxy\n"),
            (Shell::Zsh, "\n    compdef _aiproxy aiproxy\n"),
            (Shell::Fish, "\ncomplete -c aiproxy -f -a '(__aiproxy_complete)'\n"),
        ] {
            let text = script(shell, Cli::command());
            assert!(text.contains("aiproxy __complete"), "{shell}");
            assert_eq!(text.matches(registration).count(), 1, "{shell}");
            assert!(text.contains("session"), "{shell}: closed lists of the fallback");
            let functions = |name: &str| text.matches(&format!("\n{name}() {{")).count();
            if shell != Shell::Fish {
                assert_eq!(functions("_aiproxy"), 1, "{shell}");
                assert!(text.contains("_aiproxy_static() {\n"), "{shell}");
            }
        }
        assert!(script(Shell::Zsh, Cli::command()).starts_with("#compdef aiproxy\n"));
        assert!(script(Shell::Elvish, Cli::command()).contains("upstream"));
    }
}
