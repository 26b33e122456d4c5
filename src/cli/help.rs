//! `stack --help`: the verbs in groups, with the commands one needs first.

use clap::Command;
use clap::builder::StyledStr;

/// Headings and the verbs below them, in reading order.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run a stack", &["up", "down", "plan", "why", "timeline", "ps", "logs", "watch", "ls"]),
    (
        "Control its services",
        &["create", "start", "stop", "restart", "kill", "pause", "unpause", "scale", "update", "wait", "rm"],
    ),
    ("Work inside", &["exec", "run", "attach", "cp", "top", "stats", "events", "port", "export", "commit", "diff"]),
    (
        "The file and its images",
        &[
            "config", "build", "pull", "push", "lock", "images", "image", "login", "logout", "volumes", "volume",
            "network", "system",
        ],
    ),
    ("About stack", &["oci", "doctor", "limits", "completion", "version"]),
];

const EXAMPLES: &str = "\
Examples:
  stack up                     start everything and show the logs; Ctrl-C stops it
  stack up -d --wait           start in the background, return when all is healthy
  stack plan                   what 'up' would change, and why
  stack ps                     what runs, and on which ports
  stack logs -f web            follow one service's output
  stack exec web sh            a shell inside
  stack down -v                stop and remove, volumes included

The stack file is stack.yaml, compose.yaml or docker-compose.yml in this folder or one above it.
COMPOSE_FILE, COMPOSE_PROJECT_NAME, COMPOSE_PROFILES and their like work as in docker compose;
STACK_ROOT stands for --root, and NO_COLOR switches colours off.
Run 'stack VERB --help' for a verb's own options.";

/// The root command with its verbs listed by group.
pub(super) fn grouped(root: Command) -> Command {
    let mut verbs = String::new();
    for (heading, names) in GROUPS {
        let lines: Vec<String> = names
            .iter()
            .filter_map(|name| root.find_subcommand(name))
            .map(|verb| format!("  {:<10} {}\n", verb.get_name(), verb.get_about().unwrap_or(&StyledStr::new())))
            .collect();
        if !lines.is_empty() {
            verbs.extend(["\n", heading, ":\n", &lines.concat()]);
        }
    }
    let template = format!("{{about}}\n\n{{usage-heading}} {{usage}}\n{verbs}\nOptions:\n{{options}}{{after-help}}");
    root.help_template(template).after_help(format!("\n{EXAMPLES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_a_group() {
        let root = super::super::args::command();
        for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let times = GROUPS.iter().filter(|(_, names)| names.contains(&verb.get_name())).count();
            assert_eq!(times, 1, "{}", verb.get_name());
        }
    }
}
