//! exec, run and attach at a terminal: its size, its keys, letting go.

use crate::pty::Terminal;
use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  app: { image: stack/host, init: true, command: ["sleep", "infinity"] }
  shell: { image: stack/host, command: ["sh"], tty: true, stdin_open: true }
"#;

fn up() -> Sandbox {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up -d").ok();
    sandbox
}

/// The program inside has the window's size, and hears when it changes.
fn sizes(terminal: &mut Terminal) {
    terminal.key("stty size\n");
    terminal.until_shown("24 80\r\n");
    terminal.resize((132, 43));
    // The size arrives a moment after the window has it.
    terminal.key("until [ \"$(stty size)\" = '43 132' ]; do :; done; echo re''sized\n");
    terminal.until_shown("resized\r\n");
}

#[test]
fn exec_has_the_windows_size_and_its_exit_code() {
    let sandbox = up();
    let mut terminal = Terminal::start(&sandbox, &["exec", "app", "sh"]);
    sizes(&mut terminal);
    terminal.key("exit 5\n");
    assert_eq!(terminal.finish(), 5);
}

#[test]
fn detach_keys_leave_the_process_alone() {
    let sandbox = up();
    let mut terminal = Terminal::start(&sandbox, &["exec", "app", "sh", "-c", "echo re''ady; exec sleep 4321"]);
    terminal.until_shown("ready");
    terminal.key("\x10\x11");
    assert_eq!(terminal.finish(), 0);
    assert!(sandbox.stack("top app").ok().out.contains("sleep 4321"));

    let mut terminal = Terminal::start(&sandbox, &["run", "--name", "mine", "app", "sh"]);
    sizes(&mut terminal);
    terminal.key("\x10\x11");
    assert_eq!(terminal.finish(), 0);
    let row = sandbox.ps().into_iter().find(|row| row["Name"] == "mine");
    assert_eq!(row.unwrap()["State"], "running");
    sandbox.stack("down --remove-orphans -t 0").ok();
}

#[test]
fn run_ends_with_its_programs_code_and_gives_the_terminal_back() {
    let sandbox = up();
    let mut terminal = Terminal::start(&sandbox, &["run", "--rm", "app", "sh"]);
    sizes(&mut terminal);
    terminal.key("exit 3\n");
    assert_eq!(terminal.finish(), 3);
}

#[test]
fn attach_types_resizes_and_lets_go() {
    let sandbox = up();
    let mut terminal = Terminal::start(&sandbox, &["attach", "shell"]);
    terminal.key("echo typ''ed\n");
    terminal.until_shown("typed\r\n");
    terminal.resize((132, 43));
    terminal.key("until [ \"$(stty size)\" = '43 132' ]; do :; done; echo re''sized\n");
    terminal.until_shown("resized");
    terminal.key("\x10\x11");
    assert_eq!(terminal.finish(), 0);
    assert_eq!(sandbox.field("shell", "State"), "running");
    let mut terminal = Terminal::start(&sandbox, &["attach", "--detach-keys", "ctrl-x", "shell"]);
    terminal.key("echo ag''ain\n");
    terminal.until_shown("again");
    terminal.key("\x18");
    assert_eq!(terminal.finish(), 0);
    let mut terminal = Terminal::start(&sandbox, &["attach", "shell"]);
    terminal.key("exit 4\n");
    assert_eq!(terminal.finish(), 4);
}

#[test]
fn stats_show_what_changes_until_they_are_told_to_end() {
    let sandbox = up();
    let terminal = Terminal::start(&sandbox, &["stats"]);
    for column in ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"] {
        terminal.until_shown(column);
    }
    terminal.until_shown("-app-1");
    sandbox.stack("stop shell -t 0").ok();
    let last = || terminal.seen().rsplit("CONTAINER ID").next().unwrap_or_default().to_owned();
    crate::poll::until_true("one is gone", || last().contains("-app-1") && !last().contains("-shell-1"));
    // Whoever runs the tests may have it ignore interrupts.
    terminal.signal(nix::sys::signal::Signal::SIGTERM);
    terminal.finish();
    let json = sandbox.stack("stats --no-stream --format json").ok().out;
    let row: serde_json::Value = serde_json::from_str(&json).unwrap();
    for field in ["BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"] {
        assert!(row[field].is_string(), "{field} in {row}");
    }
    let own = sandbox.stack_args(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"]).ok().out;
    assert_eq!(own, format!("{}-app-1 2\n", sandbox.project));
}
