//! The screen of an `up` in the foreground: logs, dev mode beside them, and keys.

use std::cell::Cell;
use std::io::Write as _;

use anstyle::Style;
use tokio::sync::oneshot;

use super::attached::Attached;
use super::error::{Error, Outcome};
use super::keys::{self, Key, Keys};
use super::ui::{self, ProgressMode};
use super::watching::Watching;
use crate::engine::control;

/// Brings a project up and stays with it, with dev mode where `watching` is there already or a key asks for it: then
/// `begin` makes it. With `menu`, keys are obeyed on a terminal.
pub(crate) async fn run<'a>(
    attached: &Attached<'_>,
    up: control::Up,
    watching: &mut Option<Watching<'a>>,
    begin: &impl AsyncFn() -> Result<Watching<'a>, Error>,
    menu: bool,
) -> Outcome {
    let mut keys = if menu { Keys::new()? } else { None };
    let (settled, ready) = oneshot::channel();
    let stays = Cell::new(watching.is_some());
    let aside = async {
        if ready.await.is_err() {
            return std::future::pending().await;
        }
        let ui = attached.context.ui;
        if keys.is_some() && ui.progress != ProgressMode::Quiet {
            let words = " w  dev mode on or off    d  detach    ctrl-c  stop";
            writeln!(ui.err(), "{}", ui.styled(Style::new().dimmed(), words))?;
        }
        loop {
            stays.set(watching.is_some());
            match pressed(watching, &mut keys, attached).await? {
                Key::Detach => {
                    writeln!(
                        ui.err(),
                        "{} Detached: the stack goes on; `stack down` ends it",
                        ui.styled(ui::HELP, " ⦿")
                    )?;
                    return Ok(0);
                }
                Key::Watch if watching.take().is_some() => {
                    writeln!(ui.err(), "{} Watch disabled", ui.styled(ui::HELP, " ⦿"))?;
                }
                Key::Watch => match begin().await {
                    Ok(begun) => *watching = Some(begun),
                    Err(error) => drop(error.report(ui)),
                },
                Key::Line => {}
            }
        }
    };
    tokio::select! {
        done = attached.run(up, settled, &stays) => done,
        done = aside => done,
    }
}

/// Keeps dev mode going, where there is one, until a key asks for something else.
async fn pressed(
    watching: &mut Option<Watching<'_>>,
    keys: &mut Option<Keys>,
    attached: &Attached<'_>,
) -> Result<Key, Error> {
    let running = async {
        match watching {
            Some(watching) => watching.run().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(running);
    loop {
        tokio::select! {
            // It never ends well.
            failed = &mut running => match failed {
                Err(error) => return Err(error),
                Ok(()) => return Ok(Key::Watch),
            },
            key = keys::next(keys) => match key? {
                Key::Line => writeln!(attached.context.ui.out())?,
                key => return Ok(key),
            },
        }
    }
}
