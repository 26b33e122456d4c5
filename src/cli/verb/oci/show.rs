//! What `stack oci` prints.

use std::io::Write as _;

use serde::Serialize;

use super::args::{Form, List, Ps};
use crate::cli::error::Error;
use crate::cli::table::Table;
use crate::cli::ui::Ui;
use crate::runtime::oci::State;

/// Prints a value as JSON over several lines.
pub(super) fn json(value: &impl Serialize) -> Result<(), Error> {
    writeln!(Ui::new(None, None).out(), "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Prints containers.
pub(super) fn list(states: &[State], list: &List) -> Result<(), Error> {
    let mut out = Ui::new(None, None).out();
    if list.quiet {
        states.iter().try_for_each(|state| writeln!(out, "{}", state.id))?;
        return Ok(());
    }
    if list.format == Form::Json {
        drop(out);
        return json(&states);
    }
    let mut table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for state in states {
        let status = serde_json::to_value(state.status)?;
        table.row([
            state.id.clone(),
            state.pid.to_string(),
            status.as_str().unwrap_or_default().to_owned(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]);
    }
    write!(out, "{}", table.render())?;
    Ok(())
}

/// Prints processes.
pub(super) fn processes(pids: &[i32], ps: &Ps) -> Result<(), Error> {
    if ps.format == Form::Json {
        return json(&pids);
    }
    let mut table = Table::new(&["UID", "PID", "PPID", "CMD"]);
    for process in pids.iter().filter_map(|pid| crate::cli::verb::top::process(*pid)) {
        table.row([process.uid.to_string(), process.pid.to_string(), process.parent.to_string(), process.command]);
    }
    write!(Ui::new(None, None).out(), "{}", table.render())?;
    Ok(())
}
